"""The other workload: a recorded access trace, with a synthetic loader.

Formats: ``NAME.keys.u64.xz`` (one little-endian 64-bit key a request), ``NAME.start.u64.xz`` with
``NAME.count.u32.xz`` (a row asks for start, start + 1 ... start + count - 1), and ``NAME.tsv.xz`` (text; the third
column, a URL, is the key). Keys stay what they are in the source: integers or strings.
"""

from __future__ import annotations

import lzma
import sys
import time
from array import array
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .workload import Key

SUFFIXES: Final = (".keys.u64.xz", ".start.u64.xz", ".count.u32.xz", ".tsv.xz")
MOST_REQUESTS: Final = 1_000_000
URL_COLUMN: Final = 2
BODY_BYTES: Final = 2_000


class TraceError(ValueError):
    """A trace that is not there, or is not in one of the formats."""


@dataclass(frozen=True)
class Trace:
    """A recorded sequence of requests.

    Attributes:
        name: Its stem.
        keys: Distinct keys, in order of their first request.
        sequence: For each request, the number of its key.
        whole: False when the file holds more requests than were read.
    """

    name: str
    keys: list[Key]
    sequence: list[int]
    whole: bool


def stem_of(given: str) -> Path:
    """Return a trace's path without the suffixes of its format."""
    for suffix in SUFFIXES:
        if given.endswith(suffix):
            return Path(given[: -len(suffix)])
    return Path(given)


def find(given: str) -> str:
    """Return the path of the first file of a trace; a stem or any of its files may be given.

    Raises:
        TraceError: There is none.
    """
    stem = stem_of(given)
    for suffix in (".keys.u64.xz", ".start.u64.xz", ".tsv.xz"):
        path = stem.with_name(stem.name + suffix)
        if path.is_file():
            return str(path)
    remedy = "give the path of NAME.keys.u64.xz, NAME.start.u64.xz or NAME.tsv.xz, with or without the suffix"
    raise TraceError(f"there is no trace {given!r}: {remedy}")


def read(given: str, most: int = MOST_REQUESTS) -> Trace:
    """Read a trace, at most so many requests of it.

    Raises:
        TraceError: It is not there, or damaged.
    """
    path = find(given)
    stem = stem_of(path)
    try:
        if path.endswith(".tsv.xz"):
            asked, whole = _urls(path, most)
        elif path.endswith(".start.u64.xz"):
            asked, whole = _ranges(path, f"{stem}.count.u32.xz", most)
        else:
            asked, whole = _keys(path, most)
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError, IndexError, ValueError) as error:
        raise TraceError(f"trace {path!r} cannot be read: {error}") from error
    if not asked:
        raise TraceError(f"trace {path!r} holds no request")
    numbers: dict[Key, int] = {}
    sequence = [numbers.setdefault(key, len(numbers)) for key in asked]
    return Trace(stem.name, list(numbers), sequence, whole)


def _column(path: str, typecode: str, item_bytes: int, most: int) -> array[int]:
    column: array[int] = array(typecode)
    if column.itemsize != item_bytes:
        raise TraceError(f"this Python's array({typecode!r}) has {column.itemsize} bytes, the trace {item_bytes}")
    with lzma.open(path) as file:
        column.frombytes(file.read(most * item_bytes))
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _keys(path: str, most: int) -> tuple[list[Key], bool]:
    column = _column(path, "Q", 8, most + 1)
    return list(column[:most]), len(column) <= most


def _ranges(starts: str, counts: str, most: int) -> tuple[list[Key], bool]:
    asked: list[Key] = []
    for start, count in zip(_column(starts, "Q", 8, most), _column(counts, "I", 4, most), strict=True):
        asked.extend(range(start, start + min(count, most + 1 - len(asked))))
        if len(asked) > most:
            return asked[:most], False
    return asked, True


def _urls(path: str, most: int) -> tuple[list[Key], bool]:
    asked: list[Key] = []
    with lzma.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            if len(asked) == most:
                return asked, False
            asked.append(line.rstrip("\n").split("\t")[URL_COLUMN])
    return asked, True


class TraceReplay:
    """A trace as a workload: requests are dealt out to the workers in turn."""

    def __init__(self, trace: Trace, load_ms: float) -> None:
        self.keys = trace.keys
        self._trace = trace
        self._load_ms = load_ms

    def requests(self, worker: int, workers: int) -> list[int]:
        """Return every ``workers``-th request of the trace, from the ``worker``-th on."""
        share = self._trace.sequence[worker::workers]
        return share or self._trace.sequence

    def popular(self) -> list[int]:
        """Return page numbers, most wanted first."""
        return [page for page, _ in Counter(self._trace.sequence).most_common()]

    def prepare(self) -> None:
        """Nothing: the loader has no state."""

    def body(self, page: int) -> bytes:
        """Return a filling, after the time that a source would take; sleeping stands for waiting on a database."""
        time.sleep(self._load_ms / 1_000)
        return b"." * BODY_BYTES

    def describe(self) -> list[str]:
        """Say what is replayed."""
        count = len(self._trace.sequence)
        extent = f"{count:,} requests" if self._trace.whole else f"its first {count:,} requests"
        return [
            f"trace      {self._trace.name}: {extent} for {len(self.keys):,} different keys, split over the workers",
            f"loader     a stand-in for a database: {self._load_ms:g} ms and {BODY_BYTES:,} bytes a key",
        ]
