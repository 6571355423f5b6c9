/* shadow.h: three miniature caches that try out what the cache might do.
 *
 * A worth is an estimate, and acting on each small difference is churn; in an irregular loop churn is ruin (LIRS and TinyLFU
 * win there by inertia alone). So an entry that has not been used since it came in counts a share of its worth only. How
 * small a share is right differs by trace. Three shadows, which hold keys without values, see a sample of the keys, chosen by
 * hash (Waldspurger, Saemundsson, Ahmad and Park, ATC 2017), and differ in nothing but this share: 0.3; 0.004; and plain LRU,
 * for what only the order of use can tell. The cache follows the one that has had the most hits lately.
 *
 * Histograms are shared, so that a shadow is no more than tags, their histories, and chains to find them by. A cache of up to
 * 128 entries is shadowed whole, one of 512 by 128, one of 1,024 by 64. From there on the shadows grow as the square root of the
 * cache, to 1,024 entries, and the sample gets thinner as fast: choices are the surer the more a shadow holds (one of 64 chooses by
 * chance where policies are a point apart), while an insertion is the slower the more keys are in the sample.
 */
#ifndef NEARCACHE_SHADOW_H
#define NEARCACHE_SHADOW_H

#include "worth.h"

enum {
    SHADOW_SMALL = 7, /* entries of a shadow, as powers of two: at first, ... */
    SHADOW_LARGE = 10, /* ... and at most */
    SHADOW_LOOKS = 8, /* candidates for each eviction, ... */
    SHADOW_LOOKS_LRU = 16, /* ... and where the order of use is all that counts */
    SHADOW_COUNT = 3,
    SHADOW_MEMORY = 8 /* how long hits count, in fillings of a shadow */
};

#define SHADOW_LEAD 2.0F /* hits by which a shadow must be ahead to be followed */

static const float shadow_shares[SHADOW_COUNT] = {0.3F, 0.004F, WORTH_LRU};

typedef struct {
    uint32_t *tag;
    uint32_t *history;
    uint16_t *head; /* chains by tag; index + 1, 0 is the end */
    uint16_t *next;
    uint32_t count;
    uint32_t newest;
    float score;
} shadow_t;

typedef struct {
    shadow_t shadow[SHADOW_COUNT];
    uint32_t *block;    /* what they consist of */
    uint32_t entries;   /* of each shadow at most */
    uint32_t chains;    /* of each shadow, a power of two */
    uint32_t bits;      /* one key in 2**bits is in the sample */
    uint32_t followed;  /* which shadow leads */
    float keep;         /* what is left of a score after one request */
} shadows_t;

/* By this number, in which each bit depends on all of a tag's, keys are chosen: its uppermost bits tell who is in the sample. */
static inline uint32_t shadow_mix(uint32_t tag)
{
    uint32_t x = (tag ^ 0xb3u) * 0x9e3779b1u;

    x ^= x >> 15;
    x *= 0x85ebca77u;
    return x ^ x >> 13;
}

static inline uint32_t shadow_random(uint32_t *state)
{
    uint32_t x = *state;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    *state = x;
    return x;
}

static inline uint32_t shadow_below(uint32_t *state, uint32_t bound)
{
    return (uint32_t)((uint64_t)shadow_random(state) * bound >> 32);
}

/* Is this key in the sample? */
static inline int shadows_see(const shadows_t *s, uint32_t choice)
{
    return choice >> 1 >> (31u - s->bits) == 0;
}

/* One key in 2 to the power of what is in the sample for a cache of so many entries? */
static inline uint32_t shadows_bits(uint32_t entries)
{
    uint32_t octave = entries > 1u ? worth_log2(entries - 1u) + 1u : 0;
    uint32_t least = octave > SHADOW_LARGE ? octave - SHADOW_LARGE : 0;
    uint32_t root = octave > SHADOW_SMALL + 2u ? (octave - 1u) / 2u : octave > SHADOW_SMALL ? octave - SHADOW_SMALL : 0;

    return root > least ? root : least;
}

static inline uint32_t shadows_chains(uint32_t entries)
{
    uint32_t most = entries >> shadows_bits(entries);
    return most > 1u ? 2u << worth_log2(most - 1u) : 1u;
}

/* The memory of the shadows of a cache of so many entries. */
static inline size_t shadows_bytes(uint32_t entries)
{
    return (size_t)SHADOW_COUNT * shadows_chains(entries) * (2 * sizeof(uint32_t) + 2 * sizeof(uint16_t));
}

/* Begin anew, for a cache of so many entries, with a block of zeros, of which the shadows get as many bytes as they need. Returns
 * the block before, which is the caller's. */
