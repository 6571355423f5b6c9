#!/bin/sh
# Run the thread tests of the compiled modules under ThreadSanitizer, on a free-threaded Python that was built under it
# too. Called by `make tsan`, which has built the sdist. Fails if a test does, or if a data race involves the compiled
# modules; races between parts of Python alone are counted and no more.
set -eu
cd "$(dirname "$0")/.."
python=$(.ci/freethreaded.sh tsan)
builder=$(.ci/freethreaded.sh)
packages=.venv-tsan
reports=build/tsan
sdist=$(ls dist/nearcache-*.tar.gz)

compiler=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC"))')

# Built and installed by the other Python, whose binaries fit: pip and Cython under ThreadSanitizer take ten times as
# long.
wanted=$(cksum "$sdist")
if [ "$(cat $packages/.installed 2>/dev/null)" != "$wanted" ]; then
    rm -rf $packages
    "$builder" -m venv $packages/builder
    CC=$compiler NEARCACHE_SANITIZE=thread $packages/builder/bin/pip wheel -q --no-deps -w $packages/wheels "$sdist"
    $packages/builder/bin/pip install -q --target $packages/site --prefer-binary \
        "$(ls $packages/wheels/nearcache-*.whl)" pytest hypothesis
    echo "$wanted" >$packages/.installed
fi

rm -rf $reports
mkdir -p $reports
# The races within Python that its developers know of, as they list them themselves, and one that was mended after this
# release: two threads that intern the same string, as those do that raise their first error from compiled code
# (python/cpython#129701, #113956). There is none for anything of ours.
suppressions=$PWD/$reports/suppressions
{ cat .freethreaded/source/Tools/tsan/suppressions_free_threading.txt; echo; echo race:intern_common; } >"$suppressions"
# Reports name files and lines only if the symbolizer is told of, and is there (Debian: apt-get install llvm-19).
symbolizer=$($compiler -print-prog-name=llvm-symbolizer)
export TSAN_OPTIONS="suppressions=$suppressions:log_path=$PWD/$reports/report:exitcode=0:history_size=4"
if [ -x "$symbolizer" ]; then TSAN_OPTIONS="$TSAN_OPTIONS:external_symbolizer_path=$symbolizer"; fi
export PYTHON_GIL=0 PYTHONPATH="$PWD/$packages/site"

# ThreadSanitizer needs addresses that newer kernels randomise too far.
status=0
setarch "$(uname -m)" -R "$python" -m pytest -q -p no:cacheprovider \
    -o faulthandler_timeout=900 tests/stress/test_store_freethreaded.py tests/stress/test_store_threads.py \
    tests/stress/test_wire_threads.py "$@" || status=$?

# Whatever else a report says, it names the module of each frame; the directory's name says nothing.
modules=$(find "$packages/site/nearcache" -name '_*.so' -exec basename {} \; | sed 's/\..*//' | paste -sd '|' -)
ours=0 others=0
for report in "$reports"/report.*; do
    if [ ! -e "$report" ]; then continue; fi
    ours=$((ours + $(awk -v ours="[(]($modules)[.]" 'BEGIN { RS = "==================" } /WARNING/ && $0 ~ ours' ORS='\n' "$report" | grep -c WARNING || true)))
    others=$((others + $(grep -c WARNING "$report" || true)))
done
echo "== $ours data races of the compiled modules, $((others - ours)) of Python alone ($reports)"
[ "$status" = 0 ] && [ "$ours" = 0 ]
