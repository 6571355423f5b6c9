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

#include "memory.h"

enum {
    INDEX_STEPS = 4, /* bits of a slot for the steps, where refs leave so many */
    INDEX_GLANCE = 4 /* slots that are looked at together; so many, less one, stand empty behind the last */
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
    uint32_t steps[INDEX_GLANCE]; /* what tells 0, 1, ... steps */
    uint32_t tells[INDEX_GLANCE]; /* the bits that are not the ref, for each of the slots that are looked at together */
} index_t;

/* The index of a table that owns no memory: one slot, always empty, never written to. */
static const uint32_t table_nothing[INDEX_GLANCE] = {0};

static inline size_t index_bytes(const index_t *index)
{
    return ((size_t)index->mask + INDEX_GLANCE) * sizeof(uint32_t);
}

static inline void index_free(index_t *index)
{
    if (index->slots != NULL && index->slots != table_nothing) {
        memory_free(index->slots, index_bytes(index));
    }
    index->slots = NULL;
}

/* The index that so many entries need: at most two thirds full, and refs with just the bits that they take. */
static inline index_t index_shape(uint32_t capacity)
{
    uint64_t slots = 16;
    uint64_t refs = 16;
    uint32_t shift = 32 - INDEX_STEPS;
    index_t index = {0};

    while (slots * 2 < (uint64_t)capacity * 3) {
        slots *= 2;
    }
    while (refs <= capacity) {
        refs *= 2;
    }
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

/* Is it certain that no entry has this tag? So it is as a rule where none has it: one of the slots that are looked at together
 * is empty, and none of them matches. It is not where these few steps are too many for a slot, as in a table of hundreds of
 * millions, nor where the chain may go on at the beginning. */
static inline int index_lacks(const index_t *index, uint32_t tag)
{
    uint32_t at = tag & index->mask;
    const uint32_t *home = &index->slots[at];
    uint32_t part = index_part(index, tag);
    uint32_t matches = 0;
    uint32_t is_last = 0;

    for (uint32_t i = 0; i < INDEX_GLANCE; i++) {
        matches |= ((home[i] ^ (part + index->steps[i])) & index->tells[i]) == 0;
        is_last |= home[i] == 0;
    }
    return (is_last > matches) & (index->mask - at >= INDEX_GLANCE - 1) & (index->shift <= 32 - INDEX_STEPS);
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
    uint32_t pattern = index_pattern(index, tag);

    while (index->slots[i] != 0) {
        i = (i + 1) & index->mask;
        pattern = index_farther(index, pattern);
    }
    index->slots[i] = pattern | ref;
}

/* Which slot is entry `ref`'s? 0 and nothing in `*found` when the index does not have it. */
static inline int index_find(const index_t *index, uint32_t tag, uint32_t ref, uint32_t *found)
{
    for (uint32_t i = tag & index->mask; index->slots[i] != 0; i = (i + 1) & index->mask) {
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

/* Empty a slot and close the gap: each slot that follows moves back unless its home lies after the gap. Who moves is
 * unpredictable, so there is no branch: each time something is written to the gap, be it what stands there. */
static inline void index_erase(index_t *index, const detail_t *details, uint32_t hole)
{
    uint32_t *slots = index->slots;
    uint32_t mask = index->mask;
    uint32_t step = index->step;
    uint32_t far = 0u - step;
    uint32_t there = slots[hole];
    uint64_t gap = step; /* how many steps `i` is behind the gap */

    for (uint32_t i = (hole + 1) & mask; slots[i] != 0; i = (i + 1) & mask) {
        uint32_t slot = slots[i];
        uint32_t moved = slot - (uint32_t)gap;
        uint64_t moves = 0u - (uint64_t)(slot >= gap + step); /* all bits, or none */
        if (__builtin_expect(slot >= far, 0)) {
            moved = index_moved_far(index, details, i, (uint32_t)(gap >> index->shift));
            moves = 0u - (uint64_t)(moved != 0);
        }
        slots[hole] = there ^ ((there ^ moved) & (uint32_t)moves);
        there ^= (there ^ slot) & (uint32_t)moves;
        hole ^= (hole ^ i) & (uint32_t)moves;
        gap = (gap & ~moves) + step;
    }
    slots[hole] = 0;
}

#endif
