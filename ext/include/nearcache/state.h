/* state.h: what a core consists of, and its upkeep: counting, removing, reclaiming, growing and shrinking.
 *
 * What core.h says of its functions is true of these too: they run nobody else's code, and what they set free goes to a
 * graveyard.
 */
#ifndef NEARCACHE_STATE_H
#define NEARCACHE_STATE_H

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
    uint64_t too_large; /* results not kept, for they are over max_bytes */
} counters_t;

/* As many entries, or bytes, as come. */
#define NO_BOUND UINT64_MAX

/* How many entries there may be, and how many there are, in all cores of a store together. */
typedef struct {
    uint64_t limit; /* or NO_BOUND */
    NOTES_APART(apart)
    uint64_t taken;
    NOTES_APART(apart_too)
    uint32_t cores;
} quota_t;

typedef struct {
    lanes_t *lanes; /* first what a hit reads */
    source_t source;
    table_t table;
    uint8_t is_grown;  /* the arrays have their final size, see core_settle_memory */
    uint8_t tells_new; /* the listener is told of values that come, too */
    uint32_t examined; /* while shrinking: entries above this are free */
    order_t order;
    NOTES_APART(apart) /* what every writer writes to, and no reader */
    uint8_t lock;      /* the caller's */
    uint8_t settling;  /* a reader carries out his notes: see notes.h */
    counters_t counters;
    NOTES_APART(apart_too)
    void *listener; /* the caller's: whom to tell of what is buried; NULL: nobody */
    quota_t *quota;
    uint64_t max_bytes; /* or NO_BOUND */
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
    uint32_t stamp; /* of the lane, when what the item was made of was asked for */
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

static inline int quota_is_used_up(const quota_t *quota)
{
    return __atomic_load_n(&quota->taken, __ATOMIC_RELAXED) >= quota->limit;
}

static inline void quota_give(quota_t *quota, uint64_t entries)
{
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
    __atomic_fetch_sub(&quota->taken, entries, __ATOMIC_RELAXED);
#else
    quota->taken -= entries;
#endif
}

/* An entry has gone for the sake of a new one, for which there is a place already, or not yet. Returns whether there is now.
 * With threads the place passes over: to give it back and to take one would be in the way of all cores, twice. */
static inline int quota_pass_on(quota_t *quota, int has_place)
{
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
    if (has_place) {
        quota_give(quota, 1);
    }
    return 1;
#else
    quota_give(quota, 1);
    return has_place || quota_take(quota);
#endif
}

/* -- life and death of a core ----------------------------------------------------------------------------- */

/* A core without lanes: the caller gives it some, and a quota. */
static inline void core_init(core_t *core, quota_t *quota, const uint64_t seed[2])
{
    memset(core, 0, sizeof *core);
    core->quota = quota;
    core->max_bytes = NO_BOUND;
    table_init(&core->table, seed[0], seed[1]);
    table_init(&core->pending, seed[0], seed[1]);
    order_init(&core->order);
    wheel_init(&core->wheel);
}

/* Count what readers have noted, of which the notes are forgotten next. */
static inline void core_count(core_t *core)
{
    core->counters.hits += order_noted(&core->order, &core->counters.misses);
}

/* Move all entries into `gone`, which the caller empties and frees. Cannot fail. */
static inline void core_detach(core_t *core, table_t *gone)
{
    core_count(core);
    table_detach(&core->table, gone);
    order_clear(&core->order);
    wheel_free_memory(&core->wheel);
    wheel_init(&core->wheel);
    core->examined = 0;
    core->is_grown = 0;
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
    if (order_is_noted(&core->order)) {
        core_count(core);
        order_settle(&core->order, core->table.details);
    }
}

/* Note a hit, or another use, in the core's own ring, in which there is room. See notes.h for who comes first. */
static inline void core_touch(core_t *core, uint32_t ref)
{
    if (order_readers(&core->order)->readers != 0) {
        core_settle(core);
    }
    order_touch(&core->order, ref);
}

/* Carry out the notes of one reader, who is the only one that does. Others may be reading meanwhile. */
static inline void core_settle_notes(core_t *core, notes_t *notes)
{
    core->counters.hits += notes->count;
    order_carry_out_notes(&core->order, notes, core->table.details);
    notes->count = 0;
}

/* Note a use that is none of a reader, who may have notes of his own all the same. */
static inline void core_use(core_t *core, uint32_t ref, notes_t *notes)
{
    if (notes == NULL) {
        core_touch(core, ref);
        return;
    }
    if (notes_are_full(notes)) {
        core_settle_notes(core, notes);
    }
    order_note(&core->order, notes, ref);
}

/* -- removing --------------------------------------------------------------------------------------------- */

/* Take an entry out, without its timer. The references to its key and value are the caller's now, and so is its place in the
 * quota. */
static inline void core_take_out_alone(core_t *core, uint32_t ref, int is_evicted)
{
    core_settle(core);
    if (is_evicted) {
        order_evict(&core->order, ref, core->table.details[ref].tag);
        core->counters.evictions++;
    } else {
        order_remove(&core->order, ref);
    }
    table_remove(&core->table, ref);
}

/* The same, and its place is given back. */
static inline void core_take_out(core_t *core, uint32_t ref, int is_evicted)
{
    core_take_out_alone(core, ref, is_evicted);
    quota_give(core->quota, 1);
}

/* Ask for what taking an entry out will need beside the entry itself, all at once and as soon as it is known which one. */
static inline void core_ask(const core_t *core, uint32_t ref)
{
    __builtin_prefetch(&core->table.details[ref], 1);
    order_ask(&core->order, ref);
}

/* As core_take_out, where the caller has just found the slot, at `at` of the index, so that it need not be looked for. */
static inline void core_take_out_at(core_t *core, uint32_t ref, uint32_t at)
{
    core_settle(core);
    table_remove_at(&core->table, ref, at);
    order_remove(&core->order, ref);
    quota_give(core->quota, 1);
}

/* Remove an entry into the graveyard, in which there is room. Its place in the quota is the caller's now. */
static inline void core_bury_alone(core_t *core, uint32_t ref, cause_t cause, graveyard_t *yard)
{
    graveyard_add(yard, core->table.slab[ref].key, core->table.slab[ref].value, cause);
    core_take_out_alone(core, ref, cause == CAUSE_EVICTED);
}

/* The same, and its place is given back. To a listener one whose time is over has expired, whatever takes it away, unless it
 * makes room. For nobody else is the clock looked at. */
static inline void core_bury(core_t *core, uint32_t ref, cause_t cause, graveyard_t *yard)
{
    int is_told = core->listener != NULL && cause != CAUSE_EVICTED;
    int is_over = is_told && core->table.slab[ref].deadline_ns <= clock_now(&core->source);

    core_bury_alone(core, ref, is_over ? CAUSE_EXPIRED : cause, yard);
    quota_give(core->quota, 1);
}

/* The same for one whose time is over, and with it its timer's. */
static inline void core_bury_expired(core_t *core, uint32_t ref, graveyard_t *yard)
{
    wheel_remove(&core->wheel, ref);
    core_bury(core, ref, CAUSE_EXPIRED, yard);
    core->counters.expirations++;
}

/* Bury what has expired at this instant, looking at no more than `steps` timers. There is room for as many. Returns
 * how many it were. */
static inline uint32_t core_expire(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *yard)
{
    wheel_walk_t walk = {steps, 0, 0};
    uint32_t found = 0;
    uint32_t ref;

    while ((ref = wheel_expired(&core->wheel, core->table.slab, now_ns, &walk)) != 0) {
        core_bury_expired(core, ref, yard);
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

/* Bury those in one slot of the wheel whose deadline has come. -1 without memory. */
static inline int core_expire_slot(core_t *core, uint32_t slot, int64_t now_ns, graveyard_t *yard)
{
    const entry_t *slab = core->table.slab;
    uint32_t first = wheel_is_taken(&core->wheel, slot) ? wheel_due_in(&core->wheel, slab, slot, now_ns, 0) : 0;
    uint32_t next = 0;
    size_t due = 0;

    for (uint32_t ref = first; ref != 0; ref = wheel_due_in(&core->wheel, slab, slot, now_ns, ref)) {
        due++;
    }
    if (graveyard_reserve(yard, due) < 0) {
        return -1;
    }
    for (uint32_t ref = first; ref != 0; ref = next) {
        next = wheel_due_in(&core->wheel, slab, slot, now_ns, ref);
        core_bury_expired(core, ref, yard);
    }
    return 0;
}

/* Bury all that has expired, `steps` entries at a time, for which there is room. Returns 1 while there may be more, 0 at
 * the end, -1 without memory. */
static inline int core_expire_all(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *yard)
{
    wheel_walk_t walk = {steps, 0, 1};
    uint32_t ref;

    while ((ref = wheel_expired(&core->wheel, core->table.slab, now_ns, &walk)) != 0) {
        core_bury_expired(core, ref, yard);
    }
    if (walk.steps == 0) {
        return 1;
    }
    return core_expire_slot(core, (uint32_t)core->wheel.unit & (WHEEL_SLOTS - 1), now_ns, yard);
}

/* Bury all that will have expired at a later instant, without turning the wheel to there. -1 without memory. */
static inline int core_expire_until(core_t *core, int64_t later_ns, graveyard_t *yard)
{
    int status = 0;

    for (uint32_t slot = 0; slot < WHEEL_LEVELS * WHEEL_SLOTS && status == 0; slot++) {
        status = core_expire_slot(core, slot, later_ns, yard);
    }
    return status;
}

/* -- growing and shrinking --------------------------------------------------------------------------------- */

/* How many entries this core is to expect at most: its share of the quota; TABLE_MAX_ENTRIES: nobody knows, for where bytes
 * are bounded too, these may be the tighter bound. */
static inline uint32_t core_share(const core_t *core)
{
    uint64_t share = core->quota->limit / core->quota->cores;

    share = share != 0 ? share : 1;
    return share < TABLE_MAX_ENTRIES && core->max_bytes == NO_BOUND ? (uint32_t)share : TABLE_MAX_ENTRIES;
}

/* Make sure that the entries have timers, if this deadline is one that comes. */
static inline int core_reserve_timers(core_t *core, int64_t deadline_ns)
{
    if (core->wheel.timers != NULL || deadline_ns == CLOCK_NEVER_NS) {
        return 0;
    }
    return wheel_reserve(&core->wheel, core->table.capacity, core->table.used);
}

/* Make sure that there is room for one more entry, of this deadline. 0, or -1 with nothing changed that anybody could
 * see. */
static inline int core_reserve(core_t *core, int64_t deadline_ns)
{
    table_t *t = &core->table;
    uint64_t most = core->quota->limit;
    uint32_t limit = most < TABLE_MAX_ENTRIES ? (uint32_t)most : TABLE_MAX_ENTRIES;
    uint32_t capacity = table_next_capacity(t, limit);
    int timed = core->wheel.timers != NULL || deadline_ns != CLOCK_NEVER_NS;

    if (!table_is_full(t)) {
        return core_reserve_timers(core, deadline_ns);
    }
    if (order_reserve(&core->order, capacity, core_share(core)) < 0 ||
        (timed && wheel_reserve(&core->wheel, capacity, t->used) < 0)) {
        return -1;
    }
    core->is_grown = 0;
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

    if (t->old.slots != NULL) { /* one thing after the other, or the index would have to be moved all at once */
        table_migrate(t, 2 * SHRINK_STEPS);
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
        } else {
            wheel_remove(&core->wheel, from); /* what lies above `half` will be gone */
        }
    }
    if (core->examined <= half && table_truncate(t, half) == 0) {
        core->is_grown = 0;
        core->examined = 0;
        (void)order_reserve(&core->order, half, core_share(core));
        if (core->wheel.timers != NULL) {
            (void)wheel_reserve(&core->wheel, half, t->used);
        }
    }
}

/* Is so little of the table in use that it may be about to shrink? */
static inline int core_is_sparse(const core_t *core)
{
    return core->table.capacity > SHRINK_CAPACITY && core->table.count <= core->table.capacity / 2 &&
           core_smaller(&core->table) != 0;
}

static inline void core_shrink(core_t *core)
{
    if (core_is_sparse(core)) {
        core_shrink_some(core);
    } else { /* entries above that mark may be in use again */
        core->examined = 0;
    }
}

/* Is there more to be done by those who only read than to carry out their notes? */
static inline int core_wants_tending(core_t *core, int64_t now_ns)
{
    return wheel_is_due(&core->wheel, now_ns) || core->table.old.slots != NULL || core_is_sparse(core);
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

/* After that: is it worth going on at once? What the wheel has found so far does not tell, for it may have been timers that
 * were left behind. */
static inline int core_is_untended(const core_t *core, int64_t now_ns)
{
    return core_is_sparse(core) || wheel_is_behind(&core->wheel, now_ns);
}

/* Go on with moving alone, for who has just removed much. Returns whether more of the table may be given back. */
static inline int core_give_back(core_t *core)
{
    core_settle(core);
    table_migrate(&core->table, ORDER_RING);
    core_shrink(core);
    return core_is_sparse(core);
}

#endif
