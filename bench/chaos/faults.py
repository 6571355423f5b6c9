"""Which faults there are, and when they come: a schedule that follows from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

SINGLE: Final = "single"
SHARDS: Final = "shards"
SENTINEL: Final = "sentinel"
CLUSTER: Final = "cluster"
TOPOLOGIES: Final = (SINGLE, SHARDS, SENTINEL, CLUSTER)

WORKERS: Final = "workers"
SERVERS: Final = "servers"
NETWORK: Final = "network"
TRACKS: Final = (WORKERS, SERVERS, NETWORK)

_SHORTEST_S: Final = 0.1
_LONGEST_S: Final = 30.0


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        name: In the report.
        track: What it strikes; faults of one track never overlap.
        text: What is done, for people.
        most_s: Longest that it lasts; 0: it is an instant.
        topologies: Where it exists.
    """

    name: str
    track: str
    text: str
    most_s: float = 0.0
    topologies: tuple[str, ...] = TOPOLOGIES


_PLAIN: Final = (SINGLE, SHARDS)

KINDS: Final = (
    Kind("worker killed", WORKERS, "kill -9 of a worker, started again", 3.0),
    Kind("worker stopped", WORKERS, "SIGSTOP of a worker, then SIGCONT", _LONGEST_S),
    Kind("fork storm", WORKERS, "a worker forks six children that use its cache", 0.0),
    Kind("shards changed", WORKERS, "reshard() by a worker, or two at once, to one shard more or less", 0.0, (SHARDS,)),
    Kind("server stopped", SERVERS, "SIGSTOP of a server, then SIGCONT", _LONGEST_S),
    Kind("server emptied", SERVERS, "kill -9 of a server, started again with nothing", 3.0, _PLAIN),
    Kind("server rolled back", SERVERS, "kill -9 of a server, started again with an older snapshot", 3.0, _PLAIN),
    Kind("server restarted", SERVERS, "SAVE and kill -9 of a server, started again at once", 0.0, _PLAIN),
    Kind("server busy", SERVERS, "DEBUG SLEEP", 5.0),
    Kind("flush", SERVERS, "FLUSHALL", 0.0, _PLAIN),
    Kind("eviction", SERVERS, "CONFIG SET maxmemory below what is used, allkeys-random", 3.0, _PLAIN),
    Kind("no memory", SERVERS, "CONFIG SET maxmemory 1, noeviction: writes are refused", 3.0),
    Kind("lazy expiry", SERVERS, "DEBUG SET-ACTIVE-EXPIRE 0", 3.0),
    Kind("lane record lost", SERVERS, "DEL of the lane's record", 0.0, _PLAIN),
    Kind("scripts lost", SERVERS, "SCRIPT FLUSH", 0.0),
    Kind("data killed", SERVERS, "CLIENT KILL TYPE normal", 0.0),
    Kind("subscribers killed", SERVERS, "CLIENT KILL TYPE pubsub", 0.0),
    Kind("buffer overflow", SERVERS, "subscribers that do not read, and a small output buffer", 3.0, _PLAIN),
    Kind("delay", NETWORK, "every byte is late by the same time", 5.0, _PLAIN),
    Kind("jitter", NETWORK, "every byte is late by another time", 5.0, _PLAIN),
    Kind("bandwidth", NETWORK, "few bytes a second", 5.0, _PLAIN),
    Kind("slow bytes", NETWORK, "a few bytes at a time", 5.0, _PLAIN),
    Kind("connections cut", NETWORK, "all connections end", 0.0, _PLAIN),
    Kind("answers cut", NETWORK, "connections end in the middle of an answer, in order or by a reset", 3.0, _PLAIN),
    Kind("half-open up", NETWORK, "requests go nowhere, then a reset", _LONGEST_S, _PLAIN),
    Kind("half-open down", NETWORK, "answers go nowhere, then a reset", _LONGEST_S, _PLAIN),
    Kind("partition", NETWORK, "nothing passes, then all of it, late", _LONGEST_S, _PLAIN),
    Kind("messages late", NETWORK, "only what is published is late", 5.0, _PLAIN),
    Kind("messages held", NETWORK, "only what is published does not come, then comes late", 5.0, _PLAIN),
    Kind("answers late", NETWORK, "only answers to reads and writes are late", 5.0, _PLAIN),
    Kind("messages lost", NETWORK, "some published messages vanish; all else passes", 5.0, _PLAIN),
    Kind("messages repeated", NETWORK, "some published messages come twice", 5.0, _PLAIN),
    Kind("messages swapped", NETWORK, "some published messages overtake the one before", 5.0, _PLAIN),
    Kind("failover", SERVERS, "SENTINEL FAILOVER, or CLUSTER FAILOVER of a node", 0.0, (SENTINEL, CLUSTER)),
    Kind("primary killed", SERVERS, "kill -9 of a primary, started again later", 10.0, (SENTINEL, CLUSTER)),
    Kind("primary stopped", SERVERS, "SIGSTOP of the primary, then SIGCONT", _LONGEST_S, (SENTINEL,)),
    Kind("primary cut off", SERVERS, "Sentinels and replicas cannot reach the primary; clients can", 15.0, (SENTINEL,)),
    Kind("replica killed", SERVERS, "kill -9 of a replica, started again later", 10.0, (SENTINEL,)),
    Kind("sentinel killed", SERVERS, "kill -9 of a Sentinel, started again later", 10.0, (SENTINEL,)),
    Kind("slots moved", SERVERS, "CLUSTER SETSLOT and MIGRATE of the slots of six lanes, key by key", 0.0, (CLUSTER,)),
)
BY_NAME: Final = {kind.name: kind for kind in KINDS}


