/* worth.h: what an entry is worth keeping for, learned from what happened to entries like it.
 *
 * The history of a key is one word, kept while it is resident and, in short, by its ghost afterwards:
 *
 *     31      28     25     18                    0      times in ticks, of which 64 to 127 are as many requests as a
 *     +-------+------+------+---------------------+      cache of 64 entries and more holds of them (a tick is a power of
 *     | flags | uses | gap  | when last used      |      two of requests, and never becomes shorter); gap: its usual
 *     +-------+------+------+---------------------+      distance between two uses
 *
 * Keys of equal uses (1, 2, 3-4, 5 and more) and gap (by octave) are a class. For each class a histogram tells at which age,
 * that is time since the last use, keys came to be used again. What fades in it is as old as some cache fillings. From it
 * follows for every age the best rate of hits per room and time that keeping such an entry for some while can bring: the
 * Gittins index of the problem "keep or drop" (Gittins 1979). As hit density it is used by LHD (Beckmann, Chen and Cidon,
 * NSDI 2018) and EVA (Beckmann and Sanchez, HPCA 2017); unlike those this learns from ghosts too, so it sees distances
 * beyond the cache, and so finds loops. One rule thus contains LRU (worth falls with age), LRU-2 and LIRS (it falls with
 * the usual gap), LFU (it rises with the uses), and MRU for loops (it rises with age).
 *
 * Belief before data, and for a share of doubt with any data: uses are as likely at one distance as at another, so what has
 * waited longest is due soonest. It makes a cold cache keep its first entries, which loops need.
 */
#ifndef NEARCACHE_WORTH_H
#define NEARCACHE_WORTH_H

#include "lots.h"
#include "memory.h"

enum {
    WORTH_TICKS = 64,     /* ticks of the clock per cache filling, at least */
    WORTH_HALF_LIFE = 10, /* of the histograms, in cache fillings ... */
    WORTH_LEAST = 2000,   /* ... and in requests, lest a tiny cache learn from noise */
    WORTH_PRIOR = 16,     /* observations that the belief counts for */
    WORTH_AGES = 40,
    WORTH_GAPS = 16,
    WORTH_LEVELS = 3,
    WORTH_CLASSES = 1 + WORTH_GAPS * WORTH_LEVELS,
    WORTH_NOBODY = 0x7fffffff /* the rank of no entry */
};

#define WORTH_DOUBT 0.3F /* share of the belief that no data wash out */
#define WORTH_TRIFLE 1e-25F /* for each tick of age: of those that are worth nothing the youngest goes (see the belief) */
#define WORTH_LRU (-1.0F) /* in place of a newcomer's share: the oldest is worth least, whatever was learned */

#define HISTORY_TIME 0x7ffffu /* 19 bits */
#define HISTORY_GAP 19u       /* 7 bits: quarter octaves */
#define HISTORY_USES 26u      /* 3 bits; 0: not resident */
#define HISTORY_NEW (1u << 29)     /* not used since it came in: on probation */
#define HISTORY_TEACHES (1u << 30) /* its key is one of those that the histograms learn from */
#define HISTORY_SHADOWED (1u << 31) /* its key is in the sample that the shadows see (shadow.h) */

typedef struct {
    uint64_t now;    /* requests */
    uint64_t dirty;  /* classes whose worth is out of date */
    uint32_t shift;  /* a tick is 2**shift requests */
    float half_life; /* requests */
    float seen[WORTH_CLASSES];  /* uses that led into the class */
    float fresh[WORTH_CLASSES]; /* those since it was last appraised */
    float limit[WORTH_CLASSES]; /* how many of those make it worth appraising anew */
    uint64_t faded[WORTH_CLASSES];
    float hits[WORTH_CLASSES][WORTH_AGES];
    float worth[WORTH_CLASSES][WORTH_AGES + 1];
} worth_t;

static inline uint32_t worth_log2(uint32_t x)
{
    return 31u - (uint32_t)__builtin_clz(x);
}

