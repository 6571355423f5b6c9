"""Lease, fill and hold: one loads while the others wait, and what was loaded before a change is never stored."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.l2 import Exchange, Reply, load_script
from support.lanes import NO_WID, NONCE, Lane, envelope, wid

pytestmark = pytest.mark.every_server

TOKEN = wid(0x70)
OTHER = wid(0x71)
LOCK = b"nc:{t:0}:x:sk"


def take_lease(lane: Lane, token: bytes = TOKEN, ms: int = 60_000, mode: str = "") -> list[object]:
    """Ask to load the key ``sk``."""
    return lane.run("lease", [b"sk"], token, ms, mode)


def fill(lane: Lane, token: bytes = TOKEN, write: bytes = wid(1), gen: bytes = NONCE) -> list[object]:
    """Fill the key ``sk``; return the beginning of the answer, without epoch and number."""
    reply = lane.run("fill", [b"sk"], write, gen, token, 60_000, envelope(gen, b"loaded", write))
    assert len(reply) == (4 if reply[0] == 1 else 3)
    return reply[:2] if reply[0] == 1 else reply


def hold(lane: Lane, token: bytes = TOKEN, ms: int = 60_000, write: bytes = wid(5)) -> list[object]:
    """Hold the key ``sk``, or end a hold with 0 ms."""
    return lane.run("invalidate", [b"sk"], write, ms, token)


# -- leases


def test_lease_of_a_live_value_returns_it_with_its_lifetime(lane: Lane) -> None:
    """Who comes to load and finds a value needs no lease."""
    lane.set(b"sk", write=wid(1), ttl=50_000)
    status, gen, found, pttl = take_lease(lane)
    assert (status, gen, found) == (1, NONCE, envelope(NONCE, b"sk", wid(1)))
    assert 40_000 < pttl <= 50_000
    assert not lane.client.exists(lane.lease(b"sk"))


def test_lease_in_mode_replace_is_given_over_a_live_value(lane: Lane) -> None:
    """A value that this caller cannot read may be loaded over, and its readers are told."""
    lane.set(b"sk", write=wid(1))
    assert take_lease(lane, mode="REPLACE") == [0, NONCE, TOKEN]
    with lane.listening() as heard:
        assert fill(lane, write=wid(2)) == [1, NONCE]
    assert heard == [("F", NONCE, 2, wid(1), wid(2), [b"sk"])]


def test_lease_of_an_absent_key_is_given_for_its_lifetime(lane: Lane) -> None:
    """The lease is a key that ends by itself."""
    assert take_lease(lane, ms=50_000) == [0, NONCE, TOKEN]
    assert 40_000 < lane.client.pttl(lane.lease(b"sk")) <= 50_000


@pytest.mark.parametrize("there", [envelope(wid(9)), b"torn"], ids=["old generation", "torn"])
def test_lease_of_a_dead_value_is_given(lane: Lane, there: bytes) -> None:
    """Values of another generation count as absent."""
    lane.client.set(lane.value(b"sk"), there)
    assert take_lease(lane) == [0, NONCE, TOKEN]


def test_second_loader_is_told_to_wait_and_for_how_long(lane: Lane) -> None:
    """One loads; the lease notes that somebody waits, and lasts no longer for it."""
    take_lease(lane, ms=50_000)
    status, gen, pttl = take_lease(lane, OTHER)
    assert (status, gen) == (2, NONCE)
    assert 40_000 < pttl <= 50_000
    assert lane.client.get(lane.lease(b"sk")) == b"W" + TOKEN + NONCE
    assert 40_000 < lane.client.pttl(lane.lease(b"sk")) <= 50_000
    assert take_lease(lane, wid(0x72))[0] == 2


def test_fill_under_its_lease_is_stored_silently(lane: Lane) -> None:
    """Nobody can hold a copy of what was not there, so the first value of a key needs no message."""
    take_lease(lane)
    with lane.listening() as heard:
        assert fill(lane) == [1, NONCE]
    assert heard == []
    assert lane.position() == (0, NO_WID)
    assert lane.client.get(lane.value(b"sk")) == envelope(NONCE, b"loaded", wid(1))
    assert 50_000 < lane.client.pttl(lane.value(b"sk")) <= 60_000
    assert not lane.client.exists(lane.lease(b"sk"))


def test_fill_for_which_somebody_waits_is_announced(lane: Lane) -> None:
    """The message is what wakes them."""
    take_lease(lane)
    take_lease(lane, OTHER)
    with lane.listening() as heard:
        assert fill(lane) == [1, NONCE]
    assert heard == [("F", NONCE, 1, NO_WID, wid(1), [b"sk"])]


def test_abort_frees_the_lease_and_wakes_who_waits(lane: Lane) -> None:
    """A loader that failed keeps nobody waiting for the end of its lease."""
    take_lease(lane)
    take_lease(lane, OTHER)
    with lane.listening() as heard:
        assert lane.run("abort", [b"sk"], wid(3), TOKEN) == 1
    assert heard == [("A", NONCE, 1, NO_WID, wid(3), [b"sk"])]
    assert take_lease(lane, OTHER) == [0, NONCE, OTHER]


def test_abort_for_which_nobody_waits_is_silent(lane: Lane) -> None:
    """A message that nobody needs is not sent."""
    take_lease(lane)
    with lane.listening() as heard:
        assert lane.run("abort", [b"sk"], wid(3), TOKEN) == 1
    assert heard == []
    assert not lane.client.exists(lane.lease(b"sk"))


@pytest.mark.parametrize("mark", [b"", b"L" + OTHER + NONCE, b"H" + TOKEN, b"H*"])
def test_abort_and_renew_leave_what_is_not_the_callers(lane: Lane, mark: bytes) -> None:
    """Another's lease, or a hold, is none of a late loader's business."""
    if mark:
        lane.client.set(lane.lease(b"sk"), mark, px=50_000)
    with lane.listening() as heard:
        assert lane.run("abort", [b"sk"], wid(3), TOKEN) == 0
        assert renew(lane) == 0
    assert heard == []
    assert lane.client.get(lane.lease(b"sk")) == (mark or None)
    assert lane.client.pttl(lane.lease(b"sk")) <= 50_000


def renew(lane: Lane, ms: int = 90_000) -> object:
    """Renew the lease on ``sk``, as the listener does."""
    command = load_script("renew").call([lane.lease(b"sk")], [TOKEN, ms])
    reply = lane.driver.execute([Exchange(0, [command])])[0]
    assert isinstance(reply, Reply)
    return reply.values[0]


def test_renew_prolongs_a_lease_waited_for_or_not(lane: Lane) -> None:
    """As long as the loader runs and its process lives, nobody else loads."""
    take_lease(lane, ms=20_000)
    assert renew(lane) == 1
    assert lane.client.pttl(lane.lease(b"sk")) > 60_000
    take_lease(lane, OTHER)
    assert renew(lane, 100_000) == 1
    assert lane.client.pttl(lane.lease(b"sk")) > 90_000


def test_renew_prolongs_many_and_leaves_what_is_not_the_callers(lane: Lane) -> None:
    """Each under a token of its own. The answer is how many there still are."""
    marks = {b"sa": b"L" + TOKEN + NONCE, b"sb": b"L" + OTHER + NONCE, b"sc": b"H" + TOKEN, b"se": b"W" + OTHER + NONCE}
    for key, mark in marks.items():
        lane.client.set(lane.lease(key), mark, px=50_000)
    tokens = {b"sa": TOKEN, b"sb": TOKEN, b"sc": TOKEN, b"sd": TOKEN, b"se": OTHER}
    command = load_script("renew").call([*map(lane.lease, tokens)], [*tokens.values(), 90_000])
    reply = lane.driver.execute([Exchange(0, [command])])[0]
    assert isinstance(reply, Reply)
    assert reply.values == [2]
    assert {key for key in tokens if lane.client.pttl(lane.lease(key)) > 60_000} == {b"sa", b"se"}
    assert {key: lane.client.get(lane.lease(key)) for key in marks} == marks
    assert not lane.client.exists(lane.lease(b"sd"))


@pytest.mark.parametrize("letter", [b"L", b"W"])
def test_lease_that_would_outlast_any_is_cut_short_and_its_holder_keeps_it_if_he_lives(
    lane: Lane, letter: bytes
) -> None:
    """A server's clock that is set back leaves a dead holder's lease for as long: readers would wait for that."""
    take_lease(lane)
    lane.client.set(lane.lease(b"sk"), letter + TOKEN + NONCE, px=3_600_000)
    assert take_lease(lane, OTHER, ms=2_000) == [2, NONCE, 2_000]
    assert lane.client.get(lane.lease(b"sk")) == b"W" + TOKEN + NONCE
    assert lane.client.pttl(lane.lease(b"sk")) <= 2_000
    assert renew(lane) == 1


def test_fill_of_a_large_value_is_staged(lane: Lane) -> None:
    """The same answers as for small ones, and nothing of the staging is left."""
    large = envelope(NONCE, bytes(200_000))
    take_lease(lane)
    assert lane.run_staged("fill", [b"sk"], wid(1), [large], NONCE, TOKEN, 60_000) == [1, NONCE, NONCE, 0]
    assert lane.client.get(lane.value(b"sk")) == large
    assert 50_000 < lane.client.pttl(lane.value(b"sk")) <= 60_000
    assert lane.client.dbsize() == 2
    assert lane.run_staged("fill", [b"sk"], wid(1), [large], NONCE, TOKEN, 60_000) == [0, NONCE, b"LOST"]


def test_fill_over_a_dead_value_is_announced(lane: Lane) -> None:
    """Where something existed, a message goes out: it costs little, and nobody has to prove that it is needless."""
    lane.client.set(lane.value(b"sk"), envelope(wid(9)))
    take_lease(lane)
    with lane.listening() as heard:
        assert fill(lane) == [1, NONCE]
    assert heard == [("F", NONCE, 1, NO_WID, wid(1), [b"sk"])]


@pytest.mark.parametrize("change", ["set", "invalidate", "hold", "expired"])
def test_fill_after_a_change_of_its_key_is_lost(lane: Lane, change: str) -> None:
    """A set, an invalidation and a hold void the lease, and so does its end: the value may be from before."""
    take_lease(lane)
    if change == "set":
        lane.set(b"sk", write=wid(5))
    elif change == "invalidate":
        lane.run("invalidate", [b"sk"], wid(5))
    elif change == "hold":
        hold(lane)
    else:
        lane.client.delete(lane.lease(b"sk"))
    before = lane.client.get(lane.value(b"sk"))
    with lane.listening() as heard:
        assert fill(lane) == [0, NONCE, b"LOST"]
    assert heard == []
    assert lane.client.get(lane.value(b"sk")) == before


def test_fill_under_a_later_lease_of_another_is_lost(lane: Lane) -> None:
    """Invalidated and leased again: only the load that began after it may be stored."""
    take_lease(lane)
    lane.run("invalidate", [b"sk"], wid(5))
    assert take_lease(lane, OTHER) == [0, NONCE, OTHER]
    assert fill(lane) == [0, NONCE, b"LOST"]
    assert fill(lane, OTHER) == [1, NONCE]


def test_fill_after_a_clear_is_refused_under_either_generation(lane: Lane) -> None:
    """A clear voids all leases: not even sealed under the new generation may a value from before it be stored."""
    take_lease(lane)
    lane.run("clear", [], wid(5))
    assert fill(lane) == [0, wid(5), b"GENERATION"]
    assert fill(lane, gen=wid(5)) == [0, wid(5), b"LOST"]
    assert not lane.client.exists(lane.value(b"sk"))


def test_lease_after_a_clear_replaces_the_old_one(lane: Lane) -> None:
    """Loads that begin after a clear do not wait for those from before it."""
    take_lease(lane)
    lane.run("clear", [], wid(5))
    assert take_lease(lane, OTHER) == [0, wid(5), OTHER]
    assert fill(lane, TOKEN, gen=wid(5)) == [0, wid(5), b"LOST"]
    assert fill(lane, OTHER, gen=wid(5)) == [1, wid(5)]


def test_fill_after_the_lane_record_was_lost_is_refused(lane: Lane) -> None:
    """A lane made anew has another generation, so no lease of before counts."""
    take_lease(lane)
    lane.client.delete(lane.record)
    assert lane.run("fill", [b"sk"], wid(1), NONCE, TOKEN, 60_000, b"x", nonce=wid(8)) == [0, wid(8), b"GENERATION"]


def test_record_lost_kills_the_envelopes_of_its_time(lane: Lane) -> None:
    """Evicted, flushed or deleted: the new record has a random generation, and old values are absent for ever."""
    lane.set(b"sk", write=wid(1))
    lane.client.delete(lane.record)
    assert lane.run("lease", [b"sk"], TOKEN, 1000, "", nonce=wid(8)) == [0, wid(8), TOKEN]
    assert lane.set(b"sk", write=wid(2), gen=NONCE) == [0, wid(8)]
    assert lane.set(b"sk", write=wid(2), gen=wid(8), mode="NX")[:2] == [1, wid(8)]


# -- holds


def test_hold_removes_the_value_and_lets_nothing_in(lane: Lane) -> None:
    """While a change is under way, what is loaded or written may be older than it."""
    lane.set(b"sk", write=wid(1))
    with lane.listening() as heard:
        assert hold(lane) == [1, NONCE, 1, NONCE, b"2"]
        assert take_lease(lane)[:2] == [3, NONCE]
        assert lane.set(b"sk", write=wid(2)) == [1, NONCE, NONCE, b"3", b"1,"]
    assert [message.op for message in heard] == ["I", "I"]
    assert not lane.client.exists(lane.value(b"sk"))
    assert lane.client.get(lane.lease(b"sk")) == b"H" + TOKEN + b"!"


def test_set_of_many_stores_what_is_not_on_hold(lane: Lane) -> None:
    """A hold concerns its key; the others of the batch are written, large ones too, and nothing staged is left."""
    hold(lane)
    large = envelope(NONCE, bytes(50_000), wid(2))
    reply = lane.run_staged("set", [b"sa", b"sk", b"sb"], wid(2), [large, large, large], NONCE, "", 60_000)
    assert reply == [1, NONCE, NONCE, b"2", b"2,"]
    assert lane.client.mget(lane.value(b"sa"), lane.value(b"sk"), lane.value(b"sb")) == [large, None, large]
    assert lane.client.dbsize() == 4


def test_hold_ends_by_its_own_token_only(lane: Lane) -> None:
    """Others' invalidations remove values, not holds."""
    hold(lane)
    hold(lane, OTHER, ms=0)
    lane.run("invalidate", [b"sk"], wid(6))
    assert take_lease(lane)[0] == 3
    hold(lane, TOKEN, ms=0)
    assert take_lease(lane)[0] == 0


