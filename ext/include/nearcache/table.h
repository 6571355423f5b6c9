/* table.h: hash table and recency list in one slab. No Python here: keys and values are `void *`.
 *
 *     index: 8-byte slots            slab: 32 bytes         details: 24 bytes    links: 8 bytes
 *     +--------+--------+             +------------------+   +----------------+   +-----------+
 *     | tag    | ref 2  |------+  [0] | (the sentinel)   |   |                |   | prev next |
 *     +--------+--------+      |      +------------------+   +----------------+   +-----------+
 *     |        | ref 0  |      |  [1] | key value        |   | hash wid size  |   | prev next |
 *     +--------+--------+      |      | deadline stamp.. |   |                |   |           |
 *     | tag    | ref 1  |---+  |      +------------------+   +----------------+   +-----------+
 *     +--------+--------+   |  +->[2] | key value        |   | hash wid size  |   | prev next |
 *                           +---->[1] | deadline stamp.. |   |                |   |           |
 *                                     +------------------+   +----------------+   +-----------+
 *
 * Three parallel arrays make one entry, split by who reads them. A hit reads a slot, an entry and three
 * links; two entries share a cache line and none crosses one, and the links of a whole small cache fit into
 * the first-level cache. The details are for insertion, removal, and comparing keys that are not one
 * object.
 *
 * The index is an open-addressing table probed linearly. A slot's tag is 32 bits of the mixed hash, and the
 * slot's home is `tag & mask`: growing and deleting therefore need the index alone and touch no entry.
 * Deletion shifts the rest of the cluster back, so there are no tombstones, nothing to count and nothing to
 * clean up: a table that has seen a billion deletions is as fast as a new one. At most half the slots are
 * taken, so every probe ends, mostly at its first step: a mispredicted branch costs more than the memory.
 *
 * The hash is mixed with a secret of the table, because the hash of an int is the int: sequential keys
 * would cluster, and keys that come from outside could be chosen to collide.
 *
 * The recency list is circular through entry 0, which is nobody's: `links[0].next` is the most recently used
 * entry and `links[0].prev` the least. Links are 32-bit indices, so the slab can move when it grows, and an
 * entry's index is its name for life. Free entries are chained through `next`; `key == NULL` marks them.
 *
 * C proposes, the caller decides: `table_next` yields the entries whose tag equals the one sought.
 * Whether their keys are equal may be a question to arbitrary code, which may change this table before it
 * answers. `version` moves with every structural change; whoever has asked compares it and, if it moved,
 * begins again.
 *
 * What can fail is `table_reserve`, and it changes nothing when it does. After it, `table_insert` cannot
 * fail.
 */
#ifndef NEARCACHE_TABLE_H
#define NEARCACHE_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Allocation goes through these two names, so that a test can make any one of them fail. */
#ifndef NEARCACHE_ALLOC
#define NEARCACHE_ALLOC(align, size) aligned_alloc((align), (size))
#define NEARCACHE_FREE(memory) free(memory)
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

#define TABLE_LINE 64u
#define TABLE_MIN_ENTRIES 8u
#define TABLE_MIN_SLOTS 16u
#define TABLE_MAX_ENTRIES 0x7fffffffu /* the index of so many has 2**32 slots */

/* What a hit reads. Two of them fill a cache line, and none of them crosses one. */
typedef struct {
    void *key;   /* strong; NULL in a free entry */
    void *value; /* strong */
    int64_t deadline_ns;
    uint32_t stamp; /* the lane's stamp when the value was last known to be current */
    uint16_t lane;
    uint16_t flags;
} entry_t;

/* Written by this process, and the message about it has not come yet: messages that come before it are older. */
enum { ENTRY_UNHEARD = 1 };

/* What a hit does not read. */
typedef struct {
    int64_t hash;
    uint64_t wid; /* random id of the write that made the value; 0: a local write */
    uint64_t size;
} detail_t;

typedef struct {
    uint32_t prev; /* towards the more recently used */
    uint32_t next; /* towards the less recently used; for a free entry, the next free one */
} link_t;

_Static_assert(sizeof(void *) != 8 || sizeof(entry_t) == TABLE_LINE / 2, "an entry is half a cache line");

