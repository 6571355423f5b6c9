"""``cache.cached`` on a ``memory://`` cache: keys, methods, options, the surface, errors."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import nearcache
from nearcache import Cache, ConfigError, LoadCycleError, MemoryCache, UnencodableKeyError
from nearcache.cache.functions.calls import Instances
from support.threads import together


@pytest.fixture
def cache() -> Cache[Any, Any]:
    """A cache of this process."""
    return nearcache.open("memory://", maxsize=1000)


class Counted:
    """A function, and the calls that reached it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.function = function

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        self.calls.append((args, keywords))
        return self.function(*args, **keywords)


# -- arguments -------------------------------------------------------------------------------------------------------


def test_annotations_are_those_of_the_function(cache: Cache[Any, Any]) -> None:
    """Not those of the object in its place."""

    def load(x: int) -> str:
        return str(x)

    assert inspect.get_annotations(cache.cached(load)) == inspect.get_annotations(load) == {"x": "int", "return": "str"}


def test_cached_arguments_given_in_any_way_are_one_key(cache: Cache[Any, Any]) -> None:
    """By position or by name, defaults given or left out."""
    calls = []

    @cache.cached
    def f(a: int, b: int = 2, *, c: int = 3) -> int:
        calls.append((a, b, c))
        return a + b + c

    assert {f(1), f(1, 2), f(a=1), f(b=2, a=1), f(1, c=3, b=2)} == {6}
    assert calls == [(1, 2, 3)]
    assert f(1, 3) == 7
    assert f.cache_info() == (4, 2, 1000, 2)


def test_cached_variable_arguments_are_part_of_the_key(cache: Cache[Any, Any]) -> None:
    """``*args`` and ``**keywords`` count; the order of keywords counts, since a function can see it."""

    @cache.cached
    def f(a: int, /, *more: int, **named: int) -> Any:
        return a, more, list(named.items())

    assert f(1) == (1, (), [])
    assert f(1, 2) == (1, (2,), [])
    assert f(1, a=2) == (1, (), [("a", 2)])
    assert f(1, x=1, y=2) == (1, (), [("x", 1), ("y", 2)])
    assert f(1, y=2, x=1) == (1, (), [("y", 2), ("x", 1)])
    assert f.cache_info().misses == 5
    assert f(1, x=1, y=2) == (1, (), [("x", 1), ("y", 2)])
    assert f.cache_info().hits == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b=1, /, c=2, *d, e, f=3, **g: (a, b, c, d, e, f, g),
        lambda a, b, /: (a, b),
        lambda a, *, e=1: (a, e),
        lambda *, e: e,
        lambda *d, **g: (d, g),
        lambda: 0,
        lambda _default0_, items=(), _default1_=None: (_default0_, items, _default1_),
    ],
)
def test_cached_any_signature_takes_what_the_function_takes(cache: Cache[Any, Any], function: Any) -> None:
    """What the function refuses is refused as the function does, and all else arrives as it was given."""
    cached = cache.cached(function)
    for args in [(), (1,), (1, 2), (1, 2, 3, 4)]:
        for keywords in [{}, {"e": 5}, {"e": 5, "c": 6}, {"z": 7}, {"a": 8}]:
            try:
                wanted = function(*args, **keywords)
            except TypeError:
                with pytest.raises(TypeError):
                    cached(*args, **keywords)
            else:
                assert cached(*args, **keywords) == wanted
                assert cached(*args, **keywords) == wanted


def test_cached_equal_arguments_of_other_types_are_apart_if_typed(cache: Cache[Any, Any]) -> None:
    """1, 1.0 and True are one key, unless ``typed``, where ``*`` and ``**`` count as well."""

    def f(*args: Any, **keywords: Any) -> str:
        return repr((args, keywords))

    plain, typed = cache.cached(f), cache.cached(typed=True)(f)
    assert plain(1) == plain(1.0) == plain(True) == "((1,), {})"
    assert (typed(1), typed(1.0), typed(x=1), typed(x=True)) == (f(1), f(1.0), f(x=1), f(x=True))


