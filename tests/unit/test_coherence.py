"""The coherence core, driven by scripted events: every transition, and every way to lose a message."""

from __future__ import annotations

import random

import pytest

from nearcache.clocks import TICK_NS
from nearcache.coherence import (
    Action,
    Apply,
    Attach,
    Detach,
    Forked,
    Lane,
    Reconnect,
    State,
    Suspect,
    Vouch,
    pack_message,
)

SECOND = 1_000_000_000
BOUND = 2 * SECOND
EPOCH, GENERATION = 0xE, 0x9


def reply(seq: int, wid: int, *, epoch: int = EPOCH, generation: int = GENERATION) -> list[bytes]:
    """What the heartbeat script returns."""
    return [b"%016x" % epoch, b"%d" % seq, b"%016x" % wid, b"%016x" % generation, b"1"]


def message(seq: int, prev: int, wid: int, *, op: str = "S", keys: tuple[bytes, ...] = (b"sk",)) -> bytes:
    """A payload on the channel."""
    return pack_message(op, EPOCH, seq, prev, wid, [] if op == "C" else list(keys))


def live_lane(seq: int = 5, wid: int = 50) -> Lane:
    """A lane that has heard everything up to a position."""
    lane = Lane(BOUND)
    lane.connected(identity=7)
    lane.heartbeat_sent(0)
    lane.heartbeat_reply(reply(seq, wid), 0)
    assert lane.state is State.LIVE
    return lane


# -- connecting


def test_lane_at_the_start_is_down_and_vouches_for_nothing() -> None:
    """Nothing is believed before the first proof."""
    lane = Lane(BOUND)
    assert (lane.state, lane.fresh_until_ns, lane.generation) == (State.DOWN, 0, None)


def test_connected_makes_everything_suspect_and_attaches_nothing() -> None:
    """Between subscribing and the first fence messages may have been missed, so nothing may be stored."""
    lane = Lane(BOUND)
    assert lane.connected(identity=7) == [Detach(), Suspect()]
    assert lane.state is State.SYNC


def test_first_heartbeat_reply_becomes_the_baseline() -> None:
    """The position is taken from the server, and results read from that server may be stored from now on."""
    lane = Lane(BOUND)
    lane.connected(identity=7)
    lane.heartbeat_sent(1000)
    assert lane.heartbeat_reply(reply(5, 50), 0) == [Attach(7), Forked(EPOCH, {}, 5), Vouch(1000 + BOUND - TICK_NS)]
    assert lane.counters.forks == 0
    assert lane.state is State.LIVE
    assert lane.generation == GENERATION


def test_vouching_counts_from_when_the_heartbeat_was_sent() -> None:
    """The reply may have taken long; only the instant of sending is known to be covered."""
    lane = live_lane()
    lane.heartbeat_sent(3 * SECOND)
    assert lane.heartbeat_reply(reply(5, 50), 0) == [Vouch(3 * SECOND + BOUND - TICK_NS)]


def test_replies_answer_heartbeats_in_the_order_of_sending() -> None:
    """Two heartbeats out: the first reply vouches from the first."""
    lane = live_lane()
    lane.heartbeat_sent(10)
    lane.heartbeat_sent(20)
    assert lane.heartbeat_reply(reply(5, 50), 0) == [Vouch(10 + BOUND - TICK_NS)]
    assert lane.heartbeat_reply(reply(5, 50), 0) == [Vouch(20 + BOUND - TICK_NS)]


def test_message_before_the_baseline_still_poisons() -> None:
    """In SYNC there is no chain to check, but what is in flight must not survive the message."""
    lane = Lane(BOUND)
    lane.connected(identity=7)
    assert lane.message(message(3, 1, 30)) == [Apply(30, [b"sk"])]
    assert lane.state is State.SYNC


# -- the chain


def test_message_that_continues_the_chain_is_applied() -> None:
    """Same epoch, next number, and it names the write before it."""
    lane = live_lane()
    assert lane.message(message(6, 50, 60)) == [Apply(60, [b"sk"])]
    assert lane.message(message(7, 60, 70)) == [Apply(70, [b"sk"])]
    assert lane.counters.gaps == 0


