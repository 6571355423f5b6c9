"""What is done for a single key of many, a thousand times: encoding it, asking for it, judging the answer."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from nearcache._lookup cimport is_data, is_text, likely, unlikely


cdef extern from "Python.h":
    bint is_ascii "PyUnicode_IS_ASCII"(PyObject *text) noexcept
    const char *text_start "PyUnicode_DATA"(PyObject *text) noexcept
    Py_ssize_t text_length "PyUnicode_GET_LENGTH"(PyObject *text) noexcept


cdef extern from "nearcache/envelopes.h" nogil:
    ctypedef struct plain_t:
        uint64_t wid
        uint64_t generation
        uint32_t ttl_ms
        uint32_t schema
        size_t payload

    bint envelope_plain(const char *data, size_t size, int codec_id, plain_t *plain)
    bint header_plain(const char *data, size_t size, plain_t *plain)
    bint payload_int(const char *data, size_t size, int64_t *number)
    uint16_t key_slot(const char *data, size_t size)
    size_t write_count(char *at, char kind, size_t count)


cdef enum:
    SLOTS = 16384
    LONG_KEY = 1024   # whether longer ones are too long is for others to say
    COUNT_BYTES = 24  # more than any count takes with its letter and the end of its line
    HEAD_BYTES = 64   # more than what stands before the body of a usual envelope
    CODEC_SAFE = 1
    CODEC_RAW = 0


cdef struct terms_t:
    uint64_t generation
    uint64_t identity
    int64_t start_ns
    int64_t l1_ttl_ms
    int64_t tick_ns
    int codec_id
    size_t most


cdef inline bytes encoded_key(object name, object encode):
    """The encoded form of a key. The usual kinds are encoded here, if they are plain cases."""
    cdef bytes encoded
    cdef Py_ssize_t size
    cdef char kind
    cdef const char *start
    if likely(is_text(<PyObject *>name) and is_ascii(<PyObject *>name)):
        kind = c"s"
        start = text_start(<PyObject *>name)
        size = text_length(<PyObject *>name)
    elif is_data(<PyObject *>name):
        kind = c"b"
        start = PyBytes_AS_STRING(name)
        size = PyBytes_GET_SIZE(name)
    else:
        return encode(name)
    if unlikely(size > LONG_KEY):
        return encode(name)
    encoded = PyBytes_FromStringAndSize(NULL, size + 1)
    PyBytes_AS_STRING(encoded)[0] = kind
    memcpy(PyBytes_AS_STRING(encoded) + 1, start, <size_t>size)
    return encoded


cdef inline bint is_body(PyObject *value) noexcept:
    return value == <PyObject *>None or is_data(value)


cdef inline int64_t deadline_of(const terms_t *terms, int64_t pttl_ms, uint32_t whole_ms) noexcept:
    """When an L1 copy must end; 0: it must not be kept. ``Tier.deadline_ns`` says why."""
    cdef int64_t life_ms = min(<int64_t>whole_ms, terms.l1_ttl_ms)
    if pttl_ms < -1:
        return 0
    if pttl_ms != -1:
        life_ms = min(life_ms, pttl_ms)
    return terms.start_ns + life_ms * 1000000 - terms.tick_ns


cdef inline object decoded(bytes body, const plain_t *plain, int codec_id, object decode):
    """The value of a payload. Plain scalars of the safe codec are decoded here."""
    cdef const char *start = PyBytes_AS_STRING(body) + plain.payload
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body) - <Py_ssize_t>plain.payload
    cdef int64_t number
    if codec_id == CODEC_SAFE and size > 0 and plain.schema == 0:
        if start[0] == c"s":
            return PyUnicode_DecodeUTF8(start + 1, size - 1, NULL)
        if start[0] == c"b":
            return PyBytes_FromStringAndSize(start + 1, size - 1)
        if start[0] == c"i" and payload_int(start + 1, <size_t>size - 1, &number):
            return number
    return decode(memoryview(body)[plain.payload:], plain.schema)


cdef inline char *put_words(char *at, const char *words, size_t size) noexcept:
    memcpy(at, words, size)
    return at + size


cdef inline char *put_word(char *at, const char *word, size_t size) noexcept:
    """One word of a command."""
    at += write_count(at, c"$", size)
    at = put_words(at, word, size)
    return put_words(at, b"\r\n", 2)


cdef inline char *put_name(char *at, bytes prefix, bytes rest) noexcept:
    """The same, of two parts."""
    cdef size_t first = <size_t>PyBytes_GET_SIZE(prefix)
    cdef size_t second = <size_t>PyBytes_GET_SIZE(rest)
    at += write_count(at, c"$", first + second)
    memcpy(at, PyBytes_AS_STRING(prefix), first)
    memcpy(at + first, PyBytes_AS_STRING(rest), second)
    at += first + second
    at[0] = c"\r"
    at[1] = c"\n"
    return at + 2
