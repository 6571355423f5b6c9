/* envelopes.h: the usual envelope, read and asked for without Python. docs/wire.md describes both, byte by byte.
 *
 *     0     magic, flags, codec, key id      20  whole ttl, soft distance, cost, schema (4 bytes each, little-endian)
 *     4     wid (8, big-endian)              36  length of the payload, groups of 7 bits
 *     12    generation (8, big-endian)           number of tags, then the payload
 *
 * Usual is: this format, no flag, no key, no tag, no soft end, every length what it says. To everything else these
 * functions say no, and somebody who knows all forms looks at it. Every read is checked against the end.
 */
#ifndef NEARCACHE_ENVELOPES_H
#define NEARCACHE_ENVELOPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENVELOPE_MAGIC 0xC1u
#define ENVELOPE_HEADER 36u

typedef struct {
    uint64_t wid;
    uint64_t generation;
    uint32_t ttl_ms;
    uint32_t schema;
    size_t payload; /* where it begins; 0 for a header alone */
} plain_t;

static inline uint64_t read_big64(const char *at)
{
    uint64_t value = 0;

    for (size_t i = 0; i < 8; i++) {
        value = value << 8 | (uint8_t)at[i];
    }
    return value;
}

static inline uint32_t read_little32(const char *at)
{
    return (uint32_t)(uint8_t)at[0] | (uint32_t)(uint8_t)at[1] << 8 | (uint32_t)(uint8_t)at[2] << 16 |
           (uint32_t)(uint8_t)at[3] << 24;
}

/* A header with nothing out of the ordinary in it, whatever codec wrote what follows. */
static inline bool header_plain(const char *data, size_t size, plain_t *plain)
{
    if (size < ENVELOPE_HEADER || (uint8_t)data[0] != ENVELOPE_MAGIC || data[1] != 0 || data[3] != 0 ||
        read_little32(data + 24) != 0) {
        return false;
    }
    plain->wid = read_big64(data + 4);
    plain->generation = read_big64(data + 12);
    plain->ttl_ms = read_little32(data + 20);
    plain->schema = read_little32(data + 32);
    plain->payload = 0;
    return plain->wid != 0;
}

/* A whole envelope like that, of this codec and size, of whose bytes only the first are here. */
static inline bool envelope_begins(const char *data, size_t have, size_t size, int codec_id, plain_t *plain)
{
    size_t at = ENVELOPE_HEADER;
    uint64_t length = 0;
    unsigned shift = 0;
    uint8_t group;

    if (!header_plain(data, have, plain) || (uint8_t)data[2] != codec_id) {
        return false;
    }
    do {
        if (at >= have || shift > 56) {
            return false;
        }
        group = (uint8_t)data[at++];
        length |= (uint64_t)(group & 0x7F) << shift;
        shift += 7;
    } while (group >= 0x80);
    if ((group == 0 && shift > 7) || at >= have || data[at++] != 0 || size - at != length) {
        return false;
    }
    plain->payload = at;
    return true;
}

static inline bool envelope_plain(const char *data, size_t size, int codec_id, plain_t *plain)
{
    return envelope_begins(data, size, size, codec_id, plain);
}

/* No byte of it is above 127. */
static inline bool is_all_ascii(const char *data, size_t size)
{
    uint8_t any = 0;

    for (size_t i = 0; i < size; i++) {
        any |= (uint8_t)data[i];
    }
    return any < 0x80;
}

static inline char *write_big64(char *at, uint64_t value)
{
    for (int i = 7; i >= 0; i--) {
        at[i] = (char)(value & 0xFF);
        value >>= 8;
    }
    return at + 8;
}

static inline char *write_little32(char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        at[i] = (char)(value & 0xFF);
        value >>= 8;
    }
    return at + 4;
}

/* What stands before the payload of an envelope with neither tags nor anything that flags tell of. Returns how long it
 * is: at most the header and 11 bytes. */
static inline size_t envelope_head(char *start, int codec_id, const plain_t *plain, uint32_t soft_ms, uint64_t size)
{
    char *at = start;

    *at++ = (char)ENVELOPE_MAGIC;
    *at++ = 0;
    *at++ = (char)codec_id;
    *at++ = 0;
    at = write_big64(at, plain->wid);
    at = write_big64(at, plain->generation);
    at = write_little32(at, plain->ttl_ms);
    at = write_little32(at, soft_ms);
    at = write_little32(at, 0);
    at = write_little32(at, plain->schema);
    while (size >= 0x80) {
        *at++ = (char)((size & 0x7F) | 0x80);
        size >>= 7;
    }
    *at++ = (char)size;
    *at++ = 0;
    return (size_t)(at - start);
}

/* A number as the safe codec writes it, if it fits: little-endian, two's complement, the fewest bytes that have room for
 * the magnitude's bits and a sign. */
static inline bool payload_int(const char *data, size_t size, int64_t *number)
{
    uint64_t value;
    uint64_t magnitude;
    size_t bits = 0;

    if (size == 0 || size > 8) {
        return false;
    }
    value = (data[size - 1] & 0x80) != 0 ? UINT64_MAX : 0;
    for (size_t i = size; i > 0; i--) {
        value = value << 8 | (uint8_t)data[i - 1];
    }
    magnitude = value >> 63 != 0 ? 0 - value : value;
    for (; magnitude != 0; magnitude >>= 1) {
        bits++;
    }
    *number = (int64_t)value;
    return (bits + 8) / 8 == size;
}

/* CRC16/XMODEM modulo 16,384: where Redis Cluster puts a key. Four bits at a time: the table fits in a cache line. */
static inline uint16_t key_slot(const char *data, size_t size)
{
    static const uint16_t step[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50A5, 0x60C6, 0x70E7,
        0x8108, 0x9129, 0xA14A, 0xB16B, 0xC18C, 0xD1AD, 0xE1CE, 0xF1EF,
    };
    uint16_t crc = 0;

    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)data[i];
        crc = (uint16_t)((crc << 4) ^ step[(crc >> 12) ^ (byte >> 4)]);
        crc = (uint16_t)((crc << 4) ^ step[(crc >> 12) ^ (byte & 15)]);
    }
    return crc & 16383;
}

/* A count in the Redis protocol: its letter, decimal digits, the end of the line. Returns how many bytes that is. */
static inline size_t write_count(char *at, char kind, size_t count)
{
    char digits[20];
    size_t length = 0;
    size_t end = 1;

    do {
        digits[length++] = (char)('0' + count % 10);
        count /= 10;
    } while (count != 0);
    at[0] = kind;
    while (length > 0) {
        at[end++] = digits[--length];
    }
    at[end++] = '\r';
    at[end++] = '\n';
    return end;
}

#endif
