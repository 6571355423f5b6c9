"""Who holds which reference, and how a store lets go of them.

Each entry holds its key and its value. The pending table holds, per key, that key, and per operation its
owner. Releasing may run any code, so it comes after the change that made the reference superfluous, never
before.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t

from nearcache._core cimport (
    clock_now,
    core_bury,
    core_is_valid,
    core_t,
    graveyard_add,
    graveyard_free,
    graveyard_init,
    graveyard_reserve,
    graveyard_t,
    op_poison,
    op_t,
    pending_first,
    table_detach,
    table_free_memory,
    table_newer,
    table_oldest,
    table_t,
)
from nearcache._lookup cimport hold, release, release_or_null


cdef extern from "Python.h":
    ctypedef int (*visit_t "visitproc")(PyObject *obj, void *arg) noexcept


cdef inline void bury(graveyard_t *graves) noexcept:
    """Let go of everything in the graveyard, and leave it empty."""
    cdef size_t i
    for i in range(graves.count):
        release_or_null(graves.pairs[i].value)
        release_or_null(graves.pairs[i].key)
    graveyard_free(graves)


cdef inline void remove_entry(core_t *core, uint32_t ref) noexcept:
    """Remove one entry and let go of it."""
    cdef graveyard_t graves
    graveyard_init(&graves)
    core_bury(core, ref, &graves)
    bury(&graves)


cdef inline uint32_t oldest_valid(core_t *core) noexcept:
    """The least recently used entry that may be served, or 0. Reclaims expired ones on the way."""
    cdef table_t *t = &core.table
    cdef int64_t now_ns = clock_now(&core.source)
    cdef uint32_t ref = table_oldest(t)
    while ref != 0 and not core_is_valid(core, &t.slab[ref], now_ns):
        if now_ns < t.slab[ref].deadline_ns:
            ref = table_newer(t, ref)
            continue
        core.counters.expirations += 1
        remove_entry(core, ref)
        ref = table_oldest(t)
    return ref


cdef inline int hold_valid(core_t *core, graveyard_t *taken) except -1:
    """Take references to all valid pairs, least recently used first.

    In one go and into plain memory, for building a list may run the collector, and with it any code.
    """
    cdef table_t *t = &core.table
    cdef int64_t now_ns = clock_now(&core.source)
    cdef uint32_t ref = table_oldest(t)
    if graveyard_reserve(taken, t.count) < 0:
        raise MemoryError
    while ref != 0:
        if core_is_valid(core, &t.slab[ref], now_ns):
            hold(t.slab[ref].key)
            hold(t.slab[ref].value)
            graveyard_add(taken, t.slab[ref].key, t.slab[ref].value)
        ref = table_newer(t, ref)
    return 0


cdef inline uint32_t forget_entries(core_t *core) noexcept:
    """Empty the store at once, then let go of what it held. Returns how many entries that were."""
    cdef table_t gone  # nobody else can reach it, so it may be in any state meanwhile
    cdef uint32_t ref
    table_detach(&core.table, &gone)
    for ref in range(1, gone.used + 1):
        if gone.slab[ref].key != NULL:
            release(gone.slab[ref].value)
            release(gone.slab[ref].key)
    table_free_memory(&gone)
    return gone.count


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
    table_detach(&core.pending, &gone)
    unlist_all(&gone)
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
