"""What a cache says of itself: statistics, health, self-test."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from ..coherence.metrics import Histogram
from ..logs import log


class CacheInfo(NamedTuple):
    """The fields of ``functools.lru_cache``'s ``cache_info()``, for L1."""

    hits: int
    misses: int
    maxsize: int | None
    currsize: int


def _ratio(hits: int, misses: int) -> float:
    total = hits + misses
    return hits / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Resharded:
    """What ``reshard()`` has come to.

    Attributes:
        version: Of the list of shards; every process of the namespace uses it, or will with its next heartbeat.
        shards: Their names.
        moved: Which part of all keys has another shard than before this call, 0 to 1.
    """

    version: int
    shards: tuple[str, ...]
    moved: float


@dataclass(frozen=True, slots=True)
class L1Stats:
    """This process's memory.

    Attributes:
        hits, misses: Of ``cache[key]``, ``get`` and their relatives; ``in`` and ``peek`` do not count.
        evictions: Entries that made room.
        expirations: Entries found to be past their deadline.
        suspects: Reads that found an entry which could not be vouched for at that moment.
        invalidated: Entries dropped because of a message.
        too_large: Values that were not kept, because one alone is over ``maxbytes``.
        entries, size_bytes: What is held now; bytes as encoded.
        maxsize, maxbytes: The bounds.
    """

    hits: int
    misses: int
    evictions: int
    expirations: int
    suspects: int
    invalidated: int
    too_large: int
    entries: int
    size_bytes: int
    maxsize: int | None
    maxbytes: int | None

    @property
    def hit_ratio(self) -> float:
        """Hits by requests, 0 to 1."""
        return _ratio(self.hits, self.misses)


@dataclass(frozen=True, slots=True)
class L2Stats:
    """What this process asked of Redis.

    Attributes:
        hits, misses: Of reads that L1 missed.
        stale: Reads answered from an L1 copy that could not be checked, because its shard was out (``stale_if_error``).
        revalidated: Those of the hits for which a header was enough, because L1 still held the value.
        writes: Values stored.
        invalidations: Keys invalidated and namespaces cleared by this process.
        errors: Requests that a shard did not answer, or refused.
        undecodable: Values found, or changes in a queue, that could not be read: damaged, foreign, newer, of another
            schema.
        forged: The same that nobody with a key of this cache wrote there: changed, moved from another key or
            namespace, unprotected, or under a key that this cache does not have.
        fills_refused: Loaded values that were not stored, because the key was invalidated meanwhile.
        fills_too_large: Loaded values that were not stored, because they are over ``max_value``.
        unreplicated: Changes that no replica has confirmed in time (``ack="replica"``).
        bytes_read, bytes_written: Envelopes.
    """

    hits: int
    misses: int
    revalidated: int
    stale: int
    writes: int
    invalidations: int
    errors: int
    undecodable: int
    forged: int
    fills_refused: int
    fills_too_large: int
    unreplicated: int
    bytes_read: int
    bytes_written: int

    @property
    def hit_ratio(self) -> float:
        """Hits by requests, 0 to 1."""
        return _ratio(self.hits, self.misses)


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """The user's loader.

    Attributes:
        loads: Calls.
        errors: Calls that raised.
        running: Calls under way now.
        unchanged: Calls that found the old value unchanged.
        surplus: Keys that a bulk loader returned without having been asked for them.
    """

    loads: int
    errors: int
    running: int
    unchanged: int = 0
    surplus: int = 0


@dataclass(frozen=True, slots=True)
class Durations:
    """Durations that were counted, in milliseconds, good to an eighth; ``None`` while there are none."""

    count: int
    p50_ms: float | None
    p99_ms: float | None
    longest_ms: float | None


