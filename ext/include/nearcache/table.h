/* table.h: a hash table whose entries have names for life. No Python here: keys and values are `void *`.
 *
 *     index: 4-byte slots                   slab: 32 bytes            details: 16 bytes
 *     +-----------------------+              +---------------------+   +------------------+
 *     | part of the tag, ref 2|------+  [0]  | (nobody's)          |   |                  |
 *     +-----------------------+      |       +---------------------+   +------------------+
 *     | empty: 0              |      |  [1]  | key value           |   | wid tag weight   |
 *     +-----------------------+      |       | deadline stamp lane |   |                  |
 *     | part of the tag, ref 1|---+  |       +---------------------+   +------------------+
 *     +-----------------------+   |  +->[2]  | key value           |   | wid tag weight   |
 *                                 +---->[1]  | deadline stamp lane |   |                  |
 *                                            +---------------------+   +------------------+
 *
 * An entry's index in the slab, its `ref`, stays the same while the entry lives (but see table_relocate), so whatever
 * else is known of it can lie in arrays of others' that run parallel to the slab: the order of eviction (order.h), the
 * timers (wheel.h). What a look-up reads is one slot and one half line of the slab.
 *
 * The hash is mixed with a secret of the table, because the hash of an int is the int: sequential keys
 * would cluster, and keys that come from outside could be chosen to collide.
 *
 * Growing is spread out. The arrays grow without being copied (memory.h). A new index begins empty beside the old one;
 * insertions go to the new one and take a few slots along from the old one, a look-up asks both. So no insertion pays
 * for all the others. Shrinking is the same in the other direction: core.h moves the entries with high refs down, a few
 * at a time, and then gives the upper half back.
 *
 * C proposes, the caller decides: `table_next` yields the entries whose tag equals the one sought, as far as a slot
 * tells. Whether their keys are equal may be a question to arbitrary code, which may change this table before it
 * answers. `version` moves with every structural change; whoever has asked compares it and, if it moved,
 * begins again.
 *
 * What can fail is `table_reserve`, and it changes nothing that anybody could see when it does. After it,
 * `table_insert` cannot fail.
 */
#ifndef NEARCACHE_TABLE_H
#define NEARCACHE_TABLE_H

#include "index.h"

#define TABLE_MIN_ENTRIES 8u
#define TABLE_MAX_ENTRIES 0x7fffffffu
#define TABLE_OLD ((uint64_t)1 << 32) /* in a position: it is one of the old index */

enum { TABLE_MIGRATION = 8 }; /* slots of the old index that one insertion takes along: it must outrun the growth */

/* What a hit reads. Two of them fill a cache line, and none of them crosses one. */
typedef struct {
    void *key;   /* strong; NULL in a free entry */
    void *value; /* strong */
    int64_t deadline_ns;
    uint32_t stamp; /* the lane's stamp when the value was last known to be current */
    uint16_t lane;
    uint16_t flags;
} entry_t;

enum {
    ENTRY_UNHEARD = 1, /* written by this process, and the message about it has not come yet: those before it are older */
    ENTRY_PLAIN = 2    /* it has neither size nor origin, so that its details need not be looked at */
};

_Static_assert(sizeof(void *) != 8 || sizeof(entry_t) == MEMORY_LINE / 2, "an entry is half a cache line");

typedef struct {
    index_t index;
    entry_t *slab;
    uint64_t seed[2];
    detail_t *details; /* parallel to the slab */
    index_t old;       /* slots: NULL when nothing is left to be taken along */
    uint32_t migrated; /* slots of the old index before this one are empty */
    uint32_t count;    /* entries in use */
    uint64_t version;  /* moves with every insertion, removal, relocation and slot taken along */
    uint64_t bytes;    /* sum of the entries' sizes, modulo 2**64 */
    uint32_t capacity; /* entries there is room for, entry 0 not counted */
    uint32_t used;     /* entries 1..used have been handed out at least once */
    uint32_t free_sets; /* which of the free lists are not empty */
    uint32_t free[32];  /* heads of the free lists, by the number of bits that ref - 1 takes */
    size_t slab_bytes;
    size_t details_bytes;
} table_t;

