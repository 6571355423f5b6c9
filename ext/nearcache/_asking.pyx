# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Asking: one request and its replies, on a connection of which nothing else is expected.

Nearly every exchange goes as usual: the request is taken in one piece, the replies come in time, and none of them is an
error. Such a one is carried out here, and other threads go on from the first byte sent to the first one received, with
no turn of the interpreter lock in between. Whatever is not usual stays as it has come, for those who know the whole
protocol: :meth:`Line.rest` hands out what was received and not understood.

A large value is received into its own bytes object and nowhere else, or, where the request says which reply is an
envelope, into the text that is in it; and sent from where it lies.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t
from libc.string cimport memchr, memcpy, memmove

from nearcache._envelopes cimport Opened, begin_opened, end_opened
from nearcache._lookup cimport is_data, is_int
from nearcache._polling cimport (
    MSG_DONTWAIT,
    POLLIN,
    iovec,
    msghdr,
    now_ns,
    poll,
    pollfd,
    recvmsg,
    sendmsg,
)
from nearcache._single cimport HEAD_BYTES


cdef extern from *:
    """
    #define HELD_BYTES ((size_t)16384)
    #define LONGEST_LINE ((size_t)64)
    """
    const size_t HELD_BYTES  # what is received at a time; a larger value is received into its own bytes
    const size_t LONGEST_LINE  # that is understood here


cdef enum:
    MOST_ITEMS = 1024  # of a list that is understood here
    MOST_DEPTH = 4
    MOST_BYTES = 536870912  # of a value; Redis has no larger ones
    MOST_TURNS = 64  # more is received until others have their turn

#: Not all of it has come; it is for others; it is a large value that begins here.
cdef object PART = object()
cdef object OTHER = object()
cdef object LARGE = object()


cdef class Pieces:
    """A request in three pieces, of which the middle one, a large value, lies where it has always been.

    Attributes:
        data: The same in one.
    """

    @property
    def data(self):
        if self.front is None:
            raise ValueError("nothing has been sealed")
        if self.back is None:
            return self.front
        return self.front + self.body[:self.size] + self.back


@cython.final
cdef class Line:
    """What is received on one connection. One thread at a time.

    Attributes:
        sent: How many bytes of the last request the kernel took.
        heard: Whether anything has come since.
        ended: Whether the end of the stream has.
    """

    cdef char[16384] data
    cdef size_t begin
    cdef size_t end
    cdef object large  # a value that has not come whole: bytes, or Opened
    cdef char *start  # of what is received into it
    cdef size_t size
    cdef size_t filled  # how much of that has come
    cdef Pieces request  # what may be said of the replies, or None
    cdef tuple usual  # how the reply that is due may be opened, if it is an envelope
    cdef int turns  # how often more may be received; below zero: as often as it takes
    cdef readonly Py_ssize_t sent
    cdef readonly bint heard
    cdef readonly bint ended

    def ask(self, int descriptor, request not None, Py_ssize_t count, double seconds, list values not None):
        """Send a request, and append its replies to ``values``. Returns whether all went as usual.

        Args:
            descriptor: Of a connected stream socket. No call blocks on it, whatever mode it is in.
            request: What to send: bytes, or :class:`Pieces`. They may say that one of the replies is an envelope, and
                what a usual one is: then it may come as :class:`Opened`, if it is a large one.
            count: How many replies there will be.
            seconds: When to give up, from now.
        Raises:
            OSError: The connection is gone.
        """
        cdef int64_t until_ns = now_ns() + <int64_t>(seconds * 1e9)
        begin_line(self, request)
        self.turns = -1
        if not converse(self, descriptor, request, until_ns):
            return False
        return carry_on(self, descriptor, until_ns, count, values) == DONE

    def expect(self, request not None):
        """Forget what was, for a request that somebody else sends."""
        begin_line(self, request)

    def go_on(self, int descriptor, Py_ssize_t count, list values not None):
        """Receive what is there, without waiting, and append to ``values`` those replies that are whole.

        Returns:
            True when there are so many; False when more is to come; None if it is not as usual: see :meth:`rest`.
        Raises:
            OSError: The connection is gone.
        """
        self.turns = MOST_TURNS
        cdef state_t state = carry_on(self, descriptor, 0, count, values)
        if state == MORE and not self.ended:
            return False
        return True if state == DONE else None

    def rest(self):
        """Return what has come and was not understood. It is not kept."""
        cdef bytes taken = PyBytes_FromStringAndSize(self.data + self.begin, self.end - self.begin)
        if self.large is not None:
            ahead = (<Opened>self.large).head[:(<Opened>self.large).ahead] if type(self.large) is Opened else b""
            taken = b"$%d\r\n" % len(self.large) + ahead + self.start[:self.filled] + taken
        self.large = None
        self.begin = self.end = 0
        return taken


