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

#include "state.h"

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
        core_bury_alone(core, victim, CAUSE_EVICTED, yard);
        has_place = quota_pass_on(core->quota, has_place);
    }
    return 0;
}

/* Write into entry `ref` all but its key and value. `before_ns`: see wheel_schedule. */
static inline void core_fill(core_t *core, uint32_t ref, const item_t *item, int64_t before_ns)
{
    entry_t *entry = &core->table.slab[ref];

    table_resize(&core->table, ref, item->size);
    core->table.details[ref].wid = item->wid;
    entry->deadline_ns = item->deadline_ns;
    entry->lane = item->lane;
    entry->flags = (uint16_t)(item->flags | (item->wid == 0 && item->size == 0 ? ENTRY_PLAIN : 0));
    entry->stamp = item->stamp;
    wheel_schedule(&core->wheel, ref, before_ns, item->deadline_ns);
}

/* The cache is full, so its arrays are as large as they get, but for shrinking. */
static inline void core_settle_memory(core_t *core)
{
    const adaptive_t *p = core->order.adaptive;

    core->is_grown = 1;
    memory_settle(core->table.index.slots, index_bytes(&core->table.index));
    memory_settle(core->table.slab, core->table.slab_bytes);
    memory_settle(core->table.details, core->table.details_bytes);
    memory_settle(core->order.links, core->order.links_bytes);
    memory_settle(core->wheel.timers, core->wheel.timers_bytes);
    if (p != NULL) {
        memory_settle(p->history, p->history_bytes);
        memory_settle(p->ghosts, p->ghosts_bytes);
    }
}

