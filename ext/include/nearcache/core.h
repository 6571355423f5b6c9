/* core.h: what a store does between two calls into Python: bounds, expiry, validity, eviction.
 *
 * Every function here runs to its end without running anybody else's code. References that an operation
 * sets free go to a graveyard on the caller's stack; the caller releases them when it has finished, because
 * releasing may run any code, this store's own methods included.
 */
#ifndef NEARCACHE_CORE_H
#define NEARCACHE_CORE_H

#include "clock.h"
#include "pending.h"
#include "table.h"

#define GRAVEYARD_LOCAL 8u

typedef struct {
    void *key;   /* either may be NULL */
    void *value;
} pair_t;

typedef struct {
    pair_t *pairs;
    size_t count;
    size_t capacity;
    pair_t local[GRAVEYARD_LOCAL];
} graveyard_t;

typedef struct {
    uint64_t hits;
    uint64_t misses;
    uint64_t evictions;
    uint64_t expirations;
    uint64_t invalidated;
    uint64_t suspects;
    uint64_t stored;
} counters_t;

typedef struct {
    table_t table;
    lanes_t *lanes;
    source_t source;
    counters_t counters;
    uint64_t max_entries; /* UINT64_MAX: unbounded */
    uint64_t max_bytes;   /* UINT64_MAX: unbounded */
    uint32_t hand;        /* where the next sweep begins */
    table_t pending;
} core_t;

/* What goes into an entry beside key, value and hash. */
typedef struct {
    uint64_t wid;
    int64_t deadline_ns;
    uint64_t size;
    uint16_t lane;
    uint16_t flags;
} item_t;

enum { SWEEP_PER_STORE = 2 };

/* -- graveyard ------------------------------------------------------------------------------------------- */

static inline void graveyard_init(graveyard_t *graves)
{
    graves->pairs = graves->local;
    graves->count = 0;
    graves->capacity = GRAVEYARD_LOCAL;
}

/* Make room for `more` pairs; -1 if there is no memory. */
static inline int graveyard_reserve(graveyard_t *graves, size_t more)
{
    size_t need = graves->count + more;
    size_t capacity = graves->capacity * 2 > need ? graves->capacity * 2 : need;
    size_t size = (capacity * sizeof(pair_t) + TABLE_LINE - 1) / TABLE_LINE * TABLE_LINE;
    pair_t *pairs;

    if (need <= graves->capacity) {
        return 0;
    }
    pairs = NEARCACHE_ALLOC(TABLE_LINE, size);
    if (pairs == NULL) {
        return -1;
    }
    memcpy(pairs, graves->pairs, graves->count * sizeof(pair_t));
    if (graves->pairs != graves->local) {
        NEARCACHE_FREE(graves->pairs);
    }
    graves->pairs = pairs;
    graves->capacity = capacity;
    return 0;
}

static inline void graveyard_add(graveyard_t *graves, void *key, void *value)
{
    NC_ASSERT(graves->count < graves->capacity);
    graves->pairs[graves->count++] = (pair_t){key, value};
}

static inline void graveyard_free(graveyard_t *graves)
{
    if (graves->pairs != graves->local) {
        NEARCACHE_FREE(graves->pairs);
    }
    graveyard_init(graves);
}

/* -- life and death of a store --------------------------------------------------------------------------- */

static inline int core_init(core_t *core, uint32_t lanes, const uint64_t seed[2])
{
    memset(core, 0, sizeof *core);
    core->source.fixed_ns = CLOCK_REAL;
    core->max_entries = UINT64_MAX;
    core->max_bytes = UINT64_MAX;
    table_init(&core->table, seed[0], seed[1]);
    table_init(&core->pending, seed[0], seed[1]);
    core->lanes = lanes_new(lanes);
    return core->lanes == NULL ? -1 : 0;
}

/* -- reading --------------------------------------------------------------------------------------------- */

/* May this entry be served at this instant? Its lane must have seen every invalidation up to now
 * (fresh-until), must not have missed any since the entry was stored (stamp), and the entry's own time must
 * not be over. */
static inline int core_is_valid(const core_t *core, const entry_t *entry, int64_t now_ns)
{
    const lane_t *lane = &core->lanes->lane[entry->lane];
    return (now_ns < entry->deadline_ns) & (entry->stamp == lane->stamp) & (now_ns < lane->fresh_until_ns);
}

/* Remove an entry into the graveyard, in which there is room. */
static inline void core_bury(core_t *core, uint32_t ref, graveyard_t *graves)
{
    graveyard_add(graves, core->table.slab[ref].key, core->table.slab[ref].value);
    table_remove(&core->table, ref);
}

