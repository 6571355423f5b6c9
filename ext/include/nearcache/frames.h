/* frames.h: invalidation messages, read straight out of what a connection received. docs/wire.md describes them.
 *
 * Nearly all that a subscribed connection carries are messages, and nearly every message is the next one of its lane:
 *
 *     >3\r\n$7\r\nmessage\r\n$10\r\nnc:{t:0}:i\r\n$68\r\nS 000000000000000e 42 00000000000000ab 00000000000000ac\n6:ssku:1\r\n
 *     '------- frame_push: which channel, which payload ------' '--- message_next: is it the next in the chain? ----' key_next
 *
 * These functions say yes to that form alone, written as nearcache writes it. To everything else they say "other", and
 * somebody who understands all of RESP and of the protocol looks at it. So this is no second implementation of the
 * rules: what it cannot vouch for it does not decide. frame_skip finds where any reply ends, so that whole ones can be
 * handed over.
 *
 * Nothing is copied and nothing kept; every read is checked against the end. No Python here.
 */
#ifndef NEARCACHE_FRAMES_H
#define NEARCACHE_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef enum {
    FRAME_OTHER = -1,  /* not what this was asked for */
    FRAME_PARTIAL = 0, /* it may be, once there is more of it */
    FRAME_WHOLE = 1
} frame_t;

/* Some bytes of the buffer that was asked about. */
typedef struct {
    const char *at;
    size_t size;
} slice_t;

#define ID_DIGITS 16u
/* A payload that is longer is left to somebody who can say that it is too long. Writers send half of it at most. */
#define MESSAGE_MOST 131072u

/* Where a lane stands: the message after this one is the next. Ids are as messages have them. */
typedef struct {
    uint64_t seq;
    char epoch[ID_DIGITS];
    char wid[ID_DIGITS];
} chain_t;

typedef struct {
    char operation;
    uint64_t wid;
    slice_t keys;
} message_t;

/* -- numbers ------------------------------------------------------------------------------------------------------ */

static inline bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* At most `most` digits, no sign, no leading zero. Returns how many there are, or 0 if it is not such a number. */
static inline size_t read_decimal(const char *at, size_t size, size_t most, uint64_t *value)
{
    size_t digits = 0;

    *value = 0;
    while (digits < size && digits < most && is_digit(at[digits])) {
        *value = *value * 10 + (uint64_t)(at[digits] - '0');
        digits++;
    }
    return digits > 1 && at[0] == '0' ? 0 : digits;
}

/* An id as it is written: 16 lower-case hexadecimal digits. */
static inline bool read_id(const char *at, uint64_t *value)
{
    uint64_t read = 0;

    for (size_t i = 0; i < ID_DIGITS; i++) {
        char c = at[i];
        if (is_digit(c)) {
            read = read << 4 | (uint64_t)(c - '0');
        } else if (c >= 'a' && c <= 'f') {
            read = read << 4 | (uint64_t)(c - 'a' + 10);
        } else {
            return false;
        }
    }
    *value = read;
    return true;
}

