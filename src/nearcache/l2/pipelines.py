"""Reads of several calls, asked in one go.

Where many calls read from one shard at a time, a connection for each of them would be a system call for each question
and another for each answer, on both sides. So those who come while some are under way are collected until the event
loop comes round and a connection is free, and ask together.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final, TypeVar

from ..errors import ShardError, ShardUnavailableError
from .task import Command, Reply, Task

#: Calls that have a connection each, at the same time, before others ask together.
ALONE: Final = 4
#: Most reads that are sent together: the first is answered when the last is.
_MOST: Final = 64

E = TypeVar("E", bound=BaseException)
#: What is told: a part of the answer, or why there is none; None to who has time left when that of the first is over.
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

    def __getitem__(self, place: Any) -> Any:
        return list(chain.from_iterable(self._reads))[place]


class Pipeline:
    """The reads of several calls on their way to one shard. Used in its loop's thread only.

    Attributes:
        deadline_ns: Of the call that began it, the earliest of all.
    """

    __slots__ = ("_answers", "_deadlines_ns", "_tasks", "deadline_ns")

    def __init__(self, deadline_ns: int) -> None:
        self.deadline_ns = deadline_ns
        self._tasks: list[Task] = []
        self._deadlines_ns: list[int] = []
        self._answers: list[Answer] = []

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

    def tell(self, outcome: Reply | ShardError, now: int) -> None:
        """Give each its part of what was answered, or the error, unless it has more time than there was."""
        end = 0
        for task, deadline_ns, answer in zip(self._tasks, self._deadlines_ns, self._answers, strict=True):
            begin, end = end, end + len(task.commands)
            part = (
                own(outcome) if isinstance(outcome, ShardError) else outcome._replace(values=outcome.values[begin:end])
            )
            too_early = now >= self.deadline_ns and deadline_ns > now and not _is_whole(part)
            if not too_early and not answer.done():
                answer.set_result(part)

    def fail(self, error: BaseException) -> None:
        """Let each raise an error."""
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(own(error))

    def release(self) -> None:
        """Let those go on by themselves who have not been told anything."""
        for answer in self._answers:
            if not answer.done():
                answer.set_result(None)


def _is_whole(part: Reply | ShardError) -> bool:
    """Return whether every question was answered."""
    return isinstance(part, Reply) and not any(isinstance(value, ShardUnavailableError) for value in part.values)
