"""What is kept for an event loop ends with the loop, however that ends."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from typing import Any

from nearcache.loops import PerLoop, wake

TIMEOUT = 20.0


class Thing:
    """Notes how it ended."""

    ends: list[bool]

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ends = []
        self.forgotten = False

    def end(self, *, closed: bool) -> None:
        self.ends.append(closed)

    def forget(self) -> None:
        self.forgotten = True


class Things(PerLoop[Thing]):
    """Makes them, and remembers the lists in which they note how they ended."""

    def __init__(self) -> None:
        super().__init__(self._make_one)
        self.notes: list[list[bool]] = []

    def _make_one(self, loop: asyncio.AbstractEventLoop) -> Thing:
        thing = Thing(loop)
        self.notes.append(thing.ends)
        return thing


async def ask(things: Things) -> Thing:
    """Ask for the thing of the running loop."""
    return things.here()


def test_one_loop_has_one_thing() -> None:
    """Whoever asks for it, and only after it was asked for."""
    things = Things()

    async def main() -> None:
        assert things.known() is None
        assert things.here() is things.here() is await asyncio.create_task(ask(things)) is things.known()

    asyncio.run(main())
    assert len(things.notes) == 1


def test_loop_that_is_closed_ends_its_thing() -> None:
    """At once, without a collection and without a word from anybody."""
    things = Things()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(ask(things))
    loop.run_until_complete(ask(things))
    assert things.notes == [[]]
    loop.close()
    assert things.notes == [[True]]
    assert things._by_loop == {}


def test_thing_that_is_still_referred_to_ends_with_its_loop_all_the_same() -> None:
    """Such as by the frame of a task that never came to its end."""
    things = Things()
    loop = asyncio.new_event_loop()
    held = loop.run_until_complete(ask(things))
    loop.close()
    assert held.ends == [True]


def test_loop_that_nobody_closed_can_be_collected_with_its_thing() -> None:
    """Although the thing refers to the loop."""
    things = Things()
    loop: Any = asyncio.SelectorEventLoop()
    loop.run_until_complete(ask(things))
    seen = weakref.ref(loop)
    sockets = loop._ssock, loop._csock
    loop.__class__ = type("Silent", (asyncio.SelectorEventLoop,), {"__del__": lambda self: None})  # it would warn
    del loop
    gc.collect()
    for each in sockets:
        each.close()
    assert seen() is None
    assert things.notes == [[True]]


def test_every_loop_has_its_own() -> None:
    """One after the other, as tests have them, and at the same time in several threads."""
    things = Things()
    for _ in range(3):
        asyncio.run(ask(things))
    barrier = threading.Barrier(3, timeout=TIMEOUT)
    seen: list[Thing] = []

    async def meet() -> None:
        seen.append(things.here())
        barrier.wait()
        assert things.here() in seen

    threads = [threading.Thread(target=asyncio.run, args=(meet(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
    assert len(set(map(id, seen))) == 3
    assert things.notes == [[True]] * 6


def test_end_all_reaches_loops_wherever_they_are() -> None:
    """The one that runs here, one that stands still, one that runs in another thread (in that thread), none closed."""
    things = Things()
    still = asyncio.new_event_loop()
    in_still = still.run_until_complete(ask(things))
    ready, done = threading.Event(), threading.Event()
    elsewhere: list[Thing] = []

    async def wait() -> None:
        elsewhere.append(things.here())
        ready.set()
        while not elsewhere[0].ends:
            await asyncio.sleep(0)
        done.set()

    thread = threading.Thread(target=asyncio.run, args=(wait(),))
    thread.start()
    assert ready.wait(TIMEOUT)

    async def main() -> Thing:
        here = things.here()
        things.end_all()
        assert here.ends == [False]
        return here

    asyncio.run(main())
    assert done.wait(TIMEOUT)
    thread.join(TIMEOUT)
    assert in_still.ends == [False]
    still.close()
    things.end_all()
    assert in_still.ends == [False, True]


def test_forked_child_forgets() -> None:
    """And begins anew."""
    things = Things()

    async def main() -> None:
        old = things.here()
        things.forget()
        assert old.forgotten
        assert things.known() is None
        assert things.here() is not old

    asyncio.run(main())


def test_wake_says_when_nobody_is_there() -> None:
    """A loop that is closed takes no more calls."""
    loop = asyncio.new_event_loop()
    called: list[int] = []
    assert wake(loop, called.append, 1)
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    assert called == [1]
    assert not wake(loop, called.append, 2)
