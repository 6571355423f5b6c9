#!/bin/sh
# Fuzz the headers of the C core, the decoders in Python, and the compiled parsers, with libFuzzer, AddressSanitizer and
# UBSan: FUZZ_SECONDS (60) for each target, or for those that are named as arguments. What it finds interesting stays in
# build/fuzz/, where the next run takes it up; an input that breaks something is kept there too, and its name is printed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
clang=${CLANG:-clang}
if ! command -v "$clang" >/dev/null; then
    echo "make: fuzzing needs clang with libFuzzer: apt-get install clang libclang-rt-14-dev (or CLANG=...)" >&2
    exit 1
fi
build=$root/build/fuzz
mkdir -p "$build"

# The decoders in Python are fuzzed by atheris, which brings its own libFuzzer.
fuzz_python() {
    if ! "${PYTHON:-python3}" -c 'import atheris, nearcache, msgspec, lz4, zstandard, cryptography' 2>/dev/null; then
        echo "== $1: left out, for ${PYTHON:-python3} lacks nearcache, atheris (extra fuzz), or what the extra test brings"
        return
    fi
    echo "== $1: ${FUZZ_SECONDS:-60} s, corpus of $(find "$corpus" -type f | wc -l)"
    PYTHONPATH=$root/tests "${PYTHON:-python3}" "$root/tests/support/decoders.py" "$1" -seed=1 -max_len=2048 -timeout=10 \
        -verbosity=0 -max_total_time="${FUZZ_SECONDS:-60}" -artifact_prefix="$build/broken_$1_" "$corpus"
}

for target in ${*:-core scan frames envelopes envelope values message replies answers heard}; do
    corpus=$build/corpus_$target
    mkdir -p "$corpus"
    case $target in envelope | values | message | replies | answers | heard)
        fuzz_python "$target"
        continue
        ;;
    esac
    if ! "$clang" -std=c11 -D_GNU_SOURCE -g -O1 -Wall -Wextra -Wconversion -Wshadow -Werror -fno-strict-aliasing \
        -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
        -DNEARCACHE_MAPPED=0 -DSHRINK_CAPACITY=16u -I "$root/ext/include" "$here/fuzz_$target.c" -o "$build/$target" -ldl
    then
        echo "make: clang cannot build for libFuzzer here: apt-get install libclang-rt-14-dev (of clang's version)" >&2
        exit 1
    fi
    echo "== $target: ${FUZZ_SECONDS:-60} s, corpus of $(find "$corpus" -type f | wc -l)"
    "$build/$target" -seed=1 -max_len=2048 -len_control=20 -timeout=10 -print_final_stats=1 -verbosity=0 \
        -max_total_time="${FUZZ_SECONDS:-60}" -artifact_prefix="$build/broken_${target}_" "$corpus"
done
