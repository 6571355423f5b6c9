"""The circuit breaker of one shard: it turns repeated waiting for a dead server into one quick refusal.

Closed: calls pass. Open: calls are refused until an instant. Then half-open: one caller is let through as a probe, the
others are still refused; its success closes the breaker, its failure opens it again for twice as long, with jitter, so
that the processes of a fleet do not come back all at once. The longest delay, and the second that a try may last by
itself, are less than two seconds together: so long after the end of an outage all is well again.

A server that is silent, instead of refusing, costs each probe its time-out. Callers are spared most of these: after one
the breaker stays open for several times as long as it took. The listener goes on to try, at the pace from above; while
it does, and calls have no connection that it has not, they are spared all: of many shards that are silent each would
have its share of their time.

One refused connection opens it (nobody listens there; asking again at once is no use), whereas a lost answer has to
happen twice running, for it may be the network's fault or that of one slow command. Whatever proves the server alive,
such as the listener's reconnect, closes it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from ..clocks import Clock, monotonic_ns

CLOSED: Final = "closed"
OPEN: Final = "open"
HALF_OPEN: Final = "half-open"


class BreakerSettings(NamedTuple):
    """How patient a breaker is. Durations in nanoseconds.

    Attributes:
        threshold: Failures in a row that open it, where a failure does not prove that the server is away.
        first_delay_ns: How long it stays open the first time, before jitter.
        longest_delay_ns: The doubling of that delay ends here.
        share: Which part of the time probes of a silent server take, before jitter: one of so many.
        longest_probe_ns: A probe that has taken longer counts as this.
    """

    threshold: int = 2
    first_delay_ns: int = 50_000_000
    longest_delay_ns: int = 800_000_000
    share: int = 8
    longest_probe_ns: int = 1_000_000_000


DEFAULTS: Final = BreakerSettings()


class Breaker:
    """See the module. Safe to use from many threads.

    ``quiet`` (closed, and no failure since the last success) is what the hot path looks at instead of calling
    ``admit`` and ``succeed``.
    """

    __slots__ = (
        "_clock", "_failures", "_lock", "_openings", "_probe_since", "_probe_until", "_random", "_settings", "_state",
        "_until", "quiet",
    )  # fmt: skip

    def __init__(
        self,
        settings: BreakerSettings = DEFAULTS,
        *,
        clock: Clock = monotonic_ns,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._random = uniform
        self._lock = threading.RLock()
        self._state = CLOSED
        self._failures = 0  # in a row
        self._openings = 0  # in a row
        self._until = 0
        self._probe_since = self._probe_until = 0
        self.quiet = True

    @property
    def state(self) -> str:
        """``"closed"``, ``"open"`` or ``"half-open"`` (a probe is under way, or the next call will be one)."""
        with self._lock:
            return HALF_OPEN if self._state == OPEN and self._clock() >= self._until else self._state

    def retry_in_ns(self) -> int:
        """Return how long calls will still be refused; 0 when the next one passes."""
        with self._lock:
            if self._state == CLOSED:
                return 0
            return max(0, (self._until if self._state == OPEN else self._probe_until) - self._clock())

    def admit(self, longest_ns: int) -> bool:
        """Return whether a call may go on; whoever gets True reports ``succeed`` or ``fail`` afterwards.

        Args:
            longest_ns: The longest the call can take. A probe that has not reported by then (its thread was
                interrupted) no longer keeps others from trying.
        """
        with self._lock:
            now = self._clock()
            if self._state == CLOSED:
                return True
            if now < (self._until if self._state == OPEN else self._probe_until):
                return False
            self._state = HALF_OPEN
            self._probe_since, self._probe_until = now, now + longest_ns
            return True

    def succeed(self) -> None:
        """The server answered."""
        with self._lock:
            self._state = CLOSED
            self._failures = self._openings = 0
            self.quiet = True

    def fail(self, *, certain: bool) -> None:
        """The server did not answer. ``certain``: it cannot have been a mishap of one connection."""
        with self._lock:
            self._failures += 1
            self.quiet = False
            if self._state == OPEN:
                return  # a call that began before it opened
            if self._state == HALF_OPEN or certain or self._failures >= self._settings.threshold:
                settings, now = self._settings, self._clock()
                delay = min(settings.first_delay_ns << min(self._openings, 32), settings.longest_delay_ns)
                if self._state == HALF_OPEN:
                    took = min(now - self._probe_since, settings.longest_probe_ns)
                    delay = max(delay, took * (settings.share - 1))
                self._until = now + int(delay * self._random(0.5, 1.0))
                self._openings += 1
                self._state = OPEN

    def put_off(self, longest_ns: int) -> None:
        """The listener has tried in vain, and does so again; if it should not, calls try in its place, but not sooner.

        Args:
            longest_ns: The longest that its try can take.
        """
        with self._lock:
            if self._state == OPEN:
                pause = 2 * (longest_ns + self._settings.longest_delay_ns)  # it may be late
                self._until = max(self._until, self._clock() + pause)

    def after_fork(self) -> None:
        """Make it usable in a forked child, whose copy of the lock may be held by a thread that does not exist here."""
        self._lock = threading.RLock()
        if self._state == HALF_OPEN:
            self._state = OPEN
