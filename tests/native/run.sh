#!/bin/sh
# Build the native tests of the C core with both sanitizers and every warning an error, and run them. Needs no Python.
# SANITIZE= (empty) leaves the sanitizers out, for compilers that come without them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
sanitize=${SANITIZE--fsanitize=address,undefined -fno-sanitize-recover=undefined}
"${CC:-cc}" -std=c11 -D_GNU_SOURCE -g -O1 -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Werror \
    -fno-strict-aliasing -fno-omit-frame-pointer $sanitize \
    -I "$root/ext/include" "$here/test_core.c" -o "$build/test_core" ${LDLIBS:--ldl}
"$build/test_core"
