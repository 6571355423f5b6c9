"""A cache under a fault: whatever is asked of it ends in time, with a value that was written or a specific error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeGuard

from nearcache import Cache
from nearcache.errors import BulkError, ShardError
from support.waiting import wait_until

#: What a call may take beyond its deadline, on a machine that is busy with other things.
SLACK_S = 5.0


class Ordeal:
    """Knows what has been written through one cache, and judges what is read.

    ``kept`` never changes; ``count`` is written with rising numbers. Only this object writes to the two.

    Args:
        cache: The cache.
        timeout_s: Its ``timeout``.

    Attributes:
        errors: What calls have raised so far.
    """

    def __init__(self, cache: Cache[Any, Any], timeout_s: float = 1.0) -> None:
        self._cache = cache
        self._timeout_s = timeout_s
        self._tried = 0
        self._stored = 0
        self.errors: list[ShardError] = []
        cache["kept"] = "kept"
        assert self.attempt() == []

    def attempt(self) -> list[ShardError]:
        """Read, write, invalidate, one and many, once each; return what was raised."""
        before = len(self.errors)
        cache = self._cache
        self._judge(self._call(lambda: cache.get("kept")), self._call(lambda: cache.get("count")))
        self._tried += 1
        mine = self._tried
        if self._call(lambda: cache.set("count", mine)) is not _FAILED:
            self._stored = mine
        self._judge(self._call(lambda: cache["kept"]), self._call(lambda: cache["count"]))
        cache.drop("kept")  # so that Redis is asked
        many = self._call(lambda: cache.get_many(["kept", "count", "never"]))
        if many is not _FAILED:
            assert "never" not in many
            self._judge(many.get("kept"), many.get("count"))
        self._call(lambda: cache.set_many({"other": 1, "another": 2}))
        self._call(lambda: cache.invalidate("other"))
        loaded = self._call(lambda: cache.get_or_load("loaded", lambda key: f"of {key}"))
        assert loaded == "of loaded"  # whatever the shard does
        return self.errors[before:]

    def recover(self, timeout_s: float = 20.0) -> None:
        """Wait until all is well again, and check that it is."""
        wait_until(self._is_well, timeout_s, what="well again", step=0.02)
        # Writes whose outcome was unknown are made up for by invalidations, which may still be under way.
        wait_until(self._is_settled, timeout_s, what="a value that stays", step=0.02)

    def _is_well(self) -> bool:
        self.attempt()  # a breaker closes by a call that succeeds
        return self._cache.health().ok

    def _is_settled(self) -> bool:
        cache = self._cache
        cache["kept"] = "kept"
        calm = self.attempt() == [] and cache.get("count") == self._tried
        return calm and cache.selftest(SLACK_S).ok and bool(cache.peek("count") == self._tried)

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


def _of_shard(reason: Exception) -> TypeGuard[ShardError]:
    assert isinstance(reason, ShardError)
    return True


_FAILED: Any = object()


def codes(errors: list[ShardError]) -> set[str]:
    """Return the codes of error replies among these, and the class names of other errors."""
    return {getattr(error, "code", "") or type(error).__name__ for error in errors}
