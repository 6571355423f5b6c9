"""``cache.cached``: what becomes of a function's exceptions where the cache keeps errors."""

from __future__ import annotations

import pytest

import nearcache


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
