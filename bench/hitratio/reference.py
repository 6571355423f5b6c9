"""What others have measured, read from the README of the traces folder: nothing of it is copied into the project."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo import traces

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "traces"
#: More requests than any trace has; the reader sets aside room for as many.
_WHOLE = 10_000_000
LRU = "LRU"
MIN = "MIN"
_COUNTS = re.compile(r"(\d+): (\d+) / (\d+)")


class MissingTableError(ValueError):
    """The README does not have the table that is looked for."""


def traces_folder() -> Path | None:
    """Return ``NEARCACHE_TRACES``, or ``../shared/traces`` of the checkout, or None if there is no README in it."""
    folder = Path(os.environ.get("NEARCACHE_TRACES", _BESIDE))
    return folder if (folder / "README.md").is_file() else None


def trace(path: str) -> traces.Trace:
    """Return a recorded trace, whole."""
    return traces.read(path, _WHOLE)


@dataclass(frozen=True)
class Row:
    """One line of the reference table.

    Attributes:
        trace: The stem of the files.
        size: Entries.
        percent: Hit ratio by policy, in the table's order; a policy without a figure is left out.
    """

    trace: str
    size: int
    percent: dict[str, float]

    @property
    def peers(self) -> dict[str, float]:
        """All figures but that of MIN, which knows the future."""
        return {name: value for name, value in self.percent.items() if name != MIN}


def _section(text: str, title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}.*?$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise MissingTableError(f"the README of the traces has no section {title!r}")
    return match[1]


def _table(text: str) -> Iterator[list[str]]:
    """Yield the rows of the first table of a text, its head first."""
    begun = False
    for line in text.splitlines():
        if line.startswith("|"):
            begun = True
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if not all(
                set(cell) <= set("-:") and cell.strip("-") in ("", ":", "::") and len(cell) > 1 for cell in cells
            ):
                yield cells
        elif begun:
            return


def parse_rows(text: str) -> list[Row]:
    """Return the table of reference hit ratios.

    Raises:
        MissingTableError: There is no such table.
    """
    head, *rows = [*_table(_section(text, "Reference hit ratios"))] or [[]]
    if head[:2] != ["trace", "size"] or not rows:
        raise MissingTableError("the reference table does not begin with the columns trace and size")
    names = head[2:]
    return [
        Row(cells[0], int(cells[1]), {name: float(c) for name, c in zip(names, cells[2:], strict=True) if c != "-"})
        for cells in rows
    ]


def parse_counts(text: str) -> dict[int, int]:
    """Return the exact number of hits of LRU on arc_P3, by size.

    Raises:
        MissingTableError: They are not there.
    """
    line = next((part for part in text.splitlines() if len(_COUNTS.findall(part)) > 1), "")
    counts = {int(size): int(lru) for size, lru, _arc in _COUNTS.findall(line)}
    if not counts:
        raise MissingTableError("the README of the traces has no line of exact hit counts (size: LRU / ARC; ...)")
    return counts


def parse_weighted(text: str) -> dict[int, int]:
    """Return the exact number of misses of LRU by bytes on cloudphysics_io, by capacity in MiB.

    Raises:
        MissingTableError: They are not there.
    """
    rows = [*_table(_section(text, "Weighted (bytes) reference"))]
    if len(rows) != 2 or rows[0][0] != "MiB":
        raise MissingTableError("the weighted reference is not a table of MiB and misses")
    return {int(size): int(misses) for size, misses in zip(rows[0][1:], rows[1][1:], strict=True)}
