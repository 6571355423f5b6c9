/* Tests of the C core without Python: the table against a plain model, every failing allocation, the rules for
 * pending operations. Build and run with tests/native/run.sh. */

#include <stdio.h>
#include <stdlib.h>

static long alloc_countdown = -1; /* how many more allocations succeed; -1: all */
static long alloc_live = 0;       /* blocks not freed yet */

static void *test_alloc(size_t align, size_t size)
{
    if (alloc_countdown == 0) {
        return NULL;
    }
    alloc_countdown -= alloc_countdown > 0;
    alloc_live++;
    return aligned_alloc(align, size);
}

static void test_free(void *memory)
{
    if (memory != NULL) {
        alloc_live--;
        free(memory);
    }
}

#define NEARCACHE_ALLOC(align, size) test_alloc((align), (size))
#define NEARCACHE_FREE(memory) test_free(memory)
#define NEARCACHE_ASSERT 1
#include "nearcache/core.h"

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

#define WHOLE(check)                                                                    \
    do {                                                                                \
        const char *wrong = (check);                                                    \
        if (wrong != NULL) {                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, wrong);    \
            abort();                                                                    \
        }                                                                               \
    } while (0)

enum { KEYS = 400 };

static char key_bytes[KEYS]; /* the address of key_bytes[i] is key i */
static char value_bytes[KEYS];

static uint64_t random_state = 88172645463325252u;

static uint32_t random_below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state >> 11) % bound);
}

/* Three kinds of hashes: all distinct, many equal, and such that differ in the high bits only. */
static int64_t hash_of(int kind, uint32_t key)
{
    if (kind == 0) {
        return (int64_t)key;
    }
    return kind == 1 ? (int64_t)(key % 5) : (int64_t)((uint64_t)key << 48);
}

static uint32_t table_find(const table_t *t, void *key, int64_t hash)
{
    uint32_t tag = table_tag(t, hash);
    uint32_t position = tag;
    uint32_t ref;

    while ((ref = table_next(t, tag, &position)) != 0) {
        if (t->slab[ref].key == key) {
            return ref;
        }
    }
    return 0;
}

/* -- the table ---------------------------------------------------------------------------------------------- */

static void test_empty_table_is_valid_and_finds_nothing(void)
{
    table_t t, out;

    table_init(&t, 1, 2);
    WHOLE(table_check(&t));
    CHECK(table_find(&t, key_bytes, 7) == 0);
    CHECK(table_oldest(&t) == 0);
    CHECK(table_memory(&t) == 0);
    table_detach(&t, &out);
    WHOLE(table_check(&t));
    table_free_memory(&out);
    table_free_memory(&t);
}

static void compare_with_model(const table_t *t, int kind, const uint32_t *order, uint32_t count)
{
    uint32_t ref = table_oldest(t);

    CHECK(t->count == count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(ref != 0 && t->slab[ref].key == &key_bytes[order[i]]);
        CHECK(t->slab[ref].value == &value_bytes[order[i]]);
        CHECK(table_find(t, &key_bytes[order[i]], hash_of(kind, order[i])) == ref);
        ref = table_newer(t, ref);
    }
    CHECK(ref == 0);
}

static void model_remove(uint32_t *order, uint32_t *count, uint32_t key)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < *count; i++) {
        if (order[i] != key) {
            order[kept++] = order[i];
        }
    }
    *count = kept;
}

static void test_random_operations_equal_the_model(int kind)
{
    table_t t;
    uint32_t order[KEYS];
    uint32_t count = 0;

    table_init(&t, 0x9e3779b97f4a7c15u * (uint64_t)(kind + 1), 0xd1342543de82ef95u);
    for (int step = 0; step < 20000; step++) {
        uint32_t key = random_below(KEYS);
        uint32_t ref = table_find(&t, &key_bytes[key], hash_of(kind, key));
        if (ref == 0) {
            CHECK(table_reserve(&t, KEYS) == 0);
            ref = table_insert(&t, &key_bytes[key], &value_bytes[key], hash_of(kind, key));
            table_resize(&t, ref, key);
        } else if (random_below(2) == 0) {
            table_touch(&t, ref);
            model_remove(order, &count, key);
        } else {
            table_remove(&t, ref);
            model_remove(order, &count, key);
            continue;
        }
        order[count++] = key;
        if (step % 50 == 0) {
            WHOLE(table_check(&t));
            compare_with_model(&t, kind, order, count);
        }
    }
    WHOLE(table_check(&t));
    compare_with_model(&t, kind, order, count);
    while (t.count != 0) {
        table_remove(&t, table_oldest(&t));
        WHOLE(table_check(&t));
    }
    CHECK(t.bytes == 0);
    table_free_memory(&t);
}

