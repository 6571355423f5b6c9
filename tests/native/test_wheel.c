/* Tests of wheel.h against a plain list of deadlines: nothing comes early, nothing is forgotten, whatever the steps of time
 * and however far away the deadlines are. */

#include "check.h"

#include "nearcache/wheel.h"

enum { KEYS = 400 };

#define DAY_NS ((int64_t)86400 * 1000000000)
#define YEAR_NS (365 * DAY_NS)

static table_t table;
static wheel_t wheel;
static uint32_t refs[KEYS]; /* by key; 0: not there */
static int64_t now_ns;

static void begin(int64_t instant_ns)
{
    now_ns = instant_ns;
    memset(refs, 0, sizeof refs);
    table_init(&table, 1, 3);
    wheel_init(&wheel);
}

static void end(void)
{
    table_free_memory(&table);
    wheel_free_memory(&wheel);
    CHECK(alloc_live == 0);
}

static void insert(uint32_t key, int64_t deadline_ns)
{
    uint32_t capacity = table_is_full(&table) ? table_next_capacity(&table, UINT32_MAX) : table.capacity;
    uint32_t used = table.used;
    int64_t before_ns;

    CHECK(refs[key] == 0 && wheel_reserve(&wheel, capacity, table.used) == 0 && table_reserve(&table, UINT32_MAX) == 0);
    refs[key] = table_insert(&table, key_of(key), key_of(key), table_tag(&table, (int64_t)key));
    before_ns = refs[key] > used ? WHEEL_NEW : table.slab[refs[key]].deadline_ns;
    table.slab[refs[key]].deadline_ns = deadline_ns;
    wheel_schedule(&wheel, refs[key], before_ns, deadline_ns);
}

static void move(uint32_t key, int64_t deadline_ns)
{
    int64_t before_ns = table.slab[refs[key]].deadline_ns;

    table.slab[refs[key]].deadline_ns = deadline_ns;
    wheel_schedule(&wheel, refs[key], before_ns, deadline_ns);
}

/* Every other timer is left behind. */
static void take_out(uint32_t ref)
{
    uint32_t key = number_of(table.slab[ref].key);

    refs[key] = 0;
    if (key % 2 == 0) {
        wheel_remove(&wheel, ref);
    }
    table_remove(&table, ref);
}

/* Take out what the wheel says has expired, `steps` looks at a time. Returns how many that were. */
static uint32_t expire(uint32_t steps, int whole_units)
{
    uint32_t found = 0;
    int is_done = 0;

    while (!is_done) {
        wheel_walk_t walk = {steps, 0, whole_units};
        uint32_t ref;
        while ((ref = wheel_expired(&wheel, table.slab, now_ns, &walk)) != 0) {
            CHECK(table.slab[ref].deadline_ns <= now_ns);
            take_out(ref);
            found++;
        }
        is_done = walk.steps != 0;
    }
    return found;
}

/* How many are there whose deadline is not after this instant? */
static uint32_t overdue(int64_t instant_ns)
{
    uint32_t count = 0;

    for (uint32_t key = 0; key < KEYS; key++) {
        count += refs[key] != 0 && table.slab[refs[key]].deadline_ns <= instant_ns;
    }
    return count;
}

static int64_t any_deadline(void)
{
    return random_below(20) == 0 ? CLOCK_NEVER_NS : clock_deadline(now_ns, random_span(61));
}

/* Some new entries, some gone, some with another deadline, which may be past already unless `past` is 0. */
static void churn(uint32_t times, int past)
{
    for (uint32_t i = 0; i < times; i++) {
        uint32_t key = random_below(KEYS);
        if (refs[key] == 0) {
            insert(key, any_deadline());
        } else if (random_below(4) == 0) {
            take_out(refs[key]);
        } else {
            move(key, past && random_below(10) == 0 ? now_ns - random_span(30) : any_deadline());
        }
    }
}

/* -- never early, never late ------------------------------------------------------------------------------ */

