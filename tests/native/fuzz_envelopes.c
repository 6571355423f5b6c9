/* fuzz_envelopes.c: any bytes at all, taken for an envelope, are read within their end; and what is taken for a usual one
 * is what would be written for what it says. For libFuzzer, built and run by fuzz.sh.
 *
 *     input    [codec: 1 byte] [the data: the rest]
 */

#include "check.h"

#include <string.h>

#include "nearcache/envelopes.h"

/* A number is read only from the bytes that are written for it: none that is shorter says the same. */
static void read_number(const char *data, size_t size)
{
    int64_t number;
    int64_t shorter;

    if (!payload_int(data, size, &number)) {
        return;
    }
    CHECK(size >= 1 && size <= 8);
    for (size_t i = 0; i < size; i++) {
        CHECK((uint8_t)data[i] == (uint8_t)((uint64_t)number >> (8 * i)));
    }
    for (size_t less = 1; less < size; less++) {
        CHECK(!payload_int(data, less, &shorter) || shorter != number);
    }
}

/* The same envelope, read from bytes behind which nothing lies. */
static void read_envelope(const char *data, size_t size, int codec_id)
{
    char head[64];
    plain_t plain;
    plain_t header;
    bool usual = envelope_plain(data, size, codec_id, &plain);
    size_t first;

    CHECK(!header_plain(data, size, &header) || (size >= ENVELOPE_HEADER && header.wid != 0 && header.payload == 0));
    if (!usual) {
        return;
    }
    CHECK(plain.payload > ENVELOPE_HEADER && plain.payload <= size);
    CHECK(header_plain(data, size, &header) && header.wid == plain.wid && header.generation == plain.generation);
    /* The cost is not among what a plain one tells of, and may be anything. */
    first = envelope_head(head, codec_id, &plain, 0, size - plain.payload);
    CHECK(first == plain.payload && memcmp(head, data, 28) == 0);
    CHECK(memcmp(head + 32, data + 32, first - 32) == 0);
    CHECK(!envelope_plain(data, size, codec_id + 1, &header));
    read_number(data + plain.payload, size - plain.payload);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *copy;
    int codec_id;
    size_t slot;

    if (size < 1) {
        return 0;
    }
    codec_id = data[0] & 7;
    size--;
    copy = malloc(size != 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data + 1, size);
    read_envelope(copy, size, codec_id);
    read_number(copy, size);
    slot = key_slot(copy, size);
    CHECK(slot < 16384);
    /* With what must stand there, so that lengths are reached. */
    if (size > ENVELOPE_HEADER) {
        copy[0] = (char)ENVELOPE_MAGIC;
        copy[1] = 0;
        copy[2] = (char)codec_id;
        copy[3] = 0;
        memset(copy + 24, 0, 4);
        read_envelope(copy, size, codec_id);
    }
    free(copy);
    return 0;
}
