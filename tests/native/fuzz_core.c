/* fuzz_core.c: any stream of bytes, taken as operations on a core, leaves it whole and equal to the model of model.h.
 *
 *     input    [settings: 5 bytes] [op arg arg] [op arg arg] ...
 *
 * The policy is either one, hashes are distinct, colliding or high (settings); clocks step by anything from a nanosecond to years, backwards too;
 * deadlines are as far away; sizes go up to more than all may take together; any allocation may fail. For libFuzzer, built
 * and run by fuzz.sh. Without it (NEARCACHE_FUZZ_ALONE) the program runs streams from a fixed seed: a test as any other. */

#define MODEL_KEYS 256u
#include "model.h"

enum { SETTINGS = 5, OPS = 16, WHOLE_EVERY = 4, COMPARE_EVERY = 64 };

static const int64_t LATEST = INT64_MAX / 2;

typedef struct {
    rig_t rig;
    op_t ops[OPS];
    long allowed; /* allocations that the next operation may make; -1: all */
} fuzz_t;

typedef struct {
    uint8_t op;
    uint8_t high;
    uint8_t low;
} step_t;

/* An instant as far from now as `how` says, by order of magnitude; in the past or never at the ends of the scale. */
static int64_t fuzz_deadline(const fuzz_t *fuzz, uint8_t how)
{
    int64_t now_ns = fuzz->rig.core.source.fixed_ns;

    if (how < 8) {
        return now_ns > (int64_t)how * 1000000 ? now_ns - (int64_t)how * 1000000 : 0;
    }
    if (how >= 240) {
        return CLOCK_NEVER_NS;
    }
    return clock_deadline(now_ns, ((int64_t)1 << (how / 4)) + (int64_t)(how % 4) * 349525);
}

static uint64_t fuzz_size(uint8_t how)
{
    return how < 200 ? how % 16 : (uint64_t)1 << ((how - 200) / 2 + 4);
}

static void fuzz_store(fuzz_t *fuzz, const step_t *step)
{
    int64_t deadline_ns = fuzz_deadline(fuzz, step->low);

    if (step->op < 96) {
        (void)rig_put(&fuzz->rig, step->high % MODEL_KEYS, deadline_ns);
    } else {
        (void)rig_store(&fuzz->rig, step->high % MODEL_KEYS, fuzz_size(step->op), deadline_ns);
    }
}

static void fuzz_clock(fuzz_t *fuzz, const step_t *step)
{
    int64_t now_ns = fuzz->rig.core.source.fixed_ns;
    int64_t by_ns = (int64_t)step->low << (step->high % 50);

    if (step->high >= 250) {
        now_ns = by_ns < now_ns ? now_ns - by_ns : 0;
    } else if (now_ns < LATEST - by_ns) {
        now_ns += by_ns;
    }
    fuzz->rig.core.source.fixed_ns = now_ns;
}

/* -- operations in flight: what is listed stays consistent, whoever goes first ---------------------------- */

static void fuzz_open(fuzz_t *fuzz, op_t *op, uint32_t key)
{
    core_t *core = &fuzz->rig.core;
    lanes_t *held = op->lanes;
    int64_t hash = hash_of(fuzz->rig.kind, key % 8);
    uint32_t ref = table_find(&core->pending, key_of(key % 8), hash);

    if (op->ref != 0 || (ref == 0 && table_reserve(&core->pending, TABLE_MAX_ENTRIES) < 0)) {
        return;
    }
    *op = (op_t){.owner = op, .key = key_of(key % 8), .hash = hash, .lanes = held, .wid = key, .storable = 1};
    op->is_write = key % 3 == 0;
    op->joinable = !op->is_write;
    op->announced = key % 6 == 0;
    CHECK(pending_add(&core->pending, ref, op, core->lanes) == (ref == 0));
    CHECK(op_is_storable(op));
}

static void fuzz_flight(fuzz_t *fuzz, const step_t *step)
{
    core_t *core = &fuzz->rig.core;
    op_t *op = &fuzz->ops[step->high % OPS];

    switch (step->low % 5) {
    case 0:
    case 1:
        fuzz_open(fuzz, op, step->low);
        break;
    case 2:
        if (op->ref != 0) {
            (void)pending_remove(&core->pending, op);
            CHECK(!core_admits(core, op, 7));
        }
        break;
    case 3:
        pending_hear(&core->pending, op->ref, step->low);
        CHECK(op->ref == 0 || op->announced || (op->is_write && op->wid == step->low) || !op_is_storable(op));
        break;
    default:
        pending_overtake(&core->pending, op->ref);
        CHECK(op->ref == 0 || (op->overtaken && !op_is_joinable(op)));
    }
}

