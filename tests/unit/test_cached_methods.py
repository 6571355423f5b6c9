"""``cache.cached`` within classes: what tells an instance, however the method is called."""

from __future__ import annotations

import copy
import functools
import gc
import pickle
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest

import nearcache
from nearcache import Cache, UnencodableKeyError
from nearcache.cache.functions.calls import Instances

cache: Cache[Any, Any] = nearcache.open("memory://")


@dataclass(unsafe_hash=True)
class Account:
    """Equal to others that hold another secret."""

    number: int
    secret: int = field(compare=False, default=0)

    @property
    @cache.cached
    def shown(self) -> int:
        """A property, which does not say that it is one."""
        return self.secret

    @functools.cached_property
    @cache.cached
    def kept(self) -> int:
        """The same."""
        return self.secret

    @cache.cached
    def times(self, factor: int = 1) -> int:
        """A method."""
        return self.secret * factor

    @classmethod
    @cache.cached
    def opened(cls, number: int) -> int:
        """A class method."""
        return number


def test_cached_property_keeps_instances_apart() -> None:
    """Equal instances are still two."""
    first, second = Account(1, 10), Account(1, 20)
    assert (first.shown, second.shown, first.shown) == (10, 20, 10)
    assert (first.kept, second.kept) == (10, 20)


def test_cached_method_takes_its_instance_by_keyword() -> None:
    """It is the same call."""
    first, second = Account(1, 10), Account(1, 20)
    before = Account.times.cache_info()
    assert [Account.times(self=first), Account.times(factor=2, self=second)] == [10, 40]
    assert [Account.times(first), first.times(), second.times(2), Account.times(second, factor=2)] == [10, 10, 40, 40]
    after = Account.times.cache_info()
    assert (after.hits - before.hits, after.misses - before.misses) == (4, 2)


def test_cached_property_and_keyword_hold_no_instance() -> None:
    """A key never does."""
    account = Account(1, 10)
    assert (account.shown, Account.times(self=account)) == (10, 10)
    gone = weakref.ref(account)
    del account
    gc.collect()
    assert gone() is None


def test_cached_bound_method_is_pickled_and_copied_as_bound_methods_are() -> None:
    """By its name, with what it is bound to: pools of processes do it."""
    bound = Account(1, 10).times
    for twin in (pickle.loads(pickle.dumps(bound)), copy.deepcopy(bound)):
        assert twin(3) == 30
        assert twin.__func__ is Account.times
        assert twin.__self__ == bound.__self__
        assert twin.__self__ is not bound.__self__
    assert copy.copy(bound) == bound
    for again in (pickle.loads(pickle.dumps(Account.opened)), copy.deepcopy(Account.opened)):
        assert again == Account.opened


def test_cached_method_of_one_instance_is_copied_with_it() -> None:
    """What the instance holds, the copy holds: still cached, and bound to the copy."""

    class Ledger:
        """Has decorated a method for itself."""

        def __init__(self) -> None:
            self.total = cache.cached(type(self).sum_of).__get__(self)

        def sum_of(self) -> list[int]:
            return []

    first = Ledger()
    second = copy.deepcopy(first)
    assert second.total() is second.total()
    assert second.total() is not first.total()


def test_cached_function_may_take_anything_by_the_name_self() -> None:
    """Among its keywords, in all that is called with its arguments."""

    @cache.cached
    def described(**parts: str) -> dict[str, str]:
        return parts

    first = described(self="me")
    assert described.peek(self="me") is first
    assert described.refresh(self="me") == first
    described.set({}, self="me")
    assert described.invalidate(self="me") is True


def test_cached_function_with_another_name_in_a_class_stays_a_function() -> None:
    """There it is a static function for those who call it by the class; elsewhere nothing has changed."""

    @cache.cached
    def price(product: str) -> str:
        return product * 2

    class Shop:
        """Has a function of somebody else's."""

        price_of = price

    assert [price("x"), price("x"), Shop.price_of("x")] == ["xx"] * 3
    assert price.cache_info()[:2] == (2, 1)
    assert price.peek("x") == "xx"


class Wide:
    """Its methods are called in each way there is."""

    @cache.cached
    def both(self, left: str, right: str = "r") -> str:
        """Two arguments."""
        return left + right


def test_each_way_to_call_a_method_is_one_entry_and_one_call() -> None:
    """By place, by name, by default; of the instance, of its class, and as a method that was kept."""
    wide = Wide()
    kept = wide.both
    calls: list[Any] = [
        lambda: wide.both("l", "r"), lambda: wide.both("l"), lambda: wide.both(left="l"), lambda: kept("l", "r"),
        lambda: Wide.both(wide, "l", "r"), lambda: Wide.both(self=wide, left="l"),
    ]  # fmt: skip
    assert {call() for call in [*calls, *calls]} == {"lr"}
    assert kept.cache_info()[:2] == (11, 1)
    assert weakref.ref(kept)() is kept
    with pytest.raises(TypeError, match=r"both\(\) missing 1 required positional argument: 'left'"):
        wide.both()  # type: ignore[call-arg]  # that is what is tested
    with pytest.raises(TypeError, match=r"both\(\) takes from 2 to 3 positional arguments but 4 were given"):
        wide.both("l", "r", "o")  # type: ignore[call-arg]  # that is what is tested


def test_a_call_that_misses_is_one_miss_of_l1() -> None:
    """The store's counters say what the function's do: they are what a hit ratio is drawn from."""
    own: Cache[Any, Any] = nearcache.open("memory://")

    @own.cached
    def double(number: int) -> int:
        return 2 * number

    assert [double(number % 10) for number in range(30)] == [2 * (number % 10) for number in range(30)]
    assert double.cache_info()[:2] == (own.stats().l1.hits, own.stats().l1.misses) == (20, 10)


def test_cached_method_of_what_has_a_cache_key_that_is_no_method_is_refused() -> None:
    """A property, say: what to make of it. A TypeError of a method is the method's own."""

    class Thing:
        @property
        def __cache_key__(self) -> int:
            return 7

        @cache.cached
        def doubled(self, x: int) -> int:
            return 2 * x

    class Other(Thing):
        def __cache_key__(self) -> int:  # type: ignore[override]  # as somebody may have it
            raise TypeError("its own")

    with pytest.raises(UnencodableKeyError, match=r"__cache_key__ of its class is <property .*make it a method"):
        Thing().doubled(1)
    with pytest.raises(TypeError, match="its own"):
        Other().doubled(1)


def test_instance_at_the_place_of_one_that_is_gone_has_a_number_of_its_own() -> None:
    """The word of that one's end may come late: a thread may be in the middle of its collection."""
    instances, here, gone = Instances(), Account(1), Account(2)
    dead = weakref.ref(gone)
    del gone
    assert dead() is None
    instances.entries[id(here)] = (dead, 7)
    assert instances.get(here) is None
    number = instances.number(here)
    assert number == instances.get(here) == instances.number(here) != 7
