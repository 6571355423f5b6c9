/* Tests of index.h by itself: small indexes as full as they get, with clusters that go round the end, for refs of as many bits as
 * would leave one, two or three for the steps. They lie in blocks of just their size, so that a sanitizer sees each slot too many. */
#include "check.h"

#include "nearcache/table.h"

enum { MOST = 128 };

static index_t idx;
static detail_t details[MOST];
static entry_t slab[MOST];
static table_t owner; /* for index_check */

static void begin(uint64_t slots, uint64_t refs)
{
    idx = index_of(slots, refs);
    idx.slots = calloc(1, index_bytes(&idx));
    CHECK(idx.slots != NULL);
}

/* Equal parts of tags now and then, some without a bit; homes anywhere, around one slot, or around the end. */
static uint32_t random_tag(uint32_t homes, uint32_t around)
{
    uint32_t tag = (uint32_t)random_bits();
    uint32_t home = homes == 0 ? tag : homes == 1 ? around + random_below(3) : idx.mask - random_below(3);

    tag = random_below(4) == 0 ? random_below(2) * 0x5a500000u : tag;
    return (tag & ~idx.mask) | (home & idx.mask);
}

static void check_entry(uint32_t ref)
{
    uint32_t tag = details[ref].tag;
    uint32_t at = tag;
    uint32_t next = 0;

    if (slab[ref].key == NULL) {
        CHECK(!index_find(&idx, random_tag(0, 0), ref, &at));
        return;
    }
    CHECK(!index_lacks(&idx, tag));
    do {
        next = index_next(&idx, tag, &at);
        CHECK(next != 0);
    } while (next != ref);
    CHECK(index_find(&idx, tag, ref, &at) && at <= idx.mask && (idx.slots[at] & idx.refs) == ref);
    next = index_glance_at(&idx, tag, &at);
    CHECK(next == 0 || (at <= idx.mask && (idx.slots[at] & idx.refs) == next && slab[next].key != NULL));
}

static void change(uint32_t ref, uint32_t homes, uint32_t around)
{
    uint32_t at = 0;

    if (slab[ref].key == NULL) {
        details[ref].tag = random_tag(homes, around);
        index_place(&idx, details[ref].tag, ref);
        slab[ref].key = key_of(ref);
    } else {
        CHECK(index_find(&idx, details[ref].tag, ref, &at));
        index_erase(&idx, details, at);
        slab[ref].key = NULL;
    }
}

static void test_any_small_index_keeps_every_entry(uint64_t slots, uint64_t refs, uint32_t homes)
{
    uint32_t entries = (uint32_t)slots * 2 / 3;
    uint32_t around = (uint32_t)random_bits();

    begin(slots, refs);
    memset(slab, 0, sizeof slab);
    owner = (table_t){.details = details, .slab = slab, .used = entries};
    for (uint32_t n = 0; n < 400; n++) {
        uint64_t taken = 0;
        change(1 + random_below(entries), homes, around);
        WHOLE(index_check(&owner, &idx, &taken));
        check_entry(1 + random_below(entries));
    }
    for (uint32_t ref = 1; ref <= entries; ref++) {
        check_entry(ref);
    }
    free(idx.slots);
}

/* What is at home, or close behind it, is found with its slot. */
static void test_glance_tells_the_slot(void)
{
    uint32_t at = 0;

    begin(16, 16);
    for (uint32_t ref = 1; ref <= 5; ref++) {
        index_place(&idx, ref << 20 | 3, ref);
    }
    for (uint32_t ref = 1; ref <= 5; ref++) {
        CHECK(index_glance_at(&idx, ref << 20 | 3, &at) == (ref <= INDEX_GLANCE ? ref : 0));
        CHECK(ref > INDEX_GLANCE || at == 2 + ref);
    }
    CHECK(index_glance_at(&idx, 6 << 20 | 3, &at) == 0);
    CHECK(index_lacks(&idx, 6 << 20 | 8));
    free(idx.slots);
}

/* That a key is absent can be told as long as an empty slot is near; entries are found however many there are. */
static void test_absence_is_told_by_an_empty_slot_near_home(void)
{
    uint32_t at = 0;

    begin(32, 16);
    for (uint32_t ref = 1; ref <= INDEX_LOOK + 1; ref++) {
        CHECK(index_lacks(&idx, 99 << 20 | 3) == (ref <= INDEX_LOOK));
        index_place(&idx, ref << 20 | 3, ref);
        CHECK(idx.last == 2 + ref && !index_lacks(&idx, ref << 20 | 3));
        CHECK(index_find(&idx, ref << 20 | 3, ref, &at) && at == 2 + ref);
        CHECK(index_find(&idx, 1 << 20 | 3, 1, &at) && at == 3);
    }
    free(idx.slots);
}

static void test_index_without_memory_has_nothing(void)
{
    uint32_t at = 0;

    table_init(&owner, 1, 2);
    for (uint32_t n = 0; n < 1000; n++) {
        uint32_t tag = (uint32_t)random_bits();
        CHECK(index_glance(&owner.index, tag) == 0 && index_glance_at(&owner.index, tag, &at) == 0);
        CHECK(!index_find(&owner.index, tag, 1 + random_below(9), &at));
    }
}

int main(void)
{
    for (uint32_t homes = 0; homes < 3; homes++) {
        for (uint64_t slots = 16; slots <= MOST; slots *= 2) {
            for (uint32_t bits = 8; bits <= 31; bits += bits < 28 ? 10 : 1) {
                for (uint32_t n = 0; n < 20; n++) {
                    test_any_small_index_keeps_every_entry(slots, (uint64_t)1 << bits, homes);
                }
            }
        }
    }
    test_glance_tells_the_slot();
    test_absence_is_told_by_an_empty_slot_near_home();
    test_index_without_memory_has_nothing();
    return check_done("test_index");
}
