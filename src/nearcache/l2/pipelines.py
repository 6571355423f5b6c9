"""Reads of several calls, asked in one go.

Where many calls read from one shard at a time, a connection for each of them would be a system call for each question
and another for each answer, on both sides. So those who come while some are under way are collected until the event
loop comes round and a connection is free, and ask together.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final, TypeVar

from ..errors import ShardError, ShardUnavailableError
from .task import Command, Reply, Task
from .transfer import Flow

#: Calls that have a connection each, at the same time, before others ask together.
ALONE: Final = 4
#: Most reads that are sent together.
_MOST: Final = 64
#: Of one value, received and not whole: then others are not to wait behind it.
_LARGE_BYTES: Final = 262_144

E = TypeVar("E", bound=BaseException)
#: What is told: a part of the answer, or why there is none; None to who is to ask again.
Answer = asyncio.Future["Reply | ShardError | None"]


def own(error: E) -> E:
    """Return a copy for one of several who get the same error, for who takes one may add to it."""
    mine = copy.copy(error)
    mine.__cause__ = error.__cause__
    return mine


class _Joined(Sequence[Command]):
    """The commands of several reads, which are looked at only when something is wrong."""

    def __init__(self, reads: list[Sequence[Command]]) -> None:
        self._reads = reads
        self._count = sum(map(len, reads))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Command]:
        return chain.from_iterable(self._reads)

    def __getitem__(self, place: Any) -> Any:
        return list(chain.from_iterable(self._reads))[place]


class Pipeline:
    """The reads of several calls on their way to one shard. Used in its loop's thread only.

    Attributes:
        deadline_ns: Of the call that began it, the earliest of all.
    """

    __slots__ = ("_answers", "_begin", "_deadlines_ns", "_next", "_tasks", "deadline_ns")

    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns
        self._tasks: list[Task] = []
        self._deadlines_ns: list[int] = []
        self._answers: list[Answer] = []
        self._next = 0  # who is to be told next
        self._begin = 0  # and where the values of his begin

    @property
    def sample(self) -> Sequence[Command]:
        """What kind of commands are sent."""
        return self._tasks[0].commands

    def takes(self, deadline_ns: int) -> bool:
        """Return whether there is room for one more, whose time is not over before that of the first."""
        return len(self._tasks) < _MOST and deadline_ns >= self.deadline_ns

    def add(self, task: Task, deadline_ns: int, answer: Answer) -> Answer:
        """Take one more along. Returns where it is to be told."""
        self._tasks.append(task)
        self._deadlines_ns.append(deadline_ns)
        self._answers.append(answer)
        return answer

    def joined(self) -> Task:
        """Return all of them as one exchange, which the breaker has let pass."""
        commands, data = self._tasks[0].commands, self._tasks[0].data
        if len(self._tasks) > 1:
            commands = _Joined([task.commands for task in self._tasks])
            data = b"".join([task.data for task in self._tasks])
        joined = Task(self._tasks[0].shard, commands, data, None, self._tasks[0].pool)
        joined.admitted = True
        return joined

    def heed(self, flow: Flow) -> None:
        """Tell those who have been answered so far. Who is behind a large value that is on its way goes on without."""
        if not flow.connection.errors:  # else it is for the whole to say what they mean
            self._tell_whole(flow.values, flow.connection.identity)
        if flow.unparsed > _LARGE_BYTES:
            self._release(self._next + 1)

    def tell(self, outcome: Reply | ShardError, now: int) -> None:
        """Give each its part of what was answered, or the error, unless it may go on.

        So may whoever has more time than there was; and, where the connection has ended, all but the first who was not
        answered: alone they would ask again, too.
        """
        if isinstance(outcome, Reply):
            self._tell_whole(outcome.values, outcome.identity)
            if self._next == len(self._tasks):
                return
            error: ShardError = outcome.values[-1]
        else:
            error = outcome
        is_over, first = now >= self.deadline_ns, self._next
        for place in range(first, len(self._tasks)):
            may_go_on = (is_over and self._deadlines_ns[place] > now) or (place > first and _has_ended(error))
            if not may_go_on and not self._answers[place].done():
                self._answers[place].set_result(own(error))

    def _tell_whole(self, values: list[Any], identity: int) -> None:
        while self._next < len(self._tasks):
            end = self._begin + len(self._tasks[self._next].commands)
            if end > len(values) or isinstance(values[end - 1], ShardUnavailableError):
                return
            if not self._answers[self._next].done():
                self._answers[self._next].set_result(Reply(values[self._begin : end], identity))
            self._next, self._begin = self._next + 1, end

    def fail(self, error: BaseException) -> None:
        """Let each raise an error."""
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(own(error))

    def release(self) -> None:
        """Let those go on by themselves who have not been told anything."""
        self._release(0)

    def _release(self, begin: int) -> None:
        for answer in self._answers[begin:]:
            if not answer.done():
                answer.set_result(None)


def _has_ended(error: ShardError) -> bool:
    """Return whether it is that the connection ended after the request was sent."""
    is_end = isinstance(error.__cause__, (EOFError, OSError)) and not isinstance(error.__cause__, TimeoutError)
    return is_end and getattr(error, "sent", False)
