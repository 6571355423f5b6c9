"""Fence and fill: what was loaded before a change is never stored after it. On every server found."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.lanes import NO_WID, NONCE, Lane, envelope, wid
from support.redis import RedisServer

TOKEN = wid(0x70)
OTHER = wid(0x71)


@pytest.fixture
def lane(redis_server: RedisServer) -> Iterator[Lane]:
    """A lane whose epoch and generation are NONCE."""
    lane = Lane(redis_server)
    lane.start()
    yield lane
    lane.close()


def put_fence(lane: Lane, token: bytes = TOKEN, ms: int = 60_000, mode: str = "") -> list[object]:
    """Fence the key ``sk``."""
    return lane.run("fence", [b"sk"], token, ms, mode)


def fill(lane: Lane, token: bytes = TOKEN, write: bytes = wid(1), gen: bytes = NONCE) -> list[object]:
    """Fill the key ``sk``."""
    return lane.run("fill", [b"sk"], write, gen, token, 60_000, envelope(gen, b"loaded", write))


def test_fence_of_a_live_value_returns_it_with_its_lifetime(lane: Lane) -> None:
    """Who comes to load and finds a value needs no fence."""
    lane.set(b"sk", write=wid(1), ttl=50_000)
    status, gen, found, pttl = put_fence(lane)
    assert (status, gen, found) == (1, NONCE, envelope(NONCE, b"sk", wid(1)))
    assert 40_000 < pttl <= 50_000
    assert not lane.client.exists(lane.fence(b"sk"))


def test_fence_in_mode_replace_fences_a_live_value(lane: Lane) -> None:
    """A value that this caller cannot read may be loaded over, and its readers are told."""
    lane.set(b"sk", write=wid(1))
    assert put_fence(lane, mode="REPLACE") == [0, NONCE, TOKEN]
    with lane.listening() as heard:
        assert fill(lane, write=wid(2)) == [1, NONCE]
    assert heard == [("F", NONCE, 2, wid(1), wid(2), [b"sk"])]


def test_fence_of_an_absent_key_is_set_for_its_lifetime(lane: Lane) -> None:
    """The fence is a key that ends by itself."""
    assert put_fence(lane, ms=50_000) == [0, NONCE, TOKEN]
    assert 40_000 < lane.client.pttl(lane.fence(b"sk")) <= 50_000


@pytest.mark.parametrize("there", [envelope(wid(9)), b"torn"], ids=["old generation", "torn"])
def test_fence_of_a_dead_value_is_set(lane: Lane, there: bytes) -> None:
    """Values of another generation count as absent."""
    lane.client.set(lane.value(b"sk"), there)
    assert put_fence(lane) == [0, NONCE, TOKEN]


def test_fence_of_a_second_loader_is_shared_and_extended(lane: Lane) -> None:
    """A fence excludes nobody: the second loader gets the first one's token, for as long as it needs."""
    put_fence(lane, ms=20_000)
    assert put_fence(lane, OTHER, ms=50_000) == [0, NONCE, TOKEN]
    assert lane.client.pttl(lane.fence(b"sk")) > 40_000
    assert put_fence(lane, OTHER, ms=20_000) == [0, NONCE, TOKEN]
    assert lane.client.pttl(lane.fence(b"sk")) > 40_000


def test_fence_marks_of_other_kinds_are_left_alone_and_void_the_fill(lane: Lane) -> None:
    """Marks that this version does not know are a later version's; under them nothing of ours is stored."""
    lane.client.set(lane.fence(b"sk"), b"H*")
    assert put_fence(lane) == [0, NONCE, TOKEN]
    assert fill(lane) == [0, NONCE, b"LOST"]
    assert lane.client.get(lane.fence(b"sk")) == b"H*"


def test_fill_under_its_fence_is_stored_silently(lane: Lane) -> None:
    """Nobody can hold a copy of what was not there, so the first value of a key needs no message."""
    put_fence(lane)
    with lane.listening() as heard:
        assert fill(lane) == [1, NONCE]
    assert heard == []
    assert lane.position() == (0, NO_WID)
    assert lane.client.get(lane.value(b"sk")) == envelope(NONCE, b"loaded", wid(1))
    assert 50_000 < lane.client.pttl(lane.value(b"sk")) <= 60_000
    assert not lane.client.exists(lane.fence(b"sk"))