def test_holds_of_two_merge_and_end_by_time_alone(lane: Lane) -> None:
    """Nobody can say which of them is over last, so the longer one's time decides."""
    hold(lane, TOKEN, ms=50_000)
    hold(lane, OTHER, ms=10_000)
    assert lane.client.get(lane.lease(b"sk")) == b"H*"
    assert 40_000 < lane.client.pttl(lane.lease(b"sk")) <= 50_000
    hold(lane, TOKEN, ms=0)
    hold(lane, OTHER, ms=0)
    assert take_lease(lane)[0] == 3
    lane.client.delete(lane.lease(b"sk"))
    assert take_lease(lane)[0] == 0


def test_marks_of_other_kinds_are_left_alone_and_let_nothing_in(lane: Lane) -> None:
    """Marks that this version does not know are a later version's; under them nothing of ours is stored."""
    lane.client.set(lane.lease(b"sk"), b"Z*")
    assert take_lease(lane)[0] == 3
    assert fill(lane) == [0, NONCE, b"LOST"]
    assert lane.client.get(lane.lease(b"sk")) == b"Z*"


# -- adopting a lane


def adopt(lane: Lane, fork: bytes, nonce: bytes, write: bytes) -> list[object]:
    """Meet the lane's server, as every process does on its first connection."""
    return lane.run("adopt", [], write, fork, nonce=nonce)


