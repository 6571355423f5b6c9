"""The C core of the store (``ext/include/nearcache``), as Cython sees it.

The headers say ``void *`` where this says ``PyObject *``: they know no Python.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "nearcache/clock.h" nogil:
    const int64_t CLOCK_NEVER_NS
    const int64_t CLOCK_REAL

    ctypedef struct source_t:
        int64_t fixed_ns

    void clock_shorten()
    int64_t clock_now(const source_t *source)
    int64_t clock_deadline(int64_t now_ns, int64_t ttl_ns)


cdef extern from "nearcache/table.h" nogil:
    ctypedef struct entry_t:
        PyObject *key    # strong; NULL in a free entry
        PyObject *value  # strong
        int64_t deadline_ns
        uint32_t stamp
        uint16_t lane
        uint16_t flags

    const uint16_t ENTRY_UNHEARD

    ctypedef struct detail_t:
        int64_t hash
        uint64_t wid
        uint64_t size

    ctypedef struct table_t:
        entry_t *slab
        detail_t *details
        uint32_t mask
        uint32_t count
        uint32_t used
        uint64_t version
        uint64_t bytes

    uint32_t table_tag(const table_t *t, int64_t hash)
    uint32_t table_next(const table_t *t, uint32_t tag, uint32_t *position)
    void table_touch(table_t *t, uint32_t ref)
    uint32_t table_oldest(const table_t *t)
    uint32_t table_newer(const table_t *t, uint32_t ref)
    int table_reserve(table_t *t, uint32_t limit)
    void table_remove(table_t *t, uint32_t ref)
    void table_detach(table_t *t, table_t *out)
    void table_free_memory(table_t *t)
    size_t table_memory(const table_t *t)
    const uint32_t TABLE_MAX_ENTRIES


cdef extern from "nearcache/pending.h" nogil:
    ctypedef struct lane_t:
        int64_t fresh_until_ns
        uint64_t identity
        uint32_t stamp

    ctypedef struct lanes_t:
        uint64_t holders
        uint32_t count
        lane_t *lane

    ctypedef struct op_t:
        op_t *next
        op_t *prev
        PyObject *owner  # strong while listed
        PyObject *key    # borrowed from the owner
        int64_t hash
        lanes_t *lanes
        uint64_t wid
        uint64_t identity0
        uint32_t stamp0
        uint32_t ref
        uint16_t lane
        uint8_t is_write
        uint8_t storable
        uint8_t joinable
        uint8_t overtaken
        uint8_t announced
        uint8_t heard

    lanes_t *lanes_new(uint32_t count)
    void lanes_release(lanes_t *lanes)
    bint op_is_storable(const op_t *op)
    bint op_is_joinable(const op_t *op)
    void op_poison(op_t *op)
    op_t *pending_first(const table_t *pending, uint32_t ref)
    bint pending_add(table_t *pending, uint32_t ref, op_t *op, lanes_t *lanes)
    PyObject *pending_remove(table_t *pending, op_t *op)
    void pending_poison(table_t *pending, uint32_t ref, const op_t *spared)
    void pending_hear(table_t *pending, uint32_t ref, uint64_t wid)
    void pending_overtake(table_t *pending, uint32_t ref)


cdef extern from "nearcache/core.h" nogil:
    ctypedef struct pair_t:
        PyObject *key    # strong or NULL
        PyObject *value  # strong or NULL

    ctypedef struct graveyard_t:
        pair_t *pairs
        size_t count
        size_t capacity

    ctypedef struct counters_t:
        uint64_t hits
        uint64_t misses
        uint64_t evictions
        uint64_t expirations
        uint64_t invalidated
        uint64_t suspects
        uint64_t stored

    ctypedef struct core_t:
        table_t table
        lanes_t *lanes
        source_t source
        counters_t counters
        uint64_t max_entries
        uint64_t max_bytes
        table_t pending

    ctypedef struct item_t:
        uint64_t wid
        int64_t deadline_ns
        uint64_t size
        uint16_t lane
        uint16_t flags

    void graveyard_init(graveyard_t *graves)
    int graveyard_reserve(graveyard_t *graves, size_t more)
    void graveyard_add(graveyard_t *graves, PyObject *key, PyObject *value)
    void graveyard_free(graveyard_t *graves)
    int core_init(core_t *core, uint32_t lanes, const uint64_t *seed)
    bint core_is_valid(const core_t *core, const entry_t *entry, int64_t now_ns)
    void core_bury(core_t *core, uint32_t ref, graveyard_t *graves)
    size_t core_sweep(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *graves)
    int core_store(
        core_t *core, uint32_t ref, PyObject *key, PyObject *value, int64_t hash, const item_t *item,
        int64_t now_ns, graveyard_t *graves,
    )
    bint core_fits(const core_t *core, uint64_t size)
    bint core_admits(const core_t *core, const op_t *op, uint64_t identity)
    const char *core_check(const core_t *core)