static void test_slab_never_grows_past_its_limit(void)
{
    table_t t;

    table_init(&t, 3, 4);
    for (uint32_t i = 0; i < 100; i++) {
        CHECK(table_reserve(&t, 100) == 0);
        table_insert(&t, &key_bytes[i], &value_bytes[i], (int64_t)i);
    }
    CHECK(t.capacity == 100);
    CHECK(table_reserve(&t, 100) == -1);
    WHOLE(table_check(&t));
    table_remove(&t, 50);
    CHECK(table_reserve(&t, 100) == 0);
    CHECK(table_insert(&t, &key_bytes[50], &value_bytes[50], 50) == 50);
    table_free_memory(&t);
}

static void test_detach_moves_everything_and_the_version_on(void)
{
    table_t t, out;
    uint64_t version;

    table_init(&t, 3, 4);
    CHECK(table_reserve(&t, 10) == 0);
    table_insert(&t, &key_bytes[0], &value_bytes[0], 1);
    version = t.version;
    table_detach(&t, &out);
    CHECK(t.count == 0 && t.version > version && out.count == 1);
    WHOLE(table_check(&t));
    WHOLE(table_check(&out));
    CHECK(table_find(&t, &key_bytes[0], 1) == 0);
    table_free_memory(&out);
    table_free_memory(&t);
}

