/* notes.h: how several threads read one core at the same time, where there is no interpreter lock (NEARCACHE_THREADS).
 *
 *     thread 1 ---> notes[1]   state, misses, ring of hits  --.
 *     thread 2 ---> notes[2]   state, misses, ring of hits  --+--> carried out by their owner when they fill, and by whoever
 *                                                             '    holds the core's lock before he looks at the order
 *
 * A hit changes nothing but what is noted of it. With one lock and one ring for a core, all threads would write to the same
 * lines of memory, and a line that another processor has written to takes as long to get as the rest of a hit. So a thread
 * gets notes of its own in a core in which threads take turns. Their state is a lock of one reader: he makes it `busy` while
 * he reads, which costs him nothing as long as only he writes to that line. A writer takes the core's lock and then closes
 * the notes of all readers, waiting for those who are busy; so it is he who pays, one line for each reader, and gives every
 * reader that line to fetch again. Readers look at nothing else that writers write to.
 *
 * Readers are busy for some ten nanoseconds, and neither wait nor run Python meanwhile, so a writer does not wait for long;
 * he stays attached to the interpreter, which therefore never stops all threads, or forks, while he waits. What a writer
 * does takes hardly longer. So both look again some times before they do what gives their processor away.
 *
 * Notes that are filling are carried out by their owner while others go on reading: the order of eviction is read by nobody
 * but who carries out notes, one reader at a time (`settling`), and who has closed all of them. If another does so just
 * then, the owner goes on noting and tries again a little later, unless there is no room.
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
    NOTES_FILLING = NOTES_RING / 4 * 3, /* from here on they are carried out if nothing is in the way */
    NOTES_AGAIN = 16,  /* a power of two: notes from one attempt to the next */
    NOTES_TURNS = 32,  /* so often another thread has come before anybody gets notes */
    NOTES_LOOKS = 64   /* so often one looks before giving the processor away: some microseconds */
};

enum { NOTES_IDLE, NOTES_BUSY, NOTES_CLOSED };

typedef struct {
    uint8_t state; /* atomic */
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

/* What one thread writes to all the time must not share a line with what others read. */
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
#define NOTES_APART(name) char name[MEMORY_LINE];
#else
#define NOTES_APART(name)
#endif

static inline int notes_are_full(const notes_t *notes)
{
    return notes->count == NOTES_RING;
}

/* Look again, a moment later. */
static inline void notes_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* -- locks of a byte, whose least bit says that somebody has it -------------------------------------------- */

static inline int notes_try_lock(uint8_t *lock)
{
    uint8_t seen = __atomic_load_n(lock, __ATOMIC_RELAXED);
    uint8_t locked = seen | 1;

    return seen != locked &&
           __atomic_compare_exchange_n(lock, &seen, locked, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* The same, tried for as long as it takes most of those who have a lock to let it go. */
static inline int notes_await_lock(uint8_t *lock)
{
    for (uint32_t looks = 0; looks < NOTES_LOOKS; looks++) {
        if (notes_try_lock(lock)) {
            return 1;
        }
        notes_pause();
    }
    return 0;
}

/* For one that nobody waits for in any other way. */
static inline void notes_unlock(uint8_t *lock)
{
    __atomic_store_n(lock, 0, __ATOMIC_RELEASE);
}

/* -- the reader ------------------------------------------------------------------------------------------- */

/* The notes of this reader; NULL: he has none. */
static inline notes_t *notes_of(const readers_t *all, uint32_t reader)
{
    return __atomic_load_n(&all->of[reader % NOTES_READERS], __ATOMIC_ACQUIRE);
}

/* From idle to another state. */
static inline int notes_claim(notes_t *notes, uint8_t state)
{
    uint8_t idle = NOTES_IDLE;
    return __atomic_compare_exchange_n(&notes->state, &idle, state, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* The same, as soon as it can be had: whoever has them is about to leave. */
static inline void notes_claim_surely(notes_t *notes, uint8_t state)
{
    uint32_t looks = 0;

    while (!notes_claim(notes, state)) {
        do {
            notes_pause();
            if (++looks % NOTES_LOOKS == 0) { /* he may have lost his processor */
                sched_yield();
            }
        } while (__atomic_load_n(&notes->state, __ATOMIC_RELAXED) != NOTES_IDLE);
    }
}

/* Begin to read, if that is possible soon: unless a writer takes long, or another thread that has the same notes. */
static inline int notes_enter(notes_t *notes)
{
    for (uint32_t looks = 0; looks < NOTES_LOOKS; looks++) {
        if (notes_claim(notes, NOTES_BUSY)) {
            return 1;
        }
        notes_pause();
    }
    return 0;
}

static inline void notes_leave(notes_t *notes)
{
    __atomic_store_n(&notes->state, NOTES_IDLE, __ATOMIC_RELEASE);
}

/* Should they be carried out now, if it can be done without waiting? Must they, if they are full? */
static inline int notes_are_filling(const notes_t *notes)
{
    return notes->count >= NOTES_FILLING && (notes->count % NOTES_AGAIN == 0 || notes_are_full(notes));
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

/* Wait until nobody reads, and let nobody begin. */
static inline void readers_close(const readers_t *all)
{
    notes_t *notes;
    uint32_t at = 0;

    while ((notes = readers_next(all, &at)) != NULL) {
        notes_claim_surely(notes, NOTES_CLOSED);
    }
}

/* Let them read again. */
static inline void readers_open(const readers_t *all)
{
    notes_t *notes;
    uint32_t at = 0;

    while ((notes = readers_next(all, &at)) != NULL) {
        notes_leave(notes);
    }
}

/* This reader has come without notes: if threads take turns here he gets some, closed as all are. Without memory he does
 * not. */
static inline void readers_welcome(readers_t *all, uint32_t reader)
{
    uint32_t at = reader % NOTES_READERS;
    notes_t *made;

    all->turns += all->last != reader && all->turns < NOTES_TURNS;
    all->last = reader;
    if (all->turns == NOTES_TURNS && all->of[at] == NULL && (made = memory_new(sizeof *made)) != NULL) {
        made->state = NOTES_CLOSED;
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
