"""A plot that a terminal can show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Container, Iterator, Mapping, Sequence

Curve = Sequence[tuple[float, float]]


def _position(value: float, least: float, most: float, cells: int) -> int:
    if most <= least:
        return 0
    return round((value - least) / (most - least) * (cells - 1))


def _between(places: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the cells on the straight lines from place to place, one in each column."""
    for (left, from_line), (right, to_line) in itertools.pairwise(places):
        for column in range(left + 1, right):
            yield column, round(from_line + (to_line - from_line) * (column - left) / (right - left))


def plot(
    curves: Mapping[str, Curve],
    marks: Mapping[str, str],
    joined: Container[str] = (),
    width: int = 64,
    height: int = 14,
) -> list[str]:
    """Return a plot of hit ratios over cache sizes, the sizes on a logarithmic scale.

    Args:
        curves: Points (size, percent) by name; where several meet, the one named first is seen.
        marks: The character of each name.
        joined: The names whose points are joined by dots; they are in order of size.
        width, height: Of the field, in characters.
    Returns:
        Lines: the field with its scale, the sizes below it, and what the marks mean.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ["(nothing to plot)"]
    scale = [math.log10(size) for size, _ in points]
    least, most = min(scale), max(scale)
    bottom, top = min(percent for _, percent in points), max(percent for _, percent in points)
    field = [[" "] * width for _ in range(height)]
    for name in reversed(list(curves)):
        places = [
            (_position(math.log10(size), least, most, width), height - 1 - _position(percent, bottom, top, height))
            for size, percent in curves[name]
        ]
        if name in joined:
            for column, line in _between(places):
                field[line][column] = "."
        for column, line in places:
            field[line][column] = marks[name]
    lines = []
    for number, row in enumerate(field):
        percent = top - (top - bottom) * number / max(1, height - 1)
        lines.append(f"{percent:6.1f} |{''.join(row)}".rstrip())
    ends = f"{10**least:,.0f}", f"{10**most:,.0f} entries"
    lines.append(" " * 7 + "+" + "-" * width)
    lines.append(" " * 8 + ends[0] + " " + ends[1].rjust(width - len(ends[0]) - 1))
    lines.append(" " * 8 + "  ".join(f"{marks[name]} {name}" for name in curves))
    return lines
