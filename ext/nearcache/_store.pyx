# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""L1: the store that answers from this process's memory.

The algorithms are C (``ext/include/nearcache``) and explained in ``ext/README.md``. Cython lends them
Python's notions of hash, equality and reference: ``_lookup.pxd`` finds, ``_holding.pxd`` counts references,
``_local.pxd`` reads and writes, ``_flights.pxd`` completes operations. This module is what Python sees of
it, together with ``_keyed.pxd`` and ``_entrances.pxd``, which only stand apart to keep it in sight.

Three rules keep it safe against keys and values that run code of their own:

1. Whatever may run Python (hashing, comparing, sizing, releasing) comes before or after a change, never
within. 2. After such a call everything read from the table is read again; ``find`` does so by the table's
version. 3. References are released last, from a graveyard on the C stack.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

import os
from types import GenericAlias

from nearcache._core cimport (
    CAUSE_DROPPED,
    CAUSE_INVALIDATED,
    CLOCK_NEVER_NS,
    NO_BOUND,
    clock_now,
    clock_shorten,
    core_await,
    core_t,
    entry_t,
    graveyard_init,
    graveyard_reserve,
    graveyard_t,
    item_t,
    lane_attach,
    lane_fresh_until,
    lane_stamp,
    lanes_new,
    lanes_suspect,
    lanes_vouch,
    lanes_release,
    lanes_t,
    op_is_joinable,
    op_is_storable,
    order_free_memory,
)
from nearcache._batches cimport add_result, hit_batch
from nearcache._cores cimport (
    MOST_CORES,
    adapt,
    begin_cores,
    collect,
    count_entries,
    drop_everything,
    end_cores,
    first_wrong,
    fix_clock,
    forget_cores,
    forget_operations,
    memory_of,
    pop_any,
    redirect,
    spread,
    sum_counters,
    sweep_all,
    take_expired,
    tend_all,
    traverse_cores,
)
from nearcache._entrances cimport patch_entrances
from nearcache._flights cimport (
    abandon_op, apply_one, find_for, joinable_on, open_op, restamp, suspect_at,
)
from nearcache._holding cimport bury, forget_entries, forget_pending, visit_t
from nearcache._keyed cimport (
    contains_hashed, held_key, keep, measured, put_local, read_object, read_or, remove_hashed, remove_local,
    subscript_hashed,
)
from nearcache._lanes cimport depend_on, lane_at, lane_number, lanes_wanted
from nearcache._local cimport bound, checked_size, checked_ttl, find_valid, reclaim
from nearcache._locking cimport core_unlock
from nearcache._lookup cimport MOST_RESTARTS, hash_of, hold, likely, owned, unlikely
from nearcache._slots cimport clear_t, give_method, traverse_t, type_t


cdef extern from "nearcache/memory.h" nogil:
    const bint NEARCACHE_FAULTS
    long faults_after(long allowed)


cdef extern from *:
    dict new_dict "__Pyx_PyDict_NewPresized"(Py_ssize_t entries)


cdef object NOTHING = object()  # what hit_dict cannot find in the store


cdef core_t *opened_here(Store self, Op op) except NULL:
    if op.op.lanes != self.core.lanes:
        raise ValueError("the operation was not opened in this store")
    return core_at(self, op.op.hash)


# -- operations, for other modules too -------------------------------------------------------------------------


cdef int begin_op(Store self, Op op) except -1:
    lane_at(self.core.lanes, op.op.lane)
    if not op.ready:
        raise ValueError("the operation was not initialised: make a new one")
    return open_op(core_at(self, op.op.hash), &op.op)


cdef bint finish_op(Store self, Op op, object value, const item_t *item, uint64_t identity) except -1:
    """As ``Store.l1_finish``, for a read."""
    cdef core_t *core = opened_here(self, op)
    cdef uint32_t ref
    find_for(core, &op.op, &ref)
    return keep(self, core, op, value, item, identity, ref)


cdef bint confirm_op(Store self, Op op, const item_t *item, uint64_t identity) except -1:
    cdef core_t *core = opened_here(self, op)
    cdef uint32_t ref
    find_for(core, &op.op, &ref)
    return restamp(core, &op.op, item, identity, ref)


