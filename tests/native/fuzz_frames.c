/* fuzz_frames.c: any bytes at all, read as what a connection received, are taken for what they are, however they are cut, and
 * nothing is read past their end. For libFuzzer, built and run by fuzz.sh.
 *
 *     input    [where the data is cut: 1 byte] [the data: the rest]
 */

#include "check.h"

#include "nearcache/frames.h"

static bool lies_within(slice_t inner, slice_t outer)
{
    return inner.at >= outer.at && inner.size <= outer.size && inner.at + inner.size <= outer.at + outer.size;
}

/* A payload, also as one that begins as it must. */
static void read_message(slice_t payload, bool whole)
{
    static const char head[] = "S 0000000000000001 8 0000000000000002 ";
    chain_t chain;
    message_t message = {0, 0, {NULL, 0}};
    slice_t key;
    int64_t number;
    char *copy = malloc(sizeof head - 1 + payload.size);

    CHECK(copy != NULL);
    memcpy(copy, head, sizeof head - 1);
    memcpy(copy + sizeof head - 1, payload.at, payload.size);
    if (!whole) {
        payload = (slice_t){copy, sizeof head - 1 + payload.size};
    }
    chain_set(&chain, 1, 7, 2);
    if (message_next(payload, &chain, "SFIA", &message)) {
        char written[ID_DIGITS];
        CHECK(lies_within(message.keys, payload) && strchr("SFIA", message.operation) != NULL);
        write_id(written, message.wid);
        CHECK(memcmp(written, message.keys.at - ID_DIGITS - 1, ID_DIGITS) == 0);
        while (key_next(&message.keys, &key) == 1) {
            CHECK(lies_within(key, payload));
            if (key_number(key, &number)) {
                char text[32];
                int length = snprintf(text, sizeof text, "%lld", (long long)number);
                CHECK((size_t)length + 1 == key.size && memcmp(text, key.at + 1, key.size - 1) == 0);
            }
        }
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slice_t channel, payload;
    size_t used, used_whole, cut;
    frame_t found, skipped;
    char *copy;

    if (size < 1) {
        return 0;
    }
    size--;
    copy = malloc(size != 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size);
    found = frame_push(copy, size, &channel, &payload, &used);
    skipped = frame_skip(copy, size, &used_whole);
    if (found == FRAME_WHOLE) {
        CHECK(used <= size && skipped == FRAME_WHOLE && used_whole == used);
        CHECK(lies_within(channel, (slice_t){copy, used}) && lies_within(payload, (slice_t){copy, used}));
        read_message(payload, true);
    }
    CHECK(skipped != FRAME_WHOLE || (used_whole > 0 && used_whole <= size));
    read_message((slice_t){copy, size}, false);

    /* What is whole was partial before its last byte came, and never other. */
    cut = size == 0 ? 0 : data[0] % size;
    memmove(copy, data + 1, cut);
    if (skipped == FRAME_WHOLE && cut < used_whole) {
        char *front = malloc(cut != 0 ? cut : 1);
        CHECK(front != NULL);
        memcpy(front, data + 1, cut);
        CHECK(frame_skip(front, cut, &used) == FRAME_PARTIAL);
        CHECK(found != FRAME_WHOLE || frame_push(front, cut, &channel, &payload, &used) == FRAME_PARTIAL);
        free(front);
    }
    free(copy);
    return 0;
}
