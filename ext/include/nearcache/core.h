/* core.h: what a store does between two calls into Python: bounds, expiry, validity, eviction, growing and shrinking.
 *
 *     core_t --- table    key -> entry                          table.h, index.h
 *             |- order    who is evicted next                   order.h
 *             |- wheel    who expires next                      wheel.h
 *             |- pending  operations in flight, by key          pending.h
 *             `- lanes    stamps and horizons, shared           pending.h
 *
 * Every function here runs to its end without running anybody else's code. References that an operation
 * sets free go to a graveyard on the caller's stack; the caller releases them when it has finished, because
 * releasing may run any code, this store's own methods included.
 *
 * Where threads run at the same time (NEARCACHE_THREADS), a store has several cores, each with a lock that the caller
 * holds while it is in here. They share the lanes and the quota of entries.
 */
#ifndef NEARCACHE_CORE_H
#define NEARCACHE_CORE_H

#include "clock.h"
#include "graveyard.h"
#include "order.h"
#include "pending.h"
#include "table.h"
#include "wheel.h"

typedef struct {
    uint64_t hits; /* those still noted in the order's ring not included */
    uint64_t misses;
    uint64_t evictions;
    uint64_t expirations;
    uint64_t invalidated;
    uint64_t suspects;
    uint64_t stored;
} counters_t;

/* How many entries there may be, and how many there are, in all cores of a store together. */
typedef struct {
    uint64_t limit; /* UINT64_MAX: unbounded */
    uint64_t taken;
    uint32_t cores;
} quota_t;

typedef struct {
    lanes_t *lanes; /* first what a hit reads */
    source_t source;
    table_t table;
    uint8_t lock; /* the caller's */
    uint32_t examined; /* while shrinking: entries above this are free */
    order_t order;
    counters_t counters;
    void *listener; /* the caller's: whom to tell of what is buried; NULL: nobody */
    quota_t *quota;
    uint64_t max_bytes; /* UINT64_MAX: unbounded */
    table_t pending;
    wheel_t wheel;
} core_t;

/* Tables of so many entries and less do not shrink. A power of two; tests set it lower. */
#ifndef SHRINK_CAPACITY
#define SHRINK_CAPACITY 4096u
#endif

/* What goes into an entry beside key, value and tag. */
typedef struct {
    uint64_t wid;
    int64_t deadline_ns;
    uint64_t size;
    uint16_t lane;
    uint16_t flags;
} item_t;

enum {
    EXPIRE_PER_STORE = 3, /* entries the wheel looks at for each store: it must outrun those who fill it */
    EXPIRE_PER_TEND = GRAVEYARD_LOCAL - 1, /* and one that the reader has found itself */
    SHRINK_STEPS = 32, /* entries that are looked at, for each store, while a table shrinks */
    STORED_OVER = 0, /* what core_store returns */
    STORED_NEW = 1,
    STORE_NO_MEMORY = -1,
    STORE_FULL = -2
};

/* -- the quota -------------------------------------------------------------------------------------------- */

