"""Reading and writing where no operation with L2 is involved.

All of it takes the key as the store holds it. What may run Python comes first or last; see ``_store.pyx``.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._core cimport (
    CAUSE_CREATED,
    CAUSE_EXPIRED,
    CAUSE_UPDATED,
    CLOCK_NEVER_NS,
    NO_BOUND,
    STORED_NEW,
    STORED_OVER,
    STORE_FULL,
    STORE_NO_MEMORY,
    cause_t,
    clock_deadline,
    clock_now,
    core_bury,
    core_exchange,
    core_fits,
    core_is_valid,
    core_outlived,
    core_overwrite,
    core_settle,
    core_store,
    core_t,
    core_take_out,
    core_tend,
    core_touch,
    entry_t,
    graveyard_add,
    graveyard_init,
    graveyard_reserve,
    graveyard_t,
    item_t,
    lane_stamp,
    notes_are_filling,
    notes_are_full,
    notes_t,
    order_is_full,
    order_note,
    order_wants_settling,
    pending_overtake,
    table_lacks,
    table_tag,
)
from nearcache._holding cimport bury, hold_instead
from nearcache._locking cimport core_enter, core_leave, core_lock, core_own_notes, core_unburden, core_unlock
from nearcache._lookup cimport (
    UNDECIDED, find, find_both, find_fast, find_items, hold, likely, release, release_or_null, unlikely,
)


# -- reading -------------------------------------------------------------------------------------------------


cdef inline PyObject *hit_at(core_t *core, const entry_t *entry) noexcept:
    """The end of a hit: serve an entry, or NULL if that needs a closer look. Returns a new reference."""
    cdef PyObject *value
    if unlikely(not core_is_valid(core, entry, clock_now(&core.source)) or order_is_full(&core.order)):
        return NULL
    core_touch(core, <uint32_t>(entry - core.table.slab))
    value = entry.value
    hold(value)
    return value


cdef inline PyObject *hit_noted(core_t *core, const entry_t *entry, notes_t *notes) noexcept:
    """The same, for a reader who may have notes of his own."""
    cdef PyObject *value
    cdef int64_t now_ns
    if notes == NULL:
        return hit_at(core, entry)
    now_ns = clock_now(&core.source)
    if unlikely(not core_is_valid(core, entry, now_ns)):
        return NULL
    if unlikely(notes_are_filling(notes)) and not core_unburden(core, notes, now_ns) and notes_are_full(notes):
        return NULL
    order_note(&core.order, notes, <uint32_t>(entry - core.table.slab))
    value = entry.value
    hold(value)
    return value


cdef inline PyObject *hit_fast(core_t *core, PyObject *key, int64_t hash, bint *absent) noexcept:
    """A hit: a new reference. NULL means anything else, to be looked at with care, unless it is certain that the key is
    absent: then that is said, and counted."""
    cdef PyObject *value = NULL
    cdef notes_t *notes = core_enter(core)
    cdef uint32_t ref = find_fast(&core.table, key, hash)
    if likely(ref - 1 < UNDECIDED - 1):  # neither 0 nor UNDECIDED
        value = hit_noted(core, &core.table.slab[ref], notes)
    elif ref == 0:
        if notes == NULL:
            core.counters.misses += 1
        else:
            notes.misses += 1
        absent[0] = True
    core_leave(core, notes)
    return value


cdef inline PyObject *hit_items(core_t *core, PyObject *const *items, Py_ssize_t count, int64_t hash) noexcept:
    """A hit by a tuple that there need not be: what it would hold. NULL means anything else."""
    cdef PyObject *value = NULL
    cdef notes_t *notes = core_enter(core)
    cdef uint32_t ref = find_items(&core.table, items, count, hash)
    if likely(ref - 1 < UNDECIDED - 1):
        value = hit_noted(core, &core.table.slab[ref], notes)
    core_leave(core, notes)
    return value


cdef inline PyObject *read(core_t *core, PyObject *key, int64_t hash) except? NULL:
    """A read of any outcome, counted. Returns a new reference, or NULL without an exception on a miss."""
    cdef uint32_t ref
    cdef int64_t now_ns
    cdef PyObject *value = NULL
    cdef graveyard_t yard
    graveyard_init(&yard)
    core_lock(core)
    if order_wants_settling(&core.order):
        core_tend(core, clock_now(&core.source), &yard)
        core_unlock(core)
        bury(core, &yard)  # before find, which may raise
        core_lock(core)
    find(core, &core.table, key, hash, &ref)
    now_ns = clock_now(&core.source)
    if order_is_full(&core.order):  # __eq__ may have filled it again
        core_settle(core)
    if ref == 0:
        core.counters.misses += 1
    elif core_is_valid(core, &core.table.slab[ref], now_ns):
        core_touch(core, ref)
        value = core.table.slab[ref].value
        hold(value)
    else:
        core.counters.misses += 1
        if now_ns < core.table.slab[ref].deadline_ns:
            core.counters.suspects += 1
        else:
            core.counters.expirations += 1
            core_bury(core, ref, CAUSE_EXPIRED, &yard)
    core_unlock(core)
    bury(core, &yard)
    return value


cdef inline bint reclaim(core_t *core, PyObject *key, int64_t hash) except -1:
    """Remove the key's entry if its time is over. Returns whether it was."""
    cdef graveyard_t yard
    cdef uint32_t ref
    cdef bint is_over
    graveyard_init(&yard)
    core_lock(core)
    find(core, &core.table, key, hash, &ref)
    is_over = ref != 0 and core.table.slab[ref].deadline_ns <= clock_now(&core.source)
    if is_over:
        core.counters.expirations += 1
        core_bury(core, ref, CAUSE_EXPIRED, &yard)
    core_unlock(core)
    bury(core, &yard)
    return is_over


