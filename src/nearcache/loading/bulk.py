"""Writing many keys at once: one round trip per shard, all shards in parallel. Steps only: no I/O here.

Each shard gets its share in one batch of commands. Writes go in chunks, because one chunk is one message, one write
id and one uninterrupted piece of work for the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from .._store import Op, Store
from ..codecs import Encoded
from ..errors import (
    BacklogFullError,
    BulkError,
    CacheError,
    ServerReplyError,
    ShardError,
    ShardUnavailableError,
    UnencodableKeyError,
)
from ..freshness import Life, Ttl, ttl_for
from ..l2 import Exchange
from .acking import confirmed
from .aging import Times, judge
from .exchanges import batched
from .replies import FULL, STORED
from .steps import Steps
from .tagging import Tag, depend, generations
from .tier import Tier, new_id
from .versions import GENERATIONS
from .ways import DIRECT, ROOM_FIRST_S, Way, wait_for_room
from .writing import set_commands

#: Limits of a chunk: keys and bytes. A message carries at most 64 KB of keys.
CHUNK_KEYS: Final = 128
CHUNK_BYTES: Final = 1 << 20
_MESSAGE_BYTES: Final = 60_000
_NO_LIFE: Final = Life(0)


@dataclass(slots=True)
class _Chunk:
    """Keys of one shard that are written, or invalidated, together."""

    shard: int
    wid: int = field(default_factory=new_id)
    names: list[Any] = field(default_factory=list)
    encoded: list[bytes] = field(default_factory=list)
    contents: list[Encoded] = field(default_factory=list)
    sealed: list[bytes] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    generation: int = 0
    start_ns: int = 0
    since: int = 0
    tags: tuple[tuple[int, int], ...] = ()
    under: tuple[int, int] | None = None
    ttl_ms: int = 0
    life: Life = _NO_LIFE
    full_since_ns: int = 0
    pause_s: float = ROOM_FIRST_S


@confirmed
def write_many(
    tier: Tier,
    store: Store[Any, Any],
    values: Mapping[Any, Any],
    ttl_ms: Ttl,
    tags: tuple[Tag, ...] = (),
    way: Way = DIRECT,
) -> Steps[None]:
    """Store values in L2, then in L1. ``tags`` are those of all of them.

    Raises:
        UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Before anything is sent.
        BulkError: Some keys are stored and others are not, or perhaps not; it says which.
    """
    items = [
        (name, *tier.place(name), tier.codec.encode_of(name, value), ttl_for(ttl_ms, name, value))
        for name, value in values.items()
    ]
    chunks = list(_chunks(items))
    outcome = _Outcome()
    try:
        for chunk in chunks:
            known, lane = way.known, chunk.shard
            chunk.generation = tier.lanes[lane].generation or 0 if known is None else known.generations[lane]
            _open(tier, store, chunk)
            for name in chunk.names if tier.witness is not None else ():
                tier.writing(chunk.wid, name, values[name])
            chunk.under = depend(tier, store, lane, tags) if known is None else known.under[lane]
            chunk.life = tier.freshness.life(chunk.ttl_ms)
        waiting = yield from _with_tags(tier, store, chunks, tags, outcome, way)
        yield from _write_rounds(tier, store, waiting, values, outcome, way)
    finally:
        _close(tier, store, chunks)
    outcome.raise_if_partial(tier, way)


def _with_tags(
    tier: Tier, store: Store[Any, Any], chunks: list[_Chunk], tags: tuple[Tag, ...], outcome: _Outcome, way: Way
) -> Steps[list[_Chunk]]:
    """Let the chunks state their tags. Returns those to write: none, if a tag's shard does not answer."""
    stated = way.known.stated if way.known is not None else ()
    try:
        if tags and way.known is None:
            stated = yield from generations(tier, store, tags)
    except ShardError as error:
        tier.count(errors=1)
        for chunk in chunks:
            outcome.fail(chunk, error, sent=False)
        return []
    for chunk in chunks:
        chunk.tags = stated
    return chunks


def _write_rounds(
    tier: Tier,
    store: Store[Any, Any],
    waiting: list[_Chunk],
    values: Mapping[Any, Any] | None,
    outcome: _Outcome,
    way: Way,
) -> Steps[None]:
    attempts = 0
    while waiting and attempts < GENERATIONS:
        waiting = yield from _write_round(tier, store, waiting, values, outcome, way)
        attempts += not any(chunk.full_since_ns for chunk in waiting)
    for chunk in waiting:
        outcome.fail(chunk, tier.outrun(chunk.shard))


