/* Tests of echoes.h: the messages about own writes are told from all others. */

#include <string.h>

#include "check.h"

#include "nearcache/echoes.h"

static echoes_t echoes;

/* A message about a write, as a server sends it. */
static size_t push(char *at, uint64_t wid)
{
    static const char form[] = ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$59\r\nS 000000000000000e 42 00000000000000ab ";
    size_t size = sizeof form - 1;

    memcpy(at, form, size);
    write_id(at + size, wid);
    memcpy(at + size + ID_DIGITS, "\n1:a\r\n", 6);
    return size + ID_DIGITS + 6;
}

static void test_the_last_writes_are_known(void)
{
    echoes = (echoes_t){0};
    CHECK(!echoes_has(&echoes, 0) && !echoes_has(&echoes, 1));
    for (uint64_t wid = 1; wid <= ECHOES; wid++) {
        echoes_expect(&echoes, wid);
    }
    for (uint64_t wid = 1; wid <= ECHOES; wid++) {
        CHECK(echoes_has(&echoes, wid));
    }
    echoes_expect(&echoes, ECHOES + 1);
    CHECK(!echoes_has(&echoes, 1) && echoes_has(&echoes, 2) && echoes_has(&echoes, ECHOES + 1));
}

/* Each of them has to be an echo, and whole: what is anybody else's must not wait. */
static void test_echoes_are_alone_only_if_nothing_else_has_come(void)
{
    char data[512];
    size_t one = push(data, 5);
    size_t two = one + push(data + one, 6);

    echoes = (echoes_t){0};
    echoes_expect(&echoes, 5);
    CHECK(echoes_alone(&echoes, data, 0) && echoes_alone(&echoes, data, one) && !echoes_alone(&echoes, data, two));
    CHECK(!echoes_alone(&echoes, data + one, two - one));
    echoes_expect(&echoes, 6);
    CHECK(echoes_alone(&echoes, data, two));
    for (size_t size = one + 1; size < two; size++) {
        CHECK(!echoes_alone(&echoes, data, size));
    }
    push(data + one, 0); /* of no write */
    CHECK(!echoes_alone(&echoes, data, two));
    memcpy(data, ":1\r\n", 4);
    CHECK(!echoes_alone(&echoes, data, 4));
}

int main(void)
{
    test_the_last_writes_are_known();
    test_echoes_are_alone_only_if_nothing_else_has_come();
    return check_done("test_echoes");
}
