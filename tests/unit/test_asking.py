"""One request and its replies on a socket pair: what goes as usual, and what is left to others."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache import _store
from nearcache._asking import Line, has_error, is_readable
from nearcache._packing import pack
from nearcache.errors import ServerReplyError, ShardError
from nearcache.l2.scripts import Script, load

REPLIES: list[tuple[bytes, Any]] = [
    (b":0\r\n", 0),
    (b":-2\r\n", -2),
    (b":9223372036854775\r\n", 9_223_372_036_854_775),
    (b"+OK\r\n", b"OK"),
    (b"+\r\n", b""),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$5\r\na\r\nbc\r\n", b"a\r\nbc"),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n$2\r\nab\r\n*2\r\n$-1\r\n+x\r\n", [1, b"ab", [None, b"x"]]),
    (b"$20000\r\n" + b"v" * 20_000 + b"\r\n", b"v" * 20_000),
]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def ask(ours: socket.socket, count: int, seconds: float = 5.0) -> tuple[bool, list[Any], Line]:
    line, values = Line(), []
    return line.ask(ours.fileno(), b"?", count, seconds, values), values, line


def test_ask_gives_the_replies_that_hiredis_gives(ends: tuple[socket.socket, socket.socket]) -> None:
    """All kinds of RESP2, one behind the other."""
    ours, theirs = ends
    data = b"".join(reply for reply, _ in REPLIES)
    theirs.sendall(data)
    usual, values, line = ask(ours, len(REPLIES))
    reader = hiredis.Reader()
    reader.feed(data)
    assert usual
    assert values == [value for _, value in REPLIES] == [reader.gets() for _ in REPLIES]
    assert (line.sent, line.heard, line.ended) == (1, True, False)
    assert theirs.recv(10) == b"?"


@pytest.mark.parametrize(("reply", "value"), REPLIES)
def test_ask_of_a_reply_that_is_cut_keeps_every_byte_for_others(reply: bytes, value: Any) -> None:
    """Wherever it is cut: what is there, and the rest of it later, are the reply."""
    for cut in [*range(min(len(reply), 40)), *range(max(40, len(reply) - 5), len(reply))]:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(reply[:cut])
            usual, values, line = ask(ours, 1, seconds=0.0)
            reader = hiredis.Reader()
            reader.feed(line.rest() + reply[cut:])
            assert not usual
            assert values == []
            assert line.heard == (cut > 0)
            assert reader.gets() == value


def test_ask_leaves_an_error_and_what_follows_to_others(ends: tuple[socket.socket, socket.socket]) -> None:
    """Also within a list: it is handed out from its beginning."""
    ours, theirs = ends
    for reply in (b"-NOSCRIPT no\r\n:2\r\n", b"*2\r\n:7\r\n-ERR x\r\n"):
        theirs.sendall(b":1\r\n" + reply)
        usual, values, line = ask(ours, 3, seconds=0.0)
        assert (usual, values, line.rest()) == (False, [1], reply)


UNKNOWN = [b"%1\r\n", b"$x\r\n", b"$-7\r\n", b":\r\n", b"$1\r\nabc", b"+" + b"x" * 100, b":1\rx", b"+OK\n:1\r\n"]


@pytest.mark.parametrize("reply", UNKNOWN)
def test_ask_leaves_what_it_does_not_know_to_others(reply: bytes, ends: tuple[socket.socket, socket.socket]) -> None:
    """Another protocol, or none."""
    ours, theirs = ends
    theirs.sendall(reply)
    usual, values, line = ask(ours, 1)
    assert (usual, values, line.rest()) == (False, [], reply)


def test_ask_with_more_replies_than_were_asked_for_is_not_usual(ends: tuple[socket.socket, socket.socket]) -> None:
    """The connection is out of step."""
    ours, theirs = ends
    theirs.sendall(b":1\r\n:2\r\n")
    usual, values, line = ask(ours, 1)
    assert (usual, values, line.rest()) == (False, [1], b":2\r\n")


def test_ask_tells_of_the_end_of_the_stream(ends: tuple[socket.socket, socket.socket]) -> None:
    """In front of a reply, and in a large one."""
    ours, theirs = ends
    theirs.sendall(b"$20000\r\nabc")
    theirs.shutdown(socket.SHUT_WR)
    usual, _, line = ask(ours, 1)
    assert (usual, line.ended, line.rest()) == (False, True, b"$20000\r\nabc")
    theirs.close()
    with pytest.raises(OSError, match="pipe"):
        ask(ours, 1)


def test_ask_that_cannot_send_all_says_how_much_it_could(ends: tuple[socket.socket, socket.socket]) -> None:
    """Nobody reads at the other end."""
    ours, _ = ends
    line = Line()
    assert not line.ask(ours.fileno(), b"x" * 10_000_000, 1, 5.0, [])
    assert 0 < line.sent < 10_000_000
    assert not line.ask(ours.fileno(), b"x" * 10_000_000, 1, 5.0, [])
    assert line.sent == 0


def test_ask_reads_more_replies_than_fit_at_a_time(ends: tuple[socket.socket, socket.socket]) -> None:
    """Of lists too, and a list that is too large for it is left to others whole."""
    ours, theirs = ends
    one = b"*2\r\n$3000\r\n" + b"y" * 3000 + b"\r\n:5\r\n"
    theirs.sendall(one * 20)
    usual, values, _ = ask(ours, 20)
    assert usual
    assert values == [[b"y" * 3000, 5]] * 20
    large = b"*2\r\n$30000\r\n" + b"z" * 30_000 + b"\r\n:5\r\n"
    theirs.sendall(large)
    usual, values, line = ask(ours, 1)
    assert (usual, values) == (False, [])
    assert large.startswith(line.rest())


SAID = st.recursive(
    st.none()
    | st.integers(-(2**40), 2**40)
    | st.binary(max_size=40)
    | st.integers(9_000, 9_100).map(lambda size: b"v" * size),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def spoken(value: Any) -> bytes:
    """A reply, in the protocol."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n%b" % (len(value), b"".join(map(spoken, value)))