cdef enum state_t:
    DONE = 0
    MORE = 1
    UNUSUAL = 2


cdef int begin_line(Line self, object request) except -1:
    self.begin = self.end = self.filled = 0
    self.large = None
    self.request = request if isinstance(request, Pieces) else None
    self.sent = 0
    self.heard = self.ended = False
    return 0


cdef state_t carry_on(Line self, int descriptor, int64_t until_ns, Py_ssize_t count, list values) except *:
    """Receive and read until there are so many replies, or the time is over."""
    cdef object value
    while len(values) < count:
        value = LARGE
        if self.large is None:
            self.usual = self.request.usual if self.request is not None and self.request.place == len(values) else None
            value = read_value(self, &self.begin, 0)
        if value is LARGE:
            value = read_large(self, descriptor, until_ns)
            if value is None:
                return MORE if self.filled < self.size or self.end - self.begin < 2 else UNUSUAL
        elif value is PART:
            if not make_room(self):
                return UNUSUAL
            if not receive(self, descriptor, until_ns, NULL, 0):
                return MORE
            continue
        elif value is OTHER:
            return UNUSUAL
        values.append(value)
    self.request = None
    return DONE if self.begin == self.end else UNUSUAL


def keep_freed(size_t size_bytes):
    """Have the C library keep what is freed for what is allocated next: at the end of the heap twice as much as this.

    A cache lets go of large values, and takes others of the same kind. glibc as it starts gives the end of the heap
    back to the kernel when 128 KiB of it are free, and to get it again, page by page, costs more than to receive a
    value into it. Once a mapped block of some size was freed, it keeps more (mallopt(3), M_MMAP_THRESHOLD), as in any
    program that has had a large file in memory. What the user has set (``MALLOC_TRIM_THRESHOLD_``) holds. No memory is
    touched; another C library does what it always does.
    """
    PyMem_RawFree(PyMem_RawMalloc(size_bytes))


def is_readable(int descriptor):
    """Whether something can be read from a socket now: bytes, an end, or an error."""
    cdef pollfd watched = pollfd(fd=descriptor, events=POLLIN, revents=0)
    return poll(&watched, 1, 0) != 0


def has_error(list values not None, error):
    """Whether any of the replies, which are no lists, is an error of this class."""
    cdef object value
    for value in values:
        if not is_data(<PyObject *>value) and not is_int(<PyObject *>value) and isinstance(value, error):
            return True
    return False


# -- the socket ----------------------------------------------------------------------------------------------------


cdef size_t gather(object request, iovec *places, size_t *count) except 0:
    """Where a request lies. Returns how long it is."""
    cdef Pieces pieces
    cdef bytes data
    if isinstance(request, Pieces):
        pieces = request
        data = pieces.front
        if pieces.back is not None:
            places[1] = iovec(iov_base=<void *>pieces.body, iov_len=pieces.size)
            places[2] = iovec(iov_base=PyBytes_AS_STRING(pieces.back), iov_len=<size_t>PyBytes_GET_SIZE(pieces.back))
            count[0] = 3
    else:
        data = request
    if data is None or PyBytes_GET_SIZE(data) == 0:
        raise ValueError("there is nothing to send")
    places[0] = iovec(iov_base=PyBytes_AS_STRING(data), iov_len=<size_t>PyBytes_GET_SIZE(data))
    if count[0] == 1:
        return places[0].iov_len
    return places[0].iov_len + places[1].iov_len + places[2].iov_len


