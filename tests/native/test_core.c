/* Tests of core.h, graveyard.h, clock.h and memory.h: bounds, expiry, growing and shrinking, quota; against the model. */

#include "model.h"

static rig_t rig;

static void begin(uint64_t limit)
{
    CHECK(rig_init(&rig, NULL, limit, 0) == 0);
}

static void end(void)
{
    rig_free(&rig);
    CHECK(alloc_live == 0);
}

static void advance(int64_t ns)
{
    rig.core.source.fixed_ns += ns;
}

/* -- bounds ----------------------------------------------------------------------------------------------- */

static void test_eviction_takes_the_next_and_keeps_the_bounds(void)
{
    begin(10);
    rig.core.max_bytes = 100;
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        CHECK(rig_store(&rig, key, random_below(40), CLOCK_NEVER_NS) == STORED_NEW);
        CHECK(rig.count <= 10 && rig.bytes <= 100);
        (void)rig_hit(&rig, key - random_below(key + 1));
        rig_compare(&rig);
    }
    CHECK(rig.core.counters.evictions == MODEL_KEYS - rig.count);
    CHECK(rig_store(&rig, MODEL_KEYS - 1, 100, CLOCK_NEVER_NS) == STORED_OVER); /* over itself: all others go */
    CHECK(rig.count == 1 && rig.bytes == 100);
    CHECK(core_fits(&rig.core, 100) && !core_fits(&rig.core, 101));
    end();
}

/* For another core's sake, too: the hits noted before have their say, and what makes room is evicted, though its time is over. */
static void test_eviction_for_another_core_takes_the_next(void)
{
    begin(UINT64_MAX);
    for (uint32_t key = 0; key < 3; key++) {
        CHECK(rig_store(&rig, key, 1, 2000) == STORED_NEW);
    }
    CHECK(rig_hit(&rig, 0));
    advance(1000);
    rig.core.listener = &rig;
    rig_evict(&rig);
    CHECK(rig_find(&rig, 0) != 0 && rig_find(&rig, 1) == 0);
    CHECK(rig.core.counters.evictions == 1 && rig.core.counters.expirations == 0);
    rig_compare(&rig);
    end();
}

static void test_core_of_no_entries_fits_nothing(void)
{
    begin(0);
    CHECK(!core_fits(&rig.core, 0));
    end();
}

static void test_cores_that_share_a_quota_never_exceed_it(void)
{
    static rig_t others[2];
    quota_t quota = {.limit = 50, .cores = 2};
    uint32_t full = 0;

    CHECK(rig_init(&others[0], &quota, 0, 0) == 0 && rig_init(&others[1], &quota, 0, 2) == 0);
    for (uint32_t step = 0; step < 3000; step++) {
        uint32_t which = step / 200 % 2;
        uint32_t key = random_below(MODEL_KEYS);
        while (rig_store(&others[which], key, 1, CLOCK_NEVER_NS) == STORE_FULL) {
            CHECK(others[which].count == 0 && quota.taken == 50);
            rig_evict(&others[1 - which]);
            full++;
        }
        CHECK(quota.taken == others[0].count + others[1].count && quota.taken <= 50);
        if (step % 500 == 450) { /* one gives all it has */
            rig_detach(&others[which]);
        }
    }
    CHECK(full != 0);
    rig_free(&others[0]);
    rig_free(&others[1]);
    CHECK(quota.taken == 0 && alloc_live == 0);
}

/* -- time ------------------------------------------------------------------------------------------------- */

static void test_expire_all_takes_all_of_it_and_nothing_else(void)
{
    begin(UINT64_MAX);
    for (int round = 0; round < 300; round++) {
        for (int i = 0; i < 20; i++) {
            (void)rig_store(&rig, random_below(MODEL_KEYS), 1, clock_deadline(clock_now(&rig.core.source), random_span(50)));
        }
        advance(random_span(50));
        CHECK(rig_expire_all(&rig, 1 + random_below(20)) == 0);
        rig_compare(&rig);
    }
    end();
}

static void test_dead_do_not_pile_up_while_there_are_stores(void)
{
    begin(UINT64_MAX);
    for (uint32_t key = 0; key < 300; key++) {
        CHECK(rig_store(&rig, key, 1, clock_now(&rig.core.source) + 1000 + (int64_t)key) == STORED_NEW);
    }
    advance(1000000000);
    for (uint32_t i = 0; i < 120 + 300 * 2 / 3; i++) { /* dealt out to lower levels and found: three a store */
        (void)rig_store(&rig, 301, 1, CLOCK_NEVER_NS);
    }
    CHECK(rig.count == 1 && rig.core.counters.expirations == 300);
    end();
}

