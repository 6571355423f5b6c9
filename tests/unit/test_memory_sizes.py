"""``memory://`` with ``getsizeof``: what cannot be kept is refused, and nothing is changed, whatever was called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ValueTooLargeError

LARGE = "y" * 50

CHANGES: dict[str, Callable[[Cache[str, Any], Any], object]] = {
    "item": lambda cache, value: cache.__setitem__("z", value),
    "set": lambda cache, value: cache.set("z", value),
    "tags": lambda cache, value: cache.set("z", value, tags=["t"]),
    "ttl": lambda cache, value: cache.set("z", value, ttl=5),
    "set_many": lambda cache, value: cache.set_many({"a": "x", "z": value}),
    "update": lambda cache, value: cache.update({"a": "x", "z": value}),
    "add": lambda cache, value: cache.add("new", value),
    "setdefault": lambda cache, value: cache.setdefault("new", value),
    "replace": lambda cache, value: cache.replace("z", value),
    "get_and_set": lambda cache, value: cache.get_and_set("z", value),
    "cas": lambda cache, value: cache.cas("z", value, cache.gets("z")[1]),
}

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "aging": {"ttl": 60, "soft_ttl": 30},
    "function": {"ttl": lambda _key, _value: 5},
    "idle": {"ttl": nearcache.Idle(60)},
}

every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@every_kind
@every_change
def test_value_too_large_is_refused_and_nothing_is_changed(
    change: Callable[[Cache[str, Any], Any], object], options: dict[str, Any]
) -> None:
    """It says how large, and what the limit is."""
    cache = nearcache.open("memory://", maxbytes=10, getsizeof=len, **options)
    cache["z"] = "old"
    with pytest.raises(ValueTooLargeError, match=r"50 bytes is over maxbytes=10.*\(key '[a-z]+'\)"):
        change(cache, LARGE)
    assert dict(cache.items()) == {"z": "old"}


@every_kind
def test_loaded_value_too_large_is_returned_counted_and_logged_once(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """It is loaded each time that it is asked for, which nobody would see otherwise."""
    calls: list[str] = []

    def load(key: str) -> str:
        calls.append(key)
        return LARGE if key == "z" else key

    cache = nearcache.open("memory://", namespace="shop", maxbytes=10, getsizeof=len, loader=load, **options)
    assert [cache["z"], cache.get_or_load("z"), cache.refresh("z")] == [LARGE, LARGE, LARGE]
    assert (cache["a"], cache["a"], calls) == ("a", "a", ["z", "z", "z", "a"])
    assert cache.stats().l1.too_large == 3
    (said,) = caplog.messages
    assert said.startswith("namespace shop: key 'z': a value of 50 bytes is over maxbytes=10 and not kept in memory")


@every_kind
@every_change
@pytest.mark.parametrize(
    ("size", "error", "match"),
    [(-1, ValueError, "-1"), (10**30, ValueError, "below"), (None, TypeError, "None"), (1.5, TypeError, "1.5")],
    ids=repr,
)
def test_size_that_is_none_is_refused_and_nothing_is_changed(
    change: Callable[[Cache[str, Any], Any], object],
    options: dict[str, Any],
    size: Any,
    error: type[Exception],
    match: str,
) -> None:
    """It says what getsizeof gave."""
    sizes = {"old": 3, "x": 1}
    cache = nearcache.open("memory://", maxbytes=10, getsizeof=lambda value: sizes.get(value, size), **options)
    cache["z"] = "old"
    with pytest.raises(error, match=f"getsizeof gave.*{match}"):
        change(cache, LARGE)
    assert dict(cache.items()) == {"z": "old"}


@every_kind
def test_loaded_value_too_large_is_returned_and_not_kept(options: dict[str, Any]) -> None:
    """Who asks is not to blame."""
    cache = nearcache.open("memory://", maxbytes=10, getsizeof=len, loader=lambda _key: LARGE, **options)
    assert cache["z"] == LARGE
    assert len(cache) == 0


@pytest.mark.parametrize("make", [lambda cache: cache.append("z", LARGE), lambda cache: cache.prepend("z", LARGE)])
def test_text_that_grows_too_large_stays_as_it_was(make: Callable[[Any], object]) -> None:
    """The verb says so."""
    cache = nearcache.open("memory://", maxbytes=10, getsizeof=len)
    cache["z"] = "old"
    with pytest.raises(ValueTooLargeError):
        make(cache)
    assert cache["z"] == "old"
