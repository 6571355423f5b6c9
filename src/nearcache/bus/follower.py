"""The follower: one subscribed connection, without its I/O.

It is given what happens on a connection (made, bytes received, lost) and what time it is, and says what to send, when
it next has something to do, and when the connection should be given up. What the lanes' state machines (``coherence``)
ask for it carries out on the store. ``listener`` lends it sockets and a thread; so can anything else.

Several lanes may share a connection, each with a channel of its own. A heartbeat is then one request for each of them,
all in one piece. Replies come in the order of the requests, so one queue tells whose each is; other requests may stand
in it among the heartbeats.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import hiredis

from .._hearing import Ear, Inbox
from .._store import Store
from ..coherence import (
    OPERATIONS,
    TAG_KEY,
    Action,
    Apply,
    Attach,
    Detach,
    Forked,
    Horizon,
    Lane,
    Reconnect,
    State,
    Suspect,
    Vouch,
)
from ..errors import DecodeError, ServerReplyError
from ..keys import decode_key
from ..logs import log
from ..placement import LaneNames
from .keeping import Keeper, Script
from .observing import Observer, report

_MORE: Final = object()
#: Of the messages' operations, those that say no more than which keys to drop.
_DROPPING: Final = bytes(ord(operation) for operation in sorted(OPERATIONS & set("SFIA")))

#: Called with the reply, and with the instant when it came. A refusal comes as ``ServerReplyError``; ``OSError`` says
#: that the connection ended without a reply.
OnReply = Callable[[Any, int], None]


class Followed(NamedTuple):
    """One lane on the connection: its number in the store, what is known of it, its names in Redis."""

    number: int
    lane: Lane
    names: LaneNames


def pack(*words: bytes) -> bytes:
    """Return a command as Redis reads it."""
    pack_command: Any = hiredis.pack_command  # its stub knows tuples of one word only
    packed: bytes = pack_command(words)
    return packed


class Follower:
    """Follows the lanes of one connection.

    Args:
        store: Returns the store that hears the messages, or None when it is gone.
        followed: The lanes, one at least.
        heartbeat: The script that tells where a lane stands.
        uniform: Returns a random number between two: no two processes shall send their heartbeats in step.
        nonce: Returns 16 fresh hexadecimal digits; they name a lane that is made anew.
        horizon: What to carry the lanes' actions out on.
        keeper: Told of new epochs and of answered heartbeats.
        ring: Returns the version of the list of shards that this process uses.
        watched: What to call, once, when a message with this write id comes. Others may add to it at any time.
    Attributes:
        outgoing: Bytes to send, in order. Whoever sends some removes them from the front.
        inbox: What has been received and not dealt with. Whoever fills it says so by :meth:`digest`.
        gave_up: Why the connection should be closed and another made; None while it is good.
        answered: Set when a heartbeat was answered as it should be. Whoever has noted that may reset it.
        dropped: By lane number, how many entries of L1 messages have dropped.

    One thread drives it. Only :meth:`await_key` and :meth:`unawait` may be called from others.
    """

    def __init__(
        self,
        store: Callable[[], Store[Any, Any] | None],
        followed: Sequence[Followed],
        heartbeat: Script,
        *,
        uniform: Callable[[float, float], float],
        nonce: Callable[[], bytes],
        watched: dict[int, Callable[[], None]],
        horizon: Horizon,
        keeper: Keeper,
        ring: Callable[[], bytes],
    ) -> None:
        self.followed = tuple(followed)
        self.outgoing = bytearray()
        self.gave_up: str | None = None
        self.answered = False
        self.dropped = dict.fromkeys((each.number for each in followed), 0)
        self._store = store
        self._heartbeat = heartbeat
        self._uniform = uniform
        self._nonce = nonce
        self._watched = watched
        self._keeper = keeper
        self._horizon = horizon
        self._ring = ring
        self._by_channel = {each.names.channel: each for each in followed}
        self._by_number = {each.number: each for each in followed}
        self._awaited: dict[int, dict[bytes, list[Callable[[], None]]]] = {each.number: {} for each in followed}
        self._awaited_lock = threading.RLock()  # a collection may end steps that wait for a key
        self._heard = [Ear(each.number, each.names.channel, self._awaited[each.number]) for each in followed]
        self._ears = {ear.lane: ear for ear in self._heard}
        self.inbox = Inbox(self._heard, _DROPPING, decode_key, watched)
        self._expected: deque[OnReply] = deque()
        self._evals = 0
        self._beat_ns: int | None = None
        self._reader: Any = None
        self._more: object = _MORE
        self._observer: Observer | None = None

    def report_to(self, observer: Observer) -> None:
        """Tell somebody from now on what the messages say; callable from any thread."""
        self._observer = observer
        self.inbox.witness = observer.heard

    # -- events

    def connected(self, identity: int, now_ns: int, reader: Any = None, more: object = _MORE) -> None:
        """A connection that speaks RESP3 is there. Subscribe, and send the first heartbeats at once.

        Args:
            identity: The server's, as replies carry it.
            reader: A hiredis reader whose error replies are ``ServerReplyError``; None: one of the follower's own.
            more: What that reader returns when it needs more bytes.
        """
        self._forget("a new connection")
        self.gave_up = None
        self._reader = hiredis.Reader(replyError=_refusal, notEnoughData=_MORE) if reader is None else reader
        self._more = more
        self.inbox.clear()
        # A store that hears in a way of its own is not gone round.
        store = self._store()
        self.inbox.blind = store is not None and type(store).lane_apply is not Store.lane_apply
        for each in self.followed:
            self._perform(each, each.lane.connected(identity))
        self._subscribe()
        self._beat(now_ns)

    def _subscribe(self) -> None:
        self.outgoing += pack(b"SUBSCRIBE", *self._by_channel)

    def received(self, data: bytes, now_ns: int) -> None:
        """Bytes have come. Whatever cannot be understood or applied makes the follower give up."""
        self.inbox.feed(data)
        self.digest(now_ns)

    def digest(self, now_ns: int) -> None:
        """Deal with what is in the inbox. What is applied at once there (``_hearing``) is most of it."""
        inbox, reader = self.inbox, self._reader
        try:
            while self.gave_up is None:
                store = self._store()
                heard = None if store is None else inbox.hear(store)
                if heard is not None:
                    self.note(heard)
                frame = inbox.take()
                if frame is None:
                    return
                reader.feed(frame)
                item = reader.gets()
                # Two readers, one of them in the middle of a value, would be out of step.
                inbox.blind = inbox.blind or item is self._more
                while item is not self._more:
                    self._take(item, now_ns)
                    if self.gave_up is not None:
                        return
                    item = reader.gets()
        except hiredis.ProtocolError as error:
            self.lost(f"not the Redis protocol: {error}")
        except Exception as error:  # noqa: BLE001  no memory, say: what was not applied cannot be vouched for
            self.lost(f"a message could not be applied: {error!r}")

    def note(self, heard: list[Ear]) -> None:
        """Tell the lanes what was applied without them."""
        for ear in heard:
            seq, wid, messages, dropped = ear.take()
            lane = self._by_number[ear.lane].lane
            assert lane.position is not None
            lane.position.seq = seq
            lane.position.wid = wid
            lane.applied = (lane.position.epoch, seq)
            lane.counters.received += messages
            self.dropped[ear.lane] += dropped
            self._horizon.caught_up(ear.lane)

    def lost(self, reason: str) -> None:
        """The connection has ended, or is of no use any more."""
        self.gave_up = reason
        if self._observer is not None and any(each.lane.state is State.LIVE for each in self.followed):
            self._observer.missed()
        for each in self.followed:
            self._perform(each, each.lane.lost(reason))
        self._forget(reason)

    def tick(self, now_ns: int) -> None:
        """Do what is due at this instant: send heartbeats, or give up on a server that does not answer them."""
        if self._beat_ns is None:
            return
        if any(each.lane.overdue(now_ns) for each in self.followed):
            self.lost("no reply to a heartbeat")
        elif now_ns >= self._beat_ns:
            self._beat(now_ns)

    def suspended(self, now_ns: int) -> None:
        """The machine slept while the clock that L1 reads stood still: only a heartbeat from now on vouches."""
        for each in self.followed:
            self._perform(each, each.lane.suspended())
        if self._beat_ns is not None:
            self._beat_ns = now_ns

    # -- what is known

    @property
    def is_live(self) -> bool:
        """Whether every lane is being followed."""
        return all(each.lane.state is State.LIVE for each in self.followed)

    def follows(self, number: int) -> bool:
        """Whether this lane is being followed."""
        each = self._by_number.get(number)
        return each is not None and each.lane.state is State.LIVE

    def due_ns(self) -> int | None:
        """When :meth:`tick` next has something to do; None without a connection."""
        if self._beat_ns is None:
            return None
        deadlines = (each.lane.deadline_ns() for each in self.followed)
        return min([self._beat_ns, *(deadline for deadline in deadlines if deadline is not None)])

    def place(self, number: int) -> tuple[int, int, int] | None:
        """Epoch, number and write id of a lane's last message, from when it begins to be applied. For any thread."""
        return self._ears[number].place()

    # -- other requests on the connection

    def fence(self, number: int, now_ns: int, reached: Callable[[], None]) -> None:
        """Ask now where a lane stands, and call ``reached`` when the answer, and all messages before it, are applied.

        It is called too when the connection ends, or has ended: then nothing of the lane is served anyway.
        """
        if self._beat_ns is None:
            _call(reached)
            return
        self._ask(self._by_number[number], now_ns, reached=reached)

    def request(self, command: bytes, on_reply: OnReply) -> None:
        """Send a packed command after all that was sent before. ``on_reply`` is called once, in the driving thread.

        What the reply says of a lane is in order with its messages and heartbeats.
        """
        self._expected.append(on_reply)
        self.outgoing += command

    def run(self, script: Script, keys: Sequence[bytes], arguments: Sequence[bytes]) -> None:
        """Run a script whose reply concerns nobody."""
        rest = (b"%d" % len(keys), *keys, *arguments)

        def on_reply(reply: Any, _now_ns: int) -> None:
            if isinstance(reply, ServerReplyError) and reply.code == "NOSCRIPT":
                self.request(pack(b"EVAL", script.source, *rest), lambda _reply, _now_ns: None)

        self.request(pack(b"EVALSHA", script.sha, *rest), on_reply)

    # -- waiting for a key

    def await_key(self, number: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        """Call ``woken`` once, in the driving thread, when a message of the lane names the key.

        It is called too when messages may have been missed. A message that came before is not waited for: register
        first, and then look whether there is still something to wait for.

        Returns:
            False if the lane is not being followed: nothing is registered, since nothing would be heard.
        """
        with self._awaited_lock:
            if self._by_number[number].lane.state is not State.LIVE:
                return False
            self._awaited[number].setdefault(encoded, []).append(woken)
            return True

    def unawait(self, number: int, encoded: bytes, woken: Callable[[], None]) -> None:
        """Forget one registration, if it is still there."""
        with self._awaited_lock:
            awaited = self._awaited[number]
            waiting = awaited.get(encoded, [])
            if woken in waiting:
                waiting.remove(woken)
            if not waiting:
                awaited.pop(encoded, None)

    def after_fork(self) -> None:
        """In the child: whoever waited is not here, and the lock may have been held."""
        self._awaited_lock = threading.RLock()
        for awaited in self._awaited.values():
            awaited.clear()
        # Nor is anybody told of replies that will not come: what they would be told by may be locked.
        self._expected.clear()
        self._forget("forked")

    def _wake(self, number: int, keys: Sequence[bytes] | None) -> None:
        """Call whoever waits for one of these keys; for any key at all if None."""
        with self._awaited_lock:
            awaited = self._awaited[number]
            found = [awaited.pop(key) for key in (list(awaited) if keys is None else keys) if key in awaited]
        for woken in (each for waiting in found for each in waiting):
            _call(woken)

    # -- heartbeats

    def _beat(self, now_ns: int) -> None:
        self._next_beat(now_ns)
        for each in self.followed:
            self._ask(each, now_ns)

    def _next_beat(self, now_ns: int) -> None:
        self._beat_ns = now_ns + int(self.followed[0].lane.heartbeat_ns * self._uniform(0.9, 1.1))

    def _ask(
        self, each: Followed, now_ns: int, *, whole: bool = False, reached: Callable[[], None] | None = None
    ) -> None:
        command, script = (b"EVAL", self._heartbeat.source) if whole else (b"EVALSHA", self._heartbeat.sha)
        each.lane.heartbeat_sent(now_ns)
        if whole:
            self._evals += 1

        def on_reply(reply: Any, now_ns: int) -> None:
            self._evals -= whole
            self._take_heartbeat(each, reply, now_ns, reached)

        self.request(pack(command, script, b"1", each.names.lane_key, self._ring(), self._nonce()), on_reply)

    def _take_heartbeat(self, each: Followed, reply: Any, now_ns: int, reached: Callable[[], None] | None) -> None:
        if isinstance(reply, OSError):
            if reached is not None:
                _call(reached)
            return
        if isinstance(reply, ServerReplyError) and reply.code == "NOSCRIPT":
            each.lane.forget_heartbeat()
            # The other lanes' heartbeats were refused too. Once is enough: the short form will come behind the long.
            self._ask(each, now_ns, whole=self._evals == 0, reached=reached)
            return
        if isinstance(reply, ServerReplyError) and reply.code == "NCTOPO":
            self._keeper.refused(each.number)
        was_live = each.lane.state is State.LIVE
        actions = each.lane.heartbeat_reply(reply, now_ns)
        if self._observer is not None and was_live and any(isinstance(action, Suspect) for action in actions):
            self._observer.missed()
        self._perform(each, actions)
        if each.lane.state is State.LIVE:
            self.answered = True
            self._keeper.vouched(each.number)
        if reached is not None:
            _call(reached)

    # -- receiving

    def _take(self, item: Any, now_ns: int) -> None:
        if isinstance(item, hiredis.PushNotification):
            self._take_push(item)
        elif self._expected:
            self._expected.popleft()(item, now_ns)
        else:
            self.lost(f"a reply that nobody asked for: {item!r}")

    def _take_push(self, item: Any) -> None:
        kind = item[0]
        if kind == b"subscribe":
            return
        each = self._by_channel.get(item[1]) if kind == b"message" else None
        if each is None:
            self.lost(f"the server sent {kind!r}")
        else:
            self._take_message(each, item[2])

    def _take_message(self, each: Followed, payload: bytes) -> None:
        lane = each.lane
        actions = lane.message(payload)
        if self._observer is not None:
            report(self._observer, each.number, payload, actions)
        self._perform(each, actions)
        if self._awaited[each.number] and not actions:  # this process' own clear
            self._wake(each.number, None)
        if self._watched and lane.position is not None:
            seen = self._watched.pop(lane.position.wid, None)
            if seen is not None:
                _call(seen)

    def _perform(self, each: Followed, actions: list[Action]) -> None:
        """Carry out what a lane asks for after an event, and note where it stands now."""
        horizon, number, position = self._horizon, each.number, each.lane.position
        if position is None:
            self._ears[number].deafen()
        else:
            self._ears[number].aim(position.epoch, position.seq, position.wid)
        for action in actions:
            if isinstance(action, Reconnect):
                self._give_up(each, action.reason)
                return
            if self._store() is None:
                continue
            if isinstance(action, Apply):
                tags = [key for key in action.keys if key.startswith(TAG_KEY)]
                try:
                    keys = [decode_key(key) for key in action.keys if key not in tags]
                except DecodeError as error:
                    self._perform(each, each.lane.bad_frame(str(error)))
                    return
                self.dropped[number] += horizon.lane_apply(number, action.wid, keys)
                if tags:
                    horizon.apply_tags(number, action.wid, tags)
                if self._awaited[number]:
                    self._wake(number, action.keys)
            elif isinstance(action, Vouch):
                horizon.lane_vouch(number, action.until_ns)
            elif isinstance(action, Suspect):
                horizon.lane_suspect(number)
                self._wake(number, None)
            elif isinstance(action, Forked):
                self._keeper.forked(number, action.epoch, action.ends, action.seq)
            elif isinstance(action, Attach):
                horizon.lane_attach(number, action.identity)
            elif isinstance(action, Detach):
                horizon.lane_attach(number, 0)
                horizon.lane_dark(number)
        if position is not None and each.lane.position is position:
            each.lane.applied = (position.epoch, position.seq)
            horizon.caught_up(number)

    def _give_up(self, each: Followed, reason: str) -> None:  # noqa: ARG002  for the subclass
        """Nothing can be vouched for on a lane as it is."""
        self.lost(reason)

    def _forget(self, reason: str) -> None:
        """Nothing will come of what was sent, and nothing of what has not been."""
        self.outgoing.clear()
        self._beat_ns = None
        expected, self._expected = self._expected, deque()
        for on_reply in expected:
            _call(on_reply, ConnectionError(reason), 0)
        self._evals = 0


def _refusal(text: str) -> ServerReplyError:
    return ServerReplyError("bus", text)


def _call(callback: Callable[..., None], *arguments: Any) -> None:
    """Call what others gave. Its failure is not the lane's."""
    try:
        callback(*arguments)
    except Exception as error:  # noqa: BLE001  it is somebody else's code
        log(logging.ERROR, "a callback failed in the listener's thread: %r", callback, error=error)
