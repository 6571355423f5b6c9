"""The demo's traces: the three formats, and what is not one."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from demo import traces
from demo.traces import TraceError, TraceReplay


def write_words(path: Path, letter: str, *numbers: int) -> Path:
    """Write little-endian numbers, compressed."""
    path.write_bytes(lzma.compress(struct.pack(f"<{len(numbers)}{letter}", *numbers)))
    return path


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    """A trace of 64-bit keys, one of them above what a signed integer holds."""
    return write_words(tmp_path / "small.keys.u64.xz", "Q", 7, 2**64 - 1, 7, 9, 7)


def test_read_keys_are_the_sources_integers(keyed: Path) -> None:
    """Keys keep their value; the sequence says which was asked for when."""
    trace = traces.read(str(keyed))
    assert (trace.name, trace.keys, trace.sequence) == ("small", [7, 2**64 - 1, 9], [0, 1, 0, 2, 0])
    assert trace.whole


def test_read_ranges_are_expanded(tmp_path: Path) -> None:
    """A row of a start and a count asks for each key of the range."""
    write_words(tmp_path / "r.start.u64.xz", "Q", 10, 5)
    write_words(tmp_path / "r.count.u32.xz", "I", 3, 1)
    trace = traces.read(str(tmp_path / "r"))
    assert [trace.keys[number] for number in trace.sequence] == [10, 11, 12, 5]


def test_read_text_takes_the_url(tmp_path: Path) -> None:
    """The third column of a web log is the key, as a string."""
    path = tmp_path / "log.tsv.xz"
    path.write_bytes(lzma.compress("1\tGET\t/ä\t200\t5\t0\n2\tGET\t/b\t200\t5\t1\n3\tGET\t/ä\t200\t5\t0\n".encode()))
    trace = traces.read(str(path))
    assert (trace.keys, trace.sequence) == (["/ä", "/b"], [0, 1, 0])


@pytest.mark.parametrize("given", ["small", "small.keys.u64.xz"])
def test_read_takes_a_stem_or_a_file(keyed: Path, given: str) -> None:
    """A trace is named by any of its files or by their common stem."""
    assert traces.read(str(keyed.parent / given)).name == "small"


@pytest.mark.parametrize(("most", "count", "whole"), [(3, 3, False), (5, 5, True)])
def test_read_stops_at_the_limit_and_says_so(keyed: Path, most: int, count: int, whole: bool) -> None:
    """Of a long trace the beginning is read, and the trace knows that it is not whole."""
    trace = traces.read(str(keyed), most)
    assert (len(trace.sequence), trace.whole) == (count, whole)


def test_read_ranges_stop_at_the_limit(tmp_path: Path) -> None:
    """One long range does not become a long list."""
    write_words(tmp_path / "r.start.u64.xz", "Q", 1, 100)
    write_words(tmp_path / "r.count.u32.xz", "I", 4_000_000_000, 3)
    trace = traces.read(str(tmp_path / "r"), 10)
    assert (trace.keys, trace.whole) == (list(range(1, 11)), False)


def test_read_what_is_not_there_says_what_to_give(tmp_path: Path) -> None:
    """A missing trace names what was asked for and the formats."""
    with pytest.raises(TraceError, match=r"no trace .*nothing.*\.keys\.u64\.xz"):
        traces.read(str(tmp_path / "nothing"))


@pytest.mark.parametrize("content", [b"not xz", lzma.compress(b"12345"), lzma.compress(b"")])
def test_read_damaged_or_empty_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    """A file that is no trace is refused by name."""
    path = tmp_path / "bad.keys.u64.xz"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=r"bad\.keys"):
        traces.read(str(path))


def test_replay_splits_the_requests_over_the_workers(keyed: Path) -> None:
    """Every request is served by one worker, in turn; nobody is without work."""
    replay = TraceReplay(traces.read(str(keyed)), load_ms=0)
    assert [replay.requests(worker, 2) for worker in range(2)] == [[0, 0, 0], [1, 2]]
    assert all(replay.requests(worker, 64) for worker in range(64))
    assert replay.popular()[0] == 0
