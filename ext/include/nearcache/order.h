/* order.h: who is evicted next. One of two policies: exact LRU, and the learning one of adaptive.h.
 *
 *     links[0].next --> most recent <-> ... <-> least recent <-- links[0].prev        LRU: one circle through links[0]
 *
 * A hit does not move its entry. It notes the entry's ref in a ring that fits into the first-level cache, and the
 * notes are carried out in order, all at once, before anybody looks at the order or changes it, and when the ring is
 * full. The order is exact all the same, but no hit waits for the memory that moving needs, three links all over the
 * place in a large cache: the entry's own are asked for with the note where they lie far, or else those of all notes before they
 * are carried out, its neighbours' some notes ahead. Threads that read at the same time have rings of their own: notes.h.
 */
#ifndef NEARCACHE_ORDER_H
#define NEARCACHE_ORDER_H

#include "adaptive.h"
#include "notes.h"
#include "table.h"

enum {
    ORDER_RING = 128,
    ORDER_AHEAD = 12,            /* notes */
    ORDER_NEAR_BYTES = 16 * 1024, /* what the first-level cache keeps needs no asking ahead, */
    ORDER_FAR_BYTES = 256 * 1024  /* and what the second keeps can be asked for when the notes are carried out */
};

typedef struct {
    uint32_t touches;     /* notes in the ring */
    uint32_t shift;       /* of what a note will need, the size of an element, and the array: links, or histories */
    const char *needed;
    size_t needed_bytes;
    adaptive_t *adaptive; /* NULL: LRU */
    link_t *links;        /* of LRU; parallel to the slab */
    size_t links_bytes;
    uint32_t ring[ORDER_RING];
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
    readers_t readers;
#endif
} order_t;

/* Those who may have notes of their own. */
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
static inline readers_t *order_readers(const order_t *o)
{
    return (readers_t *)&o->readers;
}
#else
static const readers_t order_nobody; /* which the compiler knows to be empty */

static inline readers_t *order_readers(const order_t *o)
{
    (void)o;
    return (readers_t *)&order_nobody;
}
#endif

static inline void order_init(order_t *o)
{
    o->touches = 0;
    o->shift = 0;
    o->needed = NULL;
    o->needed_bytes = 0;
    o->adaptive = NULL;
    o->links = NULL;
    o->links_bytes = 0;
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
    memset(&o->readers, 0, sizeof o->readers);
#endif
}

/* How many hits have been noted since the last time, and how often no entry was there; for the counters. */
static inline uint64_t order_noted(const order_t *o, uint64_t *misses)
{
    uint64_t hits = o->touches;
    uint32_t at = 0;
    notes_t *notes;

    while ((notes = readers_next(order_readers(o), &at)) != NULL) {
        hits += notes->count;
        *misses += notes->misses;
        notes->misses = 0;
    }
    return hits;
}

/* Forget what was noted. */
static inline void order_forget_notes(order_t *o)
{
    uint32_t at = 0;
    notes_t *notes;

    o->touches = 0;
    while ((notes = readers_next(order_readers(o), &at)) != NULL) {
        notes->count = 0;
    }
}

/* Choose the learning policy, before anything is stored. -1 without memory. */
static inline int order_adapt(order_t *o, uint32_t seed)
{
    o->adaptive = memory_new(sizeof(adaptive_t));
    if (o->adaptive == NULL) {
        return -1;
    }
    adaptive_init(o->adaptive, seed);
    return 0;
}

/* The arrays may have moved. */
static inline void order_aim(order_t *o)
{
    o->shift = o->adaptive != NULL ? 2 : 3;
    o->needed = o->adaptive != NULL ? (const char *)o->adaptive->history : (const char *)o->links;
    o->needed_bytes = o->adaptive != NULL ? o->adaptive->history_bytes : o->links_bytes;
#if defined(NEARCACHE_THREADS) && NEARCACHE_THREADS
    o->readers.is_far = o->needed_bytes > ORDER_NEAR_BYTES;
#endif
}

/* All entries have gone; what was learned stays. */
static inline void order_clear(order_t *o)
{
    order_forget_notes(o);
    memory_free(o->links, o->links_bytes);
    o->links = NULL;
    o->links_bytes = 0;
    if (o->adaptive != NULL) {
        adaptive_clear(o->adaptive);
    }
    order_aim(o);
}

static inline void order_free_memory(order_t *o)
{
    order_clear(o);
    readers_free(order_readers(o));
    if (o->adaptive != NULL) {
        adaptive_free_memory(o->adaptive);
    }
    memory_free(o->adaptive, sizeof(adaptive_t));
    o->adaptive = NULL;
}

static inline size_t order_memory(const order_t *o)
{
    const adaptive_t *p = o->adaptive;
    return o->links_bytes + readers_memory(order_readers(o)) +
           (p != NULL ? sizeof *p + p->history_bytes + p->ghosts_bytes + p->shadows_bytes : 0);
}