/* Give an entry another deadline. -1 without memory, and then it keeps the one it has. */
static inline int core_reschedule(core_t *core, uint32_t ref, int64_t deadline_ns)
{
    table_t *t = &core->table;
    int64_t before_ns = t->slab[ref].deadline_ns;

    if (core_reserve_timers(core, deadline_ns) < 0) {
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

/* Write into an entry that has neither size nor origin what it holds beside its key and value. */
static inline void core_fill_plain(const core_t *core, entry_t *entry, int64_t deadline_ns)
{
    entry->deadline_ns = deadline_ns;
    entry->stamp = lane_stamp(&core->lanes->lane[0]);
    entry->lane = 0;
    entry->flags = ENTRY_PLAIN;
}

/* Put a value without size or origin over another such one, that of an entry, if nothing else has to change than what
 * lies in the entry, which is so as a rule. Then `*value` is the one before now; otherwise nothing was done. `notes`: the caller's,
 * if he has any; then nobody else's are looked at. */
static inline int core_overwrite(core_t *core, entry_t *entry, void **value, int64_t deadline_ns, int64_t now_ns,
                                 notes_t *notes)
{
    void *old;
    int has_timer = deadline_ns == entry->deadline_ns || /* or has none, and needs none */
                    (deadline_ns > entry->deadline_ns && deadline_ns != CLOCK_NEVER_NS);

    NC_ASSERT(core->quota->limit != 0);
    if (!has_timer || (entry->flags & ENTRY_PLAIN) == 0 || order_is_full(&core->order) || core_is_sparse(core) ||
        core->table.old.slots != NULL || wheel_may_be_due(&core->wheel, now_ns)) {
        return 0;
    }
    old = entry->value;
    entry->value = *value;
    *value = old;
    core_fill_plain(core, entry, deadline_ns);
    core_use(core, (uint32_t)(entry - core->table.slab), notes);
    core->counters.hits--; /* the note is not about a hit */
    core->counters.stored++;
    return 1;
}

/* Put a value without size or origin under a new key in place of whoever is to be evicted, if nothing else has to change: the
 * cache is full, its tables are as they shall be, and nothing is due. That is so as a rule, and the outcome is that of
 * core_store. Returns the ref, whose key and value before are `*key` and `*value` now, references of the caller's; or 0, and
 * then nothing was done but what was noted. */
static inline uint32_t core_exchange(core_t *core, void **key, void **value, uint32_t tag, int64_t deadline_ns,
                                     int64_t now_ns)
{
    table_t *t = &core->table;
    wheel_t *wheel = &core->wheel;
    entry_t *entry;
    entry_t old;
    uint32_t ref;

    if (!core->is_grown || !quota_is_used_up(core->quota) || t->free_sets != 0 || t->old.slots != NULL ||
        core_is_sparse(core) || (wheel->timers == NULL && deadline_ns != CLOCK_NEVER_NS) || wheel_is_due(wheel, now_ns)) {
        return 0;
    }
    core_settle(core);
    ref = order_victim(&core->order, 0);
    if (ref == 0) {
        return 0;
    }
    entry = &t->slab[ref];
    old = *entry;
    order_evict(&core->order, ref, t->details[ref].tag);
    table_exchange(t, ref, *key, *value, tag);
    order_insert(&core->order, ref, tag);
    core_fill_plain(core, entry, deadline_ns);
    wheel_schedule(wheel, ref, old.deadline_ns, deadline_ns);
    core->counters.evictions++;
    core->counters.stored++;
    *key = old.key;
    *value = old.value;
    return ref;
}

/* Move an entry between a lane and its probation. What is suspect stays so, and of no stamp that the lane had: the stamps of
 * the two have nothing in common. The stamp there is read before it is looked whether it is suspect, for see lanes_suspect. */
static inline void core_move(core_t *core, uint32_t ref, uint32_t to)
{
    entry_t *entry = &core->table.slab[ref];
    const lane_t *lane = core->lanes->lane;
    uint32_t stamp = lane_stamp_first(&lane[to]);

    entry->stamp = entry->stamp == lane_stamp(&lane[entry->lane]) ? stamp : stamp_of_nobody(stamp);
    entry->lane = (uint16_t)to;
}

/* The message of the entry's own write has come: from now on it is an entry like others. */
static inline void core_hear(core_t *core, uint32_t ref)
{
    entry_t *entry = &core->table.slab[ref];
    uint32_t count = core->lanes->count;

    entry->flags = 0;
    if (entry->lane >= count) {
        core_move(core, ref, entry->lane - count);
    }
}

/* A message of others has spared the entry, whose own is still to come: see lanes_t. */
static inline void core_spare(core_t *core, uint32_t ref)
{
    uint32_t lane = core->table.slab[ref].lane;

    if (lane < core->lanes->count) {
        core_move(core, ref, lane + core->lanes->count);
    }
}

/* What an operation brought is an own write whose message is still to come. If a message of others has spared it, the item
 * goes on the probation of the lane that it is entered under, which may be another than the operation's. That one's stamp is
 * read first: a heartbeat moves the operation's probation before any that depends on it. */
static inline void core_await(const core_t *core, const op_t *op, item_t *item)
{
    const lane_t *lane = core->lanes->lane;
    uint32_t count = core->lanes->count;
    uint32_t probation = lane_stamp_first(&lane[item->lane + count]);
    int is_current = item->stamp == lane_stamp(&lane[item->lane]) && op->stamp1 == lane_stamp(&lane[op->lane + count]);

    item->flags = ENTRY_UNHEARD;
    if (op->spared) {
        item->lane = (uint16_t)(item->lane + count);
        item->stamp = is_current ? probation : stamp_of_nobody(probation);
    }
}

/* What an item is to be put over, found at `ref`: nothing, if its time is over and somebody is told so. That one is buried. */
static inline uint32_t core_outlived(core_t *core, uint32_t ref, int64_t now_ns, graveyard_t *yard)
{
    if (core->listener == NULL || ref == 0 || now_ns < core->table.slab[ref].deadline_ns) {
        return ref;
    }
    core_bury(core, ref, CAUSE_EXPIRED, yard);
    return 0;
}

/* Put an item in: over entry `ref`, or as a new entry if `ref` is 0. Reclaims a little of what has expired, evicts what
 * must go.
 *
 * STORED_NEW when references to key and value were taken over; STORED_OVER when only that to the value was (the entry
 * keeps its own key, as a dict does; the old value's grave is the one without a key). STORE_NO_MEMORY or STORE_FULL: the item was
 * not stored, though others may have gone to make room for it. The caller has made sure that the item fits at all
 * (core_fits). */
static inline int core_store(core_t *core, uint32_t ref, void *key, void *value, uint32_t tag,
                             const item_t *item, int64_t now_ns, graveyard_t *yard)
{
    table_t *t = &core->table;
    int is_new = ref == 0;
    uint32_t used = t->used;
    int64_t before_ns;
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
        before_ns = ref > used ? WHEEL_NEW : t->slab[ref].deadline_ns;
        order_insert(&core->order, ref, tag);
        if (!core->is_grown && quota_is_used_up(core->quota)) {
            core_settle_memory(core);
        }
    } else {
        if (core_reserve_timers(core, item->deadline_ns) < 0) {
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
        table_migrate(t, TABLE_MIGRATION);
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
        if (t->slab[ref].key != NULL && t->slab[ref].lane >= 2 * core->lanes->count) {
            return "an entry's lane does not exist";
        }
        if ((t->slab[ref].flags & ENTRY_PLAIN) != 0 && (t->details[ref].wid != 0 || t->details[ref].weight != 0)) {
            return "an entry is said to have neither size nor origin, and has";
        }
    }
    if (t->count > core->quota->taken || core->quota->taken > core->quota->limit) {
        return "more entries than maxsize, or than the quota knows of";
    }
    return core->max_bytes != NO_BOUND && t->bytes > core->max_bytes ? "more bytes than maxbytes" : NULL;
}

#endif