@pytest.mark.parametrize(
    ("seq", "prev", "epoch"),
    [(7, 60, EPOCH), (6, 51, EPOCH), (5, 50, EPOCH), (6, 50, EPOCH + 1), (1, 0, EPOCH)],
    ids=["one lost", "other predecessor", "repeated", "other epoch", "restarted"],
)
def test_message_that_breaks_the_chain_makes_everything_suspect(seq: int, prev: int, epoch: int) -> None:
    """Tolerance for gaps is zero, and the message itself is applied all the same."""
    lane = live_lane()
    payload = pack_message("I", epoch, seq, prev, 99, [b"sk"])
    assert lane.message(payload) == [Suspect(), Apply(99, [b"sk"])]
    assert lane.counters.gaps == 1


def test_chain_goes_on_from_the_message_after_a_gap() -> None:
    """One loss is one suspicion, not one per message from then on."""
    lane = live_lane()
    lane.message(message(8, 70, 80))
    assert lane.message(message(9, 80, 90)) == [Apply(90, [b"sk"])]
    assert lane.counters.gaps == 1


def test_generation_after_a_gap_is_unknown_until_a_heartbeat() -> None:
    """What was lost may have been a clear, or the lane's record with all that was sealed in its time."""
    lane = live_lane(5, 50)
    lane.message(message(8, 79, 80))
    assert lane.generation is None
    lane.heartbeat_sent(0)
    assert lane.heartbeat_reply(reply(8, 80, generation=0x77), 0) == [Vouch(BOUND - TICK_NS)]
    assert lane.generation == 0x77


def test_other_generation_at_the_same_position_makes_everything_suspect() -> None:
    """Whatever was read under the old one is dead, however that came about."""
    lane = live_lane(5, 50)
    lane.heartbeat_sent(0)
    assert lane.heartbeat_reply(reply(5, 50, generation=0x77), 0) == [Suspect(), Vouch(BOUND - TICK_NS)]


def test_lost_last_message_is_found_by_the_heartbeat() -> None:
    """No further message comes that could break the chain; the fence compares positions."""
    lane = live_lane()
    lane.heartbeat_sent(SECOND)
    assert lane.heartbeat_reply(reply(6, 60), 0) == [Suspect(), Vouch(SECOND + BOUND - TICK_NS)]
    assert (lane.counters.gaps, lane.counters.forks) == (1, 0)
    assert lane.message(message(7, 60, 70)) == [Apply(70, [b"sk"])]


def test_failover_that_reuses_the_sequence_number_is_found_by_the_write_id() -> None:
    """Same epoch, same number, another write: numbers alone would hide it."""
    lane = live_lane()
    lane.heartbeat_sent(SECOND)
    assert Suspect() in lane.heartbeat_reply(reply(5, 51), 0)
    lane = live_lane()
    assert Suspect() in lane.message(message(6, 51, 60))


def test_other_epoch_in_a_heartbeat_makes_everything_suspect() -> None:
    """The lane record was flushed, evicted or made anew."""
    lane = live_lane()
    lane.heartbeat_sent(SECOND)
    assert Suspect() in lane.heartbeat_reply(reply(5, 50, epoch=EPOCH + 1, generation=GENERATION + 1), 0)
    assert lane.generation == GENERATION + 1
    assert (lane.counters.gaps, lane.counters.forks) == (1, 1)


def test_clear_sets_the_generation_and_makes_everything_suspect() -> None:
    """A clear names no keys; its write id is the new generation."""
    lane = live_lane()
    assert lane.message(message(6, 50, 60, op="C")) == [Suspect()]
    assert lane.generation == 60


def test_own_clear_does_not_suspect_what_was_written_since() -> None:
    """The process that clears drops its entries itself, when the clear is acknowledged; its message comes later."""
    lane = live_lane()
    lane.expect_clear(60)
    lane.cleared(60, now_ns=SECOND)
    assert lane.message(message(6, 50, 60, op="C")) == []
    assert lane.generation == 60
    assert lane.message(message(7, 60, 70, op="C")) == [Suspect()]


def test_own_clear_heard_before_its_call_has_returned_is_anybodys() -> None:
    """Another lane may keep the call waiting, and nothing has been dropped by then."""
    lane = live_lane()
    lane.expect_clear(60)
    assert lane.message(message(6, 50, 60, op="C")) == [Suspect()]
    assert lane.generation == 60


def test_own_clear_that_has_dropped_nothing_is_anybodys() -> None:
    """Who pays for a clear that was owed drops nothing, and L1 may hold what was stored before it was paid."""
    lane = live_lane()
    lane.expect_clear(60)
    lane.cleared(60, now_ns=SECOND, has_dropped=False)
    assert lane.generation is None
    assert lane.message(message(6, 50, 60, op="C")) == [Suspect()]
    assert lane.generation == 60


