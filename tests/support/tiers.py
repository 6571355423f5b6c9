"""A tier by itself: nobody listens, and what a test says nothing of is as usual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.freshness import ENDLESS_MS, Freshness
from nearcache.loading import Tier
from nearcache.placement import Placement


class Deaf:
    """Nobody listens."""

    def await_key(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        """Nothing will be heard."""
        return False

    def unawait(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> None:
        """Nothing to forget."""

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        """Nothing will be heard."""

    def unwatch(self, wid: int) -> None:
        """Nothing to forget."""

    def expect(self, wid: int) -> None:
        """Nothing will be heard."""

    def fence(self, lane: int, woken: Callable[[], None]) -> bool:
        """Nothing will be heard."""
        return False

    def place(self, lane: int) -> None:
        """Nothing has been heard."""


def tier_of(*shards: str, **options: Any) -> Tier:
    """A tier of these shards, one of them if none is named."""
    names = shards or ("a",)
    usual: dict[str, Any] = {
        "namespace": "t",
        "placement": Placement(names),
        "most_lanes": len(names),
        "db": 0,
        "clustered": False,
        "codec": ValueCodec(SafeCodec(), 1 << 20),
        "l1_ttl_ms": ENDLESS_MS,
        "bound_ns": 2_000_000_000,
        "lease_ms": 2_000,
        "forgives": False,
        "has_queue": False,
        "ack_ms": 0,
        "stale_ns": 0,
        "freshness": Freshness(),
    }
    tier = Tier(**(usual | options))
    tier.ears = Deaf()
    return tier
