"""The work in pieces that do not know of each other, dealt out to processes."""

from __future__ import annotations

import lzma
import multiprocessing
from array import array
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from demo import traces

from . import belady, mixtures, peers, reference, replay, synthetic

PROCESSES = 2
MIN = "min"
REFERENCE_LRU = "lru, independent"


@dataclass(frozen=True)
class Job:
    """One replay.

    Attributes:
        workload: The path of a trace, or the name of a synthetic workload or a mixture.
        size: Entries; or bytes, if ``weighted``.
        policy: One of the store's or a peer's, or ``MIN`` or ``REFERENCE_LRU``.
        requests: How many of a synthetic workload; 0 for a trace, which is replayed whole.
        weighted: Whether entries have the trace's own sizes.
    """

    workload: str
    size: int
    policy: str
    requests: int = 0
    weighted: bool = False


@lru_cache(maxsize=1)
def _keys(workload: str, requests: int) -> list[Any]:
    """Return what is asked for; one object per key, as recorded, so that the store sees the source's own numbers."""
    if requests:
        objects: dict[int, int] = {}
        return [objects.setdefault(key, key) for key in synthetic.requests(workload, requests)]
    if workload.startswith((mixtures.MADE_UP, mixtures.PIECES)):
        return mixtures.requests(workload)
    trace = reference.trace(workload)
    return [trace.keys[number] for number in trace.sequence]


@lru_cache(maxsize=1)
def _next_uses(workload: str, requests: int) -> list[int]:
    return belady.next_uses(_keys(workload, requests))


@lru_cache(maxsize=1)
def _sizes(workload: str) -> list[int]:
    column = array("I")
    column.frombytes(lzma.decompress(Path(f"{traces.stem_of(workload)}.size.u32.xz").read_bytes()))
    return column.tolist()


def run(job: Job) -> tuple[int, int]:
    """Return hits and requests."""
    keys = _keys(job.workload, job.requests)
    if job.weighted:
        return len(keys) - replay.misses_by_bytes(keys, _sizes(job.workload), job.size, job.policy), len(keys)
    if job.policy == MIN:
        return belady.belady_hits(keys, _next_uses(job.workload, job.requests), job.size), len(keys)
    if job.policy == REFERENCE_LRU:
        return belady.lru_hits(keys, job.size), len(keys)
    if job.policy in peers.NAMES:
        return peers.hits(keys, job.size, job.policy), len(keys)
    return replay.hits(keys, job.size, job.policy), len(keys)


def run_all(jobs: Iterable[Job], processes: int = PROCESSES) -> Iterator[tuple[Job, tuple[int, int]]]:
    """Yield each job with its hits and requests, in order.

    Jobs on one trace should stand together: a process keeps the trace that it has read last.
    """
    listed = list(jobs)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield from zip(listed, pool.map(run, listed), strict=True)
