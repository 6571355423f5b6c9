/* check.h: what the native tests share: an allocator that counts and can be made to fail, checks that abort, numbers from a
 * fixed seed, and keys that are addresses of nothing. Include it before any header of the core. */
#ifndef NEARCACHE_TESTS_CHECK_H
#define NEARCACHE_TESTS_CHECK_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static long alloc_countdown = -1; /* how many more allocations succeed; -1: all */
static long alloc_failed = 0;     /* how many did not */
static long alloc_live = 0;       /* blocks not freed yet */

static inline void *check_alloc(size_t align, size_t size)
{
    void *block;

    if (alloc_countdown == 0) {
        alloc_failed++;
        return NULL;
    }
    alloc_countdown -= alloc_countdown > 0;
    block = aligned_alloc(align, size);
    alloc_live += block != NULL;
    return block;
}

static inline void check_free(void *memory)
{
    if (memory != NULL) {
        alloc_live--;
        free(memory);
    }
}

#define NEARCACHE_ALLOC(align, size) check_alloc((align), (size))
#define NEARCACHE_FREE(memory) check_free(memory)
#define NEARCACHE_ASSERT 1

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

#define WHOLE(check)                                                                 \
    do {                                                                             \
        const char *wrong = (check);                                                 \
        if (wrong != NULL) {                                                         \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, wrong); \
            abort();                                                                 \
        }                                                                            \
    } while (0)

static uint64_t random_state = 88172645463325252u;

static inline uint64_t random_bits(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 5;
}

static inline uint32_t random_below(uint32_t bound)
{
    return (uint32_t)(random_bits() % bound);
}

/* A span of time: each order of magnitude, from a nanosecond to 2**most of them, is as likely as any other. */
static inline int64_t random_span(uint32_t most)
{
    return (int64_t)(random_bits() & (((uint64_t)2 << random_below(most)) - 1));
}

/* Key number `key`; nothing lies at that address, and nobody looks. */
static inline void *key_of(uint32_t key)
{
    return (void *)(((uintptr_t)key + 1) << 4);
}

static inline uint32_t number_of(const void *key)
{
    return (uint32_t)(((uintptr_t)key >> 4) - 1);
}

enum { HASH_KINDS = 3 };

/* Three kinds of hashes: all distinct, many equal, and such that differ in the high bits only. */
static inline int64_t hash_of(int kind, uint32_t key)
{
    if (kind == 0) {
        return (int64_t)key;
    }
    return kind == 1 ? (int64_t)(key % 61) : (int64_t)((uint64_t)key << 44);
}

/* The end of a program: all is freed. */
static inline int check_done(const char *program)
{
    CHECK(alloc_live == 0);
    printf("%s: all passed, no block left\n", program);
    return 0;
}

#endif
