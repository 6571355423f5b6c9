"""The loops that are timed: one operation on each key, and nothing else.

They all have one signature, so that one piece of code can time them: the cache, the keys, the value to store (or the
default). What they have in common, the loop itself, is timed too and subtracted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Loop = Callable[[Any, Sequence[Any], Any], None]
TTL_S = 3600.0


def nothing(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for _key in keys:
        pass


def subscript(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache[key]


def call(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache(key)


def get(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache.get(key)


def get_bound(cache: Any, keys: Sequence[Any], value: Any) -> None:
    fetch = cache.get
    for key in keys:
        fetch(key)


def get_default(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache.get(key, value)


def contains(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        key in cache  # noqa: B015


def assign(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache[key] = value


def set_(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache.set(key, value)


def insert_ttl(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache.insert(key, value, TTL_S)


def delete(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        del cache[key]


def delete_method(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache.delete(key)


def remove(cache: Any, keys: Sequence[Any], value: Any) -> None:
    for key in keys:
        cache.remove(key)


def get_many(cache: Any, batches: Sequence[list[Any]], value: Any) -> None:
    for batch in batches:
        cache.get_many(batch)


def comprehension(cache: Any, batches: Sequence[list[Any]], value: Any) -> None:
    for batch in batches:
        [cache[key] for key in batch]
