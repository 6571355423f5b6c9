/* Tests of envelopes.h: what is usual is read as it was written, everything else is refused, nothing beyond the end. */

#include <string.h>

#include "check.h"

#include "nearcache/envelopes.h"

static const char usual[] = "\xC1\0\1\0" /* magic, flags, codec, key id */
                            "\1\2\3\4\5\6\7\10" /* wid */
                            "\0\0\0\0\0\0\0\11" /* generation */
                            "\350\3\0\0" /* 1000 ms */
                            "\0\0\0\0" /* no soft end */
                            "\7\0\0\0" /* cost */
                            "\5\0\0\0" /* schema */
                            "\4\0" /* four bytes, no tags */
                            "sabc";
#define USUAL_SIZE (sizeof usual - 1)

/* Ask about a heap block that ends where the data does, for AddressSanitizer. */
static bool ask(const char *data, size_t size, plain_t *plain)
{
    char *copy = malloc(size != 0 ? size : 1);
    bool found;

    CHECK(copy != NULL);
    memcpy(copy, data, size);
    found = envelope_plain(copy, size, 1, plain);
    free(copy);
    return found;
}

static void test_usual_envelope_is_read(void)
{
    plain_t plain;

    CHECK(ask(usual, USUAL_SIZE, &plain));
    CHECK(plain.wid == 0x0102030405060708u && plain.generation == 9 && plain.ttl_ms == 1000 && plain.schema == 5);
    CHECK(plain.payload == 38);
}

static void test_torn_or_longer_is_refused(void)
{
    char longer[USUAL_SIZE + 1];
    plain_t plain;

    for (size_t size = 0; size < USUAL_SIZE; size++) {
        CHECK(!ask(usual, size, &plain));
    }
    memcpy(longer, usual, USUAL_SIZE);
    longer[USUAL_SIZE] = 0;
    CHECK(!ask(longer, sizeof longer, &plain));
}

static void test_anything_unusual_is_refused(void)
{
    static const size_t fixed[] = {0, 1, 2, 3, 24, 25, 26, 27, 36, 37};
    char other[USUAL_SIZE];
    plain_t plain;

    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(other, usual, USUAL_SIZE);
            other[fixed[i]] = (char)(other[fixed[i]] ^ 1 << bit);
            CHECK(!ask(other, USUAL_SIZE, &plain));
        }
    }
    memcpy(other, usual, USUAL_SIZE);
    memset(other + 4, 0, 8); /* no write has wid 0 */
    CHECK(!ask(other, USUAL_SIZE, &plain));
}

static void test_length_has_its_shortest_form(void)
{
    char long_form[USUAL_SIZE + 1];
    plain_t plain;

    memcpy(long_form, usual, 36);
    memcpy(long_form + 36, "\204\0\0sabc", 7);
    CHECK(!ask(long_form, sizeof long_form, &plain));
    memset(long_form + 36, 0xFF, sizeof long_form - 36);
    CHECK(!ask(long_form, sizeof long_form, &plain));
}

static void test_numbers_have_the_fewest_bytes(void)
{
    int64_t number;

    CHECK(payload_int("\0", 1, &number) && number == 0);
    CHECK(payload_int("\177", 1, &number) && number == 127);
    CHECK(payload_int("\200\0", 2, &number) && number == 128);
    CHECK(payload_int("\377", 1, &number) && number == -1);
    CHECK(!payload_int("\200", 1, &number)); /* -128 has eight bits and a sign */
    CHECK(payload_int("\200\377", 2, &number) && number == -128);
    CHECK(payload_int("\377\377\377\377\377\377\377\177", 8, &number) && number == INT64_MAX);
    CHECK(!payload_int("\0\0\0\0\0\0\0\200", 8, &number)); /* 64 bits and a sign */
    CHECK(!payload_int("\1\0", 2, &number));
    CHECK(!payload_int("", 0, &number));
    CHECK(!payload_int("\0\0\0\0\0\0\0\0\1", 9, &number));
    CHECK(!payload_int("\0\0\0\0\0\0\0\200\0", 9, &number)); /* which has the fewest bytes, but is too large */
}

static void test_beginning_of_an_envelope_is_read_within_what_is_here(void)
{
    plain_t plain = {.wid = 5, .generation = 7, .ttl_ms = 9, .schema = 0};
    plain_t read;
    char head[64];
    size_t first = envelope_head(head, 1, &plain, 0, 100000);

    for (size_t have = 0; have < first; have++) {
        CHECK(!envelope_begins(head, have, first + 100000, 1, &read));
    }
    CHECK(envelope_begins(head, first, first + 100000, 1, &read));
    CHECK(read.payload == first && read.wid == 5 && read.generation == 7 && read.ttl_ms == 9);
    CHECK(!envelope_begins(head, first, first + 99999, 1, &read));
    CHECK(!envelope_begins(head, first, first + 100001, 1, &read));
}

static void test_lengths_on_either_side_of_a_group_of_bits_are_read_as_written(void)
{
    static const size_t lengths[] = {0, 1, 127, 128, 129, 16383, 16384, 16385};
    plain_t plain = {.wid = 5};
    plain_t read;
    char head[64];

    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        size_t first = envelope_head(head, 1, &plain, 0, lengths[i]);
        CHECK(envelope_begins(head, first, first + lengths[i], 1, &read) && read.payload == first);
    }
    CHECK(header_plain(head, ENVELOPE_HEADER, &read) && read.wid == 5 && !header_plain(head, ENVELOPE_HEADER - 1, &read));
}

static void test_ascii_is_told_by_every_byte(void)
{
    char text[70];

    memset(text, 'x', sizeof text);
    for (size_t size = 0; size <= sizeof text; size++) {
        CHECK(is_all_ascii(text, size));
        for (size_t at = 0; at < size; at++) {
            text[at] = (char)0x80;
            CHECK(!is_all_ascii(text, size) && is_all_ascii(text, at));
            text[at] = 'x';
        }
    }
}

static void test_slots_are_those_of_redis_cluster(void)
{
    CHECK(key_slot("", 0) == 0);
    CHECK(key_slot("123456789", 9) == 12739); /* the check value of CRC16/XMODEM */
    CHECK(key_slot("foo", 3) == 12182);
    CHECK(key_slot("bar", 3) == 5061);
}

static void test_counts_are_decimal(void)
{
    char line[24];

    CHECK(write_count(line, '*', 0) == 4 && memcmp(line, "*0\r\n", 4) == 0);
    CHECK(write_count(line, '$', 12345) == 8 && memcmp(line, "$12345\r\n", 8) == 0);
    CHECK(write_count(line, '$', SIZE_MAX) <= sizeof line);
}

int main(void)
{
    test_usual_envelope_is_read();
    test_torn_or_longer_is_refused();
    test_anything_unusual_is_refused();
    test_length_has_its_shortest_form();
    test_numbers_have_the_fewest_bytes();
    test_beginning_of_an_envelope_is_read_within_what_is_here();
    test_lengths_on_either_side_of_a_group_of_bits_are_read_as_written();
    test_ascii_is_told_by_every_byte();
    test_slots_are_those_of_redis_cluster();
    test_counts_are_decimal();
    return check_done("test_envelopes");
}