def test_adopt_of_a_known_server_changes_nothing(lane: Lane) -> None:
    """The second process to meet a server finds it adopted."""
    adopt(lane, wid(0xF1), wid(0xE1), wid(1))
    with lane.listening() as heard:
        assert adopt(lane, wid(0xF1), wid(0xE2), wid(2)) == [0, wid(0xE1), NONCE + b":0"]
    assert heard == []


def test_adopt_of_a_new_server_begins_an_epoch_and_keeps_where_the_old_one_ended(lane: Lane) -> None:
    """Writers compare their own changes with that end, and know what was lost."""
    lane.set(b"sk", write=wid(1))
    with lane.listening() as heard:
        assert adopt(lane, wid(0xF1), wid(0xE1), wid(2)) == [1, wid(0xE1), NONCE + b":1"]
    assert heard == [("E", wid(0xE1), 2, wid(1), wid(2), [])]
    assert adopt(lane, wid(0xF2), wid(0xE2), wid(3)) == [1, wid(0xE2), wid(0xE1) + b":2," + NONCE + b":1"]
    assert lane.run("heartbeat", [])[5] == wid(0xE1) + b":2," + NONCE + b":1"


def test_adopt_of_a_lane_that_is_not_there_makes_it(lane: Lane) -> None:
    """An empty server has nothing to tell about earlier epochs."""
    lane.client.delete(lane.record)
    with lane.listening() as heard:
        assert adopt(lane, wid(0xF1), wid(0xE1), wid(1)) == [1, wid(0xE1), b""]
    assert heard == []
    assert lane.run("heartbeat", [])[:4] == [wid(0xE1), b"0", NO_WID, wid(0xE1)]