@dataclass(frozen=True, slots=True)
class LaneStats:
    """Invalidations of one lane: with client-side shards, of one shard.

    Attributes:
        name: The shard's.
        received: Messages that arrived.
        applied: L1 entries that messages dropped.
        gaps: Times that a message was found to be lost, so that everything of the lane became suspect.
        resyncs: Times that the lane went live: once at the start, and after every disconnection.
        bad_frames: Messages that could not be understood.
        heartbeats: Answered ones.
        forks: Times that the server was found replaced, or set back to an older state.
        horizon_age_s: How long ago this process had provably seen every invalidation; ``None``: not at all.
        dark_s: For how long L1 could not serve the lane, since it first could.
        withheld: Times that L1 stopped serving the lane until its messages had told what this process had observed
            (``consistency="lane"``).
        withheld_s: For how long, altogether. That is not counted as dark.
        owed: Keys whose invalidation has failed so far and will be made up for.
        replayed: Keys invalidated again because a failover had lost their change.
        forgotten: Changed keys that a failover now could not repair any more, for there were too many, or too long
            ones, in a minute.
        heartbeat: From sending a heartbeat to its answer: what an invalidation takes at most to be noticed.
        lag: From the start of a write of this process to hearing its message, of a few writes a second.
        revalidated, dropped, poisoned: As in :class:`CoherenceStats`.
    """

    name: str
    received: int
    applied: int
    gaps: int
    resyncs: int
    bad_frames: int
    heartbeats: int
    forks: int
    horizon_age_s: float | None
    dark_s: float
    owed: int
    replayed: int
    forgotten: int
    heartbeat: Durations
    lag: Durations
    withheld: int = 0
    withheld_s: float = 0.0
    revalidated: int = 0
    dropped: int = 0
    poisoned: int = 0


@dataclass(frozen=True, slots=True)
class CoherenceStats:
    """Invalidations. Without ``lanes``, sums over all of them.

    Attributes:
        received, applied, gaps, resyncs, bad_frames, heartbeats, forks, owed, replayed, withheld: As in
            :class:`LaneStats`.
        hits_withheld: Reads that asked L2 although L1 had the value, because its lane was withheld.
        revalidated: Suspect entries that L2 still held, so that no value had to travel.
        dropped: Suspect entries of which L2 held another write, or none.
        poisoned: Results that L1 did not keep, because something happened to their key, or to the lane, meanwhile.
        checks, mismatches: Of the sampler (``sample_rate=``): comparisons of L1 with L2, and broken promises.
        lanes: Each by itself.
    """

    received: int = 0
    applied: int = 0
    gaps: int = 0
    resyncs: int = 0
    bad_frames: int = 0
    heartbeats: int = 0
    forks: int = 0
    owed: int = 0
    replayed: int = 0
    revalidated: int = 0
    dropped: int = 0
    poisoned: int = 0
    checks: int = 0
    mismatches: int = 0
    withheld: int = 0
    hits_withheld: int = 0
    lanes: tuple[LaneStats, ...] = ()


@dataclass(frozen=True, slots=True)
class WritingStats:
    """Writing behind the cache (``write_delay=``), by this process; zeros without it.

    Attributes:
        written, deleted: Keys whose change the writer has taken.
        batches: How often it was called for something, single tries after a failure not counted.
        coalesced: Changes that a later one of the same key has overtaken.
        retried: Tries of single changes that failed and are or were repeated.
        errors: Calls that raised.
        dead: Changes that became dead letters.
        backlog: Changes that waited when this process last asked, whoever is to write them.
        owned: Queues that it is this process's task to write, now; each has one owner.
        last_error: The newest trouble of the writer or the queues, or an empty text.
    """

    written: int = 0
    deleted: int = 0
    batches: int = 0
    coalesced: int = 0
    retried: int = 0
    errors: int = 0
    dead: int = 0
    backlog: int = 0
    owned: int = 0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """Everything a cache has counted, by tier."""

    l1: L1Stats
    l2: L2Stats
    loader: LoaderStats
    coherence: CoherenceStats
    writing: WritingStats = WritingStats()

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """The same as plain dictionaries, for logs and exporters."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """One shard as this process sees it.

    Attributes:
        name, address: Which one.
        lane: ``live`` (invalidations arrive and heartbeats prove it), ``sync`` or ``down``.
        vouched: Whether L1 serves its keys at this moment.
        horizon_age_s: How long ago this process had provably seen every invalidation; ``None``: not at all.
        breaker: ``closed`` (in use), ``open`` (resting after failures) or ``half-open`` (one probe under way).
        last_error: The newest trouble while it is not ``ok``; else an empty text.
        refused: Why no more connections can be made (a changed password, ``maxclients``, an expired certificate, no
            descriptors), while those that there are serve; else an empty text.
    """

    name: str
    address: str
    lane: str
    vouched: bool
    horizon_age_s: float | None
    breaker: str
    last_error: str
    refused: str = ""

    @property
    def ok(self) -> bool:
        """Reachable, by new connections too, and vouched for."""
        return self.vouched and self.breaker == "closed" and not self.refused


@dataclass(frozen=True, slots=True)
class Health:
    """All shards. ``memory://`` has none, and is well until it is closed.

    Attributes:
        writing: As in :class:`Stats`: ``backlog`` and ``last_error`` tell whether writing behind the cache keeps up. A
            writer that fails does not make a process unwell: the others would fail as well, and its reads are good.
        closed: Whether the cache is.
    """

    shards: tuple[ShardHealth, ...] = field(default=())
    writing: WritingStats = WritingStats()
    closed: bool = False

    @property
    def ok(self) -> bool:
        """Whether every shard is, and the cache is not closed."""
        return not self.closed and all(shard.ok for shard in self.shards)


@dataclass(frozen=True, slots=True)
class ShardTest:
    """What the self-test found on one shard.

    Attributes:
        name: Which one; in a cluster which lane, and the node that has it.
        ok: Whether the message came back.
        lag_ms: From sending the invalidation to seeing it; ``None`` if it was not seen.
        problem: What is wrong and what to look at, or an empty text.
    """

    name: str
    ok: bool
    lag_ms: float | None
    problem: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The self-test of all shards."""

    shards: tuple[ShardTest, ...] = field(default=())

    @property
    def ok(self) -> bool:
        """Whether invalidations arrive on every shard."""
        return all(shard.ok for shard in self.shards)

    def __str__(self) -> str:
        lines = [
            f"shard {s.name}: " + (f"ok, {s.lag_ms:.2f} ms" if s.ok and s.lag_ms is not None else s.problem)
            for s in self.shards
        ]
        return "\n".join(lines) or "no shards: nothing to test"


