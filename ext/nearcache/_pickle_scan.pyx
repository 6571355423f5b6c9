"""The verifier of the ``safe`` codec's pickle dialect (see ``include/nearcache/pickle_scan.h``)."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint64_t

# The one global of the dialect: part of the wire format, wherever the code may move.
cdef const char *_MODULE = b"nearcache.codecs.safe"
cdef const char *_NAME = b"rebuild"

# Nesting of anything, and of dict keys and set members.
MAX_DEPTH = 10_000
MAX_HASH_DEPTH = 5_000

# Budgets: what any payload may spend, and so much more for each byte of it.
HASH_BUDGET = (16 << 20, 64)
MEMORY_BUDGET = (64 << 20, 48)

# Below this size, letting the GIL go costs more than the scan.
cdef Py_ssize_t _NOGIL_SIZE = 32768

cdef dict _REASONS = {
    SCAN_TRUNCATED: "ends in the middle",
    SCAN_OPCODE: "is not part of the dialect",
    SCAN_PROTOCOL: "does not begin a protocol 5 pickle",
    SCAN_STACK: "does not find on the stack what it needs",
    SCAN_MEMO: "reads a memo slot that was never written",
    SCAN_GLOBAL: "names a global other than the admitted one",
    SCAN_KIND: "is applied to a value of the wrong kind",
    SCAN_DEPTH: f"nests deeper than {MAX_DEPTH:,} ({MAX_HASH_DEPTH:,} in a dict key or set member)",
    SCAN_HASH_COST: "makes dict keys or set members that are out of proportion to the payload",
    SCAN_MEMORY: "makes objects that are out of proportion to the payload",
    SCAN_TRAILING: "is followed by more bytes",
    SCAN_TOO_LONG: "begins a payload of 4 GiB or more",
}

cdef scan_rules_t _rules
_rules.module = _MODULE
_rules.module_size = len(_MODULE)
_rules.name = _NAME
_rules.name_size = len(_NAME)
_rules.max_depth = MAX_DEPTH
_rules.max_hash_depth = MAX_HASH_DEPTH

cdef uint64_t _hash_floor = HASH_BUDGET[0]
cdef uint64_t _hash_factor = HASH_BUDGET[1]
cdef uint64_t _memory_floor = MEMORY_BUDGET[0]
cdef uint64_t _memory_factor = MEMORY_BUDGET[1]


cdef int _verify(const uint8_t *data, size_t size, scan_report_t *report) noexcept nogil:
    cdef scan_rules_t rules = _rules
    rules.hash_budget = _hash_floor + _hash_factor * size
    rules.memory_budget = _memory_floor + _memory_factor * size
    return pickle_scan(data, size, &rules, report)


def scan(data, Py_ssize_t start=0):
    """Return how often the pickle ``data[start:]`` fills something that other things of it hold already.

    It does nothing but call the rebuild function and make plain data, or it is refused. Where the number is not 0,
    what its keys and members cost to hash is not known.

    Raises:
        ValueError: The pickle is outside the dialect; the message says where and why.
        MemoryError: The scratch memory could not be had.
    Cost: one pass; the GIL is let go for long payloads.
    """
    cdef Py_buffer view
    cdef scan_report_t report
    cdef const uint8_t *begin
    cdef Py_ssize_t size
    cdef int status
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if start < 0 or start > view.len:
            raise ValueError(f"start {start} is outside the {view.len} bytes")
        begin = <const uint8_t *> view.buf + start
        size = view.len - start
        if size < _NOGIL_SIZE:
            status = _verify(begin, size, &report)
        else:
            with nogil:
                status = _verify(begin, size, &report)
    finally:
        PyBuffer_Release(&view)
    if status == SCAN_OK:
        return report.late
    if status == SCAN_NO_MEMORY:
        raise MemoryError
    raise ValueError(f"instruction 0x{report.opcode:02x} at byte {report.offset} {_REASONS[status]}")