/* For lists that run through a parallel array. Lists are circular; what 0 means is said there. */
typedef struct {
    uint32_t prev;
    uint32_t next;
} link_t;

static inline void table_init(table_t *t, uint64_t seed0, uint64_t seed1)
{
    memset(t, 0, sizeof *t);
    t->index.slots = (uint32_t *)(uintptr_t)table_nothing;
    t->index.step = 1; /* no slot matches: 0 is never sought */
    t->seed[0] = seed0;
    t->seed[1] = seed1 | 1;
}

static inline void table_free_memory(table_t *t)
{
    index_free(&t->index);
    index_free(&t->old);
    memory_free(t->slab, t->slab_bytes);
    memory_free(t->details, t->details_bytes);
    t->slab = NULL;
    t->details = NULL;
}

/* Move everything into `out`, which the caller empties and frees. `t` is left empty, valid, and without
 * memory, so this cannot fail; its version moves on, so that a comparison under way notices. */
static inline void table_detach(table_t *t, table_t *out)
{
    uint64_t version = t->version + 1;

    *out = *t;
    table_init(t, out->seed[0], out->seed[1]);
    t->version = version;
}

static inline size_t table_memory(const table_t *t)
{
    size_t index = t->capacity != 0 ? index_bytes(&t->index) : 0;
    size_t old = t->old.slots != NULL ? index_bytes(&t->old) : 0;
    return index + old + t->slab_bytes + t->details_bytes;
}

static inline uint64_t table_size_of(const table_t *t, uint32_t ref)
{
    return weight_size(t->details[ref].weight);
}

static inline void table_resize(table_t *t, uint32_t ref, uint64_t size)
{
    uint32_t weight = weight_of(size);

    t->bytes += weight_size(weight) - table_size_of(t, ref);
    t->details[ref].weight = weight;
}

/* -- the index ------------------------------------------------------------------------------------------- */

/* Multiply by a secret and fold, so that every bit of the hash has a say; then once more by a constant (the golden ratio's), of
 * which the upper half is the tag. Once is not enough: equal distances between hashes, as numbers in a row have them, remain
 * equal distances, and for one secret in thirty they then come to lie in heaps. */
static inline uint32_t table_tag(const table_t *t, int64_t hash)
{
    __extension__ typedef unsigned __int128 wide_t;
    wide_t product = (wide_t)((uint64_t)hash ^ t->seed[0]) * t->seed[1];
    uint64_t folded = (uint64_t)(product >> 64) ^ (uint64_t)product;
    return (uint32_t)((folded * 0x9e3779b97f4a7c15u) >> 32);
}

/* Is it certain that no entry has this tag? */
static inline int table_lacks(const table_t *t, uint32_t tag)
{
    return t->old.slots == NULL && index_lacks(&t->index, tag);
}

/* The next entry whose tag may be this, from `*position` on; 0 when there is none. Begin at `tag`. Look at the key's
 * address next (a hit ends there), then at the whole tag in `details`. */
static inline uint32_t table_next(const table_t *t, uint32_t tag, uint64_t *position)
{
    uint32_t at = (uint32_t)*position;
    uint32_t ref;

    if (*position < TABLE_OLD) {
        ref = index_next(&t->index, tag, &at);
        if (ref != 0 || t->old.slots == NULL) {
            *position = at;
            return ref;
        }
        at = tag;
    }
    ref = index_next(&t->old, tag, &at);
    *position = at | TABLE_OLD;
    return ref;
}

