"""``ack="replica"``: a change returns when a replica has it. Steps only: no I/O here.

Behind every change goes ``WAIT 1 t`` on the same connection, which Redis answers when a replica has confirmed all that
was written over it, or when the time is over. That narrows what a failover can lose; it does not close it, for another
replica may be promoted. So the change stays in the journal all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from .._putting import said
from ..errors import NotReplicatedError, ShardError
from ..l2 import WAIT, Command, Exchange, Reply, Script
from .replies import STORED
from .steps import Steps
from .tier import Tier

P = ParamSpec("P")
T = TypeVar("T")

_CHANGES: Final = frozenset({"set", "invalidate", "clear", "take", "touch"})


def confirmed(steps: Callable[P, Steps[T]]) -> Callable[P, Steps[T]]:
    """Make steps that change something wait for a replica, where the tier, their first argument, is told to.

    They then raise, besides what they raise,
        NotReplicatedError: The change is made and announced, and L1 is as it should be; no replica has confirmed it.
            Where the tier forgives, it is only counted.
    """

    @wraps(steps)
    def begin(*arguments: P.args, **options: P.kwargs) -> Steps[T]:
        tier = arguments[0]
        assert isinstance(tier, Tier)
        made = steps(*arguments, **options)
        return _confirmed(tier, made) if tier.ack_ms else made

    return begin


def _confirmed(tier: Tier, steps: Steps[T]) -> Steps[T]:
    lacking: NotReplicatedError | None = None
    move: Callable[[Any], Any] = steps.send
    given: Any = None
    while True:
        try:
            request = move(given)
        except StopIteration as stop:
            value: T = stop.value
            break
        asked = [_behind(tier, each) for each in request] if isinstance(request, list) else request
        try:
            given = yield asked
        except BaseException as error:  # noqa: BLE001  an interrupt too: the steps have something to undo
            move, given = steps.throw, error
            continue
        move = steps.send
        if isinstance(request, list):
            taken = [_taken(tier, *each) for each in zip(request, asked, given, strict=True)]
            given = [reply for reply, _ in taken]
            lacking = lacking or next((error for _, error in taken if error is not None), None)
    if lacking is not None:
        tier.count(unreplicated=1)
        if not tier.forgives:
            raise lacking
    return value


def _behind(tier: Tier, exchange: Exchange) -> Exchange:
    """The exchange with a WAIT behind it, if it changes something and has none."""
    firsts = [command[0] for command in exchange.commands]
    if WAIT in firsts or not any(isinstance(first, Script) and first.name in _CHANGES for first in firsts):
        return exchange
    return Exchange(exchange.shard, [*exchange.commands, (WAIT, b"1", b"%d" % tier.ack_ms)])


def _is_made(command: Command, answer: Any) -> bool:
    """Whether a command is a change, and was not refused: then there is something for a replica to have."""
    script = command[0]
    if not isinstance(script, Script) or script.name not in _CHANGES or isinstance(answer, ShardError):
        return False
    if script.name == "set":
        try:
            return said(answer).status == STORED
        except ValueError:  # whoever asked will find that out
            return False
    return script.name != "touch" or int(answer[0]) == 1  # there may be nothing to touch


def _taken(
    tier: Tier, asked: Exchange, sent: Exchange, reply: Reply | ShardError
) -> tuple[Reply | ShardError, NotReplicatedError | None]:
    """Take the answer to the WAIT off a reply, and return what it means."""
    if sent is asked or isinstance(reply, ShardError):
        return reply, None
    *values, replicas = reply.values
    rest = Reply(values, reply.identity)
    is_confirmed = isinstance(replicas, int) and replicas > 0
    if is_confirmed or not any(map(_is_made, asked.commands, values)):
        return rest, None
    if isinstance(replicas, NotReplicatedError):  # of the other owner, while the list of shards changes
        return rest, replicas
    error = NotReplicatedError(tier.name_at(asked.shard), tier.ack_ms / 1000)
    error.__cause__ = replicas if isinstance(replicas, ShardError) else None
    return rest, error
