# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, binding=False, embedsignature=True, embedsignature.format=clinic
"""L1: the store that answers from this process's memory.

The algorithms are C (``ext/include/nearcache``) and explained in ``ext/README.md``. This module lends them Python's
notions of hash, equality and reference. Three rules keep it safe against keys and values that run code of their own:

1. Whatever may run Python (hashing, comparing, sizing, releasing) happens before or after a change, never within.
2. After such a call everything read from the table is read again; ``find`` does so by the table's version.
3. References are released last, from a graveyard on the C stack.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

import os
import sys
from types import GenericAlias

from nearcache._core cimport (
    CLOCK_NEVER_NS,
    CLOCK_REAL,
    TABLE_MAX_ENTRIES,
    clock_deadline,
    clock_now,
    core_admits,
    core_bury,
    core_check,
    core_fits,
    core_init,
    core_is_valid,
    core_store,
    core_sweep,
    core_t,
    entry_t,
    graveyard_add,
    graveyard_init,
    graveyard_reserve,
    graveyard_t,
    item_t,
    lane_t,
    lanes_new,
    lanes_release,
    lanes_t,
    op_is_joinable,
    op_is_storable,
    op_poison,
    op_t,
    pair_t,
    pending_add,
    pending_first,
    pending_overtake,
    pending_poison,
    pending_remove,
    table_detach,
    table_free_memory,
    table_memory,
    table_next,
    table_oldest,
    table_remove,
    table_reserve,
    table_t,
    table_tag,
    table_touch,
)
from nearcache._lookup cimport (
    bury,
    find,
    find_both,
    find_fast,
    hash_of,
    hold,
    likely,
    release,
    release_or_null,
    unlikely,
)


# -- reading -----------------------------------------------------------------------------------------------------


cdef inline PyObject *hit_fast(core_t *core, PyObject *key, int64_t hash) noexcept:
    """The whole of a hit. NULL means anything else, to be looked at with care. Returns a borrowed reference."""
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


cdef PyObject *read(core_t *core, PyObject *key, int64_t hash) except? NULL:
    """A read of any outcome, counted. Returns a new reference, or NULL without an exception on a miss."""
    cdef graveyard_t graves
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
    graveyard_init(&graves)
    core_bury(core, ref, &graves)
    bury(&graves)
    return NULL


cdef object held_key(Store self, object key):
    """The key under which the store holds what the caller calls ``key``."""
    return key if self.keyfunc is None else self.keyfunc(key)


cdef bint read_object(Store self, object key, PyObject **value) except -1:
    """Read by the caller's key. True when ``value`` was set to a new reference."""
    cdef object held = held_key(self, key)
    value[0] = read(&self.core, <PyObject *>held, hash_of(<PyObject *>held))
    return value[0] != NULL


cdef inline object owned(PyObject *value):
    """Turn a new reference into an object."""
    cdef object result = <object>value
    release(value)
    return result


cdef object subscript_miss(Store self, object key):
    cdef PyObject *value
    if read_object(self, key, &value):
        return owned(value)
    return self._missing(key)


cdef object get_miss(Store self, object key, object default):
    cdef PyObject *value
    if read_object(self, key, &value):
        return owned(value)
    return self._missing_get(key, default)


cdef object read_or(Store self, object key, object default):
    """Read without a hook."""
    cdef PyObject *value
    if self.keyfunc is None:
        value = hit_fast(&self.core, <PyObject *>key, hash_of(<PyObject *>key))
        if likely(value != NULL):
            return <object>value
    return owned(value) if read_object(self, key, &value) else default


cdef uint32_t find_valid(Store self, object key) except? 0xffffffff:
    """The entry of a key, if it may be served; 0 otherwise. Counts and moves nothing."""
    cdef object held = held_key(self, key)
    cdef uint32_t ref
    find(&self.core.table, <PyObject *>held, hash_of(<PyObject *>held), &ref)
    if ref != 0 and core_is_valid(&self.core, &self.core.table.slab[ref], clock_now(&self.core.source)):
        return ref
    return 0


cdef uint32_t oldest_valid(core_t *core) noexcept:
    """The least recently used entry that may be served; 0 if there is none. Reclaims expired ones before it."""
    cdef table_t *t = &core.table
    cdef int64_t now_ns = clock_now(&core.source)
    cdef graveyard_t graves
    cdef uint32_t ref = table_oldest(t)
    graveyard_init(&graves)
    while ref != 0 and not core_is_valid(core, &t.slab[ref], now_ns):
        if now_ns < t.slab[ref].deadline_ns:
            ref = t.slab[ref].prev
            continue
        core.counters.expirations += 1
        core_bury(core, ref, &graves)
        bury(&graves)
        ref = table_oldest(t)
    return ref