static inline int quota_take(quota_t *quota)
{
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
    uint64_t taken = __atomic_load_n(&quota->taken, __ATOMIC_RELAXED);

    while (taken < quota->limit) {
        if (__atomic_compare_exchange_n(&quota->taken, &taken, taken + 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            return 1;
        }
    }
    return 0;
#else
    if (quota->taken >= quota->limit) {
        return 0;
    }
    quota->taken++;
    return 1;
#endif
}

static inline void quota_give(quota_t *quota, uint64_t entries)
{
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
    __atomic_fetch_sub(&quota->taken, entries, __ATOMIC_RELAXED);
#else
    quota->taken -= entries;
#endif
}

/* -- life and death of a core ----------------------------------------------------------------------------- */

/* A core without lanes: the caller gives it some, and a quota. */
static inline void core_init(core_t *core, quota_t *quota, const uint64_t seed[2])
{
    memset(core, 0, sizeof *core);
    core->quota = quota;
    core->max_bytes = UINT64_MAX;
    table_init(&core->table, seed[0], seed[1]);
    table_init(&core->pending, seed[0], seed[1]);
    order_init(&core->order);
    wheel_init(&core->wheel);
}

/* Move all entries into `gone`, which the caller empties and frees. Cannot fail. */
static inline void core_detach(core_t *core, table_t *gone)
{
    core->counters.hits += core->order.touches;
    table_detach(&core->table, gone);
    order_clear(&core->order);
    wheel_free_memory(&core->wheel);
    wheel_init(&core->wheel);
    core->examined = 0;
    quota_give(core->quota, gone->count);
}

static inline size_t core_memory(const core_t *core)
{
    return table_memory(&core->table) + table_memory(&core->pending) + order_memory(&core->order) +
           core->wheel.timers_bytes;
}

/* -- reading --------------------------------------------------------------------------------------------- */

/* May this entry be served at this instant? Its lane must have seen every invalidation up to now
 * (fresh-until), must not have missed any since the entry was stored (stamp), and the entry's own time must
 * not be over. */
static inline int core_is_valid(const core_t *core, const entry_t *entry, int64_t now_ns)
{
    const lane_t *lane = &core->lanes->lane[entry->lane];
    int in_time = now_ns < entry->deadline_ns;
    int is_current = entry->stamp == lane_stamp(lane);
    int is_vouched_for = now_ns < lane_fresh_until(lane);

    return in_time & is_current & is_vouched_for;
}

/* Carry out what hits have noted, before the order is looked at or changed. */
static inline void core_settle(core_t *core)
{
    if (core->order.touches != 0) {
        core->counters.hits += core->order.touches;
        order_settle(&core->order, core->table.details);
    }
}

/* -- removing --------------------------------------------------------------------------------------------- */

/* Remove an entry into the graveyard, in which there is room. */
static inline void core_bury(core_t *core, uint32_t ref, cause_t cause, graveyard_t *yard)
{
    core_settle(core);
    graveyard_add(yard, core->table.slab[ref].key, core->table.slab[ref].value, cause);
    if (cause == CAUSE_EVICTED) {
        order_evict(&core->order, ref, core->table.details[ref].tag);
        core->counters.evictions++;
    } else {
        order_remove(&core->order, ref);
    }
    wheel_remove(&core->wheel, ref);
    table_remove(&core->table, ref);
    quota_give(core->quota, 1);
}

/* Bury what has expired at this instant, looking at no more than `steps` entries. There is room for as many. Returns
 * how many it were. */
static inline uint32_t core_expire(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *yard)
{
    wheel_walk_t walk = {steps, 0, 0};
    uint32_t found = 0;
    uint32_t ref;

    while ((ref = wheel_expired(&core->wheel, core->table.slab, now_ns, &walk)) != 0) {
        core_bury(core, ref, CAUSE_EXPIRED, yard);
        core->counters.expirations++;
        found++;
    }
    return found;
}

/* The same, along with other work: nothing is done while nothing can have expired. */
static inline void core_expire_some(core_t *core, int64_t now_ns, graveyard_t *yard)
{
    if (wheel_is_due(&core->wheel, now_ns)) {
        core_expire(core, EXPIRE_PER_STORE, now_ns, yard);
    }
}

/* Bury all that has expired, `steps` entries at a time, for which there is room. Returns 1 while there may be more, 0 at
 * the end, -1 without memory. */
static inline int core_expire_all(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *yard)
{
    wheel_walk_t walk = {steps, 0, 1};
    uint32_t ref;
    size_t due = 0;

    while ((ref = wheel_expired(&core->wheel, core->table.slab, now_ns, &walk)) != 0) {
        core_bury(core, ref, CAUSE_EXPIRED, yard);
        core->counters.expirations++;
    }
    if (walk.steps == 0) {
        return 1;
    }
    while ((ref = wheel_expired_now(&core->wheel, core->table.slab, now_ns, ref)) != 0) {
        due++;
    }
    if (graveyard_reserve(yard, due) < 0) {
        return -1;
    }
    while ((ref = wheel_expired_now(&core->wheel, core->table.slab, now_ns, 0)) != 0) {
        core_bury(core, ref, CAUSE_EXPIRED, yard);
        core->counters.expirations++;
    }
    return 0;
}

/* -- growing and shrinking --------------------------------------------------------------------------------- */

/* How many entries this core is to expect at most: its share of the quota, and one where there are more cores than that. */
static inline uint32_t core_share(const core_t *core)
{
    uint64_t share = core->quota->limit / core->quota->cores;
    share = share != 0 ? share : 1;
    return share < TABLE_MAX_ENTRIES ? (uint32_t)share : TABLE_MAX_ENTRIES;
}

/* Make sure that there is room for one more entry, of this deadline. 0, or -1 with nothing changed that anybody could
 * see. */
static inline int core_reserve(core_t *core, int64_t deadline_ns)
{
    table_t *t = &core->table;
    uint64_t most = core->quota->limit;
    uint32_t limit = most < TABLE_MAX_ENTRIES ? (uint32_t)most : TABLE_MAX_ENTRIES;
    uint32_t capacity = table_is_full(t) ? table_next_capacity(t, limit) : t->capacity;
    int timed = core->wheel.timers != NULL || deadline_ns != CLOCK_NEVER_NS;

    if (capacity == t->capacity && !table_is_full(t)) {
        return timed && core->wheel.timers == NULL ? wheel_reserve(&core->wheel, capacity, t->used) : 0;
    }
    if (order_reserve(&core->order, capacity, core_share(core)) < 0 ||
        (timed && wheel_reserve(&core->wheel, capacity, t->used) < 0)) {
        return -1;
    }
    return table_reserve(t, limit);
}

/* The power of two to which the table may shrink, or 0. */
static inline uint32_t core_smaller(const table_t *t)
{
    uint32_t half = (uint32_t)1 << (31 - __builtin_clz(t->capacity | 1u));

    half = half < t->capacity ? half : half / 2;
    return t->count <= half / 2 ? half : 0;
}

/* Take some steps towards a smaller table, when most of it has become empty: move the uppermost entries down, and when
 * the upper half is free give it back. While it lasts new entries go to the lower half, which has more than enough
 * free ones, and those are taken first; should it fill up after all, the whole is off. */
static inline void core_shrink_some(core_t *core)
{
    table_t *t = &core->table;
    uint32_t half = core_smaller(t);

    if (half == 0) {
        core->examined = 0;
        return;
    }
    if (core->examined == 0) {
        core->examined = t->used;
    }
    for (uint32_t steps = SHRINK_STEPS; steps != 0 && core->examined > half; steps--) {
        uint32_t from = core->examined--;
        if (t->slab[from].key != NULL) {
            uint32_t to = table_relocate(t, from);
            order_relocate(&core->order, from, to);
            wheel_relocate(&core->wheel, from, to);
        }
    }
    if (core->examined <= half && table_truncate(t, half) == 0) {
        core->examined = 0;
        (void)order_reserve(&core->order, half, core_share(core));
        if (core->wheel.timers != NULL) {
            (void)wheel_reserve(&core->wheel, half, t->used);
        }
    }
}

static inline int core_is_sparse(const core_t *core)
{
    return core->table.capacity > SHRINK_CAPACITY && core->table.count <= core->table.capacity / 2;
}

static inline void core_shrink(core_t *core)
{
    if (core_is_sparse(core)) {
        core_shrink_some(core);
    }
}

/* What is done now and then by those who only read: carry out their notes, reclaim a little, and go on with moving. There
 * is room for EXPIRE_PER_TEND graves; the caller may want one more. */
static inline void core_tend(core_t *core, int64_t now_ns, graveyard_t *yard)
{
    core_settle(core);
    core_expire(core, EXPIRE_PER_TEND, now_ns, yard);
    table_migrate(&core->table, ORDER_RING);
    core_shrink(core);
}

/* -- storing ---------------------------------------------------------------------------------------------- */

/* Can an item of this size be kept at all, whatever else has to go? */
static inline int core_fits(const core_t *core, uint64_t size)
{
    return size <= core->max_bytes && core->quota->limit != 0;
}

/* Evict until there is room for an item of this size, in place of entry `ref` (0: of none). For a new entry a place of
 * the quota is taken. 0; STORE_FULL when only other cores could make room; STORE_NO_MEMORY. */
static inline int core_make_room(core_t *core, uint32_t ref, uint64_t size, graveyard_t *yard)
{
    table_t *t = &core->table;
    uint64_t rounded = weight_size(weight_of(size));
    uint64_t beside = ref != 0 ? table_size_of(t, ref) : 0;
    int has_place = ref != 0 || quota_take(core->quota);

    while (!has_place || t->bytes - beside + rounded > core->max_bytes) {
        uint32_t victim = order_victim(&core->order, ref);
        if (victim == 0 || graveyard_reserve(yard, 2 + EXPIRE_PER_STORE) < 0) {
            quota_give(core->quota, has_place && ref == 0);
            return victim == 0 ? STORE_FULL : STORE_NO_MEMORY;
        }
        core_bury(core, victim, CAUSE_EVICTED, yard);
        has_place = has_place || quota_take(core->quota);
    }
    return 0;
}

/* Write into entry `ref` all but its key and value. `before_ns`: the deadline it had; WHEEL_NEW: it is new. */
static inline void core_fill(core_t *core, uint32_t ref, const item_t *item, int64_t before_ns)
{
    entry_t *entry = &core->table.slab[ref];

    table_resize(&core->table, ref, item->size);
    core->table.details[ref].wid = item->wid;
    entry->deadline_ns = item->deadline_ns;
    entry->lane = item->lane;
    entry->flags = item->flags;
    entry->stamp = lane_stamp(&core->lanes->lane[item->lane]);
    wheel_schedule(&core->wheel, ref, before_ns, item->deadline_ns);
}

/* Give an entry another deadline. -1 without memory, and then it keeps the one it has. */
static inline int core_reschedule(core_t *core, uint32_t ref, int64_t deadline_ns)
{
    table_t *t = &core->table;
    int64_t before_ns = t->slab[ref].deadline_ns;

    if (core->wheel.timers == NULL && deadline_ns != CLOCK_NEVER_NS &&
        wheel_reserve(&core->wheel, t->capacity, t->used) < 0) {
        return -1;
    }
    t->slab[ref].deadline_ns = deadline_ns;
    wheel_schedule(&core->wheel, ref, before_ns, deadline_ns);
    return 0;
}

/* Evict whoever is next, for the sake of another core that has nobody to evict. Returns whether there was one. */
static inline int core_evict_one(core_t *core, graveyard_t *yard)
{
    uint32_t victim;

    core_settle(core);
    victim = order_victim(&core->order, 0);
    if (victim == 0) {
        return 0;
    }
    core_bury(core, victim, CAUSE_EVICTED, yard);
    return 1;
}

/* Put a value without size or origin over that of entry `ref`, if nothing else has to change than what lies in the entry,
 * which is so as a rule. Returns the old value, or NULL, and then nothing was done. */
static inline void *core_overwrite(core_t *core, uint32_t ref, void *value, int64_t deadline_ns, int64_t now_ns)
{
    entry_t *entry = &core->table.slab[ref];
    void *old = entry->value;
    int is_later = deadline_ns >= entry->deadline_ns && (deadline_ns != CLOCK_NEVER_NS ||
                                                         entry->deadline_ns == CLOCK_NEVER_NS);

    if (!is_later || order_is_full(&core->order) || core->table.details[ref].weight != 0 || core->quota->limit == 0 ||
        wheel_is_due(&core->wheel, now_ns) || (core_is_sparse(core) && core_smaller(&core->table) != 0)) {
        return NULL;
    }
    *entry = (entry_t){entry->key, value, deadline_ns, lane_stamp(&core->lanes->lane[0]), 0, 0};
    core->table.details[ref].wid = 0;
    order_touch(&core->order, ref);
    core->counters.hits--; /* the note is not about a hit */
    core->counters.stored++;
    return old;
}

/* Put an item in: over entry `ref`, or as a new entry if `ref` is 0. Reclaims a little of what has expired, evicts what
 * must go.
 *
 * STORED_NEW when references to key and value were taken over; STORED_OVER when only that to the value was (the entry
 * keeps its own key, as a dict does; the first grave is the old value's). STORE_NO_MEMORY or STORE_FULL: the item was
 * not stored, though others may have gone to make room for it. The caller has made sure that the item fits at all
 * (core_fits). */
static inline int core_store(core_t *core, uint32_t ref, void *key, void *value, uint32_t tag,
                             const item_t *item, int64_t now_ns, graveyard_t *yard)
{
    table_t *t = &core->table;
    int is_new = ref == 0;
    int64_t before_ns = WHEEL_NEW;
    int status;

    core_settle(core);
    if (is_new) {
        core_expire_some(core, now_ns, yard);
    }
    status = core_make_room(core, ref, item->size, yard);
    if (status < 0) {
        return status;
    }
    if (is_new) {
        if (core_reserve(core, item->deadline_ns) < 0) {
            quota_give(core->quota, 1);
            return STORE_NO_MEMORY;
        }
        ref = table_insert(t, key, value, tag);
        order_insert(&core->order, ref, tag);
    } else {
        if (core->wheel.timers == NULL && item->deadline_ns != CLOCK_NEVER_NS &&
            wheel_reserve(&core->wheel, t->capacity, t->used) < 0) {
            return STORE_NO_MEMORY;
        }
        before_ns = t->slab[ref].deadline_ns;
        graveyard_add(yard, NULL, t->slab[ref].value, CAUSE_REPLACED);
        t->slab[ref].value = value;
        order_use(&core->order, ref, t->details);
    }
    core_fill(core, ref, item, before_ns);
    core->counters.stored++;
    if (!is_new) {
        core_expire_some(core, now_ns, yard);
    }
    core_shrink(core);
    return is_new ? STORED_NEW : STORED_OVER;
}

/* May the result of this op be kept? Rule R3: nothing spoke against it, the lane missed nothing meanwhile,
 * and the reply came from the very server whose messages we heard from the beginning to the end. */
static inline int core_admits(const core_t *core, const op_t *op, uint64_t identity)
{
    return op->ref != 0 && op_is_storable(op) && op->identity0 != 0 && identity == op->identity0 &&
           identity == lane_identity(&core->lanes->lane[op->lane]);
}

/* -- self-examination ------------------------------------------------------------------------------------ */

static inline const char *core_check(core_t *core)
{
    const table_t *t = &core->table;
    const char *wrong = table_check(t);

    if (wrong == NULL) {
        wrong = order_check(&core->order, t);
    }
    if (wrong == NULL) {
        wrong = wheel_check(&core->wheel, t);
    }
    if (wrong == NULL) {
        wrong = pending_check(&core->pending, core->lanes);
    }
    if (wrong != NULL) {
        return wrong;
    }
    for (uint32_t ref = 1; ref <= t->used; ref++) {
        if (t->slab[ref].key != NULL && t->slab[ref].lane >= core->lanes->count) {
            return "an entry's lane does not exist";
        }
    }
    if (t->count > core->quota->taken || core->quota->taken > core->quota->limit) {
        return "more entries than maxsize, or than the quota knows of";
    }
    return core->max_bytes != UINT64_MAX && t->bytes > core->max_bytes ? "more bytes than maxbytes" : NULL;
}

#endif