static void test_random_times_expire_exactly(int64_t instant_ns, uint32_t most)
{
    begin(instant_ns);
    for (int round = 0; round < 3000; round++) {
        churn(8, 1);
        WHOLE(wheel_check(&wheel, &table));
        if (now_ns < INT64_MAX / 2) {
            now_ns += random_span(most);
        }
        uint32_t due = overdue(now_ns);
        CHECK(expire(UINT32_MAX, 0) == due && overdue(now_ns) == 0);
        WHOLE(wheel_check(&wheel, &table));
    }
    end();
}

/* In whole units nothing of a unit that is over is left, and nothing of the present one is touched. */
static void test_whole_units_leave_only_the_present_one(void)
{
    begin(5 * DAY_NS);
    for (int round = 0; round < 2000; round++) {
        int64_t over_ns;
        uint32_t due;
        churn(10, 0);
        now_ns += random_span(40);
        over_ns = (int64_t)(wheel_unit_of(now_ns) << WHEEL_UNIT) - 1;
        due = overdue(over_ns);
        CHECK(expire(7, 1) >= due && overdue(over_ns) == 0);
        uint32_t slot = (uint32_t)wheel.unit & (WHEEL_SLOTS - 1);
        for (uint32_t ref = 1; wheel_is_taken(&wheel, slot) && ref != 0;) {
            ref = wheel_due_in(&wheel, table.slab, slot, now_ns, 0);
            if (ref != 0) {
                CHECK(table.slab[ref].deadline_ns <= now_ns);
                take_out(ref);
            }
        }
        CHECK(overdue(now_ns) == 0);
        WHOLE(wheel_check(&wheel, &table));
    }
    end();
}

static void test_clock_set_back_expires_nothing_early_and_all_later(void)
{
    begin(YEAR_NS);
    for (int round = 0; round < 1000; round++) {
        churn(10, 1);
        now_ns += round % 2 == 0 ? random_span(45) : -random_span(44);
        uint32_t due = overdue(now_ns);
        CHECK(expire(UINT32_MAX, 0) == due && overdue(now_ns) == 0);
        WHOLE(wheel_check(&wheel, &table));
    }
    end();
}

/* -- far away --------------------------------------------------------------------------------------------- */

/* One walk of three steps, as a store takes. */
static uint32_t walk_a_little(void)
{
    wheel_walk_t walk = {3, 0, 0};
    uint32_t found = 0;
    uint32_t ref;

    while ((ref = wheel_expired(&wheel, table.slab, now_ns, &walk)) != 0) {
        take_out(ref);
        found++;
    }
    return found;
}

/* At the end of its circle the wheel goes on: a crowd that waits for years does not keep others from expiring. */
static void test_deadline_beyond_the_circle_holds_nobody_up(void)
{
    int64_t round_ns = (int64_t)(WHEEL_TOP_UNITS * WHEEL_SLOTS << WHEEL_UNIT);

    for (int64_t circle = 1; circle < 6; circle++) {
        begin(circle * round_ns - DAY_NS);
        insert(0, CLOCK_NEVER_NS);
        take_out(refs[0]);
        CHECK(walk_a_little() == 0 && wheel.unit == wheel_unit_of(now_ns));
        for (uint32_t key = 2; key < KEYS; key++) {
            insert(key, now_ns + 20 * round_ns);
        }
        insert(0, now_ns + 2 * DAY_NS);
        insert(1, now_ns + DAY_NS / 2);
        for (int half_days = 0; half_days < 8; half_days++) {
            now_ns += DAY_NS / 2;
            for (int walks = 0; walks < 8; walks++) {
                (void)walk_a_little();
            }
            CHECK(overdue(now_ns) == 0 && table.count >= KEYS - 2);
            WHOLE(wheel_check(&wheel, &table));
        }
        CHECK(refs[0] == 0 && refs[1] == 0);
        now_ns += 21 * round_ns;
        CHECK(expire(UINT32_MAX, 0) == KEYS - 2);
        end();
    }
}

/* -- due or not ------------------------------------------------------------------------------------------- */

/* The first unit in which an entry is due, of those that are listed. */
static uint64_t first_due(void)
{
    uint64_t first = UINT64_MAX;

    for (uint32_t key = 0; key < KEYS; key++) {
        if (refs[key] != 0 && table.slab[refs[key]].deadline_ns != CLOCK_NEVER_NS) {
            uint64_t due = wheel_unit_of(table.slab[refs[key]].deadline_ns);
            first = due < first ? due : first;
        }
    }
    return first < wheel.unit ? wheel.unit : first;
}

