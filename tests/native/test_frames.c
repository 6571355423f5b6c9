/* Tests of frames.h: of a stream cut anywhere, whole frames are found and nothing is read past the end. */

#include "check.h"

#include "nearcache/frames.h"

static const char channel_name[] = "nc:{t:0}:i";

/* A heap block that ends where the data does, for AddressSanitizer. */
static char *copy_of(const char *data, size_t size)
{
    char *copy = malloc(size != 0 ? size : 1);

    CHECK(copy != NULL);
    memcpy(copy, data, size);
    return copy;
}

static size_t write_push(char *out, const char *payload, size_t size)
{
    int head = sprintf(out, ">3\r\n$7\r\nmessage\r\n$%zu\r\n%s\r\n$%zu\r\n", sizeof channel_name - 1, channel_name, size);

    memcpy(out + head, payload, size);
    memcpy(out + head + size, "\r\n", 2);
    return (size_t)head + size + 2;
}

static frame_t push_in_copy(const char *data, size_t size, slice_t *payload, size_t *used)
{
    char *copy = copy_of(data, size);
    slice_t channel;
    frame_t found = frame_push(copy, size, &channel, payload, used);

    if (found == FRAME_WHOLE) {
        CHECK(channel.size == sizeof channel_name - 1 && memcmp(channel.at, channel_name, channel.size) == 0);
        payload->at = data + (payload->at - copy);
    }
    free(copy);
    return found;
}

static void test_push_cut_anywhere_is_partial(void)
{
    char data[200];
    size_t size = write_push(data, "a\r\nb", 4);
    slice_t payload;
    size_t used;

    for (size_t cut = 0; cut < size; cut++) {
        CHECK(push_in_copy(data, cut, &payload, &used) == FRAME_PARTIAL);
    }
    memcpy(data + size, ">3\r", 3);
    CHECK(push_in_copy(data, size + 3, &payload, &used) == FRAME_WHOLE);
    CHECK(used == size && payload.size == 4 && memcmp(payload.at, "a\r\nb", 4) == 0);
}

static void test_push_with_another_byte_in_its_frame_is_other(void)
{
    char data[200];
    size_t size = write_push(data, "payload", 7);
    slice_t payload;
    size_t used;

    for (size_t i = 0; i < size; i++) {
        bool is_content = (i >= 22 && i < 32) || (i >= 38 && i < 45);
        bool is_length = (i >= 18 && i < 20) || i == 35;
        char was = data[i];
        if (is_content) {
            continue;
        }
        data[i] = 'x';
        CHECK(frame_push(data, size, &(slice_t){0}, &payload, &used) == FRAME_OTHER);
        data[i] = is_length ? '9' : '\r';
        CHECK(was == data[i] || frame_push(data, size, &(slice_t){0}, &payload, &used) != FRAME_WHOLE);
        data[i] = was;
    }
    CHECK(push_in_copy(data, size, &payload, &used) == FRAME_WHOLE);
    static const char sharded[] = ">3\r\n$8\r\nsmessage\r\n$1\r\nc\r\n$2\r\nok\r\n";
    CHECK(frame_push(sharded, sizeof sharded - 1, &(slice_t){0}, &payload, &used) == FRAME_WHOLE);
    CHECK(used == sizeof sharded - 1 && payload.size == 2 && memcmp(payload.at, "ok", 2) == 0);
    CHECK(frame_push(sharded, 12, &(slice_t){0}, &payload, &used) == FRAME_PARTIAL);
    CHECK(frame_push(">3\r\n$8\r\nsmessagX\r\n$", 20, &(slice_t){0}, &payload, &used) == FRAME_OTHER);
    CHECK(frame_push(">3\r\n$7\r\nmessage\r\n$9999999999", 28, &(slice_t){0}, &payload, &used) == FRAME_OTHER);
    CHECK(frame_push(">3\r\n$7\r\nmessage\r\n$010\r\n", 23, &(slice_t){0}, &payload, &used) == FRAME_OTHER);
}