/* -- histories -------------------------------------------------------------------------------------------- */

static inline uint32_t worth_time(uint64_t now, uint32_t shift)
{
    return (uint32_t)(now >> shift) & HISTORY_TIME;
}

static inline uint32_t worth_clock(const worth_t *w)
{
    return worth_time(w->now, w->shift);
}

static inline uint32_t worth_age(const worth_t *w, uint32_t history)
{
    return (worth_clock(w) - history) & HISTORY_TIME;
}

static inline uint32_t history_uses(uint32_t history)
{
    return history >> HISTORY_USES & 7u;
}

static inline uint32_t history_gap(uint32_t history)
{
    return history >> HISTORY_GAP & 127u;
}

/* An age in quarter octaves, 0 to 127. */
static inline uint32_t worth_log_gap(uint32_t age)
{
    uint32_t octave = worth_log2(age | 1u);
    return octave * 4u + (age << (31u - octave) >> 29 & 3u);
}

/* Two buckets per octave, so that an age is known to a third; 0 is "within this tick". */
static inline uint32_t worth_bucket(uint32_t age)
{
    uint32_t octave = worth_log2(age | 1u);
    uint32_t bucket = 1u + 2u * octave + (age << (31u - octave) >> 30 & 1u);

    bucket = bucket < WORTH_AGES ? bucket : WORTH_AGES - 1u;
    return age != 0 ? bucket : 0;
}

/* The youngest age in a bucket, in ticks. */
static inline float worth_edge(uint32_t bucket)
{
    float octave;

    if (bucket == 0) {
        return 0.0F;
    }
    octave = (float)((uint64_t)1 << ((bucket - 1u) / 2u));
    return ((bucket - 1u) & 1u) != 0 ? octave * 1.5F : octave;
}

/* By uses and octave of the gap, which are neighbours in a history. */
#define WORTH_ROW(first) \
    (first), (first) + 1, (first) + 2, (first) + 3, (first) + 4, (first) + 5, (first) + 6, (first) + 7, (first) + 8, \
    (first) + 9, (first) + 10, (first) + 11, (first) + 12, (first) + 13, (first) + 14, (first) + 15, (first) + 15, \
    (first) + 15, (first) + 15, (first) + 15, (first) + 15, (first) + 15, (first) + 15, (first) + 15, (first) + 15, \
    (first) + 15, (first) + 15, (first) + 15, (first) + 15, (first) + 15, (first) + 15, (first) + 15
static const uint8_t worth_classes[256] = {
    [2 * 32] = WORTH_ROW(1), WORTH_ROW(1 + WORTH_GAPS), WORTH_ROW(1 + WORTH_GAPS), WORTH_ROW(1 + 2 * WORTH_GAPS),
    WORTH_ROW(1 + 2 * WORTH_GAPS), WORTH_ROW(1 + 2 * WORTH_GAPS)};

_Static_assert(WORTH_GAPS == 16, "the rows have so many classes");

static inline uint32_t worth_class(uint32_t history)
{
    return worth_classes[history >> (HISTORY_GAP + 2u) & 255u];
}

/* -- appraising ------------------------------------------------------------------------------------------- */

/* The belief about a class, up to a factor, which is returned. */
static inline float worth_prior(uint32_t class, float *mass)
{
    float due = class != 0 ? (float)((uint64_t)1 << ((class - 1u) % WORTH_GAPS)) * 2.8F : (float)WORTH_TICKS * 64.0F;
    float returns = class != 0 ? 1.0F - 0.5F / (float)(1u + (class - 1u) / WORTH_GAPS) : 0.1F;
    float sum = 0.0F;

    for (uint32_t b = 0; b < WORTH_AGES; b++) {
        float from = worth_edge(b);
        float width = worth_edge(b + 1u) - from;
        float far = due / (from + width / 2.0F);
        mass[b] = far > 1.0F ? width : class != 0 ? width * far * far * far : 0.0F;
        if (from > (float)WORTH_TICKS * 64.0F) {
            mass[b] = 0.0F;
        }
        sum += mass[b];
    }
    return sum > 0.0F ? returns / sum : 0.0F;
}