cdef inline uint32_t find_valid(core_t *core, PyObject *key, int64_t hash) except? 0xffffffff:
    """The entry of a key, if it may be served; 0 otherwise. Counts and moves nothing. Leaves the lock held."""
    cdef uint32_t ref
    core_lock(core)
    find(core, &core.table, key, hash, &ref)
    if ref != 0 and core_is_valid(core, &core.table.slab[ref], clock_now(&core.source)):
        return ref
    return 0


# -- limits --------------------------------------------------------------------------------------------------


cdef inline uint64_t bound(str name, object limit) except? 0xffffffffffffffff:
    """A bound as the core wants it. None is none; 0 is taken at its word: nothing is kept."""
    if limit is None:
        return NO_BOUND
    if not isinstance(limit, int):
        raise TypeError(f"{name}={limit!r}: it must be an int or None")
    if limit < 0:
        raise ValueError(f"{name}={limit}: it cannot be negative")
    return min(limit, CLOCK_NEVER_NS)


cdef inline uint64_t checked_size(str origin, object size) except? 0xffffffffffffffff:
    if not isinstance(size, int):
        raise TypeError(f"{origin} gave {size!r}: a size must be an int")
    if not 0 <= size <= CLOCK_NEVER_NS:
        raise ValueError(f"{origin} gave {size}: a size must be 0 or more, below 2**63")
    return size


cdef inline int64_t checked_ttl(object ttl_ns) except -1:
    if ttl_ns < 0:
        raise ValueError(f"ttl_ns={ttl_ns}: a lifetime cannot be negative")
    return min(ttl_ns, CLOCK_NEVER_NS)


# What put says of a value that is not to be kept at all (maxsize 0).
cdef enum:
    NOT_STORED = 2


# -- writing -------------------------------------------------------------------------------------------------


cdef inline int find_to_change(core_t *core, PyObject *key, int64_t hash, uint32_t *ref) except -1:
    """Find an entry for a local change, which overtakes the operations in flight on its key."""
    cdef uint32_t pending
    ref[0] = 0 if table_lacks(&core.table, table_tag(&core.table, hash)) else find_fast(&core.table, key, hash)
    if unlikely(ref[0] == UNDECIDED or core.pending.count != 0):
        find_both(core, key, hash, ref, &pending)
        pending_overtake(&core.pending, pending)
    return 0