def l1_stats(counters: dict[str, int], maxsize: int | None, maxbytes: int | None) -> L1Stats:
    """Read the store's counters."""
    return L1Stats(
        hits=counters["hits"],
        misses=counters["misses"],
        evictions=counters["evictions"],
        expirations=counters["expirations"],
        suspects=counters["suspects"],
        invalidated=counters["invalidated"],
        too_large=counters["too_large"],
        entries=counters["entries"],
        size_bytes=counters["bytes"],
        maxsize=maxsize,
        maxbytes=maxbytes,
    )


def log_too_large(cache: Any, key: object, size: int) -> None:
    """Log that a value alone is over ``maxbytes``: it is asked for again each time, and nobody would see why."""
    text = "namespace %s: key %.80r: a value of %d bytes is over maxbytes=%s and not kept in memory "
    text += "(from now on only counted: stats().l1.too_large)"
    log(logging.WARNING, text, cache.settings.namespace, key, size, cache.settings.maxbytes)


def l2_stats(counters: dict[str, int]) -> L2Stats:
    """Read the tier's counters."""
    return L2Stats(**{name: counters[name] for name in L2Stats.__slots__})


def loader_stats(counters: dict[str, int], running: int) -> LoaderStats:
    """Read what was counted of loads."""
    return LoaderStats(counters["loads"], counters["load_errors"], running, counters["unchanged"], counters["surplus"])


def durations(counted: Histogram) -> Durations:
    """Read a histogram."""

    def milliseconds(share: float) -> float | None:
        value_ns = counted.quantile_ns(share)
        return None if value_ns is None else value_ns / 1e6

    return Durations(counted.count, milliseconds(0.5), milliseconds(0.99), milliseconds(1.0))


class Sampled(Protocol):
    """What a sampler has counted."""

    checks: int
    mismatches: int


def coherence_stats(counters: dict[str, int], sampler: Sampled | None, lanes: list[LaneStats]) -> CoherenceStats:
    """Add up the lanes."""
    summed = (
        "received", "applied", "gaps", "resyncs", "bad_frames", "heartbeats", "forks", "owed", "replayed", "withheld",
    )  # fmt: skip
    return CoherenceStats(
        **{name: sum(getattr(lane, name) for lane in lanes) for name in summed},
        revalidated=counters["revalidated"],
        dropped=counters["dropped"],
        poisoned=counters["poisoned"],
        hits_withheld=counters["withheld"],
        checks=0 if sampler is None else sampler.checks,
        mismatches=0 if sampler is None else sampler.mismatches,
        lanes=tuple(lanes),
    )
