/* model.h: a core and, beside it, a plain model of what it holds: an array by key, looked through from end to end.
 *
 *     rig_t --- core      the thing under test, with its quota and its lane
 *           `-- model     what it ought to hold
 *
 * Every function does something to the core, then reads in the graveyard what went and in which order, checks that each
 * one was free to go for the reason given, and does the same to the model. What the order of eviction is, is said in one
 * place, `model_victim`; a learning policy (rig_adapt) may choose anybody but the one that is spared.
 */
#ifndef NEARCACHE_TESTS_MODEL_H
#define NEARCACHE_TESTS_MODEL_H

#include "check.h"

#include "nearcache/core.h"

#ifndef MODEL_KEYS
#define MODEL_KEYS 512u
#endif

typedef struct {
    void *value; /* NULL: not held */
    int64_t deadline_ns;
    uint64_t size;
    uint64_t used; /* when last, in ticks of the model */
} held_t;

typedef struct {
    core_t core;
    quota_t own;
    held_t held[MODEL_KEYS];
    uint32_t count;
    uint64_t bytes;
    uint64_t tick;
    uint32_t values; /* made so far */
    int kind;        /* of hashes */
} rig_t;

/* -- life ------------------------------------------------------------------------------------------------- */

/* A core of one lane that is vouched for, at instant 1000. `quota`: NULL for one of its own, with this limit. -1 without
 * memory. */
static inline int rig_init(rig_t *rig, quota_t *quota, uint64_t limit, int kind)
{
    const uint64_t seed[2] = {0x9e3779b97f4a7c15u * (uint64_t)(kind + 1), 0xd1342543de82ef95u};

    memset(rig, 0, sizeof *rig);
    rig->own = (quota_t){.limit = limit, .cores = 1};
    rig->kind = kind;
    core_init(&rig->core, quota != NULL ? quota : &rig->own, seed);
    rig->core.source = (source_t){1000, 1};
    rig->core.lanes = lanes_new(1);
    if (rig->core.lanes == NULL) {
        return -1;
    }
    lane_vouch(&rig->core.lanes->lane[0], CLOCK_NEVER_NS);
    lane_attach(&rig->core.lanes->lane[0], 7);
    return 0;
}

/* Let the learning policy choose, before anything is stored. -1 without memory. */
static inline int rig_adapt(rig_t *rig, uint32_t seed)
{
    return order_adapt(&rig->core.order, seed);
}

static inline int rig_is_adaptive(const rig_t *rig)
{
    return rig->core.order.adaptive != NULL;
}

static inline void model_forget(rig_t *rig, uint32_t key)
{
    held_t *held = &rig->held[key];

    rig->count--;
    rig->bytes -= weight_size(weight_of(held->size));
    *held = (held_t){NULL, 0, 0, 0};
}

/* Take everything out at once, as drop_all does. */
static inline void rig_detach(rig_t *rig)
{
    table_t gone;
    uint32_t seen = 0;

    core_detach(&rig->core, &gone);
    for (uint32_t ref = 1; ref <= gone.used; ref++) {
        if (gone.slab[ref].key != NULL) {
            uint32_t key = number_of(gone.slab[ref].key);
            CHECK(rig->held[key].value != NULL && rig->held[key].value == gone.slab[ref].value);
            model_forget(rig, key);
            seen++;
        }
    }
    CHECK(seen == gone.count && rig->count == 0 && rig->bytes == 0);
    table_free_memory(&gone);
}

static inline void rig_free(rig_t *rig)
{
    rig_detach(rig);
    order_free_memory(&rig->core.order);
    table_free_memory(&rig->core.pending);
    lanes_release(rig->core.lanes);
}

/* -- the model -------------------------------------------------------------------------------------------- */

