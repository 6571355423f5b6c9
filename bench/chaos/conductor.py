"""The parent: starts everything, lets the faults come, and has the history judged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

import nearcache
from common.crew import Crew, Member
from demo.wording import count

from . import behind, faults, options, summary
from . import records as r
from .check import WITNESS, Limits, Verdict, judge
from .faults import Fault
from .ground import Ground, Span
from .job import BEHIND_LEASE_S, Job, key_name, tag_of, tags_of
from .nemesis import Nemesis
from .options import Options
from .proxy import Rule, to_json
from .records import Recorder
from .servers import ROAMING, Nodes, NoServerError, Plain, start
from .watched import opened
from .written import Written

HELD, BROKEN, FAILED = 0, 1, 3

_START_S: Final = 60.0
_LATE_S: Final = 60.0
#: After the faults: B, and this for the slowest retry of a connection.
_SETTLE_S: Final = 4.0
#: So long what waits to be written may take when the faults are over.
_DRAIN_S: Final = 40.0
#: What a busy machine may add to a call.
_SLACK_S: Final = 1.0
#: The life of a lease that nobody renews, because its lane was not followed: the longest one.
_LEASE_NS: Final = 10_000_000_000
_PRIMER: Final = 1

now: Final = time.monotonic_ns


class TroubleError(RuntimeError):
    """The run itself went wrong."""


@dataclass
class Run:
    """What a run was, for the report.

    Attributes:
        options: What was asked for.
        begun_ns, ended_ns: The time with faults.
        nemesis: With what was done.
        hung: Threads and children that did not end.
        stats: nearcache's own account of each process.
    """

    options: Options
    begun_ns: int = 0
    ended_ns: int = 0
    nemesis: Nemesis | None = None
    hung: list[str] = field(default_factory=list)
    stats: list[dict[str, Any]] = field(default_factory=list)


class Conductor:
    """One run."""

    def __init__(self, chosen: Options, servers: Plain | Nodes, directory: Path) -> None:
        self._options = chosen
        self._servers = servers
        self._directory = directory
        self._crew = Crew(Path(__file__).with_name("__main__.py"), patience_s=_LATE_S)
        self._processes = _PRIMER
        self._workers: dict[int, tuple[int, Member]] = {}
        self._proxy: Member | None = None
        self._heard: list[tuple[Member, dict[str, Any]]] = []
        self._mute: dict[str, Any] | None = None
        self._killed: set[str] = set()
        self.shard_of = self.tag_of = np.zeros(chosen.keys, np.int64)
        self.run = Run(chosen)

    # -- the run

    def work(self) -> Run:
        """Carry it out."""
        try:
            self._open()
            self._suffer()
            self._settle()
        finally:
            killed = self._crew.end(lambda: None)
            if killed:
                self.run.hung += [f"{name} had to be killed" for name in killed]
        return self.run

    def _open(self) -> None:
        self._start_proxy()
        self._prime()
        for worker in range(self._options.workers):
            self.start(worker)
        self._await("ready", [member for _, member in self._workers.values()], _START_S)

    def _start_proxy(self) -> None:
        routes = self._servers.routes(self._options.workers)
        if not routes:
            return
        self._proxy = self._crew.start("the proxy", "proxy")
        self._proxy.tell(json.dumps({"routes": [route.__dict__ for route in routes], "seed": self._options.seed}))
        self._await("ready", [self._proxy], _START_S)

    def _prime(self) -> None:
        """Write every key once, and look where it went."""
        recorder = Recorder(self._directory, _PRIMER, 0)
        with nearcache.open(
            self._servers.urls(None)[0], namespace="chaos", max_staleness=self._options.bound_s
        ) as cache:
            for key in range(self._options.keys):
                value, before = recorder.new_value(), now()
                recorder.begin(r.SET, key, value, before)
                cache.set(key_name(key), r.payload(value, key, 10), tags=tags_of(key))
                recorder.done(r.SET, r.OK, r.UNKNOWN, key, value, before, now())
        recorder.close()
        shards, prefix = self._servers.find_keys(self._options.keys)
        self.tag_of = np.array([tag_of(key) for key in range(self._options.keys)])
        # What happens to the shard of its tag's record happens to a value, too.
        is_anywhere = self._servers.roaming(self._options.keys) | (self.tag_of >= 0)
        self.shard_of = np.where(is_anywhere, ROAMING, np.array(shards, np.int64))
        if self._options.mute:
            self._mute = {"servers": self._servers.raw_addresses(), "shards": shards, "prefix": prefix}

    def _suffer(self) -> None:
        """Let the faults come, each at its time."""
        chosen = self._options
        nemesis = self.run.nemesis = Nemesis(self._servers, self, chosen.seed, chosen.bound_s)
        coming = faults.schedule(
            chosen.seed, chosen.seconds, chosen.topology, len(self._servers.servers), chosen.workers,
            chosen.bound_s + 1.5, chosen.only,
        )  # fmt: skip
        self.run.begun_ns = now()
        agenda: list[tuple[float, int, Fault, Callable[[Fault], None]]] = []
        for fault in coming:
            agenda.append((fault.at_s, fault.number, fault, nemesis.begin))
            agenda.append((fault.at_s + fault.for_s, fault.number, fault, nemesis.end))
        agenda.sort(key=lambda entry: entry[:2])
        for at_s, _, fault, act in agenda:
            self._listen_until(self.run.begun_ns + int(min(at_s, chosen.seconds) * 1e9))
            act(fault)
        self._listen_until(self.run.begun_ns + int(chosen.seconds * 1e9))
        self.run.ended_ns = now()

    def _settle(self) -> None:
        """Let calls end, wait until everything must have recovered, and read all keys everywhere."""
        self._tell_workers(do="quiet")
        for _, answer in self._await("quiet", self._members(), _LATE_S):
            self.run.hung += answer["hung"]
        if isinstance(self._servers, Nodes):
            self._servers.await_primaries()  # else nothing could recover, and nothing would be proved
        elif self.run.nemesis is not None:
            self.run.nemesis.finish_changes()
        self._listen_until(now() + int((self._options.bound_s + _SETTLE_S) * 1e9))
        self._tell_workers(do="final")
        self.run.stats = [answer["stats"] for _, answer in self._await("final", self._members(), _LATE_S)]
        recorder = Recorder(self._directory, WITNESS, 0)
        cache, _ = opened(
            self._servers.urls(None), bound_s=self._options.bound_s, timeout_s=5.0, loader=None, maxsize=None
        )
        with cache:
            for key in range(self._options.keys):
                before = now()
                found = cache.get(key_name(key))
                value = 0 if found is None else r.read_payload(found, key) or 0
                recorder.done(r.FINAL, r.OK, r.BELOW, key, value, before, now())
        if isinstance(self._servers, Plain):
            trouble = behind.drain(self._servers.urls(None)[0], recorder, self._directory, _DRAIN_S)
            self.run.hung += [] if trouble is None else [trouble]
        recorder.close()

    # -- hands of the nemesis

    def kill(self, worker: int) -> None:
        """Kill a worker."""
        _, member = self._workers.pop(worker)
        self._killed.add(member.name)
        os.kill(member.pid, signal.SIGKILL)

    def start(self, worker: int) -> None:
        """Start a worker."""
        chosen = self._options
        self._processes += 1
        process = self._processes
        job = Job(
            process=process, urls=self._servers.urls(worker), directory=str(self._directory), threads=chosen.threads,
            keys=chosen.keys, calls_per_s=chosen.calls_per_s, bound_s=chosen.bound_s, timeout_s=chosen.timeout_s,
            seed=chosen.seed, mute=self._mute,
            behind=self._servers.urls(worker)[0] if isinstance(self._servers, Plain) else None,
        )  # fmt: skip
        member = self._crew.start(f"process {process}", "worker")
        member.tell(job.to_json())
        self._workers[worker] = process, member

    def signal(self, worker: int, which: signal.Signals) -> None:
        """Send a worker a signal."""
        with suppress(KeyError, ProcessLookupError):
            os.kill(self._workers[worker][1].pid, which)

    def fork(self, worker: int, count: int) -> None:
        """Make a worker fork."""
        children = list(range(self._processes + 1, self._processes + 1 + count))
        self._processes += count
        self._workers[worker][1].tell(json.dumps({"do": "fork", "processes": children}))

    def reshard(self, worker: int, url: str, pause_s: float) -> None:
        """Have a worker lead everybody to another list of shards."""
        if worker in self._workers:
            self._workers[worker][1].tell(json.dumps({"do": "reshard", "url": url, "pause_s": pause_s}))

    def rule(self, do: str, number: int, rule: Rule | None) -> None:
        """Tell the proxy."""
        assert self._proxy is not None
        self._proxy.tell(json.dumps({"do": do, "number": number, "rule": None if rule is None else to_json(rule)}))

    def process_of(self, worker: int) -> int:
        """Return the number of the process that a worker is."""
        return self._workers[worker][0]

    # -- talking

    def _members(self) -> list[Member]:
        return [member for _, member in self._workers.values()]

    def _tell_workers(self, **command: Any) -> None:
        for member in self._members():
            member.tell(json.dumps(command))

    def _listen_until(self, at_ns: int) -> None:
        while (left_ns := at_ns - now()) > 0:
            self._heard += self._crew.hear(left_ns / 1e9)
            self._check_lost()

    def _check_lost(self) -> None:
        lost = [(name, status) for name, status in self._crew.lost if name not in self._killed]
        if lost:
            raise TroubleError(f"{lost[0][0]} ended with status {lost[0][1]} before it should")

    def _await(self, word: str, members: list[Member], patience_s: float) -> list[tuple[Member, dict[str, Any]]]:
        """Return what each of them answers."""
        deadline = time.monotonic() + patience_s
        found: dict[str, tuple[Member, dict[str, Any]]] = {}
        while len(found) < len(members):
            for member, message in self._heard:
                if message["say"] == word and member in members:
                    found[member.name] = member, message
            self._heard.clear()
            missing = [member.name for member in members if member.name not in found]
            if missing and time.monotonic() > deadline:
                raise TroubleError(f"{', '.join(missing)} did not say {word!r} within {patience_s:g} s")
            if missing:
                self._heard += self._crew.hear(0.1)
                self._check_lost()
        return list(found.values())


def judged_rows(run: Run, history: np.ndarray, rows: np.ndarray, servers: Plain | Nodes) -> Written | None:
    """Return what is known of what was written behind the cache; None: nothing was."""
    if not isinstance(servers, Plain):
        return None
    assert run.nemesis is not None
    effects = run.nemesis.effects
    evicted = [
        Span(int(each.target.split()[1]), each.from_ns, each.to_ns)
        for each in effects.happenings
        if each.kind == "eviction"
    ]
    shards = servers.place([behind.name(key) for key in range(behind.KEYS)])
    losses = [*effects.resets, *effects.erasures, *evicted]
    return Written(history, rows, shards, losses, effects.pauses, int(BEHIND_LEASE_S * 1e9))


def judged(run: Run, history: np.ndarray, shard_of: np.ndarray, tag_of: np.ndarray) -> tuple[Ground, Verdict]:
    """Return what is certain of a run, and the verdict."""
    assert run.nemesis is not None
    effects, chosen = run.nemesis.effects, run.options
    ground = Ground(history, shard_of, effects.resets, effects.erasures, tag_of)
    # A load may wait for another's, whose steps have their own time.
    limits = Limits(
        bound_ns=int(chosen.bound_s * 1e9),
        call_ns=int((2 * chosen.timeout_s + _SLACK_S) * 1e9),
        wait_ns=_LEASE_NS,
        evictions=effects.evictions,
    )
    return ground, judge(ground, limits, effects.pauses)


def main(arguments: Sequence[str]) -> int:
    """Run, judge and report."""
    chosen = options.parse(arguments)
    directory = Path(tempfile.mkdtemp(prefix="nc-history-"))
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
    keep = False
    try:
        with start(chosen.topology) as servers:
            print(summary.opening(chosen, len(servers.servers)), flush=True)
            conductor = Conductor(chosen, servers, directory)
            run = conductor.work()
        history = r.read_all(directory)
        print(f"judging {count(len(history))} records...", flush=True)
        ground, verdict = judged(run, history, conductor.shard_of, conductor.tag_of)
        written = judged_rows(run, history, r.read_rows(directory), servers)
        if written is not None:
            verdict.violations += written.judge()
        status = summary.report(run, ground, verdict, written)
        keep = status != HELD
        return status
    except nearcache.ConfigError as error:
        print(f"chaos: this nearcache refuses the topology {chosen.topology}: {error}", file=sys.stderr)
        return FAILED
    except (TroubleError, NoServerError, nearcache.CacheError) as error:
        print(f"chaos: {error}", file=sys.stderr)
        return FAILED
    finally:
        if keep:
            kept = chosen.out / f"history-{chosen.topology}-{chosen.seed}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(directory, kept)
            print(f"the history is kept in {kept}")
        shutil.rmtree(directory, ignore_errors=True)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)
