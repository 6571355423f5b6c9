"""Hits of many keys at once: what the look-ups of a batch need is fetched for all of them before any of it is used."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._core cimport (
    clock_now,
    core_is_valid,
    core_t,
    index_glance,
    memory_prefetch,
    order_is_full,
    order_touch,
    table_tag,
)
from nearcache._lookup cimport UNDECIDED, find_fast, hash_of, hold, likely, release, unlikely


cdef extern from *:
    """
    /* From 3.13 on CPython keeps this to itself. */
    #if PY_VERSION_HEX < 0x030D0000
    #define set_known(found, key, value, hash) _PyDict_SetItem_KnownHash(found, key, value, hash)
    #else
    #define set_known(found, key, value, hash) PyDict_SetItem(found, key, value)
    #endif
    """
    int set_known(dict found, PyObject *key, PyObject *value, Py_hash_t hash) except -1
    Py_ssize_t items_count "PySequence_Fast_GET_SIZE"(object listed)
    PyObject **items_of "PySequence_Fast_ITEMS"(object listed)
    int list_append "PyList_Append"(list grown, PyObject *item) except -1


cdef enum:
    BATCH = 16


cdef struct batch_t:
    PyObject *keys[BATCH]  # strong
    int64_t hashes[BATCH]
    uint32_t refs[BATCH]  # first the tags
    uint32_t count


cdef inline void batch_end(batch_t *batch) noexcept:
    cdef uint32_t i
    for i in range(batch.count):
        release(batch.keys[i])


cdef inline int batch_begin(batch_t *batch, const core_t *core, object keys, Py_ssize_t first) except -1:
    """Take keys of a list or tuple, hash them, and fetch what their hits will read. Hashing may run Python."""
    cdef uint32_t i
    cdef uint32_t ref
    batch.count = 0
    while batch.count < BATCH and first + batch.count < items_count(keys):
        i = batch.count
        batch.keys[i] = items_of(keys)[first + i]
        hold(batch.keys[i])
        batch.count += 1
        batch.hashes[i] = hash_of(batch.keys[i])
        batch.refs[i] = table_tag(&core.table, batch.hashes[i])
        memory_prefetch(&core.table.index.slots[batch.refs[i] & core.table.index.mask])
    for i in range(batch.count):
        ref = index_glance(&core.table.index, batch.refs[i])
        batch.refs[i] = ref if likely(ref - 1 < core.table.used) else 0
        memory_prefetch(&core.table.slab[batch.refs[i]])
    for i in range(batch.count):
        ref = batch.refs[i]
        if likely(ref != 0 and core.table.slab[ref].key == batch.keys[i]):
            memory_prefetch(core.table.slab[ref].value)
        else:
            batch.refs[i] = 0
    return 0


cdef inline int hit_one(core_t *core, batch_t *batch, uint32_t i, int64_t now_ns, dict found, list missed) except -1:
    """Serve a key of the batch. Returns whether that could be done without running any Python."""
    cdef uint32_t ref = batch.refs[i]
    if unlikely(ref == 0):
        ref = find_fast(&core.table, batch.keys[i], batch.hashes[i])
        if ref == 0:
            core.counters.misses += 1
            list_append(missed, batch.keys[i])
            return 1
        if ref == UNDECIDED:
            return 0
    if unlikely(order_is_full(&core.order) or not core_is_valid(core, &core.table.slab[ref], now_ns)):
        return 0
    order_touch(&core.order, ref)
    set_known(found, batch.keys[i], core.table.slab[ref].value, batch.hashes[i])
    return 1


cdef inline Py_ssize_t hit_batch(core_t *core, object keys, Py_ssize_t first, dict found, list missed) except -1:
    """Serve keys of a list or tuple, from ``first`` up to one that needs a closer look. Returns how many were served.

    To put one into the dictionary may run Python after all, if an odd key or an older value is there. If that changes
    the table the rest of the batch has to begin anew.
    """
    cdef batch_t batch
    cdef uint64_t version
    cdef int64_t now_ns
    cdef Py_ssize_t served = 0
    try:
        batch_begin(&batch, core, keys, first)
        version = core.table.version
        now_ns = clock_now(&core.source)
        while served < batch.count and core.table.version == version:
            if not hit_one(core, &batch, <uint32_t>served, now_ns, found, missed):
                break
            served += 1
    finally:
        batch_end(&batch)
    return served


cdef inline int add_result(dict found, list missed, object key, object value, object nothing) except -1:
    """Add what another kind of look-up found, or ``nothing``."""
    if value is nothing:
        missed.append(key)
    else:
        found[key] = value
    return 0