def by_hiredis(data: bytes) -> list[Any]:
    """What a stream says, up to where it is no protocol any more, or ends."""
    nothing, said = object(), list[Any]()
    reader = hiredis.Reader(notEnoughData=nothing, replyError=str)
    reader.feed(data)
    try:
        while (value := reader.gets()) is not nothing:
            said.append(value)
    except hiredis.ProtocolError:
        said.append(hiredis.ProtocolError)
    return said


@given(st.lists(SAID, min_size=1, max_size=4), st.integers(0, 2**32), st.binary(max_size=1), st.integers(0, 40))
def test_ask_any_bytes_are_read_as_hiredis_reads_them(said: list[Any], place: int, other: bytes, cut: int) -> None:
    """Damaged or cut, too: what is not understood is handed out, and means what it meant."""
    data = b"".join(map(spoken, said))
    if other:
        place %= len(data)
        data = data[:place] + other + data[place + 1 :]
    data = data[: len(data) - cut]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        usual, values, line = ask(ours, len(said))
        if usual:
            assert values == by_hiredis(data)
        else:
            unread = line.rest()
            while more := ours.recv(65_536):
                unread += more
            assert values + by_hiredis(unread) == by_hiredis(data)


def test_is_readable_sees_bytes_and_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """Whatever it is, an idle connection is of no use with it."""
    ours, theirs = ends
    assert not is_readable(ours.fileno())
    theirs.sendall(b"x")
    assert is_readable(ours.fileno())
    ours.recv(1)
    theirs.close()
    assert is_readable(ours.fileno())


def test_pack_writes_what_hiredis_writes() -> None:
    """Bytes, texts, numbers, and what is none of them; scripts by their hash."""
    commands: list[tuple[Any, ...]] = [
        (b"GET", b"k" * 9),
        (b"GET", b"k" * 10),
        ("SET", "\u00e9", b"v" * 100_000, "PX", 3_600_000),
        ("A", 0, -1, 2**70, b""),
        ("F", 1.5, b"x"),
    ]
    assert pack(commands, Script, hiredis.pack_command) == b"".join(map(hiredis.pack_command, commands))
    script = load("set")
    called = hiredis.pack_command((b"EVALSHA", script.sha, 1, b"k", b"a"))
    assert pack([(script, 1, b"k", b"a")], Script, hiredis.pack_command) == called
    with_float = hiredis.pack_command((b"EVALSHA", script.sha, 1, 1.5))
    assert pack([(script, 1, 1.5)], Script, hiredis.pack_command) == with_float
    with pytest.raises(TypeError):
        pack([(b"SET", object())], Script, hiredis.pack_command)
    for empty in ((), None):
        with pytest.raises(ValueError, match="an empty command"):
            pack([(b"GET", b"k"), empty], Script, hiredis.pack_command)


def test_has_error_looks_at_each_reply() -> None:
    """Of the class that is asked for."""
    error = ServerReplyError("a", "ERR x")
    assert not has_error([b"x", 1, None, [error]], ShardError)
    assert has_error([b"x", error], ShardError)
    assert not has_error([error], KeyError)


TAKES_AND_FREES = """
import ctypes, resource, sys
from nearcache._asking import keep_freed

keep_freed(int(sys.argv[1]))
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]

def turn():
    blocks = [libc.malloc(100_000) for _ in range(50)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    while blocks:
        libc.free(blocks.pop())
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

before = turn()
print(turn() - before)
"""


def test_keep_freed_lets_memory_be_used_again_unless_the_user_has_set_otherwise() -> None:
    """Fifty blocks, freed and taken again: the kernel gives no page of them a second time."""
    if platform.libc_ver()[0] != "glibc" or hasattr(_store, "_fail_allocation_after"):
        return  # another C library, or AddressSanitizer's memory: nothing is promised

    def faults(**setting: str) -> int:
        run = [sys.executable, "-c", TAKES_AND_FREES, str(4 * 2**20)]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        return int(subprocess.run(run, env=kept | setting, capture_output=True, check=True).stdout)

    assert faults() < 100
    assert faults(MALLOC_TRIM_THRESHOLD_="131072") > 1000
