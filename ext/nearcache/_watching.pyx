# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Watching: the connections of a listener, and when what they bring is heard. One thread uses a ``Watch``."""

cimport cython
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint64_t

from nearcache._hearing cimport Inbox, box_t
from nearcache._polling cimport (
    MSG_DONTWAIT,
    POLLIN,
    POLLOUT,
    nanosleep,
    now_ns,
    poll,
    pollfd,
    recv,
    timespec,
)


cdef extern from "nearcache/echoes.h" nogil:
    ctypedef struct echoes_t:
        pass

    void echoes_expect(echoes_t *echoes, uint64_t wid)
    bint echoes_alone(const echoes_t *echoes, const char *data, size_t size)


# What is to be known of a connection while nobody has the interpreter.
cdef struct place_t:
    box_t *box  # what may be filled meanwhile, or NULL
    bint is_filled  # whether that was done, and nobody has heard it since


cdef enum:
    MOST_WATCHED = 256  # connections, and what wakes
    STREAM_NS = 100000  # messages this close to each other are a stream,
    ECHOES_NS = 400000  # or this close where the last of them were about writes of one's own,
    GATHER_NS = 500000  # and this long a stream is let gather
    HOLD_NS = 1000000  # how long messages about writes of one's own may wait
    MUCH_BYTES = 32768  # if so much came, more will have come meanwhile
    MOST_CHUNKS = 16  # and how often to look before other connections have their turn

MUCH, CHUNKS = MUCH_BYTES, MOST_CHUNKS


@cython.final
cdef class Echoes:
    """Which messages are no news, because they are about writes of this process's own. For any thread."""

    cdef echoes_t ring

    def expect(self, uint64_t wid):
        """This write is about to be sent. What its message tells is known here when the call returns."""
        echoes_expect(&self.ring, wid)


@cython.final
cdef class Watch:
    """Waits for several connections, and hears what they bring as long as nobody else is needed for it.

    Args:
        store: Returns the store, or None when it is gone.
        echoes: The messages that are no news. They are heard a little later, several at a time.

    Other threads of this process go on while it waits, and are held up only while a message is applied.
    """

    cdef object store
    cdef Echoes echoes
    cdef list inboxes
    cdef list notes
    cdef pollfd[MOST_WATCHED] watched
    cdef place_t[MOST_WATCHED] places
    cdef int count
    cdef int64_t woken_ns
    cdef bint echoed  # whether there was nothing but messages about writes of one's own then

    def __init__(self, store, Echoes echoes not None):
        self.count = 0  # it may have watched others
        self.store = store
        self.echoes = echoes
        self.inboxes = []
        self.notes = []

    def add(self, int descriptor, Inbox inbox=None, note=None):
        """Watch a connection, to be heard with an inbox (None: others read it). ``note`` gets what that returns."""
        if self.count == MOST_WATCHED:
            raise ValueError(f"{MOST_WATCHED} connections are watched already")
        self.notes.append(note)
        try:
            self.inboxes.append(inbox)
        except MemoryError:
            self.notes.pop()
            raise
        self.watched[self.count] = pollfd(fd=descriptor, events=POLLIN, revents=0)
        self.places[self.count].is_filled = False
        self.count += 1

    def remove(self, int descriptor):
        """Watch it no longer."""
        cdef int at = place_of(self, descriptor)
        self.count -= 1
        self.watched[at] = self.watched[self.count]
        self.places[at] = self.places[self.count]
        self.inboxes[at] = self.inboxes[self.count]
        self.notes[at] = self.notes[self.count]
        self.inboxes.pop()
        self.notes.pop()

    def want(self, int descriptor, is_writing):
        """Say whether there is something to send."""
        self.watched[place_of(self, descriptor)].events = POLLIN | POLLOUT if is_writing else POLLIN

    def wait(self, int64_t longest_ms):
        """Return the descriptors that others have to see to, within the time; none: it is over.

        Raises:
            OSError: The system does not let it wait.
            What ``__eq__`` of a key raises, or MemoryError: see :meth:`Inbox.hear`.
        """
        cdef int64_t until_ns = now_ns() + longest_ms * 1000000
        cdef list concerned = []
        cdef int ready
        cdef int i
        while True:
            for i in range(self.count):
                self.places[i].box = box_of(self.inboxes[i])
            with nogil:
                ready = idle(self, until_ns)
            if ready < 0:  # what it says of the connections is of the turn before
                if errno != EINTR:
                    PyErr_SetFromErrno(OSError)
                continue
            for i in range(self.count):
                if (self.watched[i].revents != 0 or self.places[i].is_filled) and not attend(self, i):
                    concerned.append(self.watched[i].fd)
            if concerned or now_ns() >= until_ns:
                return concerned