def test_cached_key_function_stands_for_the_arguments(cache: Cache[Any, Any]) -> None:
    """It gets them as they were given, and its result is the key."""
    calls = []

    @cache.cached(key=lambda rows, name="x": (len(rows), name))
    def f(rows: list[int], name: str = "x") -> int:
        calls.append(rows)
        return sum(rows)

    assert f([1, 2]) == f([5, 5]) == f([1, 2], name="x") == 3
    assert f([1]) == 1
    assert calls == [[1, 2], [1]]


def test_cached_argument_that_cannot_be_a_key_is_named(cache: Cache[Any, Any]) -> None:
    """The error says which argument of which function, and what helps; the function is not called."""
    counted = Counted(lambda a, rows: 0)

    @cache.cached
    def f(a: int, rows: Any) -> Any:
        return counted(a, rows)

    with pytest.raises(UnencodableKeyError, match=r"argument 'rows' of .*f#\d+ cannot be .*unhashable.*cached\(key="):
        f(1, rows=[1])
    with pytest.raises(UnencodableKeyError, match=r"what key= of .* returned"):
        cache.cached(key=list)(lambda: 0)()
    assert counted.calls == []


# -- results ---------------------------------------------------------------------------------------------------------


def test_cached_none_is_a_value(cache: Cache[Any, Any]) -> None:
    """A result of None is kept."""
    counted = Counted(lambda: None)
    f = cache.cached(lambda: counted())
    assert f() is f() is None
    assert len(counted.calls) == 1
    assert f.peek() is None


def test_cached_exception_reaches_the_caller_and_is_not_kept(cache: Cache[Any, Any]) -> None:
    """The very object, every time anew."""
    failures = [KeyError("a"), TypeError("b"), LookupError("c")]

    @cache.cached
    def f() -> None:
        raise failures.pop()

    for _ in range(3):
        wanted = failures[-1]
        with pytest.raises(type(wanted)) as caught:
            f()
        assert caught.value is wanted
    assert f.cache_info() == (0, 3, 1000, 0)


def test_cached_unless_keeps_a_result_out(cache: Cache[Any, Any]) -> None:
    """It is returned all the same."""
    counted = Counted(lambda x: x)
    f = cache.cached(unless=lambda result: result < 0)(lambda x: counted(x))
    assert [f(-1), f(-1), f(1), f(1)] == [-1, -1, 1, 1]
    assert len(counted.calls) == 3
    assert f.cache_info() == (1, 3, 1000, 1)


def test_cached_recursion_works_and_a_circle_is_an_error(cache: Cache[Any, Any]) -> None:
    """Other arguments are other keys; the same ones would never end, and the chain is shown."""

    @cache.cached
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    @cache.cached
    def circle(n: int) -> int:
        return circle((n + 1) % 3)

    assert fib(60) == 1548008755920
    assert fib.cache_info().misses == 61
    with pytest.raises(LoadCycleError):
        circle(0)


def test_cached_recursion_of_eighty_levels_fits_the_usual_limit(cache: Cache[Any, Any]) -> None:
    """A level takes eleven frames."""

    @cache.cached
    def count(n: int) -> int:
        return 1 + count(n - 1) if n else 0

    found: list[int] = []
    together(lambda _number: found.append(count(80)), 1)  # in a thread, whose stack begins there
    assert found == [80]


def test_cached_many_threads_one_call(cache: Cache[Any, Any]) -> None:
    """Whoever misses while the function runs gets its result."""
    calls = []

    @cache.cached
    def f(x: int) -> int:
        calls.append(x)
        return x

    together(lambda number: [f(x) for x in range(50)], 4)
    assert sorted(calls) == list(range(50))
    assert sum(f.cache_info()[:2]) == 200


def test_cached_ttl_is_that_of_the_results(cache: Cache[Any, Any]) -> None:
    """A lifetime of its own, and None for no end."""
    cache.l1_set_clock(10**9)
    f = cache.cached(ttl=5)(dict)
    first = f()
    cache.l1_set_clock(5 * 10**9)
    assert f() is first
    assert cache.cached(ttl=None)(abs).cache_parameters()["ttl"] is None


# -- methods ---------------------------------------------------------------------------------------------------------


class Shop:
    """Its methods are cached by the fixture ``shop``."""

    def __init__(self, name: str) -> None:
        self.name = name


