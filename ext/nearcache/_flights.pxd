"""How an operation in flight ends: rules R2 to R7 of the coherence protocol, as far as L1 carries them out.

Every function that decides first finds the entry (which may run ``__eq__``), then decides and acts without
running any Python, and only then lets go of references.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._core cimport (
    CAUSE_INVALIDATED,
    CAUSE_REPLACED,
    ENTRY_UNHEARD,
    STORE_FULL,
    STORE_NO_MEMORY,
    TABLE_MAX_ENTRIES,
    cause_t,
    clock_now,
    core_admits,
    core_bury,
    core_fits,
    core_hear,
    core_is_valid,
    core_outlived,
    core_reschedule,
    core_settle,
    core_spare,
    core_store,
    core_t,
    entry_t,
    graveyard_init,
    graveyard_reserve,
    graveyard_t,
    item_t,
    lane_stamp,
    op_is_joinable,
    op_t,
    order_use,
    pending_add,
    pending_first,
    pending_hear,
    pending_poison,
    op_poison,
    pending_remove,
    stamp_of_nobody,
    table_next,
    table_reserve,
    table_tag,
)
from nearcache._holding cimport bury
from nearcache._local cimport hold_stored, tell_stored
from nearcache._locking cimport core_lock, core_unlock
from nearcache._lookup cimport find, find_both, hold, release, release_or_null


# What ending an operation sets free, beside what is in the graveyard.
cdef struct ended_t:
    PyObject *key    # strong or NULL
    PyObject *owner  # strong or NULL


cdef inline ended_t close_op(core_t *core, op_t *op) noexcept:
    """Take an operation off the list. Whatever became of it, the others on its key lose their marks (R2)."""
    cdef ended_t ended = ended_t(key=NULL, owner=NULL)
    if op.ref != 0:
        pending_poison(&core.pending, op.ref, op)
        ended.key = pending_remove(&core.pending, op)
        ended.owner = <PyObject *>op.owner
    op_poison(op)  # what happens to the key from now on cannot reach it: nobody is to take it for news
    return ended


cdef inline void release_ended(ended_t ended) noexcept:
    release_or_null(ended.key)
    release_or_null(ended.owner)


cdef inline void distrust(core_t *core, int64_t hash, graveyard_t *yard) noexcept:
    """A key could not be compared, so nobody knows which entry is meant: bury all that it might be."""
    cdef uint32_t tag = table_tag(&core.table, hash)
    cdef uint64_t position = tag
    cdef uint32_t ref = table_next(&core.pending, tag, &position)
    while ref != 0:
        pending_poison(&core.pending, ref, NULL)
        ref = table_next(&core.pending, tag, &position)
    position = tag
    ref = table_next(&core.table, tag, &position)
    while ref != 0:
        if graveyard_reserve(yard, 1) == 0:
            core.counters.invalidated += 1
            core_bury(core, ref, CAUSE_INVALIDATED, yard)
            position = tag  # what came behind it has moved
        else:  # then it stays, but as a suspect
            core.table.slab[ref].stamp = stamp_of_nobody(lane_stamp(&core.lanes.lane[core.table.slab[ref].lane]))
        ref = table_next(&core.table, tag, &position)


cdef inline int find_for(core_t *core, op_t *op, uint32_t *ref) except -1:
    """Take the lock and find the entry on which an operation completes. If that fails, complete it as unknown (R6)."""
    cdef graveyard_t yard
    cdef ended_t ended
    core_lock(core)
    try:
        return find(core, &core.table, op.key, op.hash, ref)
    except BaseException:
        graveyard_init(&yard)
        core_lock(core)
        distrust(core, op.hash, &yard)
        ended = close_op(core, op)
        core_unlock(core)
        bury(core, &yard)
        release_ended(ended)
        raise


cdef inline bint contradicts(core_t *core, op_t *op, uint32_t ref, uint64_t wid) noexcept:
    """Is there an entry of another write (R4)? One put locally while the operation ran is newer: no."""
    if ref == 0 or (wid != 0 and core.table.details[ref].wid == wid):
        return False
    return not (op.overtaken and core.table.details[ref].wid == 0)


cdef inline int settle(
    core_t *core, op_t *op, PyObject *value, const item_t *item, uint64_t identity, uint32_t ref
) except -1:
    """Complete an operation with its result, and let the lock go. Returns whether L1 keeps it."""
    cdef int64_t now_ns = clock_now(&core.source)
    cdef bint admitted = item.wid != 0 and core_admits(core, op, identity)
    cdef graveyard_t yard
    cdef ended_t ended
    cdef int status = 0
    graveyard_init(&yard)
    admitted = admitted and core_fits(core, item.size) and now_ns < item.deadline_ns
    if contradicts(core, op, ref, item.wid) and not (admitted and op.is_write):
        core_bury(core, ref, CAUSE_REPLACED if op.announced and item.wid != 0 else CAUSE_INVALIDATED, &yard)
        core.counters.invalidated += 1
        admitted = False
    if admitted:
        ref = core_outlived(core, ref, now_ns, &yard)
        status = core_store(core, ref, op.key, value, table_tag(&core.table, op.hash), item, now_ns, &yard)
        hold_stored(core, status, op.key, value, &yard)
        if op.is_write:  # what was only read has come from where it was told of
            tell_stored(core, status, op.key, value, &yard)
        if status < 0 and ref != 0:  # no memory; the old value is not current any more all the same
            core_bury(core, ref, CAUSE_INVALIDATED, &yard)
    ended = close_op(core, op)
    core_unlock(core)
    bury(core, &yard)
    release_ended(ended)
    if status == STORE_NO_MEMORY:
        raise MemoryError
    return admitted and status != STORE_FULL


cdef inline bint restamp(
    core_t *core, op_t *op, const item_t *item, uint64_t identity, uint32_t ref
) noexcept:
    """Complete a revalidation: make the entry current again if it is of this write, else drop it. Lets the lock go."""
    cdef uint64_t wid = item.wid
    cdef int64_t deadline_ns = item.deadline_ns
    cdef bint refreshed = False
    cdef graveyard_t yard
    cdef ended_t ended
    graveyard_init(&yard)
    if contradicts(core, op, ref, wid):
        core_bury(core, ref, CAUSE_INVALIDATED, &yard)
        core.counters.invalidated += 1
    elif ref != 0 and wid != 0 and core.table.details[ref].wid == wid:
        refreshed = core_admits(core, op, identity) and clock_now(&core.source) < deadline_ns
    if refreshed:
        refreshed = core_reschedule(core, ref, deadline_ns) == 0
    if refreshed:
        core.table.slab[ref].lane = item.lane
        core.table.slab[ref].flags = 0
        core.table.slab[ref].stamp = item.stamp
        core_settle(core)
        order_use(&core.order, ref, core.table.details)
    ended = close_op(core, op)
    core_unlock(core)
    bury(core, &yard)
    release_ended(ended)
    return refreshed


cdef inline int apply_one(core_t *core, PyObject *key, int64_t hash, uint64_t wid, graveyard_t *yard) except -1:
    """One key of a message (R2, R5, R7). Returns whether an entry of an older write was there, and buried."""
    cdef graveyard_t own
    cdef uint32_t ref
    cdef uint32_t pending
    cdef cause_t cause = CAUSE_INVALIDATED
    graveyard_init(&own)
    core_lock(core)
    try:
        find_both(core, key, hash, &ref, &pending)
    except BaseException:
        core_lock(core)
        distrust(core, hash, &own)
        core_unlock(core)
        bury(core, &own)
        raise
    if pending_hear(&core.pending, pending, wid):  # its reply is still to come: what it replaces goes already
        cause = CAUSE_REPLACED
    if ref != 0 and wid != 0 and core.table.details[ref].wid == wid:
        core_hear(core, ref)
        ref = 0
    elif ref != 0 and core.table.slab[ref].flags & ENTRY_UNHEARD:  # this message is about a write before it
        core_spare(core, ref)
        ref = 0
    if ref != 0:
        core.counters.invalidated += 1
        # Without the memory to put them all off to the end, this one is let go of at once.
        core_bury(core, ref, cause, yard if yard.count < yard.capacity else &own)
    core_unlock(core)
    bury(core, &own)
    return ref != 0


# -- beginning, joining, asking, hearing ----------------------------------------------------------------------


cdef inline int open_op(core_t *core, op_t *op) except -1:
    """List an operation (R1); a write poisons the others on its key (R2)."""
    cdef uint32_t ref
    cdef int status = 0
    core_lock(core)
    find(core, &core.pending, op.key, op.hash, &ref)
    if op.lanes != NULL:  # asked only now, since __eq__ may have opened it
        core_unlock(core)
        raise ValueError("the operation was opened before: make a new one")
    if ref == 0:
        status = table_reserve(&core.pending, TABLE_MAX_ENTRIES)
    if status == 0:
        hold(op.owner)
        if pending_add(&core.pending, ref, op, core.lanes):
            hold(op.key)
        if op.is_write:
            pending_poison(&core.pending, op.ref, op)
    core_unlock(core)
    if status < 0:
        raise MemoryError
    return 0


cdef inline PyObject *joinable_on(core_t *core, PyObject *key, int64_t hash) except? NULL:
    """The owner of a read in flight whose result may be shared, a new reference; NULL without an exception if none."""
    cdef PyObject *owner = NULL
    cdef uint32_t ref
    cdef op_t *op
    core_lock(core)
    find(core, &core.pending, key, hash, &ref)
    op = pending_first(&core.pending, ref)
    while op != NULL and not op_is_joinable(op):  # a write never is
        op = op.next
    if op != NULL:
        owner = op.owner
        hold(owner)
    core_unlock(core)
    return owner


cdef inline int abandon_op(core_t *core, op_t *op, bint drop) except -1:
    """Complete an operation that failed; with ``drop`` its outcome is unknown (R6)."""
    cdef graveyard_t yard
    cdef ended_t ended
    cdef uint32_t ref = 0
    graveyard_init(&yard)
    if drop:
        find_for(core, op, &ref)
    else:
        core_lock(core)
    if ref != 0:
        core.counters.invalidated += 1
        core_bury(core, ref, CAUSE_INVALIDATED, &yard)
    ended = close_op(core, op)
    core_unlock(core)
    bury(core, &yard)
    release_ended(ended)
    return 0


cdef inline tuple suspect_at(core_t *core, PyObject *key, int64_t hash):
    """``(lane, stamp, wid, value)`` of an entry whose own time is not over but which may not be served now, or None.

    Of one on probation the lane is its probation, whose stamps are not the lane's.
    """
    cdef PyObject *value = NULL
    cdef uint64_t wid = 0
    cdef uint32_t lane = 0
    cdef uint32_t stamp = 0
    cdef entry_t *entry
    cdef int64_t now_ns
    cdef uint32_t ref
    core_lock(core)
    find(core, &core.table, key, hash, &ref)
    if ref != 0:
        now_ns = clock_now(&core.source)
        entry = &core.table.slab[ref]
        if now_ns < entry.deadline_ns and not core_is_valid(core, entry, now_ns):
            wid, lane, stamp = core.table.details[ref].wid, entry.lane, entry.stamp
            value = entry.value
            hold(value)
    core_unlock(core)
    if value == NULL:
        return None
    held = <object>value  # a reference of its own
    release(value)
    return lane, stamp, wid, held
