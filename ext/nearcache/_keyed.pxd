"""What a store does by its caller's key: ``keyfunc`` applied, the hash had, the core chosen, the hooks called.

All of it is part of ``_store.pyx``, and nobody else's.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._core cimport CAUSE_INVALIDATED, cause_t, clock_now, core_is_valid, core_t, item_t, notes_t
from nearcache._cores cimport evict_any
from nearcache._flights cimport settle
from nearcache._local cimport checked_size, find_valid, hit_fast, put, read, remove
from nearcache._locking cimport core_enter, core_leave
from nearcache._lookup cimport UNDECIDED, find_fast, hash_of, lent, likely, owned, unlikely
from nearcache._store cimport Op, Store, core_at


cdef inline object held_key(Store self, object key):
    """The key under which the store holds what the caller calls ``key``."""
    return key if self.keyfunc is None else self.keyfunc(key)


cdef inline PyObject *read_object(Store self, object key) except? NULL:
    """Read by the caller's key. A new reference, or NULL without an exception."""
    cdef object held = held_key(self, key)
    cdef int64_t hash = hash_of(<PyObject *>held)
    return read(core_at(self, hash), <PyObject *>held, hash)


cdef inline PyObject *subscript_hashed(Store self, object key, int64_t hash) except NULL:
    """What ``self[key]`` is, where there is no ``keyfunc``. A new reference."""
    cdef core_t *core = core_at(self, hash)
    cdef bint absent = False
    cdef PyObject *value = hit_fast(core, <PyObject *>key, hash, &absent)
    if unlikely(value == NULL and not absent):
        value = read(core, <PyObject *>key, hash)
    return value if likely(value != NULL) else lent(self._missing(key))


cdef inline bint contains_hashed(Store self, object key, object held, int64_t hash) except -1:
    cdef core_t *core = core_at(self, hash)
    cdef bint found = False
    cdef notes_t *notes = core_enter(core)
    cdef uint32_t ref = find_fast(&core.table, <PyObject *>held, hash)
    if unlikely(ref == UNDECIDED):
        core_leave(core, notes)
        notes = NULL
        ref = find_valid(core, <PyObject *>held, hash)
    if likely(ref != 0):
        found = core_is_valid(core, &core.table.slab[ref], clock_now(&core.source))
    core_leave(core, notes)
    return found or (self.hooked_in and bool(self._missing_in(key)))


cdef inline object read_or(Store self, object key, object default):
    """Read without a hook."""
    cdef PyObject *value
    cdef int64_t hash
    cdef bint absent = False
    if self.keyfunc is None:
        hash = hash_of(<PyObject *>key)
        value = hit_fast(core_at(self, hash), <PyObject *>key, hash, &absent)
        if likely(value != NULL):
            return owned(value)
        if absent:
            return default
    value = read_object(self, key)
    return owned(value) if value != NULL else default


cdef inline uint64_t measured(Store self, object value) except? 0xffffffffffffffff:
    """What ``getsizeof`` gives for a value."""
    return checked_size("getsizeof", self.sizeof(value))


cdef inline int put_local(Store self, object key, object value, int64_t ttl_ns, uint64_t size) except -1:
    cdef object held = key if likely(self.keyfunc is None) else held_key(self, key)
    cdef int64_t hash = hash_of(<PyObject *>held)
    if unlikely(self.sizeof is not None):
        size = measured(self, value)
    return put_hashed(self, <PyObject *>held, <PyObject *>value, hash, ttl_ns, size)


cdef inline int put_hashed(
    Store self, PyObject *held, PyObject *value, int64_t hash, int64_t ttl_ns, uint64_t size
) except -1:
    cdef core_t *core = core_at(self, hash)
    while unlikely(not put(core, held, value, hash, size, ttl_ns)):
        evict_any(&self.cores, <uint32_t>(core - self.cores.core) + 1)
    return 0


cdef inline bint keep(
    Store self, core_t *core, Op op, object value, const item_t *item, uint64_t identity, uint32_t ref
) except -1:
    """As ``settle``. Says of the first value that is over ``maxbytes`` what nobody would see: it is never kept."""
    cdef bint is_first = False
    if unlikely(item.size > core.max_bytes and item.wid != 0):
        is_first = core.counters.too_large == 0
        core.counters.too_large += 1
    cdef bint is_kept = settle(core, &op.op, <PyObject *>value, item, identity, ref)
    if unlikely(is_first):
        self._too_large(op.key, item.size)
    return is_kept


cdef inline int remove_hashed(Store self, object key, object held, int64_t hash) except -1:
    """Remove a valid entry, or raise KeyError with the caller's key."""
    cdef bint was_valid
    remove(core_at(self, hash), <PyObject *>held, hash, CAUSE_INVALIDATED, &was_valid)
    if not was_valid:
        raise KeyError(key)
    return 0


cdef inline bint remove_local(Store self, object key, cause_t cause, bint *was_valid) except -1:
    cdef object held = key if likely(self.keyfunc is None) else held_key(self, key)
    cdef int64_t hash = hash_of(<PyObject *>held)
    return remove(core_at(self, hash), <PyObject *>held, hash, cause, was_valid)