def shop_of(cache: Cache[Any, Any]) -> Any:
    """A class with cached methods of every kind."""

    class Store(Shop):
        calls: list[Any]

        @cache.cached
        def price(self, sku: str, factor: int = 1) -> str:
            """The price."""
            self.calls.append((self.name, sku))
            return f"{self.name}:{sku}:{factor}"

        @classmethod
        @cache.cached
        def inner(cls, x: int) -> tuple[str, int]:
            return cls.__name__, x

        @cache.cached
        @classmethod
        def outer(cls, x: int) -> tuple[str, int]:
            return cls.__name__, x

        @staticmethod
        @cache.cached
        def static(x: int) -> list[int]:
            return [x]

        @cache.cached
        @staticmethod
        def static_too(x: int) -> list[int]:
            return [x]

    Store.calls = []
    return Store


def test_cached_method_keeps_instances_apart(cache: Cache[Any, Any]) -> None:
    """By identity, also through the class; equal instances are not one."""
    kind = shop_of(cache)
    one, two = kind("one"), kind("two")
    assert one.price("a") == one.price(sku="a") == kind.price(one, "a", 1) == "one:a:1"
    assert two.price("a") == "two:a:1"
    assert kind.calls == [("one", "a"), ("two", "a")]
    assert one.price.peek("a") == "one:a:1"
    assert one.price.invalidate("a") is True
    with pytest.raises(KeyError):
        kind.price.peek(one, "a")
    assert two.price.peek("a") == "two:a:1"
    one.price.set("free", "a")
    assert one.price("a") == "free"
    assert one.price.refresh("a") == "one:a:1"
    assert one.price.cache_info() == kind.price.cache_info()
    assert one.price == one.price != two.price
    assert one.price.__doc__ == "The price."


def test_cached_methods_without_an_instance_work_in_either_order(cache: Cache[Any, Any]) -> None:
    """classmethod and staticmethod may stand above or below; a subclass is another class."""
    kind = shop_of(cache)

    class Sub(kind):
        pass

    for name in ("inner", "outer"):
        assert getattr(kind, name)(1) == getattr(kind("x"), name)(1) == ("Store", 1)
        assert getattr(Sub, name)(1) == ("Sub", 1)
        assert getattr(kind, name).cache_info()[:2] == (1, 2)
    for name in ("static", "static_too"):
        assert getattr(kind, name)(1) is getattr(kind("x"), name)(x=1)


def test_cached_method_holds_no_instance(cache: Cache[Any, Any]) -> None:
    """An instance dies at once when its last user lets go of it, though its results are still there."""
    kind = shop_of(cache)
    shop = kind("one")
    shop.price("a")
    ref = weakref.ref(shop)
    gc.disable()
    try:
        del shop
        assert ref() is None
    finally:
        gc.enable()
    again = kind("another")  # perhaps at the same address
    assert again.price("a") == "another:a:1"


def test_instances_thousands_come_and_go_numbers_never_come_again() -> None:
    """An address is used again, a number is not, and nothing is left behind."""
    instances = Instances()
    numbers = set()
    for _ in range(2000):
        shop = Shop("x")
        numbers.add(instances.number(shop))
        assert instances.number(shop) in numbers
        del shop
    assert len(numbers) == 2000
    assert len(instances) == 0


def test_cached_method_of_what_has_a_cache_key_goes_by_it(cache: Cache[Any, Any]) -> None:
    """``__cache_key__`` identifies the instance, within its class."""

    class User:
        __slots__ = ("number",)

        def __init__(self, number: int) -> None:
            self.number = number

        def __cache_key__(self) -> int:
            return self.number

        @cache.cached
        def name(self) -> list[int]:
            return [self.number]

    class Admin(User):
        pass

    assert User(1).name() is User(1).name() is not User(2).name()
    assert Admin(1).name() is not User(1).name()


def test_cached_method_of_what_has_no_identity_is_refused(cache: Cache[Any, Any]) -> None:
    """An instance that cannot be referred to weakly would have to be held; the message says what to add."""

    class Tight:
        __slots__ = ()

        @cache.cached
        def method(self) -> int:
            return 1

        @cache.cached(key=lambda self: "tight")
        def keyed(self) -> int:
            return 2

    with pytest.raises(UnencodableKeyError, match="__weakref__"):
        Tight().method()
    assert Tight().keyed() == 2


# -- the surface -----------------------------------------------------------------------------------------------------