cdef list collect(Store self, bint with_values):
    """Keys, or pairs, of the valid entries, least recently used first.

    Building Python objects may run the collector, and with it any code. So the references are taken first, in one
    go, into plain memory.
    """
    cdef table_t *t = &self.core.table
    cdef size_t n = 0, i
    cdef uint32_t ref
    cdef int64_t now_ns = clock_now(&self.core.source)
    cdef graveyard_t taken
    cdef list result
    graveyard_init(&taken)
    if graveyard_reserve(&taken, t.count) < 0:
        raise MemoryError
    ref = table_oldest(t)
    while ref != 0:
        if core_is_valid(&self.core, &t.slab[ref], now_ns):
            hold(t.slab[ref].key)
            hold(t.slab[ref].value)
            graveyard_add(&taken, t.slab[ref].key, t.slab[ref].value)
        ref = t.slab[ref].prev
    try:
        result = []
        for i in range(taken.count):
            if with_values:
                result.append((<object>taken.pairs[i].key, <object>taken.pairs[i].value))
            else:
                result.append(<object>taken.pairs[i].key)
        return result
    finally:
        bury(&taken)


# -- limits ------------------------------------------------------------------------------------------------------


cdef uint64_t bound(str name, object limit) except? 0xffffffffffffffff:
    """A bound as the core wants it. None is none; 0 is taken at its word: nothing is kept."""
    if limit is None:
        return 0xffffffffffffffff
    if not isinstance(limit, int):
        raise TypeError(f"{name}={limit!r}: it must be an int or None")
    if limit < 0:
        raise ValueError(f"{name}={limit}: it cannot be negative")
    return min(limit, CLOCK_NEVER_NS)


cdef lane_t *lane_at(Store self, object index) except NULL:
    if not 0 <= index < self.core.lanes.count:
        raise IndexError(f"lane {index} of {self.core.lanes.count}")
    return &self.core.lanes.lane[<uint32_t>index]


# -- local writing -----------------------------------------------------------------------------------------------


cdef uint64_t size_of(Store self, object value, uint64_t given) except? 0xffffffffffffffff:
    cdef object size
    if self.sizeof is None:
        return given
    size = self.sizeof(value)
    if not isinstance(size, int):
        raise TypeError(f"getsizeof returned {size!r}: it must return an int")
    if not 0 <= size < CLOCK_NEVER_NS:
        raise ValueError(f"getsizeof returned {size}: it must return 0 or more, below 2**63")
    return size


cdef int put_local(Store self, object key, object value, int64_t ttl_ns, uint64_t given_size) except -1:
    """Store a value that is true by definition, for L1 is all there is (lane 0, wid 0)."""
    cdef core_t *core = &self.core
    cdef object held = held_key(self, key)
    cdef int64_t hash = hash_of(<PyObject *>held)
    cdef uint64_t size = size_of(self, value, given_size)
    cdef int64_t now_ns = clock_now(&core.source)
    cdef graveyard_t graves
    cdef item_t item
    cdef uint32_t ref, pending
    cdef int status
    if size > core.max_bytes:
        from nearcache.errors import ValueTooLargeError
        raise ValueTooLargeError(size, core.max_bytes, "maxbytes")
    item = item_t(wid=0, deadline_ns=clock_deadline(now_ns, ttl_ns), size=size, lane=0)
    graveyard_init(&graves)
    find_both(core, <PyObject *>held, hash, &ref, &pending)
    pending_overtake(&core.pending, pending)
    if not core_fits(core, size):  # maxsize 0: nothing is ever kept
        return 0
    status = core_store(core, ref, <PyObject *>held, <PyObject *>value, hash, &item, now_ns, &graves)
    if status < 0:
        raise MemoryError
    hold(<PyObject *>value)
    if status == 1:
        hold(<PyObject *>held)
    bury(&graves)
    return 0


