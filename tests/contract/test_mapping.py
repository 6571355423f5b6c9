"""CPython's own mapping tests. Each deliberate exception stands in docs/decisions.md with its reason."""

from __future__ import annotations

import itertools
import unittest
from collections.abc import MutableMapping
from typing import Any, ClassVar

import pytest
from test import mapping_tests

import nearcache
from nearcache import Cache, MemoryCache
from support.redis import Binary, RedisServer


class TestMemoryCache(mapping_tests.TestHashMappingProtocol):
    """A ``memory://`` cache is a mapping with hashable keys, as dict is."""

    type2test = MemoryCache

    def test_constructor(self) -> None:
        """Exception: keywords of the constructor are options, not items."""
        self.assertEqual(self._empty_mapping(), self._empty_mapping())
        self.assertIsNot(self._empty_mapping(), self._empty_mapping())
        with self.assertRaises(nearcache.ConfigError):
            MemoryCache(x=1, y=2)

    def test_repr(self) -> None:
        """Exception: the repr never shows what is cached, because reprs end in logs."""
        cache = self._full_mapping({"secret": "value"})
        self.assertNotIn("secret", repr(cache))
        self.assertIn("1 of 100000", repr(cache))

    def test_popitem(self) -> None:
        """Exception: copies need not agree on who goes, unless by LRU; a cache can be emptied all the same."""
        cache = self._full_mapping({number: str(number) for number in range(50)})
        popped = [cache.popitem() for _ in range(50)]
        self.assertEqual(sorted(popped), [(number, str(number)) for number in range(50)])
        self.assertRaises(KeyError, cache.popitem)

    def test_repr_deep(self) -> None:
        """Follows from the one above: a repr of any depth is short."""
        cache = self._empty_mapping()
        cache[1] = cache
        self.assertLess(len(repr(cache)), 100)


class LruCache(MemoryCache[Any, Any]):
    """A cache whose copies agree with it on the order."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"policy": "lru"} | options)


class TestLruCache(TestMemoryCache):
    """With the other policy, popping from copies gives the same pairs in the same order too."""

    type2test = LruCache

    def test_popitem(self) -> None:
        """No exception."""
        mapping_tests.TestHashMappingProtocol.test_popitem(self)


class TestTieredCache(mapping_tests.TestMappingProtocol):
    """A cache over Redis is one too; of other keys and values than it can encode it says so."""

    server: ClassVar[RedisServer]
    opened: ClassVar[list[Cache[Any, Any]]]
    names = itertools.count()

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _servers(cls, newest_binary: Binary) -> Any:
        with RedisServer(newest_binary) as cls.server:
            yield

    def setUp(self) -> None:
        type(self).opened = []

    def tearDown(self) -> None:
        for cache in self.opened:
            cache.close()

    def type2test(self) -> Cache[Any, Any]:
        """A cache of a namespace of its own."""
        cache = nearcache.open(self.server.url, namespace=f"n{next(self.names)}")
        self.opened.append(cache)
        return cache

    def test_constructor(self) -> None:
        """Exception: keywords of the constructor are options, not items."""
        self.assertEqual(self._empty_mapping(), self._empty_mapping())

    def test_copy(self) -> None:
        """Exception: the copy is of this process's L1, and lives in this process alone."""
        cache = self._full_mapping({1: 1, 2: 2})
        copied = cache.copy()
        self.assertEqual(copied, {1: 1, 2: 2})
        self.assertIsInstance(copied, MemoryCache)
        copied[1] = "changed"
        self.assertEqual(cache[1], 1)

    def test_popitem(self) -> None:
        """Exception: the copy is a ``memory://`` cache, which need not agree on who goes."""
        cache = self._full_mapping({number: str(number) for number in range(50)})
        popped = [cache.popitem() for _ in range(50)]
        self.assertEqual(sorted(popped), [(number, str(number)) for number in range(50)])
        self.assertRaises(KeyError, cache.popitem)

    def test_fromkeys(self) -> None:
        """Exception: a new cache would be the same namespace of the same servers, not a new mapping."""
        with self.assertRaisesRegex(TypeError, "fromkeys"):
            type(self._empty_mapping()).fromkeys("abc")


@pytest.mark.parametrize("kind", [Cache, MemoryCache])
def test_cache_is_a_mutable_mapping(kind: type) -> None:
    """isinstance() and issubclass() say so, and pattern matching takes it for a mapping."""
    assert issubclass(kind, MutableMapping)
    match MemoryCache():
        case {**rest}:
            assert rest == {}
        case _:
            pytest.fail("not matched as a mapping")


def test_the_tests_of_cpython_are_the_ones_that_run() -> None:
    """Guards the file: the classes above really inherit what they are meant to."""
    for case in (TestMemoryCache, TestTieredCache):
        names = unittest.defaultTestLoader.getTestCaseNames(case)
        assert {"test_read", "test_write", "test_update", "test_popitem", "test_pop", "test_get"} <= set(names)
