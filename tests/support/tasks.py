"""What tests of ``cache.aio`` share: a loader that waits, waiting in a loop, and threads that must end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from nearcache.cache.tiered.cache import TieredCache

TIMEOUT = 20.0


class Gate:
    """A coroutine loader that waits until it is let go, from any thread, and notes its calls."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.entered = threading.Event()
        self.open = threading.Event()

    async def __call__(self, key: Any) -> Any:
        self.calls.append(key)
        self.entered.set()
        await until(self.open.is_set)
        return [key, len(self.calls)]


class LoopGate:
    """The same for one loop, which waits without asking again and again."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.entered = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, key: Any) -> Any:
        self.calls.append(key)
        self.entered.set()
        await self.open.wait()
        return [key, len(self.calls)]


async def until(true: Callable[[], object]) -> None:
    """Let the loop go on until something holds."""
    async with asyncio.timeout(TIMEOUT) if hasattr(asyncio, "timeout") else _Forever():
        while not true():
            await asyncio.sleep(0.001)


class _Forever:
    """Stands in where asyncio has no ``timeout`` (Python 3.10); the test suite's own ends a test that hangs."""

    async def __aenter__(self) -> None:
        """Begin."""

    async def __aexit__(self, *exc_info: object) -> None:
        """End."""


def waiting(cache: TieredCache[Any, Any], key: str) -> int:
    """Return how many wait for the load of a key."""
    load = cache._tier.loads.under_way(key)
    return 0 if load is None else cache._tier.loads.waiting + len(load.callbacks)


def in_threads(*work: Callable[[], Any]) -> None:
    """Run each in a thread of its own."""
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
