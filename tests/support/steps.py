"""A tier of one lane whose requests a test answers by hand."""

from __future__ import annotations

from typing import Any

from nearcache._store import Store
from nearcache.coherence import DERIVED, State
from nearcache.l2 import Reply
from nearcache.loading.tier import hex_id
from support.tiers import tier_of

IDENTITY, EPOCH, GENERATION = 7, 0xE, 0x9
BOUND = 2_000_000_000


class World:
    """A tier of one lane that is followed, and its store; the clock is ours."""

    def __init__(self, **options: Any) -> None:
        self.ns = 10_000_000_000
        self.tier = tier_of(bound_ns=BOUND, clock=lambda: self.ns, **options)
        self.store: Store[Any, Any] = Store(100, lanes=1 + DERIVED)
        self.lane = self.tier.lanes[0]
        self.lane.state, self.lane.stated_generation = State.LIVE, GENERATION
        self.lane.fresh_until_ns = self.ns + BOUND
        for store in (self.store, self.tier.tags):
            store.l1_set_clock(self.ns)
            store.lane_attach(0, IDENTITY)
            store.lane_vouch(0, self.ns + BOUND)

    def run(self, steps: Any, *answers: Any) -> Any:
        """Return what steps return that are given these answers, a list of values (or an error) for each request."""
        try:
            next(steps)
            for given in answers:
                steps.send([given if isinstance(given, Exception) else Reply(given, IDENTITY)])
        except StopIteration as stop:
            return stop.value
        raise AssertionError("the steps ask for more than was expected")

    def stored(self, seq: int = 1) -> list[Any]:
        """What the script that writes answers."""
        return [[1, hex_id(GENERATION), hex_id(EPOCH), b"%d" % seq, b""]]

    def record(self, wid: int) -> list[Any]:
        """What is answered to a read of a tag's record."""
        nothing = self.tier.codec.encode(b"")
        sealed = self.tier.codec.seal(nothing, wid=wid, generation=GENERATION, ttl_ms=1_000_000)
        return [1_000_000, sealed, [hex_id(GENERATION), None]]
