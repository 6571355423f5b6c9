"""What is printed."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from demo.wording import NOTHING, columns, count, duration, percent

from . import figures, picture
from . import records as r
from .check import RULES, Verdict, evidence
from .faults import KINDS
from .ground import Ground
from .options import Options
from .written import Written

if TYPE_CHECKING:
    from .conductor import Run

_SHOWN: Final = 5
#: How long after its end a fault is felt, besides B.
TAIL_NS: Final = 1_500_000_000
_HEAD: Final = (
    "while", "faults", "calls/s", "L1 hits", "stale p50", "p99", "p99.9", "most", "dark after", "back after",
)  # fmt: skip


def opening(options: Options, servers: int) -> str:
    """Return what is about to happen."""
    return (
        f"chaos: topology {options.topology} ({servers} servers), {options.workers} processes of {options.threads} "
        f"threads, {options.keys} keys, B {options.bound_s:g} s, {options.seconds:g} s of faults, seed {options.seed}\n"
        "left out: clock steps (nothing here reads a wall clock; needs libfaketime), network namespaces (the proxy "
        "makes one-way faults of the same kinds)"
    )


def report(run: Run, ground: Ground, verdict: Verdict, written: Written | None) -> int:
    """Print everything; return the exit status."""
    assert run.nemesis is not None
    happenings = run.nemesis.effects.happenings
    bound_ns = int(run.options.bound_s * 1e9)
    table = figures.rows(
        ground.history, verdict.hits, verdict.stale_ns, happenings, run.begun_ns, run.ended_ns, bound_ns + TAIL_NS
    )
    for line in (*_operations(run, ground, verdict), *_behind(written), "", *_table(table), ""):
        print(line)
    arguments = verdict.hits["from_ns"], verdict.stale_ns, happenings, run.begun_ns, run.ended_ns, bound_ns
    print("\n".join(picture.text(*arguments)))
    path = run.options.out / f"staleness-{run.options.topology}-{run.options.seed}.png"
    title = f"nearcache, {run.options.topology}: age of the stalest hit while {len(happenings)} faults came"
    try:
        picture.draw(path, title, *arguments)
        print(f"picture: {path}")
    except ImportError:
        print("picture: none without matplotlib (pip install 'nearcache[bench]')")
    return _verdict(run, ground, verdict)


def _operations(run: Run, ground: Ground, verdict: Verdict) -> list[str]:
    assert run.nemesis is not None
    history, effects = ground.history, run.nemesis.effects
    done = history[history["end"] != r.INVOKED]
    by_op = Counter({r.NAMES[op]: int((done["op"] == op).sum()) for op in (*r.READS, *r.WRITES)})
    writes = done[np.isin(done["op"], r.WRITES)]
    unknown, refused = int((writes["end"] == r.INFO).sum()), int((writes["end"] == r.FAIL).sum())
    loads = int((history["op"] == r.LOAD).sum())
    kinds = Counter(each.kind for each in effects.happenings)
    stale = verdict.stale_ns[verdict.stale_ns > 0]
    beyond = int((verdict.stale_ns > run.options.bound_s * 1e9).sum())
    hits = len(verdict.hits)
    lines = [
        f"calls      {count(by_op.total())}: " + ", ".join(f"{name} {count(n)}" for name, n in by_op.items() if n),
        f"writes     {count(len(writes))}, of which {count(unknown)} with unknown outcome, {count(refused)} not sent",
        f"loader     {count(loads)} calls",
        f"processes  {len(np.unique(history['process'])) - 2} in all",
        f"faults     {len(effects.happenings)}: " + ", ".join(f"{name} {kinds[name]}" for name in sorted(kinds)),
        f"stale      {beyond} of {count(hits)} hits were stale beyond B"
        + (f" (95 % sure: less than {3 / hits:.1e} of all)" if hits and not beyond else ""),
        f"           {count(len(stale))} hits were surely stale at all; of those p50 p99 p99.9 most: "
        + ", ".join(duration(value) for value in figures.percentiles(stale)),
    ]
    if run.stats:
        lines.append("nearcache  " + _own_account(run.stats))
    if effects.missed:
        lines.append(f"missed     {len(effects.missed)} faults found their target away: {effects.missed[0][:90]}")
    if verdict.unjudged:
        lines.append(
            f"unjudged   {verdict.unjudged} hits at the end: loads after an eviction, or writes that came late"
        )
    never = [kind.name for kind in KINDS if run.options.topology in kind.topologies and kind.name not in kinds]
    if never and not run.options.only:
        lines.append("not struck in this time: " + ", ".join(never))
    return lines


def _behind(written: Written | None) -> list[str]:
    if written is None:
        return []
    return [
        f"behind     {count(written.acknowledged)} changes acknowledged, {count(written.rows)} rows written, "
        f"{count(written.letters)} dead letters, {count(written.flushes)} times flushed"
    ]


def _own_account(stats: list[dict[str, Any]]) -> str:
    wanted = [("coherence", "received"), ("coherence", "gaps"), ("coherence", "resyncs"), ("l2", "revalidated"),
              ("l2", "fills_refused"), ("l2", "errors")]  # fmt: skip
    sums = [(name, sum(each[part].get(name, 0) for each in stats)) for part, name in wanted]
    return ", ".join(f"{name.replace('_', ' ')} {count(value)}" for name, value in sums) + " (survivors)"


def _table(rows: list[figures.Row]) -> list[str]:
    cells = [list(_HEAD)]
    for row in rows:
        cells.append([
            row.kind, count(row.faults) if row.faults else NOTHING, count(row.calls_per_s), percent(row.hit_ratio),
            *(duration(value) if value else "0" for value in row.stale_ns),
            _typical(row.dark_ns), _typical(row.back_ns),
        ])  # fmt: skip
    return columns(cells)


def _typical(values: list[int]) -> str:
    """Median and greatest."""
    if not values:
        return NOTHING
    return f"{duration(statistics.median(values))} / {duration(max(values))}"


def _verdict(run: Run, ground: Ground, verdict: Verdict) -> int:
    for trouble in run.hung:
        print(f"I12 BROKEN: {trouble}")
    by_rule = Counter(violation.rule for violation in verdict.violations)
    for rule, number in sorted(by_rule.items()):
        print(f"\n{rule} BROKEN: {RULES[rule]}: {number} times")
        for violation in [each for each in verdict.violations if each.rule == rule][:_SHOWN]:
            print(f"  {violation.text}:")
            for record in evidence(ground, violation):
                print(f"    {r.tell(record, run.begun_ns)}")
    if by_rule or run.hung:
        return 1
    print("no promise was broken")
    return 0
