"""``cache.cached``: the key of a call, and arguments that are no part of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ConfigError, EntryEvent, UnencodableKeyError
from support.threads import PATIENCE


@pytest.fixture
def cache() -> Cache[Any, Any]:
    """A cache of this process."""
    return nearcache.open("memory://", maxsize=1000, ages=True)


# -- key() ---------------------------------------------------------------------------------------------------------


def test_key_of_a_call_is_that_of_its_result(cache: Cache[Any, Any]) -> None:
    """However the arguments are given; what the cache can do with a key it does with the result."""

    @cache.cached
    def price(sku: str, currency: str = "EUR") -> str:
        return f"{len(sku)} {currency}"

    key = price.key("chair")
    assert key == price.key(currency="EUR", sku="chair") != price.key("chair", "USD")
    assert key not in cache
    assert price("chair") == cache[key] == cache.get(key, max_age=60) == "5 EUR"
    assert cache.touch(key, 5)
    assert (cache.remaining_ns(key) or 0) < 6e9
    assert list(cache) == [key]
    assert price.cache_info()[:2] == (0, 1)


@pytest.mark.parametrize(
    "arguments", [((1, 2, 3), {}), ((), {"a": 1, "b": 2, "c": 3}), ((1, 2), {}), ((1, 2), {"d": 3})]
)
def test_arguments_that_a_function_refuses_find_no_result_of_others(cache: Cache[Any, Any], arguments: Any) -> None:
    """As the function itself, the cached one takes some by place only, and others by name only."""

    @cache.cached
    def total(a: int, /, b: int, *, c: int) -> int:
        return a + b + c

    assert total(1, 2, c=3) == total(1, b=2, c=3) == 6
    assert total.cache_info()[:2] == (1, 1)
    with pytest.raises(TypeError, match=r"total\(\)"):
        total(*arguments[0], **arguments[1])


def test_key_in_hold_keeps_off_what_was_read_before_a_change(cache: Cache[Any, Any]) -> None:
    """The function's result is one value like any other."""
    rows = {"chair": 1}

    @cache.cached
    def price(sku: str) -> int:
        return rows[sku]

    with cache.hold([price.key("chair")]):
        assert price("chair") == 1
        rows["chair"] = 2
    assert price("chair") == 2


def test_key_is_that_of_events(cache: Cache[Any, Any]) -> None:
    """So a listener can tell whose results they are."""
    events: list[EntryEvent] = []

    @cache.cached
    def double(number: int) -> int:
        return 2 * number

    with cache.listen(events.append) as subscription:
        double(4)
        assert subscription.flush(PATIENCE)
    assert [(event.key, event.value) for event in events] == [(double.key(4), 8)]


def test_key_after_a_clear_is_another(cache: Cache[Any, Any]) -> None:
    """The results under the one before are out of reach."""

    @cache.cached
    def double(number: int) -> int:
        return 2 * number

    before = double.key(4)
    double.cache_clear()
    assert double.key(4) == double.key(4) != before
    assert double(4) == cache[double.key(4)]
    assert before not in cache


def test_key_of_methods_names_what_they_are_called_on(cache: Cache[Any, Any]) -> None:
    """Instances and classes; bound or not, it is the same."""

    class Shop:
        @cache.cached
        def price(self, sku: str) -> Any:
            return self, sku

        @cache.cached
        @classmethod
        def named(cls, sku: str) -> Any:
            return cls, sku

        @staticmethod
        @cache.cached
        def plain(sku: str) -> str:
            return sku

    one, two = Shop(), Shop()
    one.price("a")
    Shop.named("a")
    Shop.plain("a")
    assert cache[one.price.key("a")] == (one, "a")
    assert Shop.price.key(one, "a") == one.price.key("a") != two.price.key("a")
    assert cache[Shop.named.key("a")] == (Shop, "a")  # type: ignore[call-arg]  # see docs/decorators.md
    assert cache[Shop.plain.key("a")] == "a"
    assert one.named.key("a") == Shop.named.key("a")  # type: ignore[call-arg]  # the same
    assert Shop.named.invalidate("a")  # type: ignore[call-arg]  # the same


