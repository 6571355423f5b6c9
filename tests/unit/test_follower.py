"""The follower, fed by hand: bytes and instants in; the store, bytes to send and deadlines out."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.clocks import TICK_NS
from nearcache.coherence import State
from nearcache.errors import ServerReplyError
from nearcache.l2 import load_script
from support.followers import (
    BOUND,
    NOSCRIPT,
    START,
    Scene,
    bulk,
    fill,
    names_of,
    push,
    standing,
)

# -- connecting and heartbeats


def test_connected_subscribes_and_asks_at_once() -> None:
    """SUBSCRIBE comes before the heartbeat, so that the reply is a fence for all messages since."""
    scene = Scene()
    scene.follower.connected(7, START)
    assert scene.sent() == [
        [b"SUBSCRIBE", b"nc:{t:0}:i"],
        [b"EVALSHA", b"5" * 40, b"1", b"nc:{t:0}:L", b"1", b"0000000000000001"],
    ]
    assert scene.lanes[0].state is State.SYNC
    assert scene.store.lane_fresh_until(0) == 0


def test_first_reply_vouches_from_the_instant_of_sending() -> None:
    """However late the reply comes."""
    scene = Scene()
    scene.follower.connected(7, START)
    scene.follower.received(b">3\r\n" + bulk(b"subscribe", b"nc:{t:0}:i") + b":1\r\n" + standing(0, 0), START + 900)
    assert scene.store.lane_fresh_until(0) == START + BOUND - TICK_NS
    assert scene.follower.answered
    assert scene.follower.is_live


def test_tick_before_the_heartbeat_is_due_sends_nothing() -> None:
    """And at the instant that ``due_ns`` says, it sends one."""
    scene = Scene()
    scene.go_live()
    due_ns = scene.follower.due_ns()
    assert due_ns == START + BOUND // 4
    scene.follower.tick(due_ns - 1)
    assert scene.sent() == []
    scene.follower.tick(due_ns)
    assert names_of(scene.sent()) == [b"EVALSHA"]


def test_tick_heartbeat_unanswered_gives_up_at_the_deadline() -> None:
    """The lane is dark from that instant, and nothing is left to be sent."""
    scene = Scene()
    scene.follower.connected(7, START)
    scene.follower.tick(START + BOUND // 2 - 1)
    assert scene.follower.gave_up is None
    scene.follower.tick(START + BOUND // 2)
    assert scene.follower.gave_up == "no reply to a heartbeat"
    assert scene.sent() == []
    assert scene.follower.due_ns() is None
    assert scene.lanes[0].state is State.DOWN


def test_reply_no_script_sends_the_script_itself() -> None:
    """The heartbeat counts from when it is sent again."""
    scene = Scene()
    scene.follower.connected(7, START)
    scene.sent()
    scene.follower.received(NOSCRIPT, START + 5)
    ((command, script, *_),) = scene.sent()
    assert (command, script) == (b"EVAL", b"return 1")
    scene.follower.received(standing(0, 0), START + 6)
    assert scene.store.lane_fresh_until(0) == START + 5 + BOUND - TICK_NS


def test_reply_no_script_for_many_lanes_sends_the_script_once() -> None:
    """What comes behind it on the connection can be short."""
    scene = Scene(3)
    scene.follower.connected(7, START)
    scene.sent()
    scene.follower.received(NOSCRIPT * 3, START)
    assert names_of(scene.sent()) == [b"EVAL", b"EVALSHA", b"EVALSHA"]
    scene.follower.received(standing(0, 0) + NOSCRIPT + standing(0, 0), START)  # flushed in between
    assert names_of(scene.sent()) == [b"EVAL"]
    scene.follower.received(standing(0, 0), START)
    assert scene.follower.is_live


@pytest.mark.parametrize("heard", [b"-NOPERM no\r\n", b"+OK\r\n", b"*1\r\n:1\r\n", b"?what\r\n"])
def test_reply_not_understood_gives_up(heard: bytes) -> None:
    """A refused heartbeat vouches for nothing."""
    scene = Scene()
    scene.go_live()
    scene.follower.tick(START + BOUND // 4)
    scene.follower.received(heard, START)
    assert scene.follower.gave_up is not None
    assert scene.store.lane_fresh_until(0) == 0


def test_reply_nobody_asked_for_gives_up() -> None:
    """The queue of replies and the connection are out of step."""
    scene = Scene()
    scene.go_live()
    scene.follower.received(b"+OK\r\n", START)
    assert "nobody asked for" in str(scene.follower.gave_up)


def test_connected_again_after_giving_up_starts_afresh() -> None:
    """Half a frame of the old connection is forgotten with it."""
    scene = Scene()
    scene.go_live()
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk")[:20], START)
    scene.follower.lost("reset")
    scene.go_live()
    assert scene.follower.gave_up is None
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk"), START)
    assert scene.lanes[0].position is not None
    assert scene.lanes[0].position.wid == 4


# -- messages


def test_message_in_pieces_drops_the_entry() -> None:
    """However the bytes are cut."""
    scene = Scene()
    scene.go_live()
    fill(scene.store, "k", "old")
    assert scene.store["k"] == "old"
    data = push(0, "S", 1, 3, 4, b"sk")
    for at in range(len(data)):
        assert scene.store["k"] == "old"
        scene.follower.received(data[at : at + 1], START)
    assert "k" not in scene.store
    assert scene.follower.dropped[0] == 1


def test_message_of_each_lane_concerns_that_lane() -> None:
    """They are told apart by the channel."""
    scene = Scene(2)
    scene.go_live()
    scene.follower.received(push(1, "S", 1, 3, 4, b"sk") + push(0, "S", 1, 3, 5, b"sk"), START)
    assert [lane.position.wid for lane in scene.lanes if lane.position] == [5, 4]
    assert [lane.counters.gaps for lane in scene.lanes] == [0, 0]


@pytest.mark.parametrize("heard", [b"$3\r\nfoo\r\n", b"$7\r\nmessage\r\n"])
def test_push_of_another_kind_or_channel_gives_up(heard: bytes) -> None:
    """Nobody knows what it announced."""
    scene = Scene(2)
    scene.go_live()
    scene.follower.received(b">3\r\n" + heard + bulk(b"elsewhere", b"x"), START)
    assert scene.follower.gave_up is not None
    assert all(lane.state is State.DOWN for lane in scene.lanes)


def test_bad_message_on_one_lane_takes_all_lanes_of_the_connection_down() -> None:
    """The connection is given up, so none of them is heard any more."""
    scene = Scene(2)
    scene.go_live()
    stamp = scene.store.lane_stamp(1)
    scene.follower.received(b">3\r\n" + bulk(b"message", b"nc:{t:0}:i", b"nonsense"), START)
    assert scene.follower.gave_up is not None
    assert [lane.state for lane in scene.lanes] == [State.DOWN] * 2
    assert [scene.store.lane_fresh_until(number) for number in range(2)] == [0, 0]
    assert scene.store.lane_stamp(1) > stamp
    assert scene.lanes[0].counters.bad_frames == 1


def test_message_with_a_key_that_cannot_be_decoded_gives_up() -> None:
    """It may have meant any key."""
    scene = Scene()
    scene.go_live()
    scene.follower.received(push(0, "S", 1, 3, 4, b"s\xff"), START)
    assert "not UTF-8" in str(scene.follower.gave_up)
    assert scene.lanes[0].counters.bad_frames == 1


def test_message_that_is_too_long_gives_up() -> None:
    """It is not taken apart: that would take as long as whoever sent it likes."""
    scene = Scene()
    scene.go_live()
    scene.follower.received(push(0, "S", 1, 3, 4, *[b"sk"] * 40_000), START)
    assert "is over 131,072" in str(scene.follower.gave_up)
    assert scene.lanes[0].counters.bad_frames == 1


# -- the machine slept


def test_suspended_vouches_only_from_a_heartbeat_sent_afterwards() -> None:
    """What was under way before may be answered from before the others' writes."""
    scene = Scene()
    scene.go_live()
    scene.follower.tick(START + BOUND // 4)
    stamp = scene.store.lane_stamp(0)
    assert len(scene.sent()) == 1
    later = START + BOUND // 4 + 1
    scene.follower.suspended(later)
    assert scene.store.lane_fresh_until(0) == 0
    assert scene.store.lane_stamp(0) == stamp + 1
    assert scene.follower.due_ns() == later
    scene.follower.tick(later)
    assert len(scene.sent()) == 1
    scene.follower.received(standing(0, 3), later)  # to the one from before
    assert scene.store.lane_fresh_until(0) == 0
    scene.follower.received(standing(0, 3), later)
    assert scene.store.lane_fresh_until(0) == later + BOUND - TICK_NS


def test_suspended_before_the_first_reply_stays_dark() -> None:
    """Also when the script has to be sent first: what is sent again is sent afterwards."""
    scene = Scene()
    scene.follower.connected(7, START)
    scene.follower.suspended(START)
    scene.follower.received(standing(0, 3), START)
    assert scene.store.lane_fresh_until(0) == 0
    assert scene.follower.is_live
    scene = Scene()
    scene.follower.connected(7, START)
    scene.follower.suspended(START)
    scene.follower.received(NOSCRIPT + standing(0, 3), START)
    assert scene.store.lane_fresh_until(0) == START + BOUND - TICK_NS


def test_script_whose_reply_concerns_nobody_is_sent_again_only_where_it_is_not_known() -> None:
    """What was carried out, or refused, is not to be carried out twice."""
    scene = Scene()
    scene.go_live()
    for reply, again in ((b":1\r\n", b""), (b"-READONLY no\r\n", b""), (NOSCRIPT, b"EVAL\r\n")):
        scene.follower.run(load_script("renew"), [b"l"], [b"token", b"9"])
        assert b"EVALSHA" in scene.follower.outgoing
        scene.follower.outgoing.clear()
        scene.follower.received(reply, START)
        assert again in scene.follower.outgoing
        assert bool(scene.follower.outgoing) is bool(again)


def test_suspended_without_a_connection_does_nothing_yet() -> None:
    """Nothing is due until there is one."""
    scene = Scene()
    scene.follower.suspended(START)
    assert scene.follower.due_ns() is None


# -- other requests


def test_request_is_answered_in_order_with_the_heartbeats() -> None:
    """One queue for all replies; messages may stand between them."""
    scene = Scene()
    scene.go_live()
    got: list[Any] = []
    scene.follower.request(b"*1\r\n$1\r\na\r\n", lambda reply, now_ns: got.append((reply, now_ns)))
    scene.follower.tick(START + BOUND // 4)
    scene.follower.request(b"*1\r\n$1\r\nb\r\n", lambda reply, now_ns: got.append((reply, now_ns)))
    assert names_of(scene.sent()) == [b"a", b"EVALSHA", b"b"]
    heard = b"+first\r\n" + push(0, "S", 1, 3, 4, b"sk") + standing(1, 4) + b"-OOM full\r\n"
    scene.follower.received(heard, START + 9)
    assert got[0] == (b"first", START + 9)
    assert isinstance(got[1][0], ServerReplyError)
    assert got[1][0].code == "OOM"
    assert scene.lanes[0].counters.gaps == 0
    assert scene.follower.gave_up is None


def test_request_without_a_reply_is_told_when_the_connection_ends() -> None:
    """Once; and one callback that fails does not keep the others from being called."""
    scene = Scene()
    scene.go_live()
    got: list[Any] = []

    def fail(reply: Any, now_ns: int) -> None:
        raise ValueError("mine")

    scene.follower.request(b"", fail)
    scene.follower.request(b"", lambda reply, now_ns: got.append(reply))
    scene.follower.lost("reset")
    scene.follower.lost("reset again")
    assert [type(reply) for reply in got] == [ConnectionError]


def test_request_whose_callback_fails_gives_up() -> None:
    """What should have been done with the reply was not."""
    scene = Scene()
    scene.go_live()

    def fail(reply: Any, now_ns: int) -> None:
        raise MemoryError

    scene.follower.request(b"", fail)
    scene.follower.received(b"+OK\r\n", START)
    assert "MemoryError" in str(scene.follower.gave_up)
