/* Tests of core.h under either policy: bounds in bytes, shrinking, a shared quota, and the short way to overwrite. */

#include "model.h"

static rig_t rig;

static void begin(rig_t *made, uint64_t limit, int is_adaptive)
{
    CHECK(rig_init(made, NULL, limit, 0) == 0);
    CHECK(!is_adaptive || rig_adapt(made, 5) == 0);
}

static void end(rig_t *made)
{
    rig_free(made);
}

/* Overwritten with larger and larger values, and read in between. */
static void test_bytes_stay_within_bounds_whatever_grows(int is_adaptive)
{
    begin(&rig, UINT64_MAX, is_adaptive);
    rig.core.max_bytes = 5000;
    for (uint32_t step = 0; step < 20000; step++) {
        uint32_t key = random_below(MODEL_KEYS);
        if (rig_hit(&rig, key) && random_below(3) != 0) {
            (void)rig_store(&rig, key, rig.held[key].size + random_below(60), CLOCK_NEVER_NS);
        } else {
            CHECK(rig_store(&rig, key, random_below(step % 1000 == 0 ? 5001 : 100), CLOCK_NEVER_NS) >= 0);
        }
        CHECK(rig.bytes <= 5000);
        if (step % 10 == 0) {
            rig_whole(&rig);
        }
    }
    rig_compare(&rig);
    CHECK(rig.core.counters.evictions > 1000);
    CHECK(rig_store(&rig, 0, 5000, CLOCK_NEVER_NS) >= 0 && rig.count == 1);
    end(&rig);
}

static void test_growing_and_shrinking_lose_nothing(int is_adaptive, uint64_t limit)
{
    begin(&rig, limit, is_adaptive);
    for (int round = 0; round < 60; round++) {
        uint32_t most = round % 2 == 0 ? 300 : 40 + random_below(100);
        while (rig.count < most - 8) {
            uint32_t key = random_below(MODEL_KEYS);
            (void)rig_store(&rig, key, 1, clock_deadline(1000, random_span(50)));
            (void)rig_hit(&rig, key - random_below(key + 1));
        }
        while (rig.count > 20 + random_below(100)) {
            if (random_below(2) == 0) {
                rig_remove(&rig, random_below(MODEL_KEYS));
            } else {
                rig_evict(&rig);
            }
        }
        for (uint32_t i = random_below(20); i > 0; i--) {
            rig_tend(&rig);
            (void)rig_hit(&rig, random_below(MODEL_KEYS));
            rig_compare(&rig);
        }
        if (round % 20 == 19) {
            rig_detach(&rig);
            rig_compare(&rig);
        }
    }
    end(&rig);
}

static void test_memory_of_an_emptied_core_is_given_back(int is_adaptive)
{
    size_t full;

    begin(&rig, UINT64_MAX, is_adaptive);
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        CHECK(rig_store(&rig, key, 0, CLOCK_NEVER_NS) == STORED_NEW);
    }
    full = is_adaptive ? rig.core.order.adaptive->history_bytes : rig.core.order.links_bytes;
    while (rig.count > 10) {
        rig_evict(&rig);
    }
    for (uint32_t i = 0; i < 100; i++) {
        rig_tend(&rig);
        rig_compare(&rig);
    }
    CHECK(rig.core.table.capacity == SHRINK_CAPACITY);
    CHECK((is_adaptive ? rig.core.order.adaptive->history_bytes : rig.core.order.links_bytes) < full / 7);
    end(&rig);
}

