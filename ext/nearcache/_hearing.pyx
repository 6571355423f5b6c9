# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Hearing: from the bytes of a connection to entries that are gone, without a Python object for each message.

What comes off a connection is nearly always the next message of a lane that it was known to carry. Those are applied
here, a buffer at a time (``frames.h`` recognises them, ``_flights.pxd`` applies them). Whatever is not such a message,
to the letter, stays in front of the buffer for somebody who knows the whole protocol; and so does a message that
somebody waits for. One thread uses an ``Inbox``.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from nearcache._core cimport graveyard_init, graveyard_t
from nearcache._frames cimport (
    FRAME_OTHER,
    FRAME_WHOLE,
    chain_follow,
    chain_set,
    frame_push,
    frame_skip,
    frame_t,
    key_next,
    key_number,
    message_next,
    message_t,
    slice_t,
)
from nearcache._holding cimport bury
from nearcache._lookup cimport likely, unlikely
from nearcache._polling cimport MSG_DONTWAIT, recv
from nearcache._single cimport LONG_KEY
from nearcache._store cimport Store, apply_keys


cdef enum:
    CHUNK_BYTES = 262144  # asked of the kernel at a time, and what an empty inbox keeps

CHUNK = CHUNK_BYTES


@cython.final
cdef class Ear:
    """One lane, as an :class:`Inbox` hears it.

    Args:
        lane: Its number in the store.
        channel: The channel of its messages.
        awaited: Encoded keys that somebody waits for: a message that names one of them is left to others.
    """

    def __init__(self, unsigned int lane, bytes channel not None, dict awaited not None):
        self.lane = lane
        self.channel = channel
        self.awaited = awaited
        self.follows = False

    def aim(self, epoch, seq, wid):
        """Say where the lane stands: the message after this is the next."""
        cdef uint64_t next_epoch, next_seq, next_wid
        if seq >= 2**63:
            self.deafen()
            return
        next_epoch, next_seq, next_wid = epoch, seq, wid
        with cython.critical_section(self):
            self.follows = True
            chain_set(&self.chain, next_epoch, next_seq, next_wid)
            self.epoch = next_epoch
            self.seq = next_seq
            self.wid = next_wid

    def deafen(self):
        """Say that nobody knows where the lane stands: leave all its messages to others."""
        with cython.critical_section(self):
            self.follows = False

    def place(self):
        """Return ``(epoch, seq, wid)`` of the last message that was applied, or is being applied; None: not known.

        For any thread.
        """
        cdef uint64_t epoch
        cdef uint64_t seq
        cdef uint64_t wid
        cdef bint follows
        with cython.critical_section(self):  # without an interpreter lock: all three of the same message
            follows = self.follows
            epoch = self.epoch
            seq = self.seq
            wid = self.wid
        return (epoch, seq, wid) if follows else None

    def take(self):
        """Return ``(seq, wid, messages, dropped)``: where the lane stands, and what was applied since the last call."""
        cdef tuple news = (self.seq, self.wid, self.messages, self.dropped)
        self.messages = 0
        self.dropped = 0
        return news


