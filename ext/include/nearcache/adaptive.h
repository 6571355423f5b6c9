/* adaptive.h: evict what is worth least, by what was learned, with hedges.
 *
 * Every classic policy is a fixed guess of when an entry will be used again: LRU "soon, if used lately", LFU "often, if used
 * often", LIRS "after as long as last time". Each guess has a trace on which it is a disaster. Here the guess is measured.
 *
 *     use of a key        history (4 bytes)                                   kept when evicted, in the ghosts
 *         |                        |
 *         |   class = (uses, usual gap)      age = now - last use
 *         v                        v
 *     hits[class][age] ---> worth[class][age] ---> victim = the least worth of a small sample and of the last runners-up
 *        histogram             Gittins index           ^
 *        worth.h               worth.h                 | newcomers count a share of their worth, as large a one
 *                                                      | as suits the leading one of three shadow caches: shadow.h
 *
 * A hit writes one word of its entry's. No list is kept, so nothing is reordered: when somebody must go, 8 entries in two
 * groups of neighbours are looked at, the newest entry, and the best candidates that were spared the last time, for keeping
 * runners-up makes a small sample as good as one many times larger (Psounis and Prabhakar, INFOCOM 2001).
 *
 * Ghosts remember the histories of evicted keys, two per entry, in sets of eight as in a processor's cache. In large caches
 * one key in four teaches the histograms, and these have half of the ghosts to themselves, so that they are remembered for
 * longer.
 *
 * While hits are all there is, nothing is learned from them (adaptive_touch_run).
 */
#ifndef NEARCACHE_ADAPTIVE_H
#define NEARCACHE_ADAPTIVE_H

#include "shadow.h"
#include "table.h"

enum {
    ADAPTIVE_LOOKS = 8,
    ADAPTIVE_GROUP = 4,   /* neighbours looked at together */
    ADAPTIVE_POOL = 8,    /* the victim, and the runners-up for the next time */
    ADAPTIVE_WAYS = 8,    /* ghosts in a set */
    ADAPTIVE_GHOSTS = 2048, /* at least */
    ADAPTIVE_LARGE = 1024 /* entries from which on one key in four teaches */
};

typedef struct {
    uint32_t *history; /* parallel to the slab; no uses: not resident */
    uint32_t *ghosts;
    size_t history_bytes;
    size_t ghosts_bytes;
    uint32_t ghost_sets;
    uint32_t capacity; /* refs that there is room for */
    uint32_t entries;  /* that the clock is set for: the limit, or the capacity where there is no limit */
    uint32_t count;
    uint32_t top;    /* no resident has a higher ref */
    uint32_t newest; /* 0: it has gone */
    uint32_t pooled;
    uint32_t pool[ADAPTIVE_POOL];
    uint32_t random;
    uint64_t run; /* hits since the last insertion */
    int warm; /* something has been evicted, so newcomers are on probation */
    worth_t worth;
    shadows_t shadows;
} adaptive_t;

static inline void adaptive_init(adaptive_t *p, uint32_t seed)
{
    memset(p, 0, sizeof *p);
    p->random = seed | 1u;
    p->shadows.followed = 1; /* a wrong start there costs little, and a thrashing cache cannot find out otherwise */
}

/* Forget all residents and ghosts, and give their memory back. What was learned stays, as long as the clock does: where
 * there is no limit of entries, it is set anew when the first ones come. */
static inline void adaptive_clear(adaptive_t *p)
{
    memory_free(p->history, p->history_bytes);
    memory_free(p->ghosts, p->ghosts_bytes);
    p->history = NULL;
    p->ghosts = NULL;
    p->history_bytes = 0;
    p->ghosts_bytes = 0;
    p->capacity = 0;
    p->count = 0;
    p->top = 0;
    p->newest = 0;
    p->pooled = 0;
    p->warm = 0;
}

/* -- ghosts; one is 32 bits: part of the tag 11, uses 3, half the gap 6, a quarter of the time 12 --------------- */

static inline int adaptive_teaches(const adaptive_t *p, uint32_t tag)
{
    return p->entries < ADAPTIVE_LARGE || (shadow_mix(tag, 0x77u) & 3u) == 0;
}

