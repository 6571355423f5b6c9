/* Tests of table.h and index.h: against a plain model under three kinds of hashes, while the table grows in steps, is
 * clipped by a limit, empties and shrinks. */

#include "check.h"

#include "nearcache/core.h"

enum { KEYS = 3000 };

static uint32_t held[KEYS]; /* by key: its ref; 0: not in the table */
static table_t table;
static int kind;

static uint32_t found(uint32_t key)
{
    uint32_t tag = table_tag(&table, hash_of(kind, key));
    uint64_t position = tag;
    uint32_t ref = table_next(&table, tag, &position);
    uint32_t first = index_glance(&table.index, tag);
    uint32_t other = ref != 0 ? table_next(&table, tag, &position) : 0;

    CHECK(first <= table.index.refs && (other != 0 || first == 0 || first == ref)); /* two that match get mixed up */
    position = tag;
    ref = table_next(&table, tag, &position);
    while (ref != 0 && table.slab[ref].key != key_of(key)) {
        ref = table_next(&table, tag, &position);
    }
    return ref;
}

static void insert(uint32_t key, uint32_t limit)
{
    CHECK(table_reserve(&table, limit) == 0);
    held[key] = table_insert(&table, key_of(key), key_of(key + 1), table_tag(&table, hash_of(kind, key)));
    table_resize(&table, held[key], key);
}

static void take_out(uint32_t key)
{
    table_remove(&table, held[key]);
    held[key] = 0;
}

static void compare(void)
{
    WHOLE(table_check(&table));
    for (uint32_t key = 0; key < KEYS; key++) {
        CHECK(found(key) == held[key]);
        CHECK(held[key] == 0 || !table_lacks(&table, table_tag(&table, hash_of(kind, key))));
        CHECK(held[key] == 0 || table.slab[held[key]].value == key_of(key + 1));
        CHECK(held[key] == 0 || table_size_of(&table, held[key]) == key);
    }
}

static void begin(int of_kind)
{
    kind = of_kind;
    memset(held, 0, sizeof held);
    table_init(&table, 0x9e3779b97f4a7c15u * (uint64_t)(kind + 1), 0xd1342543de82ef95u);
}

static void end(void)
{
    table_free_memory(&table);
    CHECK(alloc_live == 0);
}

/* -- the empty table -------------------------------------------------------------------------------------- */

static void test_empty_table_is_valid_and_finds_nothing(void)
{
    table_t out;

    begin(0);
    compare();
    CHECK(table_memory(&table) == 0 && table_is_full(&table));
    table_detach(&table, &out);
    compare();
    table_free_memory(&out);
    end();
}

static void test_detach_moves_everything_and_the_version_on(void)
{
    table_t out;
    uint64_t version;

    begin(0);
    for (uint32_t key = 0; key < 100; key++) {
        insert(key, KEYS);
    }
    version = table.version;
    table_detach(&table, &out);
    CHECK(table.count == 0 && table.version > version && out.count == 100);
    WHOLE(table_check(&out));
    memset(held, 0, sizeof held);
    compare();
    table_free_memory(&out);
    end();
}

/* -- against the model ------------------------------------------------------------------------------------ */

static void test_random_operations_equal_the_model(int of_kind)
{
    begin(of_kind);
    for (uint32_t step = 0; step < 20000; step++) {
        uint32_t most = step / 2500 % 2 == 0 ? KEYS : KEYS / 8; /* keys beyond are only taken out: it fills and empties */
        uint32_t key = random_below(KEYS);
        if (held[key] != 0) {
            take_out(key);
        } else if (key < most) {
            insert(key, KEYS);
        }
        if (step % 250 == 0) {
            compare();
        }
    }
    for (uint32_t key = 0; key < KEYS; key++) {
        if (held[key] != 0) {
            take_out(key);
        }
    }
    compare();
    CHECK(table.count == 0 && table.bytes == 0);
    end();
}

/* While an old index lasts every look-up is right, whatever is put in or taken out meanwhile. */
static void test_growth_in_steps_never_loses_an_entry(int of_kind)
{
    uint32_t grown = 0;

    begin(of_kind);
    for (uint32_t key = 0; key < 1200; key++) {
        uint32_t capacity = table.capacity;
        insert(key, KEYS);
        grown += capacity != table.capacity;
        if (table.old.slots != NULL && key % 3 == 0) {
            take_out(key / 2);
            compare();
            insert(key / 2, KEYS);
        }
        if (table.old.slots != NULL && key % 5 == 0) {
            compare();
        }
    }
    CHECK(grown == 9); /* 8, 16, ... 2048 */
    end();
}

/* It is left before the next one is needed: two are all there ever are. */
static void test_old_index_is_empty_before_the_table_is_full_again(void)
{
    begin(0);
    for (uint32_t key = 0; key < KEYS; key++) {
        if (table_is_full(&table)) {
            CHECK(table.old.slots == NULL);
        }
        insert(key, KEYS);
    }
    end();
}