/* Nothing is due only when no walk would find anything; and when something is, a walk has something to do. */
static void test_wheel_that_is_not_due_misses_nothing(int64_t instant_ns, uint32_t most, uint32_t churned)
{
    uint32_t waited = 0;

    begin(instant_ns);
    for (int round = 0; round < 6000; round++) {
        int is_due;
        churn(churned, round % 8 == 0);
        now_ns += now_ns < INT64_MAX / 2 ? random_span(most) : 0;
        CHECK(wheel.timers == NULL || (wheel_next(&wheel) <= first_due() && wheel.next <= wheel_next(&wheel)));
        is_due = wheel_is_due(&wheel, now_ns);
        CHECK(is_due || overdue(now_ns) == 0);
        if (is_due && round % 3 != 0) {
            wheel_walk_t walk = {3, 0, 0};
            uint32_t ref;
            while ((ref = wheel_expired(&wheel, table.slab, now_ns, &walk)) != 0) {
                take_out(ref);
            }
            CHECK(walk.steps < 3);
        }
        if (!is_due) {
            waited++;
            CHECK(expire(UINT32_MAX, 0) == 0);
        }
        WHOLE(wheel_check(&wheel, &table));
    }
    CHECK(waited != 0 || most > 40);
    end();
}

/* One far entry after the other, near the end of the circle, with steps as large as its slots. */
static void test_wheel_is_due_across_the_end_of_the_circle(void)
{
    int64_t slot_ns = (int64_t)WHEEL_TOP_UNITS << WHEEL_UNIT;

    for (int64_t start = 60; start < 68; start++) {
        for (int64_t ahead = 1; ahead < 140; ahead++) {
            int64_t steps = 0;
            begin(start * slot_ns + slot_ns / 3);
            insert(0, CLOCK_NEVER_NS - 1);
            (void)walk_a_little(); /* bring the wheel to this instant */
            insert(1, now_ns + ahead * slot_ns - 1);
            while (refs[1] != 0) {
                now_ns += slot_ns / 2;
                CHECK(++steps <= 2 * ahead);
                if (wheel_is_due(&wheel, now_ns)) {
                    (void)expire(UINT32_MAX, 0);
                }
                CHECK(overdue(now_ns) == 0 && refs[0] != 0);
            }
            CHECK(steps == 2 * ahead);
            end();
        }
    }
}

/* -- put off ---------------------------------------------------------------------------------------------- */

static void test_deadline_put_off_does_not_move_the_entry_until_its_old_time(void)
{
    link_t before;

    begin(DAY_NS);
    insert(0, now_ns + 1000000000);
    before = wheel.timers[refs[0]];
    for (int64_t seconds = 2; seconds < 1000; seconds++) {
        move(0, now_ns + seconds * 1000000000);
        CHECK(memcmp(&wheel.timers[refs[0]], &before, sizeof before) == 0);
    }
    now_ns += 998 * (int64_t)1000000000;
    CHECK(expire(UINT32_MAX, 0) == 0);
    now_ns += 1000000000;
    CHECK(expire(UINT32_MAX, 0) == 1);
    end();
}

static void test_deadline_brought_forward_or_taken_away_is_heeded(void)
{
    begin(DAY_NS);
    insert(0, now_ns + 100 * DAY_NS);
    insert(1, now_ns + 1000);
    move(0, now_ns + 1000);
    move(1, CLOCK_NEVER_NS);
    CHECK(wheel.timers[refs[1]].next == 0);
    now_ns += YEAR_NS;
    CHECK(expire(UINT32_MAX, 0) == 1 && refs[0] == 0);
    move(1, now_ns - 1); /* in the past: at once */
    CHECK(expire(UINT32_MAX, 0) == 1);
    end();
}

/* -- cost ------------------------------------------------------------------------------------------------- */

