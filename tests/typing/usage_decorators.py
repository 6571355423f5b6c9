"""Checked by mypy and pyright, never run: decorated functions keep their signature, methods included."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from typing_extensions import assert_type

import nearcache
from nearcache import Cache, CacheInfo

T = TypeVar("T")

cache: Cache[Any, Any] = nearcache.open("memory://")


@nearcache.lru_cache
def bare(sku: str, factor: int = 1) -> float:
    """Bare."""
    return len(sku) * factor / 2


@nearcache.lru_cache(maxsize=None, typed=True)
def called(sku: str) -> int:
    """Called."""
    return len(sku)


@nearcache.ttl_cache(maxsize=10, ttl=5)
def timed(sku: str) -> bytes:
    """With a lifetime."""
    return sku.encode()


@cache.cached
def price(sku: str, *, currency: str = "EUR") -> float:
    """Bare."""
    return len(sku) / 2


@cache.cached(ttl=60, tags=("catalogue",), unless=lambda result: result is None, ignore=[])
def stock(sku: str) -> int | None:
    """Called."""
    return len(sku)


@cache.cached
def untyped(sku: str) -> Any:
    """Of a result that may be anything, bare."""
    return sku


@cache.cached(ttl=5)
def untyped_later(sku: str) -> Any:
    """The same, called."""
    return sku


@cache.cached
async def fetch(sku: str) -> bytes:
    """A coroutine function."""
    return sku.encode()


@cache.cached(ttl=5)
async def fetch_later(sku: str) -> bytes:
    """A coroutine function, called."""
    return sku.encode()


@nearcache.lru_cache
def generic_memo(row: T) -> T:
    """What goes in comes out."""
    return row


@cache.cached
def made(model: type[T], row: int) -> T:
    """Of a type that an argument names, bare."""
    return model()


@cache.cached(ttl=5)
def made_later(model: type[T]) -> T:
    """The same, called."""
    return model()


@cache.cached
def listed(row: T) -> list[T]:
    """Of a type with an argument's in it."""
    return [row]


@cache.cached
async def fetch_made(model: type[T]) -> T:
    """A coroutine function."""
    return model()


@cache.cached(ttl=5)
async def fetch_made_later(model: type[T]) -> T:
    """The same, called."""
    return model()


@cache.cached
async def fetch_untyped(sku: str) -> Any:
    """A coroutine function of a result that may be anything."""
    return sku


class Shop:
    """Methods."""

    @nearcache.lru_cache
    def memo(self, sku: str) -> int:
        """A method."""
        return len(sku)

    @cache.cached(ttl=1)
    def price(self, sku: str, factor: int = 1) -> int:
        """A method."""
        return len(sku) * factor

    @cache.cached
    async def fetch(self, sku: str) -> bytes:
        """A coroutine method."""
        return sku.encode()

    @cache.cached
    def made(self, model: type[T]) -> T:
        """A generic method."""
        return model()

    @cache.cached
    async def fetch_made(self, model: type[T]) -> T:
        """A generic coroutine method."""
        return model()

    @cache.cached
    def untyped(self, sku: str) -> Any:
        """A method of a result that may be anything."""
        return sku

    @staticmethod
    @cache.cached
    def static(sku: str) -> int:
        """A static method."""
        return len(sku)


def use_memos() -> None:
    """lru_cache and ttl_cache."""
    assert_type(bare("a", factor=2), float)
    assert_type(called("a"), int)
    assert_type(timed("a"), bytes)
    assert_type(Shop().memo("a"), int)
    assert_type(Shop.memo(Shop(), "a"), int)
    bare.cache_clear()
    bare.cache_info()
    assert_type(bare.__wrapped__("a"), float)
    bare(1)  # type: ignore[arg-type]  # the signature is checked
    Shop().memo(1)  # type: ignore[arg-type]  # that of methods too
    Shop().memo()  # type: ignore[call-arg]  # and what is missing


