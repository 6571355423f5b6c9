/* wheel.h: which entries expire next, without ever looking at all of them.
 *
 * A hierarchical timing wheel (Varghese and Lauck, SOSP 1987), with time in units of 2^20 ns, about a millisecond:
 *
 *     level 0   64 slots of a unit        |....x...|   the slot of `unit` is what is due now
 *     level 1   64 slots of 67 ms         |..x.....|
 *     level 2   64 slots of 4.3 s         |........|
 *     ...                                              an entry lies on the level of the highest digit (base 64) in
 *     level 5   64 slots of 13 days       |.x......|   which its time differs from `unit`
 *
 * When `unit` reaches a slot of an upper level, its entries are dealt out to lower levels, one per step; each entry moves
 * at most five times in its life. A word per level says which slots hold something, so that empty time costs nothing.
 * The uppermost level is a circle: its slots before that of `unit` belong to the next round. What is farther away than
 * one round, over two years, waits in the last slot of the circle, and is dealt out again.
 *
 * A slot is a circular list. The links of entry `ref` are `timers[ref]`; those of the slots lie in `slots`, and in a
 * link the top bit says which of the two is meant. An entry that never expires has links of 0.
 *
 * An entry whose deadline is put off stays where it is: when its old time comes, it is dealt out again. So a value that
 * is written a thousand times a second moves once per lifetime.
 *
 * An entry that is removed may leave its timer behind, with the deadline that it had, for whoever gets its ref next: with a
 * later deadline as a rule, and then nothing has to be done. What nobody has taken over is dropped when its time comes.
 */
#ifndef NEARCACHE_WHEEL_H
#define NEARCACHE_WHEEL_H

#include "clock.h"
#include "table.h"

enum { WHEEL_LEVELS = 6, WHEEL_BITS = 6, WHEEL_SLOTS = 1 << WHEEL_BITS, WHEEL_UNIT = 20 };

#define WHEEL_SLOT 0x80000000u /* in a link: of a slot, not of an entry */
#define WHEEL_NEW INT64_MIN
#define WHEEL_TOP (WHEEL_LEVELS - 1u)
#define WHEEL_TOP_UNITS ((uint64_t)1 << (WHEEL_TOP * WHEEL_BITS)) /* in a slot of the uppermost level */

typedef struct {
    link_t *timers; /* parallel to the slab; NULL while nothing expires */
    size_t timers_bytes;
    uint64_t unit; /* up to here all is dealt out */
    uint64_t next; /* before this unit there is nothing to do */
    uint64_t taken[WHEEL_LEVELS];
    link_t slots[WHEEL_LEVELS * WHEEL_SLOTS];
} wheel_t;

static inline void wheel_init(wheel_t *w)
{
    memset(w, 0, sizeof *w);
}

static inline void wheel_free_memory(wheel_t *w)
{
    memory_free(w->timers, w->timers_bytes);
    w->timers = NULL;
    w->timers_bytes = 0;
}

/* Make room for refs up to `capacity`, in use up to `used`. */
static inline int wheel_reserve(wheel_t *w, uint32_t capacity, uint32_t used)
{
    int fresh = w->timers == NULL;

    if (memory_fit((void **)&w->timers, &w->timers_bytes, ((size_t)capacity + 1) * sizeof(link_t)) < 0) {
        return -1;
    }
    if (fresh) {
        memset(w->timers, 0, ((size_t)used + 1) * sizeof(link_t));
    }
    return 0;
}

static inline link_t *wheel_link(wheel_t *w, uint32_t id)
{
    return (id & WHEEL_SLOT) != 0 ? &w->slots[id & ~WHEEL_SLOT] : &w->timers[id];
}

static inline uint64_t wheel_unit_of(int64_t ns)
{
    return ns > 0 ? (uint64_t)ns >> WHEEL_UNIT : 0;
}

