"""Checked by mypy and pyright, never run: what a type checker makes of options and errors."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from nearcache import errors, options

settings = options.parse("redis://localhost:6379", maxsize=10)
assert_type(settings, options.Settings)
assert_type(settings.endpoints, tuple[options.Endpoint, ...])
assert_type(settings.jitter, float)
assert_type(settings.policy, options.Policy)
assert_type(options.seconds_to_ttl("ttl", 1.5), float | None)


def describe(error: errors.BulkError) -> list[Any]:
    """Attributes of errors carry types."""
    assert_type(error.stored, frozenset[object])
    assert_type(error.failed, dict[Any, Exception])
    return sorted(error.unknown)