@dataclass(frozen=True)
class Fault:
    """One fault to come.

    Attributes:
        number: Its place in the schedule; with the seed it decides the rest of its randomness.
        kind: See :data:`KINDS`.
        at_s: When, after the start.
        for_s: How long.
        target: Number of the server or worker.
        wide: For network faults: whether all workers are concerned, not just one.
    """

    number: int
    kind: Kind
    at_s: float
    for_s: float
    target: int
    wide: bool


def schedule(
    seed: int, length_s: float, topology: str, servers: int, workers: int, rest_s: float, only: Sequence[str] = ()
) -> list[Fault]:
    """Return the faults of a run.

    After a tenth in peace they come one at a time, with rests in between, every kind before any comes again; in the
    last third up to three come at once, one of each track.

    Args:
        seed: Of everything here.
        length_s: How long the run is.
        topology: Which kinds there are.
        servers, workers: How many there are to strike.
        rest_s: Rest after a fault that comes alone.
        only: Names of the kinds to take; none: all.
    """
    choose = random.Random(f"faults/{seed}/{topology}")
    kinds = [kind for kind in KINDS if topology in kind.topologies and (not only or kind.name in only)]
    longest = min(_LONGEST_S, max(1.0, length_s / 15))

    def draw(kind: Kind, at_s: float) -> tuple[Kind, float, float, int, bool]:
        most = min(kind.most_s, longest)
        for_s = math.exp(choose.uniform(math.log(_SHORTEST_S), math.log(most))) if most else 0.0
        target = choose.randrange(workers if kind.track == WORKERS else servers)
        return kind, at_s, for_s, target, choose.random() < 0.5

    def storm(track: str) -> Iterator[tuple[Kind, float, float, int, bool]]:
        mine = [kind for kind in kinds if kind.track == track]
        at_s = length_s * 0.67
        while mine:
            at_s += choose.uniform(0.2, rest_s)
            drawn = draw(choose.choice(mine), at_s)
            at_s += drawn[2]
            if at_s > length_s:
                return
            yield drawn

    drawn, at_s = [], min(5.0, length_s / 10)
    bag: list[Kind] = []
    while kinds:
        bag = bag or choose.sample(kinds, len(kinds))
        one = draw(bag.pop(), at_s)
        at_s += one[2] + rest_s
        if at_s > length_s * 0.67:
            break
        drawn.append(one)
    for track in TRACKS:
        drawn += storm(track)
    drawn.sort(key=lambda each: each[1])
    return [Fault(number, *each) for number, each in enumerate(drawn)]