cdef int remove_local(Store self, object key, bint *was_valid) except -1:
    """Remove the key's entry in whatever state it is. Returns whether there was one."""
    cdef core_t *core = &self.core
    cdef object held = held_key(self, key)
    cdef graveyard_t graves
    cdef uint32_t ref, pending
    was_valid[0] = False
    graveyard_init(&graves)
    find_both(core, <PyObject *>held, hash_of(<PyObject *>held), &ref, &pending)
    pending_overtake(&core.pending, pending)
    if ref == 0:
        return 0
    was_valid[0] = core_is_valid(core, &core.table.slab[ref], clock_now(&core.source))
    core_bury(core, ref, &graves)
    bury(&graves)
    return 1


cdef void release_table(table_t *t) noexcept:
    """Release a detached table: nobody else can reach it, so it may be in any state meanwhile."""
    cdef uint32_t ref
    for ref in range(1, t.used + 1):
        if t.slab[ref].key != NULL:
            release(t.slab[ref].value)
            release(t.slab[ref].key)
    table_free_memory(t)


cdef void forget_pending(core_t *core) noexcept:
    """Take every operation off the list. None of them may store or be joined any more."""
    cdef table_t gone
    cdef uint32_t ref
    cdef op_t *op
    cdef op_t *following
    table_detach(&core.pending, &gone)
    for ref in range(1, gone.used + 1):
        op = pending_first(&gone, ref) if gone.slab[ref].key != NULL else NULL
        while op != NULL:
            op_poison(op)
            op.ref = 0
            op.prev = NULL
            op = op.next
    for ref in range(1, gone.used + 1):
        if gone.slab[ref].key == NULL:
            continue
        op = pending_first(&gone, ref)
        while op != NULL:
            following = op.next
            op.next = NULL
            release(op.owner)
            op = following
        release(gone.slab[ref].key)
    table_free_memory(&gone)


cdef uint32_t forget_entries(core_t *core) noexcept:
    """Empty the store at once, then release what it held. Returns how many entries that were."""
    cdef table_t gone
    table_detach(&core.table, &gone)
    cdef uint32_t count = gone.count
    release_table(&gone)
    return count


# -- operations in flight ------------------------------------------------------------------------------------------


cdef int check_op(Store self, Op op) except -1:
    if not op.ready:
        raise ValueError("the operation was not initialised: call super().__init__(key)")
    if op.op.lanes != self.core.lanes:
        raise ValueError("the operation was not opened in this store")
    return 0


cdef void close_op(Store self, Op op) noexcept:
    """Complete an operation: by rule R2 the others on its key lose their marks, whatever became of it."""
    cdef PyObject *key
    if op.op.ref == 0:
        return
    pending_poison(&self.core.pending, op.op.ref, &op.op, 0)
    key = pending_remove(&self.core.pending, &op.op)
    release_or_null(key)
    release(<PyObject *>op)


cdef void distrust(core_t *core, int64_t hash) noexcept:
    """A key could not be compared, so nobody knows which entry is meant: drop all that it might be.

    Called with an exception set, which releasing does not disturb.
    """
    cdef graveyard_t graves
    cdef uint32_t ref, position, most
    cdef uint32_t tag = table_tag(&core.pending, hash)
    position = tag
    ref = table_next(&core.pending, hash, tag, &position)
    while ref != 0:
        pending_poison(&core.pending, ref, NULL, 0)
        ref = table_next(&core.pending, hash, tag, &position)
    # Bounded, since what is released may put new entries with this hash.
    for most in range(core.table.count):
        tag = table_tag(&core.table, hash)
        position = tag
        ref = table_next(&core.table, hash, tag, &position)
        if ref == 0:
            return
        graveyard_init(&graves)
        core_bury(core, ref, &graves)
        core.counters.invalidated += 1
        bury(&graves)


cdef int find_for(Store self, Op op, uint32_t *ref) except -1:
    """Find the entry that an operation is about to complete on; if that fails, complete it as unknown (R6)."""
    check_op(self, op)
    try:
        return find(&self.core.table, <PyObject *>op.key, op.hash, ref)
    except BaseException:
        distrust(&self.core, op.hash)
        close_op(self, op)
        raise


cdef inline bint contradicts(core_t *core, Op op, uint32_t ref, uint64_t wid) noexcept:
    """Is there an entry of another write (rule R4)? One put locally while the op was in flight is newer: no."""
    if ref == 0 or (wid != 0 and core.table.slab[ref].wid == wid):
        return False
    return not (op.op.overtaken and core.table.slab[ref].wid == 0)