/* Who has to go next, when `spared` must stay (MODEL_KEYS: nobody must): the least recently used. */
static inline uint32_t model_victim(const rig_t *rig, uint32_t spared)
{
    uint32_t victim = MODEL_KEYS;

    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        if (rig->held[key].value != NULL && key != spared &&
            (victim == MODEL_KEYS || rig->held[key].used < rig->held[victim].used)) {
            victim = key;
        }
    }
    return victim;
}

static inline void model_hold(rig_t *rig, uint32_t key, const held_t *held)
{
    CHECK(rig->held[key].value == NULL);
    rig->held[key] = *held;
    rig->held[key].used = ++rig->tick;
    rig->count++;
    rig->bytes += weight_size(weight_of(held->size));
}

/* Do to the model what the graves say. `stored` is what a store has put under `key` (MODEL_KEYS: nothing was). */
static inline void rig_bury(rig_t *rig, graveyard_t *yard, int64_t now_ns, uint32_t key, const held_t *stored)
{
    for (size_t i = 0; i < yard->count; i++) {
        const grave_t *grave = &yard->graves[i];
        uint32_t gone = grave->key != NULL ? number_of(grave->key) : key;
        CHECK(gone < MODEL_KEYS && rig->held[gone].value != NULL && rig->held[gone].value == grave->value);
        CHECK((grave->cause == CAUSE_REPLACED) == (grave->key == NULL));
        CHECK(grave->cause != CAUSE_EXPIRED || rig->held[gone].deadline_ns <= now_ns);
        CHECK(grave->cause != CAUSE_EVICTED || (rig_is_adaptive(rig) ? gone != key : gone == model_victim(rig, key)));
        model_forget(rig, gone);
        if (grave->cause == CAUSE_REPLACED) {
            CHECK(stored != NULL);
            model_hold(rig, key, stored);
        }
    }
    graveyard_free(yard);
}

/* -- what can be done ------------------------------------------------------------------------------------- */

static inline uint32_t table_find(const table_t *t, const void *key, int64_t hash)
{
    uint32_t tag = table_tag(t, hash);
    uint64_t position = tag;
    uint32_t ref;

    do {
        ref = table_next(t, tag, &position);
    } while (ref != 0 && t->slab[ref].key != key);
    return ref;
}

static inline uint32_t rig_find(const rig_t *rig, uint32_t key)
{
    return table_find(&rig->core.table, key_of(key), hash_of(rig->kind, key));
}

/* Store a new value. Returns what core_store does. */
static inline int rig_store(rig_t *rig, uint32_t key, uint64_t size, int64_t deadline_ns)
{
    int64_t now_ns = clock_now(&rig->core.source);
    item_t item = {0, deadline_ns, size, lane_stamp(&rig->core.lanes->lane[0]), 0, 0};
    held_t held = {key_of(++rig->values), deadline_ns, size, 0};
    uint32_t ref = rig_find(rig, key);
    uint32_t tag = table_tag(&rig->core.table, hash_of(rig->kind, key));
    graveyard_t yard;
    int status;

    CHECK((ref != 0) == (rig->held[key].value != NULL));
    graveyard_init(&yard);
    status = core_store(&rig->core, ref, key_of(key), held.value, tag, &item, now_ns, &yard);
    CHECK(status == STORE_NO_MEMORY || status == STORE_FULL || status == (ref == 0 ? STORED_NEW : STORED_OVER));
    rig_bury(rig, &yard, now_ns, key, status == STORED_OVER ? &held : NULL);
    if (status == STORED_NEW) {
        model_hold(rig, key, &held);
    }
    return status;
}

/* Put a value without size over that of an entry by the short way, if that is open. Returns whether it was. */
static inline int rig_overwrite(rig_t *rig, uint32_t key, int64_t deadline_ns)
{
    uint32_t ref = rig_find(rig, key);
    held_t *held = &rig->held[key];
    void *value = key_of(rig->values + 1);
    void *old = value;

    if (ref == 0 ||
        !core_overwrite(&rig->core, &rig->core.table.slab[ref], &old, deadline_ns, clock_now(&rig->core.source), NULL)) {
        return 0;
    }
    CHECK(old == held->value && held->size == 0 && deadline_ns >= held->deadline_ns);
    *held = (held_t){value, deadline_ns, 0, ++rig->tick};
    rig->values++;
    return 1;
}

