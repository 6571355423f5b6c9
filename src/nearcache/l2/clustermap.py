"""Where the lanes of a namespace are in a Redis Cluster: slot -> node, asked of the nodes, corrected by MOVED.

Any node can be asked, and any may be behind: a map is a guess. It is put right where it is found wrong (MOVED), and
asked for again when that does not help: when a node cannot be reached, or nobody has a slot. Nothing rests on it being
right. What answers says itself whether it has a slot, and only the identity of what answered decides what may enter L1.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from ..clocks import Clock
from ..errors import NotRedisError, ServerReplyError, ShardError, ShardUnavailableError, WrongTopologyError
from ..options import Endpoint
from .handshake import converse, credentials
from .logins import logged_in

Address = tuple[str, int]

#: No node is known to have the slot.
NOWHERE: Final = -1
#: How soon after one question the next may follow, for each is a connection: twice as late, up to the second, after
#: each that changed nothing, as while a node is away; if nobody answered, up to the second, as long as it took.
_REST_NS: Final = 100_000_000
_LONGEST_REST_NS: Final = 800_000_000
_ASK: Final = {"slots": ("CLUSTER", "SLOTS")}


class ClusterMap:
    """See the module. Safe to use from many threads.

    Args:
        seeds: Nodes to ask first; their other settings hold for all nodes.
        slots: The slot of each lane.
        add: Takes note of a node that has not been met, and returns its number.
        leave: Takes note that a node, of this number, has no lanes any more: it may be gone for good. Does not block.
    Attributes:
        places: By lane, the number of the node that has it, or :data:`NOWHERE`.
    """

    def __init__(
        self,
        seeds: Sequence[Endpoint],
        slots: Sequence[int],
        add: Callable[[Endpoint], int],
        leave: Callable[[int], None],
        clock: Clock,
    ) -> None:
        self.places = [NOWHERE] * len(slots)
        self.endpoint = seeds[0]
        self._seeds = tuple((seed.host, seed.port) for seed in seeds)
        self._slots = tuple(slots)
        self._lane_in = {slot: lane for lane, slot in enumerate(slots)}
        self._add = add
        self._leave = leave
        self._clock = clock
        self._numbers: dict[Address, int] = {}
        self._known: tuple[Address, ...] = self._seeds  # the order to ask in; replaced as a whole
        self._again_ns: int | None = None  # when they may be asked again
        self._rest_ns = _REST_NS
        self._error: ShardError | None = None
        self._lock = threading.Lock()
        self._naming = threading.RLock()

    def lanes_at(self, place: int) -> list[int]:
        """Return the lanes that a node is believed to have."""
        return [lane for lane, there in enumerate(self.places) if there == place]

    def place_at(self, host: str, port: int) -> int:
        """Return the number of the node at an address."""
        with self._naming:
            number = self._numbers.get((host, port))
            if number is None:
                number = self._add(replace(self.endpoint, name=f"{host}:{port}", host=host, port=port))
                self._numbers[host, port] = number
            return number

    def heed(self, reply: str, host: str) -> int:
        """Take note of MOVED; return the place that this or ASK names, or :data:`NOWHERE` if that is none.

        Args:
            reply: An error reply.
            host: Who sent it: where nodes name no host, it is this one.
        """
        words = reply.split()
        if words[0] not in ("MOVED", "ASK") or len(words) < 3:
            return NOWHERE
        there, _, port = words[2].rpartition(":")
        if there == "?":  # it has no name, which the cluster prefers: only CLUSTER SLOTS says where it is
            return NOWHERE
        place = self.place_at(there or host, int(port))
        lane = self._lane_in.get(int(words[1]))
        if lane is not None and words[0] == "MOVED":
            before, self.places[lane] = self.places[lane], place
            self._part([before])
        return place

    def refresh(self, deadline_ns: int) -> ShardError | None:
        """Ask where the lanes are, unless somebody has just done so. Blocks. Returns why nobody could tell.

        While nobody answers, one caller at a time waits for that, and there is a rest in between: as by a breaker.
        """
        failed = self._error
        patience_s = 0.0 if failed is not None else max(0.0, (deadline_ns - self._clock()) / 1e9)
        if not self._lock.acquire(timeout=patience_s):
            late = "no node of the cluster has said in time who has what"
            return failed or ShardUnavailableError(self.endpoint.name, late)
        try:
            since = self._clock()
            if self._again_ns is None or since >= self._again_ns:
                before = self.places.copy()
                self._error = self._refresh_locked(deadline_ns)
                self._rest_locked(since, is_news=self.places != before)
            return self._error
        finally:
            self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: locks may have been held."""
        self._lock = threading.Lock()
        self._naming = threading.RLock()

    # -- inside

    def _rest_locked(self, since: int, *, is_news: bool) -> None:
        """Take note of when they may be asked again. ``since``: when they were asked now."""
        now = self._clock()
        is_first = self._again_ns is None or since > self._again_ns + _LONGEST_REST_NS
        self._rest_ns = _REST_NS if is_first or is_news else min(2 * self._rest_ns, _LONGEST_REST_NS)
        took_ns = now - since if self._error is not None else 0
        self._again_ns = now + max(self._rest_ns, min(took_ns, _LONGEST_REST_NS))

    def _refresh_locked(self, deadline_ns: int) -> ShardError | None:
        errors: list[ShardError] = []
        failed: list[Address] = []
        for address in self._known:
            # One that does not answer must leave time for the others.
            now = self._clock()
            share = now + (deadline_ns - now) // 2
            try:
                nodes = self._ask(address, share)
            except ShardError as error:
                errors.append(error)
                failed.append(address)
                continue
            # The next one asked is another: of two that differ, one is behind, and should not be heard for ever.
            others = [each for each in (*nodes, *self._seeds) if each != address and each not in failed]
            self._known = tuple(dict.fromkeys((*others, address, *failed)))
            return None
        # Those that failed may be back first: start from the seeds, which people keep right, next time.
        self._known = tuple(dict.fromkeys((*self._seeds, *self._known)))
        name = self.endpoint.name
        if not any(isinstance(error, ShardUnavailableError) for error in errors):
            return errors[0]  # each of them refuses: waiting does not help
        return ShardUnavailableError(name, "no node of the cluster answered: " + "; ".join(map(str, errors)))

    def _ask(self, address: Address, deadline_ns: int) -> list[Address]:
        """Take over what a node says, and return the nodes that it knows."""
        endpoint = replace(self.endpoint, name=f"{address[0]}:{address[1]}", host=address[0], port=address[1])
        endpoint = logged_in(endpoint, deadline_ns, self._clock)
        connection, answers = converse(endpoint, credentials(endpoint) | _ASK, deadline_ns, self._clock)
        connection.close()
        ranges = answers["slots"]
        if isinstance(ranges, ServerReplyError):
            if "cluster support disabled" in str(ranges):
                scheme = "rediss" if endpoint.tls else "redis"
                text = f"{endpoint.address} is not a node of a Redis Cluster: open it as {scheme}://{endpoint.address}"
                raise WrongTopologyError(endpoint.name, text)
            raise ranges
        if not ranges:  # it was taken out of the cluster, or has not come in yet: others know more
            raise ShardUnavailableError(endpoint.name, f"{endpoint.address} knows of nobody who has slots")
        try:
            return self._take(ranges, address[0])
        except (TypeError, ValueError, IndexError, AttributeError):
            text = f"{endpoint.address} answered CLUSTER SLOTS with {str(ranges)[:80]!r}"
            raise NotRedisError(endpoint.name, text) from None

    def _take(self, ranges: Iterable[Any], asked: str) -> list[Address]:
        nodes: list[Address] = []
        places = [NOWHERE] * len(self._slots)
        for first, last, *servers in ranges:
            addresses = [_address(server, asked) for server in servers]
            nodes += addresses
            lanes = [lane for lane, slot in enumerate(self._slots) if int(first) <= slot <= int(last)]
            if lanes:
                place = self.place_at(*addresses[0])
                for lane in lanes:
                    places[lane] = place
        before = self.places.copy()
        self.places[:] = places
        self._part(before)
        return nodes

    def _part(self, before: Iterable[int]) -> None:
        for place in set(before).difference(self.places, (NOWHERE,)):
            self._leave(place)


def _address(server: list[Any], asked: str) -> Address:
    """Return where a node is. One that names no host for itself is where it was asked."""
    host, port, *rest = server
    text = (host or b"").decode()
    if text == "?" and len(rest) > 1:  # it prefers to be called by a name, and has none
        more = [each.decode() for each in rest[1]]
        text = dict(zip(more[::2], more[1::2], strict=False)).get("ip", "")
    return text or asked, int(port)
