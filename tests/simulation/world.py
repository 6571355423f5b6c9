"""The world: virtual time, a queue of events, and randomness that a seed determines.

Everything that happens is an event in one queue, ordered by virtual nanoseconds and then by the order of scheduling.
Nothing in it knows a thread, a socket or the machine's clock, so that the same seed gives the same run, everywhere.
The digest is a hash of all events and results: two runs with the same digest did the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from types import SimpleNamespace
from typing import Any, Final
from zlib import crc32

from nearcache.coherence import derived as derived_module
from nearcache.coherence import lane as lane_module
from nearcache.loading import aging as aging_module
from nearcache.loading import bulk_reading as bulk_reading_module
from nearcache.loading import tier as tier_module

US: Final = 1_000
MS: Final = 1_000_000
S: Final = 1_000_000_000
#: Where every world's time begins.
START_NS: Final = 1_000 * S
#: Resolution of the clock that L1 reads in every world, whatever that of the machine is.
TICK_NS: Final = 1 * MS

#: Most events of a run, many times those of the longest that has ended by itself. What it remembers grows with them.
MOST_EVENTS: Final = 500_000

_MASK: Final = (1 << 64) - 1
_PRIME: Final = 1_099_511_628_211
#: Who knows the machine's resolution.
_TICKING: Final[tuple[Any, ...]] = (lane_module, aging_module, bulk_reading_module, tier_module)


def _hash(value: object) -> int:
    return crc32(repr(value).encode())


class Violation(AssertionError):
    """A promise of the protocol was broken.

    Attributes:
        rule: ``I1`` to ``I18``, ``W1`` to ``W5``.
        when_ns: The instant.
    """

    def __init__(self, rule: str, text: str, when_ns: int) -> None:
        super().__init__(f"{rule} at {when_ns / S:.6f} s: {text}")
        self.rule = rule
        self.when_ns = when_ns


class DoesNotSettle(Exception):
    """A run has no end: something goes on and on, in the simulation or in the code under it."""


class World:
    """One run.

    Args:
        seed: Determines everything.
        verbose: Whether to keep a trace that people can read, in ``lines``.
    Attributes:
        now: Nanoseconds of virtual time.
        events: How many events have been carried out.
        digest: Hash of all that has happened.
    """

    def __init__(self, seed: int, *, verbose: bool = False) -> None:
        self.seed = seed
        self.now = START_NS
        self.events = 0
        self.digest = seed & _MASK
        self.lines: list[str] | None = [] if verbose else None
        self._heap: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._ids = self.stream("ids")

    def stream(self, name: object) -> random.Random:
        """A source of randomness of its own, so that what is left out of a run does not change the rest of it."""
        return random.Random(f"{self.seed}/{name}")

    def at(self, when_ns: int, run: Callable[..., None], *arguments: Any) -> None:
        """Have this called at that instant."""
        self._scheduled += 1
        heappush(self._heap, (when_ns, self._scheduled, run, arguments))

    def run(self, until_ns: int) -> None:
        """Carry out what is due until then. Raises DoesNotSettle: there is too much of it."""
        heap, most = self._heap, MOST_EVENTS
        while heap and heap[0][0] <= until_ns:
            if self.events >= most:
                after = f"{self.events:,} events and {(self.now - START_NS) / S:.3f} s"
                raise DoesNotSettle(f"seed {self.seed} does not settle: it is not over after {after}")
            self.now, _, run, arguments = heappop(heap)
            self.events += 1
            self.digest = (self.digest * _PRIME ^ self.now) & _MASK
            run(*arguments)
        self.now = until_ns

    def note(self, result: int) -> None:
        """Make a result part of the digest."""
        self.digest = (self.digest * _PRIME ^ result) & _MASK

    def say(self, text: str) -> None:
        """Add a line to the trace. Ask ``lines is not None`` first where the text costs something."""
        if self.lines is not None:
            self.lines.append(f"{(self.now - START_NS) / S:10.6f}  {text}")

    def urandom(self, size: int) -> bytes:
        """Take the place of ``os.urandom``."""
        return self._ids.randbytes(size)

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Within the block ids come from the seed, and hashes and the clock's resolution are the same everywhere."""
        genuine, ticks = tier_module.os, [module.TICK_NS for module in _TICKING]
        for module in _TICKING:
            module.TICK_NS = TICK_NS
        tier_module.os = SimpleNamespace(urandom=self.urandom)  # type: ignore[assignment]  # all that it uses
        derived_module.hash = _hash  # type: ignore[attr-defined]  # in front of the built-in function
        try:
            yield
        finally:
            tier_module.os = genuine
            for module, tick_ns in zip(_TICKING, ticks, strict=True):
                module.TICK_NS = tick_ns
            del derived_module.hash  # type: ignore[attr-defined]  # as above
