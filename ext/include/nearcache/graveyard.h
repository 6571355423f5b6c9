/* graveyard.h: where references wait until they may be released.
 *
 * Releasing a reference may run any code, this store's own methods included, so it comes last, when every invariant
 * holds. Until then what was removed lies in a graveyard on the caller's stack, with the reason why it went.
 */
#ifndef NEARCACHE_GRAVEYARD_H
#define NEARCACHE_GRAVEYARD_H

#include "memory.h"

#define GRAVEYARD_LOCAL 8u

/* Why an entry went. */
typedef enum {
    CAUSE_EVICTED,     /* to make room */
    CAUSE_EXPIRED,     /* its time was over */
    CAUSE_REPLACED,    /* by another value */
    CAUSE_INVALIDATED, /* somebody changed or removed the value, here or elsewhere */
    CAUSE_DROPPED,     /* from this process alone */
    CAUSE_CREATED,     /* it did not go: it has just come, and was only held in order to tell of it */
    CAUSE_UPDATED      /* the same, in the place of another */
} cause_t;

typedef struct {
    void *key;   /* either may be NULL */
    void *value;
    cause_t cause;
} grave_t;

typedef struct {
    grave_t *graves;
    size_t count;
    size_t capacity;
    grave_t local[GRAVEYARD_LOCAL];
} graveyard_t;

static inline void graveyard_init(graveyard_t *yard)
{
    yard->graves = yard->local;
    yard->count = 0;
    yard->capacity = GRAVEYARD_LOCAL;
}

static inline void graveyard_free(graveyard_t *yard)
{
    if (yard->graves != yard->local) {
        memory_free(yard->graves, yard->capacity * sizeof(grave_t));
    }
    graveyard_init(yard);
}

/* Make room for `more` graves; -1 if there is no memory. */
static inline int graveyard_reserve(graveyard_t *yard, size_t more)
{
    size_t need = yard->count + more;
    size_t capacity = yard->capacity * 2 > need ? yard->capacity * 2 : need;
    grave_t *graves;

    if (need <= yard->capacity) {
        return 0;
    }
    graves = memory_new(capacity * sizeof(grave_t));
    if (graves == NULL) {
        return -1;
    }
    memcpy(graves, yard->graves, yard->count * sizeof(grave_t));
    if (yard->graves != yard->local) {
        memory_free(yard->graves, yard->capacity * sizeof(grave_t));
    }
    yard->graves = graves;
    yard->capacity = capacity;
    return 0;
}

static inline void graveyard_add(graveyard_t *yard, void *key, void *value, cause_t cause)
{
    NC_ASSERT(yard->count < yard->capacity);
    yard->graves[yard->count++] = (grave_t){key, value, cause};
}

#endif
