"""Methods of a cache are called like those of a built-in type: CPython remembers where it found them.

Looked up each time, a hit through ``get`` takes nearly twice as long. It depends on the class (see ``own_get``) and on
when something first asked for an object's dictionary. Pythons from 3.11 on do it.
"""

from __future__ import annotations

import dis
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from support.caches import Opener

#: Calls until CPython has made up its mind, and calls in which it may change it.
WARM, WATCHED = 200, 400

MEMORY: list[dict[str, Any]] = [{}, {"soft_ttl": 60}, {"on_removal": print}, {"policy": "lru", "ttl": 60}]


def lookups(call: Callable[[], object], name: str) -> set[str]:
    """Return the instructions by which a function looked up an attribute, over many calls."""
    for _ in range(WARM):
        call()
    seen = set()
    for _ in range(WATCHED):
        call()
        seen |= {step.opname for step in dis.get_instructions(call, adaptive=True) if step.argval == name}
    return seen


def remembered(cache: Any) -> bool:
    cache["k"] = "v"

    def ask() -> object:
        return cache.get("k")

    seen = lookups(ask, "get")
    assert seen, "this Python shows no instruction that names get"
    return all("_METHOD_" in name and "ADAPTIVE" not in name for name in seen)


@pytest.mark.parametrize("options", MEMORY, ids=lambda options: "-".join(options) or "plain")
def test_get_of_a_memory_cache(options: dict[str, Any]) -> None:
    """Of each of the classes behind ``memory://``, and of what they are copied to."""
    with nearcache.open("memory://", **options) as cache:
        assert remembered(cache)
        assert remembered(cache.copy())


def test_get_of_a_tiered_cache(open_cache: Opener) -> None:
    """Behind it stands Redis; with and without what is made later."""
    cache = open_cache()
    assert remembered(cache)
    assert cache.aio is cache.aio
    assert remembered(cache)