/* -- writing --------------------------------------------------------------------------------------------- */

/* Can an item of this size be kept at all, whatever else has to go? */
static inline int core_fits(const core_t *core, uint64_t size)
{
    return size <= core->max_bytes && core->max_entries != 0;
}

/* How many of the least recently used entries must go before this item fits, in place of entry `ref`
 * (0: of none). */
static inline size_t core_count_victims(const core_t *core, uint32_t ref, uint64_t size)
{
    const table_t *t = &core->table;
    uint64_t entries = (uint64_t)t->count + (ref == 0);
    uint64_t bytes = t->bytes + size - (ref != 0 ? t->details[ref].size : 0);
    size_t victims = 0;

    for (uint32_t v = table_oldest(t); v != 0 && (entries > core->max_entries || bytes > core->max_bytes);
         v = table_newer(t, v)) {
        if (v != ref) {
            entries--;
            bytes -= t->details[v].size;
            victims++;
        }
    }
    return victims;
}

/* Examine up to `steps` slab positions from where the last sweep ended, and bury what has expired. */
static inline size_t core_sweep(core_t *core, uint32_t steps, int64_t now_ns, graveyard_t *graves)
{
    table_t *t = &core->table;
    size_t found = 0;

    for (; steps != 0 && t->used != 0; steps--) {
        core->hand = core->hand >= t->used ? 1 : core->hand + 1;
        if (t->slab[core->hand].key != NULL && t->slab[core->hand].deadline_ns <= now_ns) {
            core_bury(core, core->hand, graves);
            core->counters.expirations++;
            found++;
        }
    }
    return found;
}

/* Put an item in: over entry `ref`, or as a new entry if `ref` is 0. Evicts what must go, sweeps a little.
 *
 * Returns -1 without memory, and then nothing has changed; 1 when references to key and value were taken
 * over; 0 when only that to the value was (the entry keeps its own key, as a dict does). The caller has
 * made sure that the item fits at all (core_fits). */
static inline int core_store(core_t *core, uint32_t ref, void *key, void *value, int64_t hash,
                             const item_t *item, int64_t now_ns, graveyard_t *graves)
{
    table_t *t = &core->table;
    size_t victims = core_count_victims(core, ref, item->size);
    int inserted = ref == 0;
    uint32_t limit = core->max_entries < TABLE_MAX_ENTRIES ? (uint32_t)core->max_entries : TABLE_MAX_ENTRIES;
    entry_t *entry;

    if (graveyard_reserve(graves, victims + 1 + SWEEP_PER_STORE) < 0) {
        return -1;
    }
    if (inserted && victims == 0 && table_reserve(t, limit) < 0) {
        return -1;
    }
    if (!inserted) { /* from here on nothing fails */
        table_touch(t, ref);
        graveyard_add(graves, NULL, t->slab[ref].value);
        t->slab[ref].value = value;
    }
    for (; victims != 0; victims--) {
        core_bury(core, table_oldest(t), graves);
        core->counters.evictions++;
    }
    if (inserted) {
        ref = table_insert(t, key, value, hash);
    }
    entry = &t->slab[ref];
    table_resize(t, ref, item->size);
    t->details[ref].wid = item->wid;
    entry->deadline_ns = item->deadline_ns;
    entry->lane = item->lane;
    entry->flags = item->flags;
    entry->stamp = core->lanes->lane[item->lane].stamp;
    core->counters.stored++;
    core_sweep(core, SWEEP_PER_STORE, now_ns, graves);
    return inserted;
}

/* May the result of this op be kept? Rule R3: nothing spoke against it, the lane missed nothing meanwhile,
 * and the reply came from the very server whose messages we heard from the beginning to the end. */
static inline int core_admits(const core_t *core, const op_t *op, uint64_t identity)
{
    return op->ref != 0 && op_is_storable(op) && op->identity0 != 0 && identity == op->identity0 &&
           identity == core->lanes->lane[op->lane].identity;
}

/* -- self-examination ------------------------------------------------------------------------------------ */

static inline const char *core_check(const core_t *core)
{
    const table_t *t = &core->table;
    const char *wrong = table_check(t);

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
    if (t->count > core->max_entries) {
        return "more entries than maxsize";
    }
    return core->max_bytes != UINT64_MAX && t->bytes > core->max_bytes ? "more bytes than maxbytes" : NULL;
}

#endif
