/* The clock that L1 reads on every hit: monotonic nanoseconds, coarse where the system has such a clock.
 *
 * The coarse clock costs a tenth of the precise one because the kernel only writes it once a tick; it lags
 * by up to that tick. Callers that need "never late" take one tick off the instants they hand to the store.
 *
 * Wants _GNU_SOURCE (Python.h defines it) under -std=c11, for clock_gettime and RTLD_NOLOAD.
 */
#ifndef NEARCACHE_CLOCK_H
#define NEARCACHE_CLOCK_H

#include <dlfcn.h>
#include <stdint.h>
#include <time.h>

#define CLOCK_NEVER_NS INT64_MAX /* a deadline that does not come */

#if defined(CLOCK_MONOTONIC_COARSE)
#define NEARCACHE_CLOCK_ID CLOCK_MONOTONIC_COARSE
#elif defined(CLOCK_MONOTONIC_RAW_APPROX) /* macOS: the approximation that needs no system call */
#define NEARCACHE_CLOCK_ID CLOCK_MONOTONIC_RAW_APPROX
#else
#define NEARCACHE_CLOCK_ID CLOCK_MONOTONIC
#endif

typedef int (*clock_read_t)(clockid_t clock, struct timespec *now);

/* clock_gettime, or the very function that the C library's calls: a third of the cost is the way there. */
static clock_read_t clock_read = clock_gettime;

/* Look the kernel's function up; call once, before the first hit. Where it is not found nothing changes. */
static inline void clock_shorten(void)
{
#if defined(__linux__) && (defined(__x86_64__) || defined(__aarch64__))
    union {
        void *address;
        clock_read_t function;
    } found = {NULL};
    struct timespec now;
    void *vdso = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD);

    if (vdso != NULL) {
        found.address = dlsym(vdso, "__vdso_clock_gettime");
        if (found.address == NULL) {
            found.address = dlsym(vdso, "__kernel_clock_gettime");
        }
    }
    if (found.address != NULL && found.function(NEARCACHE_CLOCK_ID, &now) == 0) {
        clock_read = found.function;
    }
#endif
}

/* A source of instants: the system's clock, or one fixed instant for tests and simulation. */
typedef struct {
    int64_t fixed_ns;
    int is_fixed;
} source_t;

static inline int64_t clock_now(const source_t *source)
{
    struct timespec now;

    if (__builtin_expect(source->is_fixed, 0)) {
        return source->fixed_ns;
    }
    clock_read(NEARCACHE_CLOCK_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + (int64_t)now.tv_nsec;
}

/* The instant `ttl_ns` after `now_ns`; 0 means never. Saturates instead of wrapping round into the past. */
static inline int64_t clock_deadline(int64_t now_ns, int64_t ttl_ns)
{
    int64_t deadline_ns;

    return ttl_ns == 0 || __builtin_add_overflow(now_ns, ttl_ns, &deadline_ns) ? CLOCK_NEVER_NS : deadline_ns;
}

#endif
