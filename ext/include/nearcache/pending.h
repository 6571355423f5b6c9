/* pending.h: the record of every read and write that is under way between this process and L2.
 *
 *     pending table (a table_t):   key --> first op <-> op <-> op       all on that key
 *
 * An op_t lives inside the Python object that stands for the operation (`owner`); the table holds one strong
 * reference to the owner for each op it lists, and one to the key. An op knows its entry's index, so that
 * completing it needs no lookup, and hence asks no key whether it is equal to another.
 *
 * Two marks, both cleared by whatever makes the operation's result doubtful (a message, a write, another
 * completion):
 *   storable  L1 may keep the result;
 *   joinable  a reader who comes now may wait for this result instead of asking L2 itself.
 * A lane's stamp says the same for all ops of the lane at once: an op whose `stamp0` is not the lane's
 * stamp any more counts as having lost both.
 */
#ifndef NEARCACHE_PENDING_H
#define NEARCACHE_PENDING_H

#include "table.h"

enum { PENDING_KEPT = 1024 }; /* entries that an idle pending table keeps the memory of */

typedef struct {
    int64_t fresh_until_ns; /* nothing of this lane is served at or after this instant */
    uint64_t identity;      /* of the server whose messages we hear; 0: of none */
    uint32_t stamp;         /* entries with another stamp are suspects */
    uint32_t unused[3];     /* a power of two is found by shifting */
} lane_t;

/* The lanes of one store. Ops hold it too: an op may outlive its store and must still know its stamp.
 *
 * Behind the `count` lanes stands a *probation* for each. A write of our own whose message has not come yet is spared by
 * others' messages, for they are older: messages keep the order of the writes. But a server that took over may have lost
 * the write, and then they are newer, and its own message never comes. So what has been spared is only served until the
 * next heartbeat's reply, which would come after that message: that moves the probation's stamp. */
typedef struct {
    uint64_t holders;
    uint32_t count;
    lane_t lane[]; /* twice as many */
} lanes_t;

typedef struct op {
    struct op *next;
    struct op *prev;
    void *owner; /* the object this op lies in; strong while the op is listed */
    void *key;   /* borrowed from the owner */
    int64_t hash;
    lanes_t *lanes; /* of the store that listed it last; held; NULL: none did yet */
    uint64_t wid;
    uint64_t identity0; /* the lane's identity when the op was opened */
    uint32_t stamp0;    /* and its stamp */
    uint32_t ref;       /* the op's entry in the pending table; 0: not listed */
    uint16_t lane;
    uint8_t is_write;
    uint8_t storable;
    uint8_t joinable;
    uint8_t overtaken; /* by a local write, which is newer than whatever this op brings */
    uint8_t announced; /* a write whose message is sure to come: others' messages before it are older */
    uint8_t heard;     /* and it has come: others' messages from now on are newer */
    uint8_t spared;    /* by a message of others before that */
    uint32_t stamp1;   /* then: of the lane's probation at that time */
} op_t;

/* A lane is written by one thread and read by all, without a lock: each of its numbers is true by itself. */
static inline uint32_t lane_stamp(const lane_t *lane)
{
    return __atomic_load_n(&lane->stamp, __ATOMIC_RELAXED);
}

/* Its stamp, of one lane before that of another: see lanes_suspect. */
static inline uint32_t lane_stamp_first(const lane_t *lane)
{
    return __atomic_load_n(&lane->stamp, __ATOMIC_ACQUIRE);
}

/* A stamp for what is suspect although it was of a lane's present one, or never of any. Who remembers until when a stamp was
 * vouched for remembers those that the lane has had lately, so it is one half way round. */
static inline uint32_t stamp_of_nobody(uint32_t present)
{
    return present ^ 0x80000000u;
}

static inline int64_t lane_fresh_until(const lane_t *lane)
{
    return __atomic_load_n(&lane->fresh_until_ns, __ATOMIC_RELAXED);
}

