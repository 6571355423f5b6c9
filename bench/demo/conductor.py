"""The parent: starts everything, runs the three phases, and sees to it that nothing is left."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from common.crew import Crew, Member

from . import leftovers, options, summary, table
from .board import Board, create
from .faults import Fault, server_pid
from .job import NEARCACHE, NO_CACHE, PHASES, Job
from .reading import ChangerReading, PhaseReading, WorkerReading
from .screen import Screen
from .traces import TraceError, find
from .wording import WIDTH, duration
from .workload import Plan, Workload

PASSED, BROKEN, FAILED = 0, 1, 3

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_START_S = 60.0
_LATE_S = 40.0
_LOOK_S = 0.1
_DRAW_S = 0.25
_LEAD_NS = 100_000_000
_KILL_AT = 0.4
_BACK_S = 15.0


class DemoError(Exception):
    """Something without which the demo cannot go on."""


class InterruptedDemoError(Exception):
    """Ctrl-C, SIGTERM, SIGHUP, or nobody reads the output any more."""


class Conductor:
    """One run of the demo."""

    def __init__(self, chosen: options.Options, screen: Screen) -> None:
        self._options = chosen
        self._screen = screen
        self._crew = Crew(Path(__file__).with_name("__main__.py"))
        self._board: Board | None = None
        self._descriptor: int | None = None
        self._servers: Any = None
        self._server_pids: set[int] = set()
        self._signal: int | None = None
        self._troubles: list[str] = []
        self._events: list[str] = []
        self._own_counters: Counter[str] = Counter()
        self._workers: dict[str, int] = {}
        self._lost: set[str] = set()

    # -- the whole ----------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run the demo and return the exit status."""
        token = leftovers.mark()
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        status = FAILED
        try:
            status = self._perform()
        except InterruptedDemoError:
            self._screen.keep()
            name = signal.Signals(self._signal).name if self._signal else "nobody reads the output"
            self._screen.say(f"\nInterrupted ({name}): ending all processes.")
            status = 128 + (self._signal or signal.SIGPIPE)
        except (DemoError, TraceError) as error:
            self._screen.keep()
            self._screen.say(f"\nThe demo could not go on: {error}", bold=True)
        finally:
            clean = self._clean_up(token)
            for number, handler in before.items():
                signal.signal(number, handler)
        return status if clean or status else FAILED

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = self._signal or number

    def _check(self) -> None:
        """Raise InterruptedDemoError if this run has been interrupted: the only places where it can be."""
        if self._signal or self._screen.broken:
            raise InterruptedDemoError

    def _perform(self) -> int:
        started = time.monotonic()
        chosen = self._options
        self._screen.say("nearcache demo", bold=True)
        plan = self._plan()
        workload = plan.build()
        self._start(plan, workload)
        self._introduce(workload)
        phases = []
        for number, name in enumerate(PHASES, 1):
            phases.append(self._phase(number, name))
        self._screen.say(f"\nSummary ({time.monotonic() - started:.0f} s in all)", bold=True)
        for line in [*summary.comparison(phases, chosen.max_staleness), "", *summary.gain(phases)]:
            self._screen.say(line)
        self._screen.say(f"nearcache's own: {summary.listing(self._own_counters)}.")
        kept, lines = summary.verdict(phases[-1], workload.keys, chosen.max_staleness)
        for line in lines:
            self._screen.say(line, bold=line is lines[0])
        for trouble in self._troubles:
            self._screen.say(f"TROUBLE: {trouble}", bold=True)
        if not kept:
            return BROKEN
        return FAILED if self._troubles else PASSED

    # -- starting -----------------------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        chosen = self._options
        if chosen.trace is not None:
            return Plan([], find(chosen.trace), chosen.seed, chosen.load_ms)
        self._screen.say("Choosing pages: importing the standard library in a process of its own ...")
        member = self._crew.start("survey", "survey")
        member.tell(str(chosen.pages))
        modules = self._await_all("surveyed")[0]["modules"]
        self._crew.dismiss(member)
        return Plan(modules, None, chosen.seed, chosen.load_ms)

    def _start(self, plan: Plan, workload: Workload) -> None:
        chosen = self._options
        self._check()
        self._screen.say(f"Starting {chosen.shards} Redis servers, {chosen.workers} workers and the changer ...")
        self._start_servers()
        pages = len(workload.keys)
        self._descriptor = create(chosen.workers, pages)
        self._board = Board(self._descriptor, chosen.workers, pages)
        for who in range(chosen.workers + 1):
            self._check()
            role = "worker" if who < chosen.workers else "changer"
            name = f"worker {who + 1}" if role == "worker" else role
            member = self._crew.start(name, role, [self._descriptor])
            member.tell(self._job(plan, who, pages).to_json())
            if role == "worker":
                self._workers[name] = who
        self._await_all("ready")

    def _start_servers(self) -> None:
        try:
            from . import near
        except ImportError as error:
            raise DemoError(f"nearcache cannot be imported ({error}); run `make demo`, which installs it") from error
        try:
            self._servers = near.start_servers(f"demo-{os.getpid()}", self._options.shards)
        except near.CacheError as error:
            raise DemoError(str(error)) from error
        self._note_servers()

    def _note_servers(self) -> None:
        pids = (server_pid(path) for path in self._servers.sockets)
        self._server_pids.update(pid for pid in pids if pid is not None)

    def _job(self, plan: Plan, who: int, pages: int) -> Job:
        chosen = self._options
        assert self._descriptor is not None
        return Job(
            who=who, workers=chosen.workers, pages=pages, descriptor=self._descriptor, plan=plan,
            name=f"demo-{os.getpid()}", sockets=self._servers.sockets, l1_pages=self._l1_pages(pages),
            bound_s=chosen.max_staleness, changes_per_s=chosen.changes_per_s, invalidating=chosen.invalidating,
        )  # fmt: skip

    def _l1_pages(self, pages: int) -> int:
        usual = pages * 3 // 4 if self._options.trace is None else pages // 5
        return self._options.l1_pages or max(usual, 1)

    def _introduce(self, workload: Workload) -> None:
        chosen = self._options
        bound = f"{chosen.max_staleness:g} s"
        lines = [
            "",
            *workload.describe(),
            f"processes  {chosen.workers} workers serve pages; a changer changes {chosen.changes_per_s:g} pages per s",
            f"L2         {chosen.shards} Redis servers (shards), started for this demo on unix sockets",
            f"L1         nearcache keeps up to {self._l1_pages(len(workload.keys)):,} pages in each worker's memory",
            "the check  An old version counts as superseded from the instant at which `invalidate` returned to the",
            f"           changer. No read that begins more than {bound} later may return it. Every read is checked.",
            "lag        Time from that instant until a worker's L1 no longer serves the old version (0 if sooner).",
            "oldest     How long before a read its version had been superseded, at most. Loads are loader calls.",
        ]
        for line in lines:
            self._screen.say(line)

    # -- a phase ------------------------------------------------------------------------------------------------

    def _phase(self, number: int, name: str) -> PhaseReading:
        length_s = self._options.lengths()[name]
        self._screen.say()
        if not self._screen.live:
            self._screen.say(f"Phase {number} of {len(PHASES)}: {name}, {length_s:.0f} s", bold=True)
            self._screen.restart_plain()
        self._events = []
        self._own_counters.clear()
        assert self._board is not None
        for lost in self._lost & self._workers.keys():
            self._board.clear_slot(self._workers[lost])
        self._crew.tell_all(phase=name)
        self._await_all("prepared")
        begin_ns = time.monotonic_ns() + _LEAD_NS
        end_ns = begin_ns + int(length_s * 1e9)
        fault = self._fault(name, begin_ns, end_ns)
        self._crew.tell_all(begin_ns=begin_ns, end_ns=end_ns)
        self._watch(number, name, begin_ns, end_ns, fault)
        self._bring_back(fault, begin_ns)
        reading = self._read(name, begin_ns, end_ns)
        self._show(number, reading, length_s, last=True)
        self._take_note(reading)
        return reading

    def _fault(self, name: str, begin_ns: int, end_ns: int) -> Fault | None:
        if name == NO_CACHE or not self._options.faults:
            return None
        return Fault(0, self._servers.sockets[0], begin_ns + int(_KILL_AT * (end_ns - begin_ns)))

    def _watch(self, number: int, name: str, begin_ns: int, end_ns: int, fault: Fault | None) -> None:
        """Show the phase until every process has said that it is done."""
        unfinished = set(self._crew.members)
        next_draw = 0.0
        while unfinished:
            for member, message in self._hear():
                if message["say"] == "done":
                    unfinished.discard(member)
                    self._own_counters.update(message.get("counters", {}))
            unfinished &= set(self._crew.members)
            if fault is not None and unfinished:
                self._step(fault, begin_ns)
            now = time.monotonic()
            if now >= next_draw:
                self._show(number, self._read(name, begin_ns, end_ns), (end_ns - begin_ns) / 1e9)
                next_draw = now + _DRAW_S
            if time.monotonic_ns() > end_ns + int(_LATE_S * 1e9):
                raise DemoError(f"{', '.join(member.name for member in unfinished)} did not finish the phase")

    def _step(self, fault: Fault, begin_ns: int) -> None:
        happened = fault.step()
        if happened is None:
            return
        self._note_servers()
        event = f"{(time.monotonic_ns() - begin_ns) / 1e9:5.1f} s  {happened}"
        self._events.append(event)
        if not self._screen.live:
            self._screen.say(event)

    def _bring_back(self, fault: Fault | None, begin_ns: int) -> None:
        if fault is None:
            return
        deadline = time.monotonic() + _BACK_S
        while fault.back_ns is None:
            if time.monotonic() > deadline:
                self._troubles.append(f"shard {fault.shard} was killed and did not come back")
                return
            self._step(fault, begin_ns)
            self._hear()

    def _read(self, name: str, begin_ns: int, end_ns: int) -> PhaseReading:
        assert self._board is not None
        now_ns = min(time.monotonic_ns(), end_ns)
        return PhaseReading(
            name=name,
            seconds=max(now_ns - begin_ns, 0) / 1e9,
            workers=[WorkerReading.from_slot(slot) for slot in self._board.slots[:-1]],
            changer=ChangerReading.from_slot(self._board.slots[-1]),
        )

    def _show(self, number: int, reading: PhaseReading, length_s: float, *, last: bool = False) -> None:
        if self._screen.live:
            width = min(self._screen.width, WIDTH)
            self._screen.draw(table.live(reading, number, len(PHASES), length_s, self._events, width))
            if last:
                self._screen.keep()
        elif last:
            for line in table.live(reading, number, len(PHASES), length_s, ())[1:]:
                self._screen.say(line)
        elif self._screen.plain_due():
            self._screen.say(table.plain(reading, length_s))

    def _take_note(self, reading: PhaseReading) -> None:
        if reading.name == NEARCACHE and reading.all.errors:
            self._troubles.append(f"{reading.all.errors} reads through nearcache raised an error")
        if reading.changer.given_up:
            longest = duration(reading.changer.longest_ns)
            given_up = f"{reading.changer.given_up} invalidations were never acknowledged (longest wait {longest})"
            self._troubles.append(f"{reading.name}: {given_up}")

    # -- children -----------------------------------------------------------------------------------------------

    def _hear(self, timeout_s: float = _LOOK_S) -> list[tuple[Member, dict[str, Any]]]:
        """Return what children said; note their errors and their deaths."""
        heard = self._crew.hear(timeout_s)
        self._check()
        for member, message in heard:
            if message["say"] == "error":
                self._screen.say(f"{member.name}: a read failed: {message['text']}")
        for name, status in self._crew.lost:
            if name in self._lost:
                continue
            self._lost.add(name)
            how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
            self._troubles.append(f"{name} {how}; the others went on without it")
            self._screen.say(f"{name} {how}.")
        if "changer" in self._lost or (self._workers and self._lost >= self._workers.keys()):
            raise DemoError("there is nobody left to work")
        return heard

    def _await_all(self, what: str) -> list[dict[str, Any]]:
        """Return everybody's message of one kind, once they have come."""
        deadline = time.monotonic() + _START_S
        answers: dict[Member, dict[str, Any]] = {}
        while not answers.keys() >= set(self._crew.members):
            for member, message in self._hear():
                if message["say"] == what:
                    answers[member] = message
            if time.monotonic() > deadline:
                silent = [member.name for member in self._crew.members if member not in answers]
                raise DemoError(f"{', '.join(silent)} did not start within {_START_S:.0f} s")
        if not answers:
            raise DemoError("every process has ended")
        return list(answers.values())

    def _clean_up(self, token: str) -> bool:
        """End everything and return whether nothing is left."""
        killed = self._crew.end(self._board.stop if self._board is not None else lambda: None)
        paths: list[Path] = []
        if self._servers is not None:
            paths.append(Path(self._servers.directory))
            self._servers.leave()
        if self._descriptor is not None:
            os.close(self._descriptor)
        left = leftovers.find(token, self._server_pids, paths)
        if killed:
            self._screen.say(f"Had to be killed: {', '.join(killed)}.", bold=True)
        if left:
            self._screen.say("Left behind: " + "; ".join(left), bold=True)
        else:
            self._screen.say("Left behind: nothing (no process, no server, no socket, no file).")
        return not left and not killed


def main(arguments: Sequence[str]) -> int:
    """Run the demo with command-line arguments and return its exit status."""
    screen = Screen(sys.stdout)
    status = Conductor(options.parse(arguments), screen).run()
    if screen.broken:
        # Nobody reads: what Python still wants to flush at exit must not become an error message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
