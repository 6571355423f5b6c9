/* Tests of notes.h and of what order.h makes of it: readers with notes of their own, as on a build without a GIL. */

#define NEARCACHE_THREADS 1

#include "model.h"

enum { KEYS = 8 };

static table_t table;
static order_t order;
static uint32_t refs[KEYS];

static void begin(void)
{
    table_init(&table, 1, 3);
    order_init(&order);
    for (uint32_t key = 0; key < KEYS; key++) {
        if (table_is_full(&table)) {
            CHECK(order_reserve(&order, table_next_capacity(&table, UINT32_MAX), UINT32_MAX) == 0);
            CHECK(table_reserve(&table, UINT32_MAX) == 0);
        }
        refs[key] = table_insert(&table, key_of(key), key_of(key), table_tag(&table, (int64_t)key));
        order_insert(&order, refs[key], table.details[refs[key]].tag);
    }
}

static void end(void)
{
    table_free_memory(&table);
    order_free_memory(&order);
    CHECK(alloc_live == 0);
}

/* Two readers, until both have notes. */
static void take_turns_in(readers_t *readers, uint32_t one, uint32_t other)
{
    for (int turn = 0; turn <= NOTES_TURNS; turn++) {
        readers_welcome(readers, one);
        readers_welcome(readers, other);
    }
    readers_open(readers);
}

static void take_turns(uint32_t one, uint32_t other)
{
    take_turns_in(&order.readers, one, other);
}

static void test_one_reader_alone_never_gets_notes(void)
{
    begin();
    for (int turn = 0; turn < 10 * NOTES_TURNS; turn++) {
        readers_welcome(&order.readers, 3);
    }
    CHECK(notes_of(&order.readers, 3) == NULL && readers_memory(&order.readers) == 0);
    end();
}

static void test_readers_who_take_turns_get_notes_of_their_own(void)
{
    size_t before;

    begin();
    before = order_memory(&order);
    take_turns(1, 2);
    CHECK(notes_of(&order.readers, 1) != NULL && notes_of(&order.readers, 2) != NULL);
    CHECK(notes_of(&order.readers, 1) != notes_of(&order.readers, 2) && notes_of(&order.readers, 3) == NULL);
    CHECK(notes_of(&order.readers, 1 + NOTES_READERS) == notes_of(&order.readers, 1));
    CHECK(order_memory(&order) == before + 2 * sizeof(notes_t));
    end();
}

static void test_writer_closes_notes_reader_reads_again_when_they_are_open(void)
{
    notes_t *notes;
    notes_t *others;

    begin();
    take_turns(1, 2);
    notes = notes_of(&order.readers, 1);
    others = notes_of(&order.readers, 2);
    CHECK(notes_enter(notes) && !notes_enter(notes)); /* nor does another thread that has the same */
    CHECK(notes_enter(others));
    notes_leave(notes);
    notes_leave(others);
    readers_close(&order.readers);
    CHECK(notes->state == NOTES_CLOSED && others->state == NOTES_CLOSED && !notes_enter(notes));
    readers_open(&order.readers);
    notes_claim_surely(notes, NOTES_BUSY);
    CHECK(!notes_enter(notes) && notes_enter(others));
    end();
}

static void test_new_notes_are_closed_like_all_while_somebody_has_the_lock(void)
{
    begin();
    for (int turn = 0; turn <= NOTES_TURNS; turn++) {
        readers_welcome(&order.readers, 1);
        readers_welcome(&order.readers, 2);
    }
    CHECK(notes_of(&order.readers, 1)->state == NOTES_CLOSED);
    readers_open(&order.readers);
    CHECK(notes_enter(notes_of(&order.readers, 1)));
    end();
}

static void test_lock_of_a_byte_is_taken_once_whoever_waits_for_it(void)
{
    uint8_t lock = 0;

    CHECK(notes_try_lock(&lock) && lock == 1 && !notes_try_lock(&lock) && !notes_await_lock(&lock));
    notes_unlock(&lock);
    CHECK(notes_await_lock(&lock));
    lock = 2; /* somebody is parked, and nobody has it */
    CHECK(notes_await_lock(&lock) && lock == 3 && !notes_try_lock(&lock));
}

