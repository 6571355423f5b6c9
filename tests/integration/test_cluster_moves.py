"""A Redis Cluster in motion: slots that move and nodes that are lost, while a cache is in use."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import ShardError
from nearcache.keys import encode_key, slot_of
from nearcache.placement import CLUSTER_LANES, slot_of_lane
from support.cluster import RedisCluster
from support.redis import RedisServer
from support.threads import Background
from support.waiting import wait_until

BOUND = 1.0
#: On a machine that is busy with other things.
PATIENCE = 10.0
LANE = 11
SLOT = slot_of_lane(LANE)
Opener = Callable[..., Cache[Any, Any]]


def keys_of(lane: int, count: int) -> list[str]:
    """Return some keys of a lane."""
    names = (f"key:{number}" for number in range(1_000_000))
    found = (name for name in names if slot_of(encode_key(name)) % CLUSTER_LANES == lane)
    return [next(found) for _ in range(count)]


KEYS = keys_of(LANE, 8)


@pytest.fixture
def open_cache(redis_cluster: RedisCluster, request: pytest.FixtureRequest) -> Iterator[Opener]:
    """Open caches on the cluster, in a namespace of the test's own."""
    opened: list[Cache[Any, Any]] = []

    def opener(**options: Any) -> Cache[Any, Any]:
        name = request.node.name[-64:]
        chosen = {"namespace": name, "max_staleness": BOUND, "timeout": PATIENCE} | options
        opened.append(nearcache.open(redis_cluster.url(), **chosen))
        wait_until(lambda: opened[-1].health().ok, PATIENCE, what="live on all nodes")
        return opened[-1]

    yield opener
    for cache in opened:
        cache.close()


@pytest.fixture
def elsewhere(redis_cluster: RedisCluster) -> Iterator[RedisServer]:
    """A primary that does not have the slot; at the end the slot is put back."""
    home = redis_cluster.owner_of(SLOT)
    yield next(node for node in redis_cluster.primaries() if node is not home)
    if redis_cluster.owner_of(SLOT) is not home:
        redis_cluster.move(SLOT, home)


def lane_of(cache: Cache[Any, Any]) -> Any:
    """Return the statistics of the lane that moves."""
    return cache.stats().coherence.lanes[LANE]


def is_followed(cache: Cache[Any, Any]) -> bool:
    """Whether all lanes are, and by way of the nodes that have them."""
    return cache.health().ok and cache.selftest().ok