cdef int give_up_op(Store self, Op op, bint drop) except -1:
    if op.op.lanes != NULL:
        abandon_op(opened_here(self, op), &op.op, drop)
    return 0


cdef Py_ssize_t apply_keys(Store self, list keys, uint64_t wid, graveyard_t *yard) except -1:
    """Apply a message to keys; those that can be dealt with are, even if one cannot. Returns how many entries went."""
    cdef object key
    cdef object error = None
    cdef int64_t hash
    cdef Py_ssize_t dropped = 0
    if unlikely(yard.capacity - yard.count < <size_t>len(keys)):
        graveyard_reserve(yard, len(keys))
    for key in keys:
        try:
            hash = hash_of(<PyObject *>key)
            dropped += apply_one(core_at(self, hash), <PyObject *>key, hash, wid, yard)
        except BaseException as raised:
            error = raised if error is None else error
    if error is not None:
        raise error
    return dropped


cdef int forget_past(Store self) except -1:
    """Let go of what came before ``__init__``, and of the tables too: an empty one has an order, which is made anew.

    Whoever dies of it may bring more, or initialise the store; then nothing is left to do.
    """
    cdef uint32_t rounds = 0
    while not self.ready and (self.core.table.capacity != 0 or self.core.pending.capacity != 0):
        if rounds == MOST_RESTARTS:
            raise RuntimeError(f"the store was filled again {rounds} times while __init__ emptied it")
        rounds += 1
        forget_pending(&self.core)
        forget_entries(&self.core, NULL, CAUSE_DROPPED)
    return 0


# -- what Python sees ----------------------------------------------------------------------------------------


cdef class Op:
    """One read or write under way between this process and L2, from before its request to after its reply.

    Args:
        key: The key as the store holds it (after ``keyfunc``).
        lane: The lane that the key belongs to.
        wid: For a write, the id it gives the value.
        write: Whether it is a write.
        announced: Whether a message with its ``wid`` is sure to come if the write succeeds. Messages of a lane keep
            the order of the writes, so others that come before it are older and do not speak against the write (R5).
    One object serves one operation. Subclasses may add what they like.
    """

    def __init__(self, key, lane=0, *, wid=0, write=False, announced=False):
        cdef uint16_t number = lane
        cdef uint64_t write_id = wid
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef bint is_write = bool(write)
        cdef bint is_announced = is_write and bool(announced)
        if self.ready:  # asked only now, since hashing may have done it; and a key in use is not to be replaced
            raise ValueError("the operation was initialised already: make a new one")
        self.op.lane = number
        self.op.wid = write_id
        self.op.hash = hash
        self.key = key
        self.op.key = <PyObject *>key
        self.op.owner = <PyObject *>self
        self.op.is_write = is_write
        self.op.announced = is_announced
        self.op.storable = True
        self.op.joinable = not is_write
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
        """Whether nothing has happened since ``l1_open`` that forbids L1 to keep the result."""
        return op_is_storable(&self.op)

    @property
    def joinable(self):
        """Whether a reader who comes now may share the result."""
        return op_is_joinable(&self.op)


