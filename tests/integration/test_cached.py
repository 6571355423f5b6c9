"""``cache.cached`` behind real servers: shared between processes, coherent, fenced; what needs an identity says so."""

from __future__ import annotations

import asyncio
import functools
import math
import operator
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ConfigError, UnencodableKeyError
from support.redis import RedisServer
from support.waiting import wait_until

TIMEOUT = 20.0
pytestmark = pytest.mark.usefixtures("no_leaks")

calls: list[Any] = []


@pytest.fixture
def pair(redis_server: RedisServer) -> Iterator[tuple[Cache[Any, Any], Cache[Any, Any]]]:
    """Two caches of one namespace, as two processes have them."""
    calls.clear()
    with nearcache.open(redis_server.url) as one, nearcache.open(redis_server.url) as two:
        yield one, two


def price(sku: str, factor: int = 1, *, currency: str = "EUR") -> list[Any]:
    """A function at the top of a module, which all processes call by one name."""
    calls.append((sku, factor, currency))
    return [sku, factor, currency, len(calls)]


def name_of_class(kind: type) -> str:
    """A function of a class."""
    calls.append(kind)
    return kind.__name__


def kind_of(thing: object) -> str:
    """A function of anything."""
    return type(thing).__name__


def numbered(name: str) -> bytes:
    """A function of a cache whose codec takes bytes."""
    calls.append(name)
    return f"{name}{len(calls)}".encode()


async def echo(value: bytes) -> bytes:
    """A coroutine function of one."""
    return value


async def twice(function: Any, value: bytes) -> list[bytes]:
    """What two calls return."""
    return [await function(value), await function(value)]


class Product:
    """Identified by its number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> int:
        return self.number

    def stock(self, place: str) -> int:
        """Cached by the tests."""
        calls.append((self.number, place))
        return len(calls)

    @classmethod
    def named(cls, name: str) -> str:
        """Cached by the tests."""
        return f"{cls.__name__} {name}"


class Gift(Product):
    """Inherits what is cached, and says ``super()``."""

    def stock(self, place: str) -> int:
        """Cached by the tests."""
        return 100 + super().stock(place)


class Nobody:
    """Has no identity that another process could know."""

    def method(self) -> int:
        """Cached by the tests."""
        return 1


def on_both(pair: tuple[Cache[Any, Any], Cache[Any, Any]], function: Any, **options: Any) -> tuple[Any, Any]:
    """The function, decorated in each of two processes."""
    return pair[0].cached(**options)(function), pair[1].cached(**options)(function)


def test_cached_result_is_shared_between_processes(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """What one has called for, the other reads; arguments in any form."""
    one, two = on_both(pair, price)
    assert one("a", 2) == ["a", 2, "EUR", 1]
    assert two(factor=2, sku="a", currency="EUR") == ["a", 2, "EUR", 1]
    assert calls == [("a", 2, "EUR")]
    assert one.cache_info()[:2] == (0, 1)
    assert two.cache_info()[:2] == (1, 0)


def test_cached_invalidate_reaches_the_other_process(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """The copy in the other's memory goes; the next call there asks again. ``set`` and ``refresh`` likewise."""
    one, two = on_both(pair, price)
    one("a"), two("a")
    assert two.peek("a") == ["a", 1, "EUR", 1]
    assert one.invalidate("a") is True
    wait_until(lambda: two("a") == ["a", 1, "EUR", 2], TIMEOUT)
    two.set("mine", "a")
    wait_until(lambda: one("a") == "mine", TIMEOUT)
    assert two.refresh("a") == ["a", 1, "EUR", 3]
    wait_until(lambda: one("a") == ["a", 1, "EUR", 3], TIMEOUT)


def test_cached_clear_reaches_the_other_process_and_no_other_function(
    pair: tuple[Cache[Any, Any], Cache[Any, Any]],
) -> None:
    """By one write. Another version of the function is another function."""
    one, two = on_both(pair, price)
    other = pair[1].cached(version=2)(price)
    assert (one("a")[3], two("a")[3], other("a")[3]) == (1, 1, 2)
    one.cache_clear()
    assert one("a")[3] == 3
    wait_until(lambda: two("a")[3] == 3, TIMEOUT)
    assert other("a")[3] == 2


