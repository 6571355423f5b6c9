/* index.h: from a tag to the entries that may have it.
 *
 *     31   28                    0
 *     +------+-------------+-----+
 *     | steps| part of tag | ref |     a slot: 4 bytes; 0: empty
 *     +------+-------------+-----+
 *
 * Open addressing, probed linearly. The tag is 32 bits of the mixed hash; its low bits are the slot's home. A slot holds
 * a ref, in as many bits as refs need; above that upper bits of the tag; and in the uppermost bits, four of them as a
 * rule, one more than the steps that it lies from its home. What is sought is at each step another pattern, so of
 * strangers only those of the same home and the same part of the tag are touched: one in thousands in a table of 10,000
 * entries, one in fifty at ten million. The whole tag lies with the entry's details, where rebuilding finds it.
 *
 * Deletion shifts the rest of the cluster back:
 *
 *     before   [A0][B0][C1][D0][  ]      the number is the home; erase A
 *     hole      ^
 *     B0 may move to 0 (its home is not after the hole)        [B0][  ][C1][D0][  ]
 *     C1 may move to 1, D0 to 2                                [B0][C1][D0][  ][  ]
 *
 * Who may move is told by the steps in the slots themselves. Only for those that are too far from home for four bits the
 * details are asked, which lie elsewhere for each.
 *
 * There are no tombstones, hence nothing to count, to clean up, or to make probes longer than the load says. At most two
 * thirds of the slots are taken, so every probe ends.
 */
#ifndef NEARCACHE_INDEX_H
#define NEARCACHE_INDEX_H

#include "lots.h"
#include "memory.h"

enum {
    INDEX_STEPS = 4, /* bits of a slot for the steps, where refs leave so many */
    INDEX_GLANCE = LOT,  /* slots that are looked at together for an entry */
    INDEX_LOOK = 2 * LOT /* and for an empty slot, which lies farther; so many, less one, stand empty behind the last */
};

/* What a hit does not read. */
typedef struct {
    uint64_t wid;    /* random id of the write that made the value; 0: a local write */
    uint32_t tag;    /* for a free entry, the next free one */
    uint32_t weight; /* the size, see weight_of */
} detail_t;

_Static_assert(sizeof(detail_t) == 16, "details fill their line");

typedef struct {
    uint32_t *slots;
    uint32_t mask; /* number of slots - 1 */
    uint32_t refs; /* the bits of a slot that are the ref */
    uint32_t tags; /* those that are the tag's */
    uint32_t step; /* one step from home, 1 << shift; the greatest number of steps means "or more" */
    uint32_t shift;
    uint32_t last; /* the slot that was filled last */
    uint32_t steps[INDEX_GLANCE]; /* what tells 0, 1, ... steps */
    uint32_t tells[INDEX_GLANCE]; /* the bits that are not the ref, for each of the slots that are looked at together */
} index_t;

/* The index of a table that owns no memory: one slot, always empty, never written to. */
static const uint32_t table_nothing[INDEX_LOOK] = {0};

static inline size_t index_bytes(const index_t *index)
{
    return ((size_t)index->mask + INDEX_LOOK) * sizeof(uint32_t);
}

static inline void index_free(index_t *index)
{
    if (index->slots != NULL && index->slots != table_nothing) {
        memory_free(index->slots, index_bytes(index));
    }
    index->slots = NULL;
}

/* An index, without slots yet, of so many of them, for refs below that bound; both are powers of two. */
static inline index_t index_of(uint64_t slots, uint64_t refs)
{
    uint32_t shift = 32 - INDEX_STEPS;
    index_t index = {0};

    shift = refs >> shift == 0 ? shift : (uint32_t)__builtin_ctzll(refs);
    index.mask = (uint32_t)(slots - 1);
    index.refs = (uint32_t)(refs - 1);
    index.tags = (((uint32_t)1 << shift) - 1) & ~(uint32_t)(refs - 1);
    index.step = (uint32_t)1 << shift;
    index.shift = shift;
    for (uint32_t i = 0; i < INDEX_GLANCE; i++) {
        index.steps[i] = (i + 1) << shift;
        index.tells[i] = ~index.refs;
    }
    return index;
}

/* The index that so many entries need: at most two thirds full, and refs with just the bits that they take. */
static inline index_t index_shape(uint32_t capacity)
{
    uint64_t slots = 16;
    uint64_t refs = 16;

    while (slots * 2 < (uint64_t)capacity * 3) {
        slots *= 2;
    }
    while (refs <= capacity) {
        refs *= 2;
    }
    return index_of(slots, refs);
}

/* Are the slots behind the last, which are looked at beside it, empty? */
static inline int index_ends(const index_t *index)
{
    uint32_t behind = 0;

    for (uint32_t i = 1; i < INDEX_LOOK; i++) {
        behind |= index->slots[index->mask + i];
    }
    return behind == 0;
}