static inline void table_erase_slot(table_t *t, uint32_t ref)
{
    uint32_t tag = t->details[ref].tag;
    uint32_t at = 0;

    if (index_find(&t->index, tag, ref, &at)) {
        index_erase(&t->index, t->details, at);
    } else if (t->old.slots != NULL && index_find(&t->old, tag, ref, &at)) {
        index_erase(&t->old, t->details, at);
    } else {
        NC_ASSERT(0 && "an entry without a slot");
    }
}

/* Take along up to `steps` slots of the old index. */
static inline void table_migrate(table_t *t, uint32_t steps)
{
    for (; t->old.slots != NULL && steps != 0; steps--) {
        uint32_t ref = t->old.slots[t->migrated] & t->old.refs;
        if (ref != 0) { /* what follows moves up, so the same slot is looked at again */
            index_erase(&t->old, t->details, t->migrated);
            index_place(&t->index, t->details[ref].tag, ref);
            t->version++;
        } else if (t->migrated++ == t->old.mask) {
            index_free(&t->old);
        }
    }
}

/* -- growing, inserting, removing ------------------------------------------------------------------------ */

/* Begin an index for so many entries, and keep the present one as the old one until it is empty. */
static inline int table_reindex(table_t *t, uint32_t capacity)
{
    index_t shape = index_shape(capacity);

    if (t->capacity != 0 && shape.mask == t->index.mask && shape.refs == t->index.refs) {
        return 0;
    }
    table_migrate(t, UINT32_MAX);
    shape.slots = memory_new(index_bytes(&shape));
    if (shape.slots == NULL) {
        return -1;
    }
    if (t->count != 0) {
        t->old = t->index;
        t->migrated = 0;
    } else {
        index_free(&t->index);
    }
    t->index = shape;
    t->version++;
    return 0;
}

/* What the capacity will be when it has to grow, never above `limit`; the present one if it cannot. */
static inline uint32_t table_next_capacity(const table_t *t, uint32_t limit)
{
    uint32_t capacity = t->capacity == 0 ? TABLE_MIN_ENTRIES : t->capacity * 2;

    limit = limit < TABLE_MAX_ENTRIES ? limit : TABLE_MAX_ENTRIES;
    capacity = capacity < limit ? capacity : limit;
    return capacity > t->capacity ? capacity : t->capacity;
}

static inline int table_is_full(const table_t *t)
{
    return t->free_sets == 0 && t->used == t->capacity;
}

/* Give the table room for `capacity` entries, at least as many as it has. */
static inline int table_grow(table_t *t, uint32_t capacity)
{
    size_t entries = (size_t)capacity + 1;

    if (memory_fit((void **)&t->slab, &t->slab_bytes, entries * sizeof(entry_t)) < 0 ||
        memory_fit((void **)&t->details, &t->details_bytes, entries * sizeof(detail_t)) < 0 ||
        table_reindex(t, capacity) < 0) {
        return -1;
    }
    t->capacity = capacity;
    return 0;
}

/* Make sure that one more entry fits, there never being more than `limit`. 0, or -1 with nothing changed that anybody
 * could see. Growing moves the slab, not the entries' indices. */
static inline int table_reserve(table_t *t, uint32_t limit)
{
    uint32_t capacity = table_next_capacity(t, limit);

    if (!table_is_full(t)) {
        return 0;
    }
    return capacity > t->capacity ? table_grow(t, capacity) : -1;
}

/* Free entries are kept in one list per power of two, and the lowest are taken first, so that a table which has
 * emptied can give its upper half back without looking through a list. */
static inline uint32_t table_free_set(uint32_t ref)
{
    return ref == 1 ? 0 : 32 - (uint32_t)__builtin_clz(ref - 1);
}

static inline void table_give_free(table_t *t, uint32_t ref)
{
    uint32_t set = table_free_set(ref);

    t->details[ref].tag = t->free[set];
    t->free[set] = ref;
    t->free_sets |= (uint32_t)1 << set;
}