static void check_skip(const char *text, frame_t expected)
{
    size_t size = strlen(text);
    size_t used = 0;

    for (size_t cut = 0; cut < size; cut++) {
        char *copy = copy_of(text, cut);
        frame_t found = frame_skip(copy, cut, &used);
        CHECK(found == FRAME_PARTIAL || (found == FRAME_OTHER && expected == FRAME_OTHER));
        free(copy);
    }
    CHECK(frame_skip(text, size, &used) == expected);
    CHECK(expected != FRAME_WHOLE || used == size);
}

static void test_skip_finds_the_end_of_any_value(void)
{
    static const char *whole[] = {
        "+OK\r\n", "-ERR no\r\n", ":-12\r\n", ",1.5\r\n", "#t\r\n", "(123456789012345678901\r\n", "_\r\n", "+a\rb\r\n",
        "$3\r\nabc\r\n", "$0\r\n\r\n", "$-1\r\n", "!5\r\nERR x\r\n", "=7\r\ntxt:abc\r\n", "$4\r\n\r\n\r\n\r\n",
        "*0\r\n", "*-1\r\n", "*2\r\n+a\r\n*1\r\n$1\r\nb\r\n", "~1\r\n:1\r\n", ">2\r\n+a\r\n+b\r\n", "%1\r\n+a\r\n_\r\n",
        "*3\r\n*0\r\n%0\r\n$-1\r\n",
    };
    static const char *other[] = {
        "hello\r\n", "\r\n", "$x\r\n", "$-2\r\n", "$1234567890\r\n", "*01\r\n", "$1\r\nabc", "|1\r\n+a\r\n+b\r\n:1\r\n",
        "$?\r\n", "*2\r\n+a\r\nx", "*999999999\r\n%999999999\r\n%999999999\r\n%999999999\r\n", "$\r\n",
    };

    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        check_skip(whole[i], FRAME_WHOLE);
    }
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        check_skip(other[i], FRAME_OTHER);
    }
    CHECK(frame_skip("\0\r\n", 3, &(size_t){0}) == FRAME_OTHER);
}

static bool is_next(const char *text, const chain_t *chain, message_t *message)
{
    size_t size = strlen(text);
    char *copy = copy_of(text, size);
    bool next = message_next((slice_t){copy, size}, chain, "SFI", message);

    if (next) {
        message->keys.at = text + (message->keys.at - copy);
    }
    free(copy);
    return next;
}

static void test_message_is_next_only_to_the_letter(void)
{
    static const char good[] = "S 000000000000000e 42 00000000000000ab 00000000000000ac\n2:sk";
    char text[sizeof good + 1];
    chain_t chain;
    message_t message;

    chain_set(&chain, 0xe, 41, 0xab);
    CHECK(is_next(good, &chain, &message) && message.operation == 'S' && message.wid == 0xac);
    CHECK(message.keys.size == 4 && memcmp(message.keys.at, "2:sk", 4) == 0);
    for (size_t i = 0; i < sizeof good - 1; i++) {
        memcpy(text, good, sizeof good);
        text[i] = 0;
        CHECK(i >= 56 || !is_next(text, &chain, &message)); /* cut */
        for (int c = 1; c < 256; c++) {
            text[i] = (char)c;
            bool fits = c == good[i] || i >= 56 || (i == 0 && (c == 'F' || c == 'I')) ||
                        (i >= 39 && i < 55 && strchr("0123456789abcdef", c) != NULL);
            CHECK(is_next(text, &chain, &message) == fits);
        }
    }
    chain_follow(&chain, &(message_t){'S', 0xac, {NULL, 0}});
    CHECK(!is_next(good, &chain, &message));
    CHECK(is_next("I 000000000000000e 43 00000000000000ac ffffffffffffffff\n", &chain, &message));
    CHECK(message.wid == UINT64_MAX && message.keys.size == 0);
    CHECK(!is_next("I 000000000000000e 043 00000000000000ac ffffffffffffffff\n", &chain, &message));
    chain_set(&chain, 0, 99, 1);
    CHECK(is_next("F 0000000000000000 100 0000000000000001 0000000000000002\n", &chain, &message));
}

