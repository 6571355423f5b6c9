"""Changes to an entry whose key is the very object that was asked for, where nobody else is concerned.

What returns False has done nothing, and the caller goes the careful way from the start. For builds with the interpreter
lock: none of them takes a core's own.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t

from nearcache._core cimport (
    clock_deadline,
    clock_now,
    core_ask,
    core_is_valid,
    core_overwrite,
    core_t,
    core_take_out_at,
    entry_t,
    index_glance_at,
    table_t,
    table_tag,
)
from nearcache._holding cimport hold_instead
from nearcache._lookup cimport release, release_or_null, unlikely


cdef inline bint is_watched(const core_t *core) noexcept:
    """Does a change concern anybody else: an operation in flight, or a listener?"""
    return core.pending.count != 0 or core.listener != NULL


cdef inline bint put_at_once(core_t *core, entry_t *entry, PyObject *value, const int64_t *ttl_ns) noexcept:
    """Put a value without a size over that of an entry.

    ``ttl_ns`` is read after the clock: what is held while that is asked has to be put aside first.
    """
    cdef int64_t now_ns
    cdef PyObject *old = value
    if unlikely(is_watched(core)):
        return False
    now_ns = clock_now(&core.source)
    if unlikely(not core_overwrite(core, entry, <void **>&old, clock_deadline(now_ns, ttl_ns[0]), now_ns, NULL)):
        return False
    release_or_null(hold_instead(value, old))  # last, for it may run any code
    return True


cdef inline bint remove_at_once(core_t *core, PyObject *key, int64_t hash) noexcept:
    """Remove the entry of this very key, if it may be served."""
    cdef table_t *t = &core.table
    cdef uint32_t at
    cdef uint32_t ref = index_glance_at(&t.index, table_tag(t, hash), &at)
    cdef PyObject *old_value
    if unlikely(ref == 0):
        return False
    core_ask(core, ref)
    if unlikely(t.slab[ref].key != key or is_watched(core)):
        return False
    if unlikely(not core_is_valid(core, &t.slab[ref], clock_now(&core.source))):
        return False
    old_value = t.slab[ref].value
    core_take_out_at(core, ref, at)
    release(old_value)
    release(key)  # the entry's; the caller has one, too
    return True
