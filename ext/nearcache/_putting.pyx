# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Putting: one value on its way to L2, in the usual form, and what the server says of it.

Whether and when a value is written, and what follows from the answer, is for others to say. Here is what that takes in
bytes: the envelope, the call of the script ``set`` around it, and the words of its answer. A large value is not copied
for that: it is sent from where it lies, between what stands in front of it and behind it.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._asking cimport Pieces
from nearcache._frames cimport ID_DIGITS, read_id, write_id
from nearcache._lookup cimport is_data, is_text, likely
from nearcache._single cimport (
    CODEC_SAFE,
    COUNT_BYTES,
    HEAD_BYTES,
    is_ascii,
    plain_t,
    put_name,
    put_word,
    put_words,
    text_length,
    text_start,
    write_count,
)


cdef extern from "nearcache/envelopes.h" nogil:
    size_t envelope_head(char *start, int codec_id, const plain_t *plain, uint32_t soft_ms, uint64_t size)


cdef enum:
    NUMBER_BYTES = 20


# -- the request ---------------------------------------------------------------------------------------------------


@cython.final
cdef class Put(Pieces):
    """One value, and once it is sealed the commands that write it, as ``loading.writing.set_commands`` has them.

    Args:
        value: What is written.
        plain: Of a codec that does nothing to a payload: its number, what encodes a value (to payload and schema; it
            may raise), and the most bytes of a payload.
    Attributes:
        size_bytes: Of the envelope, once it is sealed.
    """

    cdef int codec_id
    cdef uint32_t schema
    cdef char tag              # what stands in front of the body in the payload; 0: nothing
    cdef readonly size_t size_bytes
    cdef plain_t plain
    cdef uint32_t soft_ms
    cdef object names
    cdef object script
    cdef bytes ring
    cdef bytes encoded
    cdef bytes mode
    cdef tuple staging         # from how many bytes on, and for how many milliseconds
    cdef list commands         # or None: nobody has looked at them

    def __init__(self, value, tuple plain not None):
        cdef size_t most = plain[2]
        self.tag = 0  # there may have been another value
        self.size = 0
        self.schema = 0
        self.codec_id = plain[0]
        self.owner = value
        if self.codec_id == CODEC_SAFE and is_text(<PyObject *>value) and is_ascii(<PyObject *>value):
            self.tag = c"s"
            self.body = text_start(<PyObject *>value)
            self.size = <size_t>text_length(<PyObject *>value)
        elif self.codec_id == CODEC_SAFE and is_data(<PyObject *>value):
            self.tag = c"b"
            self.body = PyBytes_AS_STRING(value)
            self.size = <size_t>PyBytes_GET_SIZE(value)
        if self.tag == 0 or self.size >= most:
            payload, schema = plain[1](value)
            take_payload(self, payload, schema)

    def seal(
        self, names not None, script not None, bytes ring not None, bytes encoded not None, uint64_t wid,
        uint64_t generation, uint32_t ttl_ms, uint32_t soft_ms, bytes mode not None, tuple staging not None,
    ):
        """Make the envelope and the commands. To be done again for another generation or mode.

        Args:
            names: Of the lane.
            script: ``set``.
            ring: The version of the list of shards.
            encoded: The key.
            mode: Of the script.
            staging: From how many bytes on an envelope is staged, and for how many milliseconds.
        """
        self.plain = plain_t(wid=wid, generation=generation, ttl_ms=ttl_ms, schema=self.schema, payload=0)
        self.soft_ms = soft_ms
        self.names = names
        self.script = script
        self.ring = ring
        self.encoded = encoded
        self.mode = mode
        self.staging = staging
        self.commands = None
        lay_out(self)

    def __len__(self):
        if self.names is None:
            raise ValueError("nothing has been sealed")
        return 1 + (self.back is not None)

    def __getitem__(self, place):
        return spelled(self)[place]


cdef int take_payload(Put self, bytes payload, uint32_t schema) except -1:
    self.tag = 0
    self.owner = payload
    self.body = PyBytes_AS_STRING(payload)
    self.size = <size_t>PyBytes_GET_SIZE(payload)
    self.schema = schema
    return 0