/* -- sizes ------------------------------------------------------------------------------------------------ */

/* A size in 32 bits: exact below 64 Mi, above it with 26 significant bits, rounded down. The upper 6 bits tell by how
 * many bits the rest was shifted. */
static inline uint32_t weight_of(uint64_t size)
{
    uint32_t shift = size >> 26 == 0 ? 0 : (uint32_t)(38 - __builtin_clzll(size));
    return shift << 26 | (uint32_t)(size >> shift);
}

static inline uint64_t weight_size(uint32_t weight)
{
    return (uint64_t)(weight & 0x3ffffffu) << (weight >> 26);
}

/* -- slots ------------------------------------------------------------------------------------------------ */

/* The part of a tag that slots hold, in its place. It is none that tells the home. */
static inline uint32_t index_part(const index_t *index, uint32_t tag)
{
    return tag >> INDEX_STEPS & index->tags;
}

/* What the slot of an entry with this tag holds at its home, save the ref. */
static inline uint32_t index_pattern(const index_t *index, uint32_t tag)
{
    return index_part(index, tag) + index->step;
}

/* The same one step farther. */
static inline uint32_t index_farther(const index_t *index, uint32_t pattern)
{
    return pattern < 0u - index->step ? pattern + index->step : pattern;
}

/* The same that many steps from home. */
static inline uint32_t index_pattern_at(const index_t *index, uint32_t tag, uint32_t steps)
{
    uint32_t most = ((0u - index->step) >> index->shift) - 1;
    return index_pattern(index, tag) + ((steps < most ? steps : most) << index->shift);
}

/* The ref of an entry that may have this tag; it may also be one that no entry has. 0 says nothing: where it is far from
 * home, or beyond the last slot, an entry is not looked for.
 *
 * How far from home a slot lies is unpredictable, and a branch on it would be mispredicted for every third look-up. So
 * several slots are compared at once. Should two of them match, which is rare, their refs are mixed up. */
static inline uint32_t index_glance(const index_t *index, uint32_t tag)
{
    const uint32_t *home = &index->slots[tag & index->mask];
    uint32_t part = index_part(index, tag);
    uint32_t found = 0;

    for (uint32_t i = 0; i < INDEX_GLANCE; i++) {
        uint32_t differ = home[i] ^ (part + index->steps[i]);
        found |= (differ & index->tells[i]) == 0 ? differ : 0;
    }
    return found;
}

/* In which bits a lot of slots, so many steps behind an entry's home, differ from what an entry with this tag would have
 * there, the refs left out. */
static inline words_t index_differences(const index_t *index, uint32_t tag, uint32_t steps, words_t slots)
{
    uint32_t first = index_part(index, tag) + (steps << index->shift);
    return (slots ^ (first + lot_read(index->steps))) & ~index->refs;
}

/* As index_glance, and which slot it is; the first, should several match. */
static inline uint32_t index_glance_at(const index_t *index, uint32_t tag, uint32_t *at)
{
    words_t home = lot_read(&index->slots[tag & index->mask]);
    uint32_t steps = lot_first(index_differences(index, tag, 0, home) == 0);

    *at = (tag & index->mask) + steps;
    return steps < INDEX_GLANCE ? index->slots[*at] & index->refs : 0;
}

/* May a chain be told by one look at the slots from `at` on? As a rule; not where a slot has too few bits for these steps, as in
 * a table of hundreds of millions, nor where the chain may go on at the beginning. */
static inline int index_is_plain(const index_t *index, uint32_t at)
{
    return (index->mask - at >= INDEX_LOOK - 1) & (index->shift <= 32 - INDEX_STEPS);
}

/* Is it certain that no entry has this tag? So it is as a rule where none has it: one of the slots that are looked at together
 * is empty, and none of them matches. */
static inline int index_lacks(const index_t *index, uint32_t tag)
{
    uint32_t at = tag & index->mask;
    words_t home = lot_read(&index->slots[at]);
    words_t next = lot_read(&index->slots[at + LOT]);
    ints_t match = (index_differences(index, tag, 0, home) == 0) | (index_differences(index, tag, LOT, next) == 0);
    int matches = lot_bits(match) != 0;
    int is_last = lot_bits((home == 0) | (next == 0)) != 0;

    return (is_last > matches) & index_is_plain(index, at);
}

/* The next ref that an entry with this tag may have; 0: there is none. `*at` is `tag` at first. */
static inline uint32_t index_next(const index_t *index, uint32_t tag, uint32_t *at)
{
    uint32_t sought = index_pattern_at(index, tag, *at - tag);

    for (;;) {
        uint32_t slot = index->slots[*at & index->mask];
        *at += 1;
        if ((slot ^ sought) <= index->refs) {
            return slot ^ sought;
        }
        if (slot == 0) {
            return 0;
        }
        sought = index_farther(index, sought);
    }
}