static inline uint32_t table_take_free(table_t *t)
{
    uint32_t set, ref;

    if (t->free_sets == 0) {
        return ++t->used;
    }
    set = (uint32_t)__builtin_ctz(t->free_sets);
    ref = t->free[set];
    t->free[set] = t->details[ref].tag;
    if (t->free[set] == 0) {
        t->free_sets &= ~((uint32_t)1 << set);
    }
    return ref;
}

/* Insert and return the new entry's ref. The caller has reserved, knows that no equal key is there, and fills in the
 * rest of the entry: size, wid, stamp, lane and flags are 0, the deadline is that of the entry before it under this ref. */
static inline uint32_t table_insert(table_t *t, void *key, void *value, uint32_t tag)
{
    uint32_t ref;

    NC_ASSERT(key != NULL && t->count < t->capacity);
    ref = table_take_free(t);
    NC_ASSERT(ref <= t->capacity);
    t->slab[ref] = (entry_t){.key = key, .value = value, .deadline_ns = t->slab[ref].deadline_ns};
    t->details[ref] = (detail_t){.tag = tag};
    index_place(&t->index, tag, ref);
    t->count++;
    t->version++;
    table_migrate(t, TABLE_MIGRATION);
    return ref;
}

/* An entry has no slot any more: what else there is to taking it out. */
static inline void table_vacate(table_t *t, uint32_t ref)
{
    t->bytes -= table_size_of(t, ref);
    t->count--;
    t->version++;
    t->slab[ref].key = NULL;
    t->slab[ref].value = NULL;
    table_give_free(t, ref);
}

/* Take entry `ref` out. Its key and value are the caller's now, to be released when every invariant holds
 * again. */
static inline void table_remove(table_t *t, uint32_t ref)
{
    NC_ASSERT(ref != 0 && ref <= t->used && t->slab[ref].key != NULL);
    table_erase_slot(t, ref);
    table_vacate(t, ref);
}

/* The same, where the caller has just been at its slot, the one at `at`. */
static inline void table_remove_at(table_t *t, uint32_t ref, uint32_t at)
{
    NC_ASSERT(ref != 0 && (t->index.slots[at] & t->index.refs) == ref);
    index_erase(&t->index, t->details, at);
    table_vacate(t, ref);
}

/* Put another key in place of entry `ref`'s, of which the caller knows as for an insertion that no equal one is there. The
 * references to the old key and value are his now; what he has to fill in is what it is there. There is no old index. */
static inline void table_exchange(table_t *t, uint32_t ref, void *key, void *value, uint32_t tag)
{
    NC_ASSERT(key != NULL && t->slab[ref].key != NULL && t->old.slots == NULL);
    table_erase_slot(t, ref);
    index_place(&t->index, tag, ref);
    t->bytes -= table_size_of(t, ref);
    t->details[ref] = (detail_t){.tag = tag};
    t->slab[ref].key = key;
    t->slab[ref].value = value;
    t->version++;
}

/* -- shrinking ------------------------------------------------------------------------------------------- */

/* Give the entry `from` another, lower ref, and return it. Its parallel data are the caller's to move. There is a free
 * one, so that nothing is allocated. */
static inline uint32_t table_relocate(table_t *t, uint32_t from)
{
    uint32_t to = table_take_free(t);
    uint32_t tag = t->details[from].tag;
    uint32_t at = 0;

    NC_ASSERT(to < from && t->slab[from].key != NULL);
    if (index_find(&t->index, tag, from, &at)) {
        t->index.slots[at] ^= from ^ to;
    } else if (t->old.slots != NULL && index_find(&t->old, tag, from, &at)) {
        t->old.slots[at] ^= from ^ to;
    }
    t->slab[to] = t->slab[from];
    t->details[to] = t->details[from];
    t->slab[from].key = NULL;
    t->slab[from].value = NULL;
    table_give_free(t, from);
    t->version++;
    return to;
}

