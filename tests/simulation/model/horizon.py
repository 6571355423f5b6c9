"""The horizon: no hit is older than B, whatever is lost or hangs (section 2.5, promises 1 and 2 of 2.11).

The lane model has no clock: there, a heartbeat is executed when it is sent. Here time passes between sending,
executing and hearing, in ticks, and messages as well as replies may be held up for ever by a half-open link (row 15)
or by a process that is stopped (row 50), whose readers then go on before its listener does::

    send -----------> execute (fence) -----------> reply
    |<------------------ B ------------------>|
    t_send                               fresh until t_send + B

Property (I1, I2): a hit at time t is on a value that was the newest at some time in [t - B, t].
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

from .engine import Case, Label, Model, Mutant

B = 2


class Bounds(NamedTuple):
    """How much may happen, and how many ticks there are."""

    ticks: int = 0
    writes: int = 0
    beats: int = 0
    losses: int = 0
    hangs: int = 0


class State(NamedTuple):
    """One process and its server. ``written`` holds the time of each write: write n is ``written[n - 1]``.

    ``asked`` are the heartbeats that the server has not executed, by number; ``sent`` the times of those that the
    process waits for. The queue holds ``(seq, 0)`` for a message, ``(seq, number)`` for a reply.
    """

    now: int
    written: tuple[int, ...]
    asked: tuple[int, ...]
    sent: tuple[int, ...]
    queue: tuple[tuple[int, int], ...]
    heard: int
    entry: int | None
    fresh_until: int
    hanging: bool
    beats: int
    left: Bounds


Steps = Iterator[tuple[Label, State]]


class Horizon(Model):
    """See the module."""

    RULES: ClassVar[dict[str, str]] = {
        "horizon": "2.6: no hit at or after fresh_until (row 50)",
        "vouch_from_send": "2.5: fresh_until counts from the send time of the heartbeat, not from its reply (row 15)",
        "vouch_when_answered": "2.5: only a heartbeat that was answered counts, a sent one does not (row 15)",
        "oldest_unanswered": "lane.py: a reply belongs to the oldest heartbeat without one",
        "compare_heartbeat": "2.5: a heartbeat that disagrees makes the lane suspect (row 18)",
        "hear": "R7: a message drops the entry",
    }
    EVENTS = frozenset({"tick", "write", "fill", "send", "execute", "deliver", "lose", "hang", "go on"})

    def initial(self) -> State:
        return State(0, (), (), (), (), 0, None, 0, False, 0, self.bounds)

    def wrong(self, state: State) -> str | None:
        entry = state.entry
        if entry is None or (state.now >= state.fresh_until and "horizon" in self.on):
            return None
        if entry < len(state.written):
            age = state.now - state.written[entry]
            if age > B:
                return f"a hit at {state.now} on write {entry}, which was not the newest for {age} ticks; B is {B}"
        return None

    def events(self, state: State) -> Steps:
        yield from self.tick(state)
        yield from self.write(state)
        yield from self.fill(state)
        yield from self.send(state)
        yield from self.execute(state)
        yield from self.deliver(state)
        yield from self.hang(state)

    def tick(self, state: State) -> Steps:
        """Time passes."""
        if state.now < self.bounds.ticks:
            yield ("tick", state.now + 1), state._replace(now=state.now + 1)

    def write(self, state: State) -> Steps:
        """Another process writes the key; a message is on its way."""
        if state.left.writes:
            written = (*state.written, state.now)
            left = state.left._replace(writes=state.left.writes - 1)
            queue = (*state.queue, (len(written), 0))
            yield ("write", len(written)), state._replace(written=written, queue=queue, left=left)

    def fill(self, state: State) -> Steps:
        """L1 takes what L2 holds. The races of that are the lane model's."""
        if state.entry is None:
            yield ("fill",), state._replace(entry=len(state.written))

    def send(self, state: State) -> Steps:
        """The listener sends a heartbeat."""
        if not state.left.beats:
            return
        number, left = state.beats + 1, state.left._replace(beats=state.left.beats - 1)
        state = state._replace(asked=(*state.asked, number), sent=(*state.sent, state.now), beats=number, left=left)
        if "vouch_when_answered" not in self.on:
            state = state._replace(fresh_until=state.now + B)
        yield ("send", number), state

    def execute(self, state: State) -> Steps:
        """The server executes the heartbeat: its reply comes behind all messages so far."""
        if state.asked:
            queue = (*state.queue, (len(state.written), state.asked[0]))
            yield ("execute", state.asked[0]), state._replace(asked=state.asked[1:], queue=queue)

    def deliver(self, state: State) -> Steps:
        """The next message or reply is heard; or a message is lost."""
        if not state.queue or state.hanging:
            return
        (seq, number), rest = state.queue[0], state.queue[1:]
        if number:
            yield ("deliver", "reply", number), self.answered(state._replace(queue=rest), seq)
            return
        entry = None if "hear" in self.on or seq != state.heard + 1 else state.entry
        yield ("deliver", "message", seq), state._replace(queue=rest, heard=seq, entry=entry)
        if state.left.losses:
            left = state.left._replace(losses=state.left.losses - 1)
            yield ("lose", seq), state._replace(queue=rest, left=left)

    def answered(self, state: State, seq: int) -> State:
        """A heartbeat's reply: ``heartbeat_reply``."""
        if seq != state.heard and "compare_heartbeat" in self.on:
            state = state._replace(entry=None)
        which = 0 if "oldest_unanswered" in self.on else -1
        since = state.sent[which] if "vouch_from_send" in self.on else state.now
        return state._replace(heard=seq, sent=state.sent[1:], fresh_until=since + B)

    def hang(self, state: State) -> Steps:
        """Nothing is heard any more, while L1 is read; and that ends again, or not."""
        if state.hanging:
            yield ("go on",), state._replace(hanging=False)
        elif state.left.hangs:
            left = state.left._replace(hangs=state.left.hangs - 1)
            yield ("hang",), state._replace(hanging=True, left=left)


SMALL = Bounds(ticks=4, writes=1, beats=2, losses=1, hangs=1)

Horizon.CASES = (Case("two heartbeats", SMALL),)
Horizon.LONG_CASES = (
    Case("two writes", Bounds(ticks=6, writes=2, beats=2, losses=1, hangs=1)),
    Case("three heartbeats", Bounds(ticks=7, writes=2, beats=3, losses=1, hangs=1)),
)
Horizon.WALKS = (Case("many", Bounds(ticks=40, writes=10, beats=20, losses=5, hangs=5)),)
Horizon.MUTANTS = tuple(Mutant(rule, SMALL) for rule in Horizon.RULES)
