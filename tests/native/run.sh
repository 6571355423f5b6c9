#!/bin/sh
# Build the native tests of the C core with both sanitizers and every warning an error, and run them. Needs no Python.
# SANITIZE= (empty) leaves the sanitizers out, for compilers that come without them.
#
# Each program comes twice: with all memory from the C library, where each allocation can be made to fail and
# AddressSanitizer sees each overflow; and, where the system maps memory, with all but small blocks mapped.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
sanitize=${SANITIZE--fsanitize=address,undefined -fno-sanitize-recover=undefined}

# The short ones run sooner than they are optimised.
optimise=1
[ -n "$sanitize" ] || optimise=0

compile() { # output, source, definitions
    output=$1 source=$2
    shift 2
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -g -O$optimise -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Werror \
        -fno-strict-aliasing -fno-omit-frame-pointer $sanitize "$@" \
        -I "$root/ext/include" "$source" -o "$build/$output" ${LDLIBS:--ldl}
}

for source in "$here"/test_*.c "$here"/fuzz_core.c; do
    name=$(basename "$source" .c)
    [ "$name" != fuzz_core ] || optimise=1
    compile "$name" "$source" -DNEARCACHE_FUZZ_ALONE -DSHRINK_CAPACITY=64u -DNEARCACHE_MAPPED=0
    "$build/$name"
    compile "$name.mapped" "$source" -DNEARCACHE_FUZZ_ALONE -DSHRINK_CAPACITY=64u -DMEMORY_MAPPED=8192u
    "$build/$name.mapped"
done
echo "native tests: all passed"