def use_cached() -> None:
    """cache.cached on functions."""
    assert_type(price("a", currency="USD"), float)
    assert_type(price.refresh("a"), float)
    assert_type(price.peek("a"), float)
    assert_type(price.invalidate("a", currency="USD"), bool)
    assert_type(price.key("a"), tuple[Any, ...])
    assert_type(untyped.key("a"), tuple[Any, ...])
    assert_type(price.cache_info(), CacheInfo)
    assert_type(stock("a"), int | None)
    assert_type(untyped("a"), Any)
    assert_type(untyped_later("a"), Any)
    if untyped.invalidate("a") or untyped_later.invalidate("a"):  # it is nothing to be awaited
        untyped.cache_clear()
    price.set(1.5, "a")
    price.set("1.5", "a")  # type: ignore[arg-type]  # the function returns a float
    price.cache_clear()
    price(1)  # type: ignore[arg-type]  # the signature is checked
    price.invalidate("a", "USD")  # type: ignore[call-arg]  # that of the surface too
    price.key(1)  # type: ignore[arg-type]  # all of it
    stock()  # type: ignore[call-arg]  # and what is missing


def use_generic() -> None:
    """The result's type follows the argument's, in the surface too."""
    assert_type(generic_memo(b"a"), bytes)
    assert_type(made(bytes, 1), bytes)
    assert_type(made.refresh(bytes, 1), bytes)
    assert_type(made.peek(bytes, 1), bytes)
    assert_type(made.invalidate(bytes, row=1), bool)
    assert_type(made_later(bytes), bytes)
    assert_type(listed(1), list[int])
    assert_type(Shop().made(bytes), bytes)
    assert_type(Shop().made.peek(bytes), bytes)
    assert_type(Shop().made.invalidate(bytes), bool)
    made(bytes, "1")  # type: ignore[arg-type]  # the signature is checked


def use_methods() -> None:
    """The instance is bound, and not asked for again."""
    shop = Shop()
    assert_type(shop.price("a", factor=3), int)
    assert_type(shop.price.refresh("a"), int)
    assert_type(shop.price.invalidate("a"), bool)
    assert_type(shop.price.key("a", factor=3), tuple[Any, ...])
    assert_type(Shop.price(shop, "a"), int)
    assert_type(Shop.static("a"), int)
    assert_type(shop.untyped("a"), Any)
    assert_type(shop.untyped.invalidate("a"), bool)
    shop.price(1)  # type: ignore[arg-type]  # the signature is checked
    shop.price.invalidate(shop, "a")  # type: ignore[arg-type]  # the instance is there already


async def use_coroutines() -> None:
    """What is awaited has the result's type."""
    pending: Coroutine[Any, Any, bytes] = fetch("a")  # as it is called undecorated: pyright says CoroutineType
    assert_type(await pending, bytes)
    assert_type(await fetch("a"), bytes)
    assert_type(await fetch_later("a"), bytes)
    assert_type(await fetch.refresh("a"), bytes)
    assert_type(await fetch.invalidate("a"), bool)
    assert_type(await fetch.key("a"), tuple[Any, ...])
    assert_type(await fetch_untyped.key("a"), tuple[Any, ...])
    assert_type(await Shop().fetch.key("a"), tuple[Any, ...])
    assert_type(fetch.peek("a"), bytes)
    assert_type(await Shop().fetch("a"), bytes)
    assert_type(Shop().fetch.peek("a"), bytes)
    assert_type(await Shop().fetch.invalidate("a"), bool)
    assert_type(await fetch_made(bytes), bytes)
    assert_type(await fetch_made.refresh(bytes), bytes)
    assert_type(await fetch_made.invalidate(bytes), bool)
    assert_type(await fetch_made_later(bytes), bytes)
    assert_type(await Shop().fetch_made(bytes), bytes)
    assert_type(await fetch_untyped("a"), Any)
    assert_type(await fetch_untyped.invalidate("a"), bool)
    await fetch.set(b"1", "a")
    await fetch.set("1", "a")  # type: ignore[call-overload]  # the function returns bytes, when awaited
    await fetch.cache_clear()
    await fetch(1)  # type: ignore[arg-type]  # the signature is checked
