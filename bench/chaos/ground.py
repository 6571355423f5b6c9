"""What a history says for certain: when a value may have been in Redis, and from when it can no longer be there.

Nobody sees the instant at which Redis carries out a write; it lies somewhere between the call and its return. So
everything here is a bound that errs on the side of the accused:

    born        a value cannot have been there earlier: its write was called, or its loader ran
    last        its write cannot have been carried out later: it had returned, or somebody had read the value; never,
                for a write of unknown outcome that nobody saw
    dead        from then on it was surely not the newest: another write of the key was called after ``last`` and has
                returned

A value that a loader brought may be stored until the key is written or invalidated, and no longer: that is promised,
so its ``last`` is the instant at which its loader read the source. Whether a fill happened is never known, so a fill
proves nothing about other values.

A server that comes back with older data (*reset*) may bring back any value: each ``last`` before its end moves there.
What empties a shard (*erasure*) is a write of all its keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from . import records as r

NEVER: Final = 1 << 62

Index = dict[int, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Span:
    """A stretch of time on one shard; ``shard`` None: on all."""

    shard: int | None
    from_ns: int
    to_ns: int


def groups(*columns: np.ndarray) -> Iterator[np.ndarray]:
    """Yield, for each combination of values in the columns, the positions that have it, in stable order."""
    if not len(columns[0]):
        return
    order = np.lexsort(columns[::-1])
    changes = np.zeros(len(order), bool)
    for column in columns:
        ordered = column[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    yield from np.split(order, np.flatnonzero(changes))


def index(groups_of: np.ndarray, from_ns: np.ndarray, to_ns: np.ndarray) -> Index:
    """Return, for each group, when its writes were called, in order, and the first return among them and all later."""
    found: Index = {}
    for unordered in groups(groups_of):
        each = unordered[np.argsort(from_ns[unordered], kind="stable")]
        earliest = np.minimum.accumulate(to_ns[each][::-1])[::-1]
        found[int(groups_of[each[0]])] = (from_ns[each], np.append(earliest, NEVER))
    return found


def died(at: Index, groups_of: np.ndarray, last_ns: np.ndarray) -> np.ndarray:
    """Return from when a value that was not written later than ``last_ns`` was surely superseded; NEVER: not surely."""
    found = np.full(len(groups_of), NEVER, np.int64)
    for each in groups(groups_of):
        entry = at.get(int(groups_of[each[0]]))
        if entry is not None:
            called, earliest = entry
            found[each] = earliest[np.searchsorted(called, last_ns[each], "left")]
    return found


class Ground:
    """The certain part of a history.

    Args:
        history: All records.
        shard_of: Shard of each key; below 0: it may be any, so that what happens to a shard excuses it, and supersedes
            nothing.
        resets: When servers may have come back with older data, until everybody has noticed.
        erasures: When shards were emptied; only those that were acknowledged.
        tag_of: Tag of each key; below 0: none. Default: no key has one.

    Attributes:
        reads: Records of reads that returned a value.
        which: For each read, the position of its value in the arrays below; -1: nobody wrote it.
        ids, keys, born, last, ttl_ns, is_load, ends: Of every value.
        proved: Whether a value was surely in Redis at some time.
    """

    def __init__(
        self,
        history: np.ndarray,
        shard_of: np.ndarray,
        resets: Sequence[Span] = (),
        erasures: Sequence[Span] = (),
        tag_of: np.ndarray | None = None,
    ) -> None:
        self.history = history
        self.shard_of = shard_of
        self.tag_of = np.full(len(shard_of), -1) if tag_of is None else tag_of
        self._resets = resets
        self._collect_values()
        self._collect_reads()
        self._collect_writes(erasures)

    def _collect_values(self) -> None:
        history = self.history
        begun = history[(history["end"] == r.INVOKED) & np.isin(history["op"], (r.SET, r.LOAD))]
        begun = begun[np.argsort(begun["value"], kind="stable")]
        self.ids = begun["value"]
        self.keys = begun["key"]
        self.born = begun["from_ns"].copy()
        self.ttl_ns = begun["ttl_ms"].astype(np.int64) * 1_000_000
        self.is_load = begun["op"] == r.LOAD
        self.last = np.where(self.is_load, self.born, NEVER)
        self.ends = np.zeros(len(begun), np.uint8)
        done = history[(history["op"] == r.SET) & (history["end"] != r.INVOKED)]
        at = self.position(done["value"])
        done, at = done[at >= 0], at[at >= 0]
        self.ends[at] = done["end"]
        acknowledged = done["end"] == r.OK
        self.last[at[acknowledged]] = done["to_ns"][acknowledged]

    def position(self, values: np.ndarray) -> np.ndarray:
        """Return where values stand in the arrays; -1 for those that nobody wrote."""
        if not len(self.ids):
            return np.full(len(values), -1)
        at = np.minimum(np.searchsorted(self.ids, values), len(self.ids) - 1)
        return np.where(self.ids[at] == values, at, -1)

    def _collect_reads(self) -> None:
        history = self.history
        reads = history[np.isin(history["op"], r.READS) & (history["end"] == r.OK) & (history["value"] != 0)]
        self.reads = reads[np.argsort(reads["from_ns"], kind="stable")]
        self.which = self.position(self.reads["value"])
        known = self.which >= 0
        at, reads = self.which[known], self.reads[known]
        # Who has read a value that was set knows that it had been written by then.
        is_set = ~self.is_load[at]
        np.minimum.at(self.last, at[is_set], reads["to_ns"][is_set])
        self.proved = ~self.is_load & (self.last < NEVER)
        # The loading call returns its value whether it was stored or not; L1 and other processes have it from Redis.
        makers = reads["value"] >> np.uint64(44)
        self.proved[at[(reads["tier"] == r.L1) | (makers != reads["process"])]] = True

    def _collect_writes(self, erasures: Sequence[Span]) -> None:
        history = self.history
        done = history[np.isin(history["op"], r.WRITES) & (history["end"] == r.OK)]
        single = done[~r.is_wide(done["key"])]
        keys, called, returned = [single["key"]], [single["from_ns"]], [single["to_ns"]]
        process = [single["process"].astype(np.int64)]
        every = np.arange(len(self.shard_of), dtype=np.uint32)
        wide = [
            (each["from_ns"], each["to_ns"], int(each["process"]), every[self.concerns(int(each["key"]))])
            for each in done[r.is_wide(done["key"])]
        ]
        for span in erasures:
            concerned = every if span.shard is None else every[self.shard_of == span.shard]
            wide.append((span.from_ns, span.to_ns, -1, concerned))
        for from_ns, to_ns, who, concerned in wide:
            keys.append(concerned)
            called.append(np.full(len(concerned), from_ns, np.int64))
            returned.append(np.full(len(concerned), to_ns, np.int64))
            process.append(np.full(len(concerned), who, np.int64))
        self.written_keys, self.written_by = np.concatenate(keys), np.concatenate(process)
        self.called, self.returned = np.concatenate(called), np.concatenate(returned)

    def concerns(self, wide: int) -> np.ndarray:
        """Whether a record with the key of many concerns each key."""
        return (self.tag_of >= 0) & (r.tagged(0) + self.tag_of == wide) | (wide == r.ALL_KEYS)

    def last_at(self, reads: np.ndarray, which: np.ndarray) -> np.ndarray:
        """Return ``last`` of the values of some reads, as it was when they returned: after the resets before."""
        last = self.last[which].copy()
        shards = self.shard_of[reads["key"]]
        for span in self._resets:
            concerned = reads["to_ns"] >= span.from_ns
            if span.shard is not None:
                concerned &= (shards == span.shard) | (shards < 0)
            np.maximum(last, span.to_ns, out=last, where=concerned)
        return last

    def by_anybody(self) -> Index:
        """Return the writes of each key."""
        return index(self.written_keys, self.called, self.returned)

    def by_process(self) -> Index:
        """Return the writes of each key by each process; see :func:`pair`."""
        own = self.written_by >= 0
        return index(pair(self.written_by[own], self.written_keys[own]), self.called[own], self.returned[own])


def pair(process: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return one number for a process and a key."""
    return process.astype(np.int64) << 32 | key.astype(np.int64)
