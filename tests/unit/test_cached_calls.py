"""``cache.cached``: calls in every form, with every kind of arguments, find what was kept for equal ones."""

from __future__ import annotations

import gc
import math
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nearcache
from nearcache import Cache, UnencodableKeyError
from nearcache._results import BoundResults, Results
from support.redis import RedisServer

SIMPLE = st.one_of(
    st.integers(-(2**70), 2**70), st.text(max_size=3), st.floats(allow_nan=False), st.none(), st.binary()
)
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@pytest.fixture
def cache() -> Cache[Any, Any]:
    """A cache of this process."""
    return nearcache.open("memory://", maxsize=10_000)


class Calls:
    """A function that notes how it is called."""

    def __init__(self) -> None:
        self.made: list[Any] = []

    def note(self, *what: Any) -> Any:
        """Note a call, and return it."""
        self.made.append(what)
        return what


def again(value: Any) -> Any:
    """Return what is equal, and not the same object."""
    return pickle.loads(pickle.dumps(value))


@given(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=6))
def test_equal_arguments_are_one_call_in_every_form(rows: list[tuple[Any, Any, Any]]) -> None:
    """By place, by name, with defaults left out, the same objects or equal ones: the function is called once."""
    cache: Cache[Any, Any] = nearcache.open("memory://", maxsize=10_000)
    calls = Calls()

    class Shop:
        @cache.cached
        def price(self, a: Any, b: Any = 0, *, c: Any = None) -> Any:
            return calls.note("method", a, b, c)

    @cache.cached
    def plain(a: Any, b: Any, c: Any) -> Any:
        return calls.note("plain", a, b, c)

    @cache.cached
    def open_ended(a: Any, *rest: Any, **more: Any) -> Any:
        return calls.note("open", a, rest, tuple(more.items()))

    @cache.cached(key=lambda *args: args[::-1])
    def by_key(a: Any, b: Any, c: Any) -> Any:
        return calls.note("key", a, b, c)

    shop = Shop()
    for _ in range(2):
        for a, b, c in [*rows, *again(rows)]:
            assert plain(a, b, c) == plain(a, c=c, b=b) == ("plain", a, b, c)
            assert shop.price(a, b, c=c) == shop.price(b=b, a=a, c=c) == ("method", a, b, c)
            assert Shop.price(shop, a) == shop.price(a, 0) == ("method", a, 0, None)
            assert open_ended(a, b, d=c) == ("open", a, (b,), (("d", c),))
            assert by_key(a, b, c) == ("key", a, b, c)
    assert len(calls.made) == len(set(calls.made))
    info = plain.cache_info()
    assert (info.hits, info.misses) == (8 * len(rows) - info.currsize, info.currsize)


def test_what_is_equal_and_of_another_type_is_one_argument(cache: Cache[Any, Any]) -> None:
    """As in any mapping; only NaN is equal to nothing but itself."""
    calls = Calls()

    @cache.cached
    def double(a: Any, b: Any) -> Any:
        return calls.note(a, b)

    nan = math.nan
    for one in (1, 1.0, True, 1 + 0j):
        double(one, (one, ("x", one)))
    double(nan, 0)
    double(nan, -0.0)
    assert len(calls.made) == 2
    double(float("nan"), 0)
    assert len(calls.made) == 3


def test_arguments_with_eq_of_their_own_are_asked(cache: Cache[Any, Any]) -> None:
    """Also those whose hash is that of a str or of any object."""

    class Folded(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return isinstance(other, str) and other.lower() == self.lower()

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Point) and other.x == self.x

        def __hash__(self) -> int:
            return hash(self.x)

    calls = Calls()

    @cache.cached
    def found(a: Any, b: Any = 0) -> Any:
        return calls.note(a, b)

    for point in (Point(1), Point(1), Point(2)):
        found(point, 5)
    assert len(calls.made) == 2
    found("abc", 1)
    assert found(Folded("abc"), 1) == ("abc", 1)
    assert len(calls.made) == 3


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 12, 13, 40])
def test_any_number_of_arguments(cache: Cache[Any, Any], count: int) -> None:
    """Few are dealt with where many are not."""
    calls = Calls()
    names = [f"a{number}" for number in range(count)]
    source = f"lambda {', '.join(names)}: note({', '.join(names)})"
    function: Any = cache.cached(eval(source, {"note": calls.note}))
    kind = type("Kind", (), {"method": cache.cached(eval("lambda self, *args: note(*args)", {"note": calls.note}))})
    values = tuple(range(count))
    for _ in range(3):
        assert function(*values) == function(**dict(zip(names, values, strict=True))) == values
    assert len(calls.made) == 1
    thing = kind()
    for _ in range(3):
        assert thing.method(*values) == values
    assert len(calls.made) == 2


