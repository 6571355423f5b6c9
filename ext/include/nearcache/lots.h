/* lots.h: four numbers at once, in the vector notation that gcc and clang have for all processors.
 *
 * Which of some candidates it is that matches, or is the least, is unpredictable, and each branch on it is mispredicted every
 * other time, which takes as long as fifty instructions. Compilers make such branches of `?:` in a loop as they please. Of
 * what is said by masks (all bits of a number are set, or none) they cannot.
 */
#ifndef NEARCACHE_LOTS_H
#define NEARCACHE_LOTS_H

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

enum { LOT = 4 };

typedef uint32_t words_t __attribute__((vector_size(LOT * sizeof(uint32_t))));
typedef int32_t ints_t __attribute__((vector_size(LOT * sizeof(int32_t))));
typedef float floats_t __attribute__((vector_size(LOT * sizeof(float))));

#define LOT_COLUMNS ((words_t){0, 1, 2, 3})

_Static_assert(LOT == 4, "there are so many columns, and shuffles below");

static inline words_t lot_read(const uint32_t *from)
{
    words_t lot;

    memcpy(&lot, from, sizeof lot);
    return lot;
}

static inline ints_t ints_pick(ints_t is, ints_t yes, ints_t no)
{
    return (is & yes) | (~is & no);
}

/* Of a mask: bit i is number i. */
static inline uint32_t lot_bits(ints_t is)
{
#if defined(__SSE2__)
    return (uint32_t)_mm_movemask_ps((__m128)is);
#else
    ints_t bits = is & (ints_t){1, 2, 4, 8};
    return (uint32_t)(bits[0] | bits[1] | bits[2] | bits[3]);
#endif
}

/* The first number of a mask; LOT: none. */
static inline uint32_t lot_first(ints_t is)
{
    return (uint32_t)__builtin_ctz(lot_bits(is) | 1u << LOT);
}

/* Which of the numbers is the least? */
static inline uint32_t lot_least(ints_t rank)
{
    ints_t other = {rank[2], rank[3], rank[0], rank[1]};
    ints_t least = ints_pick(other < rank, other, rank);

    other = (ints_t){least[1], least[0], least[3], least[2]};
    least = ints_pick(other < least, other, least);
    return lot_first(rank == least) & (LOT - 1u);
}

#endif
