"""A follower whose lanes come and go: what a node of a cluster would see and say, without sockets and time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from nearcache.bus import Followed, RoamingListener
from nearcache.bus.roaming import RoamingFollower
from nearcache.coherence import State
from nearcache.errors import ServerReplyError
from support.followers import (
    BOUND,
    EPOCH,
    GENERATION,
    NOSCRIPT,
    START,
    Heartbeat,
    Scene,
    fill,
    lent,
    listener_of,
    names_of,
    push,
    standing,
)  # fmt: skip
from support.hearsay import bulk
from support.threads import PATIENCE


class Roaming(Scene):
    """The same scene with a follower that lanes can leave."""

    def __init__(self, lanes: int = 2) -> None:
        super().__init__(lanes)
        self.all = [Followed(number, lane, self.names[number]) for number, lane in enumerate(self.lanes)]
        self.follower: RoamingFollower = RoamingFollower(
            lambda: self.store, self.all, Heartbeat(), uniform=lambda low, high: (low + high) / 2,
            nonce=lambda: b"%016x" % next(self.nonces), watched=self.watched,
            **lent(lambda: self.store, lanes),
        )  # fmt: skip

    def go_live(self) -> None:
        self.follower.connected(7, START)
        self.sent()
        self.hear(*(subscribed(number) for number in range(len(self.lanes))), *(standing(0, 3) for _ in self.lanes))
        assert self.follower.is_live

    def hear(self, *frames: bytes, at_ns: int = START) -> None:
        """Let the server say these."""
        self.follower.received(b"".join(frames), at_ns)

    @property
    def left(self) -> list[tuple[int, str]]:
        """Which lanes have left, and why."""
        return [(number, str(reason)) for number, reason in self.follower.left]


def subscribed(lane: int, kind: bytes = b"ssubscribe") -> bytes:
    """What a server says to a subscription, or to its end."""
    return b">3\r\n" + bulk(kind, b"nc:{t:%d}:i" % lane) + b":1\r\n"


#: Of lane 1.
CHANNEL = b"nc:{t:1}:i"
TAKEN_BACK = subscribed(1, b"sunsubscribe")


def sharded(message: bytes) -> bytes:
    """A message as it comes on a sharded channel."""
    return message.replace(b"$7\r\nmessage", b"$8\r\nsmessage")


def test_connected_subscribes_each_channel_by_itself() -> None:
    """Several at once would be an error, for they lie in several slots; then the heartbeats, by script."""
    scene = Roaming()
    scene.follower.connected(7, START)
    sent = scene.sent()
    assert [command[:2] for command in sent[:2]] == [[b"SSUBSCRIBE", b"nc:{t:0}:i"], [b"SSUBSCRIBE", b"nc:{t:1}:i"]]
    assert names_of(sent[2:]) == [b"EVALSHA", b"EVALSHA"]


def test_messages_sharded_or_not_are_applied() -> None:
    """In the compiled way and in the other."""
    scene = Roaming()
    scene.go_live()
    for blind in (False, True):
        scene.follower.inbox.blind = blind
        fill(scene.store, "k", "old", lane=1)
        seq = scene.lanes[1].position.seq if scene.lanes[1].position else 0
        prev = scene.lanes[1].position.wid if scene.lanes[1].position else 0
        scene.hear(sharded(push(1, "S", seq + 1, prev, 40 + seq, b"sk")))
        assert scene.store.peek("k", None) is None
    assert scene.left == []


def test_heartbeats_after_the_first_are_one_script_and_plain_reads() -> None:
    """The script stands in front; what comes back vouches all the same."""
    scene = Roaming(3)
    scene.go_live()
    at_ns = scene.follower.due_ns() or 0
    scene.follower.tick(at_ns)
    sent = scene.sent()
    assert names_of(sent) == [b"EVALSHA", b"HMGET", b"HMGET"]
    assert sent[1] == [b"HMGET", b"nc:{t:1}:L", b"e", b"s", b"w", b"g", b"r", b"h"]
    before = scene.store.lane_fresh_until(2)
    plain = b"*6\r\n" + bulk(b"%016x" % EPOCH, b"0", b"%016x" % 3, b"%016x" % GENERATION, b"1") + b"$-1\r\n"
    scene.hear(standing(0, 3), plain, plain, at_ns=at_ns)
    assert scene.store.lane_fresh_until(2) > before
    assert scene.left == []


def test_heartbeat_script_refused_ends_them_all() -> None:
    """A server that must not be written to vouches for nothing, and a plain read would not tell."""
    scene = Roaming(2)
    scene.go_live()
    scene.follower.tick(scene.follower.due_ns() or 0)
    scene.hear(b"-NOREPLICAS Not enough good replicas to write.\r\n")
    assert "NOREPLICAS" in str(scene.follower.gave_up)
    assert [scene.store.lane_fresh_until(lane) for lane in (0, 1)] == [0, 0]


@pytest.mark.parametrize("reason", [b"MOVED 0 h:1", b"ASK 0 h:1", b"TRYAGAIN x", b"CLUSTERDOWN x"])
def test_heartbeat_answered_elsewhere_that_lane_leaves(reason: bytes) -> None:
    """The other goes on, and answers still belong to whom they are for."""
    scene = Roaming(3)
    scene.go_live()
    scene.follower.tick(scene.follower.due_ns() or 0)
    scene.sent()
    scene.hear(standing(0, 3), b"-" + reason + b"\r\n", standing(0, 3))
    assert [number for number, _ in scene.left] == [1]
    assert isinstance(scene.follower.left[0][1], ServerReplyError)
    assert scene.store.lane_fresh_until(1) == 0
    assert scene.lanes[1].state is State.DOWN
    assert [lane.state for lane in (scene.lanes[0], scene.lanes[2])] == [State.LIVE, State.LIVE]
    assert scene.sent() == [[b"SUNSUBSCRIBE", CHANNEL], [b"PING", CHANNEL]]
    scene.hear(subscribed(1, b"sunsubscribe"), bulk(CHANNEL))
    assert len(scene.left) == 1
    assert scene.follower.gave_up is None


def test_unsubscribed_by_the_server_is_a_disconnection_of_that_lane() -> None:
    """What it held is suspect, and dark at once; late messages and heartbeats of it say nothing."""
    scene = Roaming()
    scene.go_live()
    fill(scene.store, "k", "old", lane=1)
    scene.follower.tick(scene.follower.due_ns() or 0)
    scene.sent()
    scene.hear(subscribed(1, b"sunsubscribe"))
    assert [number for number, _ in scene.left] == [1]
    assert scene.store.get("k") is None
    assert scene.store.l1_suspect("k") is not None
    assert scene.sent() == []
    scene.hear(standing(0, 3), standing(0, 3), sharded(push(1, "S", 1, 3, 4, b"sk")))
    assert scene.store.lane_fresh_until(1) == 0
    assert scene.follower.gave_up is None


def test_join_begins_with_a_subscription_and_the_script() -> None:
    """The lane is vouched for from its own first heartbeat on; those of before it left do not count."""
    scene = Roaming()
    scene.go_live()
    scene.follower.tick(scene.follower.due_ns() or 0)
    scene.sent()
    scene.follower.leave(scene.all[1], "elsewhere")
    again = Followed(*scene.all[1])
    scene.follower.join(again, START + 10)
    assert names_of(scene.sent()) == [b"SUNSUBSCRIBE", b"PING", b"SSUBSCRIBE", b"EVALSHA"]
    scene.hear(standing(0, 3), standing(0, 3))  # of before
    assert scene.store.lane_fresh_until(1) == 0
    scene.hear(subscribed(1, b"sunsubscribe"), bulk(CHANNEL), subscribed(1), standing(0, 3))
    assert scene.lanes[1].state is State.LIVE
    assert scene.store.lane_fresh_until(1) > START + 10
    scene.hear(sharded(push(1, "S", 1, 3, 4, b"sk")))
    assert scene.lanes[1].counters.received == 1
    assert scene.follower.gave_up is None


@pytest.mark.parametrize("returns", [False, True])
@pytest.mark.parametrize(
    "end", [[TAKEN_BACK], [b"-MOVED 0 h:1\r\n"], [TAKEN_BACK, b"-MOVED 0 h:1\r\n"], [TAKEN_BACK] * 2]
)
def test_subscription_that_ends_asked_for_and_unasked_gets_nothing_out_of_step(end: list[bytes], returns: bool) -> None:
    """Both look the same. What was asked for behind it is answered to whom it is for, the lane's own return too."""
    scene = Roaming()
    scene.go_live()
    scene.follower.leave(scene.all[1], "elsewhere")
    if returns:
        scene.follower.join(Followed(*scene.all[1]), START)
    reached: list[State] = []
    scene.follower.fence(0, START, lambda: reached.append(scene.lanes[0].state))
    scene.hear(*end, bulk(CHANNEL))
    assert reached == []
    scene.hear(*[subscribed(1), standing(0, 3)] * returns, standing(0, 3))
    assert reached == [State.LIVE]
    assert scene.lanes[1].state is (State.LIVE if returns else State.DOWN)
    assert [number for number, _ in scene.left] == [1]
    assert scene.follower.gave_up is None


