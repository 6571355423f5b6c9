"""What signal handlers raise while a store calls its listener: it reaches the program, and the listener is told."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

import nearcache
from support.store_kit import local_store
from support.threads import PATIENCE

#: Says that a signal has come, whose number it is called with, and returns 0. No handler runs before the next step of
#: Python code: as a ``getsizeof`` it has a signal come in the middle of what a store does.
come: Final[Callable[[int], int]] = ctypes.pythonapi.PyErr_SetInterruptEx
#: A signal without a handler, which is ignored there.
NO_SIGNAL: Final = signal.SIGUSR2


class Limit(Exception):
    """The time for something is over: an Exception, as Celery's is."""


class Stop(BaseException):
    """As pytest-timeout's is, it is no Exception."""


def step() -> None:
    """The interpreter looks for signals where a function begins."""


@pytest.fixture(autouse=True)
def reported(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ``sys.unraisablehook`` was given."""
    given: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: given.append(report.exc_value))
    return given


@pytest.fixture
def on_alarm() -> Iterator[Callable[[BaseException], object]]:
    """Has the handler of SIGALRM raise something."""

    def begin(error: BaseException) -> None:
        def handle(_number: int, _frame: object) -> None:
            raise error

        signal.signal(signal.SIGALRM, handle)

    before = signal.getsignal(signal.SIGALRM)
    yield begin
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("error", [Limit("over"), Stop("over"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_interrupt_before_a_listener_is_called_reaches_the_program_when_it_has_been(
    error: BaseException, on_alarm: Callable[[BaseException], object], reported: list[Any]
) -> None:
    """Whatever it is, for the listener has not raised it. The change stands, and was told."""
    told: list[Any] = []
    store = local_store(1, getsizeof=come, listener=lambda *gone: told.append(gone))
    store["a"] = NO_SIGNAL
    on_alarm(error)
    with pytest.raises(type(error)) as caught:
        store["b"] = signal.SIGALRM
        step()
    assert caught.value is error
    assert told == [("a", NO_SIGNAL, "evicted")]
    assert (list(store), reported) == (["b"], [])


@pytest.mark.parametrize("error", [Stop("over"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_interrupt_in_a_listener_reaches_the_program_if_it_is_no_exception(
    error: BaseException,
    on_alarm: Callable[[BaseException], object],
    reported: list[Any],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Nobody means to ignore such a one. It is neither reported nor printed."""
    on_alarm(error)
    store = local_store(listener=lambda *_: signal.raise_signal(signal.SIGALRM))
    store["k"] = 1
    with pytest.raises(type(error)) as caught:
        store["k"] = 2
        step()
    assert caught.value is error
    assert caught.traceback[-1].name == "handle"
    assert (store["k"], reported) == (2, [])
    assert capfd.readouterr() == ("", "")


def test_interrupt_in_a_listener_keeps_no_other_entry_from_being_told(reported: list[Any]) -> None:
    """It is raised when all that goes with one change has been told."""
    told: list[Any] = []

    def note(key: Any, _value: Any, _cause: str) -> None:
        told.append(key)
        if len(told) == 1:
            raise Stop

    store = local_store(listener=note)
    for key in "abc":
        store[key] = key
    with pytest.raises(Stop):
        store.drop_all()
        step()
    assert sorted(told) == ["a", "b", "c"]
    assert reported == []


def test_interrupt_in_another_thread_is_no_signals_and_is_reported(reported: list[Any]) -> None:
    """The main thread has nothing to do with it, and the other is perhaps the one that hears messages."""
    error = KeyboardInterrupt()

    def note(*_gone: Any) -> None:
        raise error

    store = local_store(listener=note)
    store["k"] = 1
    other = threading.Thread(target=store.drop, args=("k",))
    other.start()
    other.join(PATIENCE)
    step()
    assert (len(store), reported) == (0, [error])


AGING: Final[dict[str, dict[str, Any]]] = {
    "aging": {"ttl": 60, "soft_ttl": 30},
    "idle": {"ttl": nearcache.Idle(60)},
    "ages": {"ages": True},
}


@pytest.mark.parametrize("options", AGING.values(), ids=AGING)
@pytest.mark.parametrize("error", [Limit("over"), KeyboardInterrupt()], ids=repr)
def test_interrupt_in_what_a_cache_tells_itself_reaches_the_program(
    error: BaseException, options: dict[str, Any], reported: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no function of the user's that could have raised it, so it is not left to the hook."""

    def interrupt(*_gone: Any) -> None:
        raise error

    with nearcache.open("memory://", maxsize=1, **options) as cache:
        cache["a"] = 1
        monkeypatch.setattr(cache, "_has_grown_old", interrupt)
        with pytest.raises(type(error)) as caught:
            cache["b"] = 2
            step()
        monkeypatch.undo()
    assert caught.value is error
    assert reported == []


@pytest.mark.parametrize("options", AGING.values(), ids=AGING)
@pytest.mark.parametrize("bound", [{"maxsize": 4}, {"maxbytes": 4, "getsizeof": lambda _value: 1}], ids=repr)
def test_interrupted_evictions_leave_no_more_than_there_is_room_for(
    bound: dict[str, Any], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are; and of what goes nothing is kept that was noted of it."""

    def interrupt(*_gone: Any) -> None:
        raise Limit

    with nearcache.open("memory://", **bound, **options) as cache:
        monkeypatch.setattr(cache, "_has_grown_old", interrupt)
        for number in range(100):
            try:
                cache.set(number, number, tags=["t"])
                step()
            except Limit:
                pass
        monkeypatch.undo()
        assert 4 <= sum(number in cache for number in range(100)) <= 4 * 4
        assert max(len(cache._births), len(cache._tagged)) <= 4 * 4
