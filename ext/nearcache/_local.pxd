"""Reading and writing where no operation with L2 is involved.

All of it takes the key as the store holds it. What may run Python comes first or last; see ``_store.pyx``.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._core cimport (
    CLOCK_NEVER_NS,
    clock_deadline,
    clock_now,
    core_fits,
    core_is_valid,
    core_store,
    core_t,
    entry_t,
    graveyard_init,
    graveyard_t,
    item_t,
    pending_overtake,
    table_touch,
)
from nearcache._holding cimport bury, hold_valid, remove_entry
from nearcache._lookup cimport find, find_both, find_fast, hash_of, hold, release, unlikely


# -- reading -------------------------------------------------------------------------------------------------


cdef inline PyObject *hit_fast(core_t *core, PyObject *key, int64_t hash) noexcept:
    """The whole of a hit. NULL means anything else, to be looked at with care. The reference is borrowed."""
    cdef uint32_t ref = find_fast(&core.table, key, hash)
    cdef entry_t *entry
    if unlikely(ref == 0):
        return NULL
    entry = &core.table.slab[ref]
    if unlikely(not core_is_valid(core, entry, clock_now(&core.source))):
        return NULL
    table_touch(&core.table, ref)
    core.counters.hits += 1
    return entry.value


cdef inline PyObject *read(core_t *core, PyObject *key, int64_t hash) except? NULL:
    """A read of any outcome, counted. Returns a new reference, or NULL without an exception on a miss."""
    cdef uint32_t ref
    cdef entry_t *entry
    cdef int64_t now_ns
    find(&core.table, key, hash, &ref)
    if ref == 0:
        core.counters.misses += 1
        return NULL
    entry = &core.table.slab[ref]
    now_ns = clock_now(&core.source)
    if core_is_valid(core, entry, now_ns):
        table_touch(&core.table, ref)
        core.counters.hits += 1
        hold(entry.value)
        return entry.value
    core.counters.misses += 1
    if now_ns < entry.deadline_ns:
        core.counters.suspects += 1
        return NULL
    core.counters.expirations += 1
    remove_entry(core, ref)
    return NULL


cdef inline object owned(PyObject *value):
    """Turn a new reference into an object."""
    cdef object result = <object>value
    release(value)
    return result


cdef inline uint32_t find_valid(core_t *core, object key) except? 0xffffffff:
    """The entry of a key, if it may be served; 0 otherwise. Counts and moves nothing."""
    cdef uint32_t ref
    find(&core.table, <PyObject *>key, hash_of(<PyObject *>key), &ref)
    if ref != 0 and core_is_valid(core, &core.table.slab[ref], clock_now(&core.source)):
        return ref
    return 0


cdef inline list collect(core_t *core, bint with_values):
    """Keys, or pairs, of the valid entries, least recently used first."""
    cdef list result = []
    cdef graveyard_t taken
    cdef size_t i
    graveyard_init(&taken)
    hold_valid(core, &taken)
    try:
        for i in range(taken.count):
            if with_values:
                result.append((<object>taken.pairs[i].key, <object>taken.pairs[i].value))
            else:
                result.append(<object>taken.pairs[i].key)
        return result
    finally:
        bury(&taken)


# -- limits --------------------------------------------------------------------------------------------------


cdef inline uint64_t bound(str name, object limit) except? 0xffffffffffffffff:
    """A bound as the core wants it. None is none; 0 is taken at its word: nothing is kept."""
    if limit is None:
        return 0xffffffffffffffff
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


# -- writing -------------------------------------------------------------------------------------------------


cdef inline int put(
    core_t *core, object key, object value, int64_t hash, uint64_t size, int64_t ttl_ns
) except -1:
    """Store a value that is true by definition, for L1 is all there is (lane 0, wid 0)."""
    cdef int64_t now_ns
    cdef graveyard_t graves
    cdef item_t item
    cdef uint32_t ref
    cdef uint32_t pending
    cdef int status
    if size > core.max_bytes:
        from nearcache.errors import ValueTooLargeError
        raise ValueTooLargeError(size, core.max_bytes, "maxbytes")
    graveyard_init(&graves)
    find_both(core, <PyObject *>key, hash, &ref, &pending)
    pending_overtake(&core.pending, pending)
    if not core_fits(core, size):  # maxsize 0: nothing is ever kept
        return 0
    now_ns = clock_now(&core.source)
    item = item_t(wid=0, deadline_ns=clock_deadline(now_ns, ttl_ns), size=size, lane=0, flags=0)
    status = core_store(core, ref, <PyObject *>key, <PyObject *>value, hash, &item, now_ns, &graves)
    if status < 0:
        raise MemoryError
    hold(<PyObject *>value)
    if status == 1:
        hold(<PyObject *>key)
    bury(&graves)
    return 0


cdef inline int remove(core_t *core, object key, bint *was_valid) except -1:
    """Remove the key's entry in whatever state it is. Returns whether there was one."""
    cdef uint32_t ref
    cdef uint32_t pending
    was_valid[0] = False
    find_both(core, <PyObject *>key, hash_of(<PyObject *>key), &ref, &pending)
    pending_overtake(&core.pending, pending)
    if ref == 0:
        return 0
    was_valid[0] = core_is_valid(core, &core.table.slab[ref], clock_now(&core.source))
    remove_entry(core, ref)
    return 1
