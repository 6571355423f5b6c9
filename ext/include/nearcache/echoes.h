/* Echoes: the messages about this process's own writes.
 *
 * Whoever wrote knows already what such a message says, so it can wait a little until it is applied; a message about
 * anybody else's change cannot. These functions tell which is which without the interpreter: the ids of the last writes
 * stand in a small ring, and what has come on a connection is all echoes, or it is not.
 *
 * An id that is not found, because others have taken its place, costs a wake-up. Nothing else depends on the ring.
 */
#ifndef NEARCACHE_ECHOES_H
#define NEARCACHE_ECHOES_H

#include "frames.h"

#define ECHOES 64u

typedef struct {
    uint64_t wid[ECHOES];
    uint32_t next;
} echoes_t;

/* From any thread. */
static inline void echoes_expect(echoes_t *echoes, uint64_t wid)
{
    uint32_t at = __atomic_fetch_add(&echoes->next, 1, __ATOMIC_RELAXED) % ECHOES;

    __atomic_store_n(&echoes->wid[at], wid, __ATOMIC_RELAXED);
}

static inline bool echoes_has(const echoes_t *echoes, uint64_t wid)
{
    for (uint32_t at = 0; at < ECHOES; at++) {
        if (__atomic_load_n(&echoes->wid[at], __ATOMIC_RELAXED) == wid) {
            return wid != 0;
        }
    }
    return false;
}

/* Whether there is nothing but whole messages about expected writes. */
static inline bool echoes_alone(const echoes_t *echoes, const char *data, size_t size)
{
    slice_t channel;
    slice_t payload;
    size_t used;
    uint64_t wid;

    while (size > 0) {
        if (frame_push(data, size, &channel, &payload, &used) != FRAME_WHOLE || !message_id(payload, &wid) ||
            !echoes_has(echoes, wid)) {
            return false;
        }
        data += used;
        size -= used;
    }
    return true;
}

#endif
