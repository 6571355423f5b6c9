"""Bulk loaders of ``memory://`` caches: what one row does to the others."""

from __future__ import annotations

from typing import Any

import pytest

import nearcache
from nearcache import ConfigError


def test_row_that_cannot_be_kept_costs_the_others_nothing() -> None:
    """They are kept; the error is that of the key, and comes again to who asks for it."""
    asked: list[list[str]] = []

    def load_many(keys: list[str]) -> dict[str, Any]:
        asked.append(keys)
        return dict(zip(keys, keys, strict=True))

    cache = nearcache.open("memory://", load_many=load_many, ttl=lambda key, value: -3 if key == "b" else 60)
    for _ in range(2):
        with pytest.raises(ConfigError, match="-3"):
            cache.get_many(["a", "b", "c"])
    assert dict(cache.items()) == {"a": "a", "c": "c"}
    assert asked == [["a", "b", "c"], ["b"]]
