/* index.h: from a tag to the entries that may have it.
 *
 *     +-----------------------+
 *     | part of the tag, ref 2|     a slot: 4 bytes; 0: empty
 *     +-----------------------+
 *     | 0                     |
 *     +-----------------------+
 *     | part of the tag, ref 1|
 *     +-----------------------+
 *
 * Open addressing, probed linearly. The tag is 32 bits of the mixed hash; its low bits are the slot's home. A slot holds
 * a ref, in as many bits as refs need, and in the bits that are left the upper ones of the tag: 18 of them in a table of
 * 10,000 entries, 8 at ten million, so that a stranger's entry is hardly ever touched. The whole tag lies with the
 * entry's details, where erasing and rebuilding find it.
 *
 * Deletion shifts the rest of the cluster back:
 *
 *     before   [A0][B0][C1][D0][  ]      the number is the home; erase A
 *     hole      ^
 *     B0 may move to 0 (its home is not after the hole)        [B0][  ][C1][D0][  ]
 *     C1 may move to 1, D0 to 2                                [B0][C1][D0][  ][  ]
 *
 * There are no tombstones, hence nothing to count, to clean up, or to make probes longer than the load says. At most two
 * thirds of the slots are taken, so every probe ends.
 */
#ifndef NEARCACHE_INDEX_H
#define NEARCACHE_INDEX_H

#include "memory.h"

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
    uint32_t tags; /* the bits of a slot that are the tag's; the others are the ref */
} index_t;

/* The index of a table that owns no memory: one slot, always empty, never written to. */
static const uint32_t table_nothing[1] = {0};

static inline size_t index_bytes(const index_t *index)
{
    return ((size_t)index->mask + 1) * sizeof(uint32_t);
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

    while (slots * 2 < (uint64_t)capacity * 3) {
        slots *= 2;
    }
    while (refs <= capacity) {
        refs *= 2;
    }
    return (index_t){NULL, (uint32_t)(slots - 1), ~(uint32_t)(refs - 1)};
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

static inline uint32_t index_slot(const index_t *index, uint32_t tag, uint32_t ref)
{
    return (tag & index->tags) | ref;
}

static inline uint32_t index_next(const index_t *index, uint32_t tag, uint32_t *at)
{
    for (;;) {
        uint32_t slot = index->slots[*at & index->mask];
        *at += 1;
        if (slot == 0) {
            return 0;
        }
        if (((slot ^ tag) & index->tags) == 0) {
            return slot & ~index->tags;
        }
    }
}

static inline void index_place(index_t *index, uint32_t tag, uint32_t ref)
{
    uint32_t i = tag & index->mask;

    while (index->slots[i] != 0) {
        i = (i + 1) & index->mask;
    }
    index->slots[i] = index_slot(index, tag, ref);
}

/* Which slot is entry `ref`'s? 0 and nothing in `*found` when the index does not have it. */
static inline int index_find(const index_t *index, uint32_t tag, uint32_t ref, uint32_t *found)
{
    uint32_t sought = index_slot(index, tag, ref);

    for (uint32_t i = tag & index->mask; index->slots[i] != 0; i = (i + 1) & index->mask) {
        if (index->slots[i] == sought) {
            *found = i;
            return 1;
        }
    }
    return 0;
}

/* Empty a slot and close the gap: each slot that follows moves back unless its home lies after the gap. */
static inline void index_erase(index_t *index, const detail_t *details, uint32_t hole)
{
    uint32_t mask = index->mask;

    for (uint32_t i = (hole + 1) & mask; index->slots[i] != 0; i = (i + 1) & mask) {
        uint32_t from_home = (i - details[index->slots[i] & ~index->tags].tag) & mask;
        uint32_t from_hole = (i - hole) & mask;
        if (from_home >= from_hole) {
            index->slots[hole] = index->slots[i];
            hole = i;
        }
    }
    index->slots[hole] = 0;
}

#endif
