"""The thread that writes behind a cache."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import inspect
import logging
import random
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..._reads import Event
from ...absence import ABSENT
from ...backlog import Backlog, Change
from ...clocks import Clock, monotonic_ns
from ...codecs import is_deletion
from ...errors import CacheError, DecodeError, FlushTimeoutError, words_of
from ...loading import (
    Queues,
    Room,
    Steps,
    ThreadRunner,
    Tier,
    queue_ends,
    read_change,
    readable_key,
    still_waiting,
    unreadable_as,
)
from ...logs import Recurring, log
from ...options import Settings
from ...workers import Helper
from ...writers import Writer
from ..report import WritingStats

#: How often an owner looks for records of other processes, and how often others look whether there is one, in seconds.
_LOOK_S: Final = 0.25
_IDLE_S: Final = 2.0
#: Pauses of who waits until the queues are empty: the first and the longest, in seconds.
_WAIT_FIRST_S: Final = 0.005
_WAIT_LONGEST_S: Final = 0.1
#: So many pages of a queue are read at most before something is written.
_LOOKS: Final = 10
#: So long ``close``, and the end of the interpreter, wait for the writer to come back from the call that it is in. If
#: it does, that is settled and the lock is free at once; else the next owner has it written again, when the lock ends.
#: With embedded servers, which may end then, they wait as long before that for what is in the queues.
CLOSE_S: Final = 5.0
#: So many single changes may fail one after the other before the rest of a batch is taken to fail as well.
_ENOUGH: Final = 3

_chance: Final = random.SystemRandom().random


@dataclass(slots=True)
class _Counters:
    written: int = 0
    deleted: int = 0
    batches: int = 0
    errors: int = 0
    buried: int = 0
    last_error: str = ""


class Scribe(Helper):
    """Calls the writer for what waits in the queues, as long as they are this process's.

    Args:
        runner: Carries out exchanges.
        writer: Held weakly, for its functions may refer to the cache, which holds it.
        clock: Monotonic nanoseconds.

    Its thread does not hold the cache. Coroutine functions run in an event loop of that thread.
    """

    _name = "nearcache-writer"

    def __init__(
        self, tier: Tier, runner: ThreadRunner, writer: Writer, settings: Settings, clock: Clock = monotonic_ns
    ) -> None:
        assert settings.write_delay is not None
        self._any_tier = tier
        self._runner = runner
        self._writer = weakref.ref(writer)
        self._clock = clock
        self._limits = (round(settings.write_delay * 1e9), settings.write_batch, settings.write_attempts)
        self._look_s = min(_LOOK_S, max(settings.write_delay / 2, 0.02))
        self.room = Room(settings.max_backlog, round(settings.timeout * 1e9), self.note)
        self.counters = _Counters()
        self._failures = Recurring(clock)
        self._burials = Recurring(clock)
        self._namespace = settings.namespace
        self._is_embedded = settings.scheme == "embedded"
        super().__init__()

    @property
    def _tier(self) -> Tier:
        return self._any_tier.now

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._queues = Queues(len(self._tier.lanes), Backlog(*self._limits, _chance))
        self._woken = Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_idle = self._is_noted = False
        self._is_rest_seen_to = False
        self._rest_ns = 0  # until when what is in the queues is waited for, once that is wanted
        self._until_ns = 0  # until when the end of the thread is, once that is wanted

    # -- life

    def _begin(self) -> threading.Thread | None:
        thread = super()._begin()
        if thread is not None:
            atexit.register(self._hurry_end)  # before the caches end, one after the other: they were opened earlier
        return thread

    def _hurry_end(self) -> None:
        """Begin to end with the interpreter, as the writers of all caches do before any is waited for.

        They work at the same time then, and the time that each is given is the same time.
        """
        if not self.is_at_work():
            return
        self._rest_ns = self._until_ns = self._clock() + round(CLOSE_S * 1e9)
        if not self._is_embedded:
            self._signal_end()
            return
        self._until_ns += round(CLOSE_S * 1e9)
        with contextlib.suppress(CacheError):  # who waits for it is told
            self._hurry(self._runner.run)

    def _signal_end(self) -> None:
        self._stopping.set()
        self._woken.set()

    def stop(self) -> None:
        """End, when the writer has come back from its call; the rest is left to other processes. Idempotent."""
        atexit.unregister(self._hurry_end)
        self._signal_end()
        now_ns = self._clock()
        self._until_ns = self._until_ns or now_ns + round(CLOSE_S * 1e9)  # once, however often this is called
        self._join(max(0, self._until_ns - now_ns) / 1e9)

    def wake(self) -> None:
        """There is something to do at once."""
        self._woken.set()

    def note(self) -> None:
        """There is a record. Who does not rest looks soon anyway: it is not to look at every record."""
        self._is_noted = True
        if self._is_idle:
            self._woken.set()

    # -- the rest

    def flush(self, timeout_s: float, run: Callable[[Steps[Any]], Any]) -> None:
        """Wait until every change that is in the queues has been written or given up.

        Args:
            run: Carries out steps.
        Raises:
            FlushTimeoutError: It takes longer.
            CacheError: It is not known.
        """
        until_ns = self._clock() + round(timeout_s * 1e9)
        pause_s = _WAIT_FIRST_S
        # Each look is a call of its own: all together may take longer than one may.
        left = self._hurry(run)
        never = Event()
        while left:
            if self._clock() > until_ns:
                raise FlushTimeoutError(timeout_s, self.counters.last_error)
            never.wait(pause_s)
            pause_s = min(2 * pause_s, _WAIT_LONGEST_S)
            left = run(still_waiting(self._tier, left))

    def _hurry(self, run: Callable[[Steps[Any]], Any]) -> Any:
        """Tell all owners of queues that what is in them is waited for. Returns up to where, as ``still_waiting``."""
        left = run(still_waiting(self._tier, run(queue_ends(self._tier))))
        self.wake()
        return left

    def may_lose(self) -> bool:
        """Whether what waits is in embedded servers, which may end with this process, and nobody has seen to it."""
        return self._is_embedded and self.is_at_work() and not self._is_rest_seen_to

    def write_rest(self) -> None:
        """Have written what waits, for ``CLOSE_S`` at most, and say what is not."""
        self._is_rest_seen_to = True
        self._rest_ns = self._rest_ns or self._clock() + round(CLOSE_S * 1e9)
        is_late = False
        if self._writer() is not None:
            try:
                for _ in range(2):  # what there is; and what was under way, or is the writer's own
                    self.flush(max(0.001, (self._rest_ns - self._clock()) / 1e9), self._runner.run)
            except CacheError as error:
                is_late = isinstance(error, FlushTimeoutError)
            else:
                return
        left = self.stats()
        if is_late or left.backlog:  # else nothing waited when those were last asked who do not answer
            text = "namespace %s: %d changes are not written, and lost if nobody else uses these embedded servers: %s"
            why = left.last_error or "no time is left, or no writer"
            log(logging.WARNING, text, self._namespace, left.backlog, why)

    # -- the thread

    def _run(self) -> None:
        stopping = self._stopping
        try:
            while not stopping.is_set():
                self._woken.clear()
                self._is_noted = False
                try:
                    pause_s = self._turn()
                except CacheError as error:  # L2 did not answer, or the cache is being closed
                    self.counters.last_error = str(error)
                    pause_s = _IDLE_S / 2
                except Exception as error:  # noqa: BLE001  a mistake here must not stop what nobody else does
                    self._note_error(error)
                    text = "namespace %s: writing behind the cache went wrong; it goes on"
                    log(logging.ERROR, text, self._namespace, error=error)
                    pause_s = _IDLE_S
                self._is_idle = pause_s > _LOOK_S  # first this, then the look, or a record could be overlooked
                self._woken.wait(min(pause_s, self._look_s) if self._is_noted else pause_s)
                self._is_idle = False
            with contextlib.suppress(CacheError):
                self._runner.run(self._queues.release(self._tier))
        finally:
            if self._loop is not None:
                self._loop.close()

    def _turn(self) -> float:
        """Do what there is to do. Returns for how many seconds there is nothing."""
        queues, backlog = self._queues, self._queues.backlog
        for _ in range(_LOOKS):
            failed = self._runner.run(queues.fetch(self._tier))
            if failed:
                self.counters.last_error = str(failed[0])
            if not queues.has_more(self._tier):
                break
        if queues.is_catching_up(self._tier):
            return 0.0
        changes = backlog.take(self._clock())
        if changes:
            self._write(changes)
            return 0.0
        wait_ns = backlog.wait_ns(self._clock())
        if wait_ns is not None:
            return min(wait_ns / 1e9, self._look_s)
        if any(queues.lengths):
            return self._look_s if self._tier.queues else _LOOK_S
        return _IDLE_S * (0.75 + _chance() / 2)

    def _write(self, changes: list[Change]) -> None:
        """Have changes written: at once where that can be, one by one where it fails."""
        writer = self._writer()
        if writer is None:  # it has gone with the cache, and this thread is about to be told
            self._queues.backlog.postpone(changes, self._clock())
            return
        values: dict[Any, tuple[Change, Any]] = {}
        deletions: dict[Any, tuple[Change, Any]] = {}
        for change in changes:
            try:
                key, value = read_change(self._tier, change)
            except DecodeError as error:
                self._tier.count(**{unreadable_as(error): 1})
                self._bury(change, f"{type(error).__name__}: {error}")
                continue
            if self._queues.backlog.is_hopeless(change):
                self._bury(
                    change, f"given to {change.deliveries} owners of the queue and never settled: it may end processes"
                )
            else:
                (deletions if value is ABSENT else values)[key] = (change, value)
        values = self._owned(values)
        write_many, delete_many = writer.write_many, writer.delete_many
        self._part(
            [change for change, _ in values.values()],
            None if write_many is None else partial(write_many, {key: value for key, (_, value) in values.items()}),
            [_one_value(writer, key, value) for key, (_, value) in values.items()],
        )
        deletions = self._owned(deletions)
        self._part(
            [change for change, _ in deletions.values()],
            None if delete_many is None else partial(delete_many, list(deletions)),
            [_one_deletion(writer, key) for key in deletions],
        )

    def _owned(self, part: dict[Any, tuple[Change, Any]]) -> dict[Any, tuple[Change, Any]]:
        """Return what is still this process's to write: the answer to what came before may say that a queue is not.

        Then its new owner may have written later changes of the same keys by now.
        """
        lanes = self._runner.run(self._queues.owned(self._tier, {change.lane for change, _ in part.values()}))
        return {key: each for key, each in part.items() if each[0].lane in lanes}

    def _part(
        self, changes: list[Change], together: Callable[[], object] | None, single: Sequence[Callable[[], object]]
    ) -> None:
        """Have changes of one kind written."""
        if not changes:
            return
        if self._stopping.is_set():  # begin nothing that ``stop`` would have to wait for
            self._queues.backlog.postpone(changes, self._clock())
            return
        self.counters.batches += 1
        if together is not None and len(changes) > 1:
            error = self._try(together)
            if error is None:
                self._settle(changes)
                return
            self._complain(changes, error)
        failures = 0
        for place, (change, call) in enumerate(zip(changes, single, strict=True)):
            if self._stopping.is_set():
                self._queues.backlog.postpone(changes[place:], self._clock())
                return
            # The call before may have taken long.
            if not self._runner.run(self._queues.owned(self._tier, [change.lane])):
                continue
            error = self._try(call)
            if error is None:
                failures = -len(changes)
                self._settle([change])
                continue
            failures += 1
            if self._queues.backlog.fail(change, self._clock()):
                self._bury(change, error)
            else:
                self._complain([change], error)
            if failures == _ENOUGH:
                self._queues.backlog.postpone(changes[place + 1 :], self._clock())
                return

    def _settle(self, changes: list[Change]) -> None:
        deleted = sum(is_deletion(change.envelope) for change in changes)
        self.counters.written += len(changes) - deleted
        self.counters.deleted += deleted
        self._runner.run(self._queues.written(self._tier, changes))

    def _bury(self, change: Change, error: str) -> None:
        if self._runner.run(self._queues.bury(self._tier, change, error)):
            self.counters.buried += 1
            self._burials.log(
                logging.ERROR,
                "namespace %s: a change of key %.80r could not be written and is a dead letter now "
                "(cache.dead_letters()): %s",
                self._namespace, readable_key(change.encoded), error,
            )  # fmt: skip

    def _complain(self, changes: list[Change], error: str) -> None:
        """Say that the writer fails, long before there are dead letters."""
        key = readable_key(changes[0].encoded)
        text = "namespace %s: the writer failed and is called again for %d changes, the first of key %.80r: %s"
        self._failures.log(logging.WARNING, text, self._namespace, len(changes), key, error)

    def _try(self, call: Callable[[], object]) -> str | None:
        """Call the writer. Returns what went wrong."""
        self._queues.touch(self._tier)
        try:
            result = call()
            if inspect.isawaitable(result):
                if self._loop is None:
                    self._loop = asyncio.new_event_loop()
                self._loop.run_until_complete(_wait_for(result))
        except BaseException as error:  # noqa: BLE001  whatever it is, the thread has to go on
            return self._note_error(error)
        return None

    def _note_error(self, error: BaseException) -> str:
        self.counters.errors += 1
        self.counters.last_error = f"{type(error).__name__}: {words_of(error)}"
        return self.counters.last_error

    # -- observation

    def stats(self) -> WritingStats:
        """Return what was counted."""
        counters, backlog = self.counters, self._queues.backlog
        return WritingStats(
            written=counters.written,
            deleted=counters.deleted,
            batches=counters.batches,
            coalesced=backlog.counters.coalesced,
            retried=backlog.counters.retried,
            errors=counters.errors,
            dead=counters.buried,
            backlog=sum(self._queues.lengths),
            owned=len(self._tier.queues),
            last_error=counters.last_error,
        )


def _one_value(writer: Writer, key: Any, value: Any) -> Callable[[], object]:
    if writer.write is not None:
        return partial(writer.write, key, value)
    assert writer.write_many is not None
    return partial(writer.write_many, {key: value})


def _one_deletion(writer: Writer, key: Any) -> Callable[[], object]:
    if writer.delete is not None:
        return partial(writer.delete, key)
    if writer.delete_many is not None:
        return partial(writer.delete_many, [key])
    return writer.require_deletes  # of a process whose writer could


async def _wait_for(result: Any) -> None:
    await result