cdef box_t *box_of(Inbox inbox) noexcept:
    """What may be filled before anybody sees to it; NULL: nothing."""
    return NULL if inbox is None or inbox.blind or inbox.witness is not None else &inbox.box


cdef int place_of(Watch self, int descriptor) except -1:
    cdef int at
    for at in range(self.count):
        if self.watched[at].fd == descriptor:
            return at
    raise ValueError(f"descriptor {descriptor} is not watched")


cdef int idle(Watch self, int64_t until_ns) noexcept nogil:
    """Wait until there is something to do for the interpreter, or the time is over. Returns what ``poll`` did last."""
    cdef int64_t left_ns = until_ns - now_ns()
    cdef int longest_ms
    cdef int ready
    while True:
        longest_ms = <int>max(0, min((left_ns + 999999) // 1000000, 3600000))
        ready = poll(self.watched, <unsigned long>self.count, longest_ms)
        if ready <= 0:
            return ready
        gather(self)
        self.echoed = has_echoes_only(self)
        if not self.echoed:
            return ready
        # The first of them says until when; what comes after it is heard with it.
        until_ns = min(until_ns, self.woken_ns + HOLD_NS)
        left_ns = until_ns - self.woken_ns
        if left_ns <= 0:
            return ready


cdef bint has_echoes_only(Watch self) noexcept nogil:
    """Receive what is there. Returns whether all that is yet to be heard can wait."""
    cdef ssize_t count
    cdef box_t *box
    cdef int i
    for i in range(self.count):
        if self.watched[i].revents == 0:
            continue
        box = self.places[i].box
        if box == NULL or self.watched[i].revents != POLLIN or box.capacity == box.end:
            return False
        count = recv(self.watched[i].fd, box.data + box.end, box.capacity - box.end, MSG_DONTWAIT)
        if count <= 0:  # whoever reads next finds out why
            return False
        box.end += <size_t>count
        self.places[i].is_filled = True
        if not echoes_alone(&self.echoes.ring, box.data + box.begin, box.end - box.begin):
            return False
    return True


cdef void gather(Watch self) noexcept nogil:
    """Under a stream of messages, let some gather, as a network card does with interrupts.

    Waking for each of them costs the user's threads, in turns of the interpreter lock, more than applying them does. A
    message that comes alone is not delayed. Who writes one value after the other is not to be held up by hearing of it:
    it costs a processor, at the very moment at which the answer comes.
    """
    cdef timespec pause = timespec(tv_sec=0, tv_nsec=GATHER_NS)
    cdef int64_t woken_ns = now_ns()
    if woken_ns - self.woken_ns < (ECHOES_NS if self.echoed else STREAM_NS):
        nanosleep(&pause, NULL)
        woken_ns = now_ns()
    self.woken_ns = woken_ns


cdef bint attend(Watch self, int at) except -1:
    """Hear what has come on one connection. Returns False if others have to see to it."""
    cdef Inbox inbox = self.inboxes[at]
    cdef bint is_filled = self.places[at].is_filled
    cdef Py_ssize_t count = MUCH_BYTES
    cdef object heard
    self.places[at].is_filled = False
    if inbox is None or inbox.blind or self.watched[at].revents & ~POLLIN:
        return False
    for _ in range(MOST_CHUNKS):
        if count < MUCH_BYTES:
            break
        if not is_filled:
            try:
                count = inbox.fill(self.watched[at].fd)
            except OSError:  # whoever reads next finds the connection ended
                return False
        is_filled = False
        store = self.store()
        if store is None or count == 0:
            return False
        heard = inbox.hear(store)
        if heard is not None:
            self.notes[at](heard)
        if inbox.box.begin < inbox.box.end:
            return False
    return True