static void test_sequential_and_high_bit_hashes_spread(void)
{
    table_t t;
    uint32_t longest = 0;

    table_init(&t, 0x243f6a8885a308d3u, 0x13198a2e03707344u);
    for (int kind = 0; kind <= 2; kind += 2) {
        for (uint32_t i = 0; i < KEYS; i++) {
            CHECK(table_reserve(&t, 2 * KEYS) == 0);
            table_insert(&t, &key_bytes[i], &value_bytes[i], hash_of(kind, i) + kind);
        }
    }
    for (uint32_t i = 0, run = 0; i <= t.mask; i++) {
        run = t.slots[i].ref != 0 ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    CHECK(longest < 64);
    table_free_memory(&t);
}

static void test_tag_depends_on_the_secret(void)
{
    table_t one, other;
    int equal = 0;

    table_init(&one, 1, 3);
    table_init(&other, 2, 5);
    for (int64_t hash = 0; hash < 1000; hash++) {
        equal += table_tag(&one, hash) == table_tag(&other, hash);
    }
    CHECK(equal < 5);
}

/* -- failing allocations ------------------------------------------------------------------------------------ */

static core_t new_core(uint32_t lanes)
{
    const uint64_t seed[2] = {11, 13};
    core_t core;

    CHECK(core_init(&core, lanes, seed) == 0);
    core.source.fixed_ns = 1000;
    for (uint32_t i = 0; i < lanes; i++) {
        core.lanes->lane[i] = (lane_t){CLOCK_NEVER_NS, 7, 0};
    }
    return core;
}

static void free_core(core_t *core)
{
    table_free_memory(&core->table);
    table_free_memory(&core->pending);
    lanes_release(core->lanes);
}

static int store(core_t *core, uint32_t key, uint64_t size, int64_t deadline_ns)
{
    item_t item = {1, deadline_ns, size, 0, 0};
    uint32_t ref = table_find(&core->table, &key_bytes[key], (int64_t)key);
    graveyard_t graves;
    int status;

    graveyard_init(&graves);
    status = core_store(core, ref, &key_bytes[key], &value_bytes[key], (int64_t)key, &item,
                        clock_now(&core->source), &graves);
    graveyard_free(&graves);
    return status;
}

/* Let the n-th allocation fail, for each n: nothing may change, and the next attempt must succeed. */
static void test_every_failing_allocation_leaves_the_store_whole(void)
{
    core_t core = new_core(1);
    long failures = 0;

    core.max_bytes = 3000;
    for (uint32_t key = 0; key < 300; key++) {
        uint64_t size = key % 50 == 49 ? 2000 : 10; /* now and then many victims, hence a large graveyard */
        for (long allowed = 0;; allowed++) {
            table_t before = core.table;
            counters_t counted = core.counters;
            alloc_countdown = allowed;
            if (store(&core, key, size, CLOCK_NEVER_NS) >= 0) {
                break;
            }
            failures++;
            CHECK(core.table.count == before.count && core.table.bytes == before.bytes);
            CHECK(core.table.version == before.version);
            CHECK(memcmp(&core.counters, &counted, sizeof counted) == 0);
            WHOLE(core_check(&core));
        }
        alloc_countdown = -1;
        WHOLE(core_check(&core));
        CHECK(table_find(&core.table, &key_bytes[key], (int64_t)key) != 0);
    }
    CHECK(failures > 20);
    free_core(&core);
}

static void test_init_without_memory_fails(void)
{
    const uint64_t seed[2] = {1, 2};
    core_t core;

    alloc_countdown = 0;
    CHECK(core_init(&core, 5, seed) == -1);
    alloc_countdown = -1;
    free_core(&core);
}

/* -- the store ---------------------------------------------------------------------------------------------- */

static void test_eviction_takes_the_oldest_and_keeps_the_bounds(void)
{
    core_t core = new_core(1);

    core.max_entries = 10;
    core.max_bytes = 100;
    for (uint32_t key = 0; key < KEYS; key++) {
        CHECK(store(&core, key, random_below(40), CLOCK_NEVER_NS) == 1);
        CHECK(core.table.count <= 10 && core.table.bytes <= 100);
        CHECK(core.table.slab[core.table.links[0].next].key == &key_bytes[key]);
        WHOLE(core_check(&core));
    }
    CHECK(core.counters.evictions == KEYS - core.table.count);
    CHECK(store(&core, KEYS - 1, 100, CLOCK_NEVER_NS) == 0); /* over itself: all others go */
    CHECK(core.table.count == 1 && core.table.bytes == 100);
    free_core(&core);
}

static void test_sweep_finds_all_that_expired_in_one_round(void)
{
    core_t core = new_core(1);
    graveyard_t graves;

    for (uint32_t key = 0; key < 100; key++) {
        CHECK(store(&core, key, 1, key % 3 == 0 ? 2000 : CLOCK_NEVER_NS) == 1);
    }
    graveyard_init(&graves);
    CHECK(graveyard_reserve(&graves, 100) == 0);
    CHECK(core_sweep(&core, 100, 1999, &graves) == 0);
    CHECK(core_sweep(&core, 100, 2000, &graves) == 34);
    CHECK(graves.count == 34 && core.table.count == 66);
    WHOLE(core_check(&core));
    graveyard_free(&graves);
    free_core(&core);
}

static void test_validity_needs_deadline_stamp_and_fence(void)
{
    core_t core = new_core(1);
    entry_t *entry;

    CHECK(store(&core, 0, 1, 2000) == 1);
    entry = &core.table.slab[1];
    core.lanes->lane[0].fresh_until_ns = 3000;
    CHECK(core_is_valid(&core, entry, 1999) && !core_is_valid(&core, entry, 2000));
    entry->deadline_ns = CLOCK_NEVER_NS;
    CHECK(core_is_valid(&core, entry, 2999) && !core_is_valid(&core, entry, 3000));
    core.lanes->lane[0].stamp++;
    CHECK(!core_is_valid(&core, entry, 1999));
    free_core(&core);
}

static void test_deadline_saturates(void)
{
    CHECK(clock_deadline(1000, 0) == CLOCK_NEVER_NS);
    CHECK(clock_deadline(1000, 5) == 1005);
    CHECK(clock_deadline(1000, CLOCK_NEVER_NS) == CLOCK_NEVER_NS);
    CHECK(clock_deadline(1000, CLOCK_NEVER_NS - 1000) == CLOCK_NEVER_NS);
}

static void test_system_clock_advances_and_agrees_with_the_precise_one(void)
{
    source_t source = {CLOCK_REAL};
    struct timespec precise;
    int64_t before, now;

    for (int shortened = 0; shortened < 2; shortened++) {
        clock_gettime(CLOCK_MONOTONIC, &precise);
        before = (int64_t)precise.tv_sec * 1000000000 + (int64_t)precise.tv_nsec;
        now = clock_now(&source);
        CHECK(now > before - 100000000 && now < before + 10000000000);
        clock_shorten();
    }
}

/* -- operations in flight ----------------------------------------------------------------------------------- */

static void list_op(core_t *core, op_t *op, uint32_t key, int is_write, uint64_t wid)
{
    uint32_t ref = table_find(&core->pending, &key_bytes[key], (int64_t)key);

    memset(op, 0, sizeof *op);
    op->owner = op;
    op->key = &key_bytes[key];
    op->hash = (int64_t)key;
    op->is_write = (uint8_t)is_write;
    op->wid = wid;
    op->storable = 1;
    op->joinable = (uint8_t)!is_write;
    CHECK(table_reserve(&core->pending, KEYS) == 0);
    CHECK(pending_add(&core->pending, ref, op, core->lanes) == (ref == 0));
}

static void test_pending_lists_keep_together_in_any_order(void)
{
    core_t core = new_core(1);
    op_t ops[60];
    int listed[60];

    for (int round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < 60; i++) {
            list_op(&core, &ops[i], i % 7, (int)(i % 2), i);
            listed[i] = 1;
        }
        CHECK(core.pending.count == 7);
        for (int left = 60; left > 0;) {
            uint32_t i = random_below(60);
            if (listed[i]) {
                uint32_t count = core.pending.count;
                void *key = pending_remove(&core.pending, &ops[i]);
                CHECK((key != NULL) == (core.pending.count == count - 1));
                lanes_release(ops[i].lanes);
                listed[i] = 0;
                left--;
                WHOLE(core_check(&core));
            }
        }
        CHECK(core.pending.count == 0);
    }
    CHECK(core.lanes->holders == 1);
    free_core(&core);
}

