"""Which shard has a key: slot -> shard, by what the shards are called; and what lanes are called.

A key's slot is Redis Cluster's (``keys.slot_of``). Names count, not addresses, so a replacement host that is given the
old name keeps its place, and the order in which shards are listed decides nothing. There are four strategies:

``rendezvous``
    For each slot every shard has a score, and the highest wins. So a shard that joins takes its share of the slots,
    from all others alike, and one that leaves gives its own to the rest; nothing else moves. (Thaler and Ravishankar,
    "Using name-based mappings to increase hit rates", 1998.) A shard of weight w takes part under w names, so that one
    more weight moves nothing but what it gains.
``ring``
    Each shard has 160 points, times its weight, on a ring, and a slot belongs to the next one. As little moves, and it
    is less balanced. (Karger et al., "Consistent hashing and random trees", 1997.)
``modulo``
    The slot's remainder. As balanced as can be; nearly everything moves when a shard joins or leaves.
``round_robin``
    The slots are dealt out in turn, to a shard of weight w so many at a time. The same, with weights.

``docs/wire.md`` gives the formulas and test vectors.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

from ._placement import SLOTS as _SLOTS
from ._placement import fnv1a64, points, rendezvous, tag_number
from .errors import ConfigError

#: Number of slots.
SLOTS: Final[int] = _SLOTS
#: Points of a shard of weight 1 on a ring.
POINTS: Final = 160
#: Most that a shard may weigh.
HEAVIEST: Final = 100
#: Lanes of a namespace in Redis Cluster, fixed for ever: a key's lane is its slot modulo this.
CLUSTER_LANES: Final = 64


class Placement:
    """The table for one list of shards. Immutable.

    Attributes:
        names: The shards' names; their positions are the shard numbers.
        weights: Their weights, in the same order.
        strategy: One of :data:`STRATEGIES`.
        table: 16,384 bytes: the shard number of each slot.
        version: 64-bit fingerprint of names, weights and strategy: equal for lists that place every key on the same
            name.
    """

    __slots__ = ("names", "strategy", "table", "version", "weights")

    def __init__(
        self, names: Sequence[str], *, weights: Sequence[int] | None = None, strategy: str = "rendezvous"
    ) -> None:
        """Compute the table; about 20 us per shard and weight.

        Args:
            weights: A whole number from 1 to 100 for each name; None: 1 for each.

        Raises:
            ConfigError: There is no name, more than 255, or one twice; a weight is out of range, or the strategy has
                none.
        """
        self.names = tuple(names)
        self.weights = (1,) * len(self.names) if weights is None else tuple(weights)
        self.strategy = strategy
        encoded = [name.encode("utf-8", "surrogatepass") for name in self.names]
        if not 1 <= len(encoded) <= 255:
            raise ConfigError("shard_names", self.names, "give 1 to 255 shards")
        if len(set(map(fnv1a64, encoded))) != len(encoded):
            raise ConfigError("shard_names", self.names, "give every shard a name of its own")
        check_weights(self.weights, len(self.names), strategy)
        self.table = STRATEGIES[strategy](encoded, self.weights)
        shards = sorted(zip(encoded, self.weights, strict=True))
        text = b"".join(b"%d:%s" % (len(name), name) for name, _ in shards)
        if strategy != "rendezvous" or set(self.weights) != {1}:
            text += b"".join(b"/%d" % weight for _, weight in shards) + b"/" + strategy.encode()
        self.version = fnv1a64(text)

    def __repr__(self) -> str:
        return f"Placement({list(self.names)!r})"

    def shard_of(self, slot: int) -> int:
        """Return the number of the shard that has a slot (0 to 16,383)."""
        return self.table[slot]

    def slots_of(self, shard: int) -> int:
        """Return how many slots a shard has."""
        return self.table.count(shard)


def check_weights(weights: Sequence[int], count: int, strategy: str) -> None:
    """Check that there is a weight for each shard, and that the strategy heeds them.

    Raises:
        ConfigError: Not so.
    """
    if strategy not in STRATEGIES:
        raise ConfigError("placement", strategy, f"give one of {', '.join(map(repr, STRATEGIES))}")
    if len(weights) != count:
        raise ConfigError("shard_weights", tuple(weights), f"give one weight for each of the {count} shards")
    if not all(1 <= weight <= HEAVIEST for weight in weights):
        raise ConfigError("shard_weights", tuple(weights), f"give whole numbers from 1 to {HEAVIEST}")
    if strategy == "modulo" and set(weights) != {1}:
        raise ConfigError("shard_weights", tuple(weights), 'placement="modulo" has none; "round_robin" has')


def _seeds(encoded: Sequence[bytes], weights: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the name hashes that the shards take part under, and the shard's number for each."""
    seeds, owners = [], []
    for number, (name, weight) in enumerate(zip(encoded, weights, strict=True)):
        for copy in range(weight):
            seeds.append(fnv1a64(name + b"\0%d" % copy if copy else name))
            owners.append(number)
    return seeds, owners