cdef inline void hold_stored(
    core_t *core, int status, PyObject *key, PyObject *value, graveyard_t *yard
) noexcept:
    """Count the references that ``core_store`` took over. A listener hears of a replaced value under this key.

    One that was stored over itself has not gone, and nobody hears of it.
    """
    cdef size_t i
    if status == STORED_NEW:
        hold(key)
        hold(value)
    elif status == STORED_OVER:
        hold(value)
        if unlikely(core.listener != NULL):
            for i in range(yard.count):
                if yard.graves[i].key == NULL and yard.graves[i].value != value:
                    yard.graves[i].key = key
                    hold(key)


cdef inline void tell_stored(core_t *core, int status, PyObject *key, PyObject *value, graveyard_t *yard) noexcept:
    """Have a listener that asked for it told of a value that has come, after all that it took the place of."""
    if likely(not core.tells_new) or (status != STORED_NEW and status != STORED_OVER):
        return
    if graveyard_reserve(yard, 1) == 0:  # without memory nobody is told
        hold(key)
        hold(value)
        graveyard_add(yard, key, value, CAUSE_CREATED if status == STORED_NEW else CAUSE_UPDATED)


cdef inline int put(
    core_t *core, PyObject *key, PyObject *value, int64_t hash, uint64_t size, int64_t ttl_ns
) except -1:
    """Store a value that is true by definition, for L1 is all there is (lane 0, wid 0).

    Returns whether it is done. If not, another core of the store has to make room first.
    """
    cdef int64_t now_ns
    cdef graveyard_t yard
    cdef item_t item
    cdef uint32_t ref
    cdef int status = NOT_STORED
    cdef PyObject *old
    cdef PyObject *old_key = key
    if unlikely(size > core.max_bytes):
        from nearcache.errors import ValueTooLargeError, with_key
        raise with_key(ValueTooLargeError(size, core.max_bytes, "maxbytes"), <object>key)
    graveyard_init(&yard)
    core_lock(core)
    find_to_change(core, key, hash, &ref)
    now_ns = clock_now(&core.source)
    item = item_t(
        wid=0, deadline_ns=clock_deadline(now_ns, ttl_ns), size=size,
        stamp=lane_stamp(&core.lanes.lane[0]), lane=0, flags=0,
    )
    if likely(ref != 0 and size == 0 and core.listener == NULL):
        old = value
        if likely(core_overwrite(
            core, &core.table.slab[ref], <void **>&old, item.deadline_ns, now_ns, core_own_notes(core)
        )):
            old = hold_instead(value, old)
            core_unlock(core)
            release_or_null(old)
            return 1
    if likely(ref == 0 and size == 0 and core.listener == NULL):
        old = value
        if likely(core_exchange(
            core, <void **>&old_key, <void **>&old, table_tag(&core.table, hash), item.deadline_ns, now_ns
        ) != 0):
            hold(key)
            old = hold_instead(value, old)
            core_unlock(core)
            release_or_null(old)
            release(old_key)
            return 1
    if likely(core_fits(core, size)):  # maxsize 0: nothing is ever kept
        ref = core_outlived(core, ref, now_ns, &yard)
        status = core_store(core, ref, key, value, table_tag(&core.table, hash), &item, now_ns, &yard)
        hold_stored(core, status, key, value, &yard)
        tell_stored(core, status, key, value, &yard)
    core_unlock(core)
    bury(core, &yard)
    if unlikely(status == STORE_NO_MEMORY):
        raise MemoryError
    return status != STORE_FULL


cdef inline int remove(core_t *core, PyObject *key, int64_t hash, cause_t cause, bint *was_valid) except -1:
    """Remove the key's entry in whatever state it is. Returns whether there was one."""
    cdef graveyard_t yard
    cdef PyObject *old_key
    cdef PyObject *old_value
    cdef uint32_t ref
    was_valid[0] = False
    core_lock(core)
    find_to_change(core, key, hash, &ref)
    if likely(ref != 0):
        was_valid[0] = core_is_valid(core, &core.table.slab[ref], clock_now(&core.source))
        if likely(core.listener == NULL):
            old_key = core.table.slab[ref].key
            old_value = core.table.slab[ref].value
            core_take_out(core, ref, 0)
            core_unlock(core)
            release(old_value)
            release(old_key)
            return 1
        graveyard_init(&yard)
        core_bury(core, ref, cause, &yard)
        core_unlock(core)
        bury(core, &yard)
        return 1
    core_unlock(core)
    return 0