def _write_round(
    tier: Tier,
    store: Store[Any, Any],
    chunks: list[_Chunk],
    values: Mapping[Any, Any] | None,
    outcome: _Outcome,
    way: Way,
) -> Steps[list[_Chunk]]:
    """Send chunks; with ``values`` None their deletion. Returns those to send again."""
    exchanges = []
    for c in chunks:
        _seal(tier, c)
        commands = set_commands(tier, c.shard, c.encoded, c.sealed, c.wid, c.generation, c.life.ttl_ms, way=way)
        exchanges.append(Exchange(c.shard, commands))
    results = yield from batched(exchanges)
    again = []
    for chunk, (result, identity) in zip(chunks, results, strict=True):
        if isinstance(result, ShardError):
            tier.count(errors=1)
            outcome.fail(chunk, result)
            continue
        try:
            heard = tier.said(chunk.shard, result)
        except ServerReplyError as error:
            tier.count(errors=1)
            outcome.unknown.update(dict.fromkeys(chunk.names, error))
            continue
        if heard.status == STORED:
            tier.acknowledge(chunk.shard, heard.epoch, heard.seq, chunk.encoded, chunk.since)
            outcome.stored.extend(chunk.names)
            _finish(tier, store, chunk, values, heard.held, identity)
            if way.room is not None:
                way.room.wake()
        elif heard.status == FULL and way.room is not None:
            chunk.full_since_ns = chunk.full_since_ns or tier.clock()
            try:
                chunk.pause_s = yield from wait_for_room(
                    tier, chunk.shard, way.room, heard.length, chunk.full_since_ns, chunk.pause_s
                )
                again.append(chunk)
            except BacklogFullError as error:  # nothing was done, so nothing is owed
                outcome.fail(chunk, error)
                for op in chunk.ops:
                    store.l1_abandon(op, drop=True)
                chunk.ops.clear()
        else:
            chunk.generation, chunk.full_since_ns = heard.generation, 0
            again.append(chunk)
    return again


def _finish(
    tier: Tier,
    store: Store[Any, Any],
    chunk: _Chunk,
    values: Mapping[Any, Any] | None,
    held: frozenset[int],
    identity: int,
) -> None:
    """A chunk is in L2, but for the keys that are on hold: let L1 keep it."""
    if values is None:
        tier.count(invalidations=len(chunk.names))
        for op in chunk.ops:
            store.l1_finish(op, None, 0, 0)
        chunk.ops.clear()
        return
    tier.count(writes=len(chunk.names), bytes_written=sum(map(len, chunk.sealed)))
    deadline_ns, _ = judge(tier, chunk.start_ns, chunk.life.ttl_ms, Times(*chunk.life))
    for place, (name, op, sealed) in enumerate(zip(chunk.names, chunk.ops, chunk.sealed, strict=True), 1):
        if place in held:
            store.l1_finish(op, None, 0, 0)
        else:
            tier.sample(name)
            store.l1_finish(op, values[name], chunk.wid, deadline_ns, len(sealed), identity, chunk.under)
    chunk.ops.clear()


@confirmed
def delete_many_behind(tier: Tier, store: Store[Any, Any], names: Iterable[Any], way: Way) -> Steps[None]:
    """Drop every copy of these keys, and queue their deletion.

    Raises:
        BulkError: It is not known to be done for some keys; this process has dropped its copies of all.
    """
    chunks = list(_chunks((name, *tier.place(name), None, 0) for name in dict.fromkeys(names)))
    outcome = _Outcome()
    try:
        for chunk in chunks:
            chunk.generation = tier.lanes[chunk.shard].generation or 0
            chunk.life = Life(1)
            _open(tier, store, chunk)
            for name in chunk.names:
                store.l1_erase(name)
        yield from _write_rounds(tier, store, chunks, None, outcome, way)
    finally:
        _close(tier, store, chunks)
    outcome.raise_if_partial(tier, way)


def _seal(tier: Tier, chunk: _Chunk) -> None:
    chunk.start_ns = tier.clock()
    if not chunk.contents:
        chunk.sealed = [tier.codec.seal_deletion(chunk.wid, key=encoded) for encoded in chunk.encoded]
        return
    chunk.sealed = [
        tier.codec.seal(
            content,
            wid=chunk.wid,
            generation=chunk.generation,
            ttl_ms=chunk.life.ttl_ms,
            key=encoded,
            tags=chunk.tags,
            soft_ttl_ms=chunk.life.soft_ms,
        )
        for encoded, content in zip(chunk.encoded, chunk.contents, strict=True)
    ]


