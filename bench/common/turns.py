"""Turns: whatever else the machine does falls on everybody, and nobody always comes first."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def in_turns(sides: Mapping[str, T], rounds: int) -> Iterator[tuple[str, T]]:
    """Yield everybody's turn, round by round; in each round somebody else begins."""
    order = list(sides.items())
    for _ in range(rounds):
        yield from order
        order.append(order.pop(0))


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep the collector away, which would come to whoever makes the next object too many."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
