"""One of the processes that serve pages: a closed loop that reads a page, checks it and writes it out."""

from __future__ import annotations

import os
import threading
import time
from itertools import cycle
from typing import Any

from . import board as layout
from .board import Board, histogram_start
from .child import Conversation
from .histogram import bucket_of
from .job import NO_CACHE, REDIS, Job
from .ledger import Judge, Ledger
from .probe import Probe
from .services import NoCache, RedisAlone, Service
from .workload import VERSION_DIGITS, Loader, tag_of, version_of

_TICK_NS = 50_000_000
_ERRORS_TOLD = 3


def open_service(phase: str, job: Job, loader: Loader) -> Service:
    """Return the service that a phase is about."""
    if phase == NO_CACHE:
        return NoCache(loader)
    if phase == REDIS:
        from .job import TTL_SECONDS

        return RedisAlone(job.sockets, loader, TTL_SECONDS)
    from .near import Near

    return Near(job, loader)


class Worker:
    """A worker process."""

    def __init__(self, conversation: Conversation, job: Job, board: Board) -> None:
        self._conversation = conversation
        self._job = job
        self._board = board
        self._slot = board.slots[job.who]
        self._ledger = Ledger(board)
        self._workload = job.plan.build()
        self._tags = [tag_of(key) for key in self._workload.keys]
        self._requests = self._workload.requests(job.who, job.workers)
        self._loader = Loader(self._workload, board.versions)
        self._errors_told = 0
        # Pages go where a web server's socket would be; the system call also lets other threads run, as a socket would.
        self._sink = os.open(os.devnull, os.O_WRONLY)

    def work(self) -> int:
        """Serve phase after phase until told to end."""
        self._workload.prepare()
        self._conversation.say("ready")
        while command := self._conversation.hear():
            self._phase(command["phase"])
        return 0

    def _phase(self, phase: str) -> None:
        self._board.clear_slot(self._job.who)
        service = open_service(phase, self._job, self._loader)
        try:
            self._conversation.say("prepared")
            command = self._conversation.hear()
            if command is not None:
                self._run(service, command)
            counters = service.own_counters()
        finally:
            service.close()
        self._conversation.say("done", counters=counters)

    def _run(self, service: Service, command: dict[str, Any]) -> None:
        probe = Probe(service, self._board, self._slot, self._workload.keys)
        pause = (command["begin_ns"] - time.monotonic_ns()) / 1e9
        threading.Event().wait(max(pause, 0.0))
        loads = self._loader.calls
        probe.start()
        try:
            self._serve(service, command["end_ns"], loads)
        finally:
            probe.stop()

    def _serve(self, service: Service, end_ns: int, loads: int) -> None:
        clock, keys, tags, versions = time.monotonic_ns, self._workload.keys, self._tags, self._board.versions
        slot, sink, read, tier_of, quick_ns = self._slot, self._sink, service.read, service.tier, service.quick_ns
        starts = [histogram_start(tier) for tier in range(len(layout.TIERS))]
        judge = Judge(self._ledger, slot, int(self._job.bound_s * 1e9))
        next_tick_ns = 0
        for number in cycle(self._requests):
            began_ns = clock()
            try:
                page = read(keys[number])
            except Exception as error:
                self._failed(error)
                page = None
            ended_ns = clock()
            if page is not None:
                took_ns = ended_ns - began_ns
                tier = layout.L1 if took_ns < quick_ns else tier_of()
                slot[starts[tier] + bucket_of(took_ns)] += 1
                version = version_of(page)
                if not page.startswith(tags[number], VERSION_DIGITS):
                    judge.wrong(number, began_ns)
                elif version != versions[number]:
                    judge.outdated(number, version, began_ns)
                os.write(sink, page)
            if ended_ns >= next_tick_ns:
                slot[layout.LOADS] = self._loader.calls - loads
                judge.settle()
                if ended_ns >= end_ns or self._conversation.over:
                    return
                next_tick_ns = min(ended_ns + _TICK_NS, end_ns)

    def _failed(self, error: Exception) -> None:
        """Count a read that raised, which no phase should ever do, and tell the parent about the first few."""
        self._slot[layout.ERRORS] += 1
        if self._errors_told < _ERRORS_TOLD:
            self._errors_told += 1
            self._conversation.say("error", text=f"{type(error).__name__}: {error}")
