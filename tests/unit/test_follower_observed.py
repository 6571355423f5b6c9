"""What an observer is told of the messages: each once, before it is applied, whichever way it takes."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.coherence import TAG_KEY
from support.followers import EPOCH, START, Scene, fill, push, standing
from support.hearsay import bulk


class Observer:
    """Notes what it is told, and what the store still holds then."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.told: list[Any] = []

    def heard(self, lane: int, operation: str, keys: list[Any], wid: int) -> None:
        self.told.append((lane, operation, keys, wid, [self.scene.store.peek(key) for key in keys]))

    def cleared(self, wid: int) -> None:
        self.told.append(("cleared", wid))

    def missed(self) -> None:
        self.told.append("missed")


@pytest.fixture
def scene() -> Scene:
    """A follower that is live, with an observer, and a value in the store."""
    made = Scene()
    made.go_live()
    made.observer = Observer(made)  # type: ignore[attr-defined]  # the tests' own
    made.follower.report_to(made.observer)  # type: ignore[attr-defined]  # see above
    fill(made.store, "k", "old")
    return made


def told(scene: Scene) -> list[Any]:
    taken, scene.observer.told = scene.observer.told, []  # type: ignore[attr-defined]  # see above
    return list(taken)


@pytest.mark.parametrize("blind", [False, True], ids=["compiled", "in Python"])
def test_each_message_is_told_once_before_it_is_applied(scene: Scene, blind: bool) -> None:
    """With decoded keys, by the compiled way and by the other."""
    scene.follower.inbox.blind = blind
    data = push(0, "S", 1, 3, 4, b"sk", b"i7") + push(0, "F", 2, 4, 5, b"sk") + push(0, "I", 3, 5, 6, b"sk")
    scene.follower.received(data, START)
    assert told(scene) == [
        (0, "S", ["k", 7], 4, ["old", None]),
        (0, "F", ["k"], 5, [None]),
        (0, "I", ["k"], 6, [None]),
    ]


def test_message_that_somebody_waits_for_is_told_once(scene: Scene) -> None:
    """It is left to the slower way, as without an observer."""
    woken: list[int] = []
    assert scene.follower.await_key(0, b"sk", lambda: woken.append(1))
    scene.follower.received(push(0, "S", 1, 3, 4, b"sk") + push(0, "S", 2, 4, 5, b"sk"), START)
    assert [event[:4] for event in told(scene)] == [(0, "S", ["k"], 4), (0, "S", ["k"], 5)]
    assert woken == [1]


def test_tags_are_no_keys(scene: Scene) -> None:
    """A message about a tag's record names none."""
    scene.follower.received(push(0, "S", 1, 3, 4, TAG_KEY + b"0" * 16), START)
    assert told(scene) == [(0, "S", [], 4, [])]


def test_clear_is_told_as_such_and_own_clears_too(scene: Scene) -> None:
    """Not as missed messages."""
    scene.follower.received(push(0, "C", 1, 3, 4), START)
    scene.lanes[0].expect_clear(5)
    scene.follower.received(push(0, "C", 2, 4, 5), START)
    assert told(scene) == [("cleared", 4), ("cleared", 5)]


def test_what_may_be_lost_is_told_once_each_time(scene: Scene) -> None:
    """By a gap, by a heartbeat that shows one, by a message that nobody understands, by the end of the connection."""
    scene.follower.received(push(0, "S", 5, 8, 9, b"sk"), START)
    assert told(scene) == ["missed", (0, "S", ["k"], 9, ["old"])]
    scene.follower.fence(0, START, lambda: None)
    scene.follower.received(standing(7, 11), START)
    assert told(scene) == ["missed"]
    scene.follower.received(b">3\r\n" + bulk(b"message", b"nc:{t:0}:i", b"S %016x" % EPOCH), START)
    assert told(scene) == ["missed"]
    scene.follower.lost("again")
    assert told(scene) == []
    scene.go_live()
    scene.follower.lost("the end of the stream")
    assert told(scene) == ["missed"]


def test_follower_that_never_was_live_misses_nothing() -> None:
    """There was nothing to hear yet."""
    scene = Scene()
    observer = Observer(scene)
    scene.follower.report_to(observer)
    scene.follower.connected(7, START)
    scene.follower.lost("at once")
    assert observer.told == []