@cython.trashcan(True)  # a store within a store within a store dies without exhausting the C stack
cdef class Store:
    """A bounded mapping with deadlines, lanes and a record of operations in flight.

    Args:
        maxsize: Most entries to hold; None for no bound.
        maxbytes: Largest sum of the entries' sizes; None for no bound.
        ttl_ns: Lifetime of what is put locally; 0 for no end.
        lanes: Number of lanes, 1 to 32,768. At the start none is vouched for, so that nothing is served.
        keyfunc: From the caller's key to the key to hold. The mapping methods, ``l1_hit``, ``l1_hit_dict``,
            ``peek``, ``l1_put`` and ``drop`` apply it; what concerns operations and messages takes the held key.
        getsizeof: From a value to its size, for what is put locally; ``l1_finish`` is told the size.
        listener: Called with key, value and cause (``evicted``, ``expired``, ``replaced``, ``invalidated`` or
            ``dropped``) of each entry that went, when the change is complete. An Exception that it raises is reported
            through ``sys.unraisablehook``; what is none is raised by the main thread, where it was called there.
        policy: ``lru``, exact; or ``adaptive``, which learns what is worth keeping (``ext/README.md``).
        cores: Most parts, each with a lock and an order of its own, that a store may be divided into on
            free-threaded builds; default: as many as suit its size. Elsewhere there is one.

    What the mapping methods do is local and concerns lane 0. Keys compare as in a dict. What is for the layers above
    only begins with ``l1_`` or ``lane_``, apart from the names that users' own subclasses choose. All methods may be
    called from any thread, and from within the ``__hash__``, ``__eq__`` and ``__del__`` of keys and values.
    """

    def __cinit__(self):
        begin_cores(&self.cores, &self.core, &self.quota, NO_BOUND, os.urandom(16))

    def __init__(
        self, maxsize, *, maxbytes=None, ttl_ns=0, lanes=1, keyfunc=None, getsizeof=None, listener=None,
        policy="lru", cores=None
    ):
        # Whatever may run Python comes first, for it may initialise the store, or fill it.
        cdef int64_t lifetime = checked_ttl(ttl_ns)
        cdef uint64_t most = bound("maxsize", maxsize)
        cdef uint64_t most_bytes = bound("maxbytes", maxbytes)
        cdef uint32_t lane_count = lanes_wanted(lanes)
        cdef uint32_t most_cores = MOST_CORES if cores is None else max(1, min(cores, MOST_CORES))
        cdef bint is_adaptive = policy == "adaptive"
        cdef tuple before = (self.keyfunc, self.sizeof, self.listener)  # of an __init__ that failed
        cdef lanes_t *made
        if not is_adaptive and policy != "lru":
            raise ValueError(f"policy={policy!r}: it must be 'lru' or 'adaptive'")
        self.hooked_get = type(self)._missing_get is not Store._missing_get
        self.hooked_in = type(self)._missing_in is not Store._missing_in
        forget_past(self)
        if self.ready:
            raise ValueError("the store was initialised already")
        made = lanes_new(lane_count)
        if made == NULL:
            raise MemoryError
        lanes_release(self.core.lanes)
        self.core.lanes = made
        self.ttl_ns = lifetime
        self.quota.limit = most
        self.core.max_bytes = most_bytes
        self.keyfunc = keyfunc
        self.sizeof = getsizeof
        self.listener = listener
        self.core.listener = NULL if listener is None else <PyObject *>listener
        order_free_memory(&self.core.order)  # as that one has left it
        if is_adaptive and (most != NO_BOUND or most_bytes != NO_BOUND):
            adapt(&self.core)  # what has no bound evicts nobody
        if most_bytes == NO_BOUND:
            spread(&self.cores, most_cores)
        self.ready = True
        del before  # last, for it may run any code

    def __dealloc__(self):
        end_cores(&self.cores, &self.core)

    __class_getitem__ = classmethod(GenericAlias)

    def __sizeof__(self):
        return object.__sizeof__(self) + memory_of(&self.cores, &self.core)

    # -- mapping ---------------------------------------------------------------------------------------------

    def __getitem__(self, key):
        if likely(self.keyfunc is None):  # subscript_at_once, below, has tried the fastest way
            return owned(subscript_hashed(self, key, hash_of(<PyObject *>key)))
        cdef PyObject *value = read_object(self, key)
        return owned(value) if value != NULL else self._missing(key)

    def get(self, key, default=None, *, max_age=None):
        """Return the value for a key, or ``default`` if no tier has one. Never calls the loader.

        With ``max_age`` a value that was stored longer ago, in seconds, counts as missing.
        """
        if max_age is not None:
            return self._missing_aged(key, default, max_age)
        cdef PyObject *value = read_object(self, key)  # get_at_once, below, has tried the fast way
        if value != NULL:
            return owned(value)
        return self._missing_get(key, default) if self.hooked_get else default

    def __contains__(self, key):
        cdef object held = held_key(self, key)
        return contains_hashed(self, key, held, hash_of(<PyObject *>held))

    def _missing(self, key):
        """Hook: what ``self[key]`` is when there is no valid entry. Raises KeyError unless overridden."""
        raise KeyError(key)

    def _missing_get(self, key, default):
        """Hook: what ``get`` returns when there is no valid entry."""
        return default

    def _missing_aged(self, key, default, max_age):
        """Hook: what ``get`` returns with ``max_age``."""
        raise TypeError("max_age: a store keeps no ages; caches do")

    def _missing_in(self, key):
        """Hook: what ``key in self`` is when there is no valid entry."""
        return False

    def __len__(self):
        return count_entries(&self.cores)

    def __iter__(self):
        return iter(collect(&self.cores, False))

    def __setitem__(self, key, value):
        put_local(self, key, value, self.ttl_ns, 0)

    def __delitem__(self, key):
        cdef object held = held_key(self, key)
        remove_hashed(self, key, held, hash_of(<PyObject *>held))

    def _too_large(self, key, size):
        """Hook: a value is over ``maxbytes`` and not kept. Called for the first one."""

    def l1_put(self, key, value, ttl_ns=None, size=0):
        """Store locally, with a lifetime of its own (0: no end) and a size (unless there is ``getsizeof``).

        Operations in flight on the key lose their marks, for the value put now is newer than theirs.

        Raises:
            ValueTooLargeError: The size is above ``maxbytes``. An older value is kept.
        """
        cdef int64_t lifetime = self.ttl_ns if ttl_ns is None else checked_ttl(ttl_ns)
        put_local(self, key, value, lifetime, checked_size("size=", size))

    def l1_measure(self, value):
        """The size that a value put locally counts with: what ``getsizeof`` gives, 0 without it."""
        return 0 if self.sizeof is None else measured(self, value)

    def l1_pop_next(self):
        """Remove and return the valid pair that would be evicted next, the least recently used; expired entries on
        the way are reclaimed. Of a store of many cores: of the first that has one.

        Raises:
            KeyError: There is none.
        """
        cdef tuple pair = pop_any(&self.cores)
        if pair is None:
            raise KeyError("the store holds no valid entry")
        return pair

    def peek(self, key, default=None):
        """Return the value if it is valid, else ``default``. Moves no recency and counts nothing."""
        return self.l1_peek(held_key(self, key), default)

    def l1_peek(self, key, default):
        """Like ``peek``, of an entry named by its held key."""
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef core_t *core = core_at(self, hash)
        cdef PyObject *value = NULL
        cdef uint32_t ref = find_valid(core, <PyObject *>key, hash)
        if ref != 0:
            value = core.table.slab[ref].value
            hold(value)
        core_unlock(core)
        return owned(value) if ref != 0 else default

    def l1_hit(self, key, default):
        """Like ``get``, but calls no hook."""
        return read_or(self, key, default)

    def l1_hit_dict(self, keys, list missed not None):
        """``{key: value}`` of the keys that hit. The others are appended to ``missed``, each as often as it comes."""
        cdef bint is_own = type(keys) is tuple or (MOST_CORES == 1 and type(keys) is list)
        cdef object listed = keys if is_own else list(keys)
        cdef dict found = new_dict(len(listed))
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t served = 0
        while at < len(listed):
            if likely(MOST_CORES == 1 and self.keyfunc is None):
                served = hit_batch(&self.core, listed, at, found, missed)
                at += served
            if unlikely(served == 0 and at < len(listed)):  # hashing may have made the list shorter
                key = listed[at]
                add_result(found, missed, key, read_or(self, key, NOTHING), NOTHING)
                at += 1
        return found

    def drop(self, key):
        """Remove the key's entry from this process's memory, whatever its state. Returns whether there was one."""
        cdef bint was_valid
        return remove_local(self, key, CAUSE_DROPPED, &was_valid) != 0

    def l1_erase(self, key):
        """Remove the key's entry because its value was changed or removed. Returns whether there was a valid one."""
        cdef bint was_valid
        remove_local(self, key, CAUSE_INVALIDATED, &was_valid)
        return was_valid != 0

    def drop_all(self, *, invalidated=False):
        """Remove every entry of this process's memory and return their number. Nothing under way may store any more.

        A listener is told that the entries were dropped, or invalidated.
        """
        return drop_everything(&self.cores, CAUSE_INVALIDATED if invalidated else CAUSE_DROPPED)

    def l1_snapshot(self):
        """The valid pairs, the next to be evicted first: least recently used first. Of a store of many cores, one core
        after the other."""
        return collect(&self.cores, True)

    def l1_sweep(self, n):
        """Look at no more than ``n`` timers of each core, which may be due. Returns how many were reclaimed."""
        return sweep_all(&self.cores, n)

    def expire(self, now_ns=None):
        """Remove all entries whose time is over, now or at another instant, and return their pairs.

        Cost: O(entries that have expired), and of the tables, if these are made smaller.
        """
        return take_expired(&self.cores, now_ns)

    def l1_reclaim(self, key):
        """Remove an entry, named by its held key, if its time is over. Returns whether it was. Counts no read."""
        cdef int64_t hash = hash_of(<PyObject *>key)
        return reclaim(core_at(self, hash), <PyObject *>key, hash) != 0

    def remaining_ns(self, key):
        """Nanoseconds that an entry, named by its held key, has until its deadline; None: it has none.

        Raises:
            KeyError: There is no valid entry.
        """
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef core_t *core = core_at(self, hash)
        cdef int64_t deadline_ns = 0
        cdef int64_t left_ns = 0
        cdef uint32_t ref = find_valid(core, <PyObject *>key, hash)
        if ref != 0:
            deadline_ns = core.table.slab[ref].deadline_ns
            left_ns = deadline_ns - clock_now(&core.source)
        core_unlock(core)
        if ref == 0:
            raise KeyError(key)
        return None if deadline_ns == CLOCK_NEVER_NS else max(left_ns, 0)

    def l1_wid(self, key):
        """Id of the write that an entry, named by its held key, came from; 0 if there is none that may be served."""
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef core_t *core = core_at(self, hash)
        cdef uint32_t ref = find_valid(core, <PyObject *>key, hash)
        cdef uint64_t wid = core.table.details[ref].wid if ref != 0 else 0
        core_unlock(core)
        return wid

    def l1_terms(self, key):
        """``(deadline_ns, (lane, stamp))`` of an entry, named by its held key; None if none may be served."""
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef core_t *core = core_at(self, hash)
        cdef uint32_t ref = find_valid(core, <PyObject *>key, hash)
        cdef entry_t entry
        if ref != 0:
            entry = core.table.slab[ref]
        core_unlock(core)
        return (entry.deadline_ns, (entry.lane, entry.stamp)) if ref != 0 else None

    # -- lanes -----------------------------------------------------------------------------------------------

    def lane_vouch(self, lane, until_ns):
        """Serve entries of the lane until this instant, and not at it: a heartbeat has been answered.

        Own writes that messages of others have spared, and whose own has not come by now, become suspects.
        """
        lanes_vouch(self.core.lanes, lane_number(self.core.lanes, lane), min(until_ns, CLOCK_NEVER_NS))

    def lane_suspect(self, lane):
        """A message of the lane may be lost: its entries become suspects, its operations lose their marks."""
        lanes_suspect(self.core.lanes, lane_number(self.core.lanes, lane))

    def lane_dark(self, lane):
        """Serve nothing of the lane until it is vouched for again."""
        lanes_vouch(self.core.lanes, lane_number(self.core.lanes, lane), 0)

    def lane_attach(self, lane, identity):
        """Say from which server the lane's messages come; 0: from none, and nothing of the lane is stored."""
        lane_attach(lane_at(self.core.lanes, lane), identity)

    def lane_stamp(self, lane):
        """The lane's stamp."""
        return lane_stamp(lane_at(self.core.lanes, lane))

    def lane_fresh_until(self, lane):
        """The instant until which the lane is vouched for."""
        return lane_fresh_until(lane_at(self.core.lanes, lane))

    # -- operations in flight --------------------------------------------------------------------------------

    def l1_open(self, Op op not None):
        """Register an operation, before its request is sent (R1). A write poisons others on its key (R2)."""
        begin_op(self, op)

    def l1_join(self, key):
        """A read in flight on the key whose result a new reader may share; None if there is none."""
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef PyObject *owner = joinable_on(core_at(self, hash), <PyObject *>key, hash)
        return owned(owner) if owner != NULL else None

    def l1_finish(self, Op op not None, value, wid, deadline_ns, size=0, identity=0, under=None):
        """Complete an operation with its result. Returns whether L1 keeps it.

        Args:
            wid: Id of the write that made the value; 0: there is no value, and what L1 holds is dropped.
            deadline_ns: Instant from which the value is not to be served any more.
            size: Of the value, against ``maxbytes``. What is larger is not kept.
            identity: Of the server that replied.
            under: Lane and stamp that the entry is to depend on, and what the caller adds to them; default: the
                operation's, as of ``l1_open``.

        The result is kept if nothing has spoken against it since ``l1_open`` (R3). An entry of another write is
        dropped and neither is kept (R4), save that a write whose result may be kept replaces it. An
        operation that is not open any more stores nothing.
        """
        cdef uint32_t ref
        cdef uint64_t server = identity
        cdef item_t item = item_t(
            wid=wid, deadline_ns=deadline_ns, size=size, stamp=op.op.stamp0, lane=op.op.lane, flags=0
        )
        cdef core_t *core = opened_here(self, op)
        depend_on(self.core.lanes, &item, under)
        find_for(core, &op.op, &ref)
        if op.op.announced and not op.op.heard:
            core_await(core, &op.op, &item)
        return keep(self, core, op, value, &item, server, ref)

    def l1_confirm(self, Op op not None, wid, deadline_ns, identity=0, under=None):
        """Complete a read that found L2 to hold this ``wid``: the entry that has it is current again.

        Conditions and disagreement as for ``l1_finish``. Returns False if there is no such entry, or if the
        operation may not store; then the value has to be read.
        """
        cdef uint64_t server = identity
        cdef item_t item = item_t(
            wid=wid, deadline_ns=deadline_ns, size=0, stamp=op.op.stamp0, lane=op.op.lane, flags=0
        )
        depend_on(self.core.lanes, &item, under)
        return confirm_op(self, op, &item, server) != 0

    def l1_abandon(self, Op op not None, *, drop):
        """Complete an operation that failed. With ``drop`` its outcome is unknown and the entry goes (R6).

        One that is not open any more may be abandoned too: without ``drop`` that does nothing. One that was
        never opened has nothing to complete: an interrupt may strike just before ``l1_open``.
        """
        give_up_op(self, op, drop)

    def l1_suspect(self, key):
        """``(wid, value, lane)`` of an entry whose own time is not over but which may not be served now; else None.

        A reader may then ask L2 for the ``wid`` alone, and ``l1_confirm``.
        """
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef tuple found = suspect_at(core_at(self, hash), <PyObject *>key, hash)
        return None if found is None else (found[2], found[3], found[0] % self.core.lanes.count)

    def l1_suspect_since(self, key):
        """``(lane, stamp, value)`` of such an entry; else None. It was vouched for while the lane had that stamp.

        Also None for an own write that a message of others has spared, and whose own has not come: it may be older than
        what that one told of, and no stamp of the lane says so.
        """
        cdef int64_t hash = hash_of(<PyObject *>key)
        cdef tuple found = suspect_at(core_at(self, hash), <PyObject *>key, hash)
        return None if found is None or found[0] >= self.core.lanes.count else (found[0], found[1], found[3])

    def lane_apply(self, lane, wid, list keys not None):
        """Apply one message of a write somewhere. Returns the number of entries dropped.

        Operations on the keys lose their marks, except the very write that the message announces (R2); entries of other
        writes are dropped (R7). Both spare a write of this store's own whose message is still to come.

        Raises what ``__hash__`` or ``__eq__`` of a key raises, after the other keys are dealt with and
        everything that such a key might mean is dropped.
        """
        cdef graveyard_t yard
        cdef uint64_t write = wid
        lane_at(self.core.lanes, lane)  # raises if there is none
        graveyard_init(&yard)
        try:
            return apply_keys(self, keys, write, &yard)
        finally:
            bury(self.cores.core, &yard)

    def l1_reset_pending(self):
        """Forget every operation in flight, as a child must after a fork; none of them may store any more."""
        forget_operations(&self.cores)

    # -- time and observation --------------------------------------------------------------------------------

    def l1_set_clock(self, ns):
        """Make it this instant until told otherwise; None goes back to the coarse monotonic clock."""
        fix_clock(&self.cores, ns is not None, 0 if ns is None else ns)

    def l1_tell(self, listener not None, *, stored=False):
        """Call another listener from now on, for good. ``stored``: also of values that come (created, updated)."""
        if self.teller is not None:
            raise ValueError("another listener was given before")
        self.teller = listener
        redirect(&self.cores, <PyObject *>listener, stored)

    def l1_refuse(self, keyfunc not None):
        """Use this as ``keyfunc`` from now on: it raises why nothing is served or kept under any key any more.

        The caller keeps the one before, which another thread may be calling.
        """
        self.keyfunc = keyfunc

    def l1_tend(self):
        """Do a little of what is otherwise done along with writing: reclaim what has expired, give memory back.

        Returns whether there is more of it, for who goes on.
        """
        return tend_all(&self.cores)

    def l1_counters(self):
        """What has happened so far, and what is held. A bound of 0 is none."""
        cdef dict counted = sum_counters(&self.cores)
        counted["maxsize"] = self.maxsize or 0
        counted["maxbytes"] = self.maxbytes or 0
        return counted

    def check_invariants(self):
        """Examine everything; AssertionError says what is wrong. Cost: O(capacity)."""
        cdef const char *wrong = first_wrong(&self.cores)
        if wrong != NULL:
            raise AssertionError(wrong.decode())

    @property
    def currsize(self):
        """Entries held."""
        return count_entries(&self.cores)

    @property
    def maxsize(self):
        """Most entries to hold; None: no bound."""
        return None if self.quota.limit == NO_BOUND else self.quota.limit

    @property
    def maxbytes(self):
        """Largest sum of sizes; None: no bound."""
        return None if self.core.max_bytes == NO_BOUND else self.core.max_bytes


