"""Who holds which reference, and how a store lets go of them.

Each entry holds its key and its value. The pending table holds, per key, that key, and per operation its
owner. Releasing may run any code, so it comes after the change that made the reference superfluous, never
before.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t

from nearcache._core cimport (
    CAUSE_CREATED,
    CAUSE_EVICTED,
    CAUSE_EXPIRED,
    CAUSE_INVALIDATED,
    CAUSE_REPLACED,
    CAUSE_UPDATED,
    cause_t,
    clock_now,
    core_bury,
    core_detach,
    core_is_valid,
    core_settle,
    core_t,
    grave_t,
    graveyard_add,
    graveyard_free,
    graveyard_reserve,
    graveyard_t,
    op_poison,
    op_t,
    order_first,
    order_following,
    order_victim,
    pending_first,
    table_detach,
    table_free_memory,
    table_t,
)
from nearcache._interrupts cimport interruption, pass_on, postpone
from nearcache._locking cimport core_lock, core_unlock
from nearcache._lookup cimport hold, release, release_or_null, unlikely


cdef extern from "Python.h":
    PyObject *call_objects "PyObject_CallFunctionObjArgs"(PyObject *callable, ...) noexcept
    ctypedef int (*visit_t "visitproc")(PyObject *obj, void *arg) noexcept


cdef inline PyObject *hold_instead(PyObject *value, PyObject *before) noexcept:
    """Hold what has come in place of another. Returns what is to be released: the other; NULL, if it is the same.

    Then its count stays as it is. Small numbers and None are often stored over themselves.
    """
    if value == before:
        return NULL
    hold(value)
    return before


# -- letting go; the caller does not hold the lock -----------------------------------------------------------


cdef inline str cause_name(cause_t cause):
    if cause == CAUSE_EVICTED:
        return "evicted"
    if cause == CAUSE_EXPIRED:
        return "expired"
    if cause == CAUSE_REPLACED:
        return "replaced"
    if cause == CAUSE_CREATED:
        return "created"
    if cause == CAUSE_UPDATED:
        return "updated"
    return "invalidated" if cause == CAUSE_INVALIDATED else "dropped"


cdef inline void tell(PyObject *listener, PyObject *key, PyObject *value, cause_t cause) noexcept:
    """Call the listener. What it raises concerns nobody here; see ``pass_on``.

    That is not left to ``noexcept``, which prints it besides; and to print a SystemExit is to end the process.
    """
    tell_named(listener, key, value, cause_name(cause))


cdef inline void tell_named(PyObject *listener, PyObject *key, PyObject *value, str cause) noexcept:
    cdef PyObject *interrupt = interruption()  # else the first thing that the listener does is to raise it
    cdef PyObject *answer = call_objects(listener, key, value, <PyObject *>cause, NULL)
    if unlikely(answer == NULL):
        pass_on(listener)
    else:
        release(answer)
    if unlikely(interrupt != NULL):
        postpone(interrupt, listener)


cdef inline void bury(core_t *core, graveyard_t *yard) noexcept:
    """Tell the listener of everything in the graveyard, let go of it, and leave the graveyard empty."""
    cdef size_t i
    cdef grave_t *grave
    for i in range(yard.count):
        grave = &yard.graves[i]
        if unlikely(core.listener != NULL and grave.key != NULL):
            tell(core.listener, grave.key, grave.value, grave.cause)
        release_or_null(grave.value)
        release_or_null(grave.key)
    graveyard_free(yard)


cdef inline void let_go(graveyard_t *taken) noexcept:
    """Release references that were only taken to look at them."""
    cdef size_t i
    for i in range(taken.count):
        release_or_null(taken.graves[i].value)
        release_or_null(taken.graves[i].key)
    graveyard_free(taken)


cdef inline uint32_t forget_entries(core_t *core, PyObject *listener, cause_t cause) noexcept:
    """Empty the core at once, then let go of what it held. Returns how many entries that were."""
    cdef table_t gone  # nobody else can reach it, so it may be in any state meanwhile
    cdef uint32_t ref
    cdef int64_t now_ns
    cdef bint is_over
    core_lock(core)
    now_ns = clock_now(&core.source)
    core_detach(core, &gone)
    core_unlock(core)
    for ref in range(1, gone.used + 1):
        if gone.slab[ref].key != NULL:
            if unlikely(listener != NULL):
                is_over = gone.slab[ref].deadline_ns <= now_ns
                tell(listener, gone.slab[ref].key, gone.slab[ref].value, CAUSE_EXPIRED if is_over else cause)
            release(gone.slab[ref].value)
            release(gone.slab[ref].key)
    table_free_memory(&gone)
    return gone.count


# -- taking; the caller holds the lock -----------------------------------------------------------------------


cdef inline uint32_t first_valid(core_t *core, graveyard_t *yard, int64_t now_ns) noexcept:
    """Who is evicted next of those that may be served, or 0. Buries expired ones on the way, if there is room."""
    cdef uint32_t ref
    cdef uint32_t following
    core_settle(core)
    ref = order_victim(&core.order, 0)
    if ref != 0 and core_is_valid(core, &core.table.slab[ref], now_ns):
        return ref
    ref = order_first(&core.order)
    while ref != 0 and not core_is_valid(core, &core.table.slab[ref], now_ns):
        following = order_following(&core.order, ref)
        if core.table.slab[ref].deadline_ns <= now_ns and yard.count + 1 < yard.capacity:
            core.counters.expirations += 1
            core_bury(core, ref, CAUSE_EXPIRED, yard)
        ref = following
    return ref


cdef inline int hold_valid(core_t *core, graveyard_t *taken) noexcept:
    """Take references to all valid pairs, the next to be evicted first. -1 without memory.

    In one go and into plain memory, for building a list may run the collector, and with it any code.
    """
    cdef table_t *t = &core.table
    cdef int64_t now_ns = clock_now(&core.source)
    cdef uint32_t ref
    core_settle(core)
    if graveyard_reserve(taken, t.count) < 0:
        return -1
    ref = order_first(&core.order)
    while ref != 0:
        if core_is_valid(core, &t.slab[ref], now_ns):
            hold(t.slab[ref].key)
            hold(t.slab[ref].value)
            graveyard_add(taken, t.slab[ref].key, t.slab[ref].value, CAUSE_EVICTED)
        ref = order_following(&core.order, ref)
    return 0


# -- operations in flight ------------------------------------------------------------------------------------


cdef inline void unlist_all(table_t *pending) noexcept:
    cdef uint32_t ref
    cdef op_t *op
    for ref in range(1, pending.used + 1):
        op = pending_first(pending, ref) if pending.slab[ref].key != NULL else NULL
        while op != NULL:
            op_poison(op)
            op.ref = 0
            op.prev = NULL
            op = op.next


cdef inline void forget_pending(core_t *core) noexcept:
    """Take every operation off the list. None of them may store or be joined any more."""
    cdef table_t gone
    cdef uint32_t ref
    cdef op_t *op
    cdef op_t *following
    core_lock(core)
    table_detach(&core.pending, &gone)
    unlist_all(&gone)
    core_unlock(core)
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


# -- for the garbage collector: no reference may be counted here ---------------------------------------------


cdef inline int traverse_entries(const table_t *t, visit_t visit, void *arg) noexcept:
    cdef uint32_t ref
    cdef int stop = 0
    for ref in range(1, t.used + 1):
        if t.slab[ref].key != NULL:
            stop = visit(t.slab[ref].key, arg)
            if stop == 0:
                stop = visit(t.slab[ref].value, arg)
            if stop != 0:
                return stop
    return 0


cdef inline int traverse_pending(const table_t *t, visit_t visit, void *arg) noexcept:
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