def test_generation_is_not_known_while_an_own_clear_is_unheard() -> None:
    """An older clear of others, or an older heartbeat, must not bring back what the own one has ended."""
    lane = live_lane()
    lane.heartbeat_sent(SECOND)
    lane.expect_clear(70)
    lane.cleared(70, now_ns=2 * SECOND)
    assert lane.message(message(6, 50, 60, op="C")) == [Suspect()]
    assert lane.generation is None
    lane.heartbeat_reply(reply(6, 60, generation=60), 0)
    assert lane.generation is None
    assert lane.message(message(7, 60, 70, op="C")) == []
    assert lane.generation == 70


def test_own_clear_whose_message_is_lost_is_forgotten_at_a_heartbeat_sent_after_it() -> None:
    """The reply knows of it, whatever has become of the message."""
    lane = live_lane()
    lane.expect_clear(70)
    lane.cleared(70, now_ns=SECOND)
    lane.heartbeat_sent(2 * SECOND)
    assert Suspect() in lane.heartbeat_reply(reply(6, 70, generation=70), 0)
    assert lane.generation == 70


def test_own_clear_after_a_lost_connection_is_anybodys() -> None:
    """Nothing that was expected before a disconnection is believed after it."""
    lane = live_lane()
    lane.expect_clear(60)
    lane.lost("EOF")
    lane.connected(identity=7)
    assert lane.message(message(6, 50, 60, op="C")) == [Suspect()]


def test_heartbeat_that_has_gone_back_in_its_epoch_tells_what_was_lost() -> None:
    """A proxy hid that another primary took over, but numbers do not go back by themselves."""
    lane = live_lane()
    lane.message(message(6, 50, 60))
    lane.heartbeat_sent(SECOND)
    actions = lane.heartbeat_reply(reply(5, 50), 0)
    assert Suspect() in actions
    assert Forked(EPOCH, {EPOCH: 5}, 5) in actions


# -- faults


@pytest.mark.parametrize(
    "payload",
    [b"", b"nonsense", b"S x y z", message(6, 50, 60)[:-1], b"Z" + message(6, 50, 60)[1:], message(6, 50, 60) + b"1:"],
)
def test_bad_frame_gives_up_the_connection(payload: bytes) -> None:
    """What cannot be understood may have named any key."""
    lane = live_lane()
    actions = lane.message(payload)
    assert actions[:2] == [Detach(), Suspect()]
    assert isinstance(actions[2], Reconnect)
    assert lane.state is State.DOWN
    assert lane.counters.bad_frames == 1


@pytest.mark.parametrize(
    "answer",
    [
        None, b"x", [], [None] * 5, [b"zz", b"1", b"0", b"0"], ValueError("READONLY"),
        [b"-1", b"1", b"0", b"1"], [b"1", b"-1", b"0", b"1"], [b"1", b"1", b"-1", b"1"], [b"1", b"1", b"0", b"-1"],
        [b"f" * 17, b"1", b"0", b"1"], [b"1", b"9" * 20, b"0", b"1"], [b"1", b"1", b"f" * 17, b"1"],
        [b"1", b"1", b"0", b"f" * 17],
    ],
)  # fmt: skip
def test_heartbeat_refused_gives_up_the_connection(answer: object) -> None:
    """A replica, or a primary that must not accept writes, vouches for nothing."""
    lane = live_lane()
    lane.heartbeat_sent(SECOND)
    actions = lane.heartbeat_reply(answer, 0)
    assert actions[:2] == [Detach(), Suspect()]
    assert isinstance(actions[2], Reconnect)
    assert lane.fresh_until_ns == 0


def test_reply_nobody_asked_for_gives_up_the_connection() -> None:
    """The stream is out of step, so no later reply could be matched to its heartbeat."""
    lane = live_lane()
    assert isinstance(lane.heartbeat_reply(reply(5, 50), 0)[-1], Reconnect)


def test_lost_connection_makes_everything_suspect_and_stops_vouching() -> None:
    """Pub/sub is at most once: what was published meanwhile is gone."""
    lane = live_lane()
    assert lane.lost("EOF") == [Detach(), Suspect()]
    assert (lane.state, lane.fresh_until_ns, lane.position, lane.last_error) == (State.DOWN, 0, None, "EOF")


