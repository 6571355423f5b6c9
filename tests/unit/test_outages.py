"""What the log is told of places that are not heard: what is news, once, and never a flood."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from nearcache.bus.outages import Outages
from nearcache.coherence import Lane, State
from nearcache.errors import ServerReplyError

LOST = "namespace shop: shard place 3 is not heard, and nothing of it is served from memory: "
BACK = "namespace shop: shard place 3 is heard again, after %.1f s"


class Scene:
    """Places by numbers, some lanes, and a clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.lanes = {number: Lane(10**9) for number in range(2)}
        source: Any = self
        self.outages = Outages(source, "shop", lambda: round(self.now_s * 1e9))

    def name_of(self, place: int) -> str:
        """As a source does."""
        return f"place {place}"

    def lose(self, at_s: float, reason: str, *lanes: int) -> None:
        """Place 3 is not heard."""
        self.now_s = at_s
        for number in lanes or self.lanes:
            self.lanes[number].state = State.DOWN
        self.outages.begin(3, {number: self.lanes[number] for number in lanes or self.lanes}, reason)

    def hear(self, at_s: float, *lanes: int) -> None:
        """Lanes are heard, wherever they are."""
        self.now_s = at_s
        for number in lanes or self.lanes:
            self.lanes[number].state = State.LIVE
        self.outages.end()


@pytest.fixture
def scene(caplog: pytest.LogCaptureFixture) -> Scene:
    """A scene whose log is kept, what is no warning included."""
    caplog.set_level(logging.INFO, "nearcache")
    return Scene()


def test_outage_is_told_once_with_its_reason_and_its_end(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """However often a connection was tried meanwhile. The reason names the shard once."""
    scene.lose(5.0, "shard place 3: it is gone")
    for tenths in range(51, 80):
        scene.lose(tenths / 10, "shard place 3: it is gone")
    scene.hear(8.5)
    scene.hear(9.0)
    assert caplog.messages == [LOST + "it is gone", BACK % 3.5]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_outage_with_another_reason_is_told_again_a_second_later(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """That a connection ended says little; why no other can be made says what to do."""
    scene.lose(5.0, "the server closed the connection")
    scene.lose(5.05, "WRONGPASS")
    assert caplog.messages == [LOST + "the server closed the connection"]
    scene.lose(6.1, "WRONGPASS")
    scene.lose(8.0, "WRONGPASS")
    scene.lose(9.0, "the server closed the connection")
    assert caplog.messages[1:] == [LOST + "WRONGPASS (and 1 more of the kind since the last line)"]


def test_outage_with_ever_new_reasons_fills_no_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """A number in them, say."""
    for second in range(1000):
        scene.lose(5.0 + 2 * second, f"no answer number {second}")
    assert len(caplog.messages) == 8


def test_unknown_command_is_told_once_however_it_is_called(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """The server repeats the arguments, with the random numbers in them."""
    for second in range(5):
        reply = f"ERR unknown command 'EVALSHA', with args beginning with: '{second}'"
        scene.lose(5.0 + 2 * second, str(ServerReplyError("place 3", reply)))
    assert caplog.messages == [LOST + "the server replied \"ERR unknown command 'EVALSHA'\""]


def test_place_that_comes_and_goes_is_told_of_once_a_second(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """An outage that was not told has no end that is."""
    for tenth in range(40):
        scene.lose(5.0 + tenth / 10, "the server closed the connection")
        scene.hear(5.05 + tenth / 10)
    assert [message.startswith(LOST) for message in caplog.messages] == [True, False] * 4


def test_outage_ends_when_all_of_its_lanes_are_heard(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """One by one they go on at another node."""
    scene.lose(5.0, "the server closed the connection", 0)
    scene.lose(5.5, "the server closed the connection", 1)
    scene.hear(6.0, 0)
    assert len(caplog.messages) == 1
    scene.hear(7.0, 1)
    assert caplog.messages[1:] == [BACK % 2.0]


def test_place_without_lanes_or_that_is_none_any_more_is_not_told_of(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost where all slots have moved on, and nobody waits for a shard that was removed."""
    scene.outages.begin(3, {}, "no lane is left here")
    assert caplog.messages == []
    scene.lose(5.0, "it is gone")
    scene.outages.forget(3)
    scene.hear(6.0)
    assert caplog.messages == [LOST + "it is gone"]


def test_place_that_is_one_again_is_told_of_at_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """It may be another server that has the number by now: what was told of the one before is not counted in."""
    scene.lose(5.0, "it is gone")
    scene.outages.forget(3)
    scene.lose(5.1, "it has not come")
    assert caplog.messages == [LOST + "it is gone", LOST + "it has not come"]
