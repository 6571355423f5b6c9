# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, autotestdict=False, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""L1: the store that answers from this process's memory.

The algorithms are C (``ext/include/nearcache``) and explained in ``ext/README.md``. Cython lends them
Python's notions of hash, equality and reference: ``_lookup.pxd`` finds, ``_holding.pxd`` counts references,
``_local.pxd`` reads and writes, ``_flights.pxd`` completes operations. This module is what Python sees of
it.

Three rules keep it safe against keys and values that run code of their own:

1. Whatever may run Python (hashing, comparing, sizing, releasing) comes before or after a change, never
within. 2. After such a call everything read from the table is read again; ``find`` does so by the table's
version. 3. References are released last, from a graveyard on the C stack.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

import os
from types import GenericAlias

from nearcache._core cimport (
    CLOCK_NEVER_NS,
    CLOCK_REAL,
    ENTRY_UNHEARD,
    TABLE_MAX_ENTRIES,
    clock_now,
    clock_shorten,
    core_bury,
    core_check,
    core_init,
    core_is_valid,
    core_sweep,
    core_t,
    entry_t,
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
    op_t,
    pending_add,
    pending_first,
    pending_overtake,
    pending_poison,
    table_memory,
    table_reserve,
)
from nearcache._flights cimport apply_one, close_op, find_for, restamp, settle
from nearcache._holding cimport (
    bury,
    forget_entries,
    forget_pending,
    oldest_valid,
    traverse_entries,
    traverse_pending,
    visit_t,
)
from nearcache._local cimport (
    bound,
    checked_size,
    checked_ttl,
    collect,
    find_valid,
    hit_fast,
    owned,
    put,
    read,
    remove,
)
from nearcache._lookup cimport find, find_fast, hash_of, hold, likely


cdef inline object held_key(Store self, object key):
    """The key under which the store holds what the caller calls ``key``."""
    return key if self.keyfunc is None else self.keyfunc(key)


cdef bint read_object(Store self, object key, PyObject **value) except -1:
    """Read by the caller's key. True when ``value`` was set to a new reference."""
    cdef object held = held_key(self, key)
    value[0] = read(&self.core, <PyObject *>held, hash_of(<PyObject *>held))
    return value[0] != NULL


cdef object subscript_miss(Store self, object key):
    cdef PyObject *value
    if read_object(self, key, &value):
        return owned(value)
    return self._missing(key)


cdef object read_or(Store self, object key, object default):
    """Read without a hook."""
    cdef PyObject *value
    if self.keyfunc is None:
        value = hit_fast(&self.core, <PyObject *>key, hash_of(<PyObject *>key))
        if likely(value != NULL):
            return <object>value
    return owned(value) if read_object(self, key, &value) else default


cdef int put_local(Store self, object key, object value, int64_t ttl_ns, object given_size) except -1:
    cdef object held = held_key(self, key)
    cdef int64_t hash = hash_of(<PyObject *>held)
    cdef uint64_t size
    if self.sizeof is None:
        size = checked_size("size=", given_size)
    else:
        size = checked_size("getsizeof", self.sizeof(value))
    return put(&self.core, held, value, hash, size, ttl_ns)


cdef lane_t *lane_at(Store self, object index) except NULL:
    if not 0 <= index < self.core.lanes.count:
        raise IndexError(f"lane {index}: there are {self.core.lanes.count}")
    return &self.core.lanes.lane[<uint32_t>index]


cdef core_t *opened_here(Store self, Op op) except NULL:
    if op.op.lanes != self.core.lanes:
        raise ValueError("the operation was not opened in this store")
    return &self.core


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
        if self.op.lanes != NULL:
            raise ValueError("the operation was opened already: make a new one")
        self.op.lane = lane
        self.op.wid = wid
        self.op.hash = hash_of(<PyObject *>key)
        self.key = key
        self.op.key = <PyObject *>key
        self.op.owner = <PyObject *>self
        self.op.is_write = bool(write)
        self.op.announced = bool(write and announced)
        self.op.storable = True
        self.op.joinable = not write
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


