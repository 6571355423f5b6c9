"""A listener's connection to one place."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from .follower import Follower
from .links import Link

BACKOFF_FIRST_S: Final = 0.05
#: With the second that connecting may take by itself it is less than two seconds: see ``l2.breaker``.
_BACKOFF_MOST_S: Final = 0.8


def pause_ns(failures: int, first_s: float, most_s: float) -> int:
    """Return how long to wait after so many failures in a row. It grows with them, and is in step with nobody's."""
    return int(min(most_s, first_s * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0) * 1e9)


@dataclass(slots=True, eq=False)
class Connection:
    """The connection to one place, and when to try again without one."""

    place: int
    follower: Follower
    link: Link | None = None
    connecting: bool = False
    blocked: bool = False
    retry_ns: int = 0
    failures: int = 0

    def back_off(self, now_ns: int) -> None:
        """Count a failure, and try again after a pause."""
        self.failures += 1
        self.retry_ns = now_ns + pause_ns(self.failures, BACKOFF_FIRST_S, _BACKOFF_MOST_S)

    def after_fork(self) -> None:
        """In the child: forget the parent's socket without a word on it, and be due."""
        if self.link is not None:
            self.link.sock.close()
        self.link = None
        self.connecting = False
        self.blocked = False
        self.retry_ns = 0
        self.follower.after_fork()
