"""What the store's tests share: a store with the clock in hand, and keys that misbehave on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nearcache._store import Op, Store

NEVER = 2**63 - 1
SERVER = 0xC0FFEE


def local_store(maxsize: int | None = 100, **options: Any) -> Store[Any, Any]:
    """A store as ``memory://`` has it: its lane is vouched for, and it is instant 1000. In one part, on every build."""
    store: Store[Any, Any] = Store(maxsize, **{"cores": 1} | options)
    store.lane_vouch(0, NEVER)
    store.l1_set_clock(1000)
    return store


def attached_store(maxsize: int | None = 100, *, lanes: int = 1, **options: Any) -> Store[Any, Any]:
    """A store whose lanes all hear the messages of ``SERVER``."""
    store: Store[Any, Any] = Store(maxsize, lanes=lanes, **{"cores": 1} | options)
    store.l1_set_clock(1000)
    for lane in range(lanes):
        store.lane_vouch(lane, NEVER)
        store.lane_attach(lane, SERVER)
    return store


def opened(store: Store[Any, Any], key: Any, lane: int = 0, *, wid: int = 0, write: bool = False) -> Op:
    op = Op(key, lane, wid=wid, write=write)
    store.l1_open(op)
    return op


def fill(store: Store[Any, Any], key: Any, value: Any, wid: int, *, lane: int = 0, deadline: int = NEVER) -> None:
    """Read through: one flight that nobody disturbs."""
    assert store.l1_finish(opened(store, key, lane), value, wid, deadline, identity=SERVER)


class Key:
    """A key whose hash, comparison and death can be made to do things."""

    def __init__(
        self,
        name: Any,
        hash_: int = 123_457,
        *,
        on_eq: Callable[[], object] | None = None,
        on_del: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.hash_ = hash_
        self.on_eq = on_eq
        self.on_del = on_del

    def __hash__(self) -> int:
        return self.hash_

    def __eq__(self, other: object) -> bool:
        if self.on_eq is not None:
            self.on_eq()
        return isinstance(other, Key) and self.name == other.name

    def __del__(self) -> None:
        if self.on_del is not None:
            self.on_del()


class Value:
    """A value whose death can be made to do things."""

    def __init__(self, on_del: Callable[[], object]) -> None:
        self.on_del = on_del

    def __del__(self) -> None:
        self.on_del()
