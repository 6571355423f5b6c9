"""Histories: what every thread of every process did, as fixed records in files.

A record says what was asked, of which key, with which value, when the call began and when it had returned (the
monotonic clock, which all processes of a machine share), and how it ended. A write is recorded twice: once *before*
the call, straight to the file, so that a process killed in the middle leaves the question behind; and once after it.
Reads are recorded after the call, through a buffer: what a killed process loses of them is not judged, and nothing
else.

Every value is unique: it names the process and the thread that made it, and a count. Zero means "no value".
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import numpy as np

# What was done.
GET: Final = 1  # cache.get(key)
ITEM: Final = 2  # cache[key], which may call the loader
MANY: Final = 3  # one key of get_many
FINAL: Final = 4  # a read after the faults, when nothing is written any more
SET: Final = 5
INVALIDATE: Final = 6
CLEAR: Final = 7  # of the whole namespace
LOAD: Final = 8  # the loader was called: it reads its source when it begins
HEALTH: Final = 9  # key: shard; value: 1 vouched for, 0 dark; from when
STALL: Final = 10  # the process did not run, though it wanted to: from, to
TAG: Final = 11  # invalidate_tag
BEHIND: Final = 12  # a change of a cache that writes behind
FLUSH: Final = 13  # flush() of such a cache
ROW: Final = 14  # its writer was called and has written this: from, to
LETTER: Final = 15  # a dead letter, as it was found after the faults

READS: Final = (GET, ITEM, MANY, FINAL)
WRITES: Final = (SET, INVALIDATE, CLEAR, TAG)
NAMES: Final = {
    GET: "get", ITEM: "[]", MANY: "get_many", FINAL: "final read", SET: "set", INVALIDATE: "invalidate",
    CLEAR: "clear", LOAD: "load", HEALTH: "health", STALL: "stall",
    TAG: "invalidate_tag", BEHIND: "set, to be written", FLUSH: "flush", ROW: "row written", LETTER: "dead letter",
}  # fmt: skip

# How it ended. Jepsen's words: fail is "certainly not done", info is "nobody knows".
INVOKED: Final = 0
OK: Final = 1
FAIL: Final = 2
INFO: Final = 3
ENDINGS: Final = {INVOKED: "invoked", OK: "ok", FAIL: "fail", INFO: "info"}

# Who answered a read.
UNKNOWN: Final = 0
L1: Final = 1
BELOW: Final = 2

#: Key of a record that concerns all keys.
ALL_KEYS: Final = 0xFFFF_FFFF
#: From here on, below that: keys of records that concern all keys with a tag.
_TAGGED: Final = 0xFFFF_FF00

RECORD: Final = np.dtype(
    [
        ("op", "u1"), ("end", "u1"), ("tier", "u1"), ("thread", "u1"), ("key", "<u4"), ("process", "<u4"),
        ("ttl_ms", "<u4"), ("value", "<u8"), ("from_ns", "<i8"), ("to_ns", "<i8"),
    ]
)  # fmt: skip
_PACK: Final = struct.Struct("<BBBBIIIQqq").pack
_FULL: Final = 1 << 15
_ROWS: Final = "written.rows"
_COUNT_BITS: Final = 36


def tagged(tag: int) -> int:
    """Return the key of a record that concerns all keys with this tag."""
    return _TAGGED + tag


def is_wide(keys: np.ndarray) -> np.ndarray:
    """Whether records concern many keys."""
    return keys >= _TAGGED


def value_id(process: int, thread: int, count: int) -> int:
    """Return the id of a value that nobody else makes."""
    return (process << 8 | thread) << _COUNT_BITS | count


def maker(value: int) -> int:
    """Return the process that made a value."""
    return value >> (_COUNT_BITS + 8)


def payload(value: int, key: int, size: int) -> bytes:
    """Return a value as it is stored: its id, its key, and so many bytes more that follow from the id."""
    return value.to_bytes(8, "big") + key.to_bytes(4, "big") + bytes([value & 0xFF]) * size


def read_payload(data: object, key: int) -> int | None:
    """Return the id in a stored value; None if it is damaged or another key's."""
    if not isinstance(data, bytes) or len(data) < 12 or int.from_bytes(data[8:12], "big") != key:
        return None
    if data.count(data[7], 12) != len(data) - 12:
        return None
    return int.from_bytes(data[:8], "big")


