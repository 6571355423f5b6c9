/* Tests of order.h: with its ring of noted hits it is exact LRU, as a plain list of keys is. */

#include "check.h"

#include "nearcache/order.h"

enum { KEYS = 300 };

static table_t table;
static order_t order;
static uint32_t refs[KEYS];    /* by key; 0: not there */
static uint32_t listed[KEYS];  /* keys, the least recently used first */
static uint32_t count;

static void begin(void)
{
    count = 0;
    memset(refs, 0, sizeof refs);
    table_init(&table, 1, 3);
    order_init(&order);
}

static void end(void)
{
    table_free_memory(&table);
    order_free_memory(&order);
    CHECK(alloc_live == 0);
}

static void unlist(uint32_t key)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (listed[i] != key) {
            listed[kept++] = listed[i];
        }
    }
    count = kept;
}

static void insert(uint32_t key)
{
    uint32_t capacity = table_is_full(&table) ? table_next_capacity(&table, UINT32_MAX) : table.capacity;

    CHECK(order_reserve(&order, capacity, UINT32_MAX) == 0 && table_reserve(&table, UINT32_MAX) == 0);
    order_settle(&order, table.details);
    refs[key] = table_insert(&table, key_of(key), key_of(key), table_tag(&table, (int64_t)key));
    order_insert(&order, refs[key], table.details[refs[key]].tag);
    listed[count++] = key;
}

static void take_out(uint32_t key)
{
    order_settle(&order, table.details);
    order_remove(&order, refs[key]);
    table_remove(&table, refs[key]);
    refs[key] = 0;
    unlist(key);
}

static void hit(uint32_t key)
{
    if (order_is_full(&order)) {
        order_settle(&order, table.details);
    }
    order_touch(&order, refs[key]);
    unlist(key);
    listed[count++] = key;
}

static void relocate(uint32_t key)
{
    uint32_t from = refs[key];

    order_settle(&order, table.details);
    refs[key] = table_relocate(&table, from);
    order_relocate(&order, from, refs[key]);
}

static void compare(void)
{
    uint32_t ref;

    WHOLE(order_check(&order, &table));
    order_settle(&order, table.details);
    WHOLE(order_check(&order, &table));
    ref = order_first(&order);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(ref == refs[listed[i]]);
        ref = order_following(&order, ref);
    }
    CHECK(ref == 0);
}

static void test_random_hits_and_changes_are_exact_lru(void)
{
    begin();
    for (int step = 0; step < 30000; step++) {
        uint32_t key = random_below(KEYS);
        if (refs[key] == 0) {
            insert(key);
        } else if (random_below(8) == 0) {
            take_out(key);
        } else if (table.free_sets != 0 && refs[key] > 2 * (table.free[__builtin_ctz(table.free_sets)])) {
            relocate(key);
        } else {
            hit(random_below(3) == 0 && count != 0 ? listed[count - 1] : key);
        }
        if (step % 50 == 0) {
            compare();
        }
    }
    compare();
    while (count != 0) {
        CHECK(refs[listed[0]] == (order_settle(&order, table.details), order_first(&order)));
        take_out(listed[0]);
    }
    compare();
    end();
}

static void test_same_hit_noted_many_times_counts_as_the_last(void)
{
    begin();
    for (uint32_t key = 0; key < 4; key++) {
        insert(key);
    }
    for (uint32_t i = 0; i < ORDER_RING; i++) {
        hit(i % 3);
    }
    CHECK(order_is_full(&order));
    compare();
    CHECK(order.touches == 0 && order_first(&order) == refs[3]);
    end();
}

static void test_order_alone_or_empty_has_a_first_or_none(void)
{
    begin();
    CHECK(order_first(&order) == 0);
    WHOLE(order_check(&order, &table));
    insert(5);
    for (int i = 0; i < 3; i++) {
        hit(5);
        compare();
    }
    take_out(5);
    CHECK(order_first(&order) == 0);
    compare();
    end();
}

/* Links that fill more than the second-level cache are asked for ahead; that changes nothing. */
static void test_large_order_asks_ahead_and_stays_exact(void)
{
    begin();
    for (uint32_t key = 0; key < KEYS; key++) {
        insert(key);
    }
    CHECK(order_reserve(&order, ORDER_NEAR_BYTES / sizeof(link_t) + 1, UINT32_MAX) == 0);
    CHECK(order.links_bytes > ORDER_NEAR_BYTES);
    for (int step = 0; step < 5000; step++) {
        hit(random_below(KEYS));
        if (step % 97 == 0) {
            compare();
        }
    }
    compare();
    end();
}

int main(void)
{
    test_random_hits_and_changes_are_exact_lru();
    test_same_hit_noted_many_times_counts_as_the_last();
    test_order_alone_or_empty_has_a_first_or_none();
    test_large_order_asks_ahead_and_stays_exact();
    return check_done("test_order");
}