/* Room for refs up to `capacity`; there will never be more than `limit` entries. */
static inline int order_reserve(order_t *o, uint32_t capacity, uint32_t limit)
{
    int fresh = o->links == NULL;
    int status;

    if (o->adaptive != NULL) {
        status = adaptive_reserve(o->adaptive, capacity, limit);
    } else {
        status = memory_fit((void **)&o->links, &o->links_bytes, ((size_t)capacity + 1) * sizeof(link_t));
        if (status == 0 && fresh) {
            o->links[0] = (link_t){0, 0};
        }
    }
    order_aim(o);
    return status;
}

/* -- the list --------------------------------------------------------------------------------------------- */

static inline void order_unlink(order_t *o, uint32_t ref)
{
    link_t link = o->links[ref];

    o->links[link.prev].next = link.next;
    o->links[link.next].prev = link.prev;
}

static inline void order_push(order_t *o, uint32_t ref)
{
    uint32_t first = o->links[0].next;

    o->links[ref] = (link_t){0, first};
    o->links[first].prev = ref;
    o->links[0].next = ref;
}

static inline void order_promote(order_t *o, uint32_t ref)
{
    link_t *links = o->links;
    link_t link = links[ref];
    uint32_t first = links[0].next;

    if (first != ref) {
        links[link.prev].next = link.next;
        links[link.next].prev = link.prev;
        links[ref] = (link_t){0, first};
        links[first].prev = ref;
        links[0].next = ref;
    }
}

/* -- hits ------------------------------------------------------------------------------------------------- */

/* Ask for the links of an entry's neighbours before they are needed. Its own were asked for before. */
static inline void order_prefetch(const order_t *o, uint32_t ref)
{
    link_t link = o->links[ref];

    __builtin_prefetch(&o->links[link.prev], 1);
    __builtin_prefetch(&o->links[link.next], 1);
}

/* Ask for what moving an entry, or taking it out, will need of the order. */
static inline void order_ask(const order_t *o, uint32_t ref)
{
    __builtin_prefetch(o->needed + ((size_t)ref << o->shift), 1);
}

static inline void order_ask_all(const order_t *o, const uint32_t *ring, uint32_t touches)
{
    for (uint32_t i = 0; i < touches; i++) {
        order_ask(o, ring[i]);
    }
}

static inline void order_carry_out(order_t *o, const uint32_t *ring, uint32_t touches, const detail_t *details)
{
    uint32_t asked = o->links_bytes > ORDER_NEAR_BYTES ? 0 : touches;

    if (touches != 0 && o->adaptive != NULL) {
        adaptive_touch_run(o->adaptive, ring, touches, details);
        touches = 0;
    }
    for (uint32_t i = 0; i < touches; i++) {
        while (asked < touches && asked < i + ORDER_AHEAD) {
            order_prefetch(o, ring[asked++]);
        }
        order_promote(o, ring[i]);
    }
}

/* Carry out a reader's notes. What another processor has changed last is asked for all at once, not waited for one by one. */
static inline void order_carry_out_notes(order_t *o, const notes_t *notes, const detail_t *details)
{
    order_ask_all(o, notes->ring, notes->count);
    order_carry_out(o, notes->ring, notes->count, details);
}

/* Carry out the notes. */
static inline void order_settle(order_t *o, const detail_t *details)
{
    uint32_t at = 0;
    const notes_t *notes;

    if (o->needed_bytes > ORDER_NEAR_BYTES && o->needed_bytes <= ORDER_FAR_BYTES) {
        order_ask_all(o, o->ring, o->touches);
    }
    order_carry_out(o, o->ring, o->touches, details);
    while ((notes = readers_next(order_readers(o), &at)) != NULL) {
        order_carry_out_notes(o, notes, details);
    }
    order_forget_notes(o);
}

static inline int order_is_full(const order_t *o)
{
    return o->touches == ORDER_RING;
}

/* Is there anything to be settled? */
static inline int order_is_noted(const order_t *o)
{
    return o->touches != 0 || order_readers(o)->readers != 0;
}

/* Should somebody settle who has the lock? */
static inline int order_wants_settling(const order_t *o)
{
    return order_is_full(o) || readers_are_full(order_readers(o));
}

/* Note a hit, and ask for what carrying the note out will need if it lies far. The ring has room: whoever fills it settles. */
static inline void order_touch(order_t *o, uint32_t ref)
{
    o->ring[o->touches++] = ref;
    if (o->needed_bytes > ORDER_FAR_BYTES) {
        order_ask(o, ref);
    }
}

/* The same in notes of the reader's own. What is near another processor has changed last, as often as not; to get hold of it
 * for every note takes it away from there again and again, instead of once for many. */