def test_wrong_calls_and_arguments_that_are_no_keys_raise_as_ever(cache: Cache[Any, Any]) -> None:
    """What the function would say of a wrong call, and which argument it is."""

    @cache.cached
    def price(sku: str, currency: str = "EUR") -> str:
        return sku + currency

    for wrong in (lambda: price(), lambda: price("a", "b", "c"), lambda: price("a", other=1)):
        with pytest.raises(TypeError, match=r"price\(\)"):
            wrong()
    for unfit in (lambda: price(["a"]), lambda: price(sku=["a"]), lambda: price("a", ([],))):
        with pytest.raises(UnencodableKeyError, match=r"'(sku|currency)' of"):
            unfit()
    assert price.cache_info()[:2] == (0, 0)


def test_key_function_is_asked_once_a_call_and_may_raise(cache: Cache[Any, Any]) -> None:
    """Its error is the caller's; so is one about what it returns."""
    asked: list[Any] = []

    def key(self: Any, user: Any, *, kind: str = "") -> Any:
        asked.append(user)
        return user["id"]

    class Users:
        @cache.cached(key=key)
        def name(self, user: dict[str, Any], *, kind: str = "") -> str:
            return str(user["name"])

    users = Users()
    for name in ("Ann", "Bob"):
        assert users.name({"id": 1, "name": name}, kind="x") == "Ann"
    assert len(asked) == 2
    with pytest.raises(KeyError, match="id"):
        users.name({"name": "Eve"})
    with pytest.raises(UnencodableKeyError, match="key="):
        users.name({"id": [], "name": "Eve"})


@pytest.mark.parametrize("shared", [False, True])
def test_instances_are_told_apart_by_what_they_say(redis_server: RedisServer, shared: bool) -> None:
    """``__cache_key__`` is asked each time, of the class as it is now; subclasses are other classes."""
    cache: Cache[Any, Any] = nearcache.open(redis_server.url if shared else "memory://")
    calls = Calls()

    class User:
        def __init__(self, number: int) -> None:
            self.number = number

        def __cache_key__(self) -> int:
            return self.number

        @cache.cached(version=1)
        def name(self, title: str) -> Any:
            return calls.note(type(self).__name__, self.number, title)

    class Admin(User):
        pass

    with cache:
        one, two, admin = User(1), User(2), Admin(1)
        for _ in range(2):
            assert [each.name("Dr")[1] for each in (one, User(1), two, admin)] == [1, 1, 2, 1]
        assert len(calls.made) == 3
        one.number = 2
        assert one.name("Dr") == ("User", 2, "Dr")
        User.__cache_key__ = lambda self: self.number + 10  # type: ignore[method-assign]  # as a test's patch does
        assert one.name("Dr") == two.name("Dr")
        assert len(calls.made) == 4


def test_classes_and_instances_are_not_kept_alive(cache: Cache[Any, Any]) -> None:
    """By a function that is used in many of them."""

    def make() -> Any:
        class Thing:
            name = shared

            def __cache_key__(self) -> str:
                return "same"

        thing = Thing()
        thing.name(1)
        return weakref.ref(Thing)

    @cache.cached
    def shared(self: Any, number: int) -> int:
        return number

    references = [make() for _ in range(20)]
    for _ in range(3):  # without a GIL some references are given up by a collection only
        gc.collect()
    assert not any(reference() for reference in references)


def test_class_methods_are_told_apart_by_the_class(cache: Cache[Any, Any]) -> None:
    """Which is in the key itself where nobody else sees it."""

    class Base:
        @classmethod
        @cache.cached
        def named(cls, number: int) -> tuple[str, int]:
            return cls.__name__, number

    class Derived(Base):
        pass

    for _ in range(3):
        assert (Base.named(1), Derived.named(1), Derived().named(1)) == (("Base", 1), ("Derived", 1), ("Derived", 1))


def test_method_is_called_without_being_bound_as_it_is_when_bound(cache: Cache[Any, Any]) -> None:
    """An attribute of the instance hides it, and subclasses override it, as with any method."""

    class Shop:
        @cache.cached
        def price(self, sku: str) -> str:
            return f"{sku} here"

    class Other(Shop):
        def price(self, sku: str) -> str:  # type: ignore[override]  # a plain method instead
            return f"{super().price(sku)}, elsewhere"

    shop, other = Shop(), Other()
    bound: Callable[[str], str] = shop.price
    assert bound("a") == shop.price("a") == Shop.price(shop, "a") == "a here"
    assert other.price("a") == "a here, elsewhere"
    shop.price = lambda sku: "hidden"  # type: ignore[assignment,method-assign]  # what mocks do
    assert shop.price("a") == "hidden"


def test_bound_method_that_was_not_initialised_raises() -> None:
    """Nobody makes one, but nobody is to end the process so."""
    empty = BoundResults.__new__(BoundResults)
    with pytest.raises(TypeError, match="not initialised"):
        empty()
    with pytest.raises(TypeError, match="not initialised"):
        empty._plain_hit((), None)
    with pytest.raises(TypeError, match="not initialised"):
        Results.__new__(Results).__get__(1, int)