/* -- steps ------------------------------------------------------------------------------------------------ */

/* Many operations at once, so that a short input can make the table grow, and empty it again. */
static void fuzz_many(fuzz_t *fuzz, const step_t *step)
{
    rig_t *rig = &fuzz->rig;

    for (uint32_t i = 0; i < step->low % 128u; i++) {
        uint32_t key = (step->high + i) % MODEL_KEYS;
        switch (step->op / 16 % 5) {
        case 0:
            (void)rig_store(rig, key, 1, fuzz_deadline(fuzz, (uint8_t)(step->low + i)));
            break;
        case 1:
            rig_remove(rig, key);
            break;
        case 2:
            (void)rig_hit(rig, key);
            break;
        case 3:
            (void)rig_put(rig, key, CLOCK_NEVER_NS);
            break;
        default:
            (void)rig_reschedule(rig, key, fuzz_deadline(fuzz, (uint8_t)(step->low + i)));
        }
    }
}

static void fuzz_step(fuzz_t *fuzz, const step_t *step)
{
    rig_t *rig = &fuzz->rig;

    switch (step->op % 16) {
    case 0:
    case 1:
    case 2:
        fuzz_store(fuzz, step);
        break;
    case 3:
    case 4:
        (void)rig_hit(rig, step->high % MODEL_KEYS);
        break;
    case 5:
        rig_remove(rig, step->high % MODEL_KEYS);
        break;
    case 6:
        (void)rig_reschedule(rig, step->high % MODEL_KEYS, fuzz_deadline(fuzz, step->low));
        break;
    case 7:
        fuzz_clock(fuzz, step);
        break;
    case 8:
        (void)rig_expire(rig, step->low);
        break;
    case 9:
        (void)rig_expire_all(rig, step->low % 32u + 1);
        break;
    case 10:
        rig_tend(rig);
        break;
    case 11:
        rig_evict(rig);
        break;
    case 12:
    case 13:
        fuzz_many(fuzz, step);
        break;
    case 14:
        fuzz_flight(fuzz, step);
        break;
    default:
        if (step->low == 0) {
            rig_detach(rig);
        } else {
            fuzz->allowed = step->low % 4;
        }
    }
}

static void fuzz_begin(fuzz_t *fuzz, const uint8_t *settings)
{
    memset(fuzz->ops, 0, sizeof fuzz->ops);
    fuzz->allowed = -1;
    CHECK(rig_init(&fuzz->rig, NULL, settings[1] < 128 ? UINT64_MAX : settings[1] - 127u, settings[0] % HASH_KINDS) == 0);
    if (settings[4] >= 128) {
        CHECK(rig_adapt(&fuzz->rig, settings[4]) == 0);
    }
    if (settings[2] >= 128) { /* a few of the largest sizes fit together */
        fuzz->rig.core.max_bytes = (uint64_t)1 << 26;
    }
    if (settings[3] >= 16) { /* a machine that has run for up to half a century */
        fuzz->rig.core.source.fixed_ns = (int64_t)settings[3] * ((int64_t)1 << 52) - 1000000000;
    }
}

static void fuzz_end(fuzz_t *fuzz)
{
    rig_compare(&fuzz->rig);
    for (uint32_t i = 0; i < OPS; i++) {
        if (fuzz->ops[i].ref != 0) {
            (void)pending_remove(&fuzz->rig.core.pending, &fuzz->ops[i]);
        }
        lanes_release(fuzz->ops[i].lanes);
    }
    rig_free(&fuzz->rig);
    CHECK(alloc_live == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static fuzz_t fuzz;
    uint32_t steps = 0;

    if (size < SETTINGS) {
        return 0;
    }
    fuzz_begin(&fuzz, data);
    for (size_t at = SETTINGS; at + 3 <= size; at += 3) {
        step_t step = {data[at], data[at + 1], data[at + 2]};
        alloc_countdown = fuzz.allowed;
        fuzz.allowed = -1;
        fuzz_step(&fuzz, &step);
        alloc_countdown = -1;
        steps++;
        if (steps % COMPARE_EVERY == 0) {
            rig_compare(&fuzz.rig);
        } else if (steps % WHOLE_EVERY == 0) {
            rig_whole(&fuzz.rig);
        }
    }
    fuzz_end(&fuzz);
    return 0;
}

#if defined(NEARCACHE_FUZZ_ALONE)
int main(void)
{
    static uint8_t data[SETTINGS + 3000];

    for (int round = 0; round < 300; round++) {
        for (size_t i = 0; i < sizeof data; i++) {
            data[i] = (uint8_t)random_bits();
        }
        (void)LLVMFuzzerTestOneInput(data, sizeof data);
    }
    return check_done("fuzz_core");
}
#endif
