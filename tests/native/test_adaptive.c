/* Tests of adaptive.h behind the functions of order.h: whatever is done, its books stay right, and its choices are somebody
 * who is there, not the one spared, the same for the same seed, and better than LRU where LRU is bad. */

#include "check.h"

#include "nearcache/core.h"

enum { KEYS = 6000, SIZES = 8 };

static const uint32_t sizes[SIZES] = {1, 2, 3, 9, 64, 65, 1000, 3000};

static table_t table;
static order_t order;
static uint32_t refs[KEYS]; /* by key; 0: not there */
static uint32_t limit;

static void begin(uint32_t entries, int is_adaptive, uint32_t seed)
{
    memset(refs, 0, sizeof refs);
    limit = entries;
    table_init(&table, 1, 3);
    order_init(&order);
    CHECK(!is_adaptive || order_adapt(&order, seed) == 0);
}

static void end(void)
{
    table_free_memory(&table);
    order_free_memory(&order);
    CHECK(alloc_live == 0 && order_memory(&order) == 0);
}

static void settle(void)
{
    order_settle(&order, table.details);
}

/* -- what a core does ------------------------------------------------------------------------------------- */

static void forget(uint32_t ref, int is_evicted)
{
    uint32_t key = number_of(table.slab[ref].key);

    CHECK(refs[key] == ref);
    settle();
    if (is_evicted) {
        order_evict(&order, ref, table.details[ref].tag);
    } else {
        order_remove(&order, ref);
    }
    table_remove(&table, ref);
    refs[key] = 0;
}

static void evict(uint32_t spared)
{
    uint32_t victim;

    settle();
    victim = order_victim(&order, spared);
    CHECK((victim == 0) == (table.count == (spared != 0)));
    if (victim != 0) {
        CHECK(victim != spared && victim <= table.used && table.slab[victim].key != NULL);
        forget(victim, 1);
    }
}

/* -1 without memory. */
static int insert(uint32_t key)
{
    uint32_t capacity;

    settle();
    while (table.count >= limit) {
        evict(0);
    }
    capacity = table_is_full(&table) ? table_next_capacity(&table, limit) : table.capacity;
    if (order_reserve(&order, capacity, limit) < 0 || table_reserve(&table, limit) < 0) {
        return -1;
    }
    refs[key] = table_insert(&table, key_of(key), key_of(key), table_tag(&table, (int64_t)key));
    order_insert(&order, refs[key], table.details[refs[key]].tag);
    return 0;
}

static void hit(uint32_t key)
{
    if (order_is_full(&order)) {
        settle();
    }
    order_touch(&order, refs[key]);
}

/* Returns whether it was a hit. */
static uint32_t request(uint32_t key)
{
    if (refs[key] != 0) {
        hit(key);
        return 1;
    }
    CHECK(insert(key) == 0);
    return 0;
}

/* Move the uppermost entries into free places, and give back what is above them. */
static void shrink(void)
{
    uint32_t half = core_smaller(&table);

    settle();
    for (uint32_t from = table.used; half >= TABLE_MIN_ENTRIES && from > half; from--) {
        if (table.slab[from].key != NULL) {
            uint32_t key = number_of(table.slab[from].key);
            refs[key] = table_relocate(&table, from);
            order_relocate(&order, from, refs[key]);
        }
    }
    if (half >= TABLE_MIN_ENTRIES && table_truncate(&table, half) == 0) {
        CHECK(order_reserve(&order, half, limit) == 0);
    }
}

static void clear(void)
{
    table_t gone;

    table_detach(&table, &gone);
    table_free_memory(&gone);
    order_clear(&order);
    memset(refs, 0, sizeof refs);
    CHECK(order_first(&order) == 0 && order_victim(&order, 0) == 0);
}

static void check(void)
{
    uint32_t seen = 0;

    settle();
    WHOLE(order_check(&order, &table));
    for (uint32_t ref = order_first(&order); ref != 0; ref = order_following(&order, ref)) {
        CHECK(table.slab[ref].key != NULL);
        seen++;
    }
    CHECK(seen == table.count);
}

/* -- books ------------------------------------------------------------------------------------------------ */