cdef int lay_out(Put self) except -1:
    """Write what stands around the value, and the value too if it is a small one."""
    cdef char[HEAD_BYTES] head
    cdef size_t payload = self.size + (self.tag != 0)
    cdef size_t ahead = envelope_head(head, self.codec_id, &self.plain, self.soft_ms, payload)
    cdef size_t bound = bound_of(self)
    cdef bytes scratch = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>bound)
    cdef char *start = PyBytes_AS_STRING(scratch)
    cdef char *at
    cdef size_t count
    if self.tag != 0:
        head[ahead] = self.tag
        ahead += 1
    self.size_bytes = ahead + self.size
    if is_staged(self):
        at = put_words(start, b"*5\r\n$3\r\nSET\r\n", 13)
        at = put_staging(self, at)
    else:
        at = put_call(self, start)
    at += write_count(at, c"$", self.size_bytes)
    at = put_words(at, head, ahead)
    count = <size_t>(at - start)
    if is_staged(self):
        self.front = PyBytes_FromStringAndSize(start, <Py_ssize_t>count)
        at = put_words(start, b"\r\n$2\r\nPX\r\n", 10)
        at = put_number(at, self.staging[1])
        at = put_call(self, at)
        at = put_words(at, b"$0\r\n\r\n", 6)
        self.back = PyBytes_FromStringAndSize(start, at - start)
        return 0
    self.front = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(count + self.size + 2))
    at = put_words(PyBytes_AS_STRING(self.front), start, count)
    at = put_words(at, self.body, self.size)
    put_words(at, b"\r\n", 2)
    self.back = None
    return 0


cdef bint is_staged(Put self) except -1:
    return self.size_bytes >= <size_t>self.staging[0]


cdef size_t bound_of(Put self) except 0:
    """More bytes than what stands in front of the value takes, or behind it."""
    cdef bytes name
    cdef size_t size = 24 * COUNT_BYTES + 8 * ID_DIGITS + 2 * HEAD_BYTES + 4 * NUMBER_BYTES
    for name in (self.names.value_prefix, self.names.lease_prefix, self.names.lane_key, self.names.prefix):
        size += <size_t>PyBytes_GET_SIZE(name)
    for name in (self.script.head, self.ring, self.mode):
        size += <size_t>PyBytes_GET_SIZE(name)
    return size + 2 * <size_t>PyBytes_GET_SIZE(self.encoded)


cdef char *put_call(Put self, char *at) except NULL:
    """The call of the script, but for its last word, which is the envelope."""
    cdef bint staged = is_staged(self)
    cdef bytes head = self.script.head
    cdef bytes lane_key = self.names.lane_key
    at = put_words(at, b"*14\r\n" if staged else b"*13\r\n", 5)
    at = put_words(at, PyBytes_AS_STRING(head), <size_t>PyBytes_GET_SIZE(head))
    at = put_words(at, b"$1\r\n4\r\n" if staged else b"$1\r\n3\r\n", 7)
    at = put_name(at, self.names.value_prefix, self.encoded)
    at = put_name(at, self.names.lease_prefix, self.encoded)
    if staged:
        at = put_staging(self, at)
    at = put_word(at, PyBytes_AS_STRING(lane_key), <size_t>PyBytes_GET_SIZE(lane_key))
    at = put_word(at, PyBytes_AS_STRING(self.ring), <size_t>PyBytes_GET_SIZE(self.ring))
    at = put_id(at, self.plain.wid)  # a nonce, which is a fresh id too
    at = put_id(at, self.plain.wid)
    at = put_id(at, self.plain.generation)
    at = put_word(at, PyBytes_AS_STRING(self.mode), <size_t>PyBytes_GET_SIZE(self.mode))
    return put_number(at, self.plain.ttl_ms)


cdef char *put_staging(Put self, char *at) except NULL:
    """The name under which the value is staged."""
    cdef bytes prefix = self.names.prefix
    at += write_count(at, c"$", <size_t>PyBytes_GET_SIZE(prefix) + 2 + ID_DIGITS + 2)
    at = put_words(at, PyBytes_AS_STRING(prefix), <size_t>PyBytes_GET_SIZE(prefix))
    at = put_words(at, b"s:", 2)
    at = put_digits(at, self.plain.wid)
    return put_words(at, b":0\r\n", 4)


cdef char *put_id(char *at, uint64_t number) noexcept:
    at = put_words(at, b"$16\r\n", 5)
    at = put_digits(at, number)
    return put_words(at, b"\r\n", 2)


cdef char *put_digits(char *at, uint64_t number) noexcept:
    """An id as Redis holds it."""
    write_id(at, number)
    return at + ID_DIGITS


cdef char *put_number(char *at, uint64_t number) noexcept:
    cdef char[COUNT_BYTES] digits
    cdef size_t size = write_count(digits, c":", number)  # its letter and the end of the line are three bytes
    return put_word(at, digits + 1, size - 3)