static inline void order_note(const order_t *o, notes_t *notes, uint32_t ref)
{
    notes->ring[notes->count++] = ref;
    if (order_readers(o)->is_far) {
        order_ask(o, ref);
    }
}

/* -- changes; the caller has settled ---------------------------------------------------------------------- */

static inline void order_insert(order_t *o, uint32_t ref, uint32_t tag)
{
    NC_ASSERT(o->touches == 0);
    if (o->adaptive != NULL) {
        adaptive_insert(o->adaptive, ref, tag);
    } else {
        order_push(o, ref);
    }
}

/* The entry was used in another way than by a hit: its value was replaced, or found to be current. */
static inline void order_use(order_t *o, uint32_t ref, const detail_t *details)
{
    NC_ASSERT(o->touches == 0);
    if (o->adaptive != NULL) {
        adaptive_touch_run(o->adaptive, &ref, 1, details);
    } else {
        order_promote(o, ref);
    }
}

static inline void order_remove(order_t *o, uint32_t ref)
{
    NC_ASSERT(o->touches == 0);
    if (o->adaptive != NULL) {
        adaptive_remove(o->adaptive, ref);
    } else {
        order_unlink(o, ref);
    }
}

/* Remove an entry because there is no room for it; it may be remembered. */
static inline void order_evict(order_t *o, uint32_t ref, uint32_t tag)
{
    NC_ASSERT(o->touches == 0);
    if (o->adaptive != NULL) {
        adaptive_evict(o->adaptive, ref, tag);
    } else {
        order_unlink(o, ref);
    }
}

static inline void order_relocate(order_t *o, uint32_t from, uint32_t to)
{
    NC_ASSERT(o->touches == 0);
    if (o->adaptive != NULL) {
        adaptive_relocate(o->adaptive, from, to);
    } else {
        link_t link = o->links[from];
        o->links[to] = link;
        o->links[link.prev].next = to;
        o->links[link.next].prev = to;
    }
}

/* -- asking; the caller has settled ------------------------------------------------------------------------ */

/* Who should go, `spared` (0: nobody) excepted; 0 when there is nobody else. */
static inline uint32_t order_victim(order_t *o, uint32_t spared)
{
    uint32_t victim;

    if (o->adaptive != NULL) {
        return adaptive_victim(o->adaptive, spared);
    }
    victim = o->links != NULL ? o->links[0].prev : 0;
    return victim == spared && victim != 0 ? o->links[victim].prev : victim;
}

/* All entries one after the other: the least recently used first, or, where the policy has no order, by ref. 0 ends. */
static inline uint32_t order_following(const order_t *o, uint32_t ref)
{
    const adaptive_t *p = o->adaptive;

    if (p == NULL) {
        return o->links[ref].prev;
    }
    while (++ref <= p->top) {
        if (history_uses(p->history[ref]) != 0) {
            return ref;
        }
    }
    return 0;
}

static inline uint32_t order_first(const order_t *o)
{
    return o->adaptive == NULL && o->links == NULL ? 0 : order_following(o, 0);
}

/* -- self-examination ------------------------------------------------------------------------------------- */

static inline int order_holds(const uint32_t *ring, uint32_t touches, const table_t *t)
{
    for (uint32_t i = 0; i < touches; i++) {
        if (ring[i] == 0 || ring[i] > t->used || t->slab[ring[i]].key == NULL) {
            return 0;
        }
    }
    return 1;
}

static inline const char *order_check_notes(const order_t *o, const table_t *t)
{
    int are_held = order_holds(o->ring, o->touches, t);
    uint32_t at = 0;
    const notes_t *notes;

    while ((notes = readers_next(order_readers(o), &at)) != NULL) {
        are_held = are_held && order_holds(notes->ring, notes->count, t);
    }
    return are_held ? NULL : "a hit was noted for an entry that is not in use";
}

static inline const char *order_check(const order_t *o, const table_t *t)
{
    const char *wrong = order_check_notes(o, t);
    uint32_t length = 0;

    if (wrong != NULL) {
        return wrong;
    }
    if (o->adaptive != NULL) {
        return adaptive_check(o->adaptive, t);
    }
    if (o->links == NULL) {
        return t->count != 0 ? "entries without an order" : NULL;
    }
    for (uint32_t ref = o->links[0].next; ref != 0; ref = o->links[ref].next) {
        if (ref > t->used || t->slab[ref].key == NULL || t->slab[ref].value == NULL) {
            return "the order holds an entry that is not in use";
        }
        if (o->links[o->links[ref].next].prev != ref || o->links[o->links[ref].prev].next != ref) {
            return "the order's links disagree";
        }
        if (++length > t->count) {
            return "the order is longer than the count, or a circle";
        }
    }
    return length != t->count ? "the order and the count disagree" : NULL;
}

#endif
