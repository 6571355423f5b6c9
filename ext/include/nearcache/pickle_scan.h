/* pickle_scan.h: the verifier of the pickle dialect that nearcache's `safe` codec writes and reads.
 *
 * A pickle is a program for a stack machine, and most of its instructions are dangerous in the hands of
 * somebody who can write to the cache. The `safe` codec needs few of them. This verifier runs over the
 * program once, before the unpickler sees it, and refuses what the codec's own writer never emits. No Python
 * here: no object is made, no module is looked up, nothing is executed, every read is checked against the
 * end.
 *
 * A list of allowed instructions would not be enough. APPENDS calls `extend` on whatever lies on the stack,
 * REDUCE calls whatever lies there, LONG_BINPUT lets eight bytes ask for sixteen gigabytes of memo. So the
 * verifier does what a byte code verifier does: it executes the program over *kinds* instead of values.
 *
 *       value stack (ids)             nodes                               memo (ids)
 *      +----+----+----+----+     +------+-------+--------+-------+      +----+----+----+
 *      |  7 |  0 |  9 | 11 |     | kind | depth | weight | first |      |  7 |  9 |  3 | ...
 *      +----+----+----+----+     +------+-------+--------+-------+      +----+----+----+
 *             ^ marks: stack heights       ^ one per container, call or long scalar; the ids below
 *                                            SCAN_FIXED_NODES are shared (any scalar, the callee ...)
 *
 * What holds afterwards:
 *  - APPEND(S), SETITEM(S), ADDITEMS act on a list, dict, set made by EMPTY_LIST, EMPTY_DICT, EMPTY_SET,
 *    nothing else;
 *  - the only global is the one that the rules name, it is never an element of anything, and REDUCE calls
 *    nothing else;
 *  - its argument is a pair made by TUPLE2, whose first item is a scalar (a tag: the call makes an object) or
 *    an object made by an earlier call (the call gives that object its state);
 *  - BUILD, NEWOBJ, INST, OBJ, EXT, PERSID, GLOBAL, PUT and the text instructions of old protocols do not
 *    occur;
 *  - the stack never underflows, marks match, the memo grows by one with each MEMOIZE and is read only where
 *    written;
 *  - one value is left, and STOP is the last byte.
 *
 * Three budgets stop programs that are well-formed but out of proportion to their size:
 *  - depth: nested containers end in recursion when they are released (`deque` does) or hashed (`tuple` does,
 *    without a check, so that a deep tuple as a dict key would overflow the C stack). It is the depth that a value
 *    has when it is put into another; what an object gets into it after that is for the reader to judge, who knows
 *    which objects end in recursion (`_Rebuilder.nest`);
 *  - hash cost: a tuple that holds the same tuple twice, and so on forty times, is a hundred bytes long and
 *    takes 2^40 steps to hash. `weight` is the size of a node written out as a tree; what is hashed may weigh
 *    only so much in sum. A list may share its parts as it likes: it cannot be hashed;
 *  - memory: an estimate of what the objects occupy, against the length of the program (EMPTY_SET is one byte
 *    and becomes 216).
 *
 * What is filled after others got to hold it is heavier in the end than it counted there: in a cycle, as our
 * writer makes it, or in a payload that is written from the outside in, in order to be hashed for ever. Nobody can
 * tell the two apart who does not know what the hash of an object looks at. So such fillings are counted (`late`),
 * and the reader tries the payload on stand-ins whose hashes are counted (`codecs/rehearsal.py`).
 *
 * Cost: linear. Memory: 4 bytes for each stack and memo slot, 12 for each container; none from the heap for
 * small programs.
 */
#ifndef NEARCACHE_PICKLE_SCAN_H
#define NEARCACHE_PICKLE_SCAN_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
    SCAN_OK = 0,
    SCAN_TRUNCATED,  /* an instruction, or its argument, goes past the end */
    SCAN_OPCODE,     /* an instruction outside the dialect */
    SCAN_PROTOCOL,   /* not protocol 5 */
    SCAN_STACK,      /* the stack or a mark is not as the instruction needs it */
    SCAN_MEMO,       /* a memo slot that was never written */
    SCAN_GLOBAL,     /* a global other than the admitted one */
    SCAN_KIND,       /* an instruction on the wrong kind of value */
    SCAN_DEPTH,      /* nested too deeply */
    SCAN_HASH_COST,  /* keys and set members that are out of proportion */
    SCAN_MEMORY,     /* objects that are out of proportion */
    SCAN_TRAILING,   /* bytes after STOP */
    SCAN_TOO_LONG,   /* 4 GiB or more */
    SCAN_NO_MEMORY,  /* malloc failed */
} scan_status_t;

