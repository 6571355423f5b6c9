/* Every allocation fails once, in turn: the operation says so or does without, nothing leaks, nothing is damaged, and when
 * there is memory again the same operation succeeds. */

#include "model.h"

static rig_t rig;
static long failures;
static int is_adaptive; /* the policy */

/* Let the first allocation that `attempt` makes fail, then the second, and so on, until it makes no more. */
static void exhaust(int (*attempt)(uint32_t), uint32_t argument)
{
    for (long allowed = 0;; allowed++) {
        long failed = alloc_failed;
        int status;
        alloc_countdown = allowed;
        status = attempt(argument);
        alloc_countdown = -1;
        rig_compare(&rig);
        if (alloc_failed == failed) {
            CHECK(status >= 0);
            return;
        }
        CHECK(status == STORE_NO_MEMORY || status >= 0);
        failures++;
    }
}

static int store_plain(uint32_t key)
{
    return rig_store(&rig, key, key % 50 == 49 ? 2000 : 10, CLOCK_NEVER_NS); /* now and then many victims */
}

static int store_timed(uint32_t key)
{
    return rig_store(&rig, key, 10, 5000000 + (int64_t)key);
}

static int reschedule(uint32_t key)
{
    return rig_reschedule(&rig, key, 5000000);
}

static int expire_all(uint32_t batch)
{
    return rig_expire_all(&rig, batch);
}

static int tend(uint32_t times)
{
    while (times-- > 0) {
        rig_tend(&rig);
    }
    return 0;
}

static void begin(void)
{
    failures = 0;
    CHECK(rig_init(&rig, NULL, UINT64_MAX, 0) == 0);
    CHECK(!is_adaptive || rig_adapt(&rig, 1) == 0);
}

static void end(long at_least)
{
    CHECK(failures >= at_least);
    rig_free(&rig);
    CHECK(alloc_live == 0);
}

static void test_store_without_memory_stores_nothing(void)
{
    begin();
    rig.core.max_bytes = 3000;
    for (uint32_t key = 0; key < 400; key++) {
        exhaust(store_plain, key);
        CHECK(rig_find(&rig, key) != 0);
        exhaust(store_plain, key / 2);
    }
    end(20);
}

static void test_first_deadline_without_memory_is_refused(void)
{
    begin();
    for (uint32_t key = 0; key < 100; key++) {
        (void)store_plain(key);
    }
    exhaust(reschedule, 50);
    CHECK(rig.held[50].deadline_ns == 5000000);
    rig_free(&rig);
    begin();
    for (uint32_t key = 0; key < 100; key++) {
        (void)store_plain(key);
    }
    exhaust(store_timed, 50); /* over an old value */
    end(1);
}

static void test_growth_without_memory_changes_nothing(void)
{
    begin();
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        exhaust(store_timed, key);
        CHECK(rig.count == key + 1);
    }
    end(15);
}

/* Without the memory for a smaller table the large one stays, and the next step tries again. */
static void test_shrinking_without_memory_waits(void)
{
    begin();
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        (void)store_timed(key);
    }
    while (rig.count > 10) {
        rig_evict(&rig);
    }
    for (uint32_t i = 0; i < 100; i++) {
        exhaust(tend, 1);
    }
    CHECK(rig.core.table.capacity == SHRINK_CAPACITY);
    end(2);
}

static void test_expiry_without_memory_says_so_and_can_be_repeated(void)
{
    begin();
    for (uint32_t key = 0; key < 300; key++) {
        (void)store_timed(key);
    }
    rig.core.source.fixed_ns = 5000250; /* all within one unit, a part of it over */
    exhaust(expire_all, 8);
    CHECK(rig.count == 300 - 251);
    end(1);
}

static void test_init_without_memory_fails(void)
{
    alloc_countdown = 0;
    CHECK(rig_init(&rig, NULL, UINT64_MAX, 0) == -1);
    CHECK(lanes_new(5) == NULL);
    alloc_countdown = -1;
    CHECK(alloc_live == 0);
}

static void test_graveyard_without_memory_keeps_what_it_has(void)
{
    graveyard_t yard;

    graveyard_init(&yard);
    for (uint32_t i = 0; i < GRAVEYARD_LOCAL; i++) {
        graveyard_add(&yard, key_of(i), NULL, CAUSE_DROPPED);
    }
    alloc_countdown = 0;
    CHECK(graveyard_reserve(&yard, 1) == -1 && yard.count == GRAVEYARD_LOCAL && yard.graves[7].key == key_of(7));
    alloc_countdown = -1;
    CHECK(graveyard_reserve(&yard, 1) == 0 && yard.graves[7].key == key_of(7));
    graveyard_free(&yard);
    CHECK(alloc_live == 0);
}

int main(void)
{
    for (is_adaptive = 0; is_adaptive < 2; is_adaptive++) {
        test_store_without_memory_stores_nothing();
        test_first_deadline_without_memory_is_refused();
        test_growth_without_memory_changes_nothing();
        test_shrinking_without_memory_waits();
        test_expiry_without_memory_says_so_and_can_be_repeated();
    }
    test_init_without_memory_fails();
    test_graveyard_without_memory_keeps_what_it_has();
    return check_done("test_faults");
}
