"""The judge: reads a history and accuses only where no order of events whatever could excuse what was seen.

    I1   a value from L1 was the newest in Redis at some instant of the last B seconds before the call
    I3   who has written a key, in this process, reads that write or a newer one
    I4   one thread never reads one key backwards
    I5   when faults have ended and nothing is written any more, L1 holds what Redis holds, and is vouched for
    I10  no read raises because of a fault
    I12  every call returns within its time
    OUT  a value that nobody wrote, or whose write was reported as not sent, is never read

W1 to W3, of what is written behind the cache, are ``written``'s.

What it cannot see: a stale value whose successor's outcome is unknown, or came while its server was being replaced
(``ground``); a value older than another *load* of the same unchanged source; and reads that a killed process had not
yet passed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from . import records as r
from .ground import NEVER, Ground, Span, died, groups, pair

RULES: Final = {
    "I1": "a hit older than the bound",
    "I3": "a read older than this process's own write",
    "I4": "a thread that reads a key backwards",
    "I5": "L1 and L2 differ after the faults",
    "I10": "a read that raised",
    "I12": "a call that did not return in time",
    "OUT": "a value that cannot be there",
    "W1": "an acknowledged change that was not written",
    "W2": "an older value written after a newer one",
    "W3": "a written value that cannot be",
}

#: The process that reads Redis at the end, with no L1 of its own.
WITNESS: Final = 0


@dataclass(frozen=True)
class Violation:
    """One accusation.

    Attributes:
        rule: Which promise.
        text: What is wrong, in words.
        read: The record that shows it.
        shown: What leads to it, if that is known.
    """

    rule: str
    text: str
    read: np.void
    shown: tuple[np.void, ...] = ()


@dataclass
class Verdict:
    """What was judged and found.

    Attributes:
        violations: Accusations, earliest first.
        hits: Records of the reads that L1 answered.
        stale_ns: For each hit, how long ago its value was surely superseded; 0: not surely.
        unjudged: Hits at the end that differ from Redis by a load after an eviction, which is allowed, or by a write of
            unknown outcome that may have come later still.
    """

    violations: list[Violation] = field(default_factory=list)
    hits: np.ndarray = field(default_factory=lambda: np.zeros(0, r.RECORD))
    stale_ns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    unjudged: int = 0


@dataclass(frozen=True)
class Limits:
    """What was promised.

    Attributes:
        bound_ns: B.
        call_ns: Longest that a call may take.
        wait_ns: How much longer one that loads may: another process may have the key's lease, and be dead.
        evictions: Whether the servers evicted values, which is not announced.
    """

    bound_ns: int
    call_ns: int
    wait_ns: int = 0
    evictions: bool = False


def judge(ground: Ground, limits: Limits, pauses: Sequence[tuple[int, Span]] = ()) -> Verdict:
    """Return the verdict on a history.

    Args:
        ground: What is certain.
        limits: What was promised.
        pauses: When which process was stopped: that time is not the call's.
    """
    verdict = Verdict()
    known = ground.which >= 0
    for each in np.flatnonzero(~known):
        verdict.violations.append(Violation("OUT", "nobody wrote this value, or it was damaged", ground.reads[each]))
    reads, which = ground.reads[known], ground.which[known]
    last = ground.last_at(reads, which)
    _check_bound(ground, limits, verdict, reads, which, last)
    _check_own_writes(ground, verdict, reads, last)
    _check_order(ground, verdict, reads, which, last)
    _check_outcomes(ground, verdict, reads, which)
    _check_end(ground, limits, verdict)
    _check_calls(ground, limits, verdict, pauses)
    verdict.violations.sort(key=lambda violation: int(violation.read["to_ns"]))
    return verdict


def _check_bound(
    ground: Ground, limits: Limits, verdict: Verdict, reads: np.ndarray, which: np.ndarray, last: np.ndarray
) -> None:
    is_hit = reads["tier"] == r.L1
    hits, at, last = reads[is_hit], which[is_hit], last[is_hit]
    dead = died(ground.by_anybody(), hits["key"], last)
    # A value with a lifetime dies of itself; after a reset it may have been stored anew.
    mortal = (ground.ttl_ns[at] > 0) & (ground.last[at] < NEVER) & (last == ground.last[at])
    dead = np.where(mortal, np.minimum(dead, ground.last[at] + ground.ttl_ns[at]), dead)
    verdict.hits = hits
    verdict.stale_ns = np.maximum(hits["from_ns"] - dead, 0)
    for each in np.flatnonzero(verdict.stale_ns > limits.bound_ns):
        text = f"superseded {verdict.stale_ns[each] / 1e9:.3f} s before the call; B is {limits.bound_ns / 1e9:g} s"
        verdict.violations.append(Violation("I1", text, hits[each]))


def _check_own_writes(ground: Ground, verdict: Verdict, reads: np.ndarray, last: np.ndarray) -> None:
    dead = died(ground.by_process(), pair(reads["process"], reads["key"]), last)
    for each in np.flatnonzero(dead <= reads["from_ns"]):
        ago = (reads["from_ns"][each] - dead[each]) / 1e9
        verdict.violations.append(
            Violation("I3", f"this process's newer write had returned {ago:.6f} s ago", reads[each])
        )


def _check_order(ground: Ground, verdict: Verdict, reads: np.ndarray, which: np.ndarray, last: np.ndarray) -> None:
    born = np.where(ground.proved[which], ground.born[which], 0)
    for each in groups(reads["process"], reads["thread"], reads["key"]):
        if len(each) < 2:
            continue
        newest = np.maximum.accumulate(born[each])[:-1]
        for bad in np.flatnonzero(last[each[1:]] < newest):
            text = f"this thread had read a value made {(newest[bad] - last[each[bad + 1]]) / 1e9:.6f} s after this one"
            verdict.violations.append(Violation("I4", text, reads[each[bad + 1]]))


def _check_outcomes(ground: Ground, verdict: Verdict, reads: np.ndarray, which: np.ndarray) -> None:
    for each in np.flatnonzero(ground.ends[which] == r.FAIL):
        verdict.violations.append(Violation("OUT", "its write was reported as certainly not done", reads[each]))


def _check_end(ground: Ground, limits: Limits, verdict: Verdict) -> None:
    history = ground.history
    final = history[(history["op"] == r.FINAL) & (history["end"] == r.OK)]
    there = {int(each["key"]): int(each["value"]) for each in final[final["process"] == WITNESS]}
    for hit in final[(final["process"] != WITNESS) & (final["tier"] == r.L1)]:
        expected = there.get(int(hit["key"]))
        if expected is None or expected == int(hit["value"]):
            continue
        at = ground.position(np.array([hit["value"], expected], np.uint64))
        if expected == 0 and at[0] >= 0 and ground.ttl_ns[at[0]]:
            continue  # it has expired since
        if at[1] >= 0 and not ground.is_load[at[1]] and ground.last[at[1]] > hit["from_ns"]:
            verdict.unjudged += 1  # a write of unknown outcome, which may have come between the two reads
            continue
        if limits.evictions and (expected == 0 or (at[1] >= 0 and ground.is_load[at[1]])):
            verdict.unjudged += 1
            continue
        verdict.violations.append(Violation("I5", f"Redis holds {expected:x}", hit))
    shards = history[(history["op"] == r.HEALTH) & (history["tier"] == r.BELOW) & (history["value"] == 0)]
    for each in shards:
        verdict.violations.append(Violation("I5", f"shard {int(each['key'])} is still not vouched for", each))


def _check_calls(ground: Ground, limits: Limits, verdict: Verdict, pauses: Sequence[tuple[int, Span]]) -> None:
    history = ground.history
    calls = history[np.isin(history["op"], (*r.READS, *r.WRITES, r.BEHIND))]
    for each in calls[np.isin(calls["op"], r.READS) & np.isin(calls["end"], (r.FAIL, r.INFO))]:
        verdict.violations.append(Violation("I10", "the read raised", each))
    stalls = history[history["op"] == r.STALL]
    slow = calls[(calls["end"] != r.INVOKED) & (calls["to_ns"] - calls["from_ns"] > limits.call_ns)]
    for each in slow:
        own = stalls[stalls["process"] == each["process"]]
        asleep = [(int(stall["from_ns"]), int(stall["to_ns"])) for stall in own]
        asleep += [(span.from_ns, span.to_ns) for process, span in pauses if process == int(each["process"])]
        begun, ended = int(each["from_ns"]), int(each["to_ns"])
        awake = ended - begun - covered(asleep, begun, ended)
        if awake > limits.call_ns + (limits.wait_ns if each["op"] == r.ITEM else 0):
            verdict.violations.append(Violation("I12", f"it took {awake / 1e9:.3f} s", each))


def covered(spans: Sequence[tuple[int, int]], begun: int, ended: int) -> int:
    """Return how much of a stretch of time some others cover together."""
    total, reached = 0, begun
    for start, stop in sorted(spans):
        left = min(stop, ended) - max(start, reached)
        if left > 0:
            total += left
            reached = min(stop, ended)
    return total


def evidence(ground: Ground, violation: Violation, most: int = 14) -> list[np.void]:
    """Return the part of the history that shows a violation: the writes of its key around it, and the read itself."""
    history, read = ground.history, violation.read
    if violation.shown:
        return [*violation.shown[-most:], read]
    at = int(ground.position(np.array([read["value"]], np.uint64))[0])
    begun = int(ground.born[at]) if at >= 0 else int(read["from_ns"]) - 5_000_000_000
    tag = int(ground.tag_of[read["key"]])
    of_key = np.isin(history["key"], (read["key"], r.ALL_KEYS, *([r.tagged(tag)] if tag >= 0 else [])))
    concerned = of_key & np.isin(history["op"], (*r.WRITES, r.LOAD)) & (history["from_ns"] <= read["to_ns"])
    ended = history["to_ns"]
    found = history[concerned & ((ended >= begun) | ((ended == 0) & (history["from_ns"] >= begun)))]
    same = history[(history["value"] == read["value"]) & np.isin(history["op"], (*r.WRITES, r.LOAD)) & of_key]
    found = np.unique(np.concatenate([found, same]))
    found = found[np.argsort(found["from_ns"], kind="stable")]
    if len(found) > most:
        found = np.concatenate([found[: most // 2], found[-(most // 2) :]])
    return [*found, read]