/* A walk of n steps looks at n entries at most, whether they have expired, are put off or are dealt out. */
static void test_walk_never_takes_more_than_its_steps(void)
{
    uint32_t walks = 0;

    begin(1000);
    for (uint32_t key = 0; key < KEYS; key++) {
        insert(key, now_ns + 30 * DAY_NS + (int64_t)key * 1000);
    }
    for (now_ns += 31 * DAY_NS; table.count != 0; walks++) {
        CHECK(walk_a_little() <= 3);
        CHECK(walks < 6 * KEYS / 3);
        WHOLE(wheel_check(&wheel, &table));
    }
    end();
}

/* In the present unit each entry is looked at once a walk, in turn. */
static void test_walk_in_the_present_unit_ends_when_all_were_seen(void)
{
    wheel_walk_t walk = {1000, 0, 0};

    begin((int64_t)7 << WHEEL_UNIT);
    for (uint32_t key = 0; key < 10; key++) {
        insert(key, now_ns + 500 + (int64_t)key);
    }
    now_ns += 100;
    CHECK(wheel_expired(&wheel, table.slab, now_ns, &walk) == 0);
    CHECK(walk.steps >= 1000 - 21); /* from the upper level, once round, and the first one again */
    now_ns += 405;
    CHECK(expire(1000, 0) == 6 && overdue(now_ns) == 0);
    end();
}

/* -- moved with its entry --------------------------------------------------------------------------------- */

static void test_relocated_entry_keeps_its_time(void)
{
    begin(DAY_NS);
    for (uint32_t key = 0; key < KEYS; key++) {
        insert(key, now_ns + (int64_t)(key % 7) * DAY_NS + 1);
    }
    for (uint32_t key = 0; key < KEYS / 2; key++) {
        take_out(refs[key]);
    }
    for (uint32_t key = KEYS - 1; key >= KEYS / 2 + 100; key--) {
        uint32_t from = refs[key];
        refs[key] = table_relocate(&table, from);
        wheel_relocate(&wheel, from, refs[key]);
        WHOLE(wheel_check(&wheel, &table));
    }
    for (int day = 0; day < 8; day++, now_ns += DAY_NS) {
        uint32_t due = overdue(now_ns);
        CHECK(expire(UINT32_MAX, 0) == due);
    }
    CHECK(table.count == 0);
    end();
}

static void test_wheel_without_timers_does_nothing(void)
{
    wheel_walk_t walk = {10, 0, 0};

    begin(DAY_NS);
    wheel_schedule(&wheel, 1, WHEEL_NEW, CLOCK_NEVER_NS);
    wheel_remove(&wheel, 1);
    wheel_relocate(&wheel, 2, 1);
    CHECK(wheel_expired(&wheel, NULL, now_ns, &walk) == 0 && !wheel_is_taken(&wheel, 0));
    end();
}

int main(void)
{
    test_random_times_expire_exactly(1000, 20);
    test_random_times_expire_exactly(1000, 44);
    test_random_times_expire_exactly(40 * DAY_NS, 52);
    test_random_times_expire_exactly(3 * YEAR_NS, 56);
    test_whole_units_leave_only_the_present_one();
    test_clock_set_back_expires_nothing_early_and_all_later();
    test_deadline_beyond_the_circle_holds_nobody_up();
    test_wheel_that_is_not_due_misses_nothing(1000, 20, 1);
    test_wheel_that_is_not_due_misses_nothing(YEAR_NS, 30, 1);
    test_wheel_that_is_not_due_misses_nothing(40 * DAY_NS, 44, 4);
    test_wheel_that_is_not_due_misses_nothing(40 * DAY_NS, 52, 2);
    test_wheel_that_is_not_due_misses_nothing(3 * YEAR_NS, 57, 2);
    test_wheel_is_due_across_the_end_of_the_circle();
    test_deadline_put_off_does_not_move_the_entry_until_its_old_time();
    test_deadline_brought_forward_or_taken_away_is_heeded();
    test_walk_never_takes_more_than_its_steps();
    test_walk_in_the_present_unit_ends_when_all_were_seen();
    test_relocated_entry_keeps_its_time();
    test_wheel_without_timers_does_nothing();
    return check_done("test_wheel");
}