static inline void write_id(char *at, uint64_t value)
{
    for (size_t i = 0; i < ID_DIGITS; i++) {
        at[ID_DIGITS - 1 - i] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

static inline void chain_set(chain_t *chain, uint64_t epoch, uint64_t seq, uint64_t wid)
{
    chain->seq = seq;
    write_id(chain->epoch, epoch);
    write_id(chain->wid, wid);
}

/* -- frames ------------------------------------------------------------------------------------------------------- */

/* Do the bytes begin with this text, as far as there are any? */
static inline frame_t expect(const char *data, size_t size, size_t *at, const char *text, size_t length)
{
    size_t left = size - *at;

    if (memcmp(data + *at, text, left < length ? left : length) != 0) {
        return FRAME_OTHER;
    }
    if (left < length) {
        return FRAME_PARTIAL;
    }
    *at += length;
    return FRAME_WHOLE;
}

/* The rest of a bulk string behind its `$`: length, end of line, content, end of line. */
static inline frame_t read_bulk(const char *data, size_t size, size_t *at, slice_t *content)
{
    uint64_t length;
    size_t digits = read_decimal(data + *at, size - *at, 9, &length);
    frame_t found;

    if (*at + digits == size) {
        return digits < 9 ? FRAME_PARTIAL : FRAME_OTHER;
    }
    if (digits == 0) {
        return FRAME_OTHER;
    }
    *at += digits;
    found = expect(data, size, at, "\r\n", 2);
    if (found != FRAME_WHOLE) {
        return found;
    }
    if (size - *at < length) {
        return FRAME_PARTIAL;
    }
    *content = (slice_t){data + *at, (size_t)length};
    *at += (size_t)length;
    return expect(data, size, at, "\r\n", 2);
}

/* A message of some channel, at the beginning of the data. `used` is how long it is. */
static inline frame_t frame_push(const char *data, size_t size, slice_t *channel, slice_t *payload, size_t *used)
{
    static const char plain[] = ">3\r\n$7\r\nmessage\r\n$";
    static const char sharded[] = ">3\r\n$8\r\nsmessage\r\n$";
    size_t at = 0;
    frame_t found = size > 5 && data[5] == sharded[5] ? expect(data, size, &at, sharded, sizeof sharded - 1)
                                                      : expect(data, size, &at, plain, sizeof plain - 1);

    if (found == FRAME_WHOLE) {
        found = read_bulk(data, size, &at, channel);
    }
    if (found == FRAME_WHOLE) {
        found = expect(data, size, &at, "$", 1);
    }
    if (found == FRAME_WHOLE) {
        found = read_bulk(data, size, &at, payload);
    }
    *used = at;
    return found;
}

/* The line that begins at `at`, without its end; `at` goes behind that. */
static inline frame_t read_line(const char *data, size_t size, size_t *at, slice_t *line)
{
    size_t end = *at;
    const char *found;

    while (end < size && (found = memchr(data + end, '\r', size - end)) != NULL) {
        end = (size_t)(found - data);
        if (end + 1 == size) {
            return FRAME_PARTIAL;
        }
        if (data[end + 1] == '\n') {
            *line = (slice_t){data + *at, end - *at};
            *at = end + 2;
            return FRAME_WHOLE;
        }
        end++;
    }
    return FRAME_PARTIAL;
}

/* How much a line announces: bytes or items; nothing at all is written -1. */
static inline bool read_count(slice_t line, uint64_t *count)
{
    if (line.size == 2 && line.at[0] == '-' && line.at[1] == '1') {
        *count = UINT64_MAX;
        return true;
    }
    return line.size != 0 && read_decimal(line.at, line.size, 9, count) == line.size;
}

/* One value without what it contains; `more` is how many values follow as its content. */
static inline frame_t skip_one(const char *data, size_t size, size_t *at, uint64_t *more)
{
    char type = data[*at];
    slice_t line;
    uint64_t count;
    frame_t found;

    *more = 0;
    if (type == '\0' || strchr("+-:,#(_$!=*~>%", type) == NULL) {
        return FRAME_OTHER;
    }
    *at += 1;
    found = read_line(data, size, at, &line);
    if (found != FRAME_WHOLE || strchr("+-:,#(_", type) != NULL) {
        return found;
    }
    if (!read_count(line, &count)) {
        return FRAME_OTHER;
    }
    if (count == UINT64_MAX) {
        return FRAME_WHOLE;
    }
    if (strchr("*~>%", type) != NULL) {
        *more = type == '%' ? 2 * count : count;
        return FRAME_WHOLE;
    }
    if (size - *at < count) {
        return FRAME_PARTIAL;
    }
    *at += (size_t)count;
    return expect(data, size, at, "\r\n", 2);
}

/* Where the value that the data begins with ends. FRAME_OTHER: not RESP, or a form of it that servers do not send. */
static inline frame_t frame_skip(const char *data, size_t size, size_t *used)
{
    uint64_t left = 1;
    uint64_t more;
    size_t at = 0;

    while (left > 0) {
        frame_t found;
        if (at == size) {
            return FRAME_PARTIAL;
        }
        found = skip_one(data, size, &at, &more);
        if (found != FRAME_WHOLE) {
            return found;
        }
        left += more - 1;
        if (left > UINT32_MAX) {
            return FRAME_OTHER;
        }
    }
    *used = at;
    return FRAME_WHOLE;
}

/* -- messages ----------------------------------------------------------------------------------------------------- */

/* Is this the next message of the chain, one of these operations? If so, what it says. */
static inline bool message_next(slice_t payload, const chain_t *chain, const char *operations, message_t *message)
{
    const char *at = payload.at;
    size_t left = payload.size;
    uint64_t seq;
    size_t digits;

    if (left > MESSAGE_MOST || left < 2 + ID_DIGITS + 1 || at[0] == '\0' || strchr(operations, at[0]) == NULL ||
        at[1] != ' ' || memcmp(at + 2, chain->epoch, ID_DIGITS) != 0 || at[2 + ID_DIGITS] != ' ') {
        return false;
    }
    message->operation = at[0];
    at += 2 + ID_DIGITS + 1;
    left -= 2 + ID_DIGITS + 1;
    digits = read_decimal(at, left, 19, &seq);
    if (digits == 0 || seq != chain->seq + 1) {
        return false;
    }
    at += digits;
    left -= digits;
    if (left < 2 * (1 + ID_DIGITS) + 1 || at[0] != ' ' || memcmp(at + 1, chain->wid, ID_DIGITS) != 0 ||
        at[1 + ID_DIGITS] != ' ' || !read_id(at + 2 + ID_DIGITS, &message->wid) || at[2 + 2 * ID_DIGITS] != '\n') {
        return false;
    }
    message->keys = (slice_t){at + 3 + 2 * ID_DIGITS, left - (3 + 2 * ID_DIGITS)};
    return true;
}

/* The id of what a message is about, wherever in the chain it stands: the last word of its first line. */
static inline bool message_id(slice_t payload, uint64_t *wid)
{
    const char *end = payload.size > 0 ? memchr(payload.at, '\n', payload.size) : NULL;

    return end != NULL && (size_t)(end - payload.at) > ID_DIGITS && end[-(ptrdiff_t)ID_DIGITS - 1] == ' ' &&
           read_id(end - ID_DIGITS, wid);
}

static inline void chain_follow(chain_t *chain, const message_t *message)
{
    chain->seq++;
    write_id(chain->wid, message->wid);
}

/* Take one key off the front. 1: there it is; 0: there is none left; -1: that is no list of keys. */
static inline int key_next(slice_t *rest, slice_t *key)
{
    uint64_t length;
    size_t digits;

    if (rest->size == 0) {
        return 0;
    }
    digits = read_decimal(rest->at, rest->size, 6, &length);
    if (digits == 0 || digits == rest->size || rest->at[digits] != ':' || rest->size - digits - 1 < length) {
        return -1;
    }
    *key = (slice_t){rest->at + digits + 1, (size_t)length};
    rest->at += digits + 1 + length;
    rest->size -= digits + 1 + (size_t)length;
    return 1;
}

/* The number of an encoded key of tag `i`, if it is written as it must be and fits. */
static inline bool key_number(slice_t key, int64_t *number)
{
    bool negative = key.size > 1 && key.at[1] == '-';
    size_t sign = negative ? 2 : 1;
    uint64_t magnitude;

    if (key.size <= sign ||
        read_decimal(key.at + sign, key.size - sign, 18, &magnitude) != key.size - sign || (negative && magnitude == 0)) {
        return false;
    }
    *number = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return true;
}

#endif
