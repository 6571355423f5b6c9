/* Tests of waiters.h: nobody may wait for himself, through however many others. */

#include "check.h"

#include "nearcache/waiters.h"

enum { THREADS = 40, STEPS = 200000 };

static waiter_t made[THREADS];

static waiter_t *waiter(uint64_t thread, uint64_t awaited)
{
    made[thread] = (waiter_t){.thread = thread, .awaited = awaited};
    return &made[thread];
}

static void test_circle_of_any_length_is_refused(void)
{
    for (uint64_t length = 1; length < THREADS; length++) {
        waiters_t list = {NULL, 1};
        for (uint64_t i = 0; i + 1 < length; i++) {
            CHECK(waiters_add(&list, waiter(i, i + 1), 1));
        }
        CHECK(!waiters_add(&list, waiter(length - 1, 0), 1));
        waiters_remove(&list, &made[length - 1]); /* not there */
        for (uint64_t i = 0; i + 1 < length; i++) {
            waiters_remove(&list, &made[i]);
        }
        CHECK(list.first == NULL);
    }
}

/* It would be followed along one of its links, and the other could close a circle. */
static void test_thread_that_waits_already_is_refused_until_it_does_not(void)
{
    waiters_t list = {NULL, 1};
    waiter_t again = {.thread = 1, .awaited = 3};

    CHECK(waiters_add(&list, waiter(1, 2), 1));
    CHECK(!waiters_add(&list, &again, 1));
    CHECK(!waiters_add(&list, waiter(2, 1), 1));
    CHECK(waiters_add(&list, waiter(3, 1), 1));
    waiters_remove(&list, &again); /* not there */
    waiters_remove(&list, &made[3]);
    CHECK(list.first == &made[1] && made[1].next == NULL);
    waiters_remove(&list, &made[1]);
    CHECK(waiters_add(&list, &again, 1) && waiters_add(&list, waiter(2, 1), 1));
}

static void test_fork_forgets_the_threads_of_the_parent(void)
{
    waiters_t list = {NULL, 1};

    CHECK(waiters_add(&list, waiter(1, 2), 1));
    CHECK(!waiters_add(&list, waiter(2, 1), 1));
    CHECK(waiters_add(&list, waiter(2, 1), 2));
    CHECK(list.first == &made[2] && made[2].next == NULL);
}

/* Against a model: an array of who waits for whom. */
static void test_random_waits_agree_with_a_model(void)
{
    waiters_t list = {NULL, 1};
    int64_t awaited[THREADS];
    uint64_t random = 88172645463325252u;

    for (int i = 0; i < THREADS; i++) {
        awaited[i] = -1;
    }
    for (int step = 0; step < STEPS; step++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        uint64_t one = random % THREADS;
        uint64_t two = random / THREADS % THREADS;
        if (awaited[one] >= 0) {
            waiters_remove(&list, &made[one]);
            awaited[one] = -1;
            continue;
        }
        int64_t at = (int64_t)two;
        while (at >= 0 && at != (int64_t)one) {
            at = awaited[at];
        }
        CHECK(waiters_add(&list, waiter(one, two), 1) == (at < 0));
        if (at < 0) {
            awaited[one] = (int64_t)two;
        }
    }
}

int main(void)
{
    test_circle_of_any_length_is_refused();
    test_thread_that_waits_already_is_refused_until_it_does_not();
    test_fork_forgets_the_threads_of_the_parent();
    test_random_waits_agree_with_a_model();
    return 0;
}