/* The slot in which an entry with this deadline belongs now. */
static inline uint32_t wheel_slot_for(const wheel_t *w, int64_t deadline_ns)
{
    uint64_t due = wheel_unit_of(deadline_ns);
    uint64_t last = (w->unit | (WHEEL_TOP_UNITS - 1)) + (WHEEL_SLOTS - 1) * WHEEL_TOP_UNITS; /* of the circle */
    uint32_t level = 0;

    due = due < w->unit ? w->unit : due > last ? last : due;
    if (due != w->unit) {
        level = (63u - (uint32_t)__builtin_clzll(due ^ w->unit)) / WHEEL_BITS;
        level = level < WHEEL_TOP ? level : WHEEL_TOP;
    }
    return level * WHEEL_SLOTS + ((uint32_t)(due >> (level * WHEEL_BITS)) & (WHEEL_SLOTS - 1));
}

/* There will be something to do when this slot's time comes. */
static inline void wheel_expect(wheel_t *w, uint32_t slot)
{
    uint32_t shift = slot / WHEEL_SLOTS * WHEEL_BITS;
    uint64_t start = ((w->unit >> shift >> WHEEL_BITS << WHEEL_BITS) | slot % WHEEL_SLOTS) << shift;

    w->next = start < w->next ? start : w->next;
}

static inline void wheel_push(wheel_t *w, uint32_t slot, uint32_t ref)
{
    uint32_t id = slot | WHEEL_SLOT;
    link_t *head = &w->slots[slot];
    uint64_t bit = (uint64_t)1 << (slot % WHEEL_SLOTS);

    if ((w->taken[slot / WHEEL_SLOTS] & bit) == 0) {
        w->taken[slot / WHEEL_SLOTS] |= bit;
        *head = (link_t){id, id};
    }
    w->timers[ref] = (link_t){head->prev, id};
    wheel_link(w, head->prev)->next = ref;
    head->prev = ref;
    wheel_expect(w, slot);
}

/* Take an entry out, if it is in. */
static inline void wheel_remove(wheel_t *w, uint32_t ref)
{
    link_t link;

    if (w->timers == NULL || w->timers[ref].next == 0) {
        return;
    }
    link = w->timers[ref];
    wheel_link(w, link.prev)->next = link.next;
    wheel_link(w, link.next)->prev = link.prev;
    w->timers[ref] = (link_t){0, 0};
    if (link.prev == link.next && (link.prev & WHEEL_SLOT) != 0) {
        uint32_t slot = link.prev & ~WHEEL_SLOT;
        w->taken[slot / WHEEL_SLOTS] &= ~((uint64_t)1 << (slot % WHEEL_SLOTS));
    }
}

/* An entry's deadline: `before_ns` is the one that it had, or the entry before it under this ref; WHEEL_NEW for a ref that
 * was never used. The caller has reserved. */
static inline void wheel_schedule(wheel_t *w, uint32_t ref, int64_t before_ns, int64_t deadline_ns)
{
    if (w->timers == NULL) {
        NC_ASSERT(deadline_ns == CLOCK_NEVER_NS);
        return;
    }
    if (before_ns == WHEEL_NEW) {
        w->timers[ref] = (link_t){0, 0};
    } else if (w->timers[ref].next != 0) {
        if (deadline_ns >= before_ns && deadline_ns != CLOCK_NEVER_NS) {
            return;
        }
        wheel_remove(w, ref);
    }
    if (deadline_ns != CLOCK_NEVER_NS) {
        wheel_push(w, wheel_slot_for(w, deadline_ns), ref);
    }
}

/* The entry `from` has moved to `to`, where another may have left its timer. */
static inline void wheel_relocate(wheel_t *w, uint32_t from, uint32_t to)
{
    if (w->timers == NULL) {
        return;
    }
    wheel_remove(w, to);
    w->timers[to] = w->timers[from];
    w->timers[from] = (link_t){0, 0};
    if (w->timers[to].next != 0) {
        wheel_link(w, w->timers[to].prev)->next = to;
        wheel_link(w, w->timers[to].next)->prev = to;
    }
}

/* The slot of an upper level that `unit` has reached, with entries to deal out; 0 when there is none. */
static inline uint32_t wheel_reached(const wheel_t *w)
{
    for (uint32_t level = WHEEL_LEVELS - 1; level > 0; level--) {
        uint32_t digit = (uint32_t)(w->unit >> (level * WHEEL_BITS)) & (WHEEL_SLOTS - 1);
        if ((w->taken[level] >> digit & 1) != 0) {
            return level * WHEEL_SLOTS + digit;
        }
    }
    return 0;
}

