"""No memory, at each point where the C core asks for some: MemoryError or success, nothing lost, nothing leaked.

Debug builds (``make sanitize``) have a hook that makes allocations fail; elsewhere each action is done once, and not
disturbed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import _store
from nearcache._store import Op, Store
from support.store_kit import SERVER, Key, attached_store, opened

FAIL_AFTER: Callable[[int], int] | None = getattr(_store, "_fail_allocation_after", None)
ENTRIES = 8  # a table is full at powers of two from here on

Scene = tuple[Store[Any, Any], Op]
POLICIES = ("lru", "adaptive")
Action = Callable[[Store[Any, Any], Op, list[Any]], object]


def expire(store: Store[Any, Any]) -> list[tuple[Any, Any]]:
    store.l1_set_clock(2000)
    return store.expire()


def shrink(store: Store[Any, Any]) -> None:
    for number in range(20_000):
        store[f"burst {number}"] = None
    for number in range(20_000):
        store.drop(f"burst {number}")
    for _ in range(2000):
        store.l1_tend()


ACTIONS: dict[str, Action] = {
    "make": lambda store, op, new: Store(10, lanes=1000),
    "make an adaptive one": lambda store, op, new: Store(10, policy="adaptive"),
    "put": lambda store, op, new: store.l1_put(new[0], new[1]),
    "put the first with a lifetime": lambda store, op, new: store.l1_put(new[0], new[1], ttl_ns=5),
    "put over": lambda store, op, new: store.l1_put(7, new[1], ttl_ns=5),
    "put and evict many": lambda store, op, new: store.l1_put(new[0], new[1], size=100),
    "finish": lambda store, op, new: store.l1_finish(op, new[1], 5, 1500, identity=SERVER),
    "open": lambda store, op, new: opened(store, new[0]),
    "open on a pending key": lambda store, op, new: opened(store, op.key),
    "refresh": lambda store, op, new: store.l1_confirm(op, 5, 1500, SERVER),
    "apply": lambda store, op, new: store.lane_apply(0, 3, list(range(40))),
    "apply with a key that raises": lambda store, op, new: store.lane_apply(0, 3, [new[2], 1]),
    "abandon": lambda store, op, new: store.l1_abandon(op, drop=True),
    "snapshot": lambda store, op, new: store.l1_snapshot(),
    "iterate": lambda store, op, new: list(store),
    "sweep": lambda store, op, new: store.l1_sweep(100),
    "expire": lambda store, op, new: expire(store),
    "grow": lambda store, op, new: [store.l1_put(("grown", number), new[1], ttl_ns=50) for number in range(200)],
    "grow and shrink": lambda store, op, new: shrink(store),
    "pop": lambda store, op, new: store.l1_pop_next(),
    "drop all": lambda store, op, new: store.drop_all(),
}


def scene(key: Any, action: str, policy: str) -> Scene:
    """A store whose tables are full, so that one more entry makes them grow: of values, and of operations in flight."""
    timed = action in {"sweep", "expire"}
    store = attached_store(None, maxbytes=100 if "evict" in action else None, policy=policy)
    for number in range(ENTRIES * 4):
        store.l1_put(number, [], ttl_ns=500 if timed else 0, size=3 if "evict" in action else 0)
    for number in range(ENTRIES - 1):
        opened(store, ("pending", number))
    op = Op(key)
    store.l1_open(op)
    return store, op


def attempt(action: str, policy: str, allowed: int, new: list[Any]) -> int:
    """Do it on a fresh scene with so many allocations allowed. Returns how many were refused."""
    store, op = scene(new[3], action, policy)
    held = dict(store.l1_snapshot())
    new[2].hash_ = hash(1)
    done = False
    if FAIL_AFTER is not None:
        FAIL_AFTER(allowed)
    try:
        ACTIONS[action](store, op, new)
        done = True
    except MemoryError:
        pass
    except ZeroDivisionError:
        done = "raises" in action
    finally:
        failed = FAIL_AFTER(-1) if FAIL_AFTER is not None else 0
    store.check_invariants()
    assert done or failed
    for key, value in store.l1_snapshot():
        assert key not in held or held[key] is value or key == 7
    store.l1_put("afterwards", 1, size=1)
    assert store["afterwards"] == 1
    return failed


def act() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("action", ACTIONS)
def test_store_without_memory_at_any_point_raises_and_stays_whole(action: str, policy: str) -> None:
    """MemoryError or success; invariants hold, values stay, no reference is leaked, and with memory all goes on."""
    new: list[Any] = [("new key", object()), object(), Key("hostile", on_eq=act), ("pending key", object())]
    before = [sys.getrefcount(each) for each in new]
    allowed = 0
    while attempt(action, policy, allowed, new) and allowed < 300:
        allowed += 1
    assert [sys.getrefcount(each) for each in new] == before
    assert allowed < 300
    if FAIL_AFTER is not None and action in {
        "put",
        "open",
        "snapshot",
        "make",
        "make an adaptive one",
        "grow",
        "expire",
        "iterate",
    }:
        assert allowed > 0
