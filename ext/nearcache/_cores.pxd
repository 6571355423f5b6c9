"""What concerns a whole store: all of its cores, one after the other.

There is one core, but in a large store on a free-threaded build. Each is locked for itself, so what is said of a store
while threads change it is true of each core at some instant, and not of all of them at the same.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from nearcache._core cimport (
    CAUSE_DROPPED,
    CAUSE_INVALIDATED,
    cause_t,
    clock_now,
    core_bury,
    core_check,
    core_evict_one,
    core_expire,
    core_expire_all,
    core_expire_until,
    core_give_back,
    core_init,
    core_is_untended,
    core_memory,
    core_settle,
    core_t,
    core_tend,
    counters_t,
    graveyard_init,
    graveyard_reserve,
    graveyard_t,
    lanes_new,
    lanes_release,
    order_adapt,
    order_free_memory,
    pending_overtake,
    quota_t,
)
from nearcache._holding cimport (
    bury,
    first_valid,
    forget_entries,
    forget_pending,
    hold_valid,
    let_go,
    traverse_entries,
    traverse_pending,
    visit_t,
)
from nearcache._locking cimport core_lock, core_unlock


cdef extern from "nearcache/memory.h" nogil:
    void *memory_new(size_t size)
    void memory_free(void *block, size_t size)


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define MOST_CORES 32
    /* A store of many entries has many cores, so that threads seldom meet. Which one is a key's is told by bits of its
       hash that the table, which mixes them with a secret of its own, does not depend on. */
    #define core_at(store, hash) \\
        (&(store)->cores.core[((uint64_t)(hash) * 0x9e3779b97f4a7c15u >> 32) & ((store)->cores.count - 1)])
    #else
    #define MOST_CORES 1
    #define core_at(store, hash) ((void)(hash), &(store)->core)
    #endif
    """
    const uint32_t MOST_CORES


cdef enum:
    EXPIRE_BATCH = 256       # entries that expire() removes before it lets others in
    ENTRIES_PER_CORE = 1024  # a store of fewer than two times as many has one core


cdef struct cores_t:
    core_t *core
    uint32_t count


cdef inline int begin_cores(cores_t *cores, core_t *own, quota_t *quota, uint64_t limit, bytes noise) except -1:
    """Begin with one core, which lies in its store, and one lane. ``noise``: 16 random bytes."""
    cdef uint64_t[2] seed
    memcpy(seed, <const char *>noise, sizeof(seed))
    quota.limit = limit
    quota.cores = 1
    core_init(own, quota, seed)
    cores.core = own
    cores.count = 1
    own.lanes = lanes_new(1)
    if own.lanes == NULL:
        raise MemoryError
    return 0


cdef inline void end_cores(cores_t *cores, core_t *own) noexcept:
    cdef uint32_t i
    for i in range(cores.count):
        forget_pending(&cores.core[i])
        forget_entries(&cores.core[i], NULL, CAUSE_DROPPED)
        order_free_memory(&cores.core[i].order)
    lanes_release(own.lanes)
    if cores.core != own:
        memory_free(cores.core, cores.count * sizeof(core_t))


cdef inline int adapt(core_t *core) except -1:
    """Give a core the policy that learns."""
    order_free_memory(&core.order)
    if order_adapt(&core.order, <uint32_t>core.table.seed[0]) < 0:
        raise MemoryError
    return 0