static void random_step(uint32_t keys, uint32_t step)
{
    uint32_t key = random_below(keys);

    if (refs[key] == 0) {
        CHECK(insert(key) == 0);
        return;
    }
    switch (random_below(12)) {
    case 0:
        forget(refs[key], 0);
        break;
    case 1:
        evict(refs[key]);
        CHECK(refs[key] != 0);
        break;
    case 2:
        settle();
        order_use(&order, refs[key], table.details);
        break;
    case 3:
        if (step % 2000 < 600) { /* down to few, so that the table shrinks */
            evict(0);
            evict(0);
            shrink();
        }
        break;
    default:
        hit(key);
    }
    if (random_below(4000) == 0) {
        clear();
    }
}

static void test_random_operations_keep_the_books_at_every_size(void)
{
    for (uint32_t i = 0; i < 2 * SIZES; i++) {
        uint32_t size = sizes[i % SIZES];
        begin(i < SIZES ? size : UINT32_MAX, 1, i); /* the second time without a limit */
        for (uint32_t step = 0; step < 12000; step++) {
            random_step(2 * size, step);
            if (step % (size / 10 + 1) == 0) {
                check();
                CHECK(i >= SIZES || table.count <= size);
            }
        }
        while (table.count != 0) {
            evict(0);
        }
        check();
        end();
    }
}

static void test_nobody_else_is_nobody(void)
{
    begin(4, 1, 1);
    CHECK(order_victim(&order, 0) == 0);
    CHECK(insert(0) == 0);
    CHECK(order_victim(&order, refs[0]) == 0 && order_victim(&order, 0) == refs[0]);
    CHECK(insert(1) == 0);
    for (uint32_t i = 0; i < 1000; i++) {
        CHECK(order_victim(&order, refs[i % 2]) == refs[1 - i % 2]);
    }
    end();
}

static void test_growing_without_limit_translates_the_clock(void)
{
    uint32_t shift = 0;

    begin(UINT32_MAX, 1, 5);
    for (uint32_t key = 0; key < KEYS; key++) {
        CHECK(insert(key) == 0);
        hit(random_below(key + 1));
        if (order.adaptive->worth.shift != shift) {
            CHECK(order.adaptive->worth.shift > shift);
            shift = order.adaptive->worth.shift;
            check();
        }
    }
    CHECK(shift == worth_log2(table.capacity / WORTH_TICKS));
    end();
}

/* -- memory ----------------------------------------------------------------------------------------------- */

static void test_every_allocation_that_fails_changes_nothing(void)
{
    long failed = alloc_failed;

    order_init(&order);
    alloc_countdown = 0;
    CHECK(order_adapt(&order, 1) == (alloc_failed == failed ? 0 : -1)); /* mapped memory does not fail */
    CHECK(alloc_failed == failed || order.adaptive == NULL);
    alloc_countdown = -1;
    order_free_memory(&order);
    begin(UINT32_MAX, 1, 1);
    for (uint32_t key = 0; key < KEYS; key++) {
        long allowed = 0;
        do {
            CHECK(refs[key] == 0 && table.count == key);
            alloc_countdown = allowed++;
        } while (insert(key) < 0);
        alloc_countdown = -1;
        CHECK(table.count == key + 1);
        if (key % 500 == 0 || allowed > 1) {
            check();
        }
    }
    CHECK(alloc_failed - failed > 5);
    clear();
    CHECK(order_memory(&order) == sizeof(adaptive_t) + order.adaptive->shadows_bytes); /* what was learned stays */
    end();
}

/* -- choices ---------------------------------------------------------------------------------------------- */

/* Requests for a few keys often and many seldom. Returns a digest of who was where at the end. */
static uint64_t play(uint32_t size, uint32_t seed)
{
    uint64_t digest = 0;

    begin(size, 1, seed);
    random_state = 88172645463325252u;
    for (uint32_t i = 0; i < 20000; i++) {
        (void)request(random_below(1 + random_below(1 + random_below(KEYS))));
    }
    for (uint32_t key = 0; key < KEYS; key++) {
        digest = digest * 31 + refs[key];
    }
    end();
    return digest;
}