/* What the caller admits. The strings are borrowed for the duration of the call. */
typedef struct {
    const char *module; /* module of the one admitted global */
    size_t module_size;
    const char *name; /* its name */
    size_t name_size;
    uint32_t max_depth;      /* of anything */
    uint32_t max_hash_depth; /* of a dict key or a set member */
    uint64_t hash_budget;    /* sum of the weights of all keys and members */
    uint64_t memory_budget;  /* estimated bytes of all objects */
} scan_rules_t;

typedef struct {
    size_t offset;  /* of the instruction that was refused */
    size_t calls;   /* REDUCE instructions seen */
    size_t late;    /* how often something was filled that other things held already */
    uint8_t opcode; /* the instruction that was refused */
} scan_report_t;

/* -- nodes ----------------------------------------------------------------------------------------------- */

/* From KIND_PAIR on they want a look when they are put into something (see scan_hold). */
enum { KIND_SCALAR, KIND_TUPLE, KIND_PAIR, KIND_LIST, KIND_DICT, KIND_SET, KIND_OBJECT, KIND_CALLEE };

/* Ids of the shared nodes. The strings that name the admitted global are scalars too; they differ by id only.
 * */
enum { NODE_SCALAR, NODE_CALLEE, NODE_MODULE, NODE_NAME, SCAN_FIXED_NODES };

typedef struct {
    uint32_t weight; /* values inside when written out as a tree, itself included; saturates */
    uint32_t first;  /* KIND_PAIR: id of the first item */
    uint16_t depth;  /* 0 for scalars */
    uint8_t kind;
    uint8_t holders; /* what can still be filled: how many things hold it, at most 2 of them counted */
} scan_node_t;

#define SCAN_INLINE 256

typedef struct {
    uint32_t *items; /* `local`, or owned heap memory */
    size_t count, capacity;
    uint32_t local[SCAN_INLINE];
} scan_ids_t;

typedef struct {
    const uint8_t *data; /* borrowed */
    size_t size, at;
    const scan_rules_t *rules;
    scan_node_t *nodes; /* `local_nodes`, or owned heap memory */
    size_t node_count, node_capacity;
    uint64_t hash_cost, memory;
    size_t calls, late;
    size_t floor; /* stack height at the innermost mark: nothing below it may be popped */
    scan_ids_t stack, memo, marks;
    scan_node_t local_nodes[SCAN_INLINE];
} scan_state_t;

static inline uint32_t scan_sum(uint32_t left, uint32_t right) {
    return left > UINT32_MAX - right ? UINT32_MAX : left + right;
}

static int scan_ids_grow(scan_ids_t *ids) {
    size_t capacity = ids->capacity * 2;
    uint32_t *items = (uint32_t *)malloc(capacity * sizeof(uint32_t));
    if (items == NULL) return SCAN_NO_MEMORY;
    memcpy(items, ids->items, ids->count * sizeof(uint32_t));
    if (ids->items != ids->local) free(ids->items);
    ids->items = items;
    ids->capacity = capacity;
    return SCAN_OK;
}

static inline int scan_ids_push(scan_ids_t *ids, uint32_t id) {
    if (ids->count == ids->capacity && scan_ids_grow(ids) != SCAN_OK) return SCAN_NO_MEMORY;
    ids->items[ids->count++] = id;
    return SCAN_OK;
}

static int scan_nodes_grow(scan_state_t *state) {
    size_t capacity = state->node_capacity * 2;
    scan_node_t *nodes = (scan_node_t *)malloc(capacity * sizeof(scan_node_t));
    if (nodes == NULL) return SCAN_NO_MEMORY;
    memcpy(nodes, state->nodes, state->node_count * sizeof(scan_node_t));
    if (state->nodes != state->local_nodes) free(state->nodes);
    state->nodes = nodes;
    state->node_capacity = capacity;
    return SCAN_OK;
}

