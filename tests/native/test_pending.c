/* Tests of pending.h: operations in flight, who is poisoned by what, and what may be kept. */

#include "model.h"

enum { OPS = 60, LISTS = 7 };

static rig_t rig;

static void begin(void)
{
    CHECK(rig_init(&rig, NULL, UINT64_MAX, 0) == 0);
}

static void end(void)
{
    CHECK(rig.core.lanes->holders == 1);
    rig_free(&rig);
    CHECK(alloc_live == 0);
}

static void list_op(op_t *op, uint32_t key, int is_write, uint64_t wid)
{
    core_t *core = &rig.core;
    uint32_t ref = table_find(&core->pending, key_of(key), (int64_t)key);

    *op = (op_t){.owner = op, .key = key_of(key), .hash = (int64_t)key, .wid = wid, .storable = 1};
    op->is_write = (uint8_t)is_write;
    op->joinable = (uint8_t)!is_write;
    CHECK(table_reserve(&core->pending, TABLE_MAX_ENTRIES) == 0);
    CHECK(pending_add(&core->pending, ref, op, core->lanes) == (ref == 0));
    CHECK(pending_first(&core->pending, op->ref) == op);
}

static void unlist_op(op_t *op)
{
    (void)pending_remove(&rig.core.pending, op);
    lanes_release(op->lanes);
}

static void test_pending_lists_keep_together_in_any_order(void)
{
    static op_t ops[OPS];

    begin();
    for (int round = 0; round < 20; round++) {
        for (uint32_t i = 0; i < OPS; i++) {
            list_op(&ops[i], i % LISTS, (int)(i % 2), i);
        }
        CHECK(rig.core.pending.count == LISTS);
        for (uint32_t left = OPS; left > 0;) {
            op_t *op = &ops[random_below(OPS)];
            uint32_t count = rig.core.pending.count;
            if (op->ref != 0) {
                void *key = pending_remove(&rig.core.pending, op);
                CHECK((key != NULL) == (rig.core.pending.count == count - 1));
                lanes_release(op->lanes);
                left--;
                WHOLE(core_check(&rig.core));
            }
        }
        CHECK(rig.core.pending.count == 0);
    }
    end();
}

static void test_crowd_gone_gives_its_memory_back(void)
{
    static op_t ops[PENDING_KEPT + 1];

    begin();
    for (uint32_t i = 0; i <= PENDING_KEPT; i++) {
        list_op(&ops[i], i, 0, 0);
    }
    for (uint32_t i = 0; i <= PENDING_KEPT; i++) {
        CHECK(table_memory(&rig.core.pending) != 0);
        unlist_op(&ops[i]);
    }
    CHECK(table_memory(&rig.core.pending) == 0);
    list_op(&ops[0], 1, 0, 0);
    unlist_op(&ops[0]);
    CHECK(table_memory(&rig.core.pending) != 0); /* the usual few keep theirs */
    end();
}

static void test_poison_spares_the_write_that_is_announced(void)
{
    op_t read, own, other;
    table_t *pending = &rig.core.pending;

    begin();
    list_op(&read, 1, 0, 0);
    list_op(&own, 1, 1, 5);
    list_op(&other, 1, 1, 6);
    own.announced = 1;
    pending_hear(pending, own.ref, 4); /* a message before our own is older */
    CHECK(!read.storable && own.storable && !own.heard && !other.storable);
    pending_hear(pending, own.ref, 5);
    CHECK(own.storable && own.heard);
    pending_poison(pending, own.ref, &own);
    CHECK(own.storable && !own.overtaken);
    pending_hear(pending, own.ref, 6); /* and one after it is newer */
    CHECK(!own.storable && !own.overtaken);
    pending_overtake(pending, own.ref);
    CHECK(own.overtaken && read.overtaken && other.overtaken);
    pending_hear(pending, 0, 6); /* no entry, nobody */
    unlist_op(&read);
    unlist_op(&own);
    unlist_op(&other);
    end();
}

static void test_admission_follows_stamp_and_identity(void)
{
    core_t *core = &rig.core;
    op_t op;

    begin();
    list_op(&op, 1, 0, 0);
    CHECK(core_admits(core, &op, 7) && !core_admits(core, &op, 8) && !core_admits(core, &op, 0));
    lane_attach(&core->lanes->lane[0], 8);
    CHECK(!core_admits(core, &op, 7) && !core_admits(core, &op, 8));
    lane_attach(&core->lanes->lane[0], 7);
    CHECK(core_admits(core, &op, 7) && op_is_joinable(&op));
    lane_suspect(&core->lanes->lane[0]);
    CHECK(!core_admits(core, &op, 7) && !op_is_joinable(&op) && !op_is_storable(&op));
    core->lanes->lane[0].stamp--;
    (void)pending_remove(&core->pending, &op);
    CHECK(!core_admits(core, &op, 7));
    lanes_release(op.lanes);
    end();
}

static void test_op_outlives_the_lanes_of_its_store(void)
{
    op_t op;

    begin();
    list_op(&op, 1, 0, 0);
    (void)pending_remove(&rig.core.pending, &op);
    rig_free(&rig);
    CHECK(op_is_current(&op) && op.lanes->holders == 1);
    lane_suspect(&op.lanes->lane[0]);
    CHECK(!op_is_current(&op));
    lanes_release(op.lanes);
    lanes_release(NULL);
    CHECK(alloc_live == 0);
}

static void test_check_sees_an_op_listed_wrongly(void)
{
    op_t op;

    begin();
    list_op(&op, 1, 0, 0);
    op.prev = &op;
    CHECK(core_check(&rig.core) != NULL);
    op.prev = NULL;
    CHECK(core_check(&rig.core) == NULL);
    unlist_op(&op);
    end();
}

int main(void)
{
    test_pending_lists_keep_together_in_any_order();
    test_crowd_gone_gives_its_memory_back();
    test_poison_spares_the_write_that_is_announced();
    test_admission_follows_stamp_and_identity();
    test_op_outlives_the_lanes_of_its_store();
    test_check_sees_an_op_listed_wrongly();
    return check_done("test_pending");
}
