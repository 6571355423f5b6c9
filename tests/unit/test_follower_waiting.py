"""Who waits for what a follower hears, and what becomes of it when the follower ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from nearcache._store import Store
from nearcache.coherence import State
from support.followers import (
    EPOCH,
    START,
    Scene,
    push,
)

# -- waiting


def test_await_key_is_called_once_by_a_message_that_names_the_key() -> None:
    """Of that lane, and only of that key."""
    scene = Scene(2)
    scene.go_live()
    calls: list[str] = []
    assert scene.follower.await_key(0, b"sk", lambda: calls.append("k"))
    assert scene.follower.await_key(0, b"sk", lambda: calls.append("k too"))
    assert scene.follower.await_key(0, b"si", lambda: calls.append("i"))
    assert scene.follower.await_key(1, b"sk", lambda: calls.append("lane 1"))
    scene.follower.received(push(0, "I", 1, 3, 4, b"sx", b"sk"), START)
    scene.follower.received(push(0, "I", 2, 4, 5, b"sk"), START)
    assert calls == ["k", "k too"]


def test_await_key_is_called_by_the_clear_of_another_thread() -> None:
    """All that was dropped is dropped already; but who waits for a key has to look again."""
    scene = Scene()
    scene.go_live()
    calls: list[str] = []
    scene.lanes[0].expect_clear(4)
    scene.lanes[0].cleared(4, START)
    assert scene.follower.await_key(0, b"sk", lambda: calls.append("k"))
    scene.follower.received(push(0, "C", 1, 3, 4), START)
    assert calls == ["k"]


def test_await_key_withdrawn_is_not_called() -> None:
    """Others that wait for the key still are; withdrawing twice is no error."""
    scene = Scene()
    scene.go_live()
    calls: list[str] = []

    def mine() -> None:
        calls.append("mine")

    assert scene.follower.await_key(0, b"sk", mine)
    assert scene.follower.await_key(0, b"sk", lambda: calls.append("other"))
    scene.follower.unawait(0, b"sk", mine)
    scene.follower.unawait(0, b"sk", mine)
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk"), START)
    scene.follower.unawait(0, b"sk", mine)
    assert calls == ["other"]


@pytest.mark.parametrize(
    "event",
    [
        lambda scene: scene.follower.lost("reset"),
        lambda scene: scene.follower.suspended(START),
        lambda scene: scene.follower.received(push(0, "S", 5, 3, 4, b"sx"), START),
        lambda scene: scene.follower.received(push(0, "C", 1, 3, 4), START),
    ],
    ids=["lost", "slept", "gap", "clear"],
)
def test_await_key_is_called_when_its_message_may_have_been_missed(event: Callable[[Scene], None]) -> None:
    """Nobody sleeps through a lost message."""
    scene = Scene()
    scene.go_live()
    calls: list[str] = []
    assert scene.follower.await_key(0, b"sk", lambda: calls.append("k"))
    event(scene)
    assert calls == ["k"]


def test_await_key_is_called_at_a_clear_of_this_process() -> None:
    """Which suspects nothing, but takes away what was waited for."""
    scene = Scene()
    scene.go_live()
    calls: list[str] = []
    assert scene.follower.await_key(0, b"sk", lambda: calls.append("k"))
    scene.lanes[0].expect_clear(4)
    scene.follower.received(push(0, "C", 1, 3, 4), START)
    assert calls == ["k"]


def test_await_key_on_a_lane_that_is_not_followed_registers_nothing() -> None:
    """It would never be called."""
    scene = Scene()
    assert not scene.follower.await_key(0, b"sk", lambda: None)
    scene.follower.connected(7, START)
    assert not scene.follower.await_key(0, b"sk", lambda: None)


def test_callback_that_fails_does_not_harm_the_lane() -> None:
    """It is logged; the others are called."""
    scene = Scene()
    scene.go_live()
    calls: list[str] = []

    def fail() -> None:
        raise ValueError("mine")

    scene.watched[4] = fail
    assert scene.follower.await_key(0, b"sk", fail)
    assert scene.follower.await_key(0, b"sk", lambda: calls.append("k"))
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk"), START)
    assert calls == ["k"]
    assert scene.follower.is_live


def test_watched_write_id_is_noticed_once() -> None:
    """For the self-test."""
    scene = Scene()
    scene.go_live()
    calls: list[int] = []
    scene.watched[5] = lambda: calls.append(5)
    scene.follower.received(push(0, "I", 1, 3, 4, b"sk") + push(0, "I", 2, 4, 5, b"!x"), START)
    assert calls == [5]
    assert scene.watched == {}


def test_follower_whose_store_is_gone_carries_on_without_it() -> None:
    """Whoever drives it will notice and end."""
    scene = Scene()
    scene.go_live()
    scene.follower._store = lambda: None
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk"), START)
    scene.follower.lost("closed")
    assert scene.lanes[0].state is State.DOWN


@pytest.mark.parametrize("blind", [False, True])
def test_lane_has_applied_a_message_when_the_entries_are_gone_not_before(blind: bool) -> None:
    """Between the two another thread may ask whether it can rely on L1."""
    scene = Scene()
    seen: list[Any] = []

    class Asked(Store[Any, Any]):
        def lane_apply(self, lane: int, wid: int, keys: list[Any]) -> int:
            seen.append(scene.lanes[0].applied)
            return super().lane_apply(lane, wid, keys)

    if blind:
        scene.store = Asked(100)
    scene.go_live()
    assert scene.lanes[0].applied == (EPOCH, 0)
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk"), START)
    assert scene.lanes[0].applied == (EPOCH, 1)
    assert seen == [(EPOCH, 0)] * blind
    scene.follower.lost("closed")
    assert scene.lanes[0].applied is None


def test_wait_may_end_in_the_middle_of_the_beginning_of_another() -> None:
    """As when a collection ends steps that an event loop has left behind."""
    scene = Scene()
    scene.go_live()

    class Interrupted(bytes):
        def __hash__(self) -> int:
            scene.follower.unawait(0, b"sother", print)
            return super().__hash__()

    thread = threading.Thread(target=scene.follower.await_key, args=(0, Interrupted(b"sk"), print), daemon=True)
    thread.start()
    thread.join(20.0)
    assert not thread.is_alive()


def test_forked_follower_tells_nobody() -> None:
    """Those who wait are not in the child, and the lock of what they wait for may have been held."""
    scene = Scene()
    scene.go_live()
    told: list[int] = []
    scene.follower.fence(0, START, lambda: told.append(1))
    scene.follower.request(b"", lambda _reply, _now_ns: told.append(2))
    scene.follower.after_fork()
    scene.follower.connected(7, START)
    assert told == []