def test_end_of_a_subscription_without_its_echo_ends_the_connection() -> None:
    """A server that refuses that too (BUSY) has answered something else, and whose the rest is nobody knows."""
    scene = Roaming()
    scene.go_live()
    scene.follower.leave(scene.all[1], "elsewhere")
    scene.follower.fence(0, START, lambda: None)
    scene.hear(b"-BUSY x\r\n", b"-BUSY x\r\n", standing(0, 3))
    assert "the end of a subscription" in str(scene.follower.gave_up)
    assert scene.store.lane_fresh_until(0) == 0


def test_subscription_refused_the_lane_leaves_and_nothing_gets_out_of_step() -> None:
    """An error reply comes where a push was expected."""
    scene = Roaming()
    scene.follower.connected(7, START)
    scene.sent()
    scene.hear(b"-MOVED 0 h:1\r\n", subscribed(1), standing(0, 3), standing(0, 3))
    assert [number for number, _ in scene.left] == [0]
    assert scene.lanes[1].state is State.LIVE
    assert scene.store.lane_fresh_until(0) == 0
    assert scene.follower.gave_up is None


def test_server_without_sharded_messages_is_subscribed_plainly() -> None:
    """Heartbeats that were sent before the subscription say nothing."""
    scene = Roaming()
    scene.follower.connected(7, START)
    scene.sent()
    scene.hear(*[b"-ERR unknown command `SSUBSCRIBE`, with args beginning with: \r\n"] * 2)
    sent = scene.sent()
    assert names_of(sent) == [b"SUBSCRIBE", b"EVALSHA", b"SUBSCRIBE", b"EVALSHA"]
    scene.hear(standing(0, 3), standing(0, 3))  # of before
    assert [lane.state for lane in scene.lanes] == [State.SYNC, State.SYNC]
    for lane in (0, 1):
        scene.hear(subscribed(lane, b"subscribe"), standing(0, 3))
    assert scene.follower.is_live
    scene.hear(push(1, "S", 1, 3, 4, b"sk"))
    assert scene.lanes[1].counters.received == 1
    assert scene.left == []


