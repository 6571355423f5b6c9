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
 * runners-up makes a small sample as good as one many times larger (Psounis and Prabhakar, INFOCOM 2001). They are three rows of
 * four, of which each is ranked at once; the least worth of each column is a runner-up, and the least of these goes.
 *
 * Ghosts remember the histories of evicted keys, two per entry, in sets of four as in a processor's cache. In large caches
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
    ADAPTIVE_GROUP = LOT, /* neighbours looked at together */
    ADAPTIVE_SPELL = 7, /* strangers that go without a look around, at most */
    ADAPTIVE_ALIKE = 1 << 22, /* between two ranks: who is worth half as much again at most (a float's octave is 1 << 23) */
    ADAPTIVE_WAYS = LOT, /* ghosts in a set */
    ADAPTIVE_GHOSTS = 2048, /* at least */
    ADAPTIVE_LARGE = 1024 /* entries from which on one key in four teaches */
};

/* The best victims seen, each of its column. */
typedef struct {
    words_t ref; /* 0: nobody */
    ints_t rank;
    int32_t newest; /* the rank of the newest entry */
} choice_t;

typedef struct {
    uint32_t *history; /* parallel to the slab, in whole groups; no uses: not resident */
    uint32_t *ghosts;
    size_t history_bytes;
    size_t ghosts_bytes;
    uint32_t ghost_sets;
    uint32_t capacity; /* refs that there is room for */
    uint32_t entries;  /* that the clock is set for: the limit, or the capacity where there is no limit */
    uint32_t count;
    uint32_t top;    /* no resident has a higher ref */
    uint32_t newest; /* 0: it has gone */
    uint32_t pool[LOT]; /* the runners-up of the last choice, and the newest */
    uint32_t hole;      /* where its victim was, the newest's place */
    uint32_t spell;   /* how many strangers could go without a look after the last one that was looked at, */
    uint32_t unseen;  /* and how many still can */
    uint32_t random;
    uint32_t hand;    /* the first of the neighbours that were looked at last on the way around */
    uint64_t run; /* hits and other uses since the last insertion */
    int warm; /* something has been evicted, so newcomers are on probation */
    worth_t worth;
    shadows_t shadows;
    size_t shadows_bytes;
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
    memset(p->pool, 0, sizeof p->pool);
    p->spell = 0;
    p->unseen = 0;
    p->warm = 0;
}

/* The same, for good. */
static inline void adaptive_free_memory(adaptive_t *p)
{
    adaptive_clear(p);
    memory_free(p->shadows.block, p->shadows_bytes);
    p->shadows.block = NULL;
}

/* -- ghosts; one is 32 bits: part of the tag 11, uses 3, half the gap 6, a quarter of the time 12 --------------- */

static inline int adaptive_teaches(const adaptive_t *p, uint32_t choice)
{
    return p->entries < ADAPTIVE_LARGE || (choice & 3u) == 0;
}

/* By the upper bits of the tag; the lowest tell one ghost of a set from another. */
static inline uint32_t *adaptive_ghost_set(const adaptive_t *p, uint32_t tag, int teaches)
{
    uint32_t half = p->ghost_sets / 2u;
    uint64_t set = p->entries < ADAPTIVE_LARGE ? (uint64_t)tag * p->ghost_sets >> 32
                                               : ((uint64_t)tag * half >> 32) + (teaches ? half : 0);
    return p->ghosts + (size_t)set * ADAPTIVE_WAYS;
}

/* What tells one ghost of a set from another; none is 0, which is nobody's. */
static inline uint32_t adaptive_print(uint32_t tag)
{
    uint32_t print = tag & 0x7ffu;

    return print != 0 ? print : 1u;
}