static void test_poison_spares_the_write_that_is_announced(void)
{
    core_t core = new_core(1);
    op_t read, own, other;

    list_op(&core, &read, 1, 0, 0);
    list_op(&core, &own, 1, 1, 5);
    list_op(&core, &other, 1, 1, 6);
    own.announced = 1;
    pending_hear(&core.pending, own.ref, 4); /* a message before our own is older */
    CHECK(!read.storable && own.storable && !own.heard && !other.storable);
    pending_hear(&core.pending, own.ref, 5);
    CHECK(own.storable && own.heard);
    pending_poison(&core.pending, own.ref, &own);
    CHECK(own.storable && !own.overtaken);
    pending_hear(&core.pending, own.ref, 6); /* and one after it is newer */
    CHECK(!own.storable && !own.overtaken);
    pending_overtake(&core.pending, own.ref);
    CHECK(own.overtaken);
    lanes_release(read.lanes);
    lanes_release(own.lanes);
    lanes_release(other.lanes);
    free_core(&core);
}

static void test_admission_follows_stamp_and_identity(void)
{
    core_t core = new_core(1);
    op_t op;

    list_op(&core, &op, 1, 0, 0);
    CHECK(core_admits(&core, &op, 7) && !core_admits(&core, &op, 8) && !core_admits(&core, &op, 0));
    core.lanes->lane[0].stamp++;
    CHECK(!core_admits(&core, &op, 7) && !op_is_joinable(&op));
    core.lanes->lane[0].stamp--;
    core.lanes->lane[0].identity = 8;
    CHECK(!core_admits(&core, &op, 7) && !core_admits(&core, &op, 8));
    core.lanes->lane[0].identity = 7;
    pending_remove(&core.pending, &op);
    CHECK(!core_admits(&core, &op, 7));
    lanes_release(op.lanes);
    free_core(&core);
}
int main(void)
{
    test_empty_table_is_valid_and_finds_nothing();
    for (int kind = 0; kind < 3; kind++) {
        test_random_operations_equal_the_model(kind);
    }
    test_slab_never_grows_past_its_limit();
    test_detach_moves_everything_and_the_version_on();
    test_sequential_and_high_bit_hashes_spread();
    test_tag_depends_on_the_secret();
    test_every_failing_allocation_leaves_the_store_whole();
    test_init_without_memory_fails();
    test_eviction_takes_the_oldest_and_keeps_the_bounds();
    test_sweep_finds_all_that_expired_in_one_round();
    test_validity_needs_deadline_stamp_and_fence();
    test_deadline_saturates();
    test_system_clock_advances_and_agrees_with_the_precise_one();
    test_pending_lists_keep_together_in_any_order();
    test_poison_spares_the_write_that_is_announced();
    test_admission_follows_stamp_and_identity();
    CHECK(alloc_live == 0);
    puts("native tests: all passed, no block left");
    return 0;
}
