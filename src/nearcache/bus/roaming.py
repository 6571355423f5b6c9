"""Lanes that move: the listener of a Redis Cluster.

A lane lies in a slot, and slots move from node to node. So what a lane's trouble ends is not the connection, which
carries the others of the node on, but the lane's stay on it: the lane is down, as after a disconnection, and is put on
the connection to wherever it is believed to be now. There it begins anew, with a subscription and a heartbeat of its
own.

A slot that leaves shows itself on the subscribed connection in one of these ways, whichever comes first: the server
takes the subscription back unasked (sharded messages, Redis 7), or answers the lane's heartbeat with MOVED, ASK or
CLUSTERDOWN.
The heartbeat names the lane's record among its keys, so that a server without the slot cannot answer it.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from .._hearing import Ear
from ..coherence import Lane, State
from ..errors import ServerReplyError
from ..placement import LaneNames
from ..workers import start_thread
from .connection import Connection, pause_ns
from .follower import Followed, Follower, _call, pack
from .links import ClusterSource
from .listener import Listener

#: Answers that say that a slot is on its way, and those that say that it is not, or not wholly, there.
_MOVING: Final = frozenset({"MOVED", "ASK", "TRYAGAIN"})
_ELSEWHERE: Final = _MOVING | {"CLUSTERDOWN"}
#: The fields of a lane record that the heartbeat's script returns.
_FIELDS: Final = (b"e", b"s", b"w", b"g", b"r", b"h")
_NO_REST: Final = (0, 0)
_PAUSE_FIRST_S: Final = 0.02
_PAUSE_MOST_S: Final = 0.5


class RoamingFollower(Follower):
    """A follower that lanes join and leave. See :class:`Follower`.

    Attributes:
        left: Lanes that have left since somebody looked, and why. Whoever looks empties it.
        is_sharded: Whether the server has sharded messages. Found out by asking for one.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.left: list[tuple[int, str | ServerReplyError]] = []
        self.is_sharded = True
        self._identity = 0
        self._linked = False

    # -- coming and going

    def join(self, each: Followed, now_ns: int) -> None:
        """Follow one lane more."""
        with self._awaited_lock:
            self.followed = (*self.followed, each)
            self._by_number[each.number] = each
            self._by_channel[each.names.channel] = each
            awaited = self._awaited.setdefault(each.number, {})
            # The same ear as before, if it was here before: the inbox may know it as the one that it heard last.
            ear = self._ears.setdefault(each.number, Ear(each.number, each.names.channel, awaited))
            self._heard.append(ear)
        if self._linked:
            self._perform(each, each.lane.connected(self._identity))
            self._subscribe_to(each)
            self._ask(each, now_ns)

    def leave(self, each: Followed, reason: str | ServerReplyError, *, told: bool = False) -> None:
        """Follow a lane no more. ``told``: the server has ended the subscription."""
        if not self.has(each):
            return
        if self._observer is not None and each.lane.state is State.LIVE:
            self._observer.missed()
        # First nothing may be served any more, and then nobody may begin to wait here.
        self._perform(each, each.lane.lost(str(reason)))
        with self._awaited_lock:
            del self._by_number[each.number]
            del self._by_channel[each.names.channel]
            self.followed = tuple(other for other in self.followed if other is not each)
            self._heard.remove(self._ears[each.number])
        self._wake(each.number, None)
        self.left.append((each.number, reason))
        if self._linked and not told:
            command = b"SUNSUBSCRIBE" if self.is_sharded else b"UNSUBSCRIBE"
            echoed = pack(b"PING", each.names.channel)
            self.request(pack(command, each.names.channel) + echoed, _Ending(self, each))

    def has(self, each: Followed) -> bool:
        """Whether a lane is here and has not left since."""
        return self._by_number.get(each.number) is each

    def begin_anew(self, each: Followed, now_ns: int) -> None:
        """Let a lane come anew: what it has asked for here says nothing any more."""
        self.leave(each, "begins anew", told=True)
        self.left.pop()
        self.join(Followed(*each), now_ns)

    # -- what the base asks for

    def connected(self, identity: int, now_ns: int, *reader: Any) -> None:
        self._identity = identity
        self._linked = True
        super().connected(identity, now_ns, *reader)

    def lost(self, reason: str) -> None:
        self._linked = False
        super().lost(reason)

    def _subscribe(self) -> None:
        for each in self.followed:
            self._subscribe_to(each)

    def _subscribe_to(self, each: Followed) -> None:
        # One command for each: several channels in several slots are an error.
        command = b"SSUBSCRIBE" if self.is_sharded else b"SUBSCRIBE"
        self.request(pack(command, each.names.channel), _Beginning(self, each))

    def _give_up(self, each: Followed, reason: str) -> None:
        self.leave(each, reason)

    def _beat(self, now_ns: int) -> None:
        """Let one lane's heartbeat be the script, and those of the others plain reads of the same, which cost less.

        The script stands in front: where it is refused, because the server must not be written to, none of them counts.
        A lane that has just come, and whose record may have to be made, begins with the script.
        """
        if not self.followed:
            self.lost("no lane is left here")
            return
        if self._beat_ns is None:
            super()._beat(now_ns)
            return
        self._next_beat(now_ns)
        first, *others = self.followed
        self._ask(first, now_ns)
        for each in others:
            each.lane.heartbeat_sent(now_ns)
            self.request(pack(b"HMGET", each.names.lane_key, *_FIELDS), partial(self._take_plain, each))

    def _take_plain(self, each: Followed, reply: Any, now_ns: int) -> None:
        self._take_heartbeat(each, reply, now_ns, None)

    def _take_heartbeat(self, each: Followed, reply: Any, now_ns: int, reached: Callable[[], None] | None) -> None:
        if self.has(each):  # else it has left since
            if not isinstance(reply, ServerReplyError) or reply.code == "NOSCRIPT":
                super()._take_heartbeat(each, reply, now_ns, reached)
                return
            if reply.code in _ELSEWHERE:
                self.leave(each, reply)
            else:
                self.lost(str(reply))
        if reached is not None:
            _call(reached)

    def _take(self, item: Any, now_ns: int) -> None:
        if isinstance(item, ServerReplyError) and self._expected and isinstance(self._expected[0], _Ending):
            return  # the slot has gone, and the subscription with it; the echo is still to come
        super()._take(item, now_ns)

    def _take_push(self, item: Any) -> None:
        kind = item[0]
        if kind in (b"smessage", b"message"):
            each = self._by_channel.get(item[1])
            if each is not None:  # else one of a lane that has left
                self._take_message(each, item[2])
        elif kind in (b"ssubscribe", b"subscribe", b"sunsubscribe", b"unsubscribe"):
            asked = self._expected[0] if self._expected else None
            if isinstance(asked, _Beginning) and asked.channel == item[1] and kind in asked.kinds:
                self._expected.popleft()
            elif kind.endswith(b"unsubscribe") and item[1] in self._by_channel and not self._is_ending(item[1]):
                self.leave(self._by_channel[item[1]], "the server has given the slot away", told=True)
        else:
            super()._take_push(item)

    def _is_ending(self, channel: bytes) -> bool:
        return any(isinstance(asked, _Ending) and asked.channel == channel for asked in self._expected)

    # -- what others ask for

    def await_key(self, number: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        with self._awaited_lock:
            return number in self._by_number and super().await_key(number, encoded, woken)

    def unawait(self, number: int, encoded: bytes, woken: Callable[[], None]) -> None:
        if number in self._awaited:
            super().unawait(number, encoded, woken)

    def fence(self, number: int, now_ns: int, reached: Callable[[], None]) -> None:
        if number in self._by_number:
            super().fence(number, now_ns, reached)
        else:
            _call(reached)


class _Nobody(RoamingFollower):
    """Follows the lanes that have found no place yet."""

    def __init__(self) -> None:
        self._by_number = {}
        self._awaited = {}
        self._awaited_lock = threading.RLock()

    def place(self, number: int) -> None:
        """Nothing has been heard."""


class _Beginning:
    """What is expected after a subscription was asked for: a push that says so, or else an error reply."""

    kinds: Final = (b"ssubscribe", b"subscribe")

    def __init__(self, follower: RoamingFollower, each: Followed) -> None:
        self.channel = each.names.channel
        self._follower = follower
        self._each = each

    def __call__(self, reply: Any, now_ns: int) -> None:
        if not isinstance(reply, ServerReplyError):
            return  # the end of the connection
        if "unknown command" in reply.reply and self._follower.has(self._each):
            self._follower.is_sharded = False
            self._follower.begin_anew(self._each, now_ns)
        else:
            self._follower.leave(self._each, reply, told=True)


class _Ending:
    """What is expected after a subscription was ended: the echo of a PING behind that.

    The end itself may show in several ways: a push, a refusal where the slot has gone, and both where the server took
    the subscription back unasked just before, for its push looks like an answer. The echo comes once in any case.
    """

    def __init__(self, follower: RoamingFollower, each: Followed) -> None:
        self.channel = each.names.channel
        self._follower = follower

    def __call__(self, reply: Any, _now_ns: int) -> None:
        if reply != self.channel and not isinstance(reply, OSError):
            self._follower.lost(f"the end of a subscription was answered with {reply!r}")


class RoamingListener(Listener):
    """See the module, and :class:`Listener`: places come and go here, and lanes move between them."""

    _source: ClusterSource
    _follower_type = RoamingFollower

    def _begin_with(self, lanes: Sequence[Lane], names: Sequence[LaneNames]) -> None:
        """Follow these lanes, none of which has a place yet."""
        self._lanes = tuple(lanes)
        self._names = tuple(names)
        self._dropped = dict.fromkeys(range(len(lanes)), 0)
        self._failed = dict.fromkeys(range(len(lanes)), 0)  # lane -> how often in a row
        self._homeless = dict.fromkeys(range(len(lanes)), 0)  # lane -> when to look for its place
        self._was_at = [-1] * len(lanes)  # lane -> where it is no use to look again at once
        self._urged: deque[int] = deque()  # lanes that need not wait any longer
        # Place -> how often in a row it was no use, and when to try it again: each lane comes in its own time, and
        # together they would not leave it alone.
        self._rests: dict[int, tuple[int, int]] = {}
        self._seeking = threading.Lock()
        self._followers = dict.fromkeys(range(len(lanes)), _Nobody())

    # -- for the cache

    def hurry(self, place: int) -> None:
        """Somebody has just reached a place: whoever has none yet may belong there."""
        self._rests.pop(place, None)
        self._urged.extend(lane for lane in range(len(self._lanes)) if self._source.place_of(lane) == place)
        self.wake()

    def dropped(self, lane: int) -> int:
        return self._dropped[lane]

    def after_fork(self) -> None:
        super().after_fork()
        self._seeking = threading.Lock()
        # All of them: the parent's thread may have been about to put one on a connection, or to turn one away.
        self._homeless = dict.fromkeys(range(len(self._lanes)), 0)
        self._followers = dict.fromkeys(range(len(self._lanes)), _Nobody())
        self._connections = []
        self._rests.clear()

    # -- the thread

    def _has_settled(self) -> bool:
        return all(lane.state is State.LIVE or self._failed[number] for number, lane in enumerate(self._lanes))

    def _more_due(self) -> Iterable[int]:
        return map(self._due_at, self._homeless)

    def _due_at(self, number: int) -> int:
        """When to look for a lane's place: when its own pause is over, and that of the place."""
        return max(self._homeless[number], self._rests.get(self._source.place_of(number), _NO_REST)[1])

    def _connect_missing(self) -> None:
        now_ns = self._clock()
        while self._urged:
            if (urged := self._urged.popleft()) in self._homeless:
                self._homeless[urged] = 0
        for number in list(self._homeless):
            if now_ns < self._due_at(number):
                continue
            place = self._source.place_of(number)
            if place < 0:
                self._turn_away(number, "no node of the cluster is known to have its slot", place)
                continue
            del self._homeless[number]
            self._settle(Followed(number, self._lanes[number], self._names[number]), place, now_ns)
        super()._connect_missing()

    def _settle(self, each: Followed, place: int, now_ns: int) -> None:
        """Put a lane on the connection to a place."""
        connection = next((known for known in self._connections if known.place == place), None)
        if connection is None:
            follower = self._make_follower([each])
            follower.dropped = self._dropped
            failures, _ = self._rests.pop(place, _NO_REST)
            connection = Connection(place, follower, failures=failures)
            self._connections = [*self._connections, connection]
            if self._observer is not None:  # asked for after it is listed: who comes meanwhile sees one of the two
                follower.report_to(self._observer)
            self._followers[each.number] = follower
            return
        follower = self._follower_at(connection)
        follower.join(each, now_ns)
        self._followers[each.number] = follower
        if connection.link is not None:
            self._follow_up(connection)

    @staticmethod
    def _follower_at(connection: Connection) -> RoamingFollower:
        assert isinstance(connection.follower, RoamingFollower)
        return connection.follower

    def _follow_up(self, connection: Connection) -> None:
        follower = self._follower_at(connection)
        left, follower.left = follower.left, []
        refused: defaultdict[str, dict[int, Lane]] = defaultdict(dict)
        for number, reason in left:
            if isinstance(reason, ServerReplyError):
                self._source.heed(connection.place, reason.reply)
                if reason.code not in _MOVING:
                    refused[str(reason)][number] = self._lanes[number]
            self._turn_away(number, str(reason), connection.place)
        for why, lanes in refused.items():
            self._outages.begin(connection.place, lanes, why)
        if follower.answered:
            self._failed.update((each.number, 0) for each in follower.followed if each.lane.state is State.LIVE)
        super()._follow_up(connection)
        if connection.link is not None and not follower.followed:
            self._drop_link(connection)

    def _receive(self, connection: Connection) -> None:
        super()._receive(connection)
        if connection.link is not None and self._follower_at(connection).left:
            self._follow_up(connection)

    def _fail(self, connection: Connection, error: BaseException) -> None:
        super()._fail(connection, error)
        self._vacate(connection, str(error))

    def _drop_link(self, connection: Connection) -> None:
        super()._drop_link(connection)
        self._vacate(connection, connection.follower.gave_up or "no lane is left there")

    def _vacate(self, connection: Connection, reason: str) -> None:
        """A connection is gone: its lanes look for their places anew, each by itself."""
        self._connections = [other for other in self._connections if other is not connection]
        self._rests[connection.place] = (connection.failures, connection.retry_ns)
        for number, why in self._follower_at(connection).left:
            self._turn_away(number, str(why), connection.place)
        for each in connection.follower.followed:
            self._turn_away(each.number, reason, connection.place)

    def _turn_away(self, number: int, reason: str, place: int) -> None:
        """Look for a lane's place again: at once if it is another by now, else a little later."""
        self._was_at[number] = place
        self._failed[number] = 1 if self._source.place_of(number) not in (place, -1) else self._failed[number] + 1
        self._homeless[number] = self._clock() + pause_ns(self._failed[number], _PAUSE_FIRST_S, _PAUSE_MOST_S)
        self._lanes[number].last_error = reason
        self._due_ns = 0
        self._search()

    def _search(self) -> None:
        """Have the map asked for, in a thread of its own, unless that is under way."""
        if not self._seeking.acquire(blocking=False):
            return
        if start_thread("nearcache-cluster-map", self._seek, self._seeking) is None:
            self._seeking.release()  # the next lane that finds no place tries again

    def _seek(self, mine: threading.Lock) -> None:
        try:
            self._source.search()
        finally:
            mine.release()
        self._urged.extend(lane for lane, place in enumerate(self._was_at) if self._source.place_of(lane) != place)
        self.wake()
