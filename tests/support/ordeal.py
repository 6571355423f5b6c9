"""A cache under a fault: whatever is asked of it ends in time, with a value that was written or a specific error.

And when the fault is over, it is well again within two seconds, and holds no more than it did before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeGuard

from nearcache import Cache
from nearcache.errors import BulkError, ShardError
from support.redis import RedisServer
from support.waiting import wait_until

#: What a call may take beyond its deadline, on a machine that is busy with other things.
SLACK_S = 5.0
#: Within how long a cache is well again when a fault is over. On a machine that is busy with ten other things, ten
#: times as long is waited for before it is called a failure.
RECOVERY_S = 2.0
_PATIENCE = 10
#: Connections of this name are the test's, and not counted.
OURS = "test"


class Ordeal:
    """Knows what has been written through one cache, and judges what is read. Threads and tasks take turns.

    ``kept`` never changes; ``count`` is written with rising numbers. Only this object writes to the two. Use it as a
    context manager.

    Args:
        cache: The cache.
        timeout_s: Its ``timeout``.
        server: Where all its connections lead in the end, if they lead to one server.
        name: In front of the keys, where several have theirs in one Redis.

    Attributes:
        errors: What calls have raised so far.
        recovered_s: How long the recoveries have taken.
    """

    def __init__(
        self, cache: Cache[Any, Any], timeout_s: float = 1.0, server: RedisServer | None = None, name: str = ""
    ) -> None:
        self._cache = cache
        self._tasks = _Tasks(cache)
        self._timeout_s = timeout_s
        self._server = server
        self._tried = 0
        self._stored = 0
        self.errors: list[ShardError] = []
        self.recovered_s: list[float] = []
        self._kept, self._count = f"{name}kept", f"{name}count"
        cache[self._kept] = "kept"
        assert self.attempt() == []
        self._began_with = self._threads()

    def __enter__(self) -> Ordeal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._tasks.close()

    def attempt(self) -> list[ShardError]:
        """Read, write, invalidate, one and many, once each by a thread and by tasks; return what was raised."""
        before = len(self.errors)
        ways = [self._cache, self._tasks]
        for way in ways if self._tried % 4 else ways[::-1]:
            self._attempt(way)
        return self.errors[before:]

    def recover(self) -> None:
        """Wait until all is well again, which is to take two seconds, and check that it is."""
        begun = time.monotonic()
        wait_until(self._is_well, RECOVERY_S * _PATIENCE, what="well again", step=0.02)
        # Writes whose outcome was unknown are made up for by invalidations, which may still be under way.
        wait_until(self._is_settled, RECOVERY_S * _PATIENCE, what="a value that stays", step=0.02)
        self.recovered_s.append(time.monotonic() - begun)
        wait_until(self._holds_no_more, what="threads and connections let go", step=0.02)

    def _attempt(self, way: Any) -> None:
        self._judge(self._call(lambda: way.get(self._kept)), self._call(lambda: way.get(self._count)))
        self._tried += 1
        mine = self._tried
        if self._call(lambda: way.set(self._count, mine)) is not _FAILED:
            self._stored = mine
        self._judge(self._call(lambda: way[self._kept]), self._call(lambda: way[self._count]))
        self._cache.drop(self._kept)  # so that Redis is asked
        many = self._call(lambda: way.get_many([self._kept, self._count, "never"]))
        if many is not _FAILED:
            assert "never" not in many
            self._judge(many.get(self._kept), many.get(self._count))
        self._call(lambda: way.set_many({"other": 1, "another": 2}))
        self._call(lambda: way.invalidate("other"))
        loader = _aload if way is self._tasks else _load
        loaded = self._call(lambda: way.get_or_load("loaded", loader))
        assert loaded == "of loaded"  # whatever the shard does

    def _is_well(self) -> bool:
        self.attempt()  # a breaker closes by a call that succeeds
        return self._cache.health().ok

    def _is_settled(self) -> bool:
        cache = self._cache
        if self._call(lambda: cache.set(self._kept, "kept")) is _FAILED:
            return False  # by an idle connection of which nobody knew yet that it is closed
        calm = self.attempt() == [] and cache.get(self._count) == self._tried
        return calm and cache.selftest(SLACK_S).ok and bool(cache.peek(self._count) == self._tried)

    def _threads(self) -> int:
        return sum(thread.name.startswith("nearcache") for thread in threading.enumerate())

    def _holds_no_more(self) -> bool:
        """Whether there are no more threads than at the start, and no connections that belong to nobody."""
        if self._threads() > self._began_with:
            return False
        if self._server is None:
            return True
        with self._server.client(client_name=OURS) as client:
            known = [each for each in client.client_list() if each["name"] != OURS]
        pooled = self._cache._driver.status(0).connections  # type: ignore[attr-defined]  # not public
        return len(known) == pooled + self._tasks.connections() + 1  # that of the listener

    def _judge(self, kept: Any, count: Any) -> None:
        assert kept in ("kept", None, _FAILED), kept
        assert count in (None, _FAILED) or self._stored <= count <= self._tried, (count, self._stored, self._tried)

    def _call(self, work: Callable[[], Any]) -> Any:
        start = time.monotonic()
        try:
            return work()
        except KeyError as missing:
            cause = missing.__cause__
            assert cause is None or isinstance(cause, ShardError)
            return None
        except ShardError as error:
            self.errors.append(error)
            return _FAILED
        except BulkError as error:
            self.errors += [reason for reason in (*error.failed.values(), *error.unknown.values()) if _of_shard(reason)]
            return _FAILED
        finally:
            assert time.monotonic() - start < self._timeout_s + SLACK_S


class _Tasks:
    """A cache as tasks use it: each call is awaited in an event loop of the test's own."""

    def __init__(self, cache: Cache[Any, Any]) -> None:
        self._cache = cache
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._cache.aio, name)
        return lambda *arguments, **options: self._loop.run_until_complete(method(*arguments, **options))

    def __getitem__(self, key: Any) -> Any:
        return self.get(key)

    def connections(self) -> int:
        """Return how many connections the loop has."""
        pools = [reference() for reference in self._cache.aio._runner._driver._loops._by_loop.values()]  # type: ignore[attr-defined]  # not public
        return sum(len(pool._watched) for each in pools if each for pool in each._by_shard.values())

    def close(self) -> None:
        """Let go of the loop, and so of the connections in it."""
        self._loop.close()


def _load(key: Any) -> str:
    return f"of {key}"


async def _aload(key: Any) -> str:
    return f"of {key}"


def _of_shard(reason: Exception) -> TypeGuard[ShardError]:
    assert isinstance(reason, ShardError)
    return True


_FAILED: Any = object()


def codes(errors: list[ShardError]) -> set[str]:
    """Return the codes of error replies among these, and the class names of other errors."""
    return {getattr(error, "code", "") or type(error).__name__ for error in errors}