def own_get(cls, /):
    """Class decorator that gives the classes which caches are made of a descriptor of their own for ``get``.

    A derived class's would stand, in the ``__mro__`` of others, before what their further bases define.
    """
    give_method(cls, Store.get)
    return cls


if NEARCACHE_FAULTS:  # debug builds only

    def _fail_allocation_after(n):
        """Let ``n`` allocations of the C core succeed; -1: all. Returns how many have failed since the last call."""
        return faults_after(n)


# -- the type's slots, patched once, before anybody derives a class ------------------------------------------


# Garbage collection. Cython does not see references in C structs; what it generates is called first.

cdef traverse_t traverse_objects = (<type_t *>Store).tp_traverse
cdef clear_t clear_objects = (<type_t *>Store).tp_clear


cdef int traverse_store(PyObject *obj, visit_t visit, void *arg) noexcept:
    cdef int stop = traverse_objects(obj, visit, arg)
    return stop if stop != 0 else traverse_cores(&(<Store>obj).cores, visit, arg)


cdef int clear_store(PyObject *obj) noexcept:
    cdef uint32_t i
    (<Store>obj).core.listener = NULL
    for i in range((<Store>obj).cores.count):
        (<Store>obj).cores.core[i].listener = NULL  # it may have been cleared before
    forget_cores(&(<Store>obj).cores)
    return clear_objects(obj)


(<type_t *>Store).tp_traverse = traverse_store
(<type_t *>Store).tp_clear = clear_store

# A mapping has no items by number. With these slots filled, as Cython does, Python takes it for a sequence.
(<type_t *>Store).tp_as_sequence.sq_item = NULL
(<type_t *>Store).tp_as_sequence.sq_ass_item = NULL

patch_entrances(Store)
clock_shorten()
