"""How an operation in flight ends: rules R2 to R7 of the coherence protocol, as far as L1 carries them out.

Every function that decides first finds the entry (which may run ``__eq__``), then decides and acts without
running any Python, and only then lets go of references.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._core cimport (
    clock_now,
    ENTRY_UNHEARD,
    core_admits,
    core_bury,
    core_fits,
    core_store,
    core_t,
    graveyard_init,
    graveyard_t,
    item_t,
    op_t,
    pending_hear,
    pending_poison,
    pending_remove,
    table_next,
    table_tag,
    table_touch,
)
from nearcache._holding cimport bury, remove_entry
from nearcache._lookup cimport find, find_both, hash_of, hold, release, release_or_null


cdef inline void close_op(core_t *core, op_t *op) noexcept:
    """Take an operation off the list. Whatever became of it, the others on its key lose their marks (R2)."""
    cdef PyObject *key
    if op.ref == 0:
        return
    pending_poison(&core.pending, op.ref, op)
    key = pending_remove(&core.pending, op)
    release_or_null(key)
    release(op.owner)


cdef inline void distrust(core_t *core, int64_t hash) noexcept:
    """A key could not be compared, so nobody knows which entry is meant: drop all that it might be.

    Called with an exception set, which releasing does not disturb.
    """
    cdef uint32_t tag = table_tag(&core.pending, hash)
    cdef uint32_t position = tag
    cdef uint32_t ref = table_next(&core.pending, tag, &position)
    while ref != 0:
        pending_poison(&core.pending, ref, NULL)
        ref = table_next(&core.pending, tag, &position)
    for _ in range(core.table.count):  # bounded, since what is released may put new entries with this hash
        tag = table_tag(&core.table, hash)
        position = tag
        ref = table_next(&core.table, tag, &position)
        if ref == 0:
            return
        core.counters.invalidated += 1
        remove_entry(core, ref)


cdef inline int find_for(core_t *core, op_t *op, uint32_t *ref) except -1:
    """Find the entry on which an operation completes; if that fails, complete it as unknown (R6)."""
    try:
        return find(&core.table, op.key, op.hash, ref)
    except BaseException:
        distrust(core, op.hash)
        close_op(core, op)
        raise


cdef inline bint contradicts(core_t *core, op_t *op, uint32_t ref, uint64_t wid) noexcept:
    """Is there an entry of another write (R4)? One put locally while the operation ran is newer: no."""
    if ref == 0 or (wid != 0 and core.table.details[ref].wid == wid):
        return False
    return not (op.overtaken and core.table.details[ref].wid == 0)


cdef inline int settle(
    core_t *core, op_t *op, PyObject *value, const item_t *item, uint64_t identity, uint32_t ref
) except -1:
    """Complete an operation with its result. Returns whether L1 keeps it."""
    cdef int64_t now_ns = clock_now(&core.source)
    cdef bint admitted = item.wid != 0 and core_admits(core, op, identity)
    cdef graveyard_t graves
    cdef int status = 0
    graveyard_init(&graves)
    admitted = admitted and core_fits(core, item.size) and now_ns < item.deadline_ns
    if contradicts(core, op, ref, item.wid) and not (admitted and op.is_write):
        core_bury(core, ref, &graves)
        core.counters.invalidated += 1
        admitted = False
    if admitted:
        status = core_store(core, ref, op.key, value, op.hash, item, now_ns, &graves)
        if status >= 0:
            hold(value)
        if status == 1:
            hold(op.key)
        if status < 0 and ref != 0:  # no memory; the old value is not current any more all the same
            core_bury(core, ref, &graves)
    close_op(core, op)
    bury(&graves)
    if status < 0:
        raise MemoryError
    return admitted


cdef inline bint restamp(
    core_t *core, op_t *op, uint64_t wid, int64_t deadline_ns, uint64_t identity, uint32_t ref
) noexcept:
    """Complete a revalidation: make the entry current again if it is of this write, drop it if not."""
    cdef bint refreshed = False
    cdef graveyard_t graves
    graveyard_init(&graves)
    if contradicts(core, op, ref, wid):
        core_bury(core, ref, &graves)
        core.counters.invalidated += 1
    elif ref != 0 and wid != 0 and core.table.details[ref].wid == wid:
        refreshed = core_admits(core, op, identity) and clock_now(&core.source) < deadline_ns
    if refreshed:
        core.table.slab[ref].deadline_ns = deadline_ns
        core.table.slab[ref].lane = op.lane
        core.table.slab[ref].flags = 0
        core.table.slab[ref].stamp = core.lanes.lane[op.lane].stamp
        table_touch(&core.table, ref)
    close_op(core, op)
    bury(&graves)
    return refreshed


cdef inline int apply_one(core_t *core, PyObject *key, uint64_t wid, graveyard_t *graves) except -1:
    """One key of a message (R2, R5, R7). Returns whether an entry of an older write was there, and buried."""
    cdef int64_t hash = hash_of(key)
    cdef uint32_t ref
    cdef uint32_t pending
    try:
        find_both(core, key, hash, &ref, &pending)
    except BaseException:
        distrust(core, hash)
        raise
    pending_hear(&core.pending, pending, wid)
    if ref == 0:
        return 0
    if wid != 0 and core.table.details[ref].wid == wid:
        core.table.slab[ref].flags = 0
        return 0
    if core.table.slab[ref].flags & ENTRY_UNHEARD:  # this message is about a write before it
        return 0
    core.counters.invalidated += 1
    if graves.count < graves.capacity:
        core_bury(core, ref, graves)
    else:  # there was no memory to put all of them off to the end
        remove_entry(core, ref)
    return 1