def test_no_script_is_sent_in_full_for_the_lane_that_asked() -> None:
    """As with any follower."""
    scene = Roaming(1)
    scene.follower.connected(7, START)
    scene.sent()
    scene.hear(subscribed(0), NOSCRIPT)
    assert names_of(scene.sent()) == [b"EVAL"]
    scene.hear(standing(0, 3))
    assert scene.follower.is_live


def test_who_waits_for_a_key_is_woken_when_the_lane_leaves() -> None:
    """And nobody begins to wait, or asks for a fence, where the lane is not any more."""
    scene = Roaming()
    scene.go_live()
    woken: list[Any] = []
    assert scene.follower.await_key(1, b"sk", lambda: woken.append("key"))
    scene.follower.fence(1, START, lambda: woken.append("fence"))
    scene.hear(subscribed(1, b"sunsubscribe"))
    assert woken == ["key"]
    scene.hear(standing(0, 3))
    assert woken == ["key", "fence"]
    assert not scene.follower.await_key(1, b"sk", lambda: woken.append("late"))
    scene.follower.fence(1, START, lambda: woken.append("at once"))
    assert woken == ["key", "fence", "at once"]
    assert not scene.follower.follows(1)
    assert scene.follower.follows(0)


def test_bad_message_one_lane_leaves() -> None:
    """The others of the connection are not to blame."""
    scene = Roaming()
    scene.go_live()
    scene.hear(b">3\r\n" + bulk(b"smessage", b"nc:{t:1}:i", b"what?"))
    assert [number for number, _ in scene.left] == [1]
    assert scene.lanes[0].state is State.LIVE