static void test_message_that_is_too_long_is_left_to_others(void)
{
    static const char good[] = "S 000000000000000e 42 00000000000000ab 00000000000000ac\n";
    static char text[MESSAGE_MOST + 1];
    chain_t chain;
    message_t message;

    memset(text, '0', sizeof text);
    memcpy(text, good, sizeof good - 1);
    chain_set(&chain, 0xe, 41, 0xab);
    CHECK(message_next((slice_t){text, MESSAGE_MOST}, &chain, "SFI", &message));
    CHECK(!message_next((slice_t){text, MESSAGE_MOST + 1}, &chain, "SFI", &message));
}

static void check_keys(const char *text, int count, int end)
{
    size_t size = strlen(text);
    char *copy = copy_of(text, size);
    slice_t rest = {copy, size};
    slice_t key;
    int found;

    while ((found = key_next(&rest, &key)) == 1) {
        CHECK(key.at >= copy && key.at + key.size <= copy + size && key.at + key.size == rest.at);
        count--;
    }
    CHECK(count == 0 && found == end);
    free(copy);
}

static void test_keys_are_taken_off_the_front(void)
{
    check_keys("", 0, 0);
    check_keys("2:sk", 1, 0);
    check_keys("2:sk0:3:a:b", 3, 0);
    check_keys("2:sk3:ab", 1, -1);
    check_keys("2", 0, -1);
    check_keys(":", 0, -1);
    check_keys("-1:", 0, -1);
    check_keys("02:sk", 0, -1);
    check_keys("1234567:", 0, -1);
}

static void check_number(const char *text, bool is_one, int64_t expected)
{
    size_t size = strlen(text);
    char *copy = copy_of(text, size);
    int64_t number = 0;

    CHECK(key_number((slice_t){copy, size}, &number) == is_one);
    CHECK(!is_one || number == expected);
    free(copy);
}

static void test_number_has_one_form(void)
{
    check_number("i0", true, 0);
    check_number("i7", true, 7);
    check_number("i-12", true, -12);
    check_number("i123456789012345678", true, 123456789012345678);
    check_number("i-123456789012345678", true, -123456789012345678);
    check_number("i1234567890123456789", false, 0); /* it may fit; others will see */
    check_number("i", false, 0);
    check_number("i-", false, 0);
    check_number("i-0", false, 0);
    check_number("i00", false, 0);
    check_number("i07", false, 0);
    check_number("i-07", false, 0);
    check_number("i+7", false, 0);
    check_number("i7 ", false, 0);
}

/* Of a payload that begins behind the first byte of the text, which must make no difference. */
static void check_id(const char *text, bool is_one, uint64_t expected)
{
    uint64_t wid = 0;

    CHECK(message_id((slice_t){text + 1, strlen(text + 1)}, &wid) == is_one);
    CHECK(!is_one || wid == expected);
}

static void test_id_is_the_last_word_of_the_first_line(void)
{
    check_id(" S 000000000000000e 42 00000000000000ab 00000000000000ac\n6:ssku:1", true, 0xac);
    check_id("  00000000000000ab\n", true, 0xab);
    check_id(" 00000000000000ab\n", false, 0);
    check_id(" S 0000000000000ab\n", false, 0);
    check_id(" S-00000000000000ab\n", false, 0);
    check_id(" S 00000000000000AB\n", false, 0);
    check_id(" S 00000000000000ab", false, 0);
    check_id(" \n", false, 0);
    check_id(" ", false, 0);
}

int main(void)
{
    test_push_cut_anywhere_is_partial();
    test_push_with_another_byte_in_its_frame_is_other();
    test_skip_finds_the_end_of_any_value();
    test_message_is_next_only_to_the_letter();
    test_message_that_is_too_long_is_left_to_others();
    test_keys_are_taken_off_the_front();
    test_number_has_one_form();
    test_id_is_the_last_word_of_the_first_line();
    return check_done("test_frames");
}
