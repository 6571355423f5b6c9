"""One exchange on its way through the driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import hiredis

from .._asking import Pieces
from .._getting import Get
from .._packing import pack as pack_words
from .._shares import Commands
from ..errors import ServerReplyError, ShardError, ShardUnavailableError
from .connection import Connection
from .pool import AnyPool
from .scripts import Script
from .shard import Shard
from .transfer import UNREADABLE, Flow

#: Commands that change nothing, as far as nearcache uses them.
_READS: Final = frozenset({
    "GET", "PTTL", "GETRANGE", "STRLEN", "EXISTS", "MGET", "HGET", "HMGET", "SCAN", "PING", "INFO", "DBSIZE", "TIME",
    "XRANGE", "XREVRANGE", "WAIT",
})  # fmt: skip


#: How a server says that it is a replica: it takes no writes, or nothing at all while its own primary is away.
_DEMOTED: Final = frozenset({"READONLY", "MASTERDOWN"})
#: Stands behind changes, at the end of an exchange.
WAIT: Final = b"WAIT"
#: What says nothing if a script in front of it did not run: it is sent again, behind that.
BEHIND: Final = frozenset({WAIT, b"HMGET"})

#: Texts, bytes and numbers, the first of them perhaps a :class:`Script`.
Command = tuple[Any, ...]


class Exchange(NamedTuple):
    """One batch for one shard.

    Attributes:
        shard: Its number.
        commands: Tuples of texts, bytes and numbers; a command that begins with a :class:`Script` is run by its hash
            (see ``Script.call``). They are executed in order, except that a script the server does not know yet is
            executed after the rest.
    """

    shard: int
    commands: Sequence[Command]


class Extended(Sequence[Command]):
    """Commands, and one more behind them. What has been packed before stays as it is."""

    __slots__ = ("commands", "last")

    def __init__(self, commands: Sequence[Command], last: Command) -> None:
        self.commands = commands
        self.last = last

    def __len__(self) -> int:
        return len(self.commands) + 1

    def __getitem__(self, place: Any) -> Any:
        return self.last if place == len(self.commands) else self.commands[place]


class Reply(NamedTuple):
    """What a shard answered.

    Attributes:
        values: One per command; an error reply is a :class:`ServerReplyError` in its place. If the connection ended
            in the middle, the commands that were not answered have the :class:`ShardUnavailableError`.
        identity: Of the connection it came over (see ``handshake``).
    """

    values: list[Any]
    identity: int


class Task:
    """One exchange on its way through the rounds.

    Attributes:
        pool: Where its connection belongs: the shard's own pool, or an event loop's.
        flow: Its request under way; None before the start, after the end, and before a repetition.
        admitted: Whether the breaker let it pass. Asked once: a second time it might refuse its own probe.
        again: Whether it is being repeated, on a new connection.
        result: At the end.
    """

    __slots__ = (
        "_places",
        "_sent",
        "_values",
        "admitted",
        "again",
        "commands",
        "data",
        "flow",
        "pool",
        "result",
        "shard",
    )

    def __init__(
        self, shard: Shard, commands: Sequence[Command], data: bytes, flow: Flow | None, pool: AnyPool | None = None
    ) -> None:
        self.shard = shard
        self.pool = shard.pool if pool is None else pool
        self.commands = commands
        self.data = data
        self.flow = flow
        self.admitted = flow is not None
        self.again = False
        self.result: Reply | ShardError | None = None
        self._sent = False  # by a try that was given up for another
        self._values: list[Any] = []  # of the first pass, while scripts the server did not know are sent in full
        self._places: list[int] = []  # where the replies of that second pass belong

    def begin(self, now: int, deadline_ns: int) -> bool:
        """Send on an idle connection what can be sent at once; return whether a connection has to be made first.

        If the breaker refuses, that is the result.
        """
        if not self.admitted:
            self.result = self.shard.refusal(deadline_ns - now)
            self.admitted = self.result is None
            if not self.admitted:
                return False
        return self.again or not self.start(self.shard.take(now, self.commands, self.pool))

    def start(self, connection: Connection | None) -> bool:
        """Send on this connection what can be sent at once; return False if there is none."""
        if connection is None:
            return False
        self.flow = Flow(connection, self.data, len(self.commands))
        if isinstance(self.commands, Get):
            self.flow.expect(self.commands)
        self.flow.push()
        return True

    def start_late(self, connection: Connection, left_ns: int) -> None:
        """Start on a connection that was waited for, unless it came too late: no time is left for a round trip.

        The answer would not come in time, and the connection would be lost with it. It is kept for the next call. That
        is asked once: how long the first round trip took says nothing of later ones.
        """
        needed_ns, connection.trip_ns = connection.trip_ns, 0
        if left_ns < needed_ns:
            self.pool.put(connection)
            self.reject(ShardUnavailableError(self.shard.name, "when there was a connection no time was left"))
        else:
            self.start(connection)

    def outcome(self) -> Reply | ShardError:
        """Return the result, after the end."""
        assert self.result is not None
        return self.result

    def reject(self, error: ShardError) -> None:
        """Take an error that kept this try from being sent as the result."""
        if self._sent and isinstance(error, ShardUnavailableError):
            error.sent = True  # by the try before
        self.result = error

    def abandon(self) -> None:
        """Give up in the middle: the state of the connection is not known."""
        flow = self.flow
        if flow is not None:
            if flow.sent and len(flow.values) < flow.count and not repeatable(self.commands):
                self.shard.doom(flow.connection)
            self.pool.discard(flow.connection)
            self.flow = None

    def settle(self, *, time_left: bool) -> None:
        """Turn the finished flow into the result, or into one more try."""
        flow = self.flow
        assert flow is not None
        if flow.failure is None:
            self._answered(flow, time_left)
            return
        self.abandon()
        failure = flow.failure.with_traceback(None)  # the frames hold the flow, and the flow holds the failure
        sent = flow.sent > 0 or bool(self._places)
        ended = not isinstance(failure, (TimeoutError, *UNREADABLE)) and not flow.heard
        if ended and not self.again and time_left and not self._places and (not sent or repeatable(self.commands)):
            self.pool.flush()
            self.again = True
            self._sent = sent
            return
        error = self._unavailable(failure, sent=sent)
        self.shard.fail(error, certain=False)
        if flow.values and not self._places:
            # What was answered before the end is known, and a caller with many keys wants to say for which. The scripts
            # that the server did not know have not run, and for want of time or connection will not be sent in full.
            undone = self._unavailable(failure, sent=False)
            values = [undone if _is_unknown_script(value) else value for value in flow.values]
            missing = len(self.commands) - len(values)
            self.result = Reply([*values, *[error] * missing], flow.connection.identity)
        else:
            self.result = error

    def _unavailable(self, failure: BaseException, *, sent: bool) -> ShardUnavailableError:
        if isinstance(failure, hiredis.HiredisError):
            text = f"the answer is not in the Redis protocol ({failure})"
        elif isinstance(failure, MemoryError):
            text = "there is no memory for an answer as long as it says it is"
        else:
            text = str(failure) or type(failure).__name__
        error = ShardUnavailableError(self.shard.name, text, sent=sent or self._sent)
        error.__cause__ = failure
        return error

    def _answered(self, flow: Flow, time_left: bool) -> None:
        connection = flow.connection
        values = flow.values
        errors = connection.errors[:]
        connection.errors.clear()
        if errors and not self._places and self._send_in_full(flow):
            return
        demoted = any(error.code in _DEMOTED for error in errors)
        if demoted:
            self.shard.demoted()
            if not self.again and time_left and self._is_undone(values):
                self.abandon()
                self.again = True
                self._places = []
                return
        identity = connection.identity
        self.flow = None  # before it is another thread's: an interrupt of this one must not close it then
        if demoted or connection.reader.has_data():
            self.pool.discard(connection)  # of no use, or out of step: more than was asked for
        else:
            self.pool.put(connection)
        if self._places:
            for place, value in zip(self._places, values, strict=True):
                self._values[place] = value
            values = self._values
        loading = [error for error in errors if error.code == "LOADING"]
        if loading:
            unavailable = ShardUnavailableError(self.shard.name, str(loading[0]), sent=len(loading) < len(values))
            self.shard.fail(unavailable, certain=False)
            self.result = unavailable
            return
        if not self.shard.breaker.quiet:
            self.shard.breaker.succeed()
        self.result = Reply(values, identity)

    def _is_undone(self, values: list[Any]) -> bool:
        """Whether nothing was executed but questions about what stands in front of them. ``values``: of this pass."""
        places = self._places or range(len(values))
        known = {**dict(enumerate(self._values)), **dict(zip(places, values, strict=True))}
        return all(
            isinstance(value, ServerReplyError) or self.commands[place][0] in BEHIND for place, value in known.items()
        )

    def _send_in_full(self, flow: Flow) -> bool:
        """Send the scripts the server did not know, with their sources; return False if there are none."""
        places = [place for place, value in enumerate(flow.values) if _is_unknown_script(value)]
        if not places:
            return False
        last = range(places[0], len(flow.values))
        places = sorted({*places, *(place for place in last if self.commands[place][0] in BEHIND)})
        self._places = places
        self._values = flow.values
        data = pack([self.commands[place] for place in places], in_full=True)
        self.flow = Flow(flow.connection, data, len(places))
        return True


def _is_unknown_script(value: Any) -> bool:
    return isinstance(value, ServerReplyError) and value.code == "NOSCRIPT"


def pack(commands: Sequence[Command], *, in_full: bool = False) -> bytes:
    """Return the bytes of the commands; ``in_full``: the first use of each script carries its source."""
    if isinstance(commands, (Commands, Pieces)):
        return commands.data
    if type(commands) is Extended:
        return pack(commands.commands) + pack([commands.last])
    known: set[bytes] = set()
    if in_full:
        commands = [_in_full(command, known) for command in commands]
    packed: bytes = pack_words(commands, Script, hiredis.pack_command)
    return packed


def laid_out(commands: Sequence[Command]) -> bytes | Pieces:
    """The same, but a large value that can be sent from where it lies stays there."""
    return commands if isinstance(commands, Pieces) else pack(commands)


def _in_full(command: Command, known: set[bytes]) -> Command:
    """The command, or with the source of its script if that is not known by then."""
    script = command[0]
    if not isinstance(script, Script) or script.sha in known:
        return command
    known.add(script.sha)
    return (b"EVAL", script.source, *command[1:])


def repeatable(commands: Sequence[Command]) -> bool:
    """Return whether executing the commands twice does no harm."""
    for first in (command[0] for command in commands):
        if isinstance(first, Script):
            if not first.repeatable:
                return False
        elif (first.decode() if isinstance(first, bytes) else first).upper() not in _READS:
            return False
    return True