def test_cached_surface_is_that_of_functools_and_more(cache: Cache[Any, Any]) -> None:
    """Names, docs, signature and counts are those of the function."""

    def f(x: int, log: object = None, who: object = None) -> int:
        """Doc."""
        return x

    cached: Any = cache.cached(ttl=60, version=3, ignore={"who", "log"})(f)
    theirs = functools.lru_cache(f)
    assert {name for name in dir(theirs) if not name.startswith("__")} <= set(dir(cached))
    assert cached.cache_info()._fields == theirs.cache_info()._fields
    assert (cached.__name__, cached.__doc__, cached.__wrapped__) == ("f", "Doc.", f)
    assert inspect.signature(cached) == inspect.signature(f)
    wanted = {"maxsize": 1000, "typed": False, "ttl": 60.0, "tags": (), "version": 3, "ignore": ("log", "who")}
    assert cached.cache_parameters() == wanted


def test_cached_clear_forgets_this_function_alone(cache: Cache[Any, Any]) -> None:
    """In O(1): by a new generation. Counts begin anew; what others hold stays."""
    f, g = cache.cached(lambda x: [x]), cache.cached(lambda x: [x])
    first, other = f(1), g(1)
    f.cache_clear()
    assert f.cache_info() == (0, 0, 1000, 0)
    assert f(1) is not first
    assert g(1) is other


def test_cached_refresh_calls_and_replaces(cache: Cache[Any, Any]) -> None:
    """The new result is what everybody gets from then on; one that ``unless`` turns away leaves nothing."""
    values = [1, 2, -3]
    f = cache.cached(unless=lambda value: value < 0)(lambda: values.pop(0))
    assert (f(), f(), f.refresh(), f()) == (1, 1, 2, 2)
    assert f.refresh() == -3
    with pytest.raises(KeyError):
        f.peek()


def test_cached_two_functions_of_one_name_do_not_mix(cache: Cache[Any, Any]) -> None:
    """A function made anew has results of its own."""

    def make(n: int) -> Any:
        @cache.cached
        def f(x: int) -> int:
            return x * n

        return f

    assert make(2)(10) == 20
    assert make(3)(10) == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ttl": -1}, "ttl=-1"),
        ({"key": 5}, "key=5"),
        ({"unless": 5}, "unless=5"),
        ({"unless": asyncio.sleep}, "unless=.*nobody awaits"),
        ({"typed": True, "key": str}, "typed=True.*key="),
        ({"typed": 1}, "typed=1"),
        ({"version": 1.5}, "version=1.5"),
        ({"tags": "one"}, "tags='one'"),
        ({"tags": [1]}, r"tags=\[1\]"),
    ],
)
def test_cached_bad_option_is_refused_by_name(cache: Cache[Any, Any], options: Any, message: str) -> None:
    """At the decoration, with its value."""
    with pytest.raises(ConfigError, match=message):
        cache.cached(**options)(abs)


def test_cached_what_cannot_be_cached_is_refused(cache: Cache[Any, Any]) -> None:
    """At the decoration: no callable, a generator, a cache with another idea of keys."""

    def generator() -> Any:
        yield 1

    with pytest.raises(TypeError, match="cannot decorate 5"):
        cache.cached(5)
    with pytest.raises(TypeError, match="generator"):
        cache.cached(generator)
    with pytest.raises(ConfigError, match="key="):
        MemoryCache(key=str).cached(abs)


def test_cached_tags_forget_the_results_of_all_that_have_them(cache: Cache[Any, Any]) -> None:
    """Loaded or set, whatever function they are of; what has other tags stays."""
    one = cache.cached(tags=["a", "b"])(lambda x: [x])
    two, three = cache.cached(tags=("b",))(lambda x: [x]), cache.cached(tags=["c"])(lambda x: [x])
    before = [one(1), two(1), three(1)]
    one.set("set", 2)
    assert [one(1), two(1), three(1), one(2)] == [*before, "set"]
    cache.invalidate_tag("b")
    assert one(1) is not before[0]
    assert two(1) is not before[1]
    assert three(1) is before[2]
    assert one(2) == [2]


def test_cached_closed_cache_says_so(cache: Cache[Any, Any]) -> None:
    """After close, a call is an error that says why."""
    f = cache.cached(lambda: 1)
    cache.close()
    with pytest.raises(nearcache.ClosedError):
        f.invalidate()
