/* Tests of worth.h: histories saturate, every age has its bucket, and what follows from them is a number. */

#include "check.h"

#include "nearcache/worth.h"

static worth_t worth;

static void begin(uint32_t entries)
{
    memset(&worth, 0, sizeof worth);
    (void)worth_scale(&worth, entries);
}

static const uint32_t edges[] = {0, 1, 2, 3, HISTORY_TIME - 1u, HISTORY_TIME};

/* A history of that age and class. */
static uint32_t history_of(uint32_t age, uint32_t uses, uint32_t gap, uint32_t flags)
{
    return ((worth_clock(&worth) - age) & HISTORY_TIME) | gap << HISTORY_GAP | uses << HISTORY_USES | flags;
}

static float worth_of_one(uint32_t history, float newcomers)
{
    return worth_of(&worth, (words_t){history}, newcomers)[0];
}

static int32_t rank_of_one(uint32_t history, float newcomers)
{
    return worth_ranks(&worth, (words_t){history}, newcomers)[0];
}

/* Ranks put histories in the order of their worths, and of those that are worth nothing the younger first. */
static void check_order(uint32_t a, uint32_t b, float newcomers)
{
    float of_a = worth_of_one(a, newcomers);
    float of_b = worth_of_one(b, newcomers);
    int comes_first = rank_of_one(a, newcomers) < rank_of_one(b, newcomers);

    CHECK(comes_first || !(of_a + 1e-18F < of_b)); /* a trifle is less than that */
    CHECK(of_a != 0.0F || of_b != 0.0F || comes_first == (worth_age(&worth, a) < worth_age(&worth, b)));
    CHECK(rank_of_one(a & ~(7u << HISTORY_USES), newcomers) == WORTH_NOBODY);
}

static void check_numbers(void)
{
    for (uint32_t uses = 1; uses < 8; uses++) {
        for (uint32_t gap = 0; gap < 128; gap++) {
            for (uint32_t i = 0; i < sizeof edges / sizeof *edges; i++) {
                uint32_t old = history_of(edges[i], uses, gap, 0);
                float of_old = worth_of_one(old, 0.3F);
                float of_new = worth_of_one(old | HISTORY_NEW, 0.3F);
                CHECK(worth_class(old) < WORTH_CLASSES && worth_age(&worth, old) == edges[i]);
                CHECK(of_old >= 0.0F && of_old < 1e9F);
                CHECK(of_new == of_old * 0.3F);
                CHECK(worth_of_one(old, WORTH_LRU) == (float)HISTORY_TIME - (float)edges[i]);
                CHECK(rank_of_one(old, 0.3F) >= 0 && rank_of_one(old, 0.3F) != WORTH_NOBODY);
                check_order(old, history_of(edges[(i + 7) % (sizeof edges / sizeof *edges)], 1 + uses % 7, gap, 0), 0.3F);
                check_order(old, history_of(edges[(i + 3) % (sizeof edges / sizeof *edges)], uses, gap, 0), WORTH_LRU);
            }
        }
    }
}

static void test_every_age_lies_within_its_bucket(void)
{
    uint32_t bucket = 0;
    uint32_t gap = 0;

    for (uint32_t age = 0; age <= HISTORY_TIME; age++) {
        CHECK(worth_bucket(age) >= bucket && worth_log_gap(age) >= gap);
        bucket = worth_bucket(age);
        gap = worth_log_gap(age);
        CHECK(bucket < WORTH_AGES && gap < 128);
        CHECK(worth_edge(bucket) <= (float)age && (float)age < worth_edge(bucket + 1));
    }
    CHECK(worth_bucket(0) == 0 && worth_bucket(1) == 1);
    CHECK(worth_bucket(UINT32_MAX) == WORTH_AGES - 1);
}

