/* memory.h: memory for arrays that grow to millions of elements, without a stall and without waste.
 *
 * A small block comes from the C library. A block of MEMORY_MAPPED bytes and more is a mapping of its own: the system
 * hands it out as zeros page by page when they are first touched, grows it by moving page tables instead of bytes
 * (mremap), and gets it back when it shrinks.
 *
 * A look-up in a table of a million entries misses the translation buffer as often as the cache, so large blocks want huge
 * pages. But to touch a huge page for the first time takes longer than an insertion may. So blocks grow with small pages,
 * and when they have reached their final size (memory_settle) the system is asked to put huge ones in their place, which
 * it does in the background.
 *
 * Where there is no mremap, growing copies; that costs a pause, never correctness. Under AddressSanitizer, which does
 * not watch mappings, everything comes from the C library (NEARCACHE_MAPPED=0).
 */
#ifndef NEARCACHE_MEMORY_H
#define NEARCACHE_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Allocation goes through these names, so that a test can make any one of them fail. */
#ifndef NEARCACHE_FAULTS
#define NEARCACHE_FAULTS 0
#endif
#if NEARCACHE_FAULTS
#include "faults.h"
#define NEARCACHE_ALLOC(align, size) faults_alloc((align), (size))
#define NEARCACHE_FREE(memory) free(memory)
#else
#define faults_after(allowed) ((void)(allowed), 0L) /* for a caller that asks NEARCACHE_FAULTS first */
#endif
#ifndef NEARCACHE_ALLOC
#define NEARCACHE_ALLOC(align, size) aligned_alloc((align), (size))
#define NEARCACHE_FREE(memory) free(memory)
#endif

#ifndef NEARCACHE_MAPPED
#if defined(__linux__)
#define NEARCACHE_MAPPED 1
#else
#define NEARCACHE_MAPPED 0
#endif
#endif

#if NEARCACHE_MAPPED
#include <sys/mman.h>
#endif