cdef bint converse(Line self, int descriptor, object request, int64_t until_ns) except -1:
    """Send the request, and receive the first bytes. Returns False if there are none, or not all could be sent."""
    cdef iovec[3] places
    cdef size_t parts = 1
    cdef size_t size = gather(request, places, &parts)
    cdef msghdr message = message_of(places, parts)
    cdef ssize_t count
    with nogil:
        count = sendmsg(descriptor, &message, MSG_DONTWAIT)
        if count == <ssize_t>size:
            self.sent = count
            count = await_bytes(self, descriptor, until_ns, NULL, 0)  # nothing can be there yet
        elif count >= 0:
            self.sent = count
            count = -2
        elif errno == EAGAIN or errno == EINTR:
            count = -2
    if count == -2 and self.sent < <Py_ssize_t>size:
        return False
    return take_in(self, descriptor, until_ns, count, NULL, 0)


cdef inline msghdr message_of(iovec *places, size_t count) noexcept nogil:
    cdef msghdr message
    message.msg_name = NULL
    message.msg_namelen = 0
    message.msg_iov = places
    message.msg_iovlen = count
    message.msg_control = NULL
    message.msg_controllen = 0
    message.msg_flags = 0
    return message


cdef bint receive(Line self, int descriptor, int64_t until_ns, char *first, size_t size) except -1:
    """Wait for more bytes, which may be there already. Returns False if there are none within the time."""
    cdef ssize_t count
    if self.turns == 0:
        return False
    self.turns -= self.turns > 0
    with nogil:
        count = receive_now(self, descriptor, first, size)
        if count == -2:
            count = await_bytes(self, descriptor, until_ns, first, size)
    return take_in(self, descriptor, until_ns, count, first, size)