@cython.trashcan(True)  # a store within a store within a store dies without exhausting the C stack
cdef class Store:
    """A bounded mapping in exact LRU order, with deadlines, lanes and a record of operations in flight.

    Args:
        maxsize: Most entries to hold; None for no bound.
        maxbytes: Largest sum of the entries' sizes; None for no bound.
        ttl_ns: Lifetime of what is put locally; 0 for no end.
        lanes: Number of lanes, 1 to 65,535. At the start none is vouched for, so that nothing is served.
        keyfunc: From the caller's key to the key to hold. The mapping methods, ``hit``, ``hit_many``,
            ``peek``, ``put`` and ``drop`` apply it; what concerns operations and messages takes the held key.
        getsizeof: From a value to its size, for what is put locally; ``finish`` is told the size.

    What the mapping methods do is local and concerns lane 0. Keys compare as in a dict. All methods may be
    called from any thread, and from within the ``__hash__``, ``__eq__`` and ``__del__`` of keys and values.
    """

    def __cinit__(self):
        cdef uint64_t[2] seed
        cdef bytes noise = os.urandom(sizeof(seed))
        memcpy(seed, <const char *>noise, sizeof(seed))
        if core_init(&self.core, 1, seed) < 0:
            raise MemoryError

    def __init__(
        self, maxsize, *, maxbytes=None, ttl_ns=0, lanes=1, keyfunc=None, getsizeof=None
    ):
        cdef lanes_t *made
        if self.ready:
            raise ValueError("the store was initialised already")
        if not 1 <= lanes <= 0xffff:
            raise ValueError(f"lanes={lanes}: there must be 1 to 65535 of them")
        self.ttl_ns = checked_ttl(ttl_ns)
        self.core.max_entries = bound("maxsize", maxsize)
        self.core.max_bytes = bound("maxbytes", maxbytes)
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

    # -- mapping ---------------------------------------------------------------------------------------------

    def __getitem__(self, key):
        cdef PyObject *value
        if likely(self.keyfunc is None):
            value = hit_fast(&self.core, <PyObject *>key, hash_of(<PyObject *>key))
            if likely(value != NULL):
                return <object>value
        return subscript_miss(self, key)

    def get(self, key, default=None):
        """Return the value, or ``self._missing_get(key, default)`` if there is no valid one."""
        cdef PyObject *value  # get_at_once, below, has tried the fast way
        if read_object(self, key, &value):
            return owned(value)
        return self._missing_get(key, default)

    def __contains__(self, key):
        cdef uint32_t ref
        cdef entry_t *entry
        if likely(self.keyfunc is None):
            ref = find_fast(&self.core.table, <PyObject *>key, hash_of(<PyObject *>key))
            if likely(ref != 0):
                entry = &self.core.table.slab[ref]
                if likely(core_is_valid(&self.core, entry, clock_now(&self.core.source))):
                    return True
        if find_valid(&self.core, held_key(self, key)) != 0:
            return True
        return bool(self._missing_in(key))

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
        return iter(collect(&self.core, False))

    def __setitem__(self, key, value):
        put_local(self, key, value, self.ttl_ns, 0)

    def __delitem__(self, key):
        cdef bint was_valid
        remove(&self.core, held_key(self, key), &was_valid)
        if not was_valid:
            raise KeyError(key)

    def put(self, key, value, ttl_ns=None, size=0):
        """Store locally, with a lifetime of its own (0: no end) and a size (unless there is ``getsizeof``).

        Operations in flight on the key lose their marks, for the value put now is newer than theirs.

        Raises:
            ValueTooLargeError: The size is above ``maxbytes``. An older value is kept.
        """
        put_local(self, key, value, self.ttl_ns if ttl_ns is None else checked_ttl(ttl_ns), size)

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
        cdef uint32_t ref = find_valid(&self.core, held_key(self, key))
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
        return remove(&self.core, held_key(self, key), &was_valid) != 0

    def drop_all(self):
        """Remove every entry and return their number. No operation in flight may store any more."""
        cdef uint32_t ref
        for ref in range(1, self.core.pending.used + 1):
            if self.core.pending.slab[ref].key != NULL:
                pending_overtake(&self.core.pending, ref)
        return forget_entries(&self.core)

    def snapshot(self):
        """The valid pairs, least recently used first."""
        return collect(&self.core, True)

    def sweep(self, n):
        """Look at no more than ``n`` entries, going round, and return how many expired ones were
        reclaimed."""
        cdef graveyard_t graves
        cdef uint32_t steps = max(0, min(n, self.core.table.used))
        graveyard_init(&graves)
        if graveyard_reserve(&graves, steps) < 0:
            raise MemoryError
        found = core_sweep(&self.core, steps, clock_now(&self.core.source), &graves)
        bury(&graves)
        return found

    # -- lanes -----------------------------------------------------------------------------------------------

    def lane_vouch(self, lane, until_ns):
        """Serve entries of the lane until this instant, and not at it."""
        lane_at(self, lane).fresh_until_ns = min(until_ns, CLOCK_NEVER_NS)

    def lane_suspect(self, lane):
        """A message of the lane may be lost: its entries become suspects, its operations lose their marks."""
        lane_at(self, lane).stamp += 1

    def lane_dark(self, lane):
        """Serve nothing of the lane until it is vouched for again."""
        lane_at(self, lane).fresh_until_ns = 0

    def lane_attach(self, lane, identity):
        """Say from which server the lane's messages come; 0: from none, and nothing of the lane is stored."""
        lane_at(self, lane).identity = identity

    def lane_stamp(self, lane):
        """The lane's stamp."""
        return lane_at(self, lane).stamp

    def lane_fresh_until(self, lane):
        """The instant until which the lane is vouched for."""
        return lane_at(self, lane).fresh_until_ns

    # -- operations in flight --------------------------------------------------------------------------------

    def open(self, Op op not None):
        """Register an operation, before its request is sent (R1). A write poisons others on its key (R2)."""
        cdef core_t *core = &self.core
        cdef uint32_t ref
        lane_at(self, op.op.lane)
        if op.ready:
            find(&core.pending, op.op.key, op.op.hash, &ref)
        if not op.ready or op.op.lanes != NULL:  # asked only now, since __eq__ may have opened it
            raise ValueError("the operation was not initialised, or was opened before: make a new one")
        if ref == 0 and table_reserve(&core.pending, TABLE_MAX_ENTRIES) < 0:
            raise MemoryError
        hold(<PyObject *>op)
        if pending_add(&core.pending, ref, &op.op, core.lanes):
            hold(op.op.key)
        if op.op.is_write:
            pending_poison(&core.pending, op.op.ref, &op.op)

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
        self, Op op not None, value, wid, deadline_ns, size=0, identity=0
    ):
        """Complete an operation with its result. Returns whether L1 keeps it.

        Args:
            wid: Id of the write that made the value; 0: there is no value, and what L1 holds is dropped.
            deadline_ns: Instant from which the value is not to be served any more.
            size: Of the value, against ``maxbytes``. What is larger is not kept.
            identity: Of the server that replied.

        The result is kept if nothing has spoken against it since ``open`` (R3). An entry of another write is
        dropped and neither is kept (R4), save that a write whose result may be kept replaces it. An
        operation that is not open any more stores nothing.
        """
        cdef uint32_t ref
        cdef uint64_t server = identity
        cdef item_t item = item_t(wid=wid, deadline_ns=deadline_ns, size=size, lane=op.op.lane, flags=0)
        find_for(opened_here(self, op), &op.op, &ref)
        if op.op.announced and not op.op.heard:
            item.flags = ENTRY_UNHEARD
        return settle(&self.core, &op.op, <PyObject *>value, &item, server, ref) != 0

    def refresh(self, Op op not None, wid, deadline_ns, identity=0):
        """Complete a read that found L2 to hold this ``wid``: the entry that has it is current again.

        Conditions and disagreement as for ``finish``. Returns False if there is no such entry, or if the
        operation may not store; then the value has to be read.
        """
        cdef uint32_t ref
        cdef uint64_t write = wid
        cdef uint64_t server = identity
        cdef int64_t until_ns = deadline_ns
        find_for(opened_here(self, op), &op.op, &ref)
        return restamp(&self.core, &op.op, write, until_ns, server, ref)

    def abandon(self, Op op not None, *, drop):
        """Complete an operation that failed. With ``drop`` its outcome is unknown and the entry goes (R6).

        One that is not open any more may be abandoned too: without ``drop`` that does nothing. One that was
        never opened has nothing to complete: an interrupt may strike just before ``open``.
        """
        cdef core_t *core
        cdef graveyard_t graves
        cdef uint32_t ref = 0
        if op.op.lanes == NULL:
            return
        core = opened_here(self, op)
        graveyard_init(&graves)
        if drop:
            find_for(core, &op.op, &ref)
        if ref == 0:
            close_op(core, &op.op)
            return
        core.counters.invalidated += 1
        core_bury(core, ref, &graves)
        close_op(core, &op.op)
        bury(&graves)

    def suspect(self, key):
        """``(wid, value)`` of an entry whose own time is not over but which may not be served now; else None.

        A reader may then ask L2 for the ``wid`` alone, and ``refresh``.
        """
        cdef core_t *core = &self.core
        cdef entry_t *entry
        cdef int64_t now_ns
        cdef uint64_t wid
        cdef uint32_t ref
        find(&core.table, <PyObject *>key, hash_of(<PyObject *>key), &ref)
        if ref == 0:
            return None
        now_ns = clock_now(&core.source)
        entry = &core.table.slab[ref]
        if now_ns >= entry.deadline_ns or core_is_valid(core, entry, now_ns):
            return None
        wid = core.table.details[ref].wid
        value = <object>entry.value
        return wid, value

    def apply(self, lane, wid, list keys not None, is_clear=False):
        """Apply one message, of a write or a clear somewhere. Returns the number of entries dropped.

        Operations on the keys lose their marks, except the very write that the message announces (R2);
        entries of other writes are dropped (R7). Both spare a write of this store's own whose message is still
        to come. A clear makes the whole lane suspect.

        Raises what ``__hash__`` or ``__eq__`` of a key raises, after the other keys are dealt with and
        everything that such a key might mean is dropped.
        """
        cdef core_t *core = &self.core
        cdef graveyard_t graves
        cdef object key
        cdef object error = None
        cdef uint64_t write = wid
        cdef Py_ssize_t dropped = 0
        lane_at(self, lane).stamp += bool(is_clear)
        graveyard_init(&graves)
        graveyard_reserve(&graves, len(keys))
        for key in keys:
            try:
                dropped += apply_one(core, <PyObject *>key, write, &graves)
            except BaseException as raised:
                error = raised if error is None else error
        bury(&graves)
        if error is not None:
            raise error
        return dropped

    def reset_pending(self):
        """Forget every operation in flight, as a child must after a fork; none of them may store any more."""
        forget_pending(&self.core)

    # -- time and observation --------------------------------------------------------------------------------

    def set_clock(self, ns):
        """Make it this instant until told otherwise; None goes back to the coarse monotonic clock."""
        self.core.source.fixed_ns = CLOCK_REAL if ns is None else ns

    def counters(self):
        """What has happened so far, and what is held. A bound of 0 is none."""
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
            "maxsize": self.maxsize or 0,
            "maxbytes": self.maxbytes or 0,
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


