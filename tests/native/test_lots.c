/* Four numbers at once. Of the two builds that run.sh makes of each test, one has what other processors do. */
#include "check.h"

#ifdef NEARCACHE_MAPPED
#undef __SSE2__
#endif

#include "nearcache/lots.h"

static void test_bits_and_first_of_every_mask(void)
{
    for (uint32_t bits = 0; bits < 1u << LOT; bits++) {
        ints_t is = {0};
        for (uint32_t i = 0; i < LOT; i++) {
            is[i] = (bits >> i & 1) != 0 ? -1 : 0;
        }
        CHECK(lot_bits(is) == bits);
        CHECK(lot_first(is) == (bits != 0 ? (uint32_t)__builtin_ctz(bits) : LOT));
    }
}

static void test_pick_takes_each_number_from_its_side(void)
{
    ints_t picked = ints_pick((ints_t){-1, 0, 0, -1}, (ints_t){1, 2, 3, 4}, (ints_t){5, 6, 7, 8});

    CHECK(picked[0] == 1 && picked[1] == 6 && picked[2] == 7 && picked[3] == 4);
}

/* Ties go to the first; numbers from one end to the other. */
static void test_least(void)
{
    static const int32_t values[] = {INT32_MIN, -1, 0, 1, 2, INT32_MAX};
    const uint32_t count = sizeof values / sizeof *values;

    for (uint32_t n = 0; n < count * count * count * count; n++) {
        ints_t rank = {values[n % count], values[n / count % count], values[n / count / count % count],
                       values[n / count / count / count]};
        uint32_t least = 0;
        for (uint32_t i = 1; i < LOT; i++) {
            least = rank[i] < rank[least] ? i : least;
        }
        CHECK(lot_least(rank) == least);
    }
}

static void test_reading_needs_no_alignment(void)
{
    static const uint32_t numbers[] = {1, 2, 3, 4, 5, 6, 7};

    for (uint32_t from = 0; from < LOT; from++) {
        words_t lot = lot_read(numbers + from);
        CHECK(lot[0] == from + 1 && lot[LOT - 1] == from + LOT);
    }
}

int main(void)
{
    test_bits_and_first_of_every_mask();
    test_pick_takes_each_number_from_its_side();
    test_least();
    test_reading_needs_no_alignment();
    return check_done("test_lots");
}