@confirmed
def invalidate_many(
    tier: Tier,
    store: Store[Any, Any],
    names: Iterable[Any],
    *,
    hold: tuple[bytes, bytes] | tuple[()] = (),
    is_end: bool = False,
) -> Steps[int]:
    """Drop every copy of these keys, in every process. Returns how many of them L2 held.

    Args:
        hold: For how many milliseconds to hold them, and the token under which; 0 ms ends such a hold.
        is_end: Whether nothing comes after it under that token. Then it is owed as a whole if it fails, while of a hold
            that begins only the invalidation is.

    Raises:
        BulkError: It is not known to be done for some keys; this process has dropped its copies of all.
    """
    items = [(name, *tier.place(name), None, 0) for name in dict.fromkeys(names)]
    chunks = list(_chunks(items))
    outcome = _Outcome()
    held = 0
    try:
        for chunk in chunks:
            _open(tier, store, chunk)
            for name in chunk.names:
                store.l1_erase(name)
        results = yield from batched([tier.invalidate_exchange(c.shard, c.encoded, c.wid, *hold) for c in chunks])
        for chunk, (result, _) in zip(chunks, results, strict=True):
            if isinstance(result, ShardError):
                tier.count(errors=1)
                outcome.fail(chunk, result)
                continue
            tier.count(invalidations=len(chunk.names))
            counts = tier.acknowledge(chunk.shard, result[3], result[4], chunk.encoded, chunk.since)
            if counts and hold and is_end:
                tier.hold_ended(chunk.shard, chunk.encoded, hold)
            outcome.stored.extend(chunk.names)
            held += int(result[2])
            for op in chunk.ops:
                store.l1_finish(op, None, 0, 0)
            chunk.ops.clear()
    finally:
        _close(tier, store, chunks, hold if is_end else ())
    outcome.raise_if_partial(tier)
    return held


def owe_hold_end(tier: Tier, names: Iterable[Any], token: bytes) -> None:
    """Keys may be on hold under this token, and nobody needs it: let go of them as soon as their shards answer."""
    by_lane: dict[int, list[bytes]] = {}
    for name in names:
        with suppress(UnencodableKeyError):  # of which nothing has been sent
            lane, encoded = tier.place(name)
            by_lane.setdefault(lane, []).append(encoded)
    for lane, keys in by_lane.items():
        tier.owe(lane, keys, (b"0", token))


def _chunks(items: Iterable[tuple[Any, int, bytes, Encoded | None, int]]) -> Iterator[_Chunk]:
    """Deal items out into chunks, a shard's in their order; one chunk has one lifetime."""
    open_chunks: dict[tuple[int, int], tuple[_Chunk, int, int]] = {}
    for name, shard, encoded, content, ttl_ms in items:
        size = len(encoded) + (len(content.payload) if content is not None else 0)
        chunk, total, names_bytes = open_chunks.get((shard, ttl_ms), (_Chunk(shard, ttl_ms=ttl_ms), 0, 0))
        full = len(chunk.names) >= CHUNK_KEYS or total + size > CHUNK_BYTES
        if chunk.names and (full or names_bytes + len(encoded) + 8 > _MESSAGE_BYTES):
            yield chunk
            chunk, total, names_bytes = _Chunk(shard, ttl_ms=ttl_ms), 0, 0
        chunk.names.append(name)
        chunk.encoded.append(encoded)
        if content is not None:
            chunk.contents.append(content)
        open_chunks[shard, ttl_ms] = (chunk, total + size, names_bytes + len(encoded) + 8)
    for chunk, _, _ in open_chunks.values():
        yield chunk


def _open(tier: Tier, store: Store[Any, Any], chunk: _Chunk) -> None:
    chunk.since = tier.serial(chunk.shard)
    for name in chunk.names:
        op = Op(name, chunk.shard, wid=chunk.wid, write=True, announced=True)
        chunk.ops.append(op)
        store.l1_open(op)


def _close(
    tier: Tier, store: Store[Any, Any], chunks: list[_Chunk], hold: tuple[bytes, bytes] | tuple[()] = ()
) -> None:
    """Give up what is not finished: its outcome is unknown, so no L1 copy may stay, and an invalidation is owed.

    ``hold``: the end of a hold that is owed with it.
    """
    for chunk in chunks:
        if chunk.ops:
            tier.owe(chunk.shard, chunk.encoded, hold)
        for op in chunk.ops:
            store.l1_abandon(op, drop=True)


@dataclass(slots=True)
class _Outcome:
    stored: list[Any] = field(default_factory=list)
    failed: dict[Any, Exception] = field(default_factory=dict)
    unknown: dict[Any, Exception] = field(default_factory=dict)

    def fail(self, chunk: _Chunk, error: CacheError, *, sent: bool = True) -> None:
        """Note why a chunk was not acknowledged, and whether the server may have done it all the same."""
        sent = sent and isinstance(error, ShardUnavailableError) and error.sent
        halfway = isinstance(error, ServerReplyError) and error.is_halfway
        (self.unknown if sent or halfway else self.failed).update(dict.fromkeys(chunk.names, error))

    def raise_if_partial(self, tier: Tier, way: Way = DIRECT) -> None:
        errors = [*self.failed.values(), *self.unknown.values()]
        # What is not queued is not written, and that is never forgiven.
        if errors and (way.room is not None or not tier.forgives):
            raise BulkError(self.stored, self.failed, self.unknown)
        for error in dict.fromkeys(errors):  # keys of a chunk share theirs
            tier.refusals.changed(error)
