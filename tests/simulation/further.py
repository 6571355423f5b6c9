"""What richer runs do besides: tags, tokens, holds that linger, refreshing, and the verbs that change what is there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from nearcache.changes import Change, adding, at_version, computing, counting, setting
from nearcache.errors import ContentionError, ShardError
from nearcache.flights import Signal
from nearcache.freshness import Freshness
from nearcache.loading import (
    ENDLESS_MS,
    MISSING,
    catch_up,
    find,
    hex_id,
    invalidate_many,
    invalidate_tag,
    refresh,
    swap,
    tags_named,
    take,
    token_of,
    touch,
)
from nearcache.loading.steps import Await
from simulation.client import Client
from simulation.promises import COUNTED
from simulation.workload import KINDS, Profile, Running, change_source, written
from simulation.workload import _Load as Load
from simulation.workload import _Update as Update
from simulation.world import MS, US

#: Kind -> how often, beside what every run does.
MORE: Final = {
    "tag_update": 6,
    "token": 3,
    "wait_for": 3,
    "refresh": 3,
    "held_change": 3,
    "add": 3,
    "compute": 5,
    "cas": 4,
    "swap": 2,
    "take": 2,
    "touch": 3,
    "incr": 6,
}
_TAGS: Final = ("red", "green", "blue")
#: Values of updates that readers of a lagging source could still store after them.
_UNHELD: Final = (
    "update", "update_many", "tag_update", "held_update", "write_through", "write_through_many", "delete_through",
    "import", "swap_through", "keep_through", "add_through", "cas_through", "take_through",
)  # fmt: skip


def enrich(profile: Profile, rng: random.Random, busy: Sequence[str]) -> None:
    """Give a run more to do, and settings of which the plain ones have none. Of ``busy`` kinds there are many."""
    bound_ms = profile.bound_ns // MS
    profile.weights |= {kind: weight * rng.choice([0.2, 1, 1, 4]) for kind, weight in MORE.items()}
    profile.counters = ["n0"]
    if rng.random() < 0.6 or "tag_update" in busy:
        profile.tags = {
            key: tuple(rng.sample(_TAGS, rng.randint("tag_update" in busy, 2)))
            for key in [*profile.keys, *profile.counters]
        }
    if rng.random() < 0.5:
        profile.freshness = Freshness(
            jitter=rng.choice([0.0, 0.1]),
            soft=rng.choice([0.0, 0.3, 0.8]),
            beta=rng.choice([0.0, 1.0]),
            negative_ms=rng.choice([0, 0, bound_ms // 2, 4 * bound_ms]),
        )
        profile.absences = 0.1
        if profile.freshness.renews and profile.ttl_ms == ENDLESS_MS:
            profile.ttl_ms = 3 * bound_ms
        if profile.freshness.renews:
            profile.lease_ms = bound_ms // 2
    if rng.random() < 0.3:
        profile.stale_ns = rng.choice([profile.bound_ns // 10, profile.bound_ns, 4 * profile.bound_ns])
    if rng.random() < 0.3:
        profile.ack_ms = 50
    if rng.random() < 0.3:
        profile.patience_ns = rng.choice([1 * MS, profile.bound_ns // 4])
    if "held_change" in busy or (rng.random() < 0.2 and not busy):
        profile.lag_ns = rng.choice([200 * US, 20 * MS, profile.bound_ns // 2])
        profile.weights |= {kind: 0.0 for kind in _UNHELD if kind in profile.weights}
        profile.weights["held_change"] *= 5
    for kind in busy:
        if kind == "reshard":
            continue
        profile.weights[kind] = max(profile.weights[kind], 1) * 8


class _TagUpdate(Running):
    """All that has a tag has changed."""

    def begin(self, client: Client) -> None:
        process = client.process
        self.tag = _TAGS[self.operation.think_ns % len(_TAGS)]
        self.ends = [key for key, tags in process.profile.tags.items() if self.tag in tags]
        (self.tag_hash,) = (tag.hash for tag in tags_named(process.tier, (self.tag,)))
        change_source(self, client, self.ends)
        self.steps = invalidate_tag(process.tier, process.store, self.tag)

    def succeed(self, client: Client, value: Any) -> None:
        client.process.checker.tags_invalidated(client, (self.tag,))


class _Token(Running):
    """What this process has done is told to whoever wants to know."""

    def begin(self, client: Client) -> None:
        process = client.process
        process.checker.post(process, token_of(process.tier))

    def succeed(self, client: Client, value: Any) -> None:
        """There is nothing to check."""


class _WaitFor(Running):
    """Somebody has come with a token of, say, another process."""

    def begin(self, client: Client) -> None:
        process, mail = client.process, client.process.checker.mail[-8:]
        self.known: dict[Any, Any] = {}
        if mail:
            token, self.known = mail[self.operation.think_ns % len(mail)]
            # Some wait for much less than B: then L1 would still serve what it has.
            seconds = process.profile.bound_ns / (1 << 2 * (self.operation.think_ns % 3)) / 1e9
            self.steps = catch_up(process.tier, process.store, token, seconds)

    def succeed(self, client: Client, value: Any) -> None:
        client.process.checker.applied(client.process, self.known)


class _Refresh(Load):
    """Load anew, whatever is there."""

    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.least = process.checker.version_floor(process, key)
        self.steps = self.loading(lambda: refresh(process.tier, process.store, self.wanted(key)))


class _HeldChange(Update):
    """A change of the data that takes its time, on hold; readers of the source may lag behind it."""

    def begin(self, client: Client) -> None:
        self.steps = self._phases(client)

    def _phases(self, client: Client) -> Any:
        process, profile = client.process, client.process.profile
        token = hex_id(process.checker.new_bit())
        linger_ms = -(-profile.lag_ns // MS) + 1 if profile.lag_ns else 0
        hold_ms = profile.bound_ns // MS
        keys = self.operation.keys
        yield from invalidate_many(process.tier, process.store, keys, hold=(b"%d" % hold_ms, token))
        yield Await(Signal(), (self.operation.think_ns % hold_ms) / 4e3)
        change_source(self, client, keys)
        client.tier = process.tier
        yield from invalidate_many(process.tier, process.store, keys, hold=(b"%d" % linger_ms, token))


#: What is paid before is not the caller's change, which may turn out to be none.
_DEBTS: Final = ("invalidate",)


class _Swap(Running):
    """A verb that makes a new value of the one that is there."""

    unconfirmed = _DEBTS

    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.process, self.encoded = process, {process.checker.encoded[key]}
        self.made_of: dict[int, int | None] = {}
        self.new: Any = None
        self.steps = self.swapping(client, key)

    def swapping(self, client: Client, key: str) -> Any:
        """The steps."""
        process, profile = client.process, client.process.profile
        tags = tags_named(process.tier, profile.tags.get(key, ()))
        swapped = yield from swap(process.tier, process.store, key, self.change(client), lambda _: profile.ttl_ms, tags)
        return swapped

    def change(self, client: Client) -> Change:
        """What is to become of the value."""
        return computing(lambda there: self.make(there), MISSING)

    def make(self, there: Any) -> Any:
        """A new value, of which it is noted what it was made of."""
        (key,) = self.operation.keys
        self.new = self.client.process.checker.make(key)
        self.made_of[int(self.new)] = None if there is MISSING else int(there)
        return self.new

    def excused(self, client: Client, error: Exception) -> bool:
        return isinstance(error, (ShardError, ContentionError))

    def succeed(self, client: Client, value: Any) -> None:
        (key,) = self.operation.keys
        self.is_confirmed = self.is_confirmed and value.stored  # what is refused leaves nothing to be confirmed
        if value.stored:
            self.ends = self.operation.keys
            written(self, client, key, value.new)


class _SetAndGet(_Swap):
    def change(self, client: Client) -> Change:
        change = setting(None)
        return change._replace(make=lambda there, _: self.make(there))


class _Add(_Swap):
    def change(self, client: Client) -> Change:
        return adding(self.make(MISSING))

    def succeed(self, client: Client, value: Any) -> None:
        super().succeed(client, value)
        if not value.stored and value.old is not MISSING:
            self.check_read(client, self.operation.keys[0], value.old)


class _Cas(_Swap):
    """Look, think, and change it if it is still the same."""

    def swapping(self, client: Client, key: str) -> Any:
        process, profile = client.process, client.process.profile
        there = yield from find(process.tier, process.store, key)
        yield Await(Signal(), (self.operation.think_ns % 1000) / 1e6)
        self.tier = client.tier = process.tier
        change = at_version(self.make(there.value), there.version)
        tags = tags_named(process.tier, profile.tags.get(key, ()))
        return (yield from swap(process.tier, process.store, key, change, lambda _: profile.ttl_ms, tags))


class _Incr(_Swap):
    """Every call adds another power of two, so that a sum says which calls it has seen."""

    def swapping(self, client: Client, key: str) -> Any:
        process, profile = client.process, client.process.profile
        self.delta = 1 << process.checker.new_bit()
        real = counting(self.delta, 0)

        def make(there: Any, version: int) -> Any:
            self.new = real.make(there, version)
            self.made_of[self.new + COUNTED] = None if there is MISSING else there + COUNTED
            return self.new

        tags = tags_named(process.tier, profile.tags.get(key, ()))
        change = real._replace(make=make)
        return (yield from swap(process.tier, process.store, key, change, lambda _: profile.ttl_ms, tags))

    def succeed(self, client: Client, value: Any) -> None:
        super().succeed(client, value)
        old = 0 if value.old is MISSING else value.old
        if value.new != old + self.delta:
            client.process.checker.fail("I13", f"{self} made {value.new} of {value.old} and {self.delta}")


class _Take(Update):
    """Take a value away: of several callers one gets it."""

    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        self.ends = self.operation.keys
        self.steps = take(process.tier, process.store, key)

    def succeed(self, client: Client, value: Any) -> None:
        process, (key,) = client.process, self.operation.keys
        server, sequence = self.floor_here(client, key)
        process.checker.raise_floor(process, key, server, sequence, own=True)
        if value is not MISSING:
            process.checker.taken(client, process.checker.number(key, value), server)


class _Touch(Running):
    """Give a value another lifetime, often a shorter one."""

    unconfirmed = _DEBTS

    def begin(self, client: Client) -> None:
        process, (key,) = client.process, self.operation.keys
        ttl_ms = process.profile.bound_ns // MS * (1 + self.operation.think_ns % 4)
        whole = bool(self.operation.think_ns % 2)
        self.steps = touch(process.tier, process.store, key, ttl_ms, whole=whole)

    def succeed(self, client: Client, value: Any) -> None:
        self.is_confirmed = self.is_confirmed and value[0]  # of what has ended its end may be lost
        if value[1] is not MISSING:
            self.check_read(client, self.operation.keys[0], value[1])


KINDS.update({
    "tag_update": _TagUpdate,
    "token": _Token,
    "wait_for": _WaitFor,
    "refresh": _Refresh,
    "held_change": _HeldChange,
    "add": _Add,
    "compute": _Swap,
    "cas": _Cas,
    "swap": _SetAndGet,
    "take": _Take,
    "touch": _Touch,
    "incr": _Incr,
})  # fmt: skip