/* What was learned fades with time, by a rational approximation of the exponential. */
static inline void worth_fade(worth_t *w, uint32_t class)
{
    float x = (float)(w->now - w->faded[class]) / w->half_life * 0.693F;
    float keep = 1.0F / (1.0F + x + x * x * 0.5F);

    w->faded[class] = w->now;
    w->seen[class] = w->seen[class] * keep + w->fresh[class];
    w->fresh[class] = 0.0F;
    w->limit[class] = 8.0F + w->seen[class] * 0.0625F; /* so that a use costs a constant share of an appraisal */
    for (uint32_t b = 0; b < WORTH_AGES; b++) {
        w->hits[class][b] *= keep;
    }
}

/* From the buckets' hits and costs, the index of every age. Walking from old to young, a bucket with a lower rate than what
 * follows it merges with that (pool adjacent violators), so that one pass does. */
static inline void worth_index(float *worth, const float *mass, const float *cost)
{
    float gain[WORTH_AGES];
    float price[WORTH_AGES];
    uint32_t top = 0;

    for (uint32_t b = WORTH_AGES; b-- > 0;) {
        float g = mass[b];
        float c = cost[b];
        while (top != 0 && g * price[top - 1u] < gain[top - 1u] * c) {
            top--;
            g += gain[top];
            c += price[top];
        }
        gain[top] = g;
        price[top] = c;
        top++;
        worth[b] = c > 0.0F ? g / c : 0.0F;
    }
    worth[WORTH_AGES] = worth[WORTH_AGES - 1];
}

static inline void worth_appraise(worth_t *w, uint32_t class)
{
    float mass[WORTH_AGES];
    float cost[WORTH_AGES];
    const float *hits = w->hits[class];
    float sum = 0.0F;
    float belief, scale, left;

    worth_fade(w, class);
    belief = (float)WORTH_PRIOR + WORTH_DOUBT * w->seen[class];
    scale = belief * worth_prior(class, mass);
    for (uint32_t b = 0; b < WORTH_AGES; b++) {
        float younger = hits[b != 0 ? b - 1u : 0];
        float older = hits[b + 1u < WORTH_AGES ? b + 1u : b];
        mass[b] = mass[b] * scale + hits[b] * 0.5F + (younger + older) * 0.25F;
        sum += mass[b];
    }
    left = w->seen[class] + belief;
    left = left < sum ? sum : left;
    for (uint32_t b = 0; b < WORTH_AGES; b++) {
        float after = left - mass[b] > 0.0F ? left - mass[b] : 0.0F;
        cost[b] = (worth_edge(b + 1u) - worth_edge(b)) * (left + after) * 0.5F; /* entry-ticks spent in this bucket */
        left = after;
    }
    worth_index(w->worth[class], mass, cost);
    w->dirty &= ~((uint64_t)1 << class);
}

/* Bring one class up to date, if one is out of date: no step takes longer than that. */
static inline void worth_refresh(worth_t *w)
{
    if (w->dirty != 0) {
        worth_appraise(w, (uint32_t)__builtin_ctzll(w->dirty));
    }
}

/* -- using ------------------------------------------------------------------------------------------------ */

/* The class has been led into. */
static inline void worth_count(worth_t *w, uint32_t class, int teaches)
{
    w->fresh[class] += (float)teaches;
    w->dirty |= (uint64_t)(w->fresh[class] > w->limit[class]) << class;
}

/* A key of which nothing is known is used; its history. */
static inline uint32_t worth_meet(worth_t *w, uint32_t flags, int teaches)
{
    uint32_t history = worth_clock(w) | 1u << HISTORY_USES | flags;

    worth_count(w, 0, teaches);
    w->now++;
    return history;
}