def test_adopt_remembers_eight_ends(lane: Lane) -> None:
    """The record does not grow without bound."""
    for number in range(1, 13):
        adopt(lane, wid(0xF00 + number), wid(0xE00 + number), wid(number))
    ends = lane.client.hget(lane.record, "h").split(b",")
    assert [end.split(b":")[0] for end in ends] == [wid(0xE00 + number) for number in range(11, 3, -1)]


def test_lease_over_the_value_of_one_write_is_not_given_over_another(lane: Lane) -> None:
    """Somebody has loaded it anew already; what is gone is loaded."""
    lane.set(b"sk", write=wid(2))
    answer = take_lease(lane, mode=f"REPLACE{wid(1).decode()}")
    assert answer[:3] == [1, NONCE, envelope(NONCE, b"sk", wid(2))]
    assert not lane.client.exists(lane.lease(b"sk"))
    assert take_lease(lane, mode=f"REPLACE{wid(2).decode()}") == [0, NONCE, TOKEN]
    assert take_lease(lane, OTHER, mode=f"REPLACE{wid(1).decode()}")[0] == 1
    lane.client.delete(lane.value(b"sk"), lane.lease(b"sk"))
    assert take_lease(lane, mode=f"REPLACE{wid(2).decode()}") == [0, NONCE, TOKEN]