/* Put a value without size under a new key in place of another's by the short way, if that is open. Returns whether it was. */
static inline int rig_exchange(rig_t *rig, uint32_t key, int64_t deadline_ns)
{
    int64_t now_ns = clock_now(&rig->core.source);
    uint32_t tag = table_tag(&rig->core.table, hash_of(rig->kind, key));
    held_t held = {key_of(rig->values + 1), deadline_ns, 0, 0};
    void *old_key = key_of(key);
    void *old_value = held.value;
    uint32_t ref = rig_find(rig, key);
    graveyard_t yard;

    ref = ref == 0 ? core_exchange(&rig->core, &old_key, &old_value, tag, deadline_ns, now_ns) : 0;
    if (ref == 0) {
        return 0;
    }
    CHECK(rig_find(rig, key) == ref);
    rig->values++;
    graveyard_init(&yard);
    graveyard_add(&yard, old_key, old_value, CAUSE_EVICTED);
    rig_bury(rig, &yard, now_ns, MODEL_KEYS, NULL);
    model_hold(rig, key, &held);
    return 1;
}

/* Put a value without size, by a short way if one is open. Returns what core_store does. */
static inline int rig_put(rig_t *rig, uint32_t key, int64_t deadline_ns)
{
    if (rig_overwrite(rig, key, deadline_ns)) {
        return STORED_OVER;
    }
    return rig_exchange(rig, key, deadline_ns) ? STORED_NEW : rig_store(rig, key, 0, deadline_ns);
}

/* Read, as the store does: note a hit, or reclaim what has expired. Returns whether it was one. */
static inline int rig_hit(rig_t *rig, uint32_t key)
{
    int64_t now_ns = clock_now(&rig->core.source);
    uint32_t ref = rig_find(rig, key);
    const entry_t *entry;
    graveyard_t yard;

    CHECK((ref != 0) == (rig->held[key].value != NULL));
    if (ref == 0) {
        return 0;
    }
    entry = &rig->core.table.slab[ref];
    CHECK(entry->value == rig->held[key].value && entry->deadline_ns == rig->held[key].deadline_ns);
    if (core_is_valid(&rig->core, entry, now_ns)) {
        if (order_is_full(&rig->core.order)) {
            core_settle(&rig->core);
        }
        order_touch(&rig->core.order, ref);
        rig->held[key].used = ++rig->tick;
        return 1;
    }
    graveyard_init(&yard);
    core_bury(&rig->core, ref, CAUSE_EXPIRED, &yard);
    rig_bury(rig, &yard, now_ns, MODEL_KEYS, NULL);
    return 0;
}

static inline void rig_remove(rig_t *rig, uint32_t key)
{
    uint32_t ref = rig_find(rig, key);
    graveyard_t yard;

    CHECK((ref != 0) == (rig->held[key].value != NULL));
    if (ref != 0) {
        graveyard_init(&yard);
        core_bury(&rig->core, ref, CAUSE_INVALIDATED, &yard);
        rig_bury(rig, &yard, 0, MODEL_KEYS, NULL);
    }
}

/* Give an entry another deadline, if it is there. Returns what core_reschedule does. */
static inline int rig_reschedule(rig_t *rig, uint32_t key, int64_t deadline_ns)
{
    uint32_t ref = rig_find(rig, key);
    int status = ref != 0 ? core_reschedule(&rig->core, ref, deadline_ns) : 0;

    if (ref != 0 && status == 0) {
        rig->held[key].deadline_ns = deadline_ns;
    }
    return status;
}