static inline uint32_t *shadows_scale(shadows_t *s, uint32_t entries, uint32_t *block)
{
    uint32_t *before = s->block;

    s->block = block;
    s->bits = shadows_bits(entries);
    s->entries = entries >> s->bits;
    s->chains = shadows_chains(entries);
    s->keep = 1.0F - 1.0F / ((float)SHADOW_MEMORY * (float)s->entries + 64.0F);
    for (uint32_t i = 0; i < SHADOW_COUNT; i++) {
        uint32_t *own = block + (size_t)i * s->chains * 3u;
        uint16_t *links = (uint16_t *)(own + 2u * s->chains);
        s->shadow[i] = (shadow_t){own, own + s->chains, links, links + s->chains, 0, 0, 0.0F};
    }
    return before;
}

static inline void shadow_unlink(const shadows_t *all, shadow_t *s, uint32_t i)
{
    uint16_t *at = &s->head[s->tag[i] & (all->chains - 1u)];

    while (*at != i + 1u) {
        at = &s->next[*at - 1u];
    }
    *at = s->next[i];
}

/* The least worth of the newest, as in the cache itself, and some neighbours, from a random one on; in a small shadow some are
 * looked at twice. Without the newest a shadow would spare newcomers that the cache does not, and promise what it cannot keep.
 * Plain LRU has everything or nothing where what is in use just fits: one that took a few at random for all would promise less
 * than the cache could keep. */
static inline uint32_t shadow_victim(const shadow_t *s, const worth_t *w, float share, uint32_t *random)
{
    uint32_t at = shadow_below(random, s->count);
    uint32_t victim = s->newest;
    int32_t least = WORTH_NOBODY;
    uint32_t looks = SHADOW_LOOKS;

    if (share == WORTH_LRU) {
        looks = SHADOW_LOOKS_LRU;
    }
    for (uint32_t lot = 0; lot < looks / LOT; lot++) {
        uint32_t look[LOT];
        words_t history;
        ints_t rank;
        uint32_t best;
        for (uint32_t i = 0; i < LOT; i++) {
            look[i] = lot + i != 0 ? at : s->newest;
            history[i] = s->history[look[i]];
            at = at + 1u < s->count ? at + 1u : 0;
        }
        rank = worth_ranks(w, history, share);
        best = lot_least(rank);
        victim = rank[best] < least ? look[best] : victim;
        least = rank[best] < least ? rank[best] : least;
    }
    return victim;
}

/* A key is used: does this shadow hold it? It does from now on. */
static inline int shadow_use(shadows_t *all, shadow_t *s, const worth_t *w, uint32_t tag, uint32_t history, float share,
                             uint32_t *random)
{
    uint16_t *head = &s->head[tag & (all->chains - 1u)];
    uint32_t i;

    for (uint32_t at = *head; at != 0; at = s->next[at - 1u]) {
        if (s->tag[at - 1u] == tag) {
            s->history[at - 1u] = history & ~HISTORY_NEW;
            return 1;
        }
    }
    if (s->count < all->entries) {
        i = s->count++;
        history &= ~HISTORY_NEW;
    } else {
        i = shadow_victim(s, w, share, random);
        shadow_unlink(all, s, i);
        history |= HISTORY_NEW;
    }
    s->newest = i;
    s->tag[i] = tag;
    s->history[i] = history;
    s->next[i] = *head;
    *head = (uint16_t)(i + 1u);
    return 0;
}

/* A key of the sample is used. */
static inline void shadows_use(shadows_t *s, const worth_t *w, uint32_t tag, uint32_t history, uint32_t *random)
{
    float lead;

    for (uint32_t i = 0; i < SHADOW_COUNT; i++) {
        int hit = shadow_use(s, &s->shadow[i], w, tag, history, shadow_shares[i], random);
        s->shadow[i].score = s->shadow[i].score * s->keep + (float)hit;
    }
    lead = s->shadow[s->followed].score;
    for (uint32_t i = 0; i < SHADOW_COUNT; i++) {
        if (s->shadow[i].score > lead + SHADOW_LEAD) {
            s->followed = i;
            lead = s->shadow[i].score;
        }
    }
}

static inline const char *shadows_check(const shadows_t *s)
{
    for (uint32_t k = 0; k < SHADOW_COUNT; k++) {
        uint32_t linked = 0;
        if (s->shadow[k].count > s->entries || s->entries > s->chains) {
            return "a shadow is too large";
        }
        for (uint32_t i = 0; i < s->chains; i++) {
            for (uint32_t at = s->shadow[k].head[i]; at != 0; at = s->shadow[k].next[at - 1u]) {
                if (++linked > s->shadow[k].count) {
                    return "a shadow's chains are damaged";
                }
            }
        }
        if (linked != s->shadow[k].count) {
            return "a shadow's chains miss a key";
        }
    }
    return NULL;
}

#endif