# -- locks


def lock(lane: Lane, token: bytes = TOKEN, ms: int = 60_000) -> Any:
    """Ask for the lock on ``sk``."""
    reply = lane.driver.execute(
        [Exchange(0, [load_script("lock").call([LOCK, lane.record], [b"1", NONCE, token, ms])])]
    )
    assert isinstance(reply[0], Reply)
    return reply[0].values[0]


def unlock(lane: Lane, token: bytes = TOKEN) -> Any:
    """Give it back."""
    command = load_script("abort").call([lane.value(b"sk"), LOCK, lane.record], [b"1", NONCE, wid(3), token])
    reply = lane.driver.execute([Exchange(0, [command])])[0]
    assert isinstance(reply, Reply)
    return reply.values[0]


def test_lock_is_had_by_one_until_it_is_given_back_and_then_who_waits_is_told(lane: Lane) -> None:
    """The answer to the others is how long to wait; asked again for by its holder it is the holder's."""
    assert lock(lane, ms=20_000) == lock(lane, ms=50_000) == [1, NONCE]
    assert lane.client.get(LOCK) == b"L" + TOKEN
    status, _, pttl = lock(lane, OTHER)
    assert (status, 40_000 < pttl <= 50_000) == (0, True)
    assert lock(lane) == [1, NONCE]
    assert lane.client.get(LOCK) == b"W" + TOKEN
    with lane.listening() as heard:
        assert (unlock(lane, OTHER), unlock(lane)) == (0, 1)
    assert heard == [("A", NONCE, 1, NO_WID, wid(3), [b"sk"])]
    assert lock(lane, OTHER) == [1, NONCE]


def test_lock_that_would_outlast_any_is_cut_short(lane: Lane) -> None:
    """As a lease is."""
    lock(lane)
    lane.client.pexpire(LOCK, 3_600_000)
    assert lock(lane, OTHER, ms=2_000) == [0, NONCE, 2_000]
    assert lane.client.get(LOCK) == b"W" + TOKEN
    assert lane.client.pttl(LOCK) <= 2_000


def test_lock_outlasts_a_clear_and_is_renewed_as_a_lease_is(lane: Lane) -> None:
    """A clear changes no data. Values, leases and holds of the key are none of the lock's business."""
    lock(lane, ms=1000)
    hold(lane)
    lane.run("clear", [], wid(9))
    assert lock(lane, OTHER)[0] == 0
    command = load_script("renew").call([LOCK], [TOKEN, 90_000])
    reply = lane.driver.execute([Exchange(0, [command])])[0]
    assert isinstance(reply, Reply)
    assert reply.values == [1]
    assert lane.client.pttl(LOCK) > 80_000
