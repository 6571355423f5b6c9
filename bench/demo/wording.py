"""Numbers as people read them, and columns that line up."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "-"
WIDTH = 100


def duration(ns: float | None) -> str:
    """Return a duration in the unit that fits, with two or three digits: ``0.4 us``, ``12 ms``, ``1.3 s``."""
    if ns is None:
        return NOTHING
    for unit, size in (("us", 1e3), ("ms", 1e6)):
        if ns < 999.5 * size:
            return f"{_digits(ns / size)} {unit}"
    return f"{_digits(ns / 1e9)} s"


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


def count(value: float | None) -> str:
    """Return a number with separators for thousands."""
    return NOTHING if value is None else f"{value:,.0f}"


def factor(value: float) -> str:
    """Return how many times something is more, with two digits where it is little."""
    return f"{value:.1f}" if value < 9.95 else f"{value:,.0f}"


def percent(part: float | None) -> str:
    """Return a part of one in percent. Never rounds up to 100 % nor down to 0 %."""
    if part is None:
        return NOTHING
    if 0 < part < 1:
        return f"{min(max(part * 100, 0.01), 99.99):.2f} %"
    return f"{part * 100:.0f} %"


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Return rows as lines: the first column to the left, all others to the right, two spaces between."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def fitting(rows: Sequence[Sequence[str]], width: int, expendable: Sequence[int]) -> list[str]:
    """Return rows as lines of at most ``width``; columns are left out, in the order of ``expendable``, to fit."""
    for leave_out in range(len(expendable) + 1):
        gone = expendable[:leave_out]
        lines = columns([[cell for at, cell in enumerate(row) if at not in gone] for row in rows])
        if max(len(line) for line in lines) <= width:
            break
    return lines


def bar(part: float, width: int = 30) -> str:
    """Return a bar that shows a part of one."""
    done = round(max(0.0, min(part, 1.0)) * width)
    return "[" + "#" * done + "." * (width - done) + "]"