static void test_same_seed_gives_the_same_choices(void)
{
    CHECK(play(300, 7) == play(300, 7));
    CHECK(play(300, 7) != play(300, 8));
}

/* Hits in percent of the later half, of `rounds` over a loop of that length. */
static uint32_t loop(uint32_t size, uint32_t length, uint32_t rounds, int is_adaptive, uint32_t seed)
{
    uint32_t hits = 0;

    begin(size, is_adaptive, seed);
    for (uint32_t i = 0; i < rounds * length; i++) {
        uint32_t was_hit = request(i % length);
        hits += i >= rounds / 2 * length ? was_hit : 0;
    }
    check();
    end();
    return hits * 100 / (rounds / 2 * length);
}

static void test_loop_twice_as_long_as_the_cache_hits_where_lru_does_not(void)
{
    static const uint32_t loops[] = {20, 64, 100, 500, 1500};

    for (uint32_t i = 0; i < 5; i++) {
        for (uint32_t seed = 1; seed < 6; seed++) {
            CHECK(loop(loops[i], 2 * loops[i], 20, 1, seed) >= 30);
        }
        CHECK(loop(loops[i], 2 * loops[i], 20, 0, 0) == 0);
    }
}

/* Ever the same distribution of stack distances, short ones likeliest, so that recency says all there is to say. In percent
 * of 1000. */
static uint32_t stacked(uint32_t size, int is_adaptive, uint32_t seed)
{
    static uint32_t stack[KEYS]; /* the last used first */
    uint32_t hits = 0;

    begin(size, is_adaptive, seed);
    random_state = 88172645463325252u;
    for (uint32_t i = 0; i < KEYS; i++) {
        stack[i] = i;
    }
    for (uint32_t i = 0; i < 60000; i++) {
        uint32_t distance = random_below(1 + random_below(3000));
        uint32_t key = stack[distance];
        memmove(stack + 1, stack, distance * sizeof *stack);
        stack[0] = key;
        hits += request(key);
    }
    end();
    return hits * 10 / 600;
}

static void test_requests_made_for_lru_lose_no_more_than_a_point_to_it(void)
{
    static const uint32_t small[] = {100, 300, 1000};

    for (uint32_t i = 0; i < 3; i++) {
        for (uint32_t seed = 1; seed < 4; seed++) {
            uint32_t lru = stacked(small[i], 0, 0);
            uint32_t ours = stacked(small[i], 1, seed);
            CHECK(ours + 10 >= lru);
        }
    }
}

/* Of keys that never come again the cache gives up the newest, and so must the shadow that says what this brings. */
static void test_a_shadow_gives_up_its_newest_as_the_cache_does(void)
{
    enum { SIZE = 64 };
    const shadow_t *shadow;
    uint32_t tags[SIZE];
    uint32_t kept = 0;

    begin(SIZE, 1, 3);
    shadow = &order.adaptive->shadows.shadow[1];
    for (uint32_t i = 0; i < 4 * SIZE; i++) {
        (void)request(i % SIZE);
    }
    settle();
    CHECK(order.adaptive->shadows.entries == SIZE && shadow->count == SIZE);
    for (uint32_t key = 0; key < SIZE; key++) {
        tags[key] = table.details[refs[key]].tag;
    }
    for (uint32_t key = SIZE; key < 4 * SIZE; key++) {
        CHECK(request(key) == 0);
    }
    for (uint32_t key = 0; key < SIZE; key++) {
        for (uint32_t i = 0; i < SIZE; i++) {
            kept += shadow->tag[i] == tags[key];
        }
    }
    CHECK(kept >= SIZE - 2);
    end();
}

/* Strangers of a scan go one by one, most of them without a look at others. What stays is what was
 * there before, and a working set that comes afterwards gets in: its keys come, are known, are there. */
