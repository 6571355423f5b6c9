"""Staleness over time, with the faults: as a PNG, and in letters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from .nemesis import Happening

_HEIGHT: Final = 8
_BUCKETS: Final = 1_000


def worst(times: np.ndarray, values: np.ndarray, begun: int, ended: int, buckets: int) -> np.ndarray:
    """Return the greatest value in each of so many equal stretches of time; 0 where there is none."""
    found = np.zeros(buckets, np.int64)
    at = (times - begun) * buckets // max(ended - begun, 1)
    fits = (at >= 0) & (at < buckets)
    np.maximum.at(found, at[fits], values[fits])
    return found


def text(
    times: np.ndarray, stale_ns: np.ndarray, happenings: Sequence[Happening], begun: int, ended: int, bound_ns: int,
    width: int = 84,
) -> list[str]:  # fmt: skip
    """Return the figure in lines: the stalest hit of each stretch of time, B on top, and how many faults there were."""
    heights = np.ceil(worst(times, stale_ns, begun, ended, width) / bound_ns * _HEIGHT).astype(int)
    lines = []
    for level in range(_HEIGHT + 1, 0, -1):
        label = {_HEIGHT + 1: "over B", _HEIGHT: "B", _HEIGHT // 2: "B/2", 1: "0"}.get(level, "")
        blank = "-" if level == _HEIGHT else " "
        cells = "".join("!" if level > _HEIGHT and h >= level else "#" if h >= level else blank for h in heights)
        lines.append(f"{label:>7} |{cells}".rstrip())
    active = np.zeros(width, int)
    for each in happenings:
        first, last = ((at - begun) * width // max(ended - begun, 1) for at in (each.from_ns, each.to_ns))
        active[max(first, 0) : min(last, width - 1) + 1] += 1
    lines.append(" faults |" + "".join(str(min(n, 9)) if n else "." for n in active))
    lines.append(f"{'':>8} 0 s{f'{(ended - begun) / 1e9:.0f} s':>{width - 3}}")
    return lines


def draw(
    path: Path, title: str, times: np.ndarray, stale_ns: np.ndarray, happenings: Sequence[Happening], begun: int,
    ended: int, bound_ns: int,
) -> None:  # fmt: skip
    """Write the PNG.

    Raises:
        ImportError: matplotlib is missing; it comes with ``nearcache[bench]``.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    kinds = sorted({each.kind for each in happenings})
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(14, 4 + 0.2 * len(kinds)), height_ratios=[3, 1 + 0.2 * len(kinds)]
    )
    seconds = np.linspace(0, (ended - begun) / 1e9, _BUCKETS, endpoint=False)
    above.plot(seconds, worst(times, stale_ns, begun, ended, _BUCKETS) / 1e6, lw=0.8, label="stalest hit, surely")
    above.axhline(bound_ns / 1e6, color="crimson", label="B")
    above.set_ylabel("ms")
    above.set_title(title)
    above.legend(loc="upper right")
    for row, kind in enumerate(kinds):
        spans = [
            ((each.from_ns - begun) / 1e9, max((each.to_ns - each.from_ns) / 1e9, 0.002 * (ended - begun) / 1e9))
            for each in happenings if each.kind == kind
        ]  # fmt: skip
        below.broken_barh(spans, (row - 0.4, 0.8), color="slategray")
        for start, length in spans:
            above.axvspan(start, start + length, color="slategray", alpha=0.08, lw=0)
    below.set_xlim(0, (ended - begun) / 1e9)
    below.set_ylim(-0.6, len(kinds) - 0.4)
    below.set_yticks(range(len(kinds)), kinds, fontsize=8)
    below.set_xlabel("seconds")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