/* Not assert(): Python's own build flags switch that off. */
#if defined(NEARCACHE_ASSERT) && NEARCACHE_ASSERT
#include <stdio.h>
#define NC_ASSERT(condition)                                                                 \
    do {                                                                                     \
        if (!(condition)) {                                                                  \
            fprintf(stderr, "%s:%d: %s is false: %s\n", __FILE__, __LINE__, __func__, #condition); \
            abort();                                                                         \
        }                                                                                    \
    } while (0)
#else
#define NC_ASSERT(condition) ((void)0)
#endif

#define MEMORY_LINE 64u
#ifndef MEMORY_MAPPED
#define MEMORY_MAPPED ((size_t)512 << 10) /* from here on a block is a mapping of its own; tests set it lower */
#endif
#ifndef MEMORY_SPARSE
#define MEMORY_SPARSE ((size_t)16 << 10) /* the same for a block of which most may never be used */
#endif
#define MEMORY_HUGE ((size_t)8 << 20) /* from here on huge pages are worth asking for */

/* What a block of so many bytes really takes. */
static inline size_t memory_round(size_t bytes)
{
    size_t unit = NEARCACHE_MAPPED && bytes >= MEMORY_MAPPED ? 4096u : MEMORY_LINE;
    return (bytes + unit - 1) / unit * unit;
}

#if NEARCACHE_MAPPED
static inline int memory_is_mapped(size_t bytes)
{
    return bytes >= MEMORY_MAPPED;
}

/* A block has reached its final size and has been written to all over. */
static inline void memory_settle(void *block, size_t bytes)
{
    if (block != NULL && bytes >= MEMORY_HUGE) {
        (void)madvise(block, memory_round(bytes), MADV_HUGEPAGE);
    }
}

static inline void *memory_map(size_t bytes)
{
    void *block = mmap(NULL, memory_round(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return block == MAP_FAILED ? NULL : block;
}

static inline void memory_unmap(void *block, size_t bytes)
{
    (void)munmap(block, memory_round(bytes));
}

static inline void *memory_remap(void *block, size_t old_bytes, size_t bytes)
{
#if defined(MREMAP_MAYMOVE)
    void *moved;

    if (old_bytes >= MEMORY_HUGE) { /* what is new is to come in small pages */
        (void)madvise(block, memory_round(old_bytes), MADV_NOHUGEPAGE);
    }
    moved = mremap(block, memory_round(old_bytes), memory_round(bytes), MREMAP_MAYMOVE);
    return moved == MAP_FAILED ? NULL : moved;
#else
    void *moved = memory_map(bytes);

    if (moved != NULL) {
        memcpy(moved, block, old_bytes < bytes ? old_bytes : bytes);
        memory_unmap(block, old_bytes);
    }
    return moved;
#endif
}
#else
static inline int memory_is_mapped(size_t bytes)
{
    (void)bytes;
    return 0;
}

static inline void memory_settle(void *block, size_t bytes)
{
    (void)block;
    (void)bytes;
}

static inline void *memory_map(size_t bytes)
{
    (void)bytes;
    return NULL;
}

static inline void memory_unmap(void *block, size_t bytes)
{
    (void)block;
    (void)bytes;
}

static inline void *memory_remap(void *block, size_t old_bytes, size_t bytes)
{
    (void)block;
    (void)old_bytes;
    (void)bytes;
    return NULL;
}
#endif

/* A block of zeros, or NULL. */
static inline void *memory_new(size_t bytes)
{
    void *block;

    if (memory_is_mapped(bytes)) {
        return memory_map(bytes);
    }
    block = NEARCACHE_ALLOC(MEMORY_LINE, memory_round(bytes));
    if (block != NULL) {
        memset(block, 0, memory_round(bytes));
    }
    return block;
}

/* Ask for a line before it is read. Any address will do. */
static inline void memory_prefetch(const void *line)
{
    __builtin_prefetch(line);
}

/* Give a block back; NULL is nothing. `bytes` is what was asked for. */
static inline void memory_free(void *block, size_t bytes)
{
    if (block == NULL) {
        return;
    }
    if (memory_is_mapped(bytes)) {
        memory_unmap(block, bytes);
    } else {
        NEARCACHE_FREE(block);
    }
}

/* A block of zeros of which most may never be touched, or NULL: where there are mappings a page of it takes memory when it is. */
static inline void *memory_new_sparse(size_t bytes)
{
    return NEARCACHE_MAPPED && bytes >= MEMORY_SPARSE ? memory_map(bytes) : memory_new(bytes);
}

static inline void memory_free_sparse(void *block, size_t bytes)
{
    if (block == NULL || !NEARCACHE_MAPPED || bytes < MEMORY_SPARSE) {
        memory_free(block, bytes);
    } else {
        memory_unmap(block, bytes);
    }
}

/* Give `*block` another size, `*bytes` being the present one. Contents that both have are kept, what is new is undefined.
 * -1 without memory, with nothing changed. Arrays that belong together may be fitted one by one: one that has become
 * larger than its fellows does no harm. */
static inline int memory_fit(void **block, size_t *bytes, size_t wanted)
{
    int was_mapped = memory_is_mapped(*bytes);
    void *resized;

    if (*block != NULL && memory_round(wanted) == memory_round(*bytes) && memory_is_mapped(wanted) == was_mapped) {
        *bytes = wanted;
        return 0;
    }
    if (*block != NULL && was_mapped && memory_is_mapped(wanted)) {
        resized = memory_remap(*block, *bytes, wanted);
    } else {
        resized = memory_new(wanted);
        if (resized != NULL && *block != NULL) {
            memcpy(resized, *block, *bytes < wanted ? *bytes : wanted);
            memory_free(*block, *bytes);
        }
    }
    if (resized == NULL) {
        return -1;
    }
    *block = resized;
    *bytes = wanted;
    return 0;
}

#endif
