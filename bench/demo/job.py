"""What the parent and its children say to each other: JSON, one object a line, over the child's stdin and stdout."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

from .board import L1, L2, LOADER
from .workload import Plan

NO_CACHE: Final = "no cache"
REDIS: Final = "Redis alone"
NEARCACHE: Final = "nearcache"
PHASES: Final = (NO_CACHE, REDIS, NEARCACHE)

#: What may answer a request in each phase.
TIERS_OF: Final = {NO_CACHE: (LOADER,), REDIS: (L2, LOADER), NEARCACHE: (L1, L2, LOADER)}

TTL_SECONDS: Final = 60


@dataclass(frozen=True)
class Job:
    """All that a worker or the changer has to know.

    Attributes:
        who: Its slot on the board; the changer's is the last.
        workers: Number of workers.
        pages: Number of pages.
        descriptor: Of the board.
        plan: The workload.
        name: Of the embedded servers.
        sockets: Of the embedded servers, one per shard.
        l1_pages: Number of pages that one process's L1 holds.
        bound_s: ``max_staleness``.
        changes_per_s: How often the changer changes a page.
        invalidating: False to claim invalidations without making them, which must make the demo fail.
    """

    who: int
    workers: int
    pages: int
    descriptor: int
    plan: Plan
    name: str
    sockets: list[str]
    l1_pages: int
    bound_s: float
    changes_per_s: float
    invalidating: bool

    def to_json(self) -> str:
        """Return the job as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """Return the job that a line describes."""
        fields: dict[str, Any] = json.loads(line)
        fields["plan"] = Plan(**fields["plan"])
        return cls(**fields)