def test_cached_lost_generation_never_brings_old_results_back(
    pair: tuple[Cache[Any, Any], Cache[Any, Any]],
) -> None:
    """When the entry that says which results count is evicted, none do."""
    one, two = on_both(pair, price)
    one("a")
    pair[1].invalidate((one._plan.name,))
    wait_until(lambda: two("a")[3] == 2 and one("a")[3] == 2, TIMEOUT)


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "raw"},
        {"codec": "msgspec", "type": bytes},
        {"codec": "raw", "isolation": "copy", "compress": "zlib", "compress_above": 0, "signing_keys": "00" * 16},
    ],
    ids=["raw", "typed", "signed copies"],
)
def test_cached_function_takes_any_codec(redis_server: RedisServer, options: dict[str, Any]) -> None:
    """What tells a function's results from older ones is text, and goes past a codec that takes none."""
    calls.clear()
    with nearcache.open(redis_server.url, **options) as one, nearcache.open(redis_server.url, **options) as two:
        mine, other = one.cached(numbered), two.cached(numbered)
        assert (mine("a"), mine("a"), other("a")) == (b"a1", b"a1", b"a1")
        mine.cache_clear()
        assert mine("a") == b"a2"
        wait_until(lambda: other("a") == b"a2", TIMEOUT)


def test_cached_coroutine_function_takes_any_codec(redis_server: RedisServer) -> None:
    """Likewise."""
    with nearcache.open(redis_server.url, codec="raw") as cache:
        assert asyncio.run(twice(cache.cached(echo), b"b")) == [b"b", b"b"]


