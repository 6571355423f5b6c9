"""What the fullest runs do besides: loading many keys by one call, and reading what was stored not too long ago."""

from __future__ import annotations

import random
from typing import Any, Final

from nearcache.absence import ABSENT
from nearcache.loading import Gathering, gather, load_young, read_young
from simulation.client import Client
from simulation.workload import _NOTHING as NOTHING
from simulation.workload import KINDS, Operation, Profile, Running
from simulation.workload import _called_by_the_simulation as called_by_the_simulation
from simulation.workload import _Load as Load

#: Kind -> how often, beside what the richer runs do.
MOST: Final = {"load_many": 6, "young_load_many": 4, "young_many": 4, "young_load": 6}


def fill(profile: Profile, rng: random.Random) -> None:
    """Give a run these kinds of operations, too."""
    profile.weights |= {kind: weight * rng.choice([0.2, 1, 1, 4]) for kind, weight in MOST.items()}


class _Aged(Load):
    """The part that knows of ages. What it wants of L1 is read at the beginning, by the cache's own rule.

    Attributes:
        limit_ns: The greatest age; None: any.
        missed: The keys that L1 could not answer.
    """

    def __init__(self, client: Client, operation: Operation) -> None:
        super().__init__(client, operation)
        bound_ns = client.process.profile.bound_ns
        self.limit_ns: int | None = (0, bound_ns // 8, bound_ns, 4 * bound_ns)[operation.think_ns % 4]
        self.missed: list[str] = []

    def look_first(self, client: Client) -> None:
        """Have L1 answer what it can."""
        process, store = client.process, client.process.store
        self.leasts = {key: process.checker.version_floor(process, key) for key in self.operation.keys}
        if self.limit_ns is None:
            for key, value in store.l1_hit_dict(self.operation.keys, self.missed).items():
                process.checker.hit(process, key, value)
            return
        for key in self.operation.keys:
            value = NOTHING
            if process.tier.births.is_young(key, store.l1_wid(key), process.clock() - self.limit_ns):
                value = store.l1_hit(key, NOTHING)
            if value is NOTHING:
                self.missed.append(key)
            else:
                process.checker.not_older(process, key, process.checker.hit(process, key, value), self.limit_ns)

    def check_value(self, actor: Client, key: str, value: Any) -> None:
        """Check what has come of one key."""
        self.check_read(actor, key, value)
        checker = actor.process.checker
        if value is not ABSENT and self.limit_ns is not None:
            checker.not_older(actor.process, key, checker.number(key, value), self.limit_ns, self.begun_ns)

    def check_loaded(self, actor: Client, key: str, value: Any) -> None:
        """Check what was loaded, or might have been."""
        self.check_value(actor, key, value)
        if value is not ABSENT:
            actor.process.checker.loaded(actor, key, value, self.leasts[key])


class _YoungLoad(_Aged):
    """``get_or_load(max_age=)``."""

    def begin(self, client: Client) -> None:
        process, limit_ns = client.process, self.limit_ns
        self.look_first(client)
        if self.missed and limit_ns is not None:
            (key,) = self.missed
            self.steps = self.loading(lambda: load_young(process.tier, process.store, self.wanted(key), limit_ns))

    def succeed(self, client: Client, value: Any) -> None:
        for key in self.missed:
            self.check_loaded(self.worker or client, key, value)


class _LoadMany(_Aged):
    """``get_or_load_many``."""

    def __init__(self, client: Client, operation: Operation) -> None:
        super().__init__(client, operation)
        self.limit_ns = None

    def begin(self, client: Client) -> None:
        process = client.process
        self.look_first(client)
        if self.missed:
            self.steps = self.loading(lambda: gather(process.tier, process.store, self.gathering()))

    def gathering(self) -> Gathering:
        """The request. Where not all have the same tags, those of each key are found out after the load."""
        profile = self.client.process.profile
        known = {profile.tags.get(key, ()) for key in self.missed}
        tags: Any = known.pop() if len(known) == 1 else lambda key, _: profile.tags.get(key, ())
        keys = {key: key for key in self.missed}
        return Gathering(keys, called_by_the_simulation, profile.ttl_ms, tags, self.limit_ns)

    def succeed(self, client: Client, value: Any) -> None:
        for key in self.missed:
            self.check_loaded(self.worker or client, key, value.get(key, ABSENT))


class _YoungLoadMany(_LoadMany):
    """``get_or_load_many(max_age=)``."""

    def __init__(self, client: Client, operation: Operation) -> None:
        _Aged.__init__(self, client, operation)


class _YoungMany(_Aged):
    """``get_many(max_age=)``."""

    def begin(self, client: Client) -> None:
        process = client.process
        self.look_first(client)
        if self.missed and self.limit_ns is not None:
            self.steps = read_young(process.tier, process.store, self.missed, self.limit_ns)

    def succeed(self, client: Client, value: Any) -> None:
        for key, each in (value or {}).items():
            self.check_value(client, key, each)

    def excused(self, client: Client, error: Exception) -> bool:
        return False


NEW: Final[dict[str, type[Running]]] = {
    "load_many": _LoadMany,
    "young_load_many": _YoungLoadMany,
    "young_many": _YoungMany,
    "young_load": _YoungLoad,
}
KINDS.update(NEW)