static inline void index_place(index_t *index, uint32_t tag, uint32_t ref)
{
    uint32_t i = tag & index->mask;
    uint32_t empty = lot_bits(lot_read(&index->slots[i]) == 0) | lot_bits(lot_read(&index->slots[i + LOT]) == 0) << LOT;
    uint32_t steps = (uint32_t)__builtin_ctz(empty | 1u << INDEX_LOOK);
    uint32_t pattern = index_pattern(index, tag);

    if (__builtin_expect((steps < INDEX_LOOK) & index_is_plain(index, i), 1)) {
        i += steps;
        pattern += steps << index->shift;
    }
    while (index->slots[i] != 0) {
        i = (i + 1) & index->mask;
        pattern = index_farther(index, pattern);
    }
    index->slots[i] = pattern | ref;
    index->last = i;
}

/* Which slot is entry `ref`'s? 0 and nothing in `*found` when the index does not have it.
 *
 * In a scan it is the one filled last, and that is still on its way to memory: read as a part of a lot, it would be waited
 * for. */
static inline int index_find(const index_t *index, uint32_t tag, uint32_t ref, uint32_t *found)
{
    uint32_t i = tag & index->mask;
    uint32_t steps;

    if ((index->slots[index->last] & index->refs) == ref) {
        *found = index->last;
        return 1;
    }
    steps = lot_first((lot_read(&index->slots[i]) & index->refs) == ref);
    if (__builtin_expect(steps < INDEX_GLANCE, 1)) {
        *found = i + steps;
        return 1;
    }
    for (; index->slots[i] != 0; i = (i + 1) & index->mask) {
        if ((index->slots[i] & index->refs) == ref) {
            *found = i;
            return 1;
        }
    }
    return 0;
}

/* A slot that tells its steps by "or more" moves back by that many, if so many lie between it and its home: then what it
 * holds there is returned, otherwise 0. */
static inline uint32_t index_moved_far(const index_t *index, const detail_t *details, uint32_t i, uint32_t steps)
{
    uint32_t ref = index->slots[i] & index->refs;
    uint32_t tag = details[ref].tag;
    uint32_t from_home = (i - tag) & index->mask;

    return from_home >= steps ? index_pattern_at(index, tag, from_home - steps) | ref : 0;
}

/* Empty a slot and close the gap, which is `gap` before the slot `i`: it and those that follow move back unless their homes lie after
 * the gap. */
static __attribute__((noinline, cold, unused)) void index_erase_far(index_t *index, const detail_t *details, uint32_t hole,
                                                                    uint32_t i, uint64_t gap)
{
    uint32_t *slots = index->slots;
    uint32_t far = 0u - index->step;

    for (; slots[i] != 0; i = (i + 1) & index->mask) {
        uint32_t steps = (uint32_t)(gap >> index->shift);
        uint32_t slot = slots[i];
        uint32_t nearer = slot >= gap + index->step ? slot - (uint32_t)gap : 0;
        uint32_t moved = slot >= far ? index_moved_far(index, details, i, steps) : nearer;
        slots[hole] = moved;
        hole = moved != 0 ? i : hole;
        gap = moved != 0 ? index->step : gap + index->step;
    }
    slots[hole] = 0;
}

/* The same, without a branch on who moves, and how many follow, which is unpredictable: each time something is written to the
 * gap, which the next who moves or the end overwrites, and several are gone through before it is asked whether there are
 * more. Behind an empty slot nobody moves, for no home lies so far before. */
static inline void index_erase(index_t *index, const detail_t *details, uint32_t hole)
{
    uint32_t *slots = index->slots;
    uint32_t step = index->step;
    uint64_t gap = step; /* how many steps `i` is behind the gap, after the next step */
    uint32_t i = hole;

    while (__builtin_expect(index->mask - i >= INDEX_GLANCE, 1)) {
        words_t lot = lot_read(&slots[i + 1]);
        if (__builtin_expect(lot_bits((lot & (0u - step)) == 0u - step) != 0, 0)) {
            break;
        }
        for (uint32_t n = 0; n < INDEX_GLANCE; n++) {
            uint32_t slot = slots[++i];
            uint64_t moves = 0u - (uint64_t)(slot >= gap + step); /* all bits, or none */
            slots[hole] = slot - (uint32_t)gap;
            hole ^= (hole ^ i) & (uint32_t)moves;
            gap = (gap & ~moves) + step;
        }
        if (lot_bits(lot == 0) != 0) {
            slots[hole] = 0;
            return;
        }
    }
    index_erase_far(index, details, hole, (i + 1) & index->mask, gap);
}

#endif