def test_connection_lost_all_lanes_are_down() -> None:
    """And a heartbeat that stays unanswered is such a loss, whosever it was."""
    scene = Roaming()
    scene.go_live()
    scene.follower.tick(scene.follower.due_ns() or 0)
    scene.follower.tick((scene.follower.due_ns() or 0) + BOUND)
    assert scene.follower.gave_up == "no reply to a heartbeat"
    assert [lane.state for lane in scene.lanes] == [State.DOWN, State.DOWN]
    assert scene.left == []


class Nodes:
    """A cluster of one node, which nobody can connect to."""

    def place_of(self, lane: int) -> int:
        return 5

    def connect_listener(self, place: int) -> Any:
        raise ConnectionRefusedError

    def name_of(self, place: int) -> str:
        return f"node {place}"

    def search(self) -> None:
        """There is nothing to find out."""


@pytest.mark.parametrize("when", ["put on a connection", "turned away"])
def test_child_forked_while_a_lane_is_between_two_places_follows_it(when: str) -> None:
    """The parent's thread does not go on in the child: what it had in hand is looked for anew, as all else is."""
    scene = Scene(2)
    nodes: Any = Nodes()
    listener = listener_of(scene.store, nodes, scene.lanes, RoamingListener)
    try:
        listener._connect_missing()
        (connection,) = listener._connections
        assert [each.number for each in connection.follower.followed] == [0, 1]
        if when == "turned away":
            listener._follower_at(connection).leave(connection.follower.followed[0], "the slot has gone")
        else:
            connection.follower.followed = connection.follower.followed[1:]
        listener.after_fork()
        assert [listener.await_key(lane, b"sk", lambda: None) for lane in (0, 1)] == [False, False]
        listener._connect_missing()
        assert [each.number for each in listener._connections[0].follower.followed] == [0, 1]
    finally:
        listener.stop()


def test_lane_that_is_nowhere_has_no_place_in_its_history() -> None:
    """Who asks in the moment in which it comes to its connection is told so, and keeps nothing."""
    scene = Scene(1)
    nodes: Any = Nodes()
    listener = listener_of(scene.store, nodes, scene.lanes, RoamingListener)
    assert listener.place(0) is None
    listener.stop()


class Resting:
    """The same cluster at instants of the test's choosing: it counts who calls."""

    def __init__(self) -> None:
        self.now_ns = START
        self.dialled_ns: list[int] = []

    def connect_listener(self, place: int) -> Any:
        self.dialled_ns.append(self.now_ns)
        raise ConnectionRefusedError

    place_of, name_of, search = Nodes.place_of, Nodes.name_of, Nodes.search


def test_node_that_is_dead_is_dialled_after_pauses_that_grow_however_many_lanes_it_has() -> None:
    """Each lane comes back in its own time; the pause is the node's, and whoever reaches it ends it."""
    scene, nodes = Scene(16), Resting()
    source: Any = nodes
    listener = listener_of(scene.store, source, scene.lanes, RoamingListener, clock=lambda: nodes.now_ns)

    def turn() -> None:
        listener._keep_house()
        for connection in listener._connections:
            if connection.connecting:
                listener._arrivals.put(listener._arrivals.get(timeout=PATIENCE))
        listener._take_arrivals()

    try:
        for _ in range(1000):
            turn()
            nodes.now_ns += 10_000_000
        pauses = [(later - sooner) / 1e9 for sooner, later in pairwise(nodes.dialled_ns)]
        assert all(0.4 <= pause <= 0.82 for pause in pauses[5:])
        assert sum(pauses) > 9
        before = len(nodes.dialled_ns)
        listener.hurry(5)
        turn()
        assert len(nodes.dialled_ns) == before + 1
    finally:
        listener.stop()


class Arriving:
    """A connection that was made too late."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_connection_that_is_made_when_its_lanes_have_gone_on_is_closed() -> None:
    """The listener has begun anew meanwhile: followed in two places, a lane would be vouched for by either."""
    scene = Scene(1)
    nodes: Any = Nodes()
    listener = listener_of(scene.store, nodes, scene.lanes, RoamingListener)
    try:
        listener._connect_missing()
        (before,) = listener._connections
        listener._stopping.set()  # so that nobody waits
        listener._recover(RuntimeError("out of order"))
        late: Any = Arriving()
        listener._arrivals.put((before, late))
        listener._take_arrivals()
        assert late.closed
        assert before.link is None
        assert scene.lanes[0].state is State.DOWN
    finally:
        listener.stop()