def test_heartbeat_without_reply_is_overdue_after_the_timeout() -> None:
    """A half-open link answers nothing, however healthy its socket looks."""
    lane = live_lane()
    lane.heartbeat_sent(SECOND)
    lane.heartbeat_sent(SECOND + lane.heartbeat_ns)
    assert not lane.overdue(SECOND + lane.reply_timeout_ns - 1)
    assert lane.overdue(SECOND + lane.reply_timeout_ns)
    assert lane.deadline_ns() == SECOND + lane.reply_timeout_ns


def test_heartbeat_whose_script_was_unknown_does_not_vouch() -> None:
    """It did not run; only the one sent in its place counts."""
    lane = Lane(BOUND)
    lane.connected(identity=7)
    lane.heartbeat_sent(10)
    lane.forget_heartbeat()
    lane.heartbeat_sent(20)
    assert lane.heartbeat_reply(reply(5, 50), 0)[-1] == Vouch(20 + BOUND - TICK_NS)


def test_bound_is_more_than_a_heartbeat_and_its_timeout() -> None:
    """In health L1 never goes dark between heartbeats: B >= interval + 10 % + reply time-out."""
    lane = Lane(BOUND)
    assert lane.heartbeat_ns * 1.1 + lane.reply_timeout_ns < lane.bound_ns


# -- all of it, at random


@pytest.mark.parametrize("seed", range(20))
def test_random_history_with_losses_never_believes_past_a_lost_message(seed: int) -> None:
    """Whatever is lost, repeated or cut, when a fence vouches, nothing unsuspected has been missed.

    A model server commits writes to keys and publishes them; the channel may lose messages or be cut. The model
    client keeps a set of keys it believes in, as L1 would. At every Vouch each believed key must be current at the
    position that the fence saw.
    """
    world = _World(random.Random(seed))
    for _ in range(3000):
        world.step()
    assert world.vouched > 50
    assert world.losses > 20


class _World:
    """One server, one lane, a channel that loses messages."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lane = Lane(BOUND)
        self.wids = [0]
        self.newest: dict[str, int] = {}
        self.believed: dict[str, int] = {}
        self.attached = False
        self.channel: list[bytes | tuple[list[bytes], dict[str, int]]] = []
        self.now = self.vouched = self.losses = 0

    def step(self) -> None:
        """One random event."""
        self.now += 1
        event = self.rng.choices(
            [self.write, self.deliver, self.lose, self.beat, self.read, self.cut], [6, 12, 1, 3, 6, 0.3]
        )[0]
        event()

    def write(self) -> None:
        key = self.rng.choice("abcdef")
        prev, wid = self.wids[-1], self.rng.getrandbits(63) + 1
        self.wids.append(wid)
        self.newest[key] = wid
        if self.lane.state is not State.DOWN:
            self.channel.append(pack_message("S", EPOCH, len(self.wids) - 1, prev, wid, [b"s" + key.encode()]))

    def read(self) -> None:
        key = self.rng.choice("abcdef")
        if self.attached and key in self.newest:
            self.believed[key] = self.newest[key]

    def beat(self) -> None:
        if self.lane.state is State.DOWN:
            self.perform(self.lane.connected(identity=1))
        self.lane.heartbeat_sent(self.now)
        self.channel.append((reply(len(self.wids) - 1, self.wids[-1]), dict(self.newest)))

    def deliver(self) -> None:
        if not self.channel:
            return
        item = self.channel.pop(0)
        if isinstance(item, bytes):
            self.perform(self.lane.message(item))
            return
        answer, truth = item
        actions = self.lane.heartbeat_reply(answer, 0)
        self.perform(actions)
        for action in actions:
            if isinstance(action, Vouch):
                self.vouched += 1
                for key, wid in self.believed.items():
                    # Either current at the fence, or read after the fence was answered.
                    assert self.wids.index(wid) >= self.wids.index(truth.get(key, 0))

    def lose(self) -> None:
        if self.channel and isinstance(self.channel[0], bytes):
            self.channel.pop(0)
            self.losses += 1

    def cut(self) -> None:
        self.channel.clear()
        self.perform(self.lane.lost("cut"))

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Suspect):
                self.believed.clear()
            elif isinstance(action, Attach):
                self.attached = True
            elif isinstance(action, Detach):
                self.attached = False
            elif isinstance(action, Apply):
                for key in action.keys:
                    name = key[1:].decode()
                    if self.believed.get(name) != action.wid:
                        self.believed.pop(name, None)