def test_cached_generation_of_an_older_release_counts(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """It was a value like any other, and what was kept under it is found."""
    one, two = on_both(pair, price)
    pair[0].set((one._plan.name,), "0123456789abcdef", ttl=None)
    pair[0].set((one._plan.name, "0123456789abcdef", "a", 1, "EUR"), "kept")
    assert (one("a"), two("a")) == ("kept", "kept")


def test_cached_clear_passes_on_a_full_server(redis_server: RedisServer) -> None:
    """As every invalidation does: it takes no room. For tasks as well."""
    with nearcache.open(redis_server.url) as cache:
        calls.clear()
        kept = cache.cached(price)
        task = cache.cached(version="of tasks")(echo)
        assert kept("a")[3] == 1
        assert asyncio.run(twice(task, b"a")) == [b"a", b"a"]
        redis_server.cli("CONFIG", "SET", "maxmemory", "1")
        try:
            kept.cache_clear()
            asyncio.run(task.cache_clear())
            assert kept("a")[3] == 2
        finally:
            redis_server.cli("CONFIG", "SET", "maxmemory", "0")


def test_cached_call_that_began_before_a_clear_is_not_found_after_it(
    pair: tuple[Cache[Any, Any], Cache[Any, Any]],
) -> None:
    """Its result is kept, if at all, where nobody looks. Those who draw the next generation at once agree on it."""
    entered, gate = threading.Event(), threading.Event()

    def slow(sku: str) -> int:
        calls.append(sku)
        if len(calls) == 1:
            entered.set()
            assert gate.wait(TIMEOUT)
            return 1
        return 2

    one, two = on_both(pair, slow, version="slow")
    thread = threading.Thread(target=one, args=("a",))
    thread.start()
    assert entered.wait(TIMEOUT)
    two.cache_clear()
    gate.set()
    thread.join(TIMEOUT)
    assert two("a") == 2
    wait_until(lambda: one("a") == 2, TIMEOUT)
    assert calls == ["a", "a"]


def test_cached_invalidation_during_the_call_keeps_its_result_out(
    pair: tuple[Cache[Any, Any], Cache[Any, Any]],
) -> None:
    """Late fill: what was computed before an invalidation is not kept after it."""
    entered, gate = threading.Event(), threading.Event()

    def slow() -> int:
        calls.append(1)
        entered.set()
        assert gate.wait(TIMEOUT)
        return len(calls)

    one, two = on_both(pair, slow, version="slow")
    thread = threading.Thread(target=one)
    thread.start()
    assert entered.wait(TIMEOUT)
    two.invalidate()
    gate.set()
    thread.join(TIMEOUT)
    assert two() == 2


def test_cached_method_needs_an_identity_that_others_know(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """``__cache_key__`` or ``key=``; an instance as such is refused, by name and with the remedies."""
    one, two = on_both(pair, Product.stock)

    class Here(Product):
        stock = one

    class There(Product):
        stock = two

    There.__qualname__ = Here.__qualname__  # the same class in another process
    assert Here(1).stock("x") == There(1).stock("x") == 1
    assert Here(2).stock("x") == 2
    assert Here(1).stock.invalidate("x") is True
    Nobody.cached = pair[0].cached(Nobody.method)  # type: ignore[attr-defined]  # put there by hand
    with pytest.raises(UnencodableKeyError, match=r"Nobody.method is called on an instance.*__cache_key__.*key="):
        Nobody().cached()  # type: ignore[attr-defined]  # as above
    keyed = pair[0].cached(key=lambda self: 5)(Nobody.method)
    assert keyed.__get__(Nobody())() == 1


def test_cached_bound_method_is_told_by_what_it_is_bound_to(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """A method that an instance has decorated for itself has the name of all instances' methods."""

    def bound(number: int) -> tuple[Any, Any]:
        return on_both(pair, Product(number).stock)

    (one, two), (other, _) = bound(1), bound(2)
    assert [one("x"), two("x"), other("x")] == [1, 1, 2]
    held = len(pair[1])
    assert one.invalidate("x") is True
    wait_until(lambda: len(pair[1]) < held)  # or the other process may still serve it
    twice, _ = on_both(pair, two)  # one that is cached already
    assert [twice("x"), other("x")] == [3, 2]
    with pytest.raises(UnencodableKeyError, match=r"Nobody.method is called on an instance.*__cache_key__.*key="):
        pair[0].cached(Nobody().method)()


def test_cached_bound_class_method_is_told_by_its_class(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """As it is when the class method is decorated."""
    assert [pair[0].cached(kind.named)("x") for kind in (Product, Gift)] == ["Product x", "Gift x"]


def test_cached_class_goes_by_its_name(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """A class at the top of a module has one; one made in a function has not."""
    one, two = on_both(pair, name_of_class)
    assert one(Product) == two(Product) == "Product"
    assert calls == [Product]

    class Local:
        pass

    with pytest.raises(UnencodableKeyError, match="made in a function"):
        one(Local)


@pytest.mark.parametrize("typed", [False, True])
def test_cached_class_is_another_argument_than_the_text_of_its_name(
    pair: tuple[Cache[Any, Any], Cache[Any, Any]], typed: bool
) -> None:
    """Though its name stands for it in the key."""
    cached = pair[0].cached(typed=typed)(kind_of)
    assert [cached(Gift), cached(f"{__name__}.Gift"), cached(Gift)] == ["type", "str", "type"]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (object(), "object cannot be part"),
        ([1], "list cannot be part"),
        ((1, [1]), "list cannot be part"),
        ("x" * 70_000, "65,536 bytes"),
        (("x" * 70_000,), "65,536 bytes"),
        (math.nan, "NaN is not equal to itself"),
    ],
)
def test_cached_argument_that_cannot_be_encoded_is_named(
    pair: tuple[Cache[Any, Any], Cache[Any, Any]], argument: Any, reason: str
) -> None:
    """The error says which argument, why, and what helps; the function is not called."""
    with pytest.raises(UnencodableKeyError, match=rf"argument 'factor' of .*price.*{reason}.*cached\(key=") as caught:
        pair[0].cached(price)("a", argument)
    assert caught.value.key is argument
    assert calls == []


def test_cached_arguments_too_long_together_are_refused(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """Each would do; the longest is named."""
    with pytest.raises(UnencodableKeyError, match=r"65,536 bytes together, most of them 'currency'"):
        pair[0].cached(price)("a" * 30_000, currency="b" * 40_000)


def test_cached_function_without_a_name_of_its_own_is_refused(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """A lambda, a partial or a closure might be mixed up with another; ``version=`` may tell them apart."""
    n = 5
    partials = [functools.update_wrapper(functools.partial(price, sku), price) for sku in "ab"]
    for function in (lambda x: x, lambda x: x * n, *partials, functools.partial(price, "c")):
        with pytest.raises(ConfigError, match="version="):
            pair[0].cached(function)
    with pytest.raises(ConfigError, match="__qualname__"):
        pair[0].cached(operator.itemgetter(0))
    assert pair[0].cached(version="times five")(lambda x: x * n)(2) == 10
    of_c = pair[0].cached(version="of c")(functools.partial(price, "c"))
    assert of_c(2) == of_c(2) == ["c", 2, "EUR", 1]
    assert of_c._plan.name == f"{__name__}.price@of c"


def test_cached_over_another_decorator_is_refused_with_what_helps(
    pair: tuple[Cache[Any, Any], Cache[Any, Any]],
) -> None:
    """What it returns has the name of the function inside, and another decorator's would have it too."""

    def logged(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    with pytest.raises(ConfigError, match=r"what another decorator returns.*put cached below.*version="):
        pair[0].cached(logged(price))
    assert pair[0].cached(version="logged")(logged(price))("a") == ["a", 1, "EUR", 1]
    assert logged(pair[0].cached(price))("b") == ["b", 1, "EUR", 2]


def test_cached_method_may_name_its_class(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """``super()`` and ``__class__`` are variables around a method, and go by its name. In a class that is made in a
    function they do not.
    """
    one, two = on_both(pair, Gift.stock)
    assert (one(Gift(1), "x"), two(Gift(1), "x"), one(Gift(2), "x")) == (101, 101, 102)

    class Local(Product):
        def stock(self, place: str) -> int:
            return super().stock(place)

    with pytest.raises(ConfigError, match="version="):
        pair[0].cached(Local.stock)


def test_cached_dead_server_calls_the_function(redis_server: RedisServer) -> None:
    """A shard that is down costs the cache, not the answer."""
    calls.clear()
    with nearcache.open(redis_server.url, timeout=0.3, connect_timeout=0.3) as cache:
        cached = cache.cached(price)
        redis_server.stop()
        assert cached("a") == ["a", 1, "EUR", 1]


async def fetch(x: int) -> list[int]:
    """A coroutine function at the top of a module."""
    calls.append(x)
    await asyncio.sleep(0)
    return [x, len(calls)]


def test_coroutine_results_are_shared_and_coherent(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """Two processes' loops: one call, and an invalidation that both see."""
    one, two = on_both(pair, fetch)

    async def main() -> None:
        assert [await one(1) for _ in range(3)] == [[1, 1]] * 3
        assert await asyncio.gather(*(two(1) for _ in range(5))) == [[1, 1]] * 5
        assert await two.invalidate(1) is True
        await two.cache_clear()
        deadline = asyncio.get_running_loop().time() + TIMEOUT
        while (await one(1))[1] == 1:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(main())
    assert calls == [1, 1]


def test_ignored_argument_may_be_what_no_process_could_name(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """The result is the same for all of them."""
    one, two = (cache.cached(ignore=["factor"])(price) for cache in pair)
    assert one("a", [1]) == ["a", [1], "EUR", 1]  # type: ignore[arg-type]  # as is that
    assert two("a", object()) == ["a", [1], "EUR", 1]  # type: ignore[arg-type]  # it cannot be encoded


def test_key_of_a_call_is_one_in_all_processes(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """Until a clear anywhere; a hold of it, anywhere, keeps off what was read before a change."""
    one, two = on_both(pair, price)
    key = one.key("a")
    assert key == two.key(sku="a")
    with pair[1].hold([key]):
        assert one("a") == ["a", 1, "EUR", 1]
        assert pair[0].get(key) is None
    assert one("a") == pair[1][key] == ["a", 1, "EUR", 2]
    assert pair[1].touch(key, 500)
    two.cache_clear()
    wait_until(lambda: one.key("a") != key)
    assert one.key("a") == two.key("a")


def test_key_of_a_coroutine_function_is_one_in_all_processes(pair: tuple[Cache[Any, Any], Cache[Any, Any]]) -> None:
    """What a clear changes is asked for without holding up the loop."""
    one, two = on_both(pair, fetch)

    async def main() -> None:
        key = await one.key(1)
        assert await two(1) == await pair[0].aio.get(key) == [1, 1]

    asyncio.run(main())


def test_coroutine_blocking_network_leaves_the_loop_free(redis_server: RedisServer) -> None:
    """While a server keeps silent, other tasks go on."""
    calls.clear()
    with nearcache.open(redis_server.url, timeout=2.0) as cache:
        cached = cache.cached(fetch)

        async def main() -> None:
            turns = 0
            redis_server.pause()
            try:
                call = asyncio.create_task(cached(1))
                while turns < 20:  # as many turns of the loop as the call could not have allowed
                    await asyncio.sleep(0.01)
                    turns += 1
                assert not call.done()
            finally:
                redis_server.resume()
            assert (await call)[0] == 1

        asyncio.run(main())


def test_coroutine_function_is_refused_where_tasks_would_share_a_value(redis_server: RedisServer) -> None:
    """``isolation="copy"`` has no ``aio``."""
    with (
        nearcache.open(redis_server.url, isolation="copy") as cache,
        pytest.raises(nearcache.ConfigError, match="isolation"),
    ):

        @cache.cached(version=1)
        async def f() -> None: ...
