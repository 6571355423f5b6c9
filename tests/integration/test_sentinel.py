"""A cache behind real sentinels: failover under load, by command and by killing the master."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.errors import ShardError, UnknownMasterError
from support.caches import opening
from support.redis import Binary
from support.sentinel import Guarded
from support.threads import Background
from support.waiting import wait_until

BOUND = 0.8
RIGHTS = {"min-replicas-to-write": "1"}


@pytest.fixture
def guarded(no_leaks: None, server_binary: Binary) -> Iterator[Guarded]:
    """A master, a replica, three sentinels."""
    with Guarded(server_binary) as guarded:
        yield guarded


@pytest.fixture
def open_cache(guarded: Guarded) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches on the master that the sentinels name."""
    with opening(guarded.url(), max_staleness=BOUND) as opener:
        yield opener


def on_master(cache: Cache[Any, Any], guarded: Guarded) -> bool:
    """Whether the cache is well, and that with the master which the sentinels name."""
    health = cache.health()
    return health.ok and health.shards[0].address == guarded.master.address


class History:
    """One thread writes ``hot``, and then a key of the step's own, another reads ``hot`` elsewhere; both note when."""

    def __init__(self, writer: Cache[Any, Any], reader: Cache[Any, Any]) -> None:
        self._writer, self._reader = writer, reader
        self.acknowledged: list[tuple[float, int]] = []
        self.reads: list[tuple[float, int]] = []
        self.hits_before_reads = reader.stats().l1.hits
        self._threads = Background(self._write, self._read)
        self._threads.start()

    def end(self) -> None:
        self._threads.end()

    def _write(self) -> None:
        step = 0
        while not self._threads.stopping.wait(0.002):
            step += 1
            try:
                self._writer["hot"] = step
                self._writer[f"own:{step}"] = step  # a replica that has this one has `hot` too
            except ShardError:
                continue
            self.acknowledged.append((time.monotonic(), step))

    def _read(self) -> None:
        while not self._threads.stopping.wait(0.0005):
            began = time.monotonic()
            value = self._reader.get("hot")
            if value is not None:
                self.reads.append((began, value))

    def lost(self, fresh: Cache[Any, Any]) -> list[int]:
        """Return the steps that were acknowledged and are not in L2, as a cache with an empty L1 sees it."""
        steps = [step for _, step in self.acknowledged]
        found = fresh.get_many([f"own:{step}" for step in steps])
        assert fresh.stats().l2.errors == 0  # what a shard does not answer in time is not there either
        return [step for step in steps if f"own:{step}" not in found]

    def too_old(self, rolled_back_to: int) -> list[tuple[float, int, int]]:
        """Return reads of a value that neither the bound nor what the failover lost can excuse."""
        wrong = []
        newest, position = 0, 0
        for began, value in self.reads:
            while position < len(self.acknowledged) and self.acknowledged[position][0] <= began - BOUND:
                newest = self.acknowledged[position][1]
                position += 1
            if value < min(newest, rolled_back_to):
                wrong.append((began, value, newest))
        return wrong