static inline void adaptive_remember(adaptive_t *p, uint32_t tag, uint32_t history)
{
    uint32_t *set = adaptive_ghost_set(p, tag, (history & HISTORY_TEACHES) != 0);
    uint32_t stamp = worth_clock(&p->worth) >> 2;
    words_t ghost = lot_read(set);
    words_t age = ((stamp - ghost) & 0xfffu) | ((words_t)(ghost == 0) & 0x1000u);

    set[lot_least(-(ints_t)age)] = ((history & HISTORY_TIME) >> 2 & 0xfffu) | (history_gap(history) >> 1) << 12 |
                                   history_uses(history) << 18 | adaptive_print(tag) << 21;
}

/* The history that a returning key had, 0 if it is not known. It is forgotten here, being resident again. */
static inline uint32_t adaptive_recall(adaptive_t *p, uint32_t tag, int teaches)
{
    uint32_t *set = adaptive_ghost_set(p, tag, teaches);
    uint32_t clock = worth_clock(&p->worth);
    uint32_t way = lot_first(lot_read(set) >> 21 == adaptive_print(tag));
    uint32_t ghost, age;

    if (way == LOT) {
        return 0;
    }
    ghost = set[way];
    set[way] = 0;
    age = (((clock >> 2) - ghost) & 0xfffu) << 2;
    return ((clock - age) & HISTORY_TIME) | (ghost >> 12 & 63u) << (HISTORY_GAP + 1u) |
           (ghost >> 18 & 7u) << HISTORY_USES;
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
    size_t shadows = entries != p->entries ? shadows_bytes(entries) : 0;
    uint32_t *made, *block;

    if (capacity == p->capacity) {
        return 0;
    }
    made = memory_new(bytes);
    block = shadows != 0 ? memory_new(shadows) : NULL;
    if (made == NULL || (block == NULL && shadows != 0) ||
        memory_fit((void **)&p->history, &p->history_bytes,
                   ((size_t)(capacity | (ADAPTIVE_GROUP - 1u)) + 1) * sizeof(uint32_t)) < 0) {
        memory_free(made, bytes);
        memory_free(block, shadows);
        return -1;
    }
    memory_free(p->ghosts, p->ghosts_bytes);
    p->ghosts = made;
    p->ghosts_bytes = bytes;
    p->ghost_sets = sets;
    p->capacity = capacity;
    p->top = p->top < capacity ? p->top : capacity;
    if (block != NULL) {
        uint32_t longer = worth_scale(&p->worth, entries);
        memory_free(shadows_scale(&p->shadows, entries, block), p->shadows_bytes);
        p->shadows_bytes = shadows;
        p->entries = entries;
        if (longer != 0) {
            adaptive_stretch(p, was, longer);
        }
    }
    return 0;
}

/* -- using -------------------------------------------------------------------------------------------------- */

static inline void adaptive_insert(adaptive_t *p, uint32_t ref, uint32_t tag)
{
    uint32_t choice = shadow_mix(tag);
    int teaches = adaptive_teaches(p, choice);
    uint32_t flags = (p->warm ? HISTORY_NEW : 0) | (teaches ? HISTORY_TEACHES : 0) |
                     (shadows_see(&p->shadows, choice) ? HISTORY_SHADOWED : 0);
    uint32_t history = adaptive_recall(p, tag, teaches);

    if (history == 0) {
        history = worth_meet(&p->worth, flags, teaches);
    } else {
        history = teaches ? worth_learn(&p->worth, history, flags) : worth_use(&p->worth, history, flags);
    }
    for (uint32_t i = (p->top | (ADAPTIVE_GROUP - 1u)) + 1u; i <= (ref | (ADAPTIVE_GROUP - 1u)); i++) {
        p->history[i] = 0;
    }
    p->top = p->top > ref ? p->top : ref;
    p->history[ref] = history;
    p->newest = ref;
    p->pool[p->hole] = ref;
    p->run = 0;
    p->count++;
    if ((history & HISTORY_SHADOWED) != 0) {
        shadows_use(&p->shadows, &p->worth, tag, history, &p->random);
    }
}

/* Hits of which no more is kept than when each was, and that it was one more. The clock goes on in a register: read back from
 * memory, where the last hit has left it, it would be what each waits for. */
