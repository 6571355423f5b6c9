"""What steps ask of L2."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from ..errors import ShardError
from ..l2 import Command, Exchange, Reply

#: Called with the place of an exchange, and its reply.
OnReply = Callable[[int, Reply | ShardError], None]


class Exchanges(list[Exchange]):
    """Exchanges whose replies can be dealt with one by one.

    Attributes:
        on_reply: May be called with the place of an exchange and its reply as soon as that is there, in the thread that
            carries out the steps. All replies together are the answer in any case.
    """

    def __init__(self, exchanges: Iterable[Exchange], on_reply: OnReply) -> None:
        super().__init__(exchanges)
        self.on_reply = on_reply


def batched(exchanges: Sequence[Exchange]) -> Generator[list[Exchange], Any, list[tuple[Any, int]]]:
    """Ask for many things, all of a shard in one batch.

    Returns for each the answer to its last command, or the first error among its answers, and who answered.
    """
    if not exchanges:
        return []
    batches: dict[int, list[Command]] = {}
    for shard, commands in exchanges:
        batches.setdefault(shard, []).extend(commands)
    replies = yield [Exchange(shard, commands) for shard, commands in batches.items()]
    reply_of = dict(zip(batches, replies, strict=True))
    ends = dict.fromkeys(batches, 0)
    answers = []
    for shard, commands in exchanges:
        start, ends[shard] = ends[shard], ends[shard] + len(commands)
        answers.append(_last(reply_of[shard], start, ends[shard]))
    return answers


def _last(reply: Reply | ShardError, start: int, end: int) -> tuple[Any, int]:
    if isinstance(reply, ShardError):
        return reply, 0
    values = reply.values[start:end]
    return next((value for value in values if isinstance(value, ShardError)), values[-1]), reply.identity