/* More cores than entries, fewer, and one of them emptied now and then. */
static void test_shared_quota_of_any_size_is_kept(int is_adaptive, uint64_t limit)
{
    static rig_t cores[3];
    quota_t quota = {.limit = limit, .cores = 3};

    for (uint32_t i = 0; i < 3; i++) {
        CHECK(rig_init(&cores[i], &quota, 0, 0) == 0);
        CHECK(!is_adaptive || rig_adapt(&cores[i], i) == 0);
    }
    for (uint32_t step = 0; step < 5000; step++) {
        uint32_t which = random_below(3);
        uint32_t key = random_below(MODEL_KEYS);
        for (uint32_t i = 1; rig_store(&cores[which], key, 1, CLOCK_NEVER_NS) == STORE_FULL; i++) {
            CHECK(cores[which].count == 0 && quota.taken == limit);
            rig_evict(&cores[(which + i) % 3]);
        }
        (void)rig_hit(&cores[which], random_below(MODEL_KEYS));
        CHECK(quota.taken == cores[0].count + cores[1].count + cores[2].count && quota.taken <= limit);
        if (step % 500 == 450) {
            rig_detach(&cores[which]);
        }
    }
    for (uint32_t i = 0; i < 3; i++) {
        rig_compare(&cores[i]);
        rig_free(&cores[i]);
    }
    CHECK(quota.taken == 0);
}

/* -- the short way ---------------------------------------------------------------------------------------- */

/* Both hold the same, in the same places, and have counted the same. */
static void compare_rigs(rig_t *a, rig_t *b)
{
    core_settle(&a->core);
    core_settle(&b->core);
    CHECK(memcmp(&a->core.counters, &b->core.counters, sizeof(counters_t)) == 0);
    CHECK(a->core.table.bytes == b->core.table.bytes && a->core.table.count == b->core.table.count);
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        uint32_t ref = rig_find(a, key);
        const entry_t *one = &a->core.table.slab[ref];
        const entry_t *other = &b->core.table.slab[ref];
        CHECK(rig_find(b, key) == ref);
        if (ref != 0) {
            CHECK(one->value == other->value && one->deadline_ns == other->deadline_ns && one->stamp == other->stamp);
            CHECK(one->lane == other->lane && one->flags == other->flags);
            CHECK(a->core.table.details[ref].wid == b->core.table.details[ref].wid);
            CHECK(a->core.table.details[ref].weight == b->core.table.details[ref].weight);
        }
    }
    rig_compare(a);
    rig_compare(b);
}

/* What a full store does is told apart by nothing but the way it takes. */
static void test_overwriting_the_short_way_equals_a_store(int is_adaptive)
{
    static rig_t other;
    uint32_t short_ways = 0;

    begin(&rig, 60, is_adaptive);
    begin(&other, 60, is_adaptive);
    for (uint32_t step = 0; step < 30000; step++) {
        uint32_t key = random_below(1 + random_below(150));
        int64_t now_ns = rig.core.source.fixed_ns;
        int64_t deadline_ns = random_below(10) != 0 ? CLOCK_NEVER_NS : now_ns + random_span(40);
        switch (random_below(4)) {
        case 0:
            CHECK(rig_hit(&rig, key) == rig_hit(&other, key));
            break;
        case 1:
            now_ns += random_span(22);
            rig.core.source.fixed_ns = now_ns;
            other.core.source.fixed_ns = now_ns;
            CHECK(rig_store(&rig, key, 7, deadline_ns) == rig_store(&other, key, 7, deadline_ns));
            break;
        default:
            short_ways += (uint32_t)rig_overwrite(&rig, key, deadline_ns);
            if (rig.values == other.values) {
                (void)rig_store(&rig, key, 0, deadline_ns);
            }
            (void)rig_store(&other, key, 0, deadline_ns);
        }
        if (step % 20 == 0) {
            compare_rigs(&rig, &other);
        }
    }
    CHECK(short_ways > 1000);
    end(&rig);
    end(&other);
}