static void test_notes_are_filling_now_and_then_and_always_when_full(void)
{
    uint32_t attempts = 0;
    notes_t *notes;

    begin();
    take_turns(1, 2);
    notes = notes_of(&order.readers, 1);
    while (!notes_are_full(notes)) {
        CHECK(notes->count >= NOTES_FILLING || !notes_are_filling(notes));
        attempts += (uint32_t)notes_are_filling(notes);
        order_note(&order, notes, refs[0]);
    }
    CHECK(notes_are_filling(notes) && attempts == (NOTES_RING - NOTES_FILLING) / NOTES_AGAIN + 1);
    end();
}

static void test_notes_are_carried_out_after_the_ring_each_in_its_order(void)
{
    static const uint32_t wanted[KEYS] = {3, 5, 6, 7, 0, 2, 1, 4}; /* the least recently used first */
    uint64_t misses = 0;
    uint32_t ref;

    begin();
    take_turns(1, 2);
    order_note(&order, notes_of(&order.readers, 2), refs[1]);
    order_note(&order, notes_of(&order.readers, 2), refs[4]);
    notes_of(&order.readers, 2)->misses = 7;
    order_touch(&order, refs[0]);
    order_note(&order, notes_of(&order.readers, 1), refs[2]);
    WHOLE(order_check(&order, &table));
    CHECK(order_is_noted(&order) && order_noted(&order, &misses) == 4 && misses == 7);
    order_settle(&order, table.details);
    CHECK(order_noted(&order, &misses) == 0 && misses == 7);
    WHOLE(order_check(&order, &table));
    ref = order_first(&order);
    for (uint32_t i = 0; i < KEYS; i++) {
        CHECK(ref == refs[wanted[i]]);
        ref = order_following(&order, ref);
    }
    end();
}

static void test_full_notes_want_settling(void)
{
    notes_t *notes;

    begin();
    take_turns(1, 2);
    notes = notes_of(&order.readers, 2);
    while (!notes_are_full(notes)) {
        CHECK(!order_wants_settling(&order));
        order_note(&order, notes, refs[notes->count % KEYS]);
    }
    CHECK(order_wants_settling(&order));
    order_settle(&order, table.details);
    CHECK(notes->count == 0 && !order_wants_settling(&order));
    notes->ring[notes->count++] = table.used + 1;
    CHECK(order_check(&order, &table) != NULL);
    order_clear(&order);
    CHECK(notes->count == 0);
    end();
}

static void test_overwriting_is_noted_where_the_writer_notes_and_is_no_hit(void)
{
    static rig_t rig;
    core_t *core = &rig.core;
    uint64_t misses = 0;
    notes_t *notes, *others;
    void *value;
    uint32_t ref;

    CHECK(rig_init(&rig, NULL, UINT64_MAX, 0) == 0);
    CHECK(rig_store(&rig, 1, 0, CLOCK_NEVER_NS) == STORED_NEW);
    ref = rig_find(&rig, 1);
    take_turns_in(&core->order.readers, 1, 2);
    notes = notes_of(&core->order.readers, 1);
    others = notes_of(&core->order.readers, 2);
    order_note(&core->order, others, ref);
    value = key_of(1);
    CHECK(core_overwrite(core, &core->table.slab[ref], &value, CLOCK_NEVER_NS, 1000, notes) && value == rig.held[1].value);
    CHECK(notes->count == 1 && others->count == 1 && core->order.touches == 0);
    while (!notes_are_full(notes)) {
        order_note(&core->order, notes, ref);
    }
    CHECK(core_overwrite(core, &core->table.slab[ref], &value, CLOCK_NEVER_NS, 1000, notes) && value == key_of(1));
    CHECK(notes->count == 1 && others->count == 1);
    CHECK(core->counters.hits + order_noted(&core->order, &misses) == NOTES_RING);
    rig_free(&rig);
    CHECK(alloc_live == 0);
}

int main(void)
{
    test_one_reader_alone_never_gets_notes();
    test_readers_who_take_turns_get_notes_of_their_own();
    test_writer_closes_notes_reader_reads_again_when_they_are_open();
    test_new_notes_are_closed_like_all_while_somebody_has_the_lock();
    test_lock_of_a_byte_is_taken_once_whoever_waits_for_it();
    test_notes_are_filling_now_and_then_and_always_when_full();
    test_notes_are_carried_out_after_the_ring_each_in_its_order();
    test_full_notes_want_settling();
    test_overwriting_is_noted_where_the_writer_notes_and_is_no_hit();
    return check_done("test_notes");
}