def _rendezvous(encoded: Sequence[bytes], weights: Sequence[int]) -> bytes:
    return rendezvous(*_seeds(encoded, weights))


def _ring(encoded: Sequence[bytes], weights: Sequence[int]) -> bytes:
    seeds, owners = _seeds(encoded, weights)
    ring = sorted((point, owner) for seed, owner in zip(seeds, owners, strict=True) for point in points(seed, POINTS))
    places = [point for point, _ in ring]
    return bytes(ring[bisect_left(places, place) % len(ring)][1] for place in points(0, SLOTS))


def _dealt(encoded: Sequence[bytes], weights: Sequence[int]) -> bytes:
    order = sorted(range(len(encoded)), key=lambda number: encoded[number])
    turn = [number for number in order for _ in range(weights[number])]
    return bytes(turn[slot % len(turn)] for slot in range(SLOTS))


#: How slots are given to shards, by name: from the names' bytes and the weights to the table.
STRATEGIES: Final[dict[str, Callable[[Sequence[bytes], Sequence[int]], bytes]]] = {
    "rendezvous": _rendezvous,
    "ring": _ring,
    "modulo": _dealt,
    "round_robin": _dealt,
}


class ClusterPlacement:
    """The table of a namespace in Redis Cluster: which lane has a slot. Immutable.

    All keys of a lane have the lane's hash tag, so they lie in the lane's own slot, whichever theirs would be.

    Attributes:
        names: What the lanes are called in messages to people; their positions are the lanes' numbers.
        table: 16,384 bytes: the number of the lane of each slot.
    """

    __slots__ = ("names", "table")

    def __init__(self) -> None:
        self.names = tuple(f"lane {lane}" for lane in range(CLUSTER_LANES))
        self.table = bytes(slot % CLUSTER_LANES for slot in range(SLOTS))


def slot_of_lane(lane: int) -> int:
    """Return the slot of Redis Cluster in which a lane lies: the lanes are spread evenly."""
    return lane * (SLOTS // CLUSTER_LANES)


@functools.lru_cache(maxsize=64)
def cluster_prefixes(namespace: str) -> tuple[bytes, ...]:
    """Return what the names of each lane of a namespace begin with in Redis Cluster: see :func:`lane_prefix`.

    Behind the lane's number stands the least number that puts the hash tag in the lane's slot. A few milliseconds.
    """
    stems = [f"{namespace}:{lane}-".encode() for lane in range(CLUSTER_LANES)]
    return tuple(b"nc:{%s%d}:" % (stem, tag_number(stem, slot_of_lane(lane))) for lane, stem in enumerate(stems))


class LaneNames:
    """What the keys and the channel of one lane are called in Redis. Immutable.

    Attributes:
        prefix: What all of them begin with.
        lane_key: The lane record.
        channel: The pub/sub channel.
        value_prefix, lease_prefix: What the names of values and of leases begin with; the encoded key follows.
        lock_prefix: What the names of locks begin with; likewise.
        queue, owner, dead: What is to be written behind the cache, whose task that is now, and what could not be.
    """

    __slots__ = (
        "channel",
        "dead",
        "lane_key",
        "lease_prefix",
        "lock_prefix",
        "owner",
        "prefix",
        "queue",
        "value_prefix",
    )

    def __init__(self, prefix: bytes) -> None:
        self.prefix = prefix
        self.lane_key = prefix + b"L"
        self.channel = prefix + b"i"
        self.value_prefix = prefix + b"v:"
        self.lease_prefix = prefix + b"l:"
        self.lock_prefix = prefix + b"x:"
        self.queue = prefix + b"w"
        self.owner = prefix + b"o"
        self.dead = prefix + b"d"

    def value(self, encoded: bytes) -> bytes:
        """Name of a value."""
        return self.value_prefix + encoded

    def lease(self, encoded: bytes) -> bytes:
        """Name of the lease or hold on a key."""
        return self.lease_prefix + encoded

    def lock(self, encoded: bytes) -> bytes:
        """Name of the lock on the data behind a key."""
        return self.lock_prefix + encoded


def lane_prefix(namespace: str, lane: int = 0, db: int = 0) -> bytes:
    """Return what the names of all keys and the channel of a lane begin with.

    ``L`` (lane record), ``i`` (channel), ``v:`` and ``l:`` (values and leases) are appended to it. The number of a
    database other than 0 is part of it, because channels, unlike keys, are common to all databases of a server: two
    lanes that shared one would each see the other's messages as gaps in its own.
    """
    return f"nc:{{{namespace}:{lane}@{db}}}:".encode() if db else f"nc:{{{namespace}:{lane}}}:".encode()


def names_of_lanes(namespace: str, lanes: int, db: int, *, clustered: bool) -> list[LaneNames]:
    """Return what belongs to each lane in Redis."""
    if clustered:
        return [LaneNames(prefix) for prefix in cluster_prefixes(namespace)]
    # One lane per shard, each on a server of its own, so that all may have the same names.
    return [LaneNames(lane_prefix(namespace, 0, db))] * lanes
