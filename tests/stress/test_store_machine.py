"""A store under hypothesis: any sequence of its methods, with clocks that step by nanoseconds or by hours, gives what a
dict with deadlines would give."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nearcache._store import Store
from support.store_kit import NEVER, local_store

HOUR_NS = 3600 * 10**9
START_NS = 40 * 24 * HOUR_NS  # a machine that has been up for a while

keys = st.integers(0, 60)
sizes = st.sampled_from([0, 1, 7, 30])
spans = st.one_of(  # each order of magnitude, from one nanosecond to days
    st.integers(1, 100), st.integers(10**5, 10**7), st.integers(10**9, 10**11), st.integers(HOUR_NS, 100 * HOUR_NS)
)


class StoreMachine(RuleBasedStateMachine):
    """The store and the oracle: ``{key: (value, deadline, size)}``, the least recently used first.

    Whom the learning policy chooses and in which order it lists is its own affair: there the oracle takes the store's
    word for that, as long as it is one that is there and not spared.
    """

    policy = "lru"

    @initialize(maxsize=st.sampled_from([None, 0, 1, 5, 40]), maxbytes=st.sampled_from([None, 30, 200]))
    def begin(self, maxsize: int | None, maxbytes: int | None) -> None:
        self.held: dict[Any, tuple[int, int, int]] = {}
        self.events: list[tuple[Any, Any, str]] = []
        self.maxsize, self.maxbytes = maxsize, maxbytes
        self.now = START_NS
        self.number = 0
        self.store: Store[Any, Any] = local_store(maxsize, maxbytes=maxbytes, listener=self.hear, policy=self.policy)
        self.store.l1_set_clock(self.now)

    # -- the oracle

    @property
    def exact(self) -> bool:
        return self.policy == "lru"

    def hear(self, key: Any, value: Any, cause: str) -> None:
        self.events.append((key, value, cause))

    def alive(self, key: Any) -> bool:
        return key in self.held and self.now < self.held[key][1]

    def settle(self, *expected: tuple[Any, Any, str], spared: Any = None) -> None:
        """Take the listener's word: each one it was told of was held, and free to go for the reason given."""
        left = list(expected)
        for key, value, cause in self.events:
            if (key, value, cause) in left:
                left.remove((key, value, cause))
            elif cause == "expired":
                assert self.held[key][0] == value
                assert self.held[key][1] <= self.now
            else:
                assert cause == "evicted"
                assert key == next(other for other in self.held if other != spared) if self.exact else key != spared
                assert self.held[key][0] == value
            if cause != "replaced":
                del self.held[key]
        assert not left
        self.events.clear()

    def put(self, key: Any, ttl_ns: int, size: int) -> None:
        old = self.held.get(key)
        self.number += 1
        self.store.l1_put(key, self.number, ttl_ns=ttl_ns, size=size)
        if self.maxsize == 0:
            assert not self.events
            return
        replaced = [event for event in self.events if event[0] == key and event[2] == "replaced"]
        assert len(replaced) <= 1
        assert not replaced or (old is not None and replaced[0][1] == old[0] and self.now < old[1])
        self.settle(*replaced, spared=key if replaced else None)
        assert (key in self.held) == bool(replaced)
        self.held.pop(key, None)
        self.held[key] = (self.number, self.now + ttl_ns if ttl_ns else NEVER, size)

    # -- one at a time

    @rule(key=keys, ttl_ns=spans, size=sizes)
    def put_timed(self, key: int, ttl_ns: int, size: int) -> None:
        self.put(key, ttl_ns, size)

    @rule(key=keys, size=sizes)
    def put_untimed(self, key: int, size: int) -> None:
        self.put(key, 0, size)

    @rule(key=keys, times=st.sampled_from([1, 1, 2, 130]))
    def get(self, key: int, times: int) -> None:
        for _ in range(times):
            value = self.store.get(key)
            assert value == (self.held[key][0] if self.alive(key) else None)
            if self.alive(key):
                self.held[key] = self.held.pop(key)
            self.settle()

    @rule(key=keys)
    def look(self, key: int) -> None:
        assert (key in self.store) == self.alive(key)
        assert self.store.peek(key) == (self.held[key][0] if self.alive(key) else None)

    @rule(key=keys, how=st.sampled_from(["del", "erase", "drop"]))
    def remove(self, key: int, how: str) -> None:
        was_alive, was_held = self.alive(key), key in self.held
        cause = "dropped" if how == "drop" else "invalidated"
        event = [(key, self.held[key][0], cause if was_alive else "expired")] if was_held else []
        if how == "drop":
            assert self.store.drop(key) == was_held
        elif how == "erase":
            assert self.store.l1_erase(key) == was_alive
        else:
            try:
                del self.store[key]
                assert was_alive
            except KeyError:
                assert not was_alive
        self.settle(*event)

    @rule()
    def pop_next(self) -> None:
        first = next((key for key in self.held if self.alive(key)), None)
        if first is not None and not self.exact:
            first, value = self.store.l1_pop_next()
            assert self.alive(first)
            self.settle((first, value, "invalidated"))
            return
        if first is None:
            try:
                self.store.l1_pop_next()
                raise AssertionError
            except KeyError:
                self.settle()
            return
        assert self.store.l1_pop_next() == (first, self.held[first][0])
        self.settle((first, self.held[first][0], "invalidated"))

    # -- time

    @rule(by_ns=spans)
    def pass_time(self, by_ns: int) -> None:
        self.now += by_ns
        self.store.l1_set_clock(self.now)

    @rule()
    def expire(self) -> None:
        due = {(key, value) for key, (value, deadline, _) in self.held.items() if deadline <= self.now}
        pairs = self.store.expire()
        assert len(pairs) == len(due)
        assert set(pairs) == due
        self.settle()

    @rule(steps=st.integers(0, 100))
    def sweep(self, steps: int) -> None:
        assert self.store.l1_sweep(steps) == len(self.events) <= steps
        self.settle()

    @rule(times=st.integers(1, 40))
    def tend(self, times: int) -> None:
        for _ in range(times):
            self.store.l1_tend()
            self.settle()

    # -- many at a time

    @rule(count=st.sampled_from([100, 1000, 9000]), ttl_ns=spans)
    def burst(self, count: int, ttl_ns: int) -> None:
        """Thousands of others come, so that the table grows, and go, so that it shrinks."""
        if self.maxsize is not None or self.maxbytes is not None:
            count = 60
        for number in range(count):
            self.put(("burst", number), ttl_ns, 0)
        self.store.check_invariants()
        for number in range(count):
            if number % 10:
                self.store.drop(("burst", number))
                self.held.pop(("burst", number), None)
        self.events.clear()

    @rule(invalidated=st.booleans())
    def drop_all(self, invalidated: bool) -> None:
        assert self.store.drop_all(invalidated=invalidated) == len(self.held)
        cause = "invalidated" if invalidated else "dropped"
        self.settle(*[(key, held[0], cause if self.alive(key) else "expired") for key, held in self.held.items()])

    # -- always

    @invariant()
    def store_equals_the_oracle(self) -> None:
        self.store.check_invariants()
        assert len(self.store) == len(self.held)
        alive = [(key, held[0]) for key, held in self.held.items() if self.alive(key)]
        pairs = self.store.l1_snapshot()
        assert pairs == alive if self.exact else sorted(pairs, key=repr) == sorted(alive, key=repr)
        assert self.store.l1_counters()["bytes"] == sum(size for _, _, size in self.held.values())


class AdaptiveMachine(StoreMachine):
    """The same, with a policy that learns."""

    policy = "adaptive"


StoreMachine.TestCase.settings = settings(max_examples=400, stateful_step_count=50)
TestStoreMachine = pytest.mark.slow(StoreMachine.TestCase)
AdaptiveMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestAdaptiveMachine = pytest.mark.slow(AdaptiveMachine.TestCase)