static inline uint32_t *adaptive_ghost_set(const adaptive_t *p, uint32_t tag)
{
    uint32_t half = p->ghost_sets / 2u;
    uint64_t at = shadow_mix(tag, 0x51u);
    uint64_t set = p->entries < ADAPTIVE_LARGE ? at * p->ghost_sets >> 32
                                               : (at * half >> 32) + (adaptive_teaches(p, tag) ? half : 0);
    return p->ghosts + (size_t)set * ADAPTIVE_WAYS;
}

static inline void adaptive_remember(adaptive_t *p, uint32_t tag, uint32_t history)
{
    uint32_t *set = adaptive_ghost_set(p, tag);
    uint32_t stamp = worth_clock(&p->worth) >> 2;
    uint32_t oldest = 0;
    uint32_t way = 0;

    for (uint32_t i = 0; i < ADAPTIVE_WAYS; i++) {
        uint32_t age = set[i] != 0 ? (stamp - set[i]) & 0xfffu : 0x1000u;
        if (age >= oldest) {
            oldest = age;
            way = i;
        }
    }
    set[way] = ((history & HISTORY_TIME) >> 2 & 0xfffu) | (history_gap(history) >> 1) << 12 |
               history_uses(history) << 18 | shadow_mix(tag, 0x99u) >> 21 << 21;
}

/* The history that a returning key had, 0 if it is not known. It is forgotten here, being resident again. */
static inline uint32_t adaptive_recall(adaptive_t *p, uint32_t tag)
{
    uint32_t *set = adaptive_ghost_set(p, tag);
    uint32_t print = shadow_mix(tag, 0x99u) >> 21;

    for (uint32_t i = 0; i < ADAPTIVE_WAYS; i++) {
        uint32_t ghost = set[i];
        if (ghost != 0 && ghost >> 21 == print) {
            uint32_t clock = worth_clock(&p->worth);
            uint32_t age = (((clock >> 2) - ghost) & 0xfffu) << 2;
            set[i] = 0;
            return ((clock - age) & HISTORY_TIME) | (ghost >> 12 & 63u) << (HISTORY_GAP + 1u) |
                   (ghost >> 18 & 7u) << HISTORY_USES;
        }
    }
    return 0;
}

/* -- growing and shrinking ---------------------------------------------------------------------------------- */

/* A tick has become longer: translate what the histories say. */
static inline void adaptive_stretch(adaptive_t *p, uint32_t was, uint32_t longer)
{
    uint32_t clock = worth_clock(&p->worth);

    for (uint32_t ref = 1; ref <= p->top; ref++) {
        uint32_t history = p->history[ref];
        uint32_t age = ((was - history) & HISTORY_TIME) >> longer;
        uint32_t gap = history_gap(history);
        if (history_uses(history) != 0) {
            gap = gap > 4u * longer ? gap - 4u * longer : 0;
            p->history[ref] = (history & ~(HISTORY_TIME | 127u << HISTORY_GAP)) | ((clock - age) & HISTORY_TIME) |
                              gap << HISTORY_GAP;
        }
    }
}

/* Make room for refs up to `capacity`, or give it back. `limit`: the most entries there will ever be; while the cache grows
 * towards it nothing is evicted, so the clock may be set for it from the beginning. Ghosts do not survive. */
