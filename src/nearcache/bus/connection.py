"""A listener's connection to one place."""

from __future__ import annotations

from dataclasses import dataclass

from .follower import Follower
from .links import Link


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
