/* waiters.h: which thread waits for which, so that nobody waits for himself.
 *
 *     thread 1 --waits for--> thread 2 --waits for--> thread 3        3 may not wait for 1 or 2
 *
 * A list of the threads that wait; there are few. Each waits for one other, so following the links from the thread that
 * is to be awaited ends at one that does not wait, or at the one that asks: then its waiting would be for ever. A thread that
 * is interrupted while it waits (by a signal's handler) may ask again; it is refused, for of two links only one would be
 * followed.
 *
 * The caller has a lock, and owns the waiters. After a fork none of the listed threads is in the process, and what they
 * point to may be gone: the list begins anew when it sees another process number.
 */
#ifndef NEARCACHE_WAITERS_H
#define NEARCACHE_WAITERS_H

#include <stddef.h>
#include <stdint.h>

typedef struct waiter_t waiter_t;

struct waiter_t {
    waiter_t *next;
    uint64_t thread;
    uint64_t awaited;
};

typedef struct {
    waiter_t *first;
    uint64_t process;
} waiters_t;

static inline const waiter_t *waiters_find(const waiters_t *list, uint64_t thread)
{
    const waiter_t *waiter = list->first;

    while (waiter != NULL && waiter->thread != thread) {
        waiter = waiter->next;
    }
    return waiter;
}

/* List a thread that is going to wait; 0, and it is not listed, if that would be for itself, or if it waits already. */
static inline int waiters_add(waiters_t *list, waiter_t *mine, uint64_t process)
{
    const waiter_t *link = mine;

    if (list->process != process) {
        list->process = process;
        list->first = NULL;
    }
    if (waiters_find(list, mine->thread) != NULL) {
        return 0;
    }
    while (link != NULL) {
        if (link->awaited == mine->thread) {
            return 0;
        }
        link = waiters_find(list, link->awaited);
    }
    mine->next = list->first;
    list->first = mine;
    return 1;
}

/* Take a waiter off the list, if it is there. */
static inline void waiters_remove(waiters_t *list, waiter_t *mine)
{
    waiter_t **place = &list->first;

    while (*place != NULL && *place != mine) {
        place = &(*place)->next;
    }
    if (*place != NULL) {
        *place = mine->next;
    }
}

#endif