cdef list spelled(Put self):
    """The commands, for those who want to know what is in them."""
    cdef char[HEAD_BYTES] head
    cdef size_t ahead
    if self.commands is not None:
        return self.commands
    if self.names is None:
        raise ValueError("nothing has been sealed")
    ahead = envelope_head(head, self.codec_id, &self.plain, self.soft_ms, self.size + (self.tag != 0))
    envelope = head[:ahead] + (b"" if self.tag == 0 else bytes([self.tag])) + self.body[:self.size]
    wid = b"%016x" % self.plain.wid
    keys = [self.names.value_prefix + self.encoded, self.names.lease_prefix + self.encoded, self.names.lane_key]
    arguments = [wid, wid, b"%016x" % self.plain.generation, self.mode, b"%d" % self.plain.ttl_ms]
    self.commands = []
    if is_staged(self):
        keys.insert(2, b"%bs:%b:0" % (self.names.prefix, wid))
        self.commands.append((b"SET", keys[2], envelope, b"PX", b"%d" % self.staging[1]))
        envelope = b""
    self.commands.append((self.script, len(keys), *keys, self.ring, *arguments, envelope))
    return self.commands


# -- the answer ----------------------------------------------------------------------------------------------------


@cython.final
cdef class Said:
    """What the script ``set`` has answered.

    Attributes:
        status: 0: nothing was done, the lane has another generation. 1: it is stored. 2: refused by the mode, nothing
            was done. 3: so much waits in the queue already that nothing was done.
        generation: The lane's.
        epoch, seq: The message's, if it is stored.
        held: The keys, by number from 1, that were on hold and took no value.
        envelope, pttl_ms: What refused it: the live value that there is, or None, and its lifetime.
        existed: How many of the keys whose deletion was queued had a value.
        length: How many records wait.
    """

    cdef readonly int status
    cdef readonly uint64_t generation
    cdef readonly uint64_t epoch
    cdef readonly uint64_t seq
    cdef readonly object held
    cdef readonly object envelope
    cdef readonly int64_t pttl_ms
    cdef readonly int64_t existed
    cdef readonly int64_t length


cdef object NONE_HELD = frozenset()


def said(answer):
    """Return what the script ``set`` has answered: a text, or a list where it brings a value.

    Raises:
        ValueError: It is no such answer.
    """
    cdef Said heard = Said.__new__(Said)
    heard.held = NONE_HELD
    heard.pttl_ms = -2
    if likely(is_data(<PyObject *>answer)):
        if likely(read_stored(PyBytes_AS_STRING(answer), <size_t>PyBytes_GET_SIZE(answer), heard)):
            return heard
        answer = answer.split(b" ")
    try:
        take_words(heard, answer)
    except (IndexError, TypeError, AttributeError, OverflowError):
        raise ValueError(f"not what the script set answers: {answer!r}") from None
    return heard


@cython.boundscheck(True)
cdef int take_words(Said heard, list words) except -1:
    if words is None:
        raise TypeError("no list")
    heard.status = int(words[0])
    heard.generation = int(words[1], 16)
    if heard.status == 1:
        heard.epoch = int(words[2], 16)
        heard.seq = int(words[3])
        heard.held = frozenset([int(number) for number in words[4].split(b",") if number])
        heard.existed = int(words[5]) if len(words) > 5 else 0
    elif heard.status == 2:
        heard.envelope = words[2]
        heard.pttl_ms = words[3]
    elif heard.status == 3:
        heard.length = int(words[2])
    return 0


cdef bint read_stored(const char *at, size_t size, Said heard) noexcept:
    """Whether it is the usual answer, which is then understood: ``1 generation epoch seq`` and a blank."""
    cdef const char *stop = at + size
    cdef uint64_t seq = 0
    if size < 2 + 2 * (ID_DIGITS + 1) + 2 or size > 2 + 2 * (ID_DIGITS + 1) + 19 or at[0] != c"1" or at[1] != c" ":
        return False
    if not read_word(at + 2, &heard.generation) or not read_word(at + 3 + ID_DIGITS, &heard.epoch):
        return False
    at += 2 + 2 * (ID_DIGITS + 1)
    while at[0] != c" ":
        if not c"0" <= at[0] <= c"9":
            return False
        seq = 10 * seq + <uint64_t>(at[0] - c"0")
        at += 1
        if at == stop:
            return False
    heard.status = 1
    heard.seq = seq
    return at + 1 == stop


cdef bint read_word(const char *at, uint64_t *number) noexcept:
    """An id as Redis holds it, and the blank behind it."""
    return read_id(at, number) and at[ID_DIGITS] == c" "
