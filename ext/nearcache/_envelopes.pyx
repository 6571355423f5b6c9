# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""One key and its envelope, in the usual case: where it lies, what is sent, what came.

Whatever is not usual, to the letter (tags, compression, protection, a soft end), is said to be so, and left to those
who know all of the rules; so this is no second implementation of them.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from nearcache._lookup cimport likely
from nearcache._single cimport (
    CODEC_RAW,
    CODEC_SAFE,
    HEAD_BYTES,
    SLOTS,
    decoded,
    encoded_key,
    envelope_plain,
    is_ascii,
    key_slot,
    plain_t,
    text_length,
    text_start,
)


cdef extern from "Python.h":
    object new_text "PyUnicode_New"(Py_ssize_t size, Py_UCS4 highest)


cdef extern from "nearcache/envelopes.h" nogil:
    size_t envelope_head(char *start, int codec_id, const plain_t *plain, uint32_t soft_ms, uint64_t size)
    bint envelope_begins(const char *data, size_t have, size_t size, int codec_id, plain_t *plain)
    bint is_all_ascii(const char *data, size_t size)


def placed(key, bytes table not None, encode):
    """Return the lane of a key, and its encoded form.

    Args:
        table: 16,384 bytes: the lane of each slot.
        encode: From a key to its encoded form; asked for those that are no plain cases. It may raise.
    """
    cdef bytes encoded = encoded_key(key, encode)
    if PyBytes_GET_SIZE(table) != SLOTS:
        raise ValueError(f"a table of {len(table)} slots: there are {SLOTS}")
    return <uint8_t>table[key_slot(PyBytes_AS_STRING(encoded), <size_t>PyBytes_GET_SIZE(encoded))], encoded


def sealed(
    bytes payload not None, uint64_t wid, uint64_t generation, uint32_t ttl_ms, uint32_t schema, int codec_id,
    uint32_t soft_ms,
):
    """Return the envelope of a payload to which nothing was done, as ``codecs.envelope.pack`` does.

    Raises:
        OverflowError: A number is out of its range.
    """
    cdef plain_t plain = plain_t(wid=wid, generation=generation, ttl_ms=ttl_ms, schema=schema, payload=0)
    cdef char[HEAD_BYTES] head
    cdef size_t first = envelope_head(head, codec_id, &plain, soft_ms, <uint64_t>PyBytes_GET_SIZE(payload))
    cdef bytes envelope = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>first + PyBytes_GET_SIZE(payload))
    memcpy(PyBytes_AS_STRING(envelope), head, first)
    memcpy(PyBytes_AS_STRING(envelope) + first, PyBytes_AS_STRING(payload), <size_t>PyBytes_GET_SIZE(payload))
    return envelope


def opened(envelope not None, tuple usual not None):
    """Return ``(value, wid, generation, ttl_ms)`` of a usual envelope; None: it is not one, or cannot be decoded.

    Args:
        envelope: As it was received: bytes, or :class:`Opened` with this same ``usual``.
        usual: Number of the codec, what decodes a payload (payload, schema), most bytes of one.
    """
    cdef plain_t plain
    cdef int codec_id = usual[0]
    cdef size_t most = usual[2]
    cdef bytes data
    cdef Opened known
    if type(envelope) is Opened:
        known = envelope
        return known.value, known.plain.wid, known.plain.generation, known.plain.ttl_ms
    data = envelope
    if not envelope_plain(PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data), codec_id, &plain):
        return None
    if <size_t>PyBytes_GET_SIZE(data) - plain.payload > most:
        return None
    try:
        value = decoded(data, &plain, codec_id, usual[1])
    except Exception:  # whoever decodes it again meets the same, and knows what it means
        return None
    return value, plain.wid, plain.generation, plain.ttl_ms


def whole(envelope not None):
    """Return the bytes of an envelope that was received."""
    return spelled(envelope) if type(envelope) is Opened else envelope


# -- a large value -------------------------------------------------------------------------------------------------


@cython.final
cdef class Opened:
    """The usual envelope of a large text, or of large bytes, that was received into the value itself.

    So it is never copied. Its length is that of the envelope.
    """

    def __len__(self):
        return <Py_ssize_t>(self.ahead + self.size)


cdef Opened begin_opened(const char *data, size_t have, size_t size, tuple usual):
    """What an envelope of this size is received into, of which the beginning is here; None: it is to be bytes.

    Args:
        have: How many bytes are here: :data:`HEAD_BYTES` at least.
    """
    cdef Opened opened
    cdef plain_t plain
    cdef int codec_id = usual[0]
    cdef size_t most = usual[2]
    cdef bint is_text = False
    if not envelope_begins(data, have, size, codec_id, &plain) or size - plain.payload > most or plain.schema != 0:
        return None
    cdef size_t ahead = plain.payload
    if codec_id == CODEC_SAFE:
        is_text = data[ahead] == c"s"
        if not is_text and data[ahead] != c"b":
            return None
        ahead += 1
    elif codec_id != CODEC_RAW:
        return None
    opened = Opened.__new__(Opened)
    opened.plain = plain
    opened.ahead = ahead
    memcpy(opened.head, data, ahead)
    opened.is_text = is_text
    opened.size = size - ahead
    if is_text:
        opened.value = new_text(<Py_ssize_t>opened.size, 127)  # which is to be proved
        opened.start = <char *>text_start(<PyObject *>opened.value)
    else:
        opened.value = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>opened.size)
        opened.start = PyBytes_AS_STRING(opened.value)
    return opened


cdef object end_opened(Opened opened):
    """The envelope, now that all of it is there; or its bytes, if this is no text that can be read here."""
    if not opened.is_text or is_all_ascii(opened.start, opened.size):
        return opened
    try:
        text = PyUnicode_DecodeUTF8(opened.start, <Py_ssize_t>opened.size, NULL)
    except UnicodeDecodeError:
        return spelled(opened)
    opened.start = NULL
    opened.value = text
    return opened


cdef bytes spelled(Opened opened):
    cdef bytes data
    if opened.start == NULL:
        return opened.head[:opened.ahead] + (<str>opened.value).encode()
    data = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(opened.ahead + opened.size))
    memcpy(PyBytes_AS_STRING(data), opened.head, opened.ahead)
    memcpy(PyBytes_AS_STRING(data) + opened.ahead, opened.start, opened.size)
    return data


# -- writing -------------------------------------------------------------------------------------------------------


def text_payload(str value not None):
    """Return the payload of a text in the safe codec."""
    cdef bytes payload
    cdef Py_ssize_t size
    if likely(is_ascii(<PyObject *>value)):
        size = text_length(<PyObject *>value)
        payload = PyBytes_FromStringAndSize(NULL, size + 1)
        PyBytes_AS_STRING(payload)[0] = c"s"
        memcpy(PyBytes_AS_STRING(payload) + 1, text_start(<PyObject *>value), <size_t>size)
        return payload
    return b"s" + value.encode("utf-8", "surrogatepass")