typedef struct {
    uint32_t tag;
    uint32_t ref; /* index of an entry; 0: empty */
} slot_t;

typedef struct {
    slot_t *slots;
    entry_t *slab;
    detail_t *details; /* parallel to the slab, as are the links */
    link_t *links;
    uint64_t seed[2];
    uint32_t mask;     /* number of slots - 1 */
    uint32_t count;    /* entries in use */
    uint64_t version;  /* moves with every insertion and removal */
    uint64_t bytes;    /* sum of the entries' sizes, modulo 2**64 */
    uint32_t capacity; /* entries the slab has room for, the sentinel not counted */
    uint32_t used;     /* entries 1..used have been handed out at least once */
    uint32_t free;     /* head of the free list; 0: none */
    uint32_t room;     /* entries the index has room for */
} table_t;

/* The index of a table that owns no memory: one slot, always empty, never written to. */
static const slot_t table_nothing[1] = {{0, 0}};

static inline void table_init(table_t *t, uint64_t seed0, uint64_t seed1)
{
    memset(t, 0, sizeof *t);
    t->slots = (slot_t *)(uintptr_t)table_nothing;
    t->seed[0] = seed0;
    t->seed[1] = seed1 | 1;
}

static inline void table_free_memory(table_t *t)
{
    if (t->room != 0) {
        NEARCACHE_FREE(t->slots);
    }
    NEARCACHE_FREE(t->slab);
    NEARCACHE_FREE(t->details);
    NEARCACHE_FREE(t->links);
    t->slots = NULL;
    t->slab = NULL;
    t->details = NULL;
    t->links = NULL;
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
    size_t each = sizeof(entry_t) + sizeof(detail_t) + sizeof(link_t);
    size_t slab = t->slab != NULL ? ((size_t)t->capacity + 1) * each : 0;
    size_t index = t->room != 0 ? ((size_t)t->mask + 1) * sizeof(slot_t) : 0;
    return slab + index;
}

/* -- the index ------------------------------------------------------------------------------------------- */

/* Multiply and fold: every bit of the hash reaches every bit of the tag, by way of a secret. */
static inline uint32_t table_tag(const table_t *t, int64_t hash)
{
    __extension__ typedef unsigned __int128 wide_t;
    wide_t product = (wide_t)((uint64_t)hash ^ t->seed[0]) * t->seed[1];
    return (uint32_t)((uint64_t)(product >> 64) ^ (uint64_t)product);
}

/* The next entry whose tag is this, from slot `*position` on; 0 when there is none. Begin at `tag`. That
 * the tags are equal says little: look at the key's address next (a hit ends there), then at the whole hash
 * in `details`. */
static inline uint32_t table_next(const table_t *t, uint32_t tag, uint32_t *position)
{
    uint32_t mask = t->mask;

    for (uint32_t i = *position & mask;; i = (i + 1) & mask) {
        slot_t slot = t->slots[i];
        if (slot.ref == 0) {
            return 0;
        }
        if (slot.tag == tag) {
            *position = i + 1;
            return slot.ref;
        }
    }
}

static inline void table_place_slot(slot_t *slots, uint32_t mask, slot_t slot)
{
    uint32_t i = slot.tag & mask;

    while (slots[i].ref != 0) {
        i = (i + 1) & mask;
    }
    slots[i] = slot;
}

/* Empty the slot of entry `ref`, and close the gap: each slot that follows moves back unless its home lies
 * after. */
static inline void table_erase_slot(table_t *t, uint32_t ref)
{
    uint32_t mask = t->mask;
    uint32_t hole = table_tag(t, t->details[ref].hash) & mask;

    while (t->slots[hole].ref != ref) {
        NC_ASSERT(t->slots[hole].ref != 0);
        hole = (hole + 1) & mask;
    }
    for (uint32_t i = (hole + 1) & mask; t->slots[i].ref != 0; i = (i + 1) & mask) {
        uint32_t from_home = (i - (t->slots[i].tag & mask)) & mask;
        uint32_t from_hole = (i - hole) & mask;
        if (from_home >= from_hole) {
            t->slots[hole] = t->slots[i];
            hole = i;
        }
    }
    t->slots[hole] = (slot_t){0, 0};
}

