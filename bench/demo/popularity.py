"""Who asks for what: Zipf's law, seeded, so that every phase of the demo serves the same requests."""

from __future__ import annotations

import random
from itertools import accumulate
from typing import Final

EXPONENT: Final = 1.0
REQUESTS: Final = 200_000


def cumulative_weights(pages: int, exponent: float = EXPONENT) -> list[float]:
    """Return the running sum of 1 / rank ** exponent."""
    return list(accumulate(rank**-exponent for rank in range(1, pages + 1)))


def ranking(pages: int, seed: int) -> list[int]:
    """Return page numbers by popularity, most wanted first: a seeded shuffle."""
    order = list(range(pages))
    random.Random(f"ranking/{seed}").shuffle(order)
    return order


def requests(pages: int, seed: int, who: str, count: int = REQUESTS) -> list[int]:
    """Return the page numbers that ``who`` asks for, in order.

    Every ``who`` has its own sequence, drawn from the same popularity.
    """
    source = random.Random(f"requests/{seed}/{who}")
    return source.choices(ranking(pages, seed), cum_weights=cumulative_weights(pages), k=count)
