"""How long what meets a slot on its way through a cluster waits for it; no network, no time."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Exchange, Reply
from support.courses import SCRIPT, SECOND, WRITE, Scene, replies


@pytest.mark.parametrize("reason", ["ASK 0 b:7000", "TRYAGAIN some keys are elsewhere"])
def test_scripts_wait_until_a_slot_has_arrived(reason: str) -> None:
    """With growing pauses; what was not executed is sent again."""
    scene = Scene(["a"], lambda host, command: reason if scene.now < SECOND // 10 else b"done")
    (reply,) = replies(scene.run(Exchange(0, WRITE)))
    assert (reply.values, reply.identity) == ([b"done"], 100)
    assert scene.pauses == sorted(scene.pauses)
    assert len(scene.pauses) > 2


def test_scripts_give_up_after_a_second_or_at_the_deadline() -> None:
    """The error says why, and that nothing was executed."""
    for seconds, most in ((10.0, 1.0), (0.1, 0.1)):
        scene = Scene(["a"], lambda host, command: "TRYAGAIN later")
        (error,) = scene.run(Exchange(0, WRITE), seconds=seconds)
        assert isinstance(error, ShardUnavailableError)
        assert not error.sent
        assert "TRYAGAIN" in str(error)
        assert most / 2 < sum(scene.pauses) <= most


def test_slot_that_stays_open_is_waited_for_one_second_by_all_together() -> None:
    """Whoever comes later is told at once, and what is not concerned goes on. After a quiet while that is forgotten."""
    scene = Scene(["a", "a"], lambda host, command: "TRYAGAIN later" if command is WRITE[0] else b"done")
    for second in (0, 1, 2, 4, 6, 8, 11, 12):
        scene.now = max(scene.now, second * SECOND)
        scene.pauses.clear()
        stuck, other = scene.run(Exchange(0, WRITE), Exchange(1, [SCRIPT.call([b"M"], [b"1"])]))
        assert isinstance(stuck, ShardUnavailableError)
        assert isinstance(other, Reply)
        assert bool(scene.pauses) is (second in (0, 11))


def test_slot_that_is_given_up_does_not_end_what_is_led_on_beside_it() -> None:
    """A read follows ASK, and another lane's slot is waited for."""
    other = SCRIPT.call([b"M"], [b"1"])
    arrives = [0]

    def answer(host: str, command: Any) -> Any:
        if command is WRITE[0] or (command is other and scene.now < arrives[0]):
            return "TRYAGAIN later"
        return "ASK 2 b:7000" if host == "a" and command[0] == b"GET" else b"done"

    scene = Scene(["a", "a", "a"], answer)
    scene.run(Exchange(0, WRITE))
    arrives[0] = scene.now + SECOND // 2
    stuck, *others = scene.run(Exchange(0, WRITE), Exchange(1, [other]), Exchange(2, [(b"GET", b"k")]))
    assert isinstance(stuck, ShardUnavailableError)
    assert [reply.values for reply in replies(others)] == [[b"done"], [b"done"]]


def test_slot_that_has_arrived_is_waited_for_anew_when_it_leaves() -> None:
    """Each time a whole second."""
    arrives = [0]
    scene = Scene(["a"], lambda host, command: "TRYAGAIN later" if scene.now < arrives[0] else b"done")
    for _ in range(4):
        arrives[0] = scene.now + SECOND * 3 // 4
        replies(scene.run(Exchange(0, WRITE)))
