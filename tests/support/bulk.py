"""Bulk reads by hand: a tier, its store, and what L2 holds. No I/O."""

from __future__ import annotations

from typing import Any

from nearcache._store import Store
from nearcache.codecs import SafeCodec, ValueCodec
from nearcache.coherence import DERIVED, State
from nearcache.l2 import Reply
from nearcache.loading import read_many
from nearcache.loading.tier import hex_id
from support.tiers import tier_of

IDENTITY, GENERATION, WID = 7, 0x9, 0xABC
BOUND = 2_000_000_000
TTL_MS = 60_000


class World:
    """A tier whose lanes are followed, and its store; the clock is ours."""

    def __init__(self, shards: int = 1, **options: Any) -> None:
        self.ns = 10_000_000_000
        self.codec = ValueCodec(SafeCodec(), 1 << 16)
        names = [f"shard {number}" for number in range(shards)]
        self.tier = tier_of(*names, codec=self.codec, bound_ns=BOUND, clock=lambda: self.ns, **options)
        self.store: Store[Any, Any] = Store(10_000, lanes=shards + DERIVED)
        for number, lane in enumerate(self.tier.lanes):
            lane.state, lane.stated_generation = State.LIVE, GENERATION
            lane.fresh_until_ns = self.ns + BOUND
            for store in (self.store, self.tier.tags):
                store.l1_set_clock(self.ns)
                store.lane_attach(number, IDENTITY)
                store.lane_vouch(number, self.ns + BOUND)
        self.held: dict[bytes, bytes] = {}  # what L2 holds, by the name there

    def put(self, key: Any, value: Any, wid: int = WID, **more: Any) -> None:
        """Let L2 hold a value."""
        lane, encoded = self.tier.place(key)
        ids = {"wid": wid, "generation": GENERATION, "ttl_ms": TTL_MS, "key": encoded}
        self.held[self.tier.names[lane].value(encoded)] = self.codec.seal(self.codec.encode(value), **(ids | more))

    def reply(self, exchange: Any) -> Reply:
        """What a server would say."""
        return Reply([self._answer(*command) for command in exchange.commands], IDENTITY)

    def _answer(self, verb: bytes, *words: bytes) -> Any:
        if verb == b"PTTL":
            return TTL_MS if words[0] in self.held else -2
        if verb == b"GET":
            return self.held.get(words[0])
        if verb == b"MGET":
            return [self.held.get(word) for word in words]
        if verb == b"GETRANGE":
            return self.held.get(words[0], b"")[int(words[1]) : int(words[2]) + 1]
        assert verb == b"HMGET"
        return [hex_id(GENERATION), None]

    def read(self, keys: list[Any]) -> tuple[dict[Any, Any], list[list[Any]]]:
        """Read many; return what was found, and what was asked for."""
        steps, asked = read_many(self.tier, self.store, keys), []
        try:
            request = next(steps)
            while True:
                asked.append(list(request))
                request = steps.send([self.reply(exchange) for exchange in request])
        except StopIteration as stop:
            return stop.value, asked