cdef bint finish_locked(
    Store self, Op op, PyObject *value, item_t *item, uint32_t ref, uint64_t identity
) except -1:
    """Decide on the result of an operation, and act. Runs no Python until everything is done."""
    cdef core_t *core = &self.core
    cdef int64_t now_ns = clock_now(&core.source)
    cdef bint admitted = item.wid != 0 and core_admits(core, &op.op, identity)
    cdef bint contradicted = contradicts(core, op, ref, item.wid)
    cdef graveyard_t graves
    cdef int status = 0
    graveyard_init(&graves)
    admitted = admitted and core_fits(core, item.size) and now_ns < item.deadline_ns
    if contradicted and not (admitted and op.op.is_write):
        core_bury(core, ref, &graves)
        core.counters.invalidated += 1
        admitted = False
    if admitted:
        status = core_store(core, ref, <PyObject *>op.key, value, op.hash, item, now_ns, &graves)
        if status >= 0:
            hold(value)
        if status == 1:
            hold(<PyObject *>op.key)
        if status < 0 and ref != 0:  # the old value is not current any more, so it goes all the same
            core_bury(core, ref, &graves)
    close_op(self, op)
    bury(&graves)
    if status < 0:
        raise MemoryError
    return admitted


cdef bint refresh_locked(
    Store self, Op op, uint64_t wid, int64_t deadline_ns, uint32_t ref, uint64_t identity
) noexcept:
    cdef core_t *core = &self.core
    cdef entry_t *entry
    cdef graveyard_t graves
    cdef bint refreshed = False
    graveyard_init(&graves)
    if contradicts(core, op, ref, wid):
        core_bury(core, ref, &graves)
        core.counters.invalidated += 1
    elif ref != 0 and wid != 0 and core_admits(core, &op.op, identity) and clock_now(&core.source) < deadline_ns:
        entry = &core.table.slab[ref]
        refreshed = entry.wid == wid
        if refreshed:
            entry.deadline_ns = deadline_ns
            entry.lane = op.op.lane
            entry.stamp = core.lanes.lane[op.op.lane].stamp
            table_touch(&core.table, ref)
            core.counters.hits += 1
    close_op(self, op)
    bury(&graves)
    return refreshed


cdef int apply_one(Store self, object key, uint64_t wid, graveyard_t *graves) except -1:
    """One key of a message (rules R2 and R7). Returns whether an entry was dropped, into the graveyard."""
    cdef core_t *core = &self.core
    cdef int64_t hash = hash_of(<PyObject *>key)
    cdef uint32_t ref, pending
    try:
        find_both(core, <PyObject *>key, hash, &ref, &pending)
    except BaseException:
        distrust(core, hash)
        raise
    pending_poison(&core.pending, pending, NULL, wid)
    if ref == 0 or (wid != 0 and core.table.slab[ref].wid == wid):
        return 0
    if graves.count == graves.capacity:  # there was no memory for all; releasing a few early does no harm
        bury(graves)
        find(&core.table, <PyObject *>key, hash, &ref)
        if ref == 0:
            return 0
    core_bury(core, ref, graves)
    core.counters.invalidated += 1
    return 1


cdef class Op:
    """One read or write under way between this process and L2, from before its request to after its reply.

    Args:
        key: The key as the store holds it (after ``keyfunc``).
        lane: The lane that the key belongs to.
        wid: For a write, the id it gives the value.
        write: Whether it is a write.
    Cost: O(1) in every respect. Subclasses may add what they like; one object serves one operation.
    """

    def __init__(self, key, lane: int = 0, *, wid: int = 0, write: bool = False):
        if self.op.lanes != NULL:
            raise RuntimeError("the operation was opened already: make a new one")
        self.op.lane = lane
        self.op.wid = wid
        self.hash = hash_of(<PyObject *>key)
        self.key = key
        self.op.is_write = write
        self.op.storable = True
        self.op.joinable = not write
        self.op.owner = <PyObject *>self
        self.ready = True

    def __dealloc__(self):
        lanes_release(self.op.lanes)

    @property
    def lane(self):
        """The lane that the key belongs to."""
        return self.op.lane

    @property
    def wid(self):
        """The id of the write; 0 for a read."""
        return self.op.wid

    @property
    def is_write(self):
        """Whether it is a write."""
        return self.op.is_write != 0

    @property
    def storable(self):
        """Whether nothing has happened since ``open`` that forbids L1 to keep the result."""
        return op_is_storable(&self.op)

    @property
    def joinable(self):
        """Whether a reader who comes now may share the result."""
        return op_is_joinable(&self.op)