# -- the type's slots, patched once, before anybody derives a class ------------------------------------------


cdef extern from "Python.h":
    ctypedef struct sequence_t "PySequenceMethods":
        void *sq_item
        void *sq_ass_item
    ctypedef struct type_t "PyTypeObject":
        int (*tp_traverse)(PyObject *obj, visit_t visit, void *arg) noexcept
        int (*tp_clear)(PyObject *obj) noexcept
        sequence_t *tp_as_sequence
    ctypedef struct method_def_t "PyMethodDef":
        void *ml_meth
        int ml_flags
    ctypedef struct method_descr_t "PyMethodDescrObject":
        method_def_t *d_method
    const int METH_FASTCALL
    const int METH_KEYWORDS


ctypedef int (*traverse_t)(PyObject *obj, visit_t visit, void *arg) noexcept
ctypedef int (*clear_t)(PyObject *obj) noexcept
ctypedef PyObject *(*method_t)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *) except NULL

# Garbage collection. Cython does not see references in C structs; what it generates is called first.

cdef traverse_t traverse_objects = (<type_t *>Store).tp_traverse
cdef clear_t clear_objects = (<type_t *>Store).tp_clear


cdef int traverse_store(PyObject *obj, visit_t visit, void *arg) noexcept:
    cdef core_t *core = &(<Store>obj).core
    cdef int stop = traverse_objects(obj, visit, arg)
    if stop == 0:
        stop = traverse_entries(&core.table, visit, arg)
    if stop == 0:
        stop = traverse_pending(&core.pending, visit, arg)
    return stop


