"""``cache.cached``: what becomes of a function's exceptions where the cache keeps errors."""

from __future__ import annotations

import time

import pytest

import nearcache
from support.waiting import wait_until


@pytest.mark.parametrize("negative_ttl", [None, 60])
@pytest.mark.parametrize("kept", [KeyError, LookupError, ValueError])
def test_cached_exception_is_kept_as_error_ttl_says(kept: type[Exception], negative_ttl: float | None) -> None:
    """Its class decides; a KeyError is nobody's word that the cache's key is absent."""
    cache = nearcache.open("memory://", error_ttl={kept: 60}, negative_ttl=negative_ttl)

    @cache.cached
    def f(x: str) -> str:
        asked.append(x)
        raise KeyError(x)

    asked: list[str] = []
    for _ in range(2):
        with pytest.raises(KeyError, match="'a'"):
            f("a")
    is_kept = kept is KeyError or (kept is LookupError and negative_ttl is None)  # the nearest class decides
    assert len(asked) == (1 if is_kept else 2)


@pytest.mark.parametrize("raises", [True, False])
def test_cached_renewal_without_a_result_to_keep_rests_like_any_that_failed(
    caplog: pytest.LogCaptureFixture, raises: bool
) -> None:
    """The old value stays, the log says why, and the next renewal begins when the time of a lease is over."""
    cache = nearcache.open("memory://", ttl=1000, soft_ttl=500, negative_ttl=100, lease=60)
    calls: list[int] = []

    @cache.cached(unless=lambda found: found is None)
    def find(number: int) -> int | None:
        calls.append(number)
        if len(calls) > 2 and raises:
            raise KeyError("gone")
        return number if len(calls) <= 2 else None

    assert [find(1), find(2)] == [1, 2]
    cache.expire(time.monotonic() + 600)
    assert find(1) == 1
    wait_until(lambda: bool(caplog.messages))
    reason = "KeyError('gone')" if raises else "unless= has turned the result away"
    assert caplog.messages[0].startswith("namespace default: ")
    assert caplog.messages[0].endswith(f"was not loaded anew, and the old value stays: {reason}")
    assert [find(1), find(2)] == [1, 2]
    wait_until(lambda: calls[3:] != [])
    assert calls == [1, 2, 1, 2]