static inline void rig_evict(rig_t *rig)
{
    graveyard_t yard;
    int had_one = rig->count != 0;

    graveyard_init(&yard);
    CHECK(core_evict_one(&rig->core, &yard) == had_one);
    rig_bury(rig, &yard, 0, MODEL_KEYS, NULL);
}

static inline void rig_tend(rig_t *rig)
{
    int64_t now_ns = clock_now(&rig->core.source);
    graveyard_t yard;

    graveyard_init(&yard);
    core_tend(&rig->core, now_ns, &yard);
    rig_bury(rig, &yard, now_ns, MODEL_KEYS, NULL);
}

/* Look at up to so many entries for expired ones. Returns how many there were; -1 without memory. */
static inline long rig_expire(rig_t *rig, uint32_t steps)
{
    int64_t now_ns = clock_now(&rig->core.source);
    graveyard_t yard;
    uint32_t found;

    graveyard_init(&yard);
    if (graveyard_reserve(&yard, steps < rig->count ? steps : rig->count) < 0) {
        return -1;
    }
    found = core_expire(&rig->core, steps, now_ns, &yard);
    CHECK(found == yard.count);
    rig_bury(rig, &yard, now_ns, MODEL_KEYS, NULL);
    return (long)found;
}

/* -- comparing -------------------------------------------------------------------------------------------- */

static inline uint32_t rig_overdue(const rig_t *rig, int64_t now_ns)
{
    uint32_t overdue = 0;

    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        overdue += rig->held[key].value != NULL && rig->held[key].deadline_ns <= now_ns;
    }
    return overdue;
}

/* Remove all that has expired, a few at a time; afterwards there is nothing of the kind. -1 without memory. */
static inline int rig_expire_all(rig_t *rig, uint32_t batch)
{
    int64_t now_ns = clock_now(&rig->core.source);
    graveyard_t yard;
    int more;

    do {
        graveyard_init(&yard);
        if (graveyard_reserve(&yard, batch) < 0) {
            return -1;
        }
        more = core_expire_all(&rig->core, batch, now_ns, &yard);
        rig_bury(rig, &yard, now_ns, MODEL_KEYS, NULL);
    } while (more > 0);
    if (more == 0) {
        CHECK(rig_overdue(rig, now_ns) == 0);
    }
    return more;
}

/* Both hold the same, and the core finds nothing wrong with itself. */
static inline void rig_whole(rig_t *rig)
{
    WHOLE(core_check(&rig->core));
    CHECK(rig->core.table.count == rig->count && rig->core.table.bytes == rig->bytes);
    CHECK(rig->core.quota != &rig->own || rig->own.taken == rig->count);
}

/* All entries come one after the other, each once: least recently used first, or by ref under a policy without an order. */
static inline void rig_walk(rig_t *rig)
{
    order_t *order = &rig->core.order;
    uint64_t before = 0;
    uint32_t seen = 0;

    core_settle(&rig->core);
    for (uint32_t ref = order_first(order); ref != 0; ref = order_following(order, ref)) {
        uint64_t place = ref;
        CHECK(rig->core.table.slab[ref].key != NULL);
        if (!rig_is_adaptive(rig)) {
            place = rig->held[number_of(rig->core.table.slab[ref].key)].used;
        }
        CHECK(place > before);
        before = place;
        seen++;
    }
    CHECK(seen == rig->count);
}

/* Every key is found or not found as it ought to be, and the order is the model's from end to end. */
static inline void rig_compare(rig_t *rig)
{
    rig_whole(rig);
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        uint32_t ref = rig_find(rig, key);
        CHECK((ref != 0) == (rig->held[key].value != NULL));
        CHECK(ref == 0 || rig->core.table.slab[ref].value == rig->held[key].value);
        CHECK(ref == 0 || rig->core.table.slab[ref].deadline_ns == rig->held[key].deadline_ns);
    }
    rig_walk(rig);
}

#endif
