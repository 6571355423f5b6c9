"""CPython's own tests of ``functools.lru_cache``. Each exception stands in docs/decisions.md with its reason."""

from __future__ import annotations

import functools
import threading
import types
import unittest
from typing import Any

import pytest
from test import test_functools

import nearcache

#: Where this one is meant to differ: the test of CPython, and why it is replaced.
EXCEPTIONS = {
    "test_lru_cache_threaded2": "it demands that all threads which miss one key call the function; here one does",
}

module = types.SimpleNamespace(**{**vars(functools), "lru_cache": nearcache.lru_cache})


@nearcache.lru_cache()
def remembered(x, y):
    """At the top of a module, so that it can be pickled."""
    return 3 * x + y


class TestLru(test_functools.TestLRU, unittest.TestCase):
    """``nearcache.lru_cache`` in the place of functools'."""

    module = module
    cached_func = (remembered,)

    @nearcache.lru_cache()
    def cached_meth(self, x, y):
        """A method."""
        return 3 * x + y

    @staticmethod
    @nearcache.lru_cache()
    def cached_staticmeth(x, y):
        """A function in a class."""
        return 3 * x + y

    def test_lru_cache_threaded2(self) -> None:
        """Exception: of n threads that miss one key at once, one calls the function and all get its result."""
        n, m = 5, 7
        calls: list[int] = []
        start = threading.Barrier(n)

        @self.module.lru_cache(maxsize=n * m)
        def f(x):
            while f.cache_info().misses < n * (x + 1):  # until all of them have asked
                threading.Event().wait(0.001)
            calls.append(x)
            return 3 * x

        def ask() -> None:
            for i in range(m):
                start.wait(10)
                self.assertEqual(f(i), 3 * i)

        threads = [threading.Thread(target=ask) for _ in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        self.assertEqual(calls, list(range(m)))
        self.assertEqual(f.cache_info(), (0, n * m, n * m, m))


#: Where ``cache.cached`` differs: the test of CPython, and why it is left out.
EXCEPTIONS_OF_CACHED = {
    "test_lru_bug_35780": "a function that needs its own result for the same arguments is a LoadCycleError",
    "test_lru_cache_parameters": "there are more parameters",
    "test_lru_cache_threaded2": "it demands that all threads which miss one key call the function; here one does",
    "test_lru_hash_only_once": "L1 and the loads under way both hash the key",
    "test_lru_method": "its instances are ints that cannot be referred to weakly, and are not held",
    "test_lru_reentrancy_with_len": "it replaces len() by a function whose arguments have to be hashable, also for us",
    "test_lru_with_maxsize_negative": "a negative maxsize is refused",
    "test_lru_with_types": "it demands that f(x=3) and f(3) are apart; here they are one key",
}
#: The same, of tests that came with later Pythons.
LATER_EXCEPTIONS = {
    "test_common_signatures": "its methods are annotated",
    "test_lru_recursion": "it recurs deeper than several Python frames for each call allow",
}
EXCEPTIONS_OF_CACHED |= {name: why for name, why in LATER_EXCEPTIONS.items() if hasattr(test_functools.TestLRU, name)}


def cached_in_memory(maxsize: Any = 128, typed: bool = False) -> Any:
    """``cache.cached`` with a ``memory://`` cache for each function, called as ``lru_cache`` is."""
    if callable(maxsize):
        return cached_in_memory(128, typed)(maxsize)
    return nearcache.open("memory://", maxsize=maxsize, policy="lru").cached(typed=typed)


@cached_in_memory()
def kept(x, y):
    """At the top of a module, so that it can be pickled."""
    return 3 * x + y


class TestCached(test_functools.TestLRU, unittest.TestCase):
    """``cache.cached`` in the place of functools' ``lru_cache``, where that makes sense."""

    module = types.SimpleNamespace(**{**vars(functools), "lru_cache": cached_in_memory})
    cached_func = (kept,)

    @cached_in_memory()
    def cached_meth(self, x, y):
        """A method."""
        return 3 * x + y

    @staticmethod
    @cached_in_memory()
    def cached_staticmeth(x, y):
        """A function in a class."""
        return 3 * x + y


for name in EXCEPTIONS_OF_CACHED:
    setattr(TestCached, name, None)


def test_every_test_of_cpython_runs_but_for_the_exceptions() -> None:
    """What the class above replaces is exactly what the table names; all else is CPython's own text."""
    own = {name for name in vars(TestLru) if name.startswith("test_")}
    assert own == set(EXCEPTIONS)
    names = unittest.defaultTestLoader.getTestCaseNames(TestLru)
    assert {"test_lru", "test_lru_with_exceptions", "test_need_for_rlock", "test_pickle", *EXCEPTIONS} <= set(names)
    assert len(names) >= 26
    of_cached = set(unittest.defaultTestLoader.getTestCaseNames(TestCached))
    assert of_cached == set(names) - set(EXCEPTIONS_OF_CACHED)


@pytest.mark.parametrize("name", sorted({**EXCEPTIONS, **EXCEPTIONS_OF_CACHED}))
def test_every_exception_is_a_test_of_cpython(name: str) -> None:
    """An exception from a test that does not exist would hide nothing, and says nothing."""
    assert hasattr(test_functools.TestLRU, name)