static void test_histories_saturate(void)
{
    uint32_t history;

    begin(1);
    history = worth_meet(&worth, HISTORY_NEW | HISTORY_TEACHES | HISTORY_SHADOWED, 1);
    CHECK(history_uses(history) == 1 && history_gap(history) == 0 && worth_age(&worth, history) == 1);
    CHECK(worth.fresh[0] == 1.0F);
    CHECK(worth_meet(&worth, 0, 0) != 0 && worth.fresh[0] == 1.0F); /* one that does not teach */
    history = worth_meet(&worth, HISTORY_NEW | HISTORY_TEACHES | HISTORY_SHADOWED, 1);
    for (uint32_t i = 2; i < 100; i++) {
        history = worth_learn(&worth, history, HISTORY_NEW | HISTORY_TEACHES | HISTORY_SHADOWED);
        CHECK(history_uses(history) == (i < 7 ? i : 7));
        CHECK(history_gap(history) < 128 && worth_class(history) < WORTH_CLASSES);
        CHECK((history & ~(HISTORY_TIME | 127u << HISTORY_GAP | 7u << HISTORY_USES)) >> 29 == 7);
        worth.now += i % 3 == 0 ? HISTORY_TIME - 1u : 0; /* as late as can be told */
    }
}

static void test_worth_of_any_history_is_a_number(void)
{
    static const uint32_t sizes[] = {1, 2, 63, 64, 65, 128, 100000, 0x7fffffffu};

    for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint32_t history[64] = {0};
        begin(sizes[i]);
        check_numbers();
        for (uint32_t n = 0; n < 20000; n++) {
            uint32_t which = random_below(1 + random_below(64));
            history[which] = history[which] != 0 ? worth_learn(&worth, history[which], 0) : worth_meet(&worth, 0, 1);
            worth.now += (uint64_t)random_span(random_below(20) == 0 ? 40 : 1 + worth.shift);
            worth_refresh(&worth);
        }
        check_numbers();
        worth.now += (uint64_t)1 << 62; /* all has faded */
        for (uint32_t class = 0; class < WORTH_CLASSES; class++) {
            worth_appraise(&worth, class);
        }
        check_numbers();
    }
}

/* Those that are ranked together get the ranks that they have by themselves. */
static void test_ranks_do_not_depend_on_who_is_ranked_beside(void)
{
    static const float newcomers[] = {1.0F, 0.3F, WORTH_LRU};

    begin(5000);
    for (uint32_t n = 0; n < 100000; n++) {
        words_t history;
        ints_t rank;
        for (uint32_t i = 0; i < LOT; i++) {
            history[i] = history_of(random_below(1u << random_below(20)), random_below(8), random_below(128),
                                    random_below(2) != 0 ? HISTORY_NEW : 0);
        }
        history[random_below(LOT)] = worth_learn(&worth, history_of(random_below(100), 1, 0, 0), 0);
        worth_refresh(&worth);
        rank = worth_ranks(&worth, history, newcomers[n % 3]);
        for (uint32_t i = 0; i < LOT; i++) {
            CHECK(rank[i] == rank_of_one(history[i], newcomers[n % 3]));
        }
    }
}

/* The clock is slower for a large cache, and never goes faster again. */
static void test_clock_slows_down_with_size_and_stays_slow(void)
{
    begin(64);
    CHECK(worth.shift == 0);
    CHECK(worth_scale(&worth, 64 * 1024) == 10 && worth.shift == 10);
    CHECK(worth_scale(&worth, 64 * 1024) == 0);
    CHECK(worth_scale(&worth, 1) == 0 && worth.shift == 10);
    CHECK(worth_scale(&worth, 64 * 4096) == 2 && worth.shift == 12);
}

/* What comes back after one age only is worth most just before that age, and less once it is over. */
static void test_certain_return_makes_worth_rise_until_it_is_due(void)
{
    uint32_t gap;
    float young, due, over;

    begin(1000);
    for (uint32_t n = 0; n < 4000; n++) {
        uint32_t history = history_of(100, 2, worth_log_gap(100), 0);
        (void)worth_learn(&worth, history, 0);
        worth_refresh(&worth);
    }
    gap = worth_log_gap(100);
    young = worth_of_one(history_of(2, 3, gap, 0), 1.0F);
    due = worth_of_one(history_of(90, 3, gap, 0), 1.0F);
    over = worth_of_one(history_of(2000, 3, gap, 0), 1.0F);
    CHECK(due > young && due > over);
}

int main(void)
{
    test_every_age_lies_within_its_bucket();
    test_histories_saturate();
    test_worth_of_any_history_is_a_number();
    test_ranks_do_not_depend_on_who_is_ranked_beside();
    test_clock_slows_down_with_size_and_stays_slow();
    test_certain_return_makes_worth_rise_until_it_is_due();
    return check_done("test_worth");
}
