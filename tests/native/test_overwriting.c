/* Tests of what a learning policy is told of: the short way to overwrite teaches what a store does. */

#include "model.h"

static rig_t careful;
static rig_t quick;

static void begin(uint64_t limit)
{
    CHECK(rig_init(&careful, NULL, limit, 0) == 0 && rig_adapt(&careful, 5) == 0);
    CHECK(rig_init(&quick, NULL, limit, 0) == 0 && rig_adapt(&quick, 5) == 0);
}

static void end(void)
{
    rig_free(&careful);
    rig_free(&quick);
}

static void store_both(uint32_t key)
{
    CHECK(rig_store(&careful, key, 0, CLOCK_NEVER_NS) == rig_store(&quick, key, 0, CLOCK_NEVER_NS));
}

/* By the short way in one of them, if that is open. Returns whether it was. */
static uint32_t overwrite_both(uint32_t key)
{
    int is_short = rig_overwrite(&quick, key, CLOCK_NEVER_NS);

    if (!is_short) {
        CHECK(rig_store(&quick, key, 0, CLOCK_NEVER_NS) == STORED_OVER);
    }
    CHECK(rig_store(&careful, key, 0, CLOCK_NEVER_NS) == STORED_OVER);
    return (uint32_t)is_short;
}

/* Both policies know the same. */
static void compare(void)
{
    const adaptive_t *p = careful.core.order.adaptive;
    const adaptive_t *q = quick.core.order.adaptive;

    core_settle(&careful.core);
    core_settle(&quick.core);
    CHECK(p->history_bytes == q->history_bytes && p->top == q->top && p->run == q->run && p->random == q->random);
    CHECK(memcmp(p->history + 1, q->history + 1, p->top * sizeof(uint32_t)) == 0);
    CHECK(memcmp(&p->worth, &q->worth, sizeof p->worth) == 0);
    CHECK(p->shadows.followed == q->shadows.followed);
    rig_compare(&careful);
    rig_compare(&quick);
}

/* And choose the same from now on. */
static void compare_choices(void)
{
    for (uint32_t step = 0; step < 300; step++) {
        store_both(random_below(150));
    }
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        CHECK((rig_find(&careful, key) != 0) == (rig_find(&quick, key) != 0));
    }
    compare();
}

static void test_overwriting_alone_teaches_what_stores_do(uint32_t times)
{
    uint32_t short_ways = 0;

    begin(60);
    for (uint32_t step = 0; step < 2000; step++) {
        store_both(random_below(1 + random_below(90)));
    }
    for (uint32_t done = 0; done < times;) {
        uint32_t key = random_below(90);
        if (rig_find(&quick, key) != 0) {
            short_ways += overwrite_both(key);
            done++;
        }
    }
    CHECK(short_ways + 1 + times / 100 >= times);
    compare();
    compare_choices();
    end();
}

/* A row is as long as in a store that carries its notes out with each change. */
static void test_overwriting_between_hits_makes_the_row_longer_as_a_store_does(uint64_t limit)
{
    uint32_t noted = 0;

    begin(limit);
    for (uint32_t step = 0; step < 40000; step++) {
        uint32_t key = random_below((uint32_t)limit + 2);
        if (random_below(20) == 0) {
            store_both(key);
        } else if (rig_find(&quick, key) != 0 && random_below(8) == 0) {
            (void)overwrite_both(key);
        } else {
            CHECK(rig_hit(&careful, key) == rig_hit(&quick, key));
        }
        if (step % 50 == 49) {
            compare();
            noted += quick.core.order.adaptive->run >= 2 * quick.core.order.adaptive->count;
        }
    }
    CHECK(noted > 50 && noted < 750);
    compare_choices();
    end();
}

int main(void)
{
    static const uint32_t times[] = {1, 50, 120, 500, 3000};

    for (uint32_t i = 0; i < 5; i++) {
        test_overwriting_alone_teaches_what_stores_do(times[i]);
    }
    for (uint64_t limit = 5; limit <= 59; limit += 18) {
        test_overwriting_between_hits_makes_the_row_longer_as_a_store_does(limit);
    }
    return check_done("test_overwriting");
}