static inline uint64_t lane_identity(const lane_t *lane)
{
    return __atomic_load_n(&lane->identity, __ATOMIC_RELAXED);
}

static inline void lane_suspect(lane_t *lane)
{
    __atomic_fetch_add(&lane->stamp, 1, __ATOMIC_ACQ_REL);
}

static inline void lane_vouch(lane_t *lane, int64_t until_ns)
{
    __atomic_store_n(&lane->fresh_until_ns, until_ns, __ATOMIC_RELAXED);
}

static inline void lane_attach(lane_t *lane, uint64_t identity)
{
    __atomic_store_n(&lane->identity, identity, __ATOMIC_RELAXED);
}

static inline size_t lanes_bytes(uint32_t count)
{
    return sizeof(lanes_t) + 2 * (size_t)count * sizeof(lane_t);
}

/* A cache that tells a thousand sets of tags apart may never see one. */
static inline lanes_t *lanes_new(uint32_t count)
{
    lanes_t *lanes = memory_new_sparse(lanes_bytes(count));

    if (lanes != NULL) {
        lanes->holders = 1;
        lanes->count = count;
    }
    return lanes;
}

static inline lane_t *lanes_probation(lanes_t *lanes, uint32_t lane)
{
    return &lanes->lane[lanes->count + lane];
}

/* Everything up to the sending of a heartbeat has been heard, and it was `until_ns` less the bound. */
static inline void lanes_vouch(lanes_t *lanes, uint32_t lane, int64_t until_ns)
{
    lane_suspect(lanes_probation(lanes, lane)); /* before anything of it is fresh again */
    lane_vouch(lanes_probation(lanes, lane), until_ns);
    lane_vouch(&lanes->lane[lane], until_ns);
}

/* The probation's stamp moves before the lane's and after it: an entry that is moved meanwhile, either way, gets a stamp from
 * before, or is seen to be suspect. */
static inline void lanes_suspect(lanes_t *lanes, uint32_t lane)
{
    lane_suspect(lanes_probation(lanes, lane));
    lane_suspect(&lanes->lane[lane]);
    lane_suspect(lanes_probation(lanes, lane));
}

static inline void lanes_hold(lanes_t *lanes)
{
    __atomic_fetch_add(&lanes->holders, 1, __ATOMIC_RELAXED);
}

static inline void lanes_release(lanes_t *lanes)
{
    if (lanes != NULL && __atomic_sub_fetch(&lanes->holders, 1, __ATOMIC_ACQ_REL) == 0) {
        memory_free_sparse(lanes, lanes_bytes(lanes->count));
    }
}

static inline int op_is_current(const op_t *op)
{
    return op->lanes == NULL || lane_stamp(&op->lanes->lane[op->lane]) == op->stamp0;
}

static inline int op_is_storable(const op_t *op)
{
    return __atomic_load_n(&op->storable, __ATOMIC_RELAXED) && op_is_current(op);
}

static inline int op_is_joinable(const op_t *op)
{
    return __atomic_load_n(&op->joinable, __ATOMIC_RELAXED) && op_is_current(op);
}

static inline void op_poison(op_t *op)
{
    __atomic_store_n(&op->storable, 0, __ATOMIC_RELAXED); /* its owner may be asked for them without the lock */
    __atomic_store_n(&op->joinable, 0, __ATOMIC_RELAXED);
}

/* List `op` under its key: entry `ref`, or a new one if `ref` is 0 (then the caller has reserved). Returns 1
 * when a reference to the key was taken over, else 0. The stamp and the identity are read here, not
 * earlier. */