/* The slots of a level that come after the one of this digit, in their order: bit 0 is the next one. */
static inline uint64_t wheel_later(const wheel_t *w, uint32_t level, uint32_t digit)
{
    uint64_t later = digit == WHEEL_SLOTS - 1 ? 0 : w->taken[level] >> (digit + 1);

    return level == WHEEL_TOP ? later | w->taken[level] << (WHEEL_SLOTS - 1 - digit) : later;
}

/* The first unit after the present one in which there is something to do; UINT64_MAX: there is none. */
static inline uint64_t wheel_upcoming(const wheel_t *w)
{
    for (uint32_t level = 0; level < WHEEL_LEVELS; level++) {
        uint32_t shift = level * WHEEL_BITS;
        uint64_t later = wheel_later(w, level, (uint32_t)(w->unit >> shift) & (WHEEL_SLOTS - 1));
        if (later != 0) {
            return ((w->unit >> shift) + (uint64_t)__builtin_ctzll(later) + 1) << shift;
        }
    }
    return UINT64_MAX;
}

/* The first unit in which there may be something to do: a slot to deal out, or an entry that expires. */
static inline uint64_t wheel_next(const wheel_t *w)
{
    int is_now = wheel_reached(w) != 0 || (w->taken[0] >> (w->unit & (WHEEL_SLOTS - 1)) & 1) != 0;
    return is_now ? w->unit : wheel_upcoming(w);
}

/* Move on to the next unit in which there is something to do, but not beyond `now`. */
static inline void wheel_skip(wheel_t *w, uint64_t now)
{
    uint64_t upcoming = wheel_upcoming(w);
    w->unit = upcoming < now ? upcoming : now;
}

/* Find out anew until when there is nothing to do. Seldom, and kept apart from those who ask all the time. */
static __attribute__((noinline, cold, unused)) int wheel_look_ahead(wheel_t *w, uint64_t now)
{
    w->next = wheel_next(w);
    return now >= w->next;
}

/* Can anything be found by a walk at this instant, as far as is known without looking? */
static inline int wheel_may_be_due(const wheel_t *w, int64_t now_ns)
{
    return w->timers != NULL && wheel_unit_of(now_ns) >= w->next;
}

/* The same, for certain. If nothing can, time has moved on by nothing but empty slots. */
static inline int wheel_is_due(wheel_t *w, int64_t now_ns)
{
    return wheel_may_be_due(w, now_ns) && wheel_look_ahead(w, wheel_unit_of(now_ns));
}

/* After a walk at this instant: has it ended before its time, for want of steps? */
static inline int wheel_is_behind(const wheel_t *w, int64_t now_ns)
{
    return w->timers != NULL && w->unit < wheel_unit_of(now_ns);
}

/* One walk over what may have expired. */
typedef struct {
    uint32_t steps;  /* timers that may still be looked at */
    uint32_t turned; /* the first one that was put back to the end of its slot; 0: none yet */
    int whole_units; /* look only at units that are over: all of their entries have expired */
} wheel_walk_t;

/* The next entry that has expired at `now_ns`, or 0 when there is none, or no step left. Entries whose unit is not over
 * yet are looked at in turn, once a walk. The caller removes what it gets, or meets it again. */
static inline uint32_t wheel_expired(wheel_t *w, const entry_t *slab, int64_t now_ns, wheel_walk_t *walk)
{
    uint64_t now = wheel_unit_of(now_ns);

    while (w->timers != NULL && walk->steps != 0) {
        uint32_t slot = wheel_reached(w);
        uint32_t ref;
        if (slot == 0) {
            slot = (uint32_t)w->unit & (WHEEL_SLOTS - 1);
            if ((w->taken[0] >> slot & 1) == 0) {
                if (w->unit >= now) {
                    return 0;
                }
                wheel_skip(w, now); /* no step: how often that is, is bounded by what it leads to */
                continue;
            }
            if (walk->whole_units && w->unit >= now) {
                return 0;
            }
        }
        ref = w->slots[slot].next;
        walk->steps--;
        if (slab[ref].key == NULL) { /* left behind */
            wheel_remove(w, ref);
            continue;
        }
        if (slab[ref].deadline_ns <= now_ns) {
            return ref;
        }
        if (ref == walk->turned) {
            return 0;
        }
        wheel_remove(w, ref); /* not yet: to the end of its slot, or to a lower level */
        wheel_push(w, wheel_slot_for(w, slab[ref].deadline_ns), ref);
        if (walk->turned == 0 && w->slots[slot].prev == ref) {
            walk->turned = ref;
        }
    }
    return 0;
}

