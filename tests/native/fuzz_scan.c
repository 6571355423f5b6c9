/* fuzz_scan.c: any bytes at all, given to the pickle verifier, get a verdict, the same each time, and nothing is read past
 * their end. For libFuzzer, built and run by fuzz.sh.
 *
 *     input    [max_depth: 1 byte] [what the pickle is: the rest]
 */

#include "check.h"

#include "nearcache/pickle_scan.h"

/* A copy that ends where the heap block does, so that AddressSanitizer sees the first byte read too many. */
static int scan_copy(const uint8_t *data, size_t size, const scan_rules_t *rules, scan_report_t *report)
{
    uint8_t *copy = malloc(size != 0 ? size : 1);
    int status;

    CHECK(copy != NULL);
    memcpy(copy, data, size);
    status = pickle_scan(copy, size, rules, report);
    free(copy);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t header[2] = {0x80, 5};
    scan_rules_t rules = {"m", 1, "n", 1, 0, 8, 1000, 1 << 20};
    scan_report_t first, second;
    uint8_t program[4096];
    int status;

    if (size < 1 || size > sizeof program - 2) {
        return 0;
    }
    rules.max_depth = data[0];
    (void)scan_copy(data + 1, size - 1, &rules, &first);
    memcpy(program, header, 2); /* and as one that begins as it must */
    memcpy(program + 2, data + 1, size - 1);
    status = scan_copy(program, size + 1, &rules, &first);
    CHECK(status == scan_copy(program, size + 1, &rules, &second));
    CHECK(first.offset == second.offset && first.calls == second.calls && first.opcode == second.opcode);
    CHECK(first.late == second.late);
    CHECK(status >= SCAN_OK && status < SCAN_NO_MEMORY && first.offset <= size + 1);
    CHECK(status != SCAN_OK || program[size] == '.');
    return 0;
}
