"""What is asked about the queues in runs that write behind the cache: its own methods, in threads of the world's.

See ``letters`` for what they promise.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from nearcache.cache.tiered.letters import QueueingCache
from nearcache.errors import FlushTimeoutError, ShardError
from nearcache.flights import Signal
from nearcache.loading.steps import Await
from simulation.client import Client
from simulation.handoff import Handoff, here
from simulation.process import Process
from simulation.resharding import Aside
from simulation.workload import KINDS, Running
from simulation.world import MS

#: Kind -> how often.
ASKING: Final = {"flush": 3.0, "letters": 2.0, "replay": 4.0, "discard": 0.5}
#: Longer than a writer that has not gone for good may take to write all that waits.
_LONG_S: Final = 600.0
_PAUSE_S: Final = 0.05


class Asked(Handoff):
    """A thread in which the cache's methods are called. Each of their exchanges has the whole time to itself.

    Attributes:
        client: Who carries out what they ask for.
        times: How often they have asked.
    """

    def __init__(self, client: Client, call: Callable[[Any], Any]) -> None:
        super().__init__(lambda: call(Face(self)))
        self.client = client
        self.times = 0
        client.process.asides.append(self)


class Face:
    """As much of a cache as its methods need."""

    flush = QueueingCache.flush
    dead_letters = QueueingCache.dead_letters
    replay_dead_letters = QueueingCache.replay_dead_letters
    discard_dead_letters = QueueingCache.discard_dead_letters

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        process = asked.client.process
        self._scribe, self._tier = process.scribe, process.tier

    def _run(self, steps: Any) -> Any:
        client = self._asked.client
        client._left_ns = client.process.profile.timeout_ns
        self._asked.times += 1
        answer: Any = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration as stop:
                return stop.value
            answer = here().ask(request)


class _Asking(Running):
    """A call about the queues."""

    def begin(self, client: Client) -> None:
        self.asked = Asked(client, self.call)
        self.steps = self.asked.steps()

    def call(self, face: Any) -> Any:
        """Call the cache."""
        raise NotImplementedError

    def allowed_ns(self, client: Client) -> int:
        return super().allowed_ns(client) + self.asked.times * client.process.profile.timeout_ns

    def excused(self, client: Client, error: Exception) -> bool:
        return isinstance(error, ShardError)

    def drawn(self) -> random.Random:
        """Chance of its own."""
        return self.client.world.stream(f"asking {self.client} {self.operation.think_ns} {self.begun_ns}")


class _Flush(_Asking):
    def begin(self, client: Client) -> None:
        self.seconds = self.drawn().choice([client.process.profile.bound_ns / 1e9, 30.0])
        super().begin(client)

    def call(self, face: Any) -> Any:
        return face.flush(self.seconds)

    def excused(self, client: Client, error: Exception) -> bool:
        return isinstance(error, (ShardError, FlushTimeoutError))

    def succeed(self, client: Client, value: Any) -> None:
        client.process.checker.flushed(client, self.begun_ns)


class _Letters(_Asking):
    def begin(self, client: Client) -> None:
        self.before = client.process.checker.letters_now()
        super().begin(client)

    def call(self, face: Any) -> Any:
        return face.dead_letters()

    def succeed(self, client: Client, value: Any) -> None:
        client.process.checker.listed(client, self.before, value)
        client.process.letters = [letter.id for letter in value]


class _Replay(_Asking):
    """All dead letters, or some of those that the process has heard of: they may be gone, or back once more."""

    def begin(self, client: Client) -> None:
        self.put_back = 0
        rng, known = self.drawn(), client.process.letters
        self.ids = None if rng.random() < 0.5 else [name for name in known if rng.random() < 0.7]
        super().begin(client)

    def call(self, face: Any) -> Any:
        return face.replay_dead_letters(self.ids)

    def succeed(self, client: Client, value: Any) -> None:
        client.process.checker.moved(self, self.put_back, value)


class _Discard(_Asking):
    """Some of those that the process has heard of."""

    def begin(self, client: Client) -> None:
        self.discarded = 0
        rng, known = self.drawn(), client.process.letters
        self.ids = [name for name in known if rng.random() < 0.3]
        super().begin(client)

    def call(self, face: Any) -> Any:
        return face.discard_dead_letters(self.ids)

    def succeed(self, client: Client, value: Any) -> None:
        client.process.checker.moved(self, self.discarded, value)


class Last(Aside):
    """After the faults: a flush, which has to come to its end. Shards that do not answer at first are asked again."""

    def __init__(self, process: Process, number: int) -> None:
        super().__init__(process, number, lambda: None)
        self.handoff = Asked(self, self._call)

    def _call(self, face: Any) -> None:
        while True:
            self.asked.clear()
            since_ns = self.world.now
            try:
                face.flush(_LONG_S)
            except ShardError:
                here().ask(Await(Signal(), _PAUSE_S))
                continue
            except FlushTimeoutError:
                took_s = (self.world.now - since_ns) // MS / 1000
                self.process.checker.fail("W4", f"{self} has flushed for {took_s} s, and not come to an end")
            self.process.checker.flushed(self, since_ns)
            return


def flush_at_the_end(processes: list[Process]) -> None:
    """Have processes flush, where they do that."""
    for process in processes:
        if process.profile.behind is not None and process.profile.behind.flushers > process.number:
            last: Last = process.employ(lambda number, process=process: Last(process, number))
            last.begin(last.handoff.steps)


NEW: Final[dict[str, type[Running]]] = {
    "flush": _Flush,
    "letters": _Letters,
    "replay": _Replay,
    "discard": _Discard,
}
KINDS.update(NEW)