class Recorder:
    """Writes the history of one thread.

    Args:
        directory: Where histories go.
        process: Number of the process.
        thread: Number of the thread in it.
    """

    def __init__(self, directory: Path, process: int, thread: int) -> None:
        self.process = process
        self.thread = thread
        self._count = 0
        self._buffer = bytearray()
        path = directory / f"{process}.{thread}.history"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def new_value(self) -> int:
        """Return a fresh id."""
        self._count += 1
        return value_id(self.process, self.thread, self._count)

    def begin(self, op: int, key: int, value: int, at_ns: int, ttl_ms: int = 0) -> None:
        """Record that something is about to be done. It is in the file when this returns."""
        self._buffer += _PACK(op, INVOKED, UNKNOWN, self.thread, key, self.process, ttl_ms, value, at_ns, 0)
        self.flush()

    def done(self, op: int, end: int, tier: int, key: int, value: int, from_ns: int, to_ns: int) -> None:
        """Record how something ended."""
        self._buffer += _PACK(op, end, tier, self.thread, key, self.process, 0, value, from_ns, to_ns)
        if len(self._buffer) > _FULL:
            self.flush()

    def flush(self) -> None:
        """Pass on what is buffered; what the kernel has, a kill cannot take away."""
        os.write(self._file, self._buffer)
        self._buffer.clear()

    def close(self) -> None:
        """Write the rest."""
        self.flush()
        os.close(self._file)


class Rows:
    """What stands behind a cache that writes: a file, common to all processes, whose order is that of the writing.

    Args:
        directory: Where it lies.
        process: Number of the process that writes.
    """

    def __init__(self, directory: Path, process: int) -> None:
        self.process = process
        self._file = os.open(directory / _ROWS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, values: dict[int, int], from_ns: int, to_ns: int) -> None:
        """Write values by key, all or none."""
        rows = [_PACK(ROW, OK, UNKNOWN, 0, key, self.process, 0, each, from_ns, to_ns) for key, each in values.items()]
        os.write(self._file, b"".join(rows))


def read_rows(directory: Path) -> np.ndarray:
    """Return what was written behind caches, in the order in which it was."""
    path = directory / _ROWS
    return np.frombuffer(path.read_bytes() if path.exists() else b"", RECORD)


def read_all(directory: Path) -> np.ndarray:
    """Return all records of a directory, in no order. A last record that a kill left unfinished is left out."""
    parts = []
    for path in sorted(directory.glob("*.history")):
        data = path.read_bytes()
        whole = len(data) - len(data) % RECORD.itemsize
        parts.append(np.frombuffer(data[:whole], RECORD))
    return np.concatenate(parts) if parts else np.zeros(0, RECORD)


def tell(record: np.void, origin_ns: int) -> str:
    """Return a record as a line for people; times in seconds since ``origin_ns``."""
    number = int(record["key"])
    key = "all keys" if number == ALL_KEYS else f"key {number}" if number < _TAGGED else f"tag {number - _TAGGED}"
    begun = (int(record["from_ns"]) - origin_ns) / 1e9
    ended = f"{(int(record['to_ns']) - origin_ns) / 1e9:.6f}" if record["to_ns"] else "?"
    tier = {L1: " from L1", BELOW: " from below L1"}.get(int(record["tier"]), "")
    return (
        f"[{begun:.6f}, {ended}] process {int(record['process'])} thread {int(record['thread'])} "
        f"{NAMES[int(record['op'])]} {key} value {int(record['value']):x} {ENDINGS[int(record['end'])]}{tier}"
    )
