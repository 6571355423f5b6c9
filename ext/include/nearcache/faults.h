/* faults.h: memory that runs out when a test says so. In debug builds (NEARCACHE_FAULTS=1) it takes the place of the C
 * library's behind the names of memory.h; otherwise nothing of it is compiled.
 */
#ifndef NEARCACHE_FAULTS_H
#define NEARCACHE_FAULTS_H

#include <stddef.h>
#include <stdlib.h>

static long faults_allowed = -1; /* how many more allocations succeed; -1: all */
static long faults_seen = 0;     /* how many did not */

static inline void *faults_alloc(size_t align, size_t size)
{
    if (faults_allowed == 0) {
        faults_seen++;
        return NULL;
    }
    faults_allowed -= faults_allowed > 0;
    return aligned_alloc(align, size);
}

/* Let so many allocations succeed and no more; -1: all. Returns how many have failed since the last call. */
static inline long faults_after(long allowed)
{
    long seen = faults_seen;

    faults_allowed = allowed;
    faults_seen = 0;
    return seen;
}

#endif