def test_key_of_a_coroutine_function_is_awaited(cache: Cache[Any, Any]) -> None:
    """As the rest of what may have to ask L2."""

    @cache.cached
    async def double(number: int) -> int:
        return 2 * number

    class Shop:
        @cache.cached
        async def price(self, sku: str) -> str:
            return sku

    async def main() -> None:
        shop = Shop()
        assert (await double(4), await shop.price("a")) == (8, "a")
        assert (cache[await double.key(number=4)], cache[await shop.price.key("a")]) == (8, "a")
        async with cache.aio.hold([await double.key(4)]):  # what is read now is not kept
            assert await double(4) == 8

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_key_of_arguments_that_can_be_none_is_refused(cache: Cache[Any, Any]) -> None:
    """As a call with them is, by name; and so is what the function does not take."""

    @cache.cached
    def total(rows: list[int]) -> int:
        return sum(rows)

    with pytest.raises(UnencodableKeyError, match="'rows'"):
        total.key([1])
    with pytest.raises(TypeError, match="positional argument"):
        total.key([1], 2)  # type: ignore[call-arg]  # that is the test


# -- ignore= -------------------------------------------------------------------------------------------------------


class Session(list[int]):
    """What cannot be part of a key."""


def test_ignored_argument_is_no_part_of_the_key(cache: Cache[Any, Any]) -> None:
    """Wherever it stands, given or left out; the function gets it all the same."""
    sessions = []

    @cache.cached(ignore=["session", "log"])
    def products(session: Session | None, shop: int, *, page: int = 1, log: Any = None) -> Any:
        sessions.append(session)
        return shop, page

    first, second = Session(), Session()
    assert products(first, 1) == products(second, 1) == products(session=second, shop=1, log=[]) == (1, 1)
    assert products(second, 1, page=2) == (1, 2)
    assert [each is first for each in sessions] == [True, False]
    assert products.key(None, 1) == products.key(first, shop=1, page=1)
    assert products.invalidate(None, 1)
    assert products.cache_info()[:2] == (2, 2)


@pytest.mark.parametrize("typed", [False, True])
def test_ignored_collection_of_arguments_is_no_part_of_the_key(cache: Cache[Any, Any], typed: bool) -> None:
    """All that it collects, whatever the types."""

    def f(a: int, *more: Any, **named: Any) -> list[Any]:
        return [a, more, named]

    by_name = cache.cached(ignore=["more"], typed=typed)(f)
    by_place = cache.cached(ignore=["named"], typed=typed)(f)
    assert by_name(1, [], 2, x=1) is by_name(1, x=1) is not by_name(1, x=2)
    assert by_place(1, 2, x=[]) is by_place(1, 2) is not by_place(1, 3)
    assert by_name.key(1) != by_name.key(2)


def test_ignored_self_makes_one_result_of_all_instances(cache: Cache[Any, Any]) -> None:
    """Which may be such as have no identity; other arguments of methods are ignored as those of functions."""

    class Shop:
        __slots__ = ()

        @cache.cached(ignore=["self"])
        def rate(self, currency: str) -> list[str]:
            return [currency]

        @classmethod
        @cache.cached(ignore=("session",))
        def named(cls, session: Session, name: str) -> list[Any]:
            return [cls, name]

    class Other(Shop):
        """Another class."""

    assert Shop().rate("EUR") is Shop().rate("EUR") is Shop.rate(Shop(), "EUR")
    assert Shop.named(Session(), "a") is Shop.named(Session(), "a")  # type: ignore[arg-type,call-arg]  # as above
    assert Other.named(Session(), "a") == [Other, "a"]  # type: ignore[arg-type,call-arg]  # as above


def test_ignored_argument_of_a_coroutine_function(cache: Cache[Any, Any]) -> None:
    """The same."""

    @cache.cached(ignore=["session"])
    async def product(id: int, session: Session | None = None) -> list[int]:
        return [id]

    async def main() -> None:
        assert await product(1, session=Session()) is await product(1, Session()) is await product(1)
        assert await product(2) == [2]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_argument_that_is_not_ignored_is_named_in_the_error(cache: Cache[Any, Any]) -> None:
    """And not the one before it."""
    total = cache.cached(ignore=["session"])(lambda session, rows: sum(rows))
    with pytest.raises(UnencodableKeyError, match="argument 'rows'"):
        total([], [1])


@pytest.mark.parametrize("ignored", [["sesion"], "session", ["session", 3], [["session"]], 5, None])
def test_ignoring_what_is_no_parameter_is_refused(cache: Cache[Any, Any], ignored: Any) -> None:
    """Where it is decorated; the parameters are named."""
    with pytest.raises(ConfigError, match=r"ignore=.*parameters, which are \(session, shop\)"):
        cache.cached(ignore=ignored)(lambda session, shop: shop)


def test_ignoring_beside_a_key_function_is_refused(cache: Cache[Any, Any]) -> None:
    """It says itself what counts."""
    with pytest.raises(ConfigError, match=r"ignore=.*key="):
        cache.cached(key=lambda session, shop: shop, ignore=["session"])(lambda session, shop: shop)