/* A key is used: history in, history out. */
static inline uint32_t worth_use(worth_t *w, uint32_t history, uint32_t flags)
{
    uint32_t uses = history_uses(history);
    uint32_t gap = worth_log_gap(worth_age(w, history));

    gap = uses > 1u ? (gap + history_gap(history) + 1u) / 2u : gap;
    history = worth_clock(w) | gap << HISTORY_GAP | (uses < 7u ? uses + 1u : 7u) << HISTORY_USES | flags;
    w->now++;
    return history;
}

/* The same, and the histograms learn from it. */
static inline uint32_t worth_learn(worth_t *w, uint32_t history, uint32_t flags)
{
    uint32_t class = worth_class(history);
    uint32_t bucket = worth_bucket(worth_age(w, history));

    w->hits[class][bucket] += 1.0F;
    history = worth_use(w, history, flags);
    worth_count(w, worth_class(history), 1);
    return history;
}

/* Their ages. */
static inline floats_t worth_ticks(const worth_t *w, words_t history)
{
    return __builtin_convertvector((ints_t)((worth_clock(w) - history) & HISTORY_TIME), floats_t);
}

/* What four entries are worth now; of newcomers, that share of it. Between the middles of buckets a straight line, lest ties
 * be broken by chance. Nothing branches on what is in a history, for that is unpredictable. A float has an age's octave for its
 * exponent, and then the half of it. */
static inline floats_t worth_of(const worth_t *w, words_t history, float newcomers)
{
    floats_t ticks = worth_ticks(w, history);
    ints_t place = (ints_t)ticks - (((2 * 127 - 1) << 22) + (1 << 21)); /* in buckets from the middle of the first one on; */
    ints_t is_new = (ints_t)((history & HISTORY_NEW) != 0);            /* 22 bits are the fraction */
    floats_t from, to, way;

    if (newcomers < 0.0F) {
        return (float)HISTORY_TIME - ticks;
    }
    place &= place > 0;
    for (uint32_t i = 0; i < LOT; i++) {
        const float *middle = w->worth[worth_class(history[i])] + (place[i] >> 22);
        from[i] = middle[0];
        to[i] = middle[1];
    }
    way = __builtin_convertvector(place & 0x3fffff, floats_t) * (1.0F / 4194304.0F);
    way = from + (to - from) * way;
    return (floats_t)ints_pick(is_new, (ints_t)(way * newcomers), (ints_t)way);
}

/* The same as numbers by which victims are put in order, who is worth less first: the bits of floats that are not negative. */
static inline ints_t worth_ranks(const worth_t *w, words_t history, float newcomers)
{
    ints_t nobody = (ints_t)((history & 7u << HISTORY_USES) == 0);
    floats_t worth = worth_of(w, history, newcomers) + worth_ticks(w, history) * WORTH_TRIFLE;

    return (ints_t)worth | (nobody & WORTH_NOBODY);
}

/* Set the clock for a cache of so many entries. What was learned on another clock is void. Returns by how many bits a tick
 * has become longer. */
static inline uint32_t worth_scale(worth_t *w, uint32_t entries)
{
    uint32_t shift = entries > WORTH_TICKS ? worth_log2(entries / WORTH_TICKS) : 0;
    uint32_t longer = shift > w->shift ? shift - w->shift : 0;
    float half_life = (float)WORTH_HALF_LIFE * (float)entries;

    w->shift += longer;
    w->half_life = half_life > (float)WORTH_LEAST ? half_life : (float)WORTH_LEAST;
    memset(w->hits, 0, sizeof w->hits);
    memset(w->seen, 0, sizeof w->seen);
    memset(w->fresh, 0, sizeof w->fresh);
    for (uint32_t class = 0; class < WORTH_CLASSES; class++) {
        worth_appraise(w, class);
    }
    return longer;
}

#endif