/* Each condition of the short way, alone. */
static void test_short_way_is_closed_where_more_would_have_to_change(int is_adaptive)
{
    begin(&rig, 60, is_adaptive);
    (void)rig_store(&rig, 0, 0, CLOCK_NEVER_NS);
    (void)rig_store(&rig, 1, 0, 5000000);
    (void)rig_store(&rig, 2, 7, CLOCK_NEVER_NS);
    CHECK(rig_overwrite(&rig, 0, CLOCK_NEVER_NS) && rig_overwrite(&rig, 1, 5000001));
    CHECK(!rig_overwrite(&rig, 0, 5000000));        /* comes earlier */
    CHECK(!rig_overwrite(&rig, 1, 5000000));
    CHECK(!rig_overwrite(&rig, 1, CLOCK_NEVER_NS)); /* leaves the wheel */
    CHECK(!rig_overwrite(&rig, 2, CLOCK_NEVER_NS)); /* had a size */
    CHECK(!rig_overwrite(&rig, 3, CLOCK_NEVER_NS)); /* is not there */
    while (!order_is_full(&rig.core.order)) {
        CHECK(rig_overwrite(&rig, 0, CLOCK_NEVER_NS));
    }
    CHECK(!rig_overwrite(&rig, 0, CLOCK_NEVER_NS)); /* no room for a note */
    core_settle(&rig.core);
    CHECK(rig.core.counters.hits == 0 && rig.core.counters.stored == 5 + ORDER_RING - 2);
    rig.core.source.fixed_ns = 6000000;
    CHECK(!rig_overwrite(&rig, 0, CLOCK_NEVER_NS)); /* something may have expired */
    rig_compare(&rig);
    end(&rig);
}

/* Those who only overwrite make the table small again too. */
static void test_overwriting_while_the_table_is_sparse_shrinks_it(int is_adaptive)
{
    begin(&rig, UINT64_MAX, is_adaptive);
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        CHECK(rig_put(&rig, key, CLOCK_NEVER_NS) == STORED_NEW);
    }
    while (rig.count > 10) {
        rig_remove(&rig, random_below(MODEL_KEYS - 1));
    }
    for (uint32_t i = 0; i < 200; i++) {
        CHECK(rig_put(&rig, MODEL_KEYS - 1, CLOCK_NEVER_NS) == STORED_OVER);
    }
    rig_compare(&rig);
    CHECK(rig.core.table.capacity == SHRINK_CAPACITY);
    CHECK(rig_overwrite(&rig, MODEL_KEYS - 1, CLOCK_NEVER_NS));
    end(&rig);
}

/* And bring what is left in the old index over after it has grown. Too few for their notes to be in the way of the short one. */
static void test_overwriting_after_the_table_has_grown_empties_its_old_index(int is_adaptive)
{
    uint32_t key = 0;

    begin(&rig, UINT64_MAX, is_adaptive);
    while (rig.core.table.capacity < 128 || rig.core.table.old.slots == NULL) {
        CHECK(rig_put(&rig, key++, CLOCK_NEVER_NS) == STORED_NEW);
    }
    core_settle(&rig.core);
    CHECK(!rig_overwrite(&rig, 0, CLOCK_NEVER_NS));
    for (uint32_t i = 0; i < ORDER_RING / 2; i++) {
        CHECK(rig_put(&rig, i % 3, CLOCK_NEVER_NS) == STORED_OVER);
    }
    CHECK(rig.core.table.old.slots == NULL);
    CHECK(rig_overwrite(&rig, 0, CLOCK_NEVER_NS));
    rig_compare(&rig);
    end(&rig);
}

int main(void)
{
    for (int is_adaptive = 0; is_adaptive < 2; is_adaptive++) {
        test_bytes_stay_within_bounds_whatever_grows(is_adaptive);
        test_growing_and_shrinking_lose_nothing(is_adaptive, UINT64_MAX);
        test_growing_and_shrinking_lose_nothing(is_adaptive, 300);
        test_memory_of_an_emptied_core_is_given_back(is_adaptive);
        test_shared_quota_of_any_size_is_kept(is_adaptive, 50);
        test_shared_quota_of_any_size_is_kept(is_adaptive, 2);
        test_overwriting_the_short_way_equals_a_store(is_adaptive);
        test_short_way_is_closed_where_more_would_have_to_change(is_adaptive);
        test_overwriting_while_the_table_is_sparse_shrinks_it(is_adaptive);
        test_overwriting_after_the_table_has_grown_empties_its_old_index(is_adaptive);
    }
    return check_done("test_policies");
}
