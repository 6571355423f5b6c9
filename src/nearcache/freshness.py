"""How long values live, and when they are to be loaded anew. Arithmetic only: no clock, no I/O.

An entry has two ends. At the hard one it is gone. From the soft one on it is still served, but whoever reads it has
it loaded anew in the background. With ``beta`` there is no fixed instant for that: XFetch (Vattani, Chierichetti and
Lowenstein, "Optimal probabilistic cache stampede prevention", VLDB 2015) draws one, the earlier the dearer the load
was, so that of many readers one comes first.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

from .choices import LEAST_TTL_S, MAX_TTL_S, Idle, Seconds, is_function, ttl_seconds
from .coroutines import carried
from .options import Settings

#: A lifetime in milliseconds that means "longer than an envelope can say".
ENDLESS_MS: Final = 0xFFFF_FFFF

#: In the place of the distance of the soft end: there is none, and the lifetime begins anew when the value is read.
IDLE_MS: Final = 0xFFFF_FFFF

#: A lifetime in seconds (``None``: no end), or what returns it for the user's key and the value.
Lifetime: TypeAlias = Seconds | Idle | Callable[[Any, Any], Seconds | Idle | None] | None
#: A lifetime in milliseconds (below 0: an idle time), or what tells it from the user's key and the value.
Ttl = int | Callable[[Any, Any], int]

#: Not Python's generator: a program may seed that as it likes, in the whole fleet alike.
_chance: Final = random.SystemRandom().random


class Life(NamedTuple):
    """Lifetime and distance of the soft end, in milliseconds; ``soft_ms`` 0: no soft end."""

    ttl_ms: int
    soft_ms: int = 0


@dataclass(frozen=True, slots=True)
class Freshness:
    """What was chosen about the ends of entries.

    Attributes:
        jitter: By how much lifetimes are shortened at random, at most: below 1 a fraction, else seconds.
        soft: When the soft end is: below 1 a fraction of the lifetime, else seconds; 0: never.
        beta: How eagerly values are loaded anew before that; 0: not at all. 1 is what XFetch recommends.
        negative_ms: How long it is kept that there is no value; 0: not at all.
        errors: How long it is kept that a loader raised an error of a class, in milliseconds.
        chance: Returns a random number, from 0 to below 1.
    """

    jitter: float = 0.0
    soft: float = 0.0
    beta: float = 0.0
    negative_ms: int = 0
    errors: Mapping[Any, int] = field(default_factory=dict)
    chance: Callable[[], float] = _chance

    @property
    def is_plain(self) -> bool:
        """Whether every entry lives exactly as long as it was told, and is served until then."""
        return not (self.jitter or self.soft or self.beta or self.keeps_absence)

    @property
    def keeps_absence(self) -> bool:
        """Whether anything is kept of keys that have no value."""
        return bool(self.negative_ms or self.errors)

    @property
    def renews(self) -> bool:
        """Whether values are loaded anew before their end."""
        return bool(self.soft or self.beta)

    def life(self, ttl_ms: int) -> Life:
        """Return the ends of an entry that is to live for so long."""
        if ttl_ms < 0:
            return Life(-ttl_ms * 3 // 2 + 1, IDLE_MS)
        if not 0 < ttl_ms < ENDLESS_MS:  # what has no end comes near none
            return Life(ttl_ms)
        if self.jitter:
            most_ms = ttl_ms * self.jitter if self.jitter < 1 else min(self.jitter * 1000, ttl_ms / 2)
            ttl_ms = max(1, ttl_ms - int(most_ms * self.chance()))
        if not self.soft:
            return Life(ttl_ms)
        soft_ms = int(ttl_ms * self.soft if self.soft < 1 else self.soft * 1000)
        return Life(ttl_ms, max(1, soft_ms) if soft_ms < ttl_ms else 0)

    def absence(self) -> Life:
        """Return the end of an entry that says that there is no value."""
        return Life(self.life(self.negative_ms).ttl_ms)

    def means_absence(self, error: BaseException) -> bool:
        """Whether what a loader raised says that there is no value, and that is kept."""
        return self._nearest(error) is KeyError and KeyError not in self.errors

    def failure(self, error: BaseException) -> Life:
        """Return the end of an entry that says what a loader raised; 0 ms: none is kept."""
        nearest = self._nearest(error)
        return Life(self.life(self.errors[nearest]).ttl_ms if nearest in self.errors else 0)

    def _nearest(self, error: BaseException) -> type[BaseException] | None:
        """Return the class that decides: the error's own, or the nearest above it of which anything is kept."""
        return next(
            (cls for cls in type(error).__mro__ if cls in self.errors or (cls is KeyError and self.negative_ms)), None
        )

    def due_ms(self, left_ms: int, cost_ms: int) -> int:
        """Return in how long a value is to be loaded anew that has so long to its soft end, or to its only one.

        0 or less: it is due.
        """
        if not self.beta or not cost_ms:
            return left_ms
        return left_ms - int(cost_ms * self.beta * -math.log(1.0 - self.chance()))


def idle_copy_ms(left_ms: int, whole_ms: int) -> int:
    """Return how long a copy may serve a value that lives by being read and has so much left of its whole lifetime.

    What is read from a copy is told to nobody. So the whole lifetime is half as long again as the idle time, and a copy
    ends early enough for a last reader to have had the idle time in front of them. 0 or less: not at all.
    """
    return left_ms - whole_ms * 2 // 3


def is_worn(left_ms: int, whole_ms: int) -> bool:
    """Whether such a value, when it is read, is to be given its whole lifetime again: if a sixth of it is over."""
    return 0 < left_ms < whole_ms - whole_ms // 6


def freshness_of(settings: Settings) -> Freshness:
    """Return what the options of a cache say."""
    return Freshness(
        settings.jitter,
        settings.soft_ttl or 0.0,
        settings.beta,
        round((settings.negative_ttl or 0) * 1000),
        {cls: max(1, round(seconds * 1000)) for cls, seconds in (settings.error_ttl or {}).items()},
    )


def checked_ttl(ttl: Any, endless_ms: int) -> Ttl:
    """Return a lifetime given in seconds, or as a function that returns seconds, in milliseconds.

    Raises:
        ConfigError: It is out of range; for a function, when its result is.
        RuntimeError: The function, when it is called, raises StopIteration or GeneratorExit.
    """
    if type(ttl) is float and LEAST_TTL_S <= ttl <= MAX_TTL_S:  # as that of the cache is, and asked of each write
        return round(ttl * 1000)
    if is_function(ttl):
        return lambda key, value: _milliseconds(carried(ttl, key, value), endless_ms)
    return _milliseconds(ttl, endless_ms)


def ttl_for(ttl: Ttl, key: Any, value: Any) -> int:
    """Return the lifetime of a value in milliseconds."""
    return ttl(key, value) if callable(ttl) else ttl


def _milliseconds(ttl: Any, endless_ms: int) -> int:
    if isinstance(ttl, Idle):
        return -max(1, round(ttl.seconds * 1000))
    seconds = ttl_seconds("ttl", ttl)
    return endless_ms if seconds is None else max(1, round(seconds * 1000))