/* -- the recency list ------------------------------------------------------------------------------------ */

static inline void list_remove(link_t *links, uint32_t ref)
{
    link_t link = links[ref];

    links[link.prev].next = link.next;
    links[link.next].prev = link.prev;
}

static inline void list_push(link_t *links, uint32_t ref)
{
    uint32_t first = links[0].next;

    links[ref] = (link_t){0, first};
    links[first].prev = ref;
    links[0].next = ref;
}

/* Make `ref` the most recently used. */
static inline void table_touch(table_t *t, uint32_t ref)
{
    if (t->links[0].next != ref) {
        list_remove(t->links, ref);
        list_push(t->links, ref);
    }
}

/* The least recently used entry; 0 when there is none. */
static inline uint32_t table_oldest(const table_t *t)
{
    return t->count != 0 ? t->links[0].prev : 0;
}

/* The entry used next after `ref`; 0 when `ref` is the most recently used. */
static inline uint32_t table_newer(const table_t *t, uint32_t ref)
{
    return t->links[ref].prev;
}

/* -- growing, inserting, removing ------------------------------------------------------------------------ */

static inline void *table_allocate(size_t count, size_t size)
{
    return NEARCACHE_ALLOC(TABLE_LINE, (count * size + TABLE_LINE - 1) / TABLE_LINE * TABLE_LINE);
}

/* Move one of the parallel arrays into a larger one. */
static inline void table_move(void *to, void *from, size_t count, size_t size)
{
    if (from != NULL) {
        memcpy(to, from, count * size);
        NEARCACHE_FREE(from);
    } else {
        memset(to, 0, size); /* the sentinel */
    }
}

static inline int table_grow_slab(table_t *t, uint32_t limit)
{
    uint32_t capacity = t->capacity == 0 ? TABLE_MIN_ENTRIES : t->capacity * 2;
    entry_t *slab;
    detail_t *details;
    link_t *links;

    limit = limit < TABLE_MAX_ENTRIES ? limit : TABLE_MAX_ENTRIES;
    capacity = capacity < limit ? capacity : limit;
    if (capacity <= t->capacity) {
        return -1;
    }
    slab = table_allocate((size_t)capacity + 1, sizeof *slab);
    details = table_allocate((size_t)capacity + 1, sizeof *details);
    links = table_allocate((size_t)capacity + 1, sizeof *links);
    if (slab == NULL || details == NULL || links == NULL) {
        NEARCACHE_FREE(slab);
        NEARCACHE_FREE(details);
        NEARCACHE_FREE(links);
        return -1;
    }
    table_move(slab, t->slab, (size_t)t->used + 1, sizeof *slab);
    table_move(details, t->details, (size_t)t->used + 1, sizeof *details);
    table_move(links, t->links, (size_t)t->used + 1, sizeof *links);
    t->slab = slab;
    t->details = details;
    t->links = links;
    t->capacity = capacity;
    return 0;
}

static inline int table_grow_index(table_t *t)
{
    size_t old = t->room == 0 ? 0 : (size_t)t->mask + 1;
    size_t size = old == 0 ? TABLE_MIN_SLOTS : old * 2;
    uint32_t mask = (uint32_t)(size - 1);
    slot_t *slots = table_allocate(size, sizeof(slot_t));

    if (slots == NULL) {
        return -1;
    }
    memset(slots, 0, size * sizeof(slot_t));
    for (size_t i = 0; i < old; i++) {
        if (t->slots[i].ref != 0) {
            table_place_slot(slots, mask, t->slots[i]);
        }
    }
    if (old != 0) {
        NEARCACHE_FREE(t->slots);
    }
    t->slots = slots;
    t->mask = mask;
    t->room = (uint32_t)(size / 2);
    return 0;
}

/* Make sure that one more entry fits, the slab never holding more than `limit`. 0, or -1 with nothing
 * changed that anybody could see. Growing moves the slab, not the entries' indices, so that the version may
 * stay. */
static inline int table_reserve(table_t *t, uint32_t limit)
{
    if (t->free == 0 && t->used == t->capacity && table_grow_slab(t, limit) < 0) {
        return -1;
    }
    if (t->count >= t->room && table_grow_index(t) < 0) {
        return -1;
    }
    return 0;
}

