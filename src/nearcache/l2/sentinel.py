"""Redis Sentinel: where the master of a shard is, asked again for every connection.

Two sentinels have to name the same address before it is tried, for one of them may not have heard yet that the master
has changed. When no two agree, as in the middle of a failover, every address that was named is tried, the most named
one first. What answers there has to say itself that it is the master (see ``handshake``), and its identity decides what
may enter L1; a wrong answer of a sentinel can cost time, but nothing else.

A master that was replaced on command goes on answering for several seconds, until the sentinels get round to demoting
it, and what is written to it is lost. So while a connection is in use they are asked again from time to time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from ..clocks import Clock
from ..errors import (
    AuthenticationFailedError,
    NotRedisError,
    ServerReplyError,
    ShardError,
    ShardUnavailableError,
    UnknownMasterError,
)
from ..options import Endpoint
from .connection import Connection
from .handshake import Peer, connect, converse, credentials, exchange
from .logins import NoPasswordError, logged_in

Address = tuple[str, int]


class Sentinels:
    """The sentinels of one master. Safe to use from many threads."""

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._order = endpoint.sentinels  # replaced as a whole: those that did not answer stand at the end
        self._kept: dict[Address, Connection] = {}  # to sentinels, for has_moved

    def connect(self, deadline_ns: int, *, resp3: bool) -> tuple[Connection, Peer]:
        """Return a connection to the master that is ready for use, and who answers there.

        Raises:
            ShardUnavailableError: No sentinel answers, or what they name is not there or no master.
            NoPasswordError: Nobody says a password, of the sentinels or of the master.
            UnknownMasterError: Every sentinel that answered says that there is no such master.
            ShardError: As ``handshake.connect`` does, about a sentinel if none is better, or about the master.
        """
        votes: Counter[Address] = Counter()
        tried: dict[Address, ShardUnavailableError] = {}
        errors: list[ShardError] = []
        order = self._order
        enough = min(2, len(order))
        for sentinel in order:
            try:
                address = self._ask(sentinel, deadline_ns)
            except NoPasswordError:
                raise  # nor would anybody for the next one
            except ShardError as error:
                errors.append(error)
                self._ask_last(sentinel)
                continue
            votes[address] += 1
            if votes[address] >= enough and address not in tried:
                found = self._try(address, tried, deadline_ns, resp3)
                if found is not None:
                    return found
        for address, _ in votes.most_common():
            if address not in tried:
                found = self._try(address, tried, deadline_ns, resp3)
                if found is not None:
                    return found
        raise self._failure(list(tried.values()), errors)

    def has_moved(self, address: str, deadline_ns: int) -> bool:
        """Return whether the sentinels agree on a master at another address. One thread at a time.

        Cost: a round trip to two of them, on connections that are kept.
        """
        votes: Counter[Address] = Counter()
        for sentinel in self._order:
            kept = self._kept.pop(sentinel, None)
            try:
                where = self._ask(sentinel, deadline_ns, kept, keep=True)
            except ShardError:
                self._ask_last(sentinel)
                continue
            votes[where] += 1
            if votes[where] >= min(2, len(self._order)):
                return replace(self._endpoint, host=where[0], port=where[1]).address != address
        return False

    def close(self) -> None:
        """Close the connections to sentinels. Also in a forked child, where they are the parent's."""
        while self._kept:
            self._kept.popitem()[1].close()

    def _ask_last(self, sentinel: Address) -> None:
        self._order = (*(other for other in self._order if other != sentinel), sentinel)

    def _try(
        self, address: Address, tried: dict[Address, ShardUnavailableError], deadline_ns: int, resp3: bool
    ) -> tuple[Connection, Peer] | None:
        place = replace(self._endpoint, host=address[0], port=address[1])
        try:
            return connect(place, deadline_ns, self._clock, resp3=resp3)
        except NoPasswordError:
            raise  # which says nothing of the place
        except ShardUnavailableError as error:
            tried[address] = error
            return None

    def _ask(
        self, sentinel: Address, deadline_ns: int, connection: Connection | None = None, *, keep: bool = False
    ) -> Address:
        """Return where this sentinel says that the master is; on a new connection where there is none.

        One that does not answer takes half the time at most: it must leave some for the others, and for the master.
        """
        now = self._clock()
        deadline_ns = now + (deadline_ns - now) // 2
        whole = self._endpoint
        endpoint = replace(
            whole, host=sentinel[0], port=sentinel[1], db=0, master="",
            username=whole.sentinel_username, password=whole.sentinel_password,
        )  # fmt: skip
        steps = {"where": ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", whole.master)}
        if connection is None:
            endpoint = logged_in(endpoint, deadline_ns, self._clock)
        try:
            if connection is None:
                connection, answers = converse(endpoint, credentials(endpoint) | steps, deadline_ns, self._clock)
            else:
                answers = exchange(connection, steps, endpoint, deadline_ns, self._clock)
            if keep:
                self._kept[sentinel], connection = connection, None
        except AuthenticationFailedError as error:
            who = f"user {endpoint.username!r}" if endpoint.username else "the default user"
            text = f"sentinel {endpoint.address} refused {who}: check sentinel_username and sentinel_password"
            raise AuthenticationFailedError(whole.name, f"{text} ({error.__cause__})") from error.__cause__
        finally:
            if connection is not None:
                connection.close()
        where: Any = answers["where"]
        if where is None:
            raise UnknownMasterError(whole.name, f"sentinel {endpoint.address} knows no master called {whole.master}")
        if isinstance(where, ServerReplyError):
            raise NotRedisError(whole.name, f"{endpoint.address} is no sentinel, or lets nobody ask: {where}")
        try:
            host, port = where
            return host.decode(), int(port)
        except (TypeError, ValueError, AttributeError):
            raise NotRedisError(whole.name, f"{endpoint.address} named {where!r} as master") from None

    def _failure(self, tried: list[ShardUnavailableError], errors: list[ShardError]) -> ShardError:
        name, master = self._endpoint.name, self._endpoint.master
        errors = sorted(errors, key=str)  # they came in another order than the last time, which must not look like news
        if tried:
            # The cause tells the breaker whether nobody listens there.
            failure = ShardUnavailableError(name, f"the sentinels name no master that can be reached: {tried[0]}")
            failure.__cause__ = tried[0].__cause__
            return failure
        if all(isinstance(error, UnknownMasterError) for error in errors):
            return UnknownMasterError(name, f"no sentinel knows a master called {master}: check the name in the URL")
        if not any(isinstance(error, (ShardUnavailableError, UnknownMasterError)) for error in errors):
            return errors[0]  # each of them refuses: waiting does not help
        failure = ShardUnavailableError(name, "no sentinel answered: " + "; ".join(map(str, errors)))
        failure.__cause__ = next((error for error in errors if isinstance(error, ShardUnavailableError)), None)
        return failure
