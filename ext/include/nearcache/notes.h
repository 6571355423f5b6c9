/* notes.h: how several threads read one core at the same time, where there is no interpreter lock (NEARCACHE_THREADS).
 *
 *     thread 1 ---> notes[1]   busy, misses, ring of hits  --.
 *     thread 2 ---> notes[2]   busy, misses, ring of hits  --+--> carried out by whoever holds the core's lock
 *                                                            '    before he looks at the order or changes anything
 *
 * A hit changes nothing but what is noted of it. With one lock and one ring for a core, all threads would write to the same
 * lines of memory, and a line that another processor has written to takes as long to get as the rest of a hit. So a thread
 * gets notes of its own in a core in which threads take turns. A reader makes his notes `busy` and then looks at the core's
 * lock: if nobody holds it he may read. A writer takes the lock and then waits until nobody is busy. Both do these two
 * things in the one order that all processors agree on, so at least one of them sees the other (Dekker). It is the reader
 * who steps back, and begins anew with the lock in hand, which he lets go as soon as he has begun.
 *
 * Readers are busy for some ten nanoseconds, and neither wait nor run Python meanwhile, so a writer does not wait for long;
 * he stays attached to the interpreter, which therefore never stops all threads, or forks, while he waits.
 *
 * Notes that are full are carried out by their owner, for which he need not know the others': the order of eviction is
 * read by nobody who has not got the lock.
 *
 * The notes of one thread are carried out in the order in which they were made, those of several one thread after the other.
 * The core's own ring comes first: who notes in that has had the others' carried out before.
 */
#ifndef NEARCACHE_NOTES_H
#define NEARCACHE_NOTES_H

#include <sched.h>

#include "memory.h"

enum {
    NOTES_READERS = 8, /* of a core; with more threads some share notes, and wait for each other */
    NOTES_RING = 252,  /* so that notes are sixteen lines */
    NOTES_TURNS = 32   /* so often another thread has come before anybody gets notes */
};

typedef struct {
    uint8_t busy; /* atomic */
    uint32_t count;
    uint64_t misses;
    uint32_t ring[NOTES_RING];
} notes_t;

_Static_assert(sizeof(notes_t) == 16 * MEMORY_LINE, "no two threads' notes share a line");

/* All notes of a core. Changed by who holds its lock. */
typedef struct {
    notes_t *of[NOTES_READERS]; /* atomic: NULL, and then for good what was made */
    uint32_t readers;           /* there are none from here on */
    uint32_t turns;
    uint32_t last;   /* the reader who came last without notes */
    uint32_t is_far; /* what carrying out a note will need is worth asking for: see order_note */
} readers_t;

static inline int notes_are_full(const notes_t *notes)
{
    return notes->count == NOTES_RING;
}

/* -- the reader ------------------------------------------------------------------------------------------- */

/* The notes of this reader; NULL: he has none. */
static inline notes_t *notes_of(const readers_t *all, uint32_t reader)
{
    return __atomic_load_n(&all->of[reader % NOTES_READERS], __ATOMIC_ACQUIRE);
}

/* Begin to read, unless another thread that has the same notes does, or somebody holds the core's lock, of which one bit
 * says so. */
static inline int notes_enter(notes_t *notes, const uint8_t *lock)
{
    if (__atomic_exchange_n(&notes->busy, 1, __ATOMIC_SEQ_CST) != 0) {
        return 0;
    }
    if ((__atomic_load_n(lock, __ATOMIC_SEQ_CST) & 1u) != 0) {
        __atomic_store_n(&notes->busy, 0, __ATOMIC_RELEASE);
        return 0;
    }
    return 1;
}

/* Begin to read; the caller holds the lock, and lets it go then. Another who has these notes is about to leave. */
static inline void notes_take(notes_t *notes)
{
    uint32_t looks = 0;

    while (__atomic_exchange_n(&notes->busy, 1, __ATOMIC_SEQ_CST) != 0) {
        if (++looks % 64 == 0) {
            sched_yield();
        }
    }
}

/* Who reads, and whose notes are full, may take the lock if nobody has it: to carry them out while others that read go
 * on, except that none begins. He does not wait for it, for a writer may be waiting for him. */
static inline int notes_may_lock(uint8_t *lock)
{
    uint8_t nobody = 0;
    return __atomic_compare_exchange_n(lock, &nobody, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static inline void notes_leave(notes_t *notes)
{
    __atomic_store_n(&notes->busy, 0, __ATOMIC_RELEASE);
}

/* -- who holds the lock ----------------------------------------------------------------------------------- */

/* All notes, one after the other; `*at` begins with 0. NULL ends. */
static inline notes_t *readers_next(const readers_t *all, uint32_t *at)
{
    while (*at < all->readers) {
        notes_t *notes = all->of[(*at)++];
        if (notes != NULL) {
            return notes;
        }
    }
    return NULL;
}

/* Wait until nobody reads. */
static inline void readers_await(const readers_t *all)
{
    const notes_t *notes;
    uint32_t at = 0;

    while ((notes = readers_next(all, &at)) != NULL) {
        uint32_t looks = 0;
        while (__atomic_load_n(&notes->busy, __ATOMIC_SEQ_CST) != 0) {
            if (++looks % 64 == 0) { /* he may have lost his processor */
                sched_yield();
            }
        }
    }
}

/* This reader has come without notes: if threads take turns here he gets some. Without memory he does not. */
static inline void readers_welcome(readers_t *all, uint32_t reader)
{
    uint32_t at = reader % NOTES_READERS;
    notes_t *made;

    all->turns += all->last != reader && all->turns < NOTES_TURNS;
    all->last = reader;
    if (all->turns == NOTES_TURNS && all->of[at] == NULL && (made = memory_new(sizeof *made)) != NULL) {
        __atomic_store_n(&all->of[at], made, __ATOMIC_RELEASE);
        all->readers = all->readers > at ? all->readers : at + 1;
    }
}

/* Has anybody no room for another note? */
static inline int readers_are_full(const readers_t *all)
{
    const notes_t *notes;
    uint32_t at = 0;

    while ((notes = readers_next(all, &at)) != NULL) {
        if (notes_are_full(notes)) {
            return 1;
        }
    }
    return 0;
}

static inline size_t readers_memory(const readers_t *all)
{
    size_t bytes = 0;
    uint32_t at = 0;

    while (readers_next(all, &at) != NULL) {
        bytes += sizeof(notes_t);
    }
    return bytes;
}

/* Nobody comes any more. */
static inline void readers_free(readers_t *all)
{
    notes_t *notes;
    uint32_t at = 0;

    while ((notes = readers_next(all, &at)) != NULL) {
        memory_free(notes, sizeof *notes);
    }
    if (all->readers != 0) {
        memset(all, 0, sizeof *all);
    }
}

#endif