class Load:
    """Threads that write rising numbers under some keys through one cache, and read them through another.

    Attributes:
        acknowledged: By key, when which number was in Redis for certain.
        hits: By key, when a read began and what it found, if L1 answered it.
    """

    def __init__(self, writer: Cache[Any, Any], reader: Cache[Any, Any], keys: list[str]) -> None:
        self._writer, self._reader, self._keys = writer, reader, keys
        self.acknowledged: dict[str, list[tuple[float, int]]] = {key: [] for key in keys}
        self.hits: dict[str, list[tuple[float, int]]] = {key: [] for key in keys}
        self.refused = 0
        self._threads = Background(self._write, self._read)
        self._threads.start()

    @property
    def count(self) -> int:
        """How many writes have been acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def go_on(self, more: int = 40) -> None:
        """Wait until so many more writes have been acknowledged."""
        count = self.count
        wait_until(lambda: self.count > count + more, 20, what="writes go on")

    def end(self) -> None:
        """Stop. No thread may have met anything but an error of a shard."""
        self._threads.end()

    def _write(self) -> None:
        number = 0
        while not self._threads.stopping.wait(0.001):
            number += 1
            key = self._keys[number % len(self._keys)]
            try:
                self._writer[key] = number
            except ShardError:
                self.refused += 1
                continue
            self.acknowledged[key].append((time.monotonic(), number))

    def _read(self) -> None:
        turn = 0
        while not self._threads.stopping.wait(0.0002):
            turn += 1
            key = self._keys[turn % len(self._keys)]
            began, hits = time.monotonic(), self._reader.l1_counters()["hits"]
            value = self._reader.get(key)
            if value is not None and self._reader.l1_counters()["hits"] > hits:
                self.hits[key].append((began, value))

    def too_old(self) -> list[tuple[str, float, int, int]]:
        """Return hits that are older than the bound: what was in Redis that long before is newer."""
        wrong = []
        for key, hits in self.hits.items():
            newest, position, written = 0, 0, self.acknowledged[key]
            for began, value in hits:
                while position < len(written) and written[position][0] <= began - BOUND:
                    newest = max(newest, written[position][1])
                    position += 1
                if value < newest:
                    wrong.append((key, began, value, newest))
        return wrong

    def lost(self, fresh: Cache[Any, Any]) -> list[str]:
        """Return keys under which there is less than was acknowledged, as a cache with an empty L1 sees it."""
        found = fresh.get_many(self._keys)
        newest = {key: written[-1][1] for key, written in self.acknowledged.items() if written}
        return [key for key, number in newest.items() if found.get(key, 0) < number]


# -- one slot on its way -----------------------------------------------------------------------------------------


def test_slot_half_moved_reads_follow_ask_and_writes_wait(
    redis_cluster: RedisCluster, open_cache: Opener, elsewhere: RedisServer
) -> None:
    """What was moved is read from where it is, but not kept; a write goes through when the slot has arrived."""
    ours, theirs = open_cache(), open_cache()
    ours.set_many(dict.fromkeys(KEYS, "old"))
    home = redis_cluster.begin_move(SLOT, elsewhere)
    redis_cluster.move_keys(SLOT, home, elsewhere)
    theirs.drop_all()
    assert theirs.get_many(KEYS) == dict.fromkeys(KEYS, "old")
    assert theirs[KEYS[0]] == "old"
    assert theirs.peek(KEYS[0], None) is None

    async def read() -> Any:
        return await theirs.aio.get(KEYS[1])

    assert asyncio.run(read()) == "old"

    def write() -> None:
        with suppress(ShardError):  # a second was not enough
            ours.set(KEYS[0], "new")
            return
        # What makes up for it could otherwise be under way while the next one is, and come after it.
        wait_until(lambda: not ours.stats().coherence.owed, 20, what="debts are paid")
        write()

    written = threading.Thread(target=write)
    written.start()
    redis_cluster.end_move(SLOT, home, elsewhere)
    written.join(20)
    assert not written.is_alive()
    wait_until(lambda: is_followed(ours) and is_followed(theirs), 20, what="followed to its new place")
    assert theirs[KEYS[0]] == ours[KEYS[0]] == "new"
    assert theirs[KEYS[1]] == "old"
    assert theirs.peek(KEYS[1]) == "old"


def test_slot_of_which_some_keys_are_here_and_some_there_is_read_whole(
    redis_cluster: RedisCluster, open_cache: Opener, elsewhere: RedisServer
) -> None:
    """Neither node would answer for all of them, nor for a key that is nowhere; and nobody waits for the slot."""
    ours, theirs = open_cache(), open_cache()
    ours.set_many(dict.fromkeys(KEYS, "old"))
    absent, beside = keys_of(LANE, 9)[-1], keys_of(LANE + 1, 1)
    ours[beside[0]] = "beside"
    home = redis_cluster.begin_move(SLOT, elsewhere)
    some = redis_cluster.ask(home, "CLUSTER", "GETKEYSINSLOT", SLOT, 4)
    redis_cluster.ask(home, "MIGRATE", elsewhere.host, elsewhere.port, "", 0, 2000, "KEYS", *some)
    theirs.drop_all()
    errors = theirs.stats().l2.errors
    assert theirs.get_many([*KEYS, absent, *beside]) == dict.fromkeys(KEYS, "old") | {beside[0]: "beside"}
    assert asyncio.run(_read_many(theirs, KEYS)) == dict.fromkeys(KEYS, "old")
    assert {key: theirs.get(key) for key in KEYS} == dict.fromkeys(KEYS, "old")
    assert theirs.stats().l2.errors == errors
    redis_cluster.move_keys(SLOT, home, elsewhere)
    redis_cluster.end_move(SLOT, home, elsewhere)
    wait_until(lambda: is_followed(ours) and is_followed(theirs), 20, what="followed to its new place")
    assert theirs.get_many(KEYS) == dict.fromkeys(KEYS, "old")


async def _read_many(cache: Cache[Any, Any], keys: list[str]) -> dict[Any, Any]:
    return await cache.aio.get_many(keys)


def test_slot_open_for_long_write_fails_and_is_owed(
    redis_cluster: RedisCluster, open_cache: Opener, elsewhere: RedisServer
) -> None:
    """The error says why; the invalidation is made up for when the slot has arrived."""
    ours, theirs = open_cache(timeout=0.3), open_cache()
    ours.set_many(dict.fromkeys(KEYS, "old"))
    assert theirs[KEYS[0]] == "old"
    home = redis_cluster.begin_move(SLOT, elsewhere)
    redis_cluster.move_keys(SLOT, home, elsewhere, at_once=3)
    with pytest.raises(ShardError, match=r"TRYAGAIN|ASK"):
        ours[KEYS[0]] = "new"
    assert ours.get(KEYS[0]) is None  # nobody knows what is there
    redis_cluster.end_move(SLOT, home, elsewhere)
    wait_until(lambda: lane_of(ours).owed == 0, 20, what="paid")
    wait_until(lambda: is_followed(theirs), 20, what="followed")
    assert theirs.get(KEYS[0]) is None


def test_slot_moved_other_lanes_are_not_disturbed(
    redis_cluster: RedisCluster, open_cache: Opener, elsewhere: RedisServer
) -> None:
    """The lane goes dark and comes back elsewhere; those that stay on either node never stop being vouched for."""
    ours, theirs = open_cache(), open_cache()
    ours.set_many(dict.fromkeys(KEYS, "old"))
    theirs.get_many(KEYS)
    before = [lane.resyncs for lane in theirs.stats().coherence.lanes]
    redis_cluster.move(SLOT, elsewhere)
    ours.set_many(dict.fromkeys(KEYS, "new"))
    wait_until(lambda: is_followed(ours) and is_followed(theirs), 20, what="followed to its new place")
    for _ in range(2):  # the first time, an entry that disagrees is only dropped
        assert theirs.get_many(KEYS) == dict.fromkeys(KEYS, "new")
    assert theirs.peek(KEYS[0]) == "new"
    after = [lane.resyncs for lane in theirs.stats().coherence.lanes]
    assert [lane for lane, (one, other) in enumerate(zip(before, after, strict=True)) if one != other] == [LANE]


def test_slot_given_away_unsubscribes_without_waiting_for_a_heartbeat(
    redis_cluster: RedisCluster, open_cache: Opener, elsewhere: RedisServer
) -> None:
    """The server takes the subscription back by itself, and that is a disconnection for the lane."""
    cache = open_cache(max_staleness=60.0)  # a heartbeat every 15 seconds
    cache[KEYS[0]] = "old"
    resyncs = lane_of(cache).resyncs
    redis_cluster.move(SLOT, elsewhere)
    wait_until(lambda: lane_of(cache).resyncs > resyncs, 10, what="followed to its new place")
    other = open_cache()
    other[KEYS[0]] = "new"
    wait_until(lambda: cache.peek(KEYS[0], None) is None, 10, what="heard over the new subscription")
    assert cache[KEYS[0]] == "new"


def test_slots_move_under_load_nothing_is_older_than_the_bound(
    redis_cluster: RedisCluster, open_cache: Opener, elsewhere: RedisServer
) -> None:
    """There and back, key by key: no acknowledged write is lost, no hit is too old, and all vouch again."""
    writer, reader = open_cache(), open_cache()
    load = Load(writer, reader, KEYS)
    load.go_on()
    home = redis_cluster.owner_of(SLOT)
    for target in (elsewhere, home, elsewhere):
        source = redis_cluster.begin_move(SLOT, target)
        redis_cluster.move_keys(SLOT, source, target, at_once=1)
        redis_cluster.end_move(SLOT, source, target)
        load.go_on()
    load.end()
    assert load.too_old() == []
    assert load.lost(open_cache()) == []
    assert any(load.hits.values())
    wait_until(lambda: is_followed(reader) and is_followed(writer), 20, what="followed")
    assert reader.get_many(KEYS) == writer.get_many(KEYS)


# -- nodes that are lost -----------------------------------------------------------------------------------------


def test_failover_by_command_under_load_loses_nothing(redis_cluster: RedisCluster, open_cache: Opener) -> None:
    """The replica takes over with all that was acknowledged, and the caches follow."""
    writer, reader = open_cache(), open_cache()
    load = Load(writer, reader, KEYS)
    load.go_on()
    old = redis_cluster.owner_of(SLOT)
    redis_cluster.fail_over(old)
    load.go_on()
    load.end()
    assert load.too_old() == []
    assert load.lost(open_cache()) == []
    wait_until(lambda: is_followed(reader) and is_followed(writer), 20, what="followed")
    assert old.address not in [shard.name for shard in reader.health().shards]
    redis_cluster.await_well()


@pytest.mark.slow
def test_node_killed_under_load_its_replica_is_followed(redis_cluster: RedisCluster, open_cache: Opener) -> None:
    """Calls to the other nodes go on meanwhile; in the end all agree."""
    writer, reader = open_cache(timeout=0.3), open_cache(timeout=0.3)
    others = keys_of(LANE + 30, 4)  # of another node
    load = Load(writer, reader, KEYS)
    load.go_on()
    with redis_cluster.killed(redis_cluster.owner_of(SLOT)):
        with open_cache() as patient:
            patient.set_many(dict.fromkeys(others, "alive"))
        load.go_on()
        load.end()
        assert load.refused > 0
        # What asynchronous replication lost is invalidated by its writer, so what is left is not older than it says.
        wait_until(lambda: is_followed(reader) and is_followed(writer), 20, what="followed")
        wait_until(lambda: lane_of(writer).owed == 0, 20, what="paid")
        assert load.too_old() == []
        fresh = open_cache()
        assert reader.get_many(KEYS) == writer.get_many(KEYS) == fresh.get_many(KEYS)
        newest = {key: written[-1][1] for key, written in load.acknowledged.items()}
        assert all(number >= newest[key] for key, number in fresh.get_many(KEYS).items())


@pytest.mark.slow
def test_node_killed_with_writes_its_replica_never_got_they_are_made_up_for(
    redis_cluster: RedisCluster, open_cache: Opener
) -> None:
    """The replica comes back with the old value; whoever wrote the new one invalidates again, and says so."""
    writer, reader = open_cache(timeout=0.3), open_cache(timeout=0.3)
    primary = redis_cluster.owner_of(SLOT)
    replica = redis_cluster.replica_of(primary)
    writer[KEYS[0]] = "old"
    assert redis_cluster.ask(primary, "WAIT", 1, 5000) == 1
    assert reader[KEYS[0]] == "old"
    replica.pause()
    redis_cluster.ask(primary, "CLIENT", "KILL", "TYPE", "replica")  # what it has been sent it would still read
    writer[KEYS[0]] = "lost"
    primary.kill()
    replica.resume()
    try:
        wait_until(lambda: replica in redis_cluster.primaries(), 30, what="promoted", step=0.02)
        wait_until(lambda: lane_of(writer).replayed > 0 and lane_of(writer).owed == 0, 20, what="made up for")
        wait_until(lambda: is_followed(reader), 20, what="followed")
        assert reader.get(KEYS[0]) is None
        assert open_cache().get(KEYS[0]) is None
    finally:
        primary.start()
        redis_cluster.await_well()
