"""A call of a function that remembers: its key, and its life in the pending table of a core.

The call is listed there as a read of L2 would be. Its operation has the number of the process for a wid, so that a
forked child does not wait for a thread that it does not have.
"""

from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_New
from libc.stdint cimport int64_t, uint32_t

from nearcache._core cimport (
    STORE_NO_MEMORY,
    TABLE_MAX_ENTRIES,
    clock_deadline,
    clock_now,
    core_store,
    core_t,
    graveyard_init,
    graveyard_t,
    item_t,
    lane_stamp,
    op_t,
    pending_add,
    pending_first,
    pending_remove,
    table_reserve,
    table_tag,
)
from nearcache._flights cimport find_for
from nearcache._holding cimport bury
from nearcache._local cimport hold_stored
from nearcache._locking cimport core_lock, core_unlock
from nearcache._lookup cimport find, hold, is_int, is_text, release_or_null, tuple_item, tuple_length


cdef extern from "Python.h":
    PyObject *type_of "(PyObject *)Py_TYPE"(PyObject *obj) noexcept
    void tuple_set "PyTuple_SET_ITEM"(object items, Py_ssize_t at, PyObject *item) noexcept


# -- keys ------------------------------------------------------------------------------------------------------


cdef inline void put_item(tuple items, Py_ssize_t at, PyObject *item) noexcept:
    hold(item)
    tuple_set(items, at, item)


cdef inline object key_of(PyObject *const *args, Py_ssize_t count, PyObject *names, object mark, bint typed):
    """The key of these arguments, as functools makes it: keywords in the order in which they were given."""
    cdef Py_ssize_t named = tuple_length(names) if names != NULL else 0
    cdef Py_ssize_t length = count + (1 + 2 * named if named else 0) + (count + named if typed else 0)
    cdef Py_ssize_t at = count
    cdef Py_ssize_t i
    cdef tuple key
    if count == 1 and length == 1 and (is_text(args[0]) or is_int(args[0])):
        return <object>args[0]
    key = PyTuple_New(length)
    for i in range(count):
        put_item(key, i, args[i])
    if named:
        put_item(key, at, <PyObject *>mark)
        at += 1
    for i in range(named):
        put_item(key, at, tuple_item(names, i))
        put_item(key, at + 1, args[count + i])
        at += 2
    if typed:
        for i in range(count + named):
            put_item(key, at + i, type_of(args[i]))
    return key


# -- calls under way -------------------------------------------------------------------------------------------


cdef inline PyObject *join_or_list(core_t *core, op_t *mine, bint alone) except? NULL:
    """List a call, and return NULL; but unless ``alone``, return the owner of one that is under way for the key, a new
    reference. Both as of one instant.

    One that was overtaken by a clear is not shared: what it brings belongs to the time before.
    """
    cdef uint32_t ref
    cdef int status = 0
    cdef op_t *op = NULL
    core_lock(core)
    find(core, &core.pending, mine.key, mine.hash, &ref)
    if not alone:
        op = pending_first(&core.pending, ref)
    while op != NULL and (op.overtaken or op.wid != mine.wid):
        op = op.next
    if op != NULL:
        hold(op.owner)
        core_unlock(core)
        return op.owner
    if ref == 0:
        status = table_reserve(&core.pending, TABLE_MAX_ENTRIES)
    if status == 0:
        hold(mine.owner)
        if pending_add(&core.pending, ref, mine, core.lanes):
            hold(mine.key)
    core_unlock(core)
    if status < 0:
        raise MemoryError
    return NULL


cdef inline int store_result(core_t *core, op_t *op, PyObject *value, int64_t ttl_ns) except -1:
    """Store a call's result, unless it was overtaken. Returns STORE_FULL if another core has to make room first."""
    cdef graveyard_t yard
    cdef item_t item
    cdef uint32_t ref
    cdef int64_t now_ns
    cdef int status = 0
    graveyard_init(&yard)
    find_for(core, op, &ref)
    if not op.overtaken:
        now_ns = clock_now(&core.source)
        item = item_t(
            wid=0, deadline_ns=clock_deadline(now_ns, ttl_ns), size=0, stamp=lane_stamp(&core.lanes.lane[0]), lane=0,
            flags=0,
        )
        status = core_store(core, ref, op.key, value, table_tag(&core.table, op.hash), &item, now_ns, &yard)
        hold_stored(core, status, op.key, value, &yard)
    core_unlock(core)
    bury(core, &yard)
    if status == STORE_NO_MEMORY:
        raise MemoryError
    return status


cdef inline void unlist(core_t *core, op_t *op) noexcept:
    """Take a call off the list, if it is there. The caller has a reference to its owner."""
    cdef PyObject *key = NULL
    cdef PyObject *owner = NULL
    core_lock(core)
    if op.ref != 0:
        owner = op.owner
        key = pending_remove(&core.pending, op)
    core_unlock(core)
    release_or_null(key)
    release_or_null(owner)
