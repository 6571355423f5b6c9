"""The C core of the store (``ext/include/nearcache``), as Cython sees it.

The headers say ``void *`` where this says ``PyObject *``: they know no Python.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "nearcache/clock.h" nogil:
    const int64_t CLOCK_NEVER_NS

    ctypedef struct source_t:
        int64_t fixed_ns
        bint is_fixed

    void clock_shorten()
    int64_t clock_now(const source_t *source)
    int64_t clock_deadline(int64_t now_ns, int64_t ttl_ns)


cdef extern from "nearcache/memory.h" nogil:
    void memory_prefetch(const void *line)


cdef extern from "nearcache/graveyard.h" nogil:
    ctypedef enum cause_t:
        CAUSE_EVICTED
        CAUSE_EXPIRED
        CAUSE_REPLACED
        CAUSE_INVALIDATED
        CAUSE_DROPPED
        CAUSE_CREATED
        CAUSE_UPDATED

    ctypedef struct grave_t:
        PyObject *key    # strong or NULL
        PyObject *value  # strong or NULL
        cause_t cause

    ctypedef struct graveyard_t:
        grave_t *graves
        size_t count
        size_t capacity

    void graveyard_init(graveyard_t *yard)
    int graveyard_reserve(graveyard_t *yard, size_t more)
    void graveyard_add(graveyard_t *yard, PyObject *key, PyObject *value, cause_t cause)
    void graveyard_free(graveyard_t *yard)


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
        uint64_t wid
        uint32_t tag

    ctypedef struct index_t:
        uint32_t *slots
        uint32_t mask
        uint32_t refs
        uint32_t step

    ctypedef struct table_t:
        index_t index
        entry_t *slab
        uint64_t[2] seed
        detail_t *details
        uint32_t count
        uint32_t used
        uint32_t capacity
        uint64_t version
        uint64_t bytes

    uint32_t index_glance(const index_t *index, uint32_t tag)
    uint32_t index_glance_at(const index_t *index, uint32_t tag, uint32_t *at)
    uint32_t table_tag(const table_t *t, int64_t hash)
    bint table_lacks(const table_t *t, uint32_t tag)
    uint32_t table_next(const table_t *t, uint32_t tag, uint64_t *position)
    int table_reserve(table_t *t, uint32_t limit)
    void table_detach(table_t *t, table_t *out)
    void table_free_memory(table_t *t)
    const uint32_t TABLE_MAX_ENTRIES


cdef extern from "nearcache/order.h" nogil:
    ctypedef struct order_t:
        void *adaptive

    ctypedef struct notes_t:
        uint32_t count
        uint64_t misses

    int order_adapt(order_t *o, uint32_t seed)
    void order_free_memory(order_t *o)
    bint notes_are_full(const notes_t *notes)
    bint notes_are_filling(const notes_t *notes)
    bint order_is_full(const order_t *o)
    bint order_wants_settling(const order_t *o)
    void order_touch(order_t *o, uint32_t ref)
    void order_note(const order_t *o, notes_t *notes, uint32_t ref)
    void order_use(order_t *o, uint32_t ref, const detail_t *details)
    uint32_t order_victim(order_t *o, uint32_t spared)
    uint32_t order_first(const order_t *o)
    uint32_t order_following(const order_t *o, uint32_t ref)


cdef extern from "nearcache/pending.h" nogil:
    ctypedef struct lane_t:
        pass

    ctypedef struct lanes_t:
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
        uint32_t stamp0
        uint32_t ref
        uint16_t lane
        uint8_t is_write
        uint8_t storable
        uint8_t joinable
        uint8_t overtaken
        uint8_t announced
        uint8_t heard
        uint8_t spared

    lanes_t *lanes_new(uint32_t count)
    void lanes_release(lanes_t *lanes)
    uint32_t lane_stamp(const lane_t *lane)
    uint32_t stamp_of_nobody(uint32_t present)
    int64_t lane_fresh_until(const lane_t *lane)
    void lane_suspect(lane_t *lane)
    void lanes_vouch(lanes_t *lanes, uint32_t lane, int64_t until_ns)
    void lanes_suspect(lanes_t *lanes, uint32_t lane)
    void lane_vouch(lane_t *lane, int64_t until_ns)
    void lane_attach(lane_t *lane, uint64_t identity)
    bint op_is_storable(const op_t *op)
    bint op_is_joinable(const op_t *op)
    void op_poison(op_t *op)
    op_t *pending_first(const table_t *pending, uint32_t ref)
    bint pending_add(table_t *pending, uint32_t ref, op_t *op, lanes_t *lanes)
    PyObject *pending_remove(table_t *pending, op_t *op)
    void pending_poison(table_t *pending, uint32_t ref, const op_t *spared)
    int pending_hear(table_t *pending, uint32_t ref, uint64_t wid)
    void pending_overtake(table_t *pending, uint32_t ref)


cdef extern from "nearcache/core.h" nogil:
    ctypedef struct counters_t:
        uint64_t hits
        uint64_t misses
        uint64_t evictions
        uint64_t expirations
        uint64_t invalidated
        uint64_t suspects
        uint64_t stored
        uint64_t too_large

    const uint64_t NO_BOUND
    ctypedef struct quota_t:
        uint64_t limit
        uint64_t taken
        uint32_t cores

    ctypedef struct core_t:
        lanes_t *lanes
        source_t source
        table_t table
        uint8_t lock
        uint8_t tells_new
        order_t order
        counters_t counters
        PyObject *listener  # borrowed from the store; NULL: none
        quota_t *quota
        uint64_t max_bytes
        table_t pending

    ctypedef struct item_t:
        uint64_t wid
        int64_t deadline_ns
        uint64_t size
        uint32_t stamp
        uint16_t lane
        uint16_t flags

    const int STORED_NEW
    const int STORED_OVER
    const int STORE_NO_MEMORY
    const int STORE_FULL

    void core_init(core_t *core, quota_t *quota, const uint64_t *seed)
    void core_detach(core_t *core, table_t *gone)
    size_t core_memory(const core_t *core)
    bint core_is_valid(const core_t *core, const entry_t *entry, int64_t now_ns)
    void core_settle(core_t *core)
    void core_touch(core_t *core, uint32_t ref)
    void core_tend(core_t *core, int64_t now_ns, graveyard_t *yard)
    bint core_is_untended(const core_t *core, int64_t now_ns)
    bint core_give_back(core_t *core)
    void core_take_out(core_t *core, uint32_t ref, int is_evicted)
    void core_ask(const core_t *core, uint32_t ref)
    void core_take_out_at(core_t *core, uint32_t ref, uint32_t at)
    void core_bury(core_t *core, uint32_t ref, cause_t cause, graveyard_t *yard)
    uint32_t core_expire(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *yard)
    int core_expire_all(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *yard)
    int core_expire_until(core_t *core, int64_t later_ns, graveyard_t *yard)
    int core_reschedule(core_t *core, uint32_t ref, int64_t deadline_ns)
    void core_hear(core_t *core, uint32_t ref)
    void core_spare(core_t *core, uint32_t ref)
    void core_await(const core_t *core, const op_t *op, item_t *item)
    bint core_overwrite(
        core_t *core, entry_t *entry, void **value, int64_t deadline_ns, int64_t now_ns, notes_t *notes
    )
    uint32_t core_exchange(
        core_t *core, void **key, void **value, uint32_t tag, int64_t deadline_ns, int64_t now_ns
    )
    uint32_t core_outlived(core_t *core, uint32_t ref, int64_t now_ns, graveyard_t *yard)
    int core_store(
        core_t *core, uint32_t ref, PyObject *key, PyObject *value, uint32_t tag, const item_t *item,
        int64_t now_ns, graveyard_t *yard,
    )
    bint core_fits(const core_t *core, uint64_t size)
    bint core_admits(const core_t *core, const op_t *op, uint64_t identity)
    bint core_evict_one(core_t *core, graveyard_t *yard)
    const char *core_check(core_t *core)
