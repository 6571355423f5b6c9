/* The clock that L1 reads on every hit: monotonic nanoseconds, coarse where the system has such a clock.
 *
 * The coarse clock costs a tenth of the precise one because the kernel only writes it once a tick; it lags by up to
 * that tick. Callers that need "never late" take one tick off the instants they hand to the store.
 */
#ifndef NEARCACHE_CLOCK_H
#define NEARCACHE_CLOCK_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <stdint.h>
#include <time.h>

#define CLOCK_NEVER_NS INT64_MAX /* a deadline that does not come */
#define CLOCK_REAL INT64_MIN     /* value of source_t.fixed_ns that means: ask the system */

#if defined(CLOCK_MONOTONIC_COARSE)
#define NEARCACHE_CLOCK_ID CLOCK_MONOTONIC_COARSE
#elif defined(CLOCK_MONOTONIC_RAW_APPROX) /* macOS: the approximation that needs no system call */
#define NEARCACHE_CLOCK_ID CLOCK_MONOTONIC_RAW_APPROX
#else
#define NEARCACHE_CLOCK_ID CLOCK_MONOTONIC
#endif

/* A source of instants: the system's clock, or one fixed instant for tests and simulation. */
typedef struct {
    int64_t fixed_ns;
} source_t;

static inline int64_t clock_now(const source_t *source)
{
    struct timespec now;

    if (__builtin_expect(source->fixed_ns != CLOCK_REAL, 0)) {
        return source->fixed_ns;
    }
    clock_gettime(NEARCACHE_CLOCK_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + (int64_t)now.tv_nsec;
}

/* The instant `ttl_ns` after `now_ns`; 0 means never. Saturates instead of wrapping round into the past. */
static inline int64_t clock_deadline(int64_t now_ns, int64_t ttl_ns)
{
    if (ttl_ns == 0 || now_ns > CLOCK_NEVER_NS - ttl_ns) {
        return CLOCK_NEVER_NS;
    }
    return now_ns + ttl_ns;
}

#endif