static void test_tend_buries_no_more_than_there_is_room_for(void)
{
    begin(UINT64_MAX);
    for (uint32_t key = 0; key < 100; key++) {
        CHECK(rig_store(&rig, key, 1, 2000) == STORED_NEW);
    }
    advance(5000);
    for (uint32_t left = 100; left > 0;) {
        rig_tend(&rig);
        CHECK(left - rig.count <= EXPIRE_PER_TEND);
        left = rig.count;
    }
    CHECK(EXPIRE_PER_TEND < GRAVEYARD_LOCAL); /* the reader may have found one itself */
    end();
}

static void test_validity_needs_deadline_stamp_and_fence(void)
{
    lane_t *lane;
    entry_t *entry;

    begin(UINT64_MAX);
    CHECK(rig_store(&rig, 0, 1, 2000) == STORED_NEW);
    lane = &rig.core.lanes->lane[0];
    entry = &rig.core.table.slab[1];
    lane_vouch(lane, 3000);
    CHECK(core_is_valid(&rig.core, entry, 1999) && !core_is_valid(&rig.core, entry, 2000));
    CHECK(rig_reschedule(&rig, 0, CLOCK_NEVER_NS) == 0);
    CHECK(core_is_valid(&rig.core, entry, 2999) && !core_is_valid(&rig.core, entry, 3000));
    lane_suspect(lane);
    CHECK(!core_is_valid(&rig.core, entry, 1999));
    end();
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
    source_t source = {0, 0};
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

/* -- growing and shrinking -------------------------------------------------------------------------------- */

/* Fill up, empty to `left`, and go on with a few keys: the table becomes small again, and all stays right meanwhile. */
static void test_core_that_empties_gives_memory_back(uint32_t left, int by_tending)
{
    size_t full;
    uint32_t capacity;

    begin(UINT64_MAX);
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        CHECK(rig_store(&rig, key, 1, clock_deadline(1000, (int64_t)(key % 3) << 40)) == STORED_NEW);
    }
    full = core_memory(&rig.core);
    capacity = rig.core.table.capacity;
    while (rig.count > left) {
        rig_remove(&rig, random_below(MODEL_KEYS));
    }
    for (uint32_t step = 0; step < 200; step++) {
        if (by_tending) {
            rig_tend(&rig);
        } else {
            (void)rig_store(&rig, step % 2, 1, CLOCK_NEVER_NS);
        }
        (void)rig_hit(&rig, random_below(MODEL_KEYS));
        rig_compare(&rig);
    }
    CHECK(rig.core.table.capacity == SHRINK_CAPACITY && capacity >= 8 * SHRINK_CAPACITY);
    table_migrate(&rig.core.table, UINT32_MAX);
    CHECK(core_memory(&rig.core) < full / 6); /* each of the arrays is an eighth of what it was */
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        (void)rig_store(&rig, key, 2, CLOCK_NEVER_NS);
    }
    rig_compare(&rig);
    end();
}

/* Whoever goes on as long as there is more ends in fewer turns than an eighth of the entries there was room for. */
static void test_core_that_empties_gives_all_back_at_once(void)
{
    uint32_t turns = 1;
    uint32_t capacity;

    begin(UINT64_MAX);
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        CHECK(rig_store(&rig, key, 1, clock_deadline(1000, (int64_t)(key % 3) << 40)) == STORED_NEW);
    }
    capacity = rig.core.table.capacity;
    while (rig.count > SHRINK_CAPACITY / 4) {
        rig_remove(&rig, random_below(MODEL_KEYS));
    }
    while (core_give_back(&rig.core)) {
        turns++;
    }
    CHECK(turns > 1 && turns < capacity / 8 + 64);
    CHECK(rig.core.table.capacity == SHRINK_CAPACITY);
    rig_compare(&rig);
    end();
}

/* A shrinking that is overtaken by new entries is given up, and begins anew later. */
static void test_shrinking_interrupted_by_growth_loses_nothing(void)
{
    begin(UINT64_MAX);
    for (int round = 0; round < 40; round++) {
        uint32_t most = round % 2 == 0 ? MODEL_KEYS : 40 + random_below(100);
        while (rig.count < most - 8) {
            (void)rig_store(&rig, random_below(MODEL_KEYS), 1, clock_deadline(1000, random_span(50)));
        }
        while (rig.count > 20 + random_below(100)) {
            rig_remove(&rig, random_below(MODEL_KEYS));
        }
        for (uint32_t i = random_below(20); i > 0; i--) {
            rig_tend(&rig);
            (void)rig_hit(&rig, random_below(MODEL_KEYS));
        }
        rig_compare(&rig);
    }
    end();
}

static void test_capacity_of_no_power_of_two_shrinks_to_one(void)
{
    begin(300);
    for (uint32_t key = 0; key < 300; key++) {
        (void)rig_store(&rig, key, 1, CLOCK_NEVER_NS);
    }
    CHECK(rig.core.table.capacity == 300);
    while (rig.count > 60) {
        rig_evict(&rig);
    }
    for (uint32_t i = 0; i < 20; i++) {
        rig_tend(&rig);
        rig_compare(&rig);
    }
    CHECK(rig.core.table.capacity == 128);
    end();
}