@pytest.mark.parametrize("how", ["commanded", "killed"])
def test_failover_under_load_serves_nothing_older_than_the_bound(
    guarded: Guarded, open_cache: Callable[..., Cache[Any, Any]], how: str
) -> None:
    """But for what asynchronous replication loses, which is counted; and afterwards all caches agree with L2."""
    writer, reader = open_cache(), open_cache()
    history = History(writer, reader)
    wait_until(lambda: len(history.acknowledged) > 100, 20)
    before = history.acknowledged[-1][1]
    if how == "commanded":
        with guarded.master.client() as client:  # what comes in the stream before this one is replicated with it
            client.set("marker", 1)
            assert client.execute_command("WAIT", 1, 9000) == 1
        guarded.fail_over()
    else:
        guarded.await_other_than(guarded.kill_master())
    changed = time.monotonic()
    wait_until(lambda: on_master(writer, guarded) and on_master(reader, guarded), 20, what="both caches vouch again")
    recovered = time.monotonic()
    count = len(history.acknowledged)
    wait_until(lambda: len(history.acknowledged) > count + 100, 20, what="writes go on")
    history.end()
    fresh = open_cache(timeout=30)  # thousands of keys, on a machine that has other things to do
    lost = history.lost(fresh)
    print(
        f"{len(history.acknowledged)} writes acknowledged, {len(lost)} lost; "
        f"healthy {recovered - changed:.2f} s after the change; {len(history.reads)} reads"
    )
    # A replica follows in order, so what is lost is a tail: `hot` may go back to the step before its first one.
    assert history.too_old(min(lost, default=2**63) - 1) == []
    assert all(step > before for step in lost) or how == "killed"
    assert history.acknowledged[-1][1] > before
    writer["hot"] = -1
    assert writer.selftest(10).ok
    assert reader.selftest(10).ok
    assert writer["hot"] == reader["hot"] == fresh["hot"] == -1
    assert reader.stats().l1.hits > history.hits_before_reads


def test_place_of_keys_survives_a_failover(guarded: Guarded, open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """The master's name is what placement hashes; what was replicated is found again."""
    cache = open_cache()
    assert [shard.name for shard in cache.health().shards] == ["m1"]
    cache["k"] = "v"
    with guarded.master.client() as client:
        client.execute_command("WAIT", 1, 5000)
    guarded.fail_over()
    assert open_cache()["k"] == "v"
    wait_until(lambda: on_master(cache, guarded), 20)
    assert cache["k"] == "v"
    assert cache.peek("k") == "v"


def test_killed_master_that_returns_is_not_used(guarded: Guarded, open_cache: Callable[..., Cache[Any, Any]]) -> None:
    """It thinks that it is a master until the sentinels tell it otherwise; nobody names it."""
    cache = open_cache()
    cache["k"] = "old"
    killed = guarded.kill_master()
    guarded.await_other_than(killed)
    killed.start()
    wait_until(lambda: cache.health().ok, 20)
    cache["k"] = "new"
    assert cache.health().shards[0].address != killed.address
    assert open_cache()["k"] == "new"
    assert cache["k"] == "new"


@pytest.mark.parametrize("configured", [True, False])
def test_missing_min_replicas_is_warned_of_at_open(
    server_binary: Binary, caplog: pytest.LogCaptureFixture, configured: bool
) -> None:
    """Without it nothing bounds what a master that was cut off goes on to vouch for."""
    with Guarded(server_binary, options=RIGHTS if configured else {}) as guarded, caplog.at_level(logging.WARNING):
        nearcache.open(guarded.url()).close()
    warned = [record.getMessage() for record in caplog.records if record.name == "nearcache"]
    assert len(warned) == (0 if configured else 1)
    assert all("min-replicas-to-write" in text and "m1" in text for text in warned)


def test_master_without_its_replica_stops_vouching(server_binary: Binary) -> None:
    """As a master does that was cut off: with ``min-replicas-to-write`` heartbeats are refused, and L1 goes dark."""
    options = RIGHTS | {"min-replicas-max-lag": "1"}
    with (
        Guarded(server_binary, options=options) as guarded,
        nearcache.open(guarded.url(), max_staleness=BOUND) as cache,
    ):
        wait_until(lambda: cache.health().ok, 20)
        guarded.servers[1].pause()
        wait_until(lambda: not cache.health().shards[0].vouched, 30)
        assert "NOREPLICAS" in cache.health().shards[0].last_error
        guarded.servers[1].resume()
        wait_until(lambda: cache.health().ok, 30)


def test_unknown_master_is_an_error_at_the_door(guarded: Guarded) -> None:
    """Not a shard to wait for."""
    with pytest.raises(UnknownMasterError, match="m2"):
        nearcache.open(guarded.url().replace("/m1", "/m1,m2"))
