"""What the steps of one tiered cache share: names, placement, lanes, codec, counters."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from ..clocks import TICK_NS, Clock, monotonic_ns
from ..codecs import ValueCodec
from ..coherence import Lane, State
from ..flights import Loads
from ..keys import encode_key, slot_of
from ..l2 import Command, Exchange, Script, load_script
from ..placement import LaneNames, Placement, lane_prefix

#: Version of the shard list, as lanes record it. Live changes of the list will count it up.
RING: Final = b"1"
#: How long a load may take and still be stored. A fence excludes nobody, so it can be long.
FENCE_MS: Final = b"60000"
#: An envelope's ttl field that means "longer than the field can say".
ENDLESS_MS: Final = 0xFFFF_FFFF

_MS: Final = 1_000_000


def new_id() -> int:
    """Return a random 64-bit id, never 0. From the kernel: a program may seed Python's generator as it likes."""
    return int.from_bytes(os.urandom(8), "big") or 1


def hex_id(number: int) -> bytes:
    """Return an id as Redis holds it: 16 hexadecimal digits."""
    return b"%016x" % number


@dataclass(slots=True)
class L2Counters:
    """What this process asked of L2 and of the loader since the cache was opened."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    undecodable: int = 0
    revalidated: int = 0
    writes: int = 0
    invalidations: int = 0
    loads: int = 0
    load_errors: int = 0
    fills_refused: int = 0
    bytes_read: int = 0
    bytes_written: int = 0


@dataclass(slots=True)
class Scripts:
    """The Lua scripts, loaded once per cache."""

    set: Script = field(default_factory=lambda: load_script("set"))
    invalidate: Script = field(default_factory=lambda: load_script("invalidate"))
    clear: Script = field(default_factory=lambda: load_script("clear"))
    fence: Script = field(default_factory=lambda: load_script("fence"))
    fill: Script = field(default_factory=lambda: load_script("fill"))


class Tier:
    """The L2 side of one cache, without its I/O.

    Args:
        namespace: Name of the logical cache.
        shard_names: Names of the shards, which placement hashes.
        db: Number of the Redis database.
        codec: Values to envelopes and back.
        ttl_ms: Lifetime that writes get by default.
        l1_ttl_ms: Longest life of an L1 copy.
        bound_ns: The staleness bound B.
        clock: Monotonic nanoseconds.
    """

    def __init__(
        self,
        *,
        namespace: str,
        shard_names: Sequence[str],
        db: int = 0,
        codec: ValueCodec,
        ttl_ms: int = ENDLESS_MS,
        l1_ttl_ms: int = ENDLESS_MS,
        bound_ns: int = 2_000_000_000,
        clock: Clock = monotonic_ns,
    ) -> None:
        # One lane per shard, each on a server of its own, so that all may have the same names.
        self.names = [LaneNames(lane_prefix(namespace, 0, db))] * len(shard_names)
        self.shard_names = tuple(shard_names)
        self.placement = Placement(shard_names)
        self.lanes = [Lane(bound_ns) for _ in shard_names]
        self.codec = codec
        self.ttl_ms = ttl_ms
        self.l1_ttl_ms = l1_ttl_ms
        self.bound_ns = bound_ns
        self.clock = clock
        self.scripts = Scripts()
        self.loads = Loads()
        # Re-entrant: the end of an event loop, which gives up what it had under way, may come with a collection.
        self.lock = threading.RLock()
        self.counters = L2Counters()

    def place(self, key: Any) -> tuple[int, bytes]:
        """Return a key's lane and its encoded form. Raises UnencodableKeyError."""
        encoded = encode_key(key)
        return self.placement.table[slot_of(encoded)], encoded

    def known_generation(self, number: int) -> int | None:
        """The lane's generation, while the lane is followed closely enough to trust it."""
        lane = self.lanes[number]
        return lane.generation if lane.state is State.LIVE else None

    def ask_generation(self, lane: int) -> Command:
        """The command that reads a lane's generation."""
        return (b"HGET", self.names[lane].lane_key, b"g")

    def deadline_ns(self, start_ns: int, pttl_ms: int, whole_ms: int) -> int:
        """Return when an L1 copy must end.

        The remaining lifetime is read *before* the value, without a transaction. In between the key may only expire
        and be silently refilled; then the remainder is the old value's and ``whole_ms``, from the envelope, the new
        one's, and the smaller of the two errs on the safe side. Any other change in between publishes, which
        poisons the read.

        Args:
            start_ns: When the request was sent.
            pttl_ms: Redis' answer: -1 no expiry, -2 there was no key.
            whole_ms: The whole lifetime that the envelope states.
        Returns:
            An instant, with one tick taken off; 0 when the copy must not be kept.
        """
        if pttl_ms == -2:
            return 0
        life_ms = min(whole_ms, self.l1_ttl_ms) if pttl_ms == -1 else min(pttl_ms, whole_ms, self.l1_ttl_ms)
        return start_ns + life_ms * _MS - TICK_NS

    def count(self, **amounts: int) -> None:
        """Add to the counters. ``+=`` on an attribute is not atomic between threads, so it takes the lock."""
        with self.lock:
            for name, amount in amounts.items():
                setattr(self.counters, name, getattr(self.counters, name) + amount)

    def count_write(self, size_bytes: int) -> None:
        """The same for what is counted most often."""
        with self.lock:
            self.counters.writes += 1
            self.counters.bytes_written += size_bytes

    def count_hit(self, size_bytes: int) -> None:
        """The same for what is counted most often."""
        with self.lock:
            self.counters.hits += 1
            self.counters.bytes_read += size_bytes

    def counted(self) -> dict[str, int]:
        """Return a consistent copy of the counters."""
        with self.lock:
            return {f.name: getattr(self.counters, f.name) for f in fields(self.counters)}

    def call(self, script: Script, keys: list[bytes], *arguments: bytes) -> Command:
        """The command that runs a script. Its own arguments begin with a fresh id, and that serves as the nonce too."""
        return (script, len(keys), *keys, RING, arguments[0], *arguments)

    def write_keys(self, lane: int, encoded: Sequence[bytes], staging: Sequence[bytes] = ()) -> list[bytes]:
        """The keys that a script which writes several of a lane's keys declares."""
        names = self.names[lane]
        if len(encoded) == 1 and not staging:
            return [names.value_prefix + encoded[0], names.lease_prefix + encoded[0], names.lane_key]
        return [*map(names.value, encoded), *map(names.lease, encoded), *staging, names.lane_key]

    def invalidate_exchange(self, lane: int, encoded: Sequence[bytes], wid: int) -> Exchange:
        """One message that drops every copy of the keys, wherever it is."""
        return Exchange(lane, [self.call(self.scripts.invalidate, self.write_keys(lane, encoded), hex_id(wid))])

    def after_fork(self) -> None:
        """In the child: no thread of the parent's lives here, so nothing can be waited for."""
        self.lock = threading.RLock()
        self.loads = Loads()
        for lane in self.lanes:
            lane.lost("forked")