static inline void adaptive_note_run(adaptive_t *p, const uint32_t *refs, uint32_t count)
{
    uint32_t *histories = p->history;
    uint64_t now = p->worth.now;
    uint32_t shift = p->worth.shift;

    for (uint32_t i = 0; i < count; i++, now++) {
        uint32_t history = histories[refs[i]];
        uint32_t more = (uint32_t)(history_uses(history) < 7u) << HISTORY_USES;

        histories[refs[i]] = ((history & ~(HISTORY_TIME | HISTORY_NEW)) | worth_time(now, shift)) + more;
    }
    p->worth.now = now;
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

/* Hits, and other uses, without a miss between them. When there have been twice as many in a row as there are entries, nothing
 * is being missed that could be learned to keep, and they are only noted: learning from them costs more than serving them.
 * (Loops around more than the cache holds miss sooner than that.) It makes no difference how many are told of at a time. */
static inline void adaptive_touch_run(adaptive_t *p, const uint32_t *refs, uint32_t count, const detail_t *details)
{
    uint64_t most = 2u * (uint64_t)p->count;
    uint64_t left = p->run < most ? most - p->run : 0;
    uint32_t learned = left < count ? (uint32_t)left : count;

    p->run += count;
    for (uint32_t i = 0; i < learned; i++) {
        adaptive_touch(p, refs[i], details);
    }
    adaptive_note_run(p, refs + learned, count - learned);
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
    for (uint32_t i = 0; i < LOT; i++) {
        p->pool[i] = p->pool[i] == from ? to : p->pool[i];
    }
}

/* -- choosing ----------------------------------------------------------------------------------------------- */

/* Neighbours take the places of those who are worth more. */
static inline void choice_offer(choice_t *choice, uint32_t first, ints_t rank, uint32_t spared)
{
    words_t ref = first + LOT_COLUMNS;
    ints_t is_better;

    rank |= (ints_t)(ref == spared) & WORTH_NOBODY;
    is_better = rank < choice->rank;
    choice->ref = (words_t)ints_pick(is_better, (ints_t)ref, (ints_t)choice->ref);
    choice->rank = ints_pick(is_better, rank, choice->rank);
}

/* What is known of whoever may be chosen; 0 of all others. */
static inline uint32_t adaptive_candidate(const adaptive_t *p, uint32_t ref, uint32_t spared)
{
    return ref != spared && ref <= p->top ? p->history[ref] : 0;
}

static inline ints_t adaptive_ranks(const adaptive_t *p, words_t history)
{
    return worth_ranks(&p->worth, history, shadow_shares[p->shadows.followed]);
}

/* Begin with the runners-up of the last time, and the newest in the place of their victim. */
static inline words_t adaptive_recall_pool(const adaptive_t *p, uint32_t spared, choice_t *choice)
{
    words_t ref = lot_read(p->pool);
    words_t known = ref & (words_t)(ref != spared) & (words_t)((ints_t)ref <= (int32_t)p->top);
    words_t history;

    for (uint32_t i = 0; i < LOT; i++) {
        history[i] = p->history[known[i]];
    }
    choice->ref = ref;
    return history;
}

/* The next neighbours on the way around. Who came in one after the other often lie so, and then the oldest lie here. */
static inline uint32_t adaptive_advance(adaptive_t *p, uint32_t starts)
{
    p->hand = p->hand + ADAPTIVE_GROUP <= starts ? p->hand + ADAPTIVE_GROUP : 1u;
    return p->hand;
}

/* Look at them, and at two groups of neighbours: the next on the way around, and some at random. All are ranked before any
 * are compared, so that the memory of all is waited for at once. Returns where to go on looking. */
static inline uint32_t adaptive_look(adaptive_t *p, uint32_t spared, choice_t *choice)
{
    uint32_t groups = p->top / ADAPTIVE_GROUP + 1u;
    uint32_t starts = p->top - (ADAPTIVE_GROUP - 1u); /* from any entry on: fixed groups would know each other's worst only */
    uint32_t first = groups > 2u ? adaptive_advance(p, starts) : 0;
    uint32_t second = groups > 2u ? 1u + shadow_below(&p->random, starts) : (groups - 1u) * ADAPTIVE_GROUP;
    words_t here, there, known;
    ints_t rank_here, rank_there;

    here = lot_read(p->history + first);
    there = lot_read(p->history + second);
    known = adaptive_recall_pool(p, spared, choice);
    rank_here = adaptive_ranks(p, here);
    rank_there = adaptive_ranks(p, there);
    choice->rank = adaptive_ranks(p, known);
    choice->newest = choice->rank[p->hole];
    choice_offer(choice, first, rank_here, spared);
    choice_offer(choice, second, rank_there, spared);
    return second + (ADAPTIVE_GROUP - 1u);
}

/* A newcomer that no ghost knows, and that has not been used again. */
static inline int history_is_strange(uint32_t history)
{
    return (history & HISTORY_NEW) != 0 && history_uses(history) == 1u;
}

/* A scan is many strangers that nobody will ask for again. While each look finds them to be worth least, it need not be taken
 * for each: for one in two, in four, then in eight. Whom a ghost knows is of a loop or of a new working set, and looked at. */
static inline int adaptive_goes_unseen(adaptive_t *p, uint32_t spared)
{
    if (p->unseen == 0 || !history_is_strange(adaptive_candidate(p, p->newest, spared))) {
        return 0;
    }
    p->unseen--;
    return 1;
}

/* A look around has found this one. Where it had no stranger to look at, it says nothing of them; where another stranger goes
 * that is worth about as much, it was chance (unless they are told apart by age alone). */
static inline void adaptive_note_scan(adaptive_t *p, const choice_t *choice, uint32_t victim, int32_t rank, uint32_t spared)
{
    int is_alike = history_is_strange(p->history[victim]) && choice->newest - rank < ADAPTIVE_ALIKE &&
                   shadow_shares[p->shadows.followed] >= 0.0F;

    if (history_is_strange(adaptive_candidate(p, p->newest, spared))) {
        p->spell = victim == p->newest || is_alike ? p->spell * 2u + 1u : 0;
        p->spell = p->spell < ADAPTIVE_SPELL ? p->spell : ADAPTIVE_SPELL;
        p->unseen = p->spell;
    }
}

/* Look around. Where the slab is sparse more of it is looked at, until somebody is found. (Not inlined, so that newcomers who go
 * unseen need not save what this wants to be saved.) */
static __attribute__((noinline, unused)) uint32_t adaptive_choose(adaptive_t *p, uint32_t spared)
{
    choice_t choice;
    uint32_t ref = adaptive_look(p, spared, &choice);
    uint32_t best = lot_least(choice.rank);
    uint32_t victim = choice.rank[best] != WORTH_NOBODY ? choice.ref[best] : 0;
    while (adaptive_candidate(p, victim, spared) == 0) {
        ref = ref < p->top ? ref + 1u : 1u;
        victim = ref;
    }
    choice.ref &= (words_t)(choice.ref != victim);
    memcpy(p->pool, &choice.ref, sizeof p->pool);
    p->pool[best] = p->newest;
    p->hole = best;
    adaptive_note_scan(p, &choice, victim, choice.rank[best], spared);
    return victim;
}

/* Who should go, `spared` excepted; 0 when there is nobody else. */
static inline uint32_t adaptive_victim(adaptive_t *p, uint32_t spared)
{
    if (p->count <= (spared != 0)) {
        return 0;
    }
    worth_refresh(&p->worth);
    return adaptive_goes_unseen(p, spared) ? p->newest : adaptive_choose(p, spared);
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
    if (p->hole >= LOT || (p->newest != 0 && p->pool[p->hole] != p->newest)) {
        return "the newest entry is not among the runners-up";
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