/* The first entry after `ref` (0: of all) in a slot, of those whose deadline has come at this instant; 0: none. */
static inline uint32_t wheel_due_in(const wheel_t *w, const entry_t *slab, uint32_t slot, int64_t now_ns, uint32_t ref)
{
    ref = ref == 0 ? w->slots[slot].next : w->timers[ref].next;
    while ((ref & WHEEL_SLOT) == 0 && (slab[ref].key == NULL || slab[ref].deadline_ns > now_ns)) {
        ref = w->timers[ref].next;
    }
    return (ref & WHEEL_SLOT) == 0 ? ref : 0;
}

static inline int wheel_is_taken(const wheel_t *w, uint32_t slot)
{
    return w->timers != NULL && (w->taken[slot / WHEEL_SLOTS] >> (slot % WHEEL_SLOTS) & 1) != 0;
}

/* -- self-examination ------------------------------------------------------------------------------------- */

/* The first unit of a slot that holds something; UINT64_MAX for one that time has passed by. */
static inline uint64_t wheel_start(const wheel_t *w, uint32_t slot)
{
    uint32_t level = slot / WHEEL_SLOTS;
    uint64_t here = w->unit >> (level * WHEEL_BITS);
    uint64_t ahead = (slot - here) & (WHEEL_SLOTS - 1);

    if (level != WHEEL_TOP && (here & (WHEEL_SLOTS - 1)) + ahead >= WHEEL_SLOTS) {
        return UINT64_MAX;
    }
    return (here + ahead) << (level * WHEEL_BITS);
}

static inline const char *wheel_check_slot(wheel_t *w, const table_t *t, uint32_t slot, uint32_t *found)
{
    uint32_t id = slot | WHEEL_SLOT;
    uint64_t start = wheel_start(w, slot);

    if (start == UINT64_MAX) {
        return "entries lie in a slot that time has passed by";
    }

    for (uint32_t ref = w->slots[slot].next; ref != id; ref = w->timers[ref].next) {
        if (ref == 0 || ref > t->used || t->slab[ref].deadline_ns == CLOCK_NEVER_NS) {
            return "the wheel holds an entry that was never in use, or never expires";
        }
        if (wheel_link(w, w->timers[ref].next)->prev != ref || wheel_link(w, w->timers[ref].prev)->next != ref) {
            return "the wheel's links disagree";
        }
        if (start > w->unit && wheel_unit_of(t->slab[ref].deadline_ns) < start) {
            return "an entry lies in a slot that comes after its time";
        }
        if (++*found > t->used) {
            return "the wheel holds more entries than there are";
        }
    }
    return NULL;
}

/* What is wrong with the wheel, or NULL. Cost: all of it. */
static inline const char *wheel_check(wheel_t *w, const table_t *t)
{
    uint32_t found = 0;
    uint32_t timed = 0;

    for (uint32_t slot = 0; slot < WHEEL_LEVELS * WHEEL_SLOTS; slot++) {
        if ((w->taken[slot / WHEEL_SLOTS] >> (slot % WHEEL_SLOTS) & 1) != 0) {
            const char *wrong = wheel_check_slot(w, t, slot, &found);
            if (wrong != NULL) {
                return wrong;
            }
        }
    }
    for (uint32_t ref = 1; ref <= t->used; ref++) {
        int is_timed = w->timers != NULL && w->timers[ref].next != 0;
        if (!is_timed && t->slab[ref].key != NULL && t->slab[ref].deadline_ns != CLOCK_NEVER_NS) {
            return "an entry that expires is not in the wheel";
        }
        timed += (uint32_t)is_timed;
    }
    return found != timed ? "an entry has a timer that is in no slot" : NULL;
}

#endif