cdef class Store:
    """A bounded mapping in exact LRU order, with deadlines, lanes and a record of operations in flight.

    Args:
        maxsize: Most entries to hold; None for no bound.
        maxbytes: Largest sum of the entries' sizes; None for no bound.
        ttl_ns: Lifetime of what is put locally; 0 for no end.
        lanes: Number of lanes, 1 to 65,535. None of them is vouched for at the start, so that nothing is served
            before ``lane_vouch``.
        keyfunc: From the caller's key to the key to hold. The mapping methods, ``hit``, ``peek``, ``put`` and ``drop``
            apply it; the methods about operations and messages take the held key.
        getsizeof: From a value to its size, for what is put locally; ``finish`` is told the size.

    Everything that the mapping methods do is local and concerns lane 0. Keys compare as in a dict. All methods may be
    called from any thread, and again from within the ``__hash__``, ``__eq__`` and ``__del__`` of keys and values.
    """

    def __cinit__(self):
        cdef uint64_t[2] seed
        cdef const unsigned char[:] noise = os.urandom(16)
        for i in range(16):
            (<unsigned char *>seed)[i] = noise[i]
        if core_init(&self.core, 1, seed) < 0:
            raise MemoryError

    def __init__(self, maxsize, *, maxbytes=None, ttl_ns: int = 0, lanes: int = 1, keyfunc=None, getsizeof=None):
        cdef lanes_t *made
        if self.ready:
            raise RuntimeError("the store was initialised already")
        if not 1 <= lanes <= 0xffff:
            raise ValueError(f"lanes={lanes}: there must be 1 to 65535 of them")
        if ttl_ns < 0:
            raise ValueError(f"ttl_ns={ttl_ns}: a lifetime cannot be negative")
        self.core.max_entries = bound("maxsize", maxsize)
        self.core.max_bytes = bound("maxbytes", maxbytes)
        self.ttl_ns = min(ttl_ns, CLOCK_NEVER_NS)
        made = lanes_new(lanes)
        if made == NULL:
            raise MemoryError
        lanes_release(self.core.lanes)
        self.core.lanes = made
        self.keyfunc = keyfunc
        self.sizeof = getsizeof
        self.ready = True

    def __dealloc__(self):
        forget_pending(&self.core)
        forget_entries(&self.core)
        lanes_release(self.core.lanes)

    __class_getitem__ = classmethod(GenericAlias)

    def __sizeof__(self):
        return object.__sizeof__(self) + table_memory(&self.core.table) + table_memory(&self.core.pending)

    # -- mapping -------------------------------------------------------------------------------------------------

    def __getitem__(self, key):
        cdef PyObject *value
        if likely(self.keyfunc is None):
            value = hit_fast(&self.core, <PyObject *>key, hash_of(<PyObject *>key))
            if likely(value != NULL):
                return <object>value
        return subscript_miss(self, key)

    def get(self, key, default=None):
        """Return the value, or ``self._missing_get(key, default)`` if there is no valid one. A hit stays in C."""
        cdef PyObject *value
        if likely(self.keyfunc is None):
            value = hit_fast(&self.core, <PyObject *>key, hash_of(<PyObject *>key))
            if likely(value != NULL):
                return <object>value
        return get_miss(self, key, default)

    def __contains__(self, key):
        cdef uint32_t ref
        if likely(self.keyfunc is None):
            ref = find_fast(&self.core.table, <PyObject *>key, hash_of(<PyObject *>key))
            if likely(ref != 0):
                if likely(core_is_valid(&self.core, &self.core.table.slab[ref], clock_now(&self.core.source))):
                    return True
        return find_valid(self, key) != 0 or bool(self._missing_in(key))

    def _missing(self, key):
        """Hook: what ``self[key]`` is when there is no valid entry. Raises KeyError unless overridden."""
        raise KeyError(key)

    def _missing_get(self, key, default):
        """Hook: what ``get`` returns when there is no valid entry."""
        return default

    def _missing_in(self, key):
        """Hook: what ``key in self`` is when there is no valid entry."""
        return False

    def __len__(self):
        return self.core.table.count

    def __iter__(self):
        return iter(collect(self, False))

    def __setitem__(self, key, value):
        put_local(self, key, value, self.ttl_ns, 0)

    def __delitem__(self, key):
        cdef bint was_valid
        remove_local(self, key, &was_valid)
        if not was_valid:
            raise KeyError(key)

    def put(self, key, value, ttl_ns=None, size: int = 0):
        """Store locally, with a lifetime of its own (0: no end) and a size (unless the store has ``getsizeof``).

        Operations in flight on the key lose their marks, for the value put now is newer than theirs.

        Raises:
            ValueTooLargeError: The size is above ``maxbytes``. An older value is kept.
        """
        cdef int64_t lifetime = self.ttl_ns if ttl_ns is None else min(ttl_ns, CLOCK_NEVER_NS)
        if lifetime < 0:
            raise ValueError(f"ttl_ns={ttl_ns}: a lifetime cannot be negative")
        if not 0 <= size <= CLOCK_NEVER_NS:
            raise ValueError(f"size={size}: it must be 0 or more, below 2**63")
        put_local(self, key, value, lifetime, size)

    def pop_lru(self):
        """Remove and return the least recently used valid pair; expired entries on the way are reclaimed.

        Raises:
            KeyError: There is none.
        """
        cdef graveyard_t graves
        cdef uint32_t ref = oldest_valid(&self.core)
        if ref == 0:
            raise KeyError("the store holds no valid entry")
        graveyard_init(&graves)
        core_bury(&self.core, ref, &graves)
        try:
            return <object>graves.pairs[0].key, <object>graves.pairs[0].value
        finally:
            bury(&graves)

    def peek(self, key, default=None):
        """Return the value if it is valid, else ``default``. Moves no recency and counts nothing."""
        cdef uint32_t ref = find_valid(self, key)
        return default if ref == 0 else <object>self.core.table.slab[ref].value

    def hit(self, key, default):
        """Like ``get``, but calls no hook."""
        return read_or(self, key, default)

    def hit_many(self, list keys not None, default):
        """``[self.hit(key, default) for key in keys]``, in one loop."""
        cdef list result = []
        cdef object key
        for key in keys:
            result.append(read_or(self, key, default))
        return result

    def drop(self, key):
        """Remove the key's entry from this store, whatever its state. Returns whether there was one."""
        cdef bint was_valid
        return remove_local(self, key, &was_valid) != 0

    def drop_all(self):
        """Remove every entry from this store; no operation in flight may store any more. Returns their number."""
        cdef uint32_t ref
        for ref in range(1, self.core.pending.used + 1):
            if self.core.pending.slab[ref].key != NULL:
                pending_overtake(&self.core.pending, ref)
        return forget_entries(&self.core)

    def snapshot(self):
        """The valid pairs, least recently used first."""
        return collect(self, True)

    def sweep(self, n: int):
        """Examine at most ``n`` slab positions, going round, and reclaim what has expired. Returns how many did."""
        cdef graveyard_t graves
        cdef size_t found
        cdef uint32_t steps = max(0, min(n, self.core.table.used))
        graveyard_init(&graves)
        if graveyard_reserve(&graves, steps) < 0:
            raise MemoryError
        found = core_sweep(&self.core, steps, clock_now(&self.core.source), &graves)
        bury(&graves)
        return found

    # -- lanes ---------------------------------------------------------------------------------------------------

    def lane_vouch(self, lane, until_ns):
        """Serve entries of the lane until this instant, and not at it."""
        lane_at(self, lane).fresh_until_ns = min(until_ns, CLOCK_NEVER_NS)

    def lane_suspect(self, lane):
        """A message of the lane may be lost: its entries become suspects, its operations lose their marks. O(1)."""
        lane_at(self, lane).stamp += 1

    def lane_dark(self, lane):
        """Serve nothing of the lane until it is vouched for again."""
        lane_at(self, lane).fresh_until_ns = 0

    def lane_attach(self, lane, identity):
        """Say from which server the lane's messages come; 0 says none, and then nothing of the lane is stored."""
        lane_at(self, lane).identity = identity

    def lane_stamp(self, lane):
        """The lane's stamp."""
        return lane_at(self, lane).stamp

    def lane_fresh_until(self, lane):
        """The instant until which the lane is vouched for."""
        return lane_at(self, lane).fresh_until_ns

    # -- operations in flight --------------------------------------------------------------------------------------

    def open(self, Op op not None):
        """Register an operation, before its request is sent (R1). A write poisons all others on its key (R2)."""
        cdef core_t *core = &self.core
        cdef uint32_t ref
        if not op.ready or op.op.lanes != NULL:
            raise ValueError("the operation was not initialised, or was opened before: make a new one")
        lane_at(self, op.op.lane)
        find(&core.pending, <PyObject *>op.key, op.hash, &ref)
        if op.op.lanes != NULL:
            raise ValueError("the operation was opened by its own key's __eq__")
        if ref == 0 and table_reserve(&core.pending, TABLE_MAX_ENTRIES) < 0:
            raise MemoryError
        hold(<PyObject *>op)
        if pending_add(&core.pending, ref, <PyObject *>op.key, op.hash, &op.op, core.lanes):
            hold(<PyObject *>op.key)
        if op.op.is_write:
            pending_poison(&core.pending, op.op.ref, &op.op, 0)

    def join(self, key):
        """A read in flight on the key whose result a new reader may share; None if there is none."""
        cdef uint32_t ref
        cdef op_t *op
        find(&self.core.pending, <PyObject *>key, hash_of(<PyObject *>key), &ref)
        op = pending_first(&self.core.pending, ref)
        while op != NULL:
            if not op.is_write and op_is_joinable(op):
                return <object>op.owner
            op = op.next
        return None

    def finish(
        self, Op op not None, value, uint64_t wid, int64_t deadline_ns, uint64_t size=0, uint64_t identity=0
    ):
        """Complete an operation with its result. Returns whether L1 keeps it.

        Args:
            wid: Id of the write that made the value; 0: there is no value, and what L1 holds is dropped.
            deadline_ns: Instant from which the value is not to be served any more.
            size: Of the value, against ``maxbytes``. What is larger is not kept.
            identity: Of the server that replied.

        The result is kept if nothing spoke against it since ``open`` (R3). An entry of another write is dropped and
        neither is kept (R4), save that a write whose result may be kept replaces it.
        """
        cdef uint32_t ref
        cdef item_t item = item_t(wid=wid, deadline_ns=deadline_ns, size=size, lane=op.op.lane)
        find_for(self, op, &ref)
        return finish_locked(self, op, <PyObject *>value, &item, ref, identity)

    def refresh(self, Op op not None, uint64_t wid, int64_t deadline_ns, uint64_t identity=0):
        """Complete a read that found L2 to hold this ``wid``: the entry that has it is current again.

        Conditions and disagreement as for ``finish``. Counts a hit. Returns False if there is no such entry, or the
        operation may not store; the value has to be read then.
        """
        cdef uint32_t ref
        find_for(self, op, &ref)
        return refresh_locked(self, op, wid, deadline_ns, ref, identity)

    def abandon(self, Op op not None, *, drop: bool):
        """Complete an operation that failed. With ``drop`` the outcome is unknown and the entry goes (R6).

        An operation that has completed may be abandoned, to no effect without ``drop``.
        """
        cdef graveyard_t graves
        cdef uint32_t ref = 0
        check_op(self, op)
        graveyard_init(&graves)
        if drop:
            find_for(self, op, &ref)
        if ref != 0:
            core_bury(&self.core, ref, &graves)
            self.core.counters.invalidated += 1
        close_op(self, op)
        bury(&graves)

    def suspect(self, key):
        """``(wid, value)`` of an entry whose own time is not over but which may not be served now; else None.

        A reader may ask L2 for the ``wid`` alone, and ``refresh``.
        """
        cdef core_t *core = &self.core
        cdef entry_t *entry
        cdef int64_t now_ns
        cdef uint32_t ref
        find(&core.table, <PyObject *>key, hash_of(<PyObject *>key), &ref)
        if ref == 0:
            return None
        now_ns = clock_now(&core.source)
        entry = &core.table.slab[ref]
        if now_ns >= entry.deadline_ns or core_is_valid(core, entry, now_ns):
            return None
        value = <object>entry.value
        return entry.wid, value

    def apply(self, lane, uint64_t wid, list keys not None, is_clear=False):
        """Apply one message: a write, or clear, elsewhere. Returns the number of entries dropped.

        Operations on the keys lose their marks, except the very write that the message announces (R2); entries of
        other writes are dropped (R7). A clear makes the whole lane suspect.

        Raises what ``__hash__`` or ``__eq__`` of a key raises, after everything that such a key might mean is dropped
        and the other keys are dealt with.
        """
        cdef graveyard_t graves
        cdef object key, error = None
        cdef uint64_t before = self.core.counters.invalidated
        lane_at(self, lane)
        if is_clear:
            self.lane_suspect(lane)
        graveyard_init(&graves)
        graveyard_reserve(&graves, len(keys))
        for key in keys:
            try:
                apply_one(self, key, wid, &graves)
            except BaseException as first:
                error = error or first
        bury(&graves)
        if error is not None:
            raise error
        return self.core.counters.invalidated - before

    def reset_pending(self):
        """Forget every operation in flight, as a child must after a fork; none of them may store any more."""
        forget_pending(&self.core)

    # -- time and observation --------------------------------------------------------------------------------------

    def set_clock(self, ns):
        """Make it this instant until told otherwise; None returns to the system's coarse monotonic clock."""
        self.core.source.fixed_ns = CLOCK_REAL if ns is None else ns

    def counters(self):
        """What has happened so far, and what is held. ``hits`` counts revalidations too."""
        cdef core_t *core = &self.core
        return {
            "hits": core.counters.hits,
            "misses": core.counters.misses,
            "evictions": core.counters.evictions,
            "expirations": core.counters.expirations,
            "invalidated": core.counters.invalidated,
            "suspects": core.counters.suspects,
            "stored": core.counters.stored,
            "bytes": core.table.bytes,
            "entries": core.table.count,
            "maxsize": self.maxsize,
            "maxbytes": self.maxbytes,
        }

    def check_invariants(self):
        """Examine everything; AssertionError says what is wrong. Cost: O(capacity)."""
        cdef const char *wrong = core_check(&self.core)
        if wrong != NULL:
            raise AssertionError(wrong.decode())

    @property
    def currsize(self):
        """Entries held."""
        return self.core.table.count

    @property
    def maxsize(self):
        """Most entries to hold; None: no bound."""
        return None if self.core.max_entries == 0xffffffffffffffff else self.core.max_entries

    @property
    def maxbytes(self):
        """Largest sum of sizes; None: no bound."""
        return None if self.core.max_bytes == 0xffffffffffffffff else self.core.max_bytes