static void test_growth_clipped_by_a_limit_stops_there(int of_kind)
{
    begin(of_kind);
    for (uint32_t key = 0; key < 1100; key++) { /* the last step is a small one */
        insert(key, 1100);
        if (key > 1000) {
            compare();
        }
    }
    CHECK(table.capacity == 1100 && table_reserve(&table, 1100) == -1);
    WHOLE(table_check(&table));
    for (uint32_t key = 0; key < 500; key++) {
        uint32_t ref = held[key];
        take_out(key);
        insert(key + 1100, 1100);
        CHECK(held[key + 1100] == ref);
    }
    compare();
    CHECK(table.capacity == 1100);
    end();
}

/* -- free entries ----------------------------------------------------------------------------------------- */

static void test_free_entries_lowest_set_is_taken_first(void)
{
    begin(0);
    for (uint32_t key = 0; key < 64; key++) {
        insert(key, KEYS);
        CHECK(held[key] == key + 1);
    }
    for (uint32_t key = 0; key < 64; key += 2) {
        take_out(key);
    }
    WHOLE(table_check(&table));
    for (uint32_t key = 100, before = 0; key < 132; key++) {
        insert(key, KEYS);
        CHECK(table_free_set(held[key]) >= before); /* within a power of two in any order */
        before = table_free_set(held[key]);
    }
    CHECK(table.used == 64 && table.free_sets == 0);
    compare();
    end();
}

static void test_free_set_is_the_power_of_two_that_a_ref_needs(void)
{
    CHECK(table_free_set(1) == 0 && table_free_set(2) == 1 && table_free_set(3) == 2 && table_free_set(4) == 2);
    for (uint32_t bits = 3; bits < 31; bits++) {
        CHECK(table_free_set((uint32_t)1 << bits) == bits);
        CHECK(table_free_set(((uint32_t)1 << bits) + 1) == bits + 1);
    }
}

/* -- shrinking -------------------------------------------------------------------------------------------- */

static void relocate_all_above(uint32_t half)
{
    for (uint32_t key = 0; key < KEYS; key++) {
        if (held[key] > half) {
            uint64_t version = table.version;
            held[key] = table_relocate(&table, held[key]);
            CHECK(held[key] <= half && table.version > version);
        }
    }
}

static void test_relocation_and_truncation_keep_every_entry(int of_kind)
{
    begin(of_kind);
    for (uint32_t key = 0; key < KEYS; key++) {
        insert(key, UINT32_MAX);
    }
    for (uint32_t half = 2048; half >= 16; half /= 2) {
        size_t memory = table_memory(&table);
        while (table.count > half / 2) {
            uint32_t key = random_below(KEYS);
            if (held[key] != 0) {
                take_out(key);
            }
        }
        relocate_all_above(half);
        compare();
        CHECK(table_truncate(&table, half) == 0 && table.capacity == half && table.used <= half);
        compare(); /* with the larger index as the old one */
        table_migrate(&table, UINT32_MAX);
        CHECK(table.old.slots == NULL && table_memory(&table) < memory * 2 / 3);
        compare();
    }
    for (uint32_t key = 0; key < KEYS; key++) {
        if (held[key] == 0) {
            insert(key, UINT32_MAX);
        }
    }
    compare();
    end();
}

/* Entries may be moved while the larger index is still half full of them. */
static void test_relocation_in_the_old_index_is_found(void)
{
    begin(0);
    for (uint32_t key = 0; key < 1025; key++) {
        insert(key, UINT32_MAX);
    }
    CHECK(table.old.slots != NULL);
    for (uint32_t key = 0; key < 1025; key++) {
        if (key % 4 != 3) {
            take_out(key);
        }
    }
    CHECK(table.old.slots != NULL);
    relocate_all_above(512);
    CHECK(table.old.slots != NULL);
    compare();
    end();
}

/* -- hashes and sizes ------------------------------------------------------------------------------------- */

static void test_sequential_and_high_bit_hashes_spread(void)
{
    for (int of_kind = 0; of_kind < HASH_KINDS; of_kind += 2) {
        uint32_t longest = 0;
        begin(of_kind);
        for (uint32_t key = 0; key < 2048; key++) {
            insert(key, UINT32_MAX);
        }
        table_migrate(&table, UINT32_MAX);
        for (uint32_t i = 0, run = 0; i <= table.index.mask; i++) {
            run = table.index.slots[i] != 0 ? run + 1 : 0;
            longest = run > longest ? run : longest;
        }
        CHECK(longest < 64);
        end();
    }
}