@cython.final
cdef class Inbox:
    """What has come on one connection and is not dealt with yet.

    Args:
        ears: The lanes whose messages it carries.
        operations: The letters of the messages that name keys to drop.
        decode: From an encoded key to the key. What it raises leaves the message to others.
        watched: Write ids that somebody waits for: their messages are left to others.
    Attributes:
        blind: Set to leave everything to others from now on.
        witness: Called before a message is applied, with lane, operation, decoded keys and write id; None: nobody. It
            must not raise.
    """

    def __init__(self, list ears not None, bytes operations not None, decode, dict watched not None):
        self.ears = ears
        self.last = ears[0]
        self.operations = operations
        self.decode = decode
        self.watched = watched
        self.keys = []
        make_room(self, 1)  # so that there is a place where it begins, even if nothing has come

    def __dealloc__(self):
        PyMem_Free(self.box.data)

    def __len__(self):
        return self.box.end - self.box.begin

    def clear(self):
        """Forget everything."""
        self.box.begin = self.box.end = 0
        self.blind = False

    def feed(self, data):
        """Add bytes."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            if view.len > 0:  # nothing may lie nowhere
                make_room(self, view.len)
                memcpy(self.box.data + self.box.end, view.buf, view.len)
                self.box.end += view.len
        finally:
            PyBuffer_Release(&view)

    def fill(self, int descriptor):
        """Read from a socket what there is, at least :data:`CHUNK` bytes if there are so many. Never waits.

        Other threads of this process stay where they are meanwhile: for a busy interpreter, handing over to them and
        back takes longer than reading.

        Returns:
            How many bytes there were; 0 at the end of the stream; -1 if there is nothing yet.
        Raises:
            OSError: The connection is gone.
        """
        cdef ssize_t count
        make_room(self, CHUNK_BYTES)
        count = recv(descriptor, self.box.data + self.box.end, self.box.capacity - self.box.end, MSG_DONTWAIT)
        if count < 0:
            if errno == EAGAIN or errno == EINTR:
                return -1
            PyErr_SetFromErrno(OSError)
        self.box.end += count
        return count

    def hear(self, Store store not None):
        """Apply what can be applied here, from the front on.

        Returns:
            The ears that heard something, or None: see :meth:`Ear.take`.
        Raises:
            What ``__eq__`` of a key raises, or MemoryError: a message was not applied as it should have been, and its
            lane can no longer be vouched for.
        """
        cdef graveyard_t yard
        cdef list heard = None
        cdef Ear ear
        if self.blind:
            return None
        graveyard_init(&yard)
        try:
            while True:
                ear = hear_one(self, store, &yard)
                if ear is None:
                    return heard
                if heard is None:
                    heard = [ear]
                elif ear is not <object>heard[len(heard) - 1] and ear not in heard:
                    heard.append(ear)
        finally:
            bury(store.cores.core, &yard)

    def take(self):
        """Return the whole value in front, as bytes, or None until there is one.

        From something on that is no value, or none of those that servers send, everything is returned as it comes.
        """
        cdef size_t used = 0
        cdef frame_t found
        cdef bytes taken
        if not self.blind and self.box.begin < self.box.end:
            found = frame_skip(self.box.data + self.box.begin, self.box.end - self.box.begin, &used)
            if found == FRAME_OTHER:
                self.blind = True
            elif found != FRAME_WHOLE:
                return None
        if self.blind:
            used = self.box.end - self.box.begin
        if used == 0:
            return None
        taken = PyBytes_FromStringAndSize(self.box.data + self.box.begin, used)
        self.box.begin += used
        return taken


cdef int make_room(Inbox self, size_t more) except -1:
    """Let so many bytes fit in behind the others. Memory that a large value needed is given back after it."""
    cdef size_t least = CHUNK_BYTES
    cdef size_t held = self.box.end - self.box.begin
    cdef size_t capacity = held + more
    cdef char *data
    if self.box.begin > 0 and (held == 0 or self.box.capacity - self.box.end < more):
        memmove(self.box.data, self.box.data + self.box.begin, held)
        self.box.begin = 0
        self.box.end = held
    if self.box.capacity - self.box.end >= more and (held > 0 or self.box.capacity <= 4 * least):
        return 0
    if held > 0:
        capacity *= 2  # a value that comes in many pieces is moved a few times only
    data = <char *>PyMem_Realloc(self.box.data, max(capacity, least))
    if data == NULL:
        raise MemoryError
    self.box.data = data
    self.box.capacity = max(capacity, least)
    return 0


cdef Ear ear_of(Inbox self, slice_t channel):
    """Whose channel that is, or None."""
    cdef Ear ear = self.last
    if likely(is_of(ear, channel)):
        return ear
    for ear in self.ears:
        if is_of(ear, channel):
            self.last = ear
            return ear
    return None


cdef inline bint is_of(Ear ear, slice_t channel) noexcept:
    return (
        <size_t>len(ear.channel) == channel.size
        and memcmp(<const char *>ear.channel, channel.at, channel.size) == 0
    )


cdef Ear hear_one(Inbox self, Store store, graveyard_t *yard):
    """Apply the message in front. Returns whose it was, or None if it is to be left where it is."""
    cdef slice_t channel
    cdef slice_t payload
    cdef message_t message
    cdef size_t used
    cdef Ear ear
    cdef box_t *box = &self.box
    if frame_push(box.data + box.begin, box.end - box.begin, &channel, &payload, &used) != FRAME_WHOLE:
        return None
    ear = ear_of(self, channel)
    if ear is None or not ear.follows or not message_next(payload, &ear.chain, self.operations, &message):
        return None
    if unlikely(len(self.watched) != 0) and message.wid in self.watched:
        return None
    if not read_keys(self, ear, message.keys):
        return None
    self.box.begin += used
    # Before anything of it is done: a reader that finds it done finds it counted.
    with cython.critical_section(ear):
        chain_follow(&ear.chain, &message)
        ear.seq += 1
        ear.wid = message.wid
    ear.messages += 1
    if unlikely(self.witness is not None):
        self.witness(ear.lane, chr(message.operation), self.keys.copy(), message.wid)
    ear.dropped += apply_keys(store, self.keys, message.wid, yard)
    return ear


cdef bint read_keys(Inbox self, Ear ear, slice_t rest) except -1:
    """Decode a message's keys. Returns False if the message is to be left to others: nothing has been done then."""
    cdef bint wanted = len(ear.awaited) != 0
    cdef slice_t key
    cdef int found
    self.keys.clear()
    while True:
        found = key_next(&rest, &key)
        if found <= 0:
            return found == 0
        if key.size == 0 or key.at[0] == c"!":
            return False
        if unlikely(wanted) and PyBytes_FromStringAndSize(key.at, key.size) in ear.awaited:
            return False
        try:
            self.keys.append(key_of(self, key))
        except Exception:  # whoever decodes it again meets the same, and knows what it means for the lane
            return False


cdef object key_of(Inbox self, slice_t key):
    """The key that is meant. The usual kinds are decoded here, if they are plain cases."""
    cdef int64_t number
    if unlikely(key.size > LONG_KEY):
        pass
    elif likely(key.at[0] == c"s"):
        try:
            return PyUnicode_DecodeUTF8(key.at + 1, key.size - 1, NULL)
        except UnicodeDecodeError:
            pass
    elif key.at[0] == c"i":
        if key_number(key, &number):
            return number
    elif key.at[0] == c"b":
        return PyBytes_FromStringAndSize(key.at + 1, key.size - 1)
    return self.decode(PyBytes_FromStringAndSize(key.at, key.size))