# -- garbage collection ------------------------------------------------------------------------------------------
# Cython does not see references in C structs. Its own functions are wrapped, once, before anybody derives a class.


cdef extern from "Python.h":
    # Of plain pointers: what runs during a collection must not count references.
    ctypedef int (*visit_t "visitproc")(PyObject *obj, void *arg) noexcept
    ctypedef int (*traverse_t "traverseproc")(PyObject *obj, visit_t visit, void *arg) noexcept
    ctypedef int (*clear_t "inquiry")(PyObject *obj) noexcept
    ctypedef struct type_t "PyTypeObject":
        traverse_t tp_traverse
        clear_t tp_clear


cdef traverse_t traverse_objects = (<type_t *>Store).tp_traverse
cdef clear_t clear_objects = (<type_t *>Store).tp_clear


cdef int traverse_store(PyObject *obj, visit_t visit, void *arg) noexcept:
    cdef core_t *core = &(<Store>obj).core
    cdef int stop = traverse_objects(obj, visit, arg)
    if stop == 0:
        stop = traverse_table(&core.table, visit, arg)
    if stop == 0:
        stop = traverse_pending(&core.pending, visit, arg)
    return stop


cdef int traverse_table(table_t *t, visit_t visit, void *arg) noexcept:
    cdef uint32_t ref
    cdef int stop = 0
    for ref in range(1, t.used + 1):
        if t.slab[ref].key != NULL:
            stop = visit(t.slab[ref].key, arg) or visit(t.slab[ref].value, arg)
            if stop != 0:
                return stop
    return 0


cdef int traverse_pending(table_t *t, visit_t visit, void *arg) noexcept:
    cdef op_t *op
    cdef uint32_t ref
    cdef int stop = 0
    for ref in range(1, t.used + 1):
        if t.slab[ref].key == NULL:
            continue
        stop = visit(t.slab[ref].key, arg)
        op = pending_first(t, ref)
        while stop == 0 and op != NULL:
            stop = visit(op.owner, arg)
            op = op.next
        if stop != 0:
            return stop
    return 0


cdef int clear_store(PyObject *obj) noexcept:
    forget_pending(&(<Store>obj).core)
    forget_entries(&(<Store>obj).core)
    return clear_objects(obj)


(<type_t *>Store).tp_traverse = traverse_store
(<type_t *>Store).tp_clear = clear_store