cdef inline int spread(cores_t *cores, uint32_t most) except -1:
    """Put many cores in the place of one, if the store is to be large: at most ``most`` of them."""
    cdef core_t *one = cores.core
    cdef core_t *many
    cdef uint32_t i
    cdef uint32_t count = 1
    while count * 2 <= min(most, one.quota.limit // ENTRIES_PER_CORE):  # a power of two: choosing is masking
        count *= 2
    if count == 1:
        return 0
    many = <core_t *>memory_new(count * sizeof(core_t))
    if many == NULL:
        raise MemoryError
    cores.core = many
    cores.count = count
    one.quota.cores = count
    for i in range(count):
        core_init(&many[i], one.quota, one.table.seed)
        many[i].lanes = one.lanes
        many[i].listener = one.listener
    if one.order.adaptive != NULL:
        for i in range(count):
            adapt(&many[i])
        order_free_memory(&one.order)
    return 0


cdef inline void redirect(cores_t *cores, PyObject *listener, bint tells_new) noexcept:
    """Tell another listener from now on, which is to live as long as the store; ``tells_new``: of what comes, too."""
    cdef uint32_t i
    for i in range(cores.count):
        core_lock(&cores.core[i])
        cores.core[i].tells_new = tells_new
        cores.core[i].listener = listener
        core_unlock(&cores.core[i])


cdef inline void fix_clock(cores_t *cores, bint is_fixed, int64_t fixed_ns) noexcept:
    """Make it this instant until told otherwise, or go back to the system's clock."""
    cdef uint32_t i
    for i in range(cores.count):
        core_lock(&cores.core[i])
        cores.core[i].source.fixed_ns = fixed_ns
        cores.core[i].source.is_fixed = is_fixed
        core_unlock(&cores.core[i])


# -- reading ---------------------------------------------------------------------------------------------------


cdef inline uint32_t count_entries(const cores_t *cores) noexcept:
    cdef uint32_t i
    cdef uint32_t entries = 0
    for i in range(cores.count):
        core_lock(&cores.core[i])
        entries += cores.core[i].table.count
        core_unlock(&cores.core[i])
    return entries


cdef inline size_t memory_of(const cores_t *cores, const core_t *own) noexcept:
    """Bytes of all cores; ``own`` lies in its store."""
    cdef uint32_t i
    cdef size_t size = 0 if cores.core == own else cores.count * sizeof(core_t)
    for i in range(cores.count):
        core_lock(&cores.core[i])
        size += core_memory(&cores.core[i])
        core_unlock(&cores.core[i])
    return size


cdef inline list collect(const cores_t *cores, bint with_values):
    """Keys, or pairs, of the valid entries, of each core the next to be evicted first."""
    cdef list result = []
    cdef graveyard_t taken
    cdef uint32_t i
    cdef size_t n
    cdef int status = 0
    graveyard_init(&taken)
    try:
        for i in range(cores.count):
            core_lock(&cores.core[i])
            status = hold_valid(&cores.core[i], &taken)
            core_unlock(&cores.core[i])
            if status < 0:
                raise MemoryError
        for n in range(taken.count):
            if with_values:
                result.append((<object>taken.graves[n].key, <object>taken.graves[n].value))
            else:
                result.append(<object>taken.graves[n].key)
        return result
    finally:
        let_go(&taken)


cdef inline dict sum_counters(const cores_t *cores):
    cdef const counters_t *counters
    cdef uint32_t i
    cdef uint64_t hits = 0, misses = 0, evictions = 0, expirations = 0, invalidated = 0, suspects = 0, stored = 0
    cdef uint64_t bytes_held = 0, too_large = 0
    for i in range(cores.count):
        core_lock(&cores.core[i])
        core_settle(&cores.core[i])
        counters = &cores.core[i].counters
        hits += counters.hits
        misses += counters.misses
        evictions += counters.evictions
        expirations += counters.expirations
        invalidated += counters.invalidated
        suspects += counters.suspects
        stored += counters.stored
        too_large += counters.too_large
        bytes_held += cores.core[i].table.bytes
        core_unlock(&cores.core[i])
    return {
        "hits": hits,
        "misses": misses,
        "evictions": evictions,
        "expirations": expirations,
        "invalidated": invalidated,
        "suspects": suspects,
        "stored": stored,
        "too_large": too_large,
        "bytes": bytes_held,
        "entries": count_entries(cores),
    }


cdef inline const char *first_wrong(const cores_t *cores) noexcept:
    """What is wrong with any of the cores, or NULL."""
    cdef const char *wrong = NULL
    cdef uint32_t i
    for i in range(cores.count):
        core_lock(&cores.core[i])
        if wrong == NULL:
            wrong = core_check(&cores.core[i])
        core_unlock(&cores.core[i])
    return wrong


# -- removing --------------------------------------------------------------------------------------------------


cdef inline bint evict_any(const cores_t *cores, uint32_t first) except -1:
    """Evict one entry of any core, ``first`` first: the one that wants to store has none, and the quota is used up."""
    cdef graveyard_t yard
    cdef core_t *core
    cdef uint32_t i
    cdef bint found
    for i in range(cores.count):
        core = &cores.core[(first + i) % cores.count]
        graveyard_init(&yard)
        core_lock(core)
        found = core_evict_one(core, &yard)
        core_unlock(core)
        bury(core, &yard)
        if found:
            return True
    return False


cdef inline tuple pop_any(const cores_t *cores):
    """Remove and return the valid pair that would be evicted next, of the first core that has one; else None."""
    cdef graveyard_t yard
    cdef core_t *core
    cdef uint32_t ref
    cdef uint32_t i
    for i in range(cores.count):
        core = &cores.core[i]
        graveyard_init(&yard)
        core_lock(core)
        ref = first_valid(core, &yard, clock_now(&core.source))
        if ref != 0:
            core_bury(core, ref, CAUSE_INVALIDATED, &yard)
        core_unlock(core)
        try:
            if ref != 0:
                return <object>yard.graves[yard.count - 1].key, <object>yard.graves[yard.count - 1].value
        finally:
            bury(core, &yard)
    return None


cdef inline uint32_t drop_everything(const cores_t *cores, cause_t cause) noexcept:
    """Remove every entry and return their number. No operation in flight may store any more."""
    cdef core_t *core
    cdef uint32_t i
    cdef uint32_t ref
    cdef uint32_t entries = 0
    for i in range(cores.count):
        core = &cores.core[i]
        core_lock(core)
        for ref in range(1, core.pending.used + 1):
            if core.pending.slab[ref].key != NULL:
                pending_overtake(&core.pending, ref)
        core_unlock(core)
        entries += forget_entries(core, core.listener, cause)
    return entries


# -- expiring --------------------------------------------------------------------------------------------------


cdef inline int append_buried(core_t *core, graveyard_t *yard, list pairs) except -1:
    """Take the pairs from a graveyard into a list, and empty it in any case."""
    cdef size_t n
    try:
        for n in range(yard.count):
            pairs.append((<object>yard.graves[n].key, <object>yard.graves[n].value))
    finally:
        bury(core, yard)
    return 0


cdef inline list take_expired(const cores_t *cores, object now_ns):
    """Remove everything that has expired, now or at another instant, and return the pairs."""
    cdef list pairs = []
    cdef graveyard_t yard
    cdef core_t *core
    cdef uint32_t i
    cdef int more
    cdef int64_t present_ns = clock_now(&cores.core[0].source)
    cdef int64_t instant_ns = present_ns if now_ns is None else now_ns
    for i in range(cores.count):
        core = &cores.core[i]
        more = 1
        while more > 0:  # a few hundred at a time, so that nobody waits for all of them
            graveyard_init(&yard)
            if graveyard_reserve(&yard, EXPIRE_BATCH) < 0:
                raise MemoryError
            core_lock(core)
            if instant_ns <= present_ns:
                more = core_expire_all(core, EXPIRE_BATCH, instant_ns, &yard)
            else:
                more = core_expire_until(core, instant_ns, &yard)
            core_unlock(core)
            append_buried(core, &yard, pairs)
            if more < 0:
                raise MemoryError
        give_back(core)
    return pairs


cdef inline void give_back(core_t *core) noexcept:
    """Make the tables of a core as small as what it holds asks for, a little at a time, if there is memory to do so."""
    cdef bint more = 1
    cdef uint32_t turns = 0  # enough for all halves together
    while more:
        core_lock(core)
        turns = turns - 1 if turns else core.table.capacity // 8 + 64
        more = core_give_back(core) and turns > 1
        core_unlock(core)


cdef inline uint32_t sweep_all(const cores_t *cores, object most) except? 0xffffffff:
    """Look at no more than so many timers of each core, which may be due. Returns how many entries were reclaimed."""
    cdef graveyard_t yard
    cdef core_t *core
    cdef uint32_t i
    cdef uint32_t found = 0
    cdef uint32_t steps
    cdef uint32_t used
    for i in range(cores.count):
        core = &cores.core[i]
        core_lock(core)
        used = core.table.used
        core_unlock(core)
        steps = max(0, min(most, used))
        graveyard_init(&yard)
        if graveyard_reserve(&yard, steps) < 0:
            raise MemoryError
        core_lock(core)
        found += core_expire(core, steps, clock_now(&core.source), &yard)
        core_unlock(core)
        bury(core, &yard)
    return found


cdef inline bint tend_all(const cores_t *cores) noexcept:
    """Do in each core a little of what is otherwise done along with writing. Returns whether there is more."""
    cdef graveyard_t yard
    cdef core_t *core
    cdef uint32_t i
    cdef int64_t now_ns
    cdef bint more = 0
    for i in range(cores.count):
        core = &cores.core[i]
        graveyard_init(&yard)
        core_lock(core)
        now_ns = clock_now(&core.source)
        core_tend(core, now_ns, &yard)
        more = more or core_is_untended(core, now_ns)
        core_unlock(core)
        bury(core, &yard)
    return more


# -- for the garbage collector --------------------------------------------------------------------------------


cdef inline int traverse_cores(const cores_t *cores, visit_t visit, void *arg) noexcept:
    """Show the collector what the cores hold. Returns what a visit returned, if not 0."""
    cdef uint32_t i
    cdef int stop = 0
    for i in range(cores.count):
        if stop == 0:
            stop = traverse_entries(&cores.core[i].table, visit, arg)
        if stop == 0:
            stop = traverse_pending(&cores.core[i].pending, visit, arg)
    return stop


cdef inline void forget_operations(cores_t *cores) noexcept:
    cdef uint32_t i
    for i in range(cores.count):
        forget_pending(&cores.core[i])


cdef inline void forget_cores(cores_t *cores) noexcept:
    """Let go of all that the cores hold, and tell nobody."""
    cdef uint32_t i
    for i in range(cores.count):
        forget_pending(&cores.core[i])
        forget_entries(&cores.core[i], NULL, CAUSE_DROPPED)
