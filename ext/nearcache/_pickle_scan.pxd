from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "nearcache/pickle_scan.h" nogil:
    ctypedef struct scan_rules_t:
        const char *module
        size_t module_size
        const char *name
        size_t name_size
        uint32_t max_depth
        uint32_t max_hash_depth
        uint64_t hash_budget
        uint64_t memory_budget

    ctypedef struct scan_report_t:
        size_t offset
        size_t calls
        size_t late
        uint8_t opcode

    int SCAN_OK
    int SCAN_TRUNCATED
    int SCAN_OPCODE
    int SCAN_PROTOCOL
    int SCAN_STACK
    int SCAN_MEMO
    int SCAN_GLOBAL
    int SCAN_KIND
    int SCAN_DEPTH
    int SCAN_HASH_COST
    int SCAN_MEMORY
    int SCAN_TRAILING
    int SCAN_TOO_LONG
    int SCAN_NO_MEMORY

    int pickle_scan(const uint8_t *data, size_t size, const scan_rules_t *rules, scan_report_t *report)