static inline int pending_add(table_t *pending, uint32_t ref, op_t *op, lanes_t *lanes)
{
    int inserted = ref == 0;

    lanes_hold(lanes);
    lanes_release(op->lanes);
    op->lanes = lanes;
    op->stamp0 = lane_stamp(&lanes->lane[op->lane]);
    op->identity0 = lane_identity(&lanes->lane[op->lane]);
    op->prev = NULL;
    op->next = NULL;
    if (inserted) {
        ref = table_insert(pending, op->key, op, table_tag(pending, op->hash));
    } else {
        op->next = pending->slab[ref].value;
        op->next->prev = op;
        pending->slab[ref].value = op;
    }
    op->ref = ref;
    return inserted;
}

/* Once nothing is in flight any more, a crowd's memory goes back. */
static inline void pending_shrink(table_t *pending)
{
    table_t empty;

    if (pending->count == 0 && pending->capacity > PENDING_KEPT) {
        table_detach(pending, &empty);
        table_free_memory(&empty);
    }
}

/* Take `op` off the list. The reference to its owner is the caller's now, and that to the key, which is
 * returned unless other ops still need it. */
static inline void *pending_remove(table_t *pending, op_t *op)
{
    entry_t *entry = &pending->slab[op->ref];
    void *key = NULL;

    NC_ASSERT(op->ref != 0);
    if (op->next != NULL) {
        op->next->prev = op->prev;
    }
    if (op->prev != NULL) {
        op->prev->next = op->next;
    } else if (op->next != NULL) {
        entry->value = op->next;
    } else {
        key = entry->key;
        table_remove(pending, op->ref);
        pending_shrink(pending);
    }
    op->next = NULL;
    op->prev = NULL;
    op->ref = 0;
    return key;
}

/* The first op under entry `ref` of the pending table; NULL for 0. */
static inline op_t *pending_first(const table_t *pending, uint32_t ref)
{
    return ref != 0 ? (op_t *)pending->slab[ref].value : NULL;
}

/* Poison the ops under entry `ref` (0: there are none), sparing `spared`. */
static inline void pending_poison(table_t *pending, uint32_t ref, const op_t *spared)
{
    op_t *op = pending_first(pending, ref);

    for (; op != NULL; op = op->next) {
        if (op != spared) {
            op_poison(op);
        }
    }
}

/* A message about write `wid` concerns entry `ref`. It poisons every op but the write it announces (R5). A write that
 * is sure to be announced is spared as well until that has happened: messages keep the order of the writes, so what is
 * heard before its own message is older than the write. A lost message changes the stamp, which poisons all. Returns
 * whether it is the message of a write that stores a value here. */
static inline int pending_hear(table_t *pending, uint32_t ref, uint64_t wid)
{
    op_t *op = pending_first(pending, ref);
    int is_own = 0;

    for (; op != NULL; op = op->next) {
        if (wid != 0 && op->is_write && op->wid == wid) {
            op->heard = 1;
            is_own = is_own || op->announced;
        } else if (!op->announced || op->heard) {
            op_poison(op);
        } else if (!op->spared) {
            op->spared = 1;
            op->stamp1 = lane_stamp(lanes_probation(op->lanes, op->lane));
        }
    }
    return is_own;
}

/* A local write has happened: whatever the ops under entry `ref` bring is older than what L1 holds now. */
static inline void pending_overtake(table_t *pending, uint32_t ref)
{
    op_t *op = pending_first(pending, ref);

    for (; op != NULL; op = op->next) {
        op_poison(op);
        op->overtaken = 1;
    }
}

static inline const char *pending_check(const table_t *pending, const lanes_t *lanes)
{
    const char *wrong = table_check(pending);

    if (wrong != NULL) {
        return wrong;
    }
    for (uint32_t ref = 1; ref <= pending->used; ref++) {
        const op_t *before = NULL;
        if (pending->slab[ref].key == NULL) {
            continue;
        }
        for (const op_t *op = pending->slab[ref].value; op != NULL; before = op, op = op->next) {
            if (op->ref != ref || op->prev != before || op->lanes != lanes || op->owner == NULL) {
                return "a pending operation is listed wrongly";
            }
        }
    }
    return NULL;
}

#endif