static void test_a_scan_passes_and_leaves_room_for_who_comes_after(void)
{
    enum { SIZE = 200 };
    uint32_t unseen = 0;
    uint32_t kept = 0;
    uint32_t hits = 0;

    begin(SIZE, 1, 3);
    for (uint32_t i = 0; i < 4 * SIZE; i++) {
        (void)request(i % SIZE);
    }
    for (uint32_t key = SIZE; key < 21 * SIZE; key++) {
        uint32_t before = order.adaptive->unseen;
        CHECK(request(key) == 0);
        unseen += order.adaptive->unseen + 1 == before;
    }
    for (uint32_t key = 0; key < SIZE; key++) {
        kept += refs[key] != 0;
    }
    CHECK(unseen > 20 * SIZE / 2);
    CHECK(kept >= SIZE - 4);
    for (uint32_t i = 0; i < 3 * SIZE / 2; i++) {
        uint32_t was_hit = request(21 * SIZE + i % (SIZE / 2));
        hits += i >= SIZE ? was_hit : 0;
    }
    CHECK(hits >= SIZE / 2 * 9 / 10);
    check();
    end();
}

static int is_looked_at_again(uint32_t ref)
{
    return lot_bits(lot_read(order.adaptive->pool) == ref) != 0;
}

/* Who was the best of the last look but for its victim is looked at again, under its new ref if it has one; and the newest. */
static void test_runners_up_are_looked_at_again(void)
{
    enum { SIZE = 1000, TIMES = 200 };
    uint32_t found = 0;

    for (uint32_t n = 0; n < TIMES; n++) {
        uint32_t key = 1 + n;
        uint32_t at;
        begin(SIZE, 1, n + 1);
        for (uint32_t i = 0; i < SIZE; i++) {
            CHECK(insert(i) == 0);
        }
        for (uint32_t i = 0; i < SIZE; i++) { /* the oldest by far */
            if (i != key) {
                hit(i);
            }
        }
        settle();
        order.adaptive->shadows.followed = 2;
        at = (order.adaptive->hole + 1) % LOT;
        order.adaptive->pool[at] = refs[key];
        if (n % 2 != 0) {
            forget(refs[0], 0);
            adaptive_relocate(order.adaptive, refs[key], 1);
            found += order_victim(&order, 0) == 1;
            CHECK(!is_looked_at_again(1));
            adaptive_relocate(order.adaptive, 1, refs[key]);
        } else {
            found += order_victim(&order, 0) == refs[key];
        }
        CHECK(!is_looked_at_again(refs[key]) && is_looked_at_again(order.adaptive->newest));
        order.adaptive->newest = order.adaptive->pool[order.adaptive->hole] = refs[key];
        CHECK(order_victim(&order, 0) == refs[key] && is_looked_at_again(refs[key])); /* it need not go */
        end();
    }
    CHECK(found == TIMES);
}

/* After twice as many hits in a row as there are entries they are only noted, yet the entries count as used. */
static void test_hits_alone_are_noted_and_still_count(void)
{
    uint32_t before;

    begin(100, 1, 1);
    for (uint32_t key = 0; key < 100; key++) {
        CHECK(insert(key) == 0);
    }
    for (uint32_t i = 0; i < 2000; i++) {
        hit(i % 50);
    }
    settle();
    CHECK(order.adaptive->run == 2000 && order.adaptive->worth.now == 2100);
    CHECK(history_uses(order.adaptive->history[refs[0]]) == 7);
    before = history_gap(order.adaptive->history[refs[0]]);
    hit(0);
    settle();
    CHECK(history_gap(order.adaptive->history[refs[0]]) == before);
    CHECK(worth_age(&order.adaptive->worth, order.adaptive->history[refs[0]]) <= 1);
    check();
    end();
}

int main(void)
{
    test_random_operations_keep_the_books_at_every_size();
    test_nobody_else_is_nobody();
    test_growing_without_limit_translates_the_clock();
    test_every_allocation_that_fails_changes_nothing();
    test_same_seed_gives_the_same_choices();
    test_loop_twice_as_long_as_the_cache_hits_where_lru_does_not();
    test_requests_made_for_lru_lose_no_more_than_a_point_to_it();
    test_a_shadow_gives_up_its_newest_as_the_cache_does();
    test_a_scan_passes_and_leaves_room_for_who_comes_after();
    test_runners_up_are_looked_at_again();
    test_hits_alone_are_noted_and_still_count();
    return check_done("test_adaptive");
}