static inline int adaptive_reserve(adaptive_t *p, uint32_t capacity, uint32_t limit)
{
    uint64_t ghosts = (uint64_t)capacity * 2u > ADAPTIVE_GHOSTS ? (uint64_t)capacity * 2u : ADAPTIVE_GHOSTS;
    uint32_t sets = (uint32_t)(ghosts / ADAPTIVE_WAYS + 1u) & ~1u;
    size_t bytes = (size_t)sets * ADAPTIVE_WAYS * sizeof(uint32_t);
    uint32_t entries = limit < TABLE_MAX_ENTRIES ? limit : capacity;
    uint32_t was = worth_clock(&p->worth);
    uint32_t *made;

    if (capacity == p->capacity) {
        return 0;
    }
    made = memory_new(bytes);
    if (made == NULL || memory_fit((void **)&p->history, &p->history_bytes,
                                   ((size_t)capacity + 1) * sizeof(uint32_t)) < 0) {
        memory_free(made, bytes);
        return -1;
    }
    memory_free(p->ghosts, p->ghosts_bytes);
    p->ghosts = made;
    p->ghosts_bytes = bytes;
    p->ghost_sets = sets;
    p->capacity = capacity;
    p->top = p->top < capacity ? p->top : capacity;
    if (entries != p->entries) {
        uint32_t longer = worth_scale(&p->worth, entries);
        p->entries = entries;
        shadows_scale(&p->shadows, entries);
        if (longer != 0) {
            adaptive_stretch(p, was, longer);
        }
    }
    return 0;
}

/* -- using -------------------------------------------------------------------------------------------------- */

static inline void adaptive_insert(adaptive_t *p, uint32_t ref, uint32_t tag)
{
    int teaches = adaptive_teaches(p, tag);
    uint32_t flags = (p->warm ? HISTORY_NEW : 0) | (teaches ? HISTORY_TEACHES : 0) |
                     (shadows_see(&p->shadows, tag) ? HISTORY_SHADOWED : 0);
    uint32_t history = adaptive_recall(p, tag);

    history = teaches ? worth_learn(&p->worth, history, flags) : worth_use(&p->worth, history, flags);
    while (p->top < ref) {
        p->history[++p->top] = 0;
    }
    p->history[ref] = history;
    p->newest = ref;
    p->run = 0;
    p->count++;
    if ((history & HISTORY_SHADOWED) != 0) {
        shadows_use(&p->shadows, &p->worth, tag, history, &p->random);
    }
}

/* A hit of which no more is kept than when it was, and that it was one more. */
static inline void adaptive_note(adaptive_t *p, uint32_t ref)
{
    uint32_t history = p->history[ref];
    uint32_t more = (uint32_t)(history_uses(history) < 7u) << HISTORY_USES;

    p->history[ref] = ((history & ~(HISTORY_TIME | HISTORY_NEW)) | worth_clock(&p->worth)) + more;
    p->worth.now++;
}

/* A hit that is learned from. */
static inline void adaptive_touch(adaptive_t *p, uint32_t ref, const detail_t *details)
{
    uint32_t history = p->history[ref];
    uint32_t flags = history & (HISTORY_TEACHES | HISTORY_SHADOWED);

    history = (flags & HISTORY_TEACHES) != 0 ? worth_learn(&p->worth, history, flags)
                                             : worth_use(&p->worth, history, flags);
    p->history[ref] = history;
    if ((flags & HISTORY_SHADOWED) != 0) {
        shadows_use(&p->shadows, &p->worth, details[ref].tag, history, &p->random);
    }
}

/* Hits without a miss between them. When there have been twice as many in a row as there are entries, nothing is being
 * missed that could be learned to keep, and they are only noted: learning from them costs more than serving them. (Loops
 * around more than the cache holds miss sooner than that.) */
static inline void adaptive_touch_run(adaptive_t *p, const uint32_t *refs, uint32_t count, const detail_t *details)
{
    int is_learned = p->run < 2u * (uint64_t)p->count;

    p->run += count;
    for (uint32_t i = 0; i < count; i++) {
        if (is_learned) {
            adaptive_touch(p, refs[i], details);
        } else {
            adaptive_note(p, refs[i]);
        }
    }
}

static inline void adaptive_remove(adaptive_t *p, uint32_t ref)
{
    p->history[ref] = 0;
    p->newest = p->newest == ref ? 0 : p->newest;
    p->count--;
    if (p->count < p->entries / 2u) {
        p->warm = 0; /* filling again: nobody is on probation */
    }
}

static inline void adaptive_relocate(adaptive_t *p, uint32_t from, uint32_t to)
{
    p->history[to] = p->history[from];
    p->history[from] = 0;
    p->newest = p->newest == from ? to : p->newest;
    for (uint32_t i = 0; i < p->pooled; i++) {
        p->pool[i] = p->pool[i] == from ? to : p->pool[i];
    }
}