cdef int clear_store(PyObject *obj) noexcept:
    forget_pending(&(<Store>obj).core)
    forget_entries(&(<Store>obj).core)
    return clear_objects(obj)


(<type_t *>Store).tp_traverse = traverse_store
(<type_t *>Store).tp_clear = clear_store

# A mapping has no items by number. With these slots filled, as Cython does, Python takes it for a sequence.
(<type_t *>Store).tp_as_sequence.sq_item = NULL
(<type_t *>Store).tp_as_sequence.sq_ass_item = NULL

# ``get``: to unpack the arguments as Cython does costs half as much as a hit. So a hit is tried first.
cdef method_def_t *get_def = (<method_descr_t *><PyObject *>Store.get).d_method
cdef method_t get_in_full = NULL


cdef PyObject *get_at_once(
    PyObject *obj, PyObject *const *args, Py_ssize_t count, PyObject *names
) except NULL:
    cdef PyObject *value
    if likely(names == NULL and (count == 1 or count == 2) and (<Store>obj).keyfunc is None):
        value = hit_fast(&(<Store>obj).core, args[0], hash_of(args[0]))
        if likely(value != NULL):
            hold(value)
            return value
    return get_in_full(obj, args, count, names)


if get_def.ml_flags == METH_FASTCALL | METH_KEYWORDS:
    get_in_full = <method_t>get_def.ml_meth
    get_def.ml_meth = <void *>get_at_once

clock_shorten()