/* Push a new node. The caller fits the program's length into 32 bits, so ids cannot wrap. */
static inline int scan_push_node(scan_state_t *state, uint8_t kind, uint32_t depth, uint32_t weight,
                                 uint32_t first) {
    if (depth > state->rules->max_depth) return SCAN_DEPTH;
    if (state->node_count == state->node_capacity && scan_nodes_grow(state) != SCAN_OK) return SCAN_NO_MEMORY;
    scan_node_t *node = &state->nodes[state->node_count];
    node->kind = kind;
    node->holders = 0;
    node->depth = (uint16_t)depth;
    node->weight = weight;
    node->first = first;
    return scan_ids_push(&state->stack, (uint32_t)state->node_count++);
}

/* -- scalars --------------------------------------------------------------------------------------------- */

static inline uint64_t scan_little_endian(const uint8_t *bytes, size_t width) {
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

/* A scalar behind its length. Long ones weigh by their length: hashing an int or a Decimal reads all of it
 * each time. */
static inline int scan_sized(scan_state_t *state, size_t width, int is_text) {
    if (width > state->size - state->at) return SCAN_TRUNCATED;
    uint64_t length = scan_little_endian(state->data + state->at, width);
    state->at += width;
    if (length > state->size - state->at) return SCAN_TRUNCATED;
    const uint8_t *bytes = state->data + state->at;
    state->at += (size_t)length;
    state->memory += 64 + length;
    if (length > 64) return scan_push_node(state, KIND_SCALAR, 0, (uint32_t)(1 + length / 64), 0);
    uint32_t id = NODE_SCALAR;
    const scan_rules_t *rules = state->rules;
    if (!is_text) return scan_ids_push(&state->stack, id);
    if (length == rules->module_size && memcmp(bytes, rules->module, (size_t)length) == 0) id = NODE_MODULE;
    if (length == rules->name_size && memcmp(bytes, rules->name, (size_t)length) == 0) id = NODE_NAME;
    return scan_ids_push(&state->stack, id);
}

/* -- containers ------------------------------------------------------------------------------------------ */

/* Note that something holds this node from now on. A pair counts as a holder of its first item when it is made, since
 * it may be the argument of the call that fills it; held itself, it counts once more. */
static inline int scan_hold(scan_state_t *state, uint32_t id) {
    scan_node_t *node = &state->nodes[id];
    if (node->kind == KIND_CALLEE) return SCAN_KIND;
    if (node->kind == KIND_PAIR) node = &state->nodes[node->first];
    if (node->holders < 2) node->holders++;
    return SCAN_OK;
}

/* Depth and weight of the stack's items from `base` up, which must all be values (the callee is none). With a
 * `step`, every step-th of them is going to be hashed. */
static inline int scan_measure(scan_state_t *state, size_t base, size_t step, uint32_t *depth,
                               uint32_t *weight) {
    size_t next_hashed = step ? base : SIZE_MAX;
    for (size_t i = base; i < state->stack.count; i++) {
        const scan_node_t *node = &state->nodes[state->stack.items[i]];
        if (node->kind >= KIND_PAIR && scan_hold(state, state->stack.items[i]) != SCAN_OK) return SCAN_KIND;
        if (node->depth > *depth) *depth = node->depth;
        *weight = scan_sum(*weight, node->weight);
        if (i != next_hashed) continue;
        if (node->depth > state->rules->max_hash_depth) return SCAN_DEPTH;
        state->hash_cost += node->weight;
        next_hashed += step;
    }
    return SCAN_OK;
}

/* Replace the items from `base` up by one immutable container of them. */
static int scan_gather(scan_state_t *state, size_t base, uint8_t kind, size_t step) {
    if (base < state->floor || base > state->stack.count) return SCAN_STACK;
    size_t count = state->stack.count - base;
    uint32_t depth = 0, weight = 1;
    uint32_t first = count ? state->stack.items[base] : NODE_SCALAR;
    int status = scan_measure(state, base, step, &depth, &weight);
    if (status != SCAN_OK) return status;
    state->memory += 48 + 8 * (uint64_t)count;
    state->stack.count = base;
    return scan_push_node(state, kind, depth + 1, weight, first);
}

/* Move the items from `base` up into the mutable container of this kind that lies below them. */
static inline int scan_extend(scan_state_t *state, size_t base, uint8_t kind) {
    if (base > state->stack.count || base < state->floor + 1) return SCAN_STACK;
    uint32_t target = state->stack.items[base - 1];
    if (state->nodes[target].kind != kind) return SCAN_KIND;
    size_t count = state->stack.count - base;
    if (kind == KIND_DICT && count % 2) return SCAN_STACK;
    if (state->nodes[target].holders) state->late++;
    uint32_t depth = 0, weight = state->nodes[target].weight;
    int status = scan_measure(state, base, kind == KIND_DICT ? 2 : kind == KIND_SET ? 1 : 0, &depth, &weight);
    if (status != SCAN_OK) return status;
    state->memory += (uint64_t)count * (kind == KIND_LIST ? 8 : kind == KIND_SET ? 32 : 50);
    if (depth + 1 > state->rules->max_depth) return SCAN_DEPTH;
    if (depth + 1 > state->nodes[target].depth) state->nodes[target].depth = (uint16_t)(depth + 1);
    state->nodes[target].weight = weight;
    state->stack.count = base;
    return SCAN_OK;
}

static inline int scan_create(scan_state_t *state, uint8_t kind, uint64_t bytes) {
    state->memory += bytes;
    return scan_push_node(state, kind, 1, 1, 0);
}

/* -- marks and memo -------------------------------------------------------------------------------------- */

static inline int scan_mark(scan_state_t *state) {
    state->floor = state->stack.count;
    return scan_ids_push(&state->marks, (uint32_t)state->stack.count);
}

/* Pop the innermost mark and say where it stood. */
static inline int scan_unmark(scan_state_t *state, size_t *base) {
    if (state->marks.count == 0) return SCAN_STACK;
    *base = state->marks.items[--state->marks.count];
    state->floor = state->marks.count ? state->marks.items[state->marks.count - 1] : 0;
    return SCAN_OK;
}

static inline int scan_memoize(scan_state_t *state) {
    if (state->stack.count <= state->floor) return SCAN_STACK;
    return scan_ids_push(&state->memo, state->stack.items[state->stack.count - 1]);
}

static inline int scan_recall(scan_state_t *state, size_t width) {
    if (width > state->size - state->at) return SCAN_TRUNCATED;
    uint64_t index = scan_little_endian(state->data + state->at, width);
    state->at += width;
    if (index >= state->memo.count) return SCAN_MEMO;
    return scan_ids_push(&state->stack, state->memo.items[index]);
}

/* -- calls ----------------------------------------------------------------------------------------------- */

static int scan_global(scan_state_t *state) {
    if (state->stack.count < state->floor + 2) return SCAN_STACK;
    const uint32_t *top = state->stack.items + state->stack.count - 2;
    if (top[0] != NODE_MODULE || top[1] != NODE_NAME) return SCAN_GLOBAL;
    state->stack.count -= 2;
    return scan_ids_push(&state->stack, NODE_CALLEE);
}

static int scan_reduce(scan_state_t *state) {
    if (state->stack.count < state->floor + 2) return SCAN_STACK;
    const uint32_t *top = state->stack.items + state->stack.count - 2;
    const scan_node_t arguments = state->nodes[top[1]];
    if (top[0] != NODE_CALLEE || arguments.kind != KIND_PAIR) return SCAN_KIND;
    scan_node_t *first = &state->nodes[arguments.first];
    state->stack.count -= 2;
    state->calls++;
    if (first->kind == KIND_SCALAR) {
        state->memory += 256;
        return scan_push_node(state, KIND_OBJECT, arguments.depth, arguments.weight, 0);
    }
    if (first->kind != KIND_OBJECT) return SCAN_KIND;
    if (first->holders > 1) state->late++; /* another thing holds it than this call's argument */
    if (arguments.depth > first->depth) first->depth = arguments.depth;
    first->weight = scan_sum(first->weight, arguments.weight);
    state->nodes[top[1]].weight = scan_sum(arguments.weight, arguments.weight); /* the memo may have it */
    return scan_ids_push(&state->stack, NODE_SCALAR); /* this call returns None */
}

/* -- the machine ----------------------------------------------------------------------------------------- */

static int scan_frame(scan_state_t *state) {
    if (state->size - state->at < 8) return SCAN_TRUNCATED;
    uint64_t length = scan_little_endian(state->data + state->at, 8);
    state->at += 8;
    return length > state->size - state->at ? SCAN_TRUNCATED : SCAN_OK;
}

/* Instructions that close a mark. */
static int scan_step_marked(scan_state_t *state, uint8_t opcode) {
    size_t base;
    if (scan_unmark(state, &base) != SCAN_OK) return SCAN_STACK;
    switch (opcode) {
    case 'e': return scan_extend(state, base, KIND_LIST);    /* APPENDS */
    case 'u': return scan_extend(state, base, KIND_DICT);    /* SETITEMS */
    case 0x90: return scan_extend(state, base, KIND_SET);    /* ADDITEMS */
    case 't': return scan_gather(state, base, KIND_TUPLE, 0); /* TUPLE */
    case 0x91:                                               /* FROZENSET */
        state->memory += 168 + 24 * (uint64_t)(state->stack.count - base);
        return scan_gather(state, base, KIND_TUPLE, 1);
    default: /* POP_MARK */
        state->stack.count = base;
        return SCAN_OK;
    }
}

/* Instructions on the topmost values, the memo and the frame. */
static int scan_step_stack(scan_state_t *state, uint8_t opcode) {
    size_t count = state->stack.count;
    switch (opcode) {
    case 0x95: return scan_frame(state);
    case 0x85: return count < 1 ? SCAN_STACK : scan_gather(state, count - 1, KIND_TUPLE, 0); /* TUPLE1 */
    case 0x86: return count < 2 ? SCAN_STACK : scan_gather(state, count - 2, KIND_PAIR, 0);  /* TUPLE2 */
    case 0x87: return count < 3 ? SCAN_STACK : scan_gather(state, count - 3, KIND_TUPLE, 0); /* TUPLE3 */
    case 'a': return count < 2 ? SCAN_STACK : scan_extend(state, count - 1, KIND_LIST);   /* APPEND */
    case 's': return count < 3 ? SCAN_STACK : scan_extend(state, count - 2, KIND_DICT);   /* SETITEM */
    case 0x93: return scan_global(state);                                                 /* STACK_GLOBAL */
    case 'R': return scan_reduce(state);
    case '0': /* POP: the writer drops a copy of what turned out to be in the memo already */
        if (count <= state->floor) return SCAN_STACK;
        state->stack.count--;
        return SCAN_OK;
    default: return SCAN_OPCODE;
    }
}

/* Every instruction that scan_run leaves to others. */
static int scan_step(scan_state_t *state, uint8_t opcode) {
    switch (opcode) {
    case '(': return scan_mark(state);
    case '}': return scan_create(state, KIND_DICT, 64);
    case ']': return scan_create(state, KIND_LIST, 56);
    case 0x8f: return scan_create(state, KIND_SET, 216);
    case ')': return scan_create(state, KIND_TUPLE, 8);
    case 0x8c: return scan_sized(state, 1, 1); /* SHORT_BINUNICODE */
    case 'X': return scan_sized(state, 4, 1);  /* BINUNICODE */
    case 0x8d: return scan_sized(state, 8, 1); /* BINUNICODE8 */
    case 'C': return scan_sized(state, 1, 0);  /* SHORT_BINBYTES */
    case 'B': return scan_sized(state, 4, 0);  /* BINBYTES */
    case 0x8e: return scan_sized(state, 8, 0); /* BINBYTES8 */
    case 0x96: return scan_sized(state, 8, 0); /* BYTEARRAY8 */
    case 0x8a: return scan_sized(state, 1, 0); /* LONG1 */
    case 0x8b: return scan_sized(state, 4, 0); /* LONG4; a negative length is an enormous one here */
    case 'j': return scan_recall(state, 4);    /* LONG_BINGET */
    case 'e': case 'u': case 't': case '1': case 0x90: case 0x91: return scan_step_marked(state, opcode);
    default: return scan_step_stack(state, opcode);
    }
}

static void scan_begin(scan_state_t *state, const uint8_t *data, size_t size, const scan_rules_t *rules) {
    static const uint8_t kinds[SCAN_FIXED_NODES] = {KIND_SCALAR, KIND_CALLEE, KIND_SCALAR, KIND_SCALAR};
    state->data = data;
    state->size = size;
    state->at = 0;
    state->rules = rules;
    state->hash_cost = state->memory = 0;
    state->calls = state->late = state->floor = 0;
    scan_ids_t *vectors[3] = {&state->stack, &state->memo, &state->marks};
    for (int i = 0; i < 3; i++) {
        vectors[i]->items = vectors[i]->local;
        vectors[i]->count = 0;
        vectors[i]->capacity = SCAN_INLINE;
    }
    state->nodes = state->local_nodes;
    state->node_capacity = SCAN_INLINE;
    state->node_count = SCAN_FIXED_NODES;
    for (int i = 0; i < SCAN_FIXED_NODES; i++) state->nodes[i] = (scan_node_t){1, 0, 0, kinds[i], 0};
}

static void scan_end(scan_state_t *state) {
    if (state->stack.items != state->stack.local) free(state->stack.items);
    if (state->memo.items != state->memo.local) free(state->memo.items);
    if (state->marks.items != state->marks.local) free(state->marks.items);
    if (state->nodes != state->local_nodes) free(state->nodes);
}

/* STOP: one value is left, no mark is open, nothing follows, and the budgets are kept. */
static int scan_stop(const scan_state_t *state) {
    if (state->marks.count != 0 || state->stack.count != 1) return SCAN_STACK;
    if (state->stack.items[0] == NODE_CALLEE) return SCAN_KIND;
    if (state->at != state->size) return SCAN_TRAILING;
    if (state->hash_cost > state->rules->hash_budget) return SCAN_HASH_COST;
    return state->memory > state->rules->memory_budget ? SCAN_MEMORY : SCAN_OK;
}

/* The loop. Small scalars and the memo make up most of a document; they are done here, with the position in a
 * register, and whatever was pushed takes the MEMOIZE behind it along. */
static int scan_run(scan_state_t *state, scan_report_t *report) {
    const uint8_t *data = state->data;
    const size_t size = state->size;
    size_t at = state->at;
    int status = SCAN_OK;
    while (status == SCAN_OK) {
        size_t width = 0;
        report->offset = at;
        if (at == size) return SCAN_TRUNCATED;
        uint8_t opcode = report->opcode = data[at++];
        switch (opcode) {
        case 'h': /* BINGET */
            if (at == size) return SCAN_TRUNCATED;
            if (data[at] >= state->memo.count) return SCAN_MEMO;
            status = scan_ids_push(&state->stack, state->memo.items[data[at++]]);
            continue;
        case 'N': case 0x88: case 0x89: break; /* NONE, NEWTRUE, NEWFALSE */
        case 'K': width = 1; break;            /* BININT1 */
        case 'M': width = 2; break;            /* BININT2 */
        case 'J': width = 4; break;            /* BININT */
        case 'G': width = 8; break;            /* BINFLOAT */
        case 0x94: status = scan_memoize(state); continue;
        case '.': state->at = at; return scan_stop(state);
        default:
            state->at = at;
            status = scan_step(state, opcode);
            at = state->at;
            if (status == SCAN_OK && at < size && data[at] == 0x94) {
                at++;
                status = scan_memoize(state);
            }
            continue;
        }
        if (width > size - at) return SCAN_TRUNCATED;
        at += width;
        state->memory += 8 * width;
        status = scan_ids_push(&state->stack, NODE_SCALAR);
    }
    return status;
}

/* Verify the pickle `data[0:size]`. Returns SCAN_OK, or why not; `report` says where. Never reads past the
 * end, holds no state between calls, and may run in any thread. `rules->max_depth` is at most 65,000. */
static inline int pickle_scan(const uint8_t *data, size_t size, const scan_rules_t *rules,
                              scan_report_t *report) {
    scan_state_t state;
    *report = (scan_report_t){0, 0, 0, 0};
    if (size > UINT32_MAX - SCAN_FIXED_NODES) return SCAN_TOO_LONG;
    if (size < 2) return SCAN_TRUNCATED;
    if (data[0] != 0x80 || data[1] != 5) return SCAN_PROTOCOL;
    scan_begin(&state, data, size, rules);
    state.at = 2;
    int status = scan_run(&state, report);
    report->calls = state.calls;
    report->late = state.late;
    scan_end(&state);
    return status;
}

#endif