/* Give back what lies above `capacity`, a power of two; no entry there is in use. -1 without the memory for a smaller
 * index; then all stays as it was. */
static inline int table_truncate(table_t *t, uint32_t capacity)
{
    uint32_t sets = table_free_set(capacity) + 1;

    if (table_reindex(t, capacity) < 0) {
        return -1;
    }
    for (uint32_t set = sets; set < 32; set++) {
        t->free[set] = 0;
    }
    t->free_sets &= (uint32_t)(((uint64_t)1 << sets) - 1);
    t->used = t->used < capacity ? t->used : capacity;
    t->capacity = capacity;
    (void)memory_fit((void **)&t->slab, &t->slab_bytes, ((size_t)capacity + 1) * sizeof(entry_t));
    (void)memory_fit((void **)&t->details, &t->details_bytes, ((size_t)capacity + 1) * sizeof(detail_t));
    return 0;
}

/* -- self-examination ------------------------------------------------------------------------------------ */

/* Does the search for an entry come to the slot `i`, and to no other of the same ref before? */
static inline int index_reaches(const index_t *index, uint32_t tag, uint32_t ref, uint32_t i)
{
    for (uint32_t at = tag & index->mask; at != i; at = (at + 1) & index->mask) {
        if (index->slots[at] == 0 || (index->slots[at] & index->refs) == ref) {
            return 0;
        }
    }
    return 1;
}

static inline const char *index_check(const table_t *t, const index_t *index, uint64_t *taken)
{
    for (uint64_t i = 0; i <= index->mask; i++) {
        uint32_t slot = index->slots[i];
        uint32_t ref = slot & index->refs;
        uint32_t at = 0;
        if (slot == 0) {
            continue;
        }
        *taken += 1;
        if (ref == 0 || ref > t->used || t->slab[ref].key == NULL) {
            return "an index slot names an entry that is not in use";
        }
        at = ((uint32_t)i - t->details[ref].tag) & index->mask;
        if (slot != (index_pattern_at(index, t->details[ref].tag, at) | ref)) {
            return "an index slot's tag, or steps, are not its entry's";
        }
        if (!index_reaches(index, t->details[ref].tag, ref, (uint32_t)i)) {
            return "an index slot cannot be reached from its home, or stands there twice";
        }
    }
    return !index_ends(index) ? "the slots behind the last are not empty" : NULL;
}

static inline const char *table_check_slab(const table_t *t)
{
    uint32_t live = 0;
    uint32_t idle = 0;
    uint64_t bytes = 0;

    for (uint32_t ref = 1; ref <= t->used; ref++) {
        if (t->slab[ref].key != NULL) {
            live++;
            bytes += table_size_of(t, ref);
        }
    }
    for (uint32_t set = 0; set < 32; set++) {
        if ((t->free[set] != 0) != (t->free_sets >> set & 1)) {
            return "the free lists and the set of them disagree";
        }
        for (uint32_t ref = t->free[set]; ref != 0; ref = t->details[ref].tag) {
            if (ref > t->used || t->slab[ref].key != NULL || table_free_set(ref) != set || ++idle > t->used) {
                return "a free list is damaged";
            }
        }
    }
    if (live != t->count || live + idle != t->used || t->used > t->capacity) {
        return "entries in use, free entries and the slab's size disagree";
    }
    return bytes != t->bytes ? "the entries' sizes do not add up to the byte count" : NULL;
}

/* What is wrong with the table, or NULL. Cost: all of it. */
static inline const char *table_check(const table_t *t)
{
    uint64_t taken = 0;
    const char *wrong = table_check_slab(t);

    if (wrong == NULL) {
        wrong = index_check(t, &t->index, &taken);
    }
    if (wrong == NULL && t->old.slots != NULL) {
        wrong = index_check(t, &t->old, &taken);
    }
    if (wrong == NULL && taken != t->count) {
        wrong = "the index and the count disagree";
    }
    return wrong;
}

#endif