/* -- the graveyard, and memory itself --------------------------------------------------------------------- */

static void test_graveyard_keeps_order_and_cause_however_large(void)
{
    graveyard_t yard;

    graveyard_init(&yard);
    for (uint32_t i = 0; i < 1000; i++) {
        CHECK(graveyard_reserve(&yard, 1) == 0);
        graveyard_add(&yard, key_of(i), key_of(i + 1), (cause_t)(i % 5));
    }
    for (uint32_t i = 0; i < 1000; i++) {
        CHECK(yard.graves[i].key == key_of(i) && yard.graves[i].value == key_of(i + 1));
        CHECK(yard.graves[i].cause == (cause_t)(i % 5));
    }
    graveyard_free(&yard);
    CHECK(yard.count == 0 && yard.capacity == GRAVEYARD_LOCAL && yard.graves == yard.local && alloc_live == 0);
}

static void test_memory_keeps_its_contents_in_every_size(void)
{
    void *block = NULL;
    size_t bytes = 0;

    for (int step = 0; step < 500; step++) {
        size_t before = bytes;
        size_t wanted = 1 + random_below(step % 3 == 0 ? 200 : 60000);
        CHECK(memory_fit(&block, &bytes, wanted) == 0 && bytes == wanted && memory_round(wanted) >= wanted);
        for (size_t i = 0; i < before && i < wanted; i++) {
            CHECK(((uint8_t *)block)[i] == (uint8_t)(i * 7));
        }
        for (size_t i = 0; i < wanted; i++) {
            ((uint8_t *)block)[i] = (uint8_t)(i * 7);
        }
    }
    memory_free(block, bytes);
    memory_free(NULL, 100);
    CHECK(alloc_live == 0);
}

/* What just fits below the threshold takes as much as the first block above it, and is yet of the other kind. */
static void test_memory_across_the_threshold_of_mapping_keeps_its_kind(void)
{
    static const size_t around[] = {MEMORY_MAPPED, MEMORY_MAPPED - 32, MEMORY_MAPPED + 1, MEMORY_MAPPED - 1, MEMORY_MAPPED};

    for (size_t first = 0; first < 5; first++) {
        for (size_t second = 0; second < 5; second++) {
            void *block = NULL;
            size_t bytes = 0;
            CHECK(memory_fit(&block, &bytes, around[first]) == 0);
            memset(block, 1, bytes);
            CHECK(memory_fit(&block, &bytes, around[second]) == 0 && bytes == around[second]);
            memset(block, 2, bytes);
            memory_free(block, bytes);
        }
    }
    CHECK(alloc_live == 0);
}

static void test_new_memory_is_zero_and_on_its_own_line(void)
{
    for (size_t bytes = 1; bytes < 100000; bytes = bytes * 3 / 2 + 1) {
        uint8_t *block = memory_new(bytes);
        CHECK(block != NULL && (uintptr_t)block % MEMORY_LINE == 0);
        for (size_t i = 0; i < bytes; i++) {
            CHECK(block[i] == 0);
        }
        memset(block, 255, bytes);
        memory_free(block, bytes);
        block = memory_new_sparse(bytes);
        CHECK(block != NULL && (uintptr_t)block % MEMORY_LINE == 0);
        for (size_t i = 0; i < bytes; i++) {
            CHECK(block[i] == 0);
        }
        memset(block, 255, bytes);
        memory_free_sparse(block, bytes);
    }
    memory_free_sparse(NULL, MEMORY_SPARSE);
    CHECK(alloc_live == 0);
}

int main(void)
{
    test_eviction_takes_the_next_and_keeps_the_bounds();
    test_eviction_for_another_core_takes_the_next();
    test_core_of_no_entries_fits_nothing();
    test_cores_that_share_a_quota_never_exceed_it();
    test_expire_all_takes_all_of_it_and_nothing_else();
    test_dead_do_not_pile_up_while_there_are_stores();
    test_tend_buries_no_more_than_there_is_room_for();
    test_validity_needs_deadline_stamp_and_fence();
    test_deadline_saturates();
    test_system_clock_advances_and_agrees_with_the_precise_one();
    test_core_that_empties_gives_memory_back(30, 0);
    test_core_that_empties_gives_memory_back(30, 1);
    test_core_that_empties_gives_memory_back(0, 1);
    test_core_that_empties_gives_all_back_at_once();
    test_shrinking_interrupted_by_growth_loses_nothing();
    test_capacity_of_no_power_of_two_shrinks_to_one();
    test_graveyard_keeps_order_and_cause_however_large();
    test_memory_keeps_its_contents_in_every_size();
    test_memory_across_the_threshold_of_mapping_keeps_its_kind();
    test_new_memory_is_zero_and_on_its_own_line();
    return check_done("test_core");
}
