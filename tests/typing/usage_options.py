"""Checked by mypy and pyright, never run: what a type checker makes of options and errors."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from typing_extensions import Unpack, assert_type

import nearcache
from nearcache import errors, options

settings = options.parse("redis://localhost:6379", maxsize=10)
assert_type(settings, options.Settings)
assert_type(settings.endpoints, tuple[options.Endpoint, ...])
assert_type(settings.jitter, float)
assert_type(settings.policy, options.Policy)


nearcache.open("memory://", maxsize="10")  # type: ignore[arg-type]  # a text that is no number
nearcache.open("memory://", max_size=10)  # type: ignore[call-arg]  # a misspelt option
nearcache.open("redis://a", policy="lfu")  # type: ignore[arg-type]  # a policy that there is not
nearcache.open("redis://a", ttl=timedelta(hours=1), loader=str.upper, error_ttl={OSError: 5}, codec="json", tags=["a"])
nearcache.open("redis://a,b", classes=[Exception], shard_weights=(1, 2), writer=print, write_delay=1, isolation="copy")
nearcache.open("redis://a", username="app", password=lambda: "token")
nearcache.open("redis+sentinel://a/m", password=lambda: ("app", "token"), sentinel_password=str)
nearcache.open("redis://a", password=lambda: b"token")  # type: ignore[arg-type]  # passwords are texts


def open_mine(**mine: Unpack[nearcache.Options]) -> nearcache.Cache[str, int]:
    """A program's own way to open caches hands its options on."""
    return nearcache.open("redis://a", **mine)


def open_read(given: dict[str, Any]) -> nearcache.Cache[str, int]:
    """Options may come from a file as well."""
    return nearcache.open("redis://a", **given)


def describe(error: errors.BulkError) -> list[Any]:
    """Attributes of errors carry types."""
    assert_type(error.stored, frozenset[object])
    assert_type(error.failed, dict[Any, Exception])
    return sorted(error.unknown)