/* -- choosing ----------------------------------------------------------------------------------------------- */

/* The candidates of one choice, the best victim first. */
typedef struct {
    uint32_t ref[ADAPTIVE_POOL];
    float worth[ADAPTIVE_POOL];
    uint32_t count;
    uint32_t spared; /* not to be chosen */
    float share;
} choice_t;

static inline void adaptive_offer(const adaptive_t *p, choice_t *choice, uint32_t ref)
{
    uint32_t history = p->history[ref];
    uint32_t n = choice->count;
    uint32_t i;
    float worth;

    if (history_uses(history) == 0 || ref == choice->spared) {
        return;
    }
    worth = worth_of(&p->worth, history, choice->share);
    if (n == ADAPTIVE_POOL &&
        !worth_less(&p->worth, worth, history, choice->worth[n - 1u], p->history[choice->ref[n - 1u]])) {
        return;
    }
    for (i = 0; i < n; i++) {
        if (choice->ref[i] == ref) {
            return;
        }
    }
    choice->count = n < ADAPTIVE_POOL ? n + 1u : n;
    for (i = choice->count - 1u;
         i > 0 && worth_less(&p->worth, worth, history, choice->worth[i - 1u], p->history[choice->ref[i - 1u]]); i--) {
        choice->ref[i] = choice->ref[i - 1u];
        choice->worth[i] = choice->worth[i - 1u];
    }
    choice->ref[i] = ref;
    choice->worth[i] = worth;
}

/* Who should go, `spared` excepted; 0 when there is nobody else. Where the slab is sparse more of it is looked at, until
 * somebody is found. */
static inline uint32_t adaptive_victim(adaptive_t *p, uint32_t spared)
{
    choice_t choice = {.count = 0, .spared = spared, .share = shadow_shares[p->shadows.followed]};
    uint32_t at = 0;

    if (p->count <= (spared != 0)) {
        return 0;
    }
    worth_refresh(&p->worth);
    for (uint32_t i = 0; i < p->pooled; i++) {
        if (p->pool[i] <= p->top) {
            adaptive_offer(p, &choice, p->pool[i]);
        }
    }
    if (p->newest != 0) {
        adaptive_offer(p, &choice, p->newest);
    }
    for (uint32_t i = 0; i < ADAPTIVE_LOOKS || choice.count == 0; i++) {
        if (i % ADAPTIVE_GROUP == 0 && i < ADAPTIVE_LOOKS && p->count > ADAPTIVE_LOOKS) {
            at = shadow_below(&p->random, p->top);
        }
        adaptive_offer(p, &choice, 1u + at % p->top);
        at++;
    }
    p->pooled = choice.count;
    memcpy(p->pool, choice.ref, sizeof p->pool);
    return choice.ref[0];
}

static inline void adaptive_evict(adaptive_t *p, uint32_t ref, uint32_t tag)
{
    adaptive_remember(p, tag, p->history[ref]);
    adaptive_remove(p, ref);
    p->warm = 1;
}

/* -- self-examination ---------------------------------------------------------------------------------------- */

static inline const char *adaptive_check(const adaptive_t *p, const table_t *t)
{
    uint32_t residents = 0;

    for (uint32_t ref = 1; ref <= p->top; ref++) {
        int resident = history_uses(p->history[ref]) != 0;
        residents += (uint32_t)resident;
        if (resident != (ref <= t->used && t->slab[ref].key != NULL)) {
            return "histories and entries disagree";
        }
    }
    if (residents != p->count || p->count != t->count) {
        return "residents and the count disagree";
    }
    if (p->newest != 0 && history_uses(p->history[p->newest]) == 0) {
        return "the newest entry has gone";
    }
    for (uint32_t class = 0; class < WORTH_CLASSES; class++) {
        for (uint32_t b = 0; b < WORTH_AGES; b++) {
            if (!(p->worth.worth[class][b] >= 0.0F)) {
                return "a worth is not a number";
            }
        }
    }
    return shadows_check(&p->shadows);
}

#endif