def test_fill_of_a_large_value_is_staged(lane: Lane) -> None:
    """The same answers as for small ones, and nothing of the staging is left."""
    large = envelope(NONCE, bytes(200_000))
    put_fence(lane)
    assert lane.run_staged("fill", [b"sk"], wid(1), [large], NONCE, TOKEN, 60_000) == [1, NONCE]
    assert lane.client.get(lane.value(b"sk")) == large
    assert 50_000 < lane.client.pttl(lane.value(b"sk")) <= 60_000
    assert lane.client.dbsize() == 2
    assert lane.run_staged("fill", [b"sk"], wid(1), [large], NONCE, TOKEN, 60_000) == [0, NONCE, b"LOST"]


def test_fill_over_a_dead_value_is_announced(lane: Lane) -> None:
    """Where something existed, a message goes out: it costs little, and nobody has to prove that it is needless."""
    lane.client.set(lane.value(b"sk"), envelope(wid(9)))
    put_fence(lane)
    with lane.listening() as heard:
        assert fill(lane) == [1, NONCE]
    assert heard == [("F", NONCE, 1, NO_WID, wid(1), [b"sk"])]


def test_fill_by_the_second_of_two_loaders_is_lost(lane: Lane) -> None:
    """The first fill under a shared fence takes it away: L2 holds a load as fresh as the second."""
    put_fence(lane)
    put_fence(lane, OTHER)
    assert fill(lane) == [1, NONCE]
    assert fill(lane, write=wid(2)) == [0, NONCE, b"LOST"]
    assert lane.client.get(lane.value(b"sk")) == envelope(NONCE, b"loaded", wid(1))


@pytest.mark.parametrize("change", ["set", "invalidate", "expired"])
def test_fill_after_a_change_of_its_key_is_lost(lane: Lane, change: str) -> None:
    """A set or an invalidation voids the fence, and so does its end: the loaded value may be from before."""
    put_fence(lane)
    if change == "set":
        lane.set(b"sk", write=wid(5))
    elif change == "invalidate":
        lane.run("invalidate", [b"sk"], wid(5))
    else:
        lane.client.delete(lane.fence(b"sk"))
    before = lane.client.get(lane.value(b"sk"))
    with lane.listening() as heard:
        assert fill(lane) == [0, NONCE, b"LOST"]
    assert heard == []
    assert lane.client.get(lane.value(b"sk")) == before


def test_fill_after_somebody_elses_fence_is_lost(lane: Lane) -> None:
    """Invalidated and fenced again: the token is another, and only the load that began after it may be stored."""
    put_fence(lane)
    lane.run("invalidate", [b"sk"], wid(5))
    assert put_fence(lane, OTHER) == [0, NONCE, OTHER]
    assert fill(lane) == [0, NONCE, b"LOST"]
    assert fill(lane, OTHER) == [1, NONCE]


def test_fill_after_a_clear_is_refused_under_either_generation(lane: Lane) -> None:
    """A clear voids all fences: not even sealed under the new generation may a value from before it be stored."""
    put_fence(lane)
    lane.run("clear", [], wid(5))
    assert fill(lane) == [0, wid(5), b"GENERATION"]
    assert fill(lane, gen=wid(5)) == [0, wid(5), b"LOST"]
    assert not lane.client.exists(lane.value(b"sk"))


def test_fence_after_a_clear_replaces_the_old_one(lane: Lane) -> None:
    """Loads that begin after a clear do not share a fence with those from before it."""
    put_fence(lane)
    lane.run("clear", [], wid(5))
    assert put_fence(lane, OTHER) == [0, wid(5), OTHER]
    assert fill(lane, TOKEN, gen=wid(5)) == [0, wid(5), b"LOST"]
    assert fill(lane, OTHER, gen=wid(5)) == [1, wid(5)]


def test_fill_after_the_lane_record_was_lost_is_refused(lane: Lane) -> None:
    """A lane made anew has another generation, so no fence of before counts."""
    put_fence(lane)
    lane.client.delete(lane.record)
    assert lane.run("fill", [b"sk"], wid(1), NONCE, TOKEN, 60_000, b"x", nonce=wid(8)) == [0, wid(8), b"GENERATION"]


def test_record_lost_kills_the_envelopes_of_its_time(lane: Lane) -> None:
    """Evicted, flushed or deleted: the new record has a random generation, and old values are absent for ever."""
    lane.set(b"sk", write=wid(1))
    lane.client.delete(lane.record)
    assert lane.run("fence", [b"sk"], TOKEN, 1000, "", nonce=wid(8)) == [0, wid(8), TOKEN]
    assert lane.set(b"sk", write=wid(2), gen=NONCE) == [0, wid(8)]
    assert lane.set(b"sk", write=wid(2), gen=wid(8), mode="NX") == [1, wid(8)]
