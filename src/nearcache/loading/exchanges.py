"""What steps ask of L2."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

from ..errors import ShardError
from ..l2 import Command, Exchange, Reply
from .replies import is_late

T = TypeVar("T")

#: Called with the place of an exchange, and its reply.
OnReply = Callable[[int, Reply | ShardError], None]


#: How many keys a shard is asked for at a time, on average. It answers nobody else meanwhile, and has the whole answer
#: in memory before it sends the first byte of it; nor does compiled code let another thread run that deals with it.
PORTION: Final = 512
#: How many keys all shards together are asked for at a time: a cluster has more lanes than nodes.
_MOST: Final = 8192


class Exchanges(list[Exchange]):
    """Exchanges whose replies can be dealt with one by one, or that are a part of what is asked.

    Attributes:
        on_reply: May be called with the place of an exchange and its reply as soon as that is there, in the thread that
            carries out the steps. All replies together are the answer in any case.
        goes_on: Whether there is more to ask. Then these have half of the time that is left, so that a shard which is
            silent leaves the rest to the others.
    """

    def __init__(
        self, exchanges: Iterable[Exchange], on_reply: OnReply | None = None, *, goes_on: bool = False
    ) -> None:
        super().__init__(exchanges)
        self.on_reply = on_reply
        self.goes_on = goes_on


def portions(names: Iterable[Any], shards: int) -> Iterator[tuple[list[Any], bool]]:
    """Deal keys out in what so many shards are asked for at a time, each key once; and whether more comes after it."""
    unique = dict.fromkeys(names)
    rest, left = iter(unique), len(unique)
    while portion := list(islice(rest, min(PORTION * shards, _MOST))):
        left -= len(portion)
        yield portion, left > 0


def slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Deal items out in their order, at most so many at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def batched(
    exchanges: Sequence[Exchange], late: dict[int, ShardError] | None = None
) -> Generator[list[Exchange], Any, list[tuple[Any, int]]]:
    """Ask for many things, all of a shard in one batch.

    Args:
        late: Shards that did not answer in time before, by their errors. They are not asked any more, for that would be
            in vain and would look like an outage; those that do not answer now are added.
    Returns for each the answer to its last command, or the first error among its answers, and who answered.
    """
    late = {} if late is None else late
    batches: dict[int, list[Command]] = {}
    for shard, commands in exchanges:
        if shard not in late:
            batches.setdefault(shard, []).extend(commands)
    replies = (yield [Exchange(shard, commands) for shard, commands in batches.items()]) if batches else []
    reply_of = {**late, **dict(zip(batches, replies, strict=True))}
    ends = dict.fromkeys(reply_of, 0)
    answers = []
    for shard, commands in exchanges:
        start, ends[shard] = ends[shard], ends[shard] + len(commands)
        answers.append(_last(reply_of[shard], start, ends[shard]))
        if is_late(answers[-1][0]):
            late[shard] = answers[-1][0]
    return answers


def _last(reply: Reply | ShardError, start: int, end: int) -> tuple[Any, int]:
    if isinstance(reply, ShardError):
        return reply, 0
    values = reply.values[start:end]
    return next((value for value in values if isinstance(value, ShardError)), values[-1]), reply.identity
