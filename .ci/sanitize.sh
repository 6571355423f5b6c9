#!/bin/sh
# Build the compiled modules with AddressSanitizer and UBSan, with the store's own assertions on, in an environment
# of their own, and run under them the native C tests, the unit and stress tests, and those integration tests that drive
# what asks, hears and reads many keys, with connections that break at every byte. Called by `make sanitize`, which
# passes in PYTHON and has built the sdist.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-sanitize
sdist=$(ls dist/nearcache-*.tar.gz)

asan=$(${CC:-cc} -print-file-name=libasan.so)
case $asan in
    /*) ;;
    *) echo "make: the compiler has no AddressSanitizer (no libasan.so): install gcc's" >&2; exit 1 ;;
esac

# AddressSanitizer has to see every allocation: PYTHONMALLOC=malloc takes Python's own allocator away. Leaks are not
# looked for, since Python never frees all it has when it ends; the tests count references instead.
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=0:allocator_may_return_null=1
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1

if [ -x tests/native/run.sh ]; then
    tests/native/run.sh
fi

if [ ! -e $venv/.installed ] || [ "$sdist" -nt $venv/.installed ]; then
    rm -rf $venv
    "$PYTHON" -m venv $venv
    NEARCACHE_SANITIZE=1 $venv/bin/pip wheel -q --no-deps -w $venv/wheels "$sdist"
    $venv/bin/pip install -q "$(ls $venv/wheels/nearcache-*.whl)[test,test-values]"
    touch $venv/.installed
fi

paths=
for path in tests/unit tests/stress tests/integration/test_coherence.py tests/integration/test_bulk_loaders.py \
    tests/integration/test_faults_bytes.py tests/integration/test_l2_driver.py; do
    if [ -e $path ]; then paths="$paths $path"; fi
done
# AddressSanitizer keeps freed memory for a while, so that no process's memory stays flat under it.
flat=tests/stress/test_store_memory.py::test_memory_over_ten_million_operations_stays_flat
NEARCACHE_REDIS_SERVER=$("$PYTHON" .ci/redis_server.py)
export NEARCACHE_REDIS_SERVER
# A report is the last thing that a process prints: pytest must not keep what is written to the descriptor.
# shellcheck disable=SC2086  # the paths are words
LD_PRELOAD=$asan PYTHONMALLOC=malloc $venv/bin/pytest -q -p no:cacheprovider --capture=sys -o faulthandler_timeout=900 \
    --deselect=$flat $paths "$@"
