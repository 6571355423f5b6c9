#!/bin/sh
# Build a free-threaded CPython 3.13 from Debian's source package into .freethreaded/python, unless it is there, and
# print the path of its program. `freethreaded.sh tsan` builds one under ThreadSanitizer, by clang, into
# .freethreaded/tsan. Called by `make test-freethreaded` and `make tsan`. Two minutes on two idle processors.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-python}
home=$PWD/.freethreaded
python=$home/$kind/bin/python3.13t
if [ -x "$python" ]; then
    echo "$python"
    exit
fi

stop() {
    echo "make: $1" >&2
    echo "make: or give a free-threaded Python that is there: FREETHREADED=/path/to/python3.13t" >&2
    exit 1
}

# apt, with lists and sources of our own: nothing of the system's is changed, and nobody has to be root. Mirrors,
# proxies and the like stay those of the machine, for its configuration is read before these options.
private_apt() {
    apt-get -q -o Dir::Etc::SourceList="$home/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$home/apt/lists" -o Dir::Cache="$home/apt" -o APT::Sandbox::User=root "$@"
}

# The suites that have a python3.13 need not be the machine's own, so its mirrors of Debian are asked for those.
list_sources() {
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    signed=
    if [ -e $keyring ]; then signed="[signed-by=$keyring] "; fi
    # shellcheck disable=SC2016  # apt replaces this, not the shell
    apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' | sort -u |
        while read -r mirror; do
            case $mirror in */debian | */debian/)
                for suite in trixie sid; do echo "deb-src $signed$mirror $suite main"; done ;;
            esac
        done
}

# One suite after the other, until one has the package: the lists of a suite are ten megabytes.
fetch() {
    command -v apt-get >/dev/null || return 1
    mkdir -p "$home/apt/lists/partial" "$home/apt/archives/partial"
    list_sources >"$home/apt/all"
    while read -r line; do
        echo "$line" >"$home/apt/sources.list"
        if private_apt update && private_apt source --download-only --tar-only python3.13; then return; fi
    done <"$home/apt/all"
    return 1
}

unpack() {
    if [ -e "$home/source" ]; then return; fi
    mkdir -p "$home/download"
    if ! ls "$home"/download/*.orig.tar.* >/dev/null 2>&1; then
        (cd "$home/download" && fetch) >"$home/log" 2>&1 </dev/null ||
            stop "apt has no source package python3.13 (see .freethreaded/log; dpkg-dev is needed)"
    fi
    rm -rf "$home/unpacked"
    mkdir "$home/unpacked"
    tar -xf "$home"/download/*.orig.tar.* -C "$home/unpacked" --strip-components=1
    mv "$home/unpacked" "$home/source"
}

# Without these headers Python builds, but can neither speak TLS nor unpack a wheel, so that pip fails later.
check_headers() {
    for header in openssl/ssl.h zlib.h ffi.h; do
        echo "#include <$header>" | ${CC:-cc} -E -o /dev/null -x c - 2>/dev/null ||
            stop "there is no $header: install it (Debian: apt-get install libssl-dev zlib1g-dev libffi-dev)"
    done
}

# The first clang that has ThreadSanitizer. CPython's developers recommend 18 or newer.
sanitizing_compiler() {
    for compiler in clang-21 clang-20 clang-19 clang-18 clang; do
        if echo 'int main(void) { return 0; }' | $compiler -fsanitize=thread -o "$home/probe" -x c - 2>/dev/null; then
            echo "$compiler"
            return
        fi
    done
    return 1
}

# Installed beside its place and then moved there: what lies there is whole. Of CPython's own tests the Python files are of
# use (tests/contract runs some), and two of the modules, without which some tests skip themselves and others find that
# classes live for ever; to compile all that belongs to them takes as long as a third of the rest. Byte code is not made
# beforehand, three times for each file: asked for help, compileall does nothing else.
build() {
    rm -rf "$home/build" "$home/stage"
    mkdir -p "$home/build/Modules"
    {
        echo '*shared*'
        sed -n 's/^@MODULE__TEST\(INTERNAL\)\{0,1\}CAPI_TRUE@//p' "$home/source/Modules/Setup.stdlib.in"
    } >"$home/build/Modules/Setup.local"
    cd "$home/build" &&
        ../source/configure --prefix="$home/$kind" --disable-gil --with-ensurepip=no --disable-test-modules "$@" &&
        make -j "$(nproc)" &&
        make install DESTDIR="$home/stage" COMPILEALL_OPTS=--help &&
        cp -R "$home/source/Lib/test" "$home/stage$home/$kind/lib/python3.13t/" &&
        mv "$home/stage$home/$kind" "$home/$kind"
}

mkdir -p "$home"
unpack
check_headers
case $kind in
    python) set -- ;;
    tsan)
        CC=$(sanitizing_compiler) ||
            stop 'no clang with ThreadSanitizer: install it (Debian: apt-get install clang-19 libclang-rt-19-dev)'
        # What it finds out about the building Python is of no interest, and must not end it.
        export CC TSAN_OPTIONS=report_bugs=0:exitcode=0
        set -- --with-thread-sanitizer
        ;;
    *) stop "freethreaded.sh: python or tsan, not $kind" ;;
esac
echo "make: building a free-threaded Python (.freethreaded/log)" >&2
(build "$@") >"$home/log" 2>&1 </dev/null || stop "the build failed: see .freethreaded/log"
rm -rf "$home/build" "$home/stage"
echo "$python"