/* How many steps from home entries would lie on average, in a table of this many slots. */
static double steps_from_home(const table_t *t, int64_t first, int64_t distance, uint32_t entries, uint32_t slots)
{
    static uint8_t taken[16384];
    uint64_t steps = 0;

    memset(taken, 0, slots);
    for (uint32_t i = 0; i < entries; i++) {
        uint32_t at = table_tag(t, (int64_t)((uint64_t)first + (uint64_t)distance * i)) & (slots - 1);
        for (; taken[at]; at = (at + 1) & (slots - 1)) {
            steps++;
        }
        taken[at] = 1;
    }
    return (double)steps / entries;
}

/* With two thirds of the slots taken, hashes by chance lie one step from home. */
static void test_equal_distances_between_hashes_spread_whatever_the_secret(void)
{
    const int64_t firsts[] = {0, 1000000000, -5000};

    for (uint32_t round = 0; round < 300; round++) {
        table_init(&table, random_bits(), random_bits());
        for (uint32_t shift = 0; shift < 50; shift += 7) {
            CHECK(steps_from_home(&table, firsts[round % 3], (int64_t)1 << shift, 1000, 2048) < 2.0);
            CHECK(steps_from_home(&table, firsts[round % 3], ((int64_t)1 << shift) - 1 + 2 * (shift == 0), 10000, 16384) < 2.0);
        }
    }
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

static void test_index_leaves_room_and_fits_its_refs(void)
{
    for (uint32_t capacity = 1; capacity < TABLE_MAX_ENTRIES / 2; capacity += capacity / 3 + 1) {
        index_t shape = index_shape(capacity);
        CHECK(((uint64_t)shape.mask + 1) * 2 >= (uint64_t)capacity * 3);
        CHECK(capacity <= shape.refs && shape.refs < shape.step && (shape.mask & (shape.mask + 1)) == 0);
        CHECK((shape.tags & shape.refs) == 0 && shape.tags < shape.step);
    }
}

static void test_glance_finds_whoever_is_near_home_and_not_beyond_the_last_slot(void)
{
    uint32_t near = 0;

    begin(0);
    for (uint32_t key = 0; key < KEYS; key++) {
        insert(key, KEYS);
    }
    table_migrate(&table, UINT32_MAX);
    for (uint32_t key = 0; key < KEYS; key++) {
        uint32_t tag = table_tag(&table, hash_of(kind, key));
        uint32_t home = tag & table.index.mask;
        uint32_t at = 0;
        int is_near;
        CHECK(index_find(&table.index, tag, held[key], &at));
        is_near = at >= home && at - home < INDEX_GLANCE;
        CHECK(index_glance(&table.index, tag) == (is_near ? held[key] : 0));
        near += (uint32_t)is_near;
    }
    CHECK(near > KEYS / 10 * 9);
    end();
}

static void test_weight_is_exact_below_64_mi_and_never_grows_a_size(void)
{
    uint64_t before = 0;

    for (uint64_t size = 0; size < (uint64_t)1 << 26; size += size / 1000 + 1) {
        CHECK(weight_of(size) == size && weight_size(weight_of(size)) == size);
    }
    for (uint64_t size = (uint64_t)1 << 26; size < (uint64_t)1 << 63; size += size / 97 + 1) {
        uint64_t rounded = weight_size(weight_of(size));
        CHECK(rounded <= size && size - rounded <= size >> 25);
        CHECK(weight_of(rounded) == weight_of(size)); /* rounding twice is rounding once */
        CHECK(rounded >= before);
        before = rounded;
    }
    CHECK(weight_size(weight_of(INT64_MAX)) <= (uint64_t)INT64_MAX);
    CHECK(weight_size(weight_of(UINT64_MAX)) > UINT64_MAX - ((uint64_t)1 << 38));
}

int main(void)
{
    test_empty_table_is_valid_and_finds_nothing();
    test_detach_moves_everything_and_the_version_on();
    for (int of_kind = 0; of_kind < HASH_KINDS; of_kind++) {
        test_random_operations_equal_the_model(of_kind);
        test_growth_in_steps_never_loses_an_entry(of_kind);
        test_growth_clipped_by_a_limit_stops_there(of_kind);
        test_relocation_and_truncation_keep_every_entry(of_kind);
    }
    test_old_index_is_empty_before_the_table_is_full_again();
    test_free_entries_lowest_set_is_taken_first();
    test_free_set_is_the_power_of_two_that_a_ref_needs();
    test_relocation_in_the_old_index_is_found();
    test_sequential_and_high_bit_hashes_spread();
    test_equal_distances_between_hashes_spread_whatever_the_secret();
    test_tag_depends_on_the_secret();
    test_index_leaves_room_and_fits_its_refs();
    test_glance_finds_whoever_is_near_home_and_not_beyond_the_last_slot();
    test_weight_is_exact_below_64_mi_and_never_grows_a_size();
    return check_done("test_table");
}
