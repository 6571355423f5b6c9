# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Getting: the request for one value, in the usual form. The counterpart of ``_putting``."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from nearcache._asking cimport Pieces
from nearcache._single cimport COUNT_BYTES, put_name, put_words


@cython.final
cdef class Get(Pieces):
    """The commands that read a key: its lifetime, its value, and perhaps what its lane's record says.

    Args:
        prefix: What the names of values begin with.
        encoded: The key.
        lane_key: Of the lane record; None: it is not asked for.
        usual: Of a codec whose envelopes may be opened while they are received: its number, what decodes a payload
            (payload, schema), the most bytes of one. None: they are not to be.
    """

    cdef bytes prefix
    cdef bytes encoded
    cdef bytes lane_key

    def __init__(self, bytes prefix not None, bytes encoded not None, bytes lane_key, tuple usual):
        self.prefix = prefix
        self.encoded = encoded
        self.lane_key = lane_key
        self.usual = usual
        self.place = 1
        lay_out(self)

    def __len__(self):
        return 2 + (self.lane_key is not None)

    def __getitem__(self, place):
        commands = [(b"PTTL", self.prefix + self.encoded), (b"GET", self.prefix + self.encoded)]
        if self.lane_key is not None:
            commands.append((b"HMGET", self.lane_key, b"g", b"r"))
        return commands[place]


cdef int lay_out(Get self) except -1:
    cdef Py_ssize_t size = 2 * (PyBytes_GET_SIZE(self.prefix) + PyBytes_GET_SIZE(self.encoded) + COUNT_BYTES) + 32
    if self.lane_key is not None:
        size += PyBytes_GET_SIZE(self.lane_key) + COUNT_BYTES + 48
    cdef bytes scratch = PyBytes_FromStringAndSize(NULL, size)
    cdef char *start = PyBytes_AS_STRING(scratch)
    cdef char *at = put_words(start, b"*2\r\n$4\r\nPTTL\r\n", 14)
    at = put_name(at, self.prefix, self.encoded)
    at = put_words(at, b"*2\r\n$3\r\nGET\r\n", 13)
    at = put_name(at, self.prefix, self.encoded)
    if self.lane_key is not None:
        at = put_words(at, b"*4\r\n$5\r\nHMGET\r\n", 15)
        at = put_name(at, b"", self.lane_key)
        at = put_words(at, b"$1\r\ng\r\n$1\r\nr\r\n", 14)
    self.front = PyBytes_FromStringAndSize(start, at - start)
    return 0