cdef ssize_t await_bytes(Line self, int descriptor, int64_t until_ns, char *first, size_t size) noexcept nogil:
    """Wait, and receive. As :func:`receive_now`; -2: it is time to look round."""
    cdef pollfd watched = pollfd(fd=descriptor, events=POLLIN, revents=0)
    cdef int64_t left_ns = until_ns - now_ns()
    cdef int ready = poll(&watched, 1, <int>max(0, min((left_ns + 999999) // 1000000, 3600000)))
    if ready < 0:
        return -2 if errno == EINTR else -1
    return receive_now(self, descriptor, first, size) if ready > 0 else -2


cdef ssize_t receive_now(Line self, int descriptor, char *first, size_t size) noexcept nogil:
    """Receive into ``first``, and what is more behind what there is. -2: there is nothing yet; -1: see errno."""
    cdef iovec[2] places
    cdef msghdr message
    cdef ssize_t count
    places[0].iov_base = first
    places[0].iov_len = size
    places[1].iov_base = self.data + self.end
    places[1].iov_len = HELD_BYTES - self.end
    message = message_of(&places[0 if size > 0 else 1], 2 if size > 0 else 1)
    count = recvmsg(descriptor, &message, MSG_DONTWAIT)
    if count < 0 and (errno == EAGAIN or errno == EINTR):
        return -2
    return count


cdef bint take_in(Line self, int descriptor, int64_t until_ns, ssize_t count, char *first, size_t size) except -1:
    """Note what was received. Returns False if there is nothing, and nothing more to wait for."""
    while count == -2:
        PyErr_CheckSignals()
        if now_ns() >= until_ns:
            return False
        with nogil:
            count = await_bytes(self, descriptor, until_ns, first, size)
    if count < 0:
        PyErr_SetFromErrno(OSError)
    self.ended = count == 0
    self.heard = self.heard or count > 0
    if size > 0:
        self.filled += min(<size_t>count, size)
    self.end += <size_t>count - min(<size_t>count, size)
    return count > 0


cdef bint make_room(Line self) noexcept:
    """Let what was not understood stand in front. Returns False if nothing fits in behind it."""
    if self.begin > 0:
        memmove(self.data, self.data + self.begin, self.end - self.begin)
        self.end -= self.begin
        self.begin = 0
    return self.end < HELD_BYTES


# -- the protocol --------------------------------------------------------------------------------------------------


cdef bint read_number(const char *at, const char *stop, int64_t *number) noexcept:
    """The number of a line, if it is one."""
    cdef bint negative = at < stop and at[0] == c"-"
    cdef int64_t found = 0
    at += negative
    if at == stop or stop - at > 18 or (at[0] == c"0" and (negative or stop - at > 1)):
        return False
    while at < stop:
        if not c"0" <= at[0] <= c"9":
            return False
        found = 10 * found + (at[0] - c"0")
        at += 1
    number[0] = -found if negative else found
    return True


cdef object read_value(Line self, size_t *at, int depth):
    """The value that begins there, which is then passed; or why there is none, and then nothing is passed."""
    cdef const char *start = self.data + at[0]
    cdef size_t left = self.end - at[0]
    cdef const char *stop = <const char *>memchr(start, c"\r", min(left, LONGEST_LINE)) if left > 0 else NULL
    cdef int64_t number
    cdef size_t body
    if stop == NULL or <size_t>(stop - start) + 2 > left:
        return PART if left < LONGEST_LINE else OTHER
    if stop[1] != c"\n":
        return OTHER
    body = at[0] + <size_t>(stop - start) + 2
    if start[0] == c"+":
        if memchr(start, c"\n", <size_t>(stop - start)) != NULL:
            return OTHER
        at[0] = body
        return PyBytes_FromStringAndSize(start + 1, stop - start - 1)
    if not read_number(start + 1, stop, &number):
        return OTHER
    if start[0] == c":":
        at[0] = body
        return number
    if number == -1 and (start[0] == c"$" or start[0] == c"*"):
        at[0] = body
        return None
    if number < 0:
        return OTHER
    if start[0] == c"$":
        return read_bulk(self, at, body, number, depth)
    if start[0] == c"*" and number <= MOST_ITEMS and depth < MOST_DEPTH:
        return read_list(self, at, body, number, depth)
    return OTHER


cdef object read_bulk(Line self, size_t *at, size_t body, int64_t size, int depth):
    cdef const char *start = self.data + body
    cdef size_t have = self.end - body
    if size > MOST_BYTES:
        return OTHER
    if have < <size_t>size + 2:
        if depth > 0 or <size_t>size + 2 <= HELD_BYTES // 2:
            return PART
        return begin_large(self, at, body, <size_t>size)
    if start[size] != c"\r" or start[size + 1] != c"\n":
        return OTHER
    at[0] = body + <size_t>size + 2
    return PyBytes_FromStringAndSize(start, size)


cdef object read_list(Line self, size_t *at, size_t body, int64_t count, int depth):
    cdef list items = [None] * count
    cdef size_t position = body
    cdef int64_t i
    cdef object item
    for i in range(count):
        item = read_value(self, &position, depth + 1)
        if item is PART or item is OTHER:
            return item
        items[i] = item
    at[0] = position
    return items


cdef object begin_large(Line self, size_t *at, size_t body, size_t size):
    """Have the rest of a value received into itself."""
    cdef const char *first = self.data + body
    cdef size_t have = self.end - body
    cdef size_t ahead = 0
    cdef Opened opened = None
    if self.usual is not None:
        if have < HEAD_BYTES:
            return PART
        opened = begin_opened(first, have, size, self.usual)
    if opened is not None:
        ahead = opened.ahead
        self.large = opened
        self.start = opened.start
        self.size = opened.size
    else:
        self.large = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>size)
        self.start = PyBytes_AS_STRING(self.large)
        self.size = size
    self.filled = min(have - ahead, self.size)
    memcpy(self.start, first + ahead, self.filled)
    at[0] = body + ahead + self.filled
    return LARGE


cdef object read_large(Line self, int descriptor, int64_t until_ns):
    """The large value that has begun; None if it does not come whole."""
    cdef object large = self.large
    while self.filled < self.size or self.end - self.begin < 2:
        make_room(self)
        if not receive(self, descriptor, until_ns, self.start + self.filled, self.size - self.filled):
            return None
    if self.data[self.begin] != c"\r" or self.data[self.begin + 1] != c"\n":
        return None
    if type(large) is Opened:
        large = end_opened(large)
    self.begin += 2
    self.large = None
    return large