/* Insert as the most recently used and return its index. The caller has reserved, knows that no equal key
 * is there, and fills in the rest of the entry (size, wid, stamp, lane and flags are 0, the deadline is
 * never). */
static inline uint32_t table_insert(table_t *t, void *key, void *value, int64_t hash)
{
    uint32_t ref = t->free;

    NC_ASSERT(key != NULL && t->count < t->room && (ref != 0 || t->used < t->capacity));
    if (ref != 0) {
        t->free = t->links[ref].next;
    } else {
        ref = ++t->used;
    }
    t->slab[ref] = (entry_t){.key = key, .value = value, .deadline_ns = INT64_MAX};
    t->details[ref] = (detail_t){.hash = hash};
    list_push(t->links, ref);
    table_place_slot(t->slots, t->mask, (slot_t){table_tag(t, hash), ref});
    t->count++;
    t->version++;
    return ref;
}

/* Take entry `ref` out. Its key and value are the caller's now, to be released when every invariant holds
 * again. */
static inline void table_remove(table_t *t, uint32_t ref)
{
    NC_ASSERT(ref != 0 && ref <= t->used && t->slab[ref].key != NULL);
    table_erase_slot(t, ref);
    list_remove(t->links, ref);
    t->bytes -= t->details[ref].size;
    t->count--;
    t->version++;
    t->slab[ref].key = NULL;
    t->slab[ref].value = NULL;
    t->links[ref].next = t->free;
    t->free = ref;
}

static inline void table_resize(table_t *t, uint32_t ref, uint64_t size)
{
    t->bytes += size - t->details[ref].size;
    t->details[ref].size = size;
}

/* -- self-examination ------------------------------------------------------------------------------------ */

static inline const char *table_check_index(const table_t *t)
{
    uint64_t taken = 0;

    for (uint64_t i = 0; i <= t->mask; i++) {
        slot_t slot = t->slots[i];
        uint32_t probe = slot.tag & t->mask;
        if (slot.ref == 0) {
            continue;
        }
        taken++;
        if (slot.ref > t->used || t->slab[slot.ref].key == NULL) {
            return "an index slot names an entry that is not in use";
        }
        if (slot.tag != table_tag(t, t->details[slot.ref].hash)) {
            return "an index slot's tag is not its entry's";
        }
        while (probe != i) {
            if (t->slots[probe].ref == 0 || t->slots[probe].ref == slot.ref) {
                return "an index slot cannot be reached from its home";
            }
            probe = (probe + 1) & t->mask;
        }
    }
    if (taken != t->count) {
        return "the index and the count disagree";
    }
    return t->count > t->room ? "the index is too full" : NULL;
}

static inline const char *table_check_list(const table_t *t)
{
    uint32_t length = 0;
    uint32_t idle = 0;
    uint64_t bytes = 0;

    if (t->slab == NULL) {
        return t->count == 0 && t->bytes == 0 ? NULL : "a table without memory counts entries";
    }
    for (uint32_t ref = t->links[0].next; ref != 0; ref = t->links[ref].next) {
        if (ref > t->used || t->slab[ref].key == NULL || t->slab[ref].value == NULL) {
            return "the recency list holds an entry that is not in use";
        }
        if (t->links[t->links[ref].next].prev != ref || t->links[t->links[ref].prev].next != ref) {
            return "the recency list's links disagree";
        }
        if (++length > t->count) {
            return "the recency list is longer than the count, or a circle";
        }
        bytes += t->details[ref].size;
    }
    for (uint32_t ref = t->free; ref != 0; ref = t->links[ref].next) {
        if (ref > t->used || t->slab[ref].key != NULL || ++idle > t->used) {
            return "the free list is damaged";
        }
    }
    if (length != t->count || length + idle != t->used || t->used > t->capacity) {
        return "entries in use, free entries and the slab's size disagree";
    }
    return bytes != t->bytes ? "the entries' sizes do not add up to the byte count" : NULL;
}

/* What is wrong with the table, or NULL. Cost: all of it. */
static inline const char *table_check(const table_t *t)
{
    const char *wrong = table_check_list(t);
    return wrong != NULL ? wrong : table_check_index(t);
}

#endif
