"""The figures that are aimed at, and whether a run met them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .roster import ADAPTIVE, DICT, LRU, OURS
from .timing import LOOP, Results, Series

MOST_BYTES = 80.0
MOST_STALL_NS = 1_000_000


@dataclass(frozen=True)
class Aim:
    """A ratio that is not to be exceeded.

    Attributes:
        operation: What is compared.
        ours: Names of which contestants.
        against: Name of the contestant that is compared with.
        most: The ratio.
        least_size, most_size: For which numbers of entries it is meant.
        kind: For which keys; '' for all.
    """

    operation: str
    ours: tuple[str, ...]
    against: str
    most: float
    least_size: int = 0
    most_size: int = 10**9
    kind: str = ""


AIMS = (
    Aim("hit", OURS, DICT, 1.05, 10_000, 10_000, "str"),
    Aim("hit", OURS, DICT, 1.15),
    Aim("hit", OURS, DICT, 1.0, 1_000_000, kind="str"),
    Aim("hit", OURS, "lru-dict", 0.75),
    Aim("hit", OURS, "cachebox LRUCache", 0.8),
    Aim("hit", OURS, "functools.lru_cache", 0.55),
    Aim("hit", (ADAPTIVE,), LRU, 1.15),
    *(Aim(operation, OURS, DICT, 1.1) for operation in ("get", "bound", "in", "miss")),
    *(Aim(operation, (LRU, ADAPTIVE), "lru-dict", 0.8) for operation in ("insert", "overwrite", "delete")),
    Aim("many", OURS, DICT, 1.3),
)


@dataclass(frozen=True)
class Verdict:
    """What became of one aim.

    Attributes:
        text: What was compared.
        ratio: Of the minima, the loop subtracted; what is judged.
        median: The ratio of the medians, the loop subtracted too, to show how far to trust it.
        most: The aim.
    """

    text: str
    ratio: float
    median: float
    most: float

    @property
    def met(self) -> bool:
        """Whether the aim was reached."""
        return self.ratio <= self.most


def ratio_of(ours: Series, base: Sequence[float], loop: Series) -> tuple[float, float]:
    """Return the ratios of minima and of medians, the loop subtracted."""
    least, middle = min(loop.ns), statistics.median(loop.ns)
    return (
        (min(ours.ns) - least) / (min(base) - least),
        (statistics.median(ours.ns) - middle) / (statistics.median(base) - middle),
    )


def judge(results: Results, size: int, kind: str) -> Iterator[Verdict]:
    """Yield a verdict for each aim that a measurement has something to say about."""
    for aim in AIMS:
        series = results.get(aim.operation, {})
        fits = aim.least_size <= size <= aim.most_size and aim.kind in ("", kind)
        if fits and aim.against in series:
            for name in aim.ours:
                if name in series:
                    # dict has a figure from the very same rounds, also where not all contestants stood together.
                    base = series[name].beside if aim.against == DICT else series[aim.against].ns
                    text = f"{aim.operation}: {name} against {aim.against}, {size:,} {kind} keys"
                    yield Verdict(text, *ratio_of(series[name], base, series[LOOP]), aim.most)
