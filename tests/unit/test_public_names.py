"""What a cache offers has names that the documentation knows; what is inner leaves all other names to users."""

from __future__ import annotations

import pydoc
import re
from pathlib import Path
from typing import Any

import pytest

import nearcache
from nearcache.cache.memory.aging import AgingMemoryCache
from nearcache.cache.tiered.cache import TieredCache

ROOT = Path(__file__).parents[2]
#: Not in docs/: attributes, those of a dict, and what only says whether the store is sound.
BESIDE = {"aio", "check_invariants", "currsize", "fromkeys", "keys", "maxbytes", "maxsize", "setdefault", "settings"}
INNER = ("l1_", "lane_")


@pytest.mark.parametrize("kind", [nearcache.MemoryCache, AgingMemoryCache, TieredCache])
def test_every_public_name_of_a_cache_is_documented(kind: type) -> None:
    """What nobody could look up is not for users, and does not look as if it were."""
    texts = [path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]]
    documented = set(re.findall(r"\b(\w+)[(`]", "\n".join(texts)))
    names = {name for name in dir(kind) if not name.startswith(("_", *INNER))}
    assert len(names) > 50
    assert names - documented - BESIDE == set()


@pytest.mark.parametrize("kind", [nearcache.MemoryCache, AgingMemoryCache, TieredCache])
def test_help_of_a_cache_speaks_to_its_users(kind: type) -> None:
    """Of what they can call and see: no hook of the cache's own, and no address of an object in a signature."""
    for name in dir(kind):
        if not name.startswith(("_", *INNER)):
            told = pydoc.plain(pydoc.render_doc(getattr(kind, name)))
            assert not re.search(r"`_[a-z]|<object object", told), told
    assert "Never calls the loader" in kind.get.__doc__
    assert "ttl: 'Lifetime' = <not given>" in pydoc.render_doc(kind.set)


def test_dir_of_a_cache_shows_what_is_for_users() -> None:
    """A prompt that completes names does not offer the store's own verbs."""
    with nearcache.open("memory://") as cache:
        names = dir(cache)
        assert {"get", "set", "drop_all", "get_or_load"} <= {*names}
        assert [name for name in names if name.startswith(INNER)] == []
        assert callable(cache.l1_put)  # though they are there


def test_a_subclass_has_all_other_names_for_itself() -> None:
    """Words that the store once used for its own verbs, and that users' domains are full of."""

    class Basket(nearcache.MemoryCache[str, Any]):
        def _mine(self, *_arguments: Any, **_options: Any) -> Any:
            pytest.fail("it was called for something else")

        put = apply = open = join = finish = confirm = abandon = erase = hit = terms = tell = measure = _mine
        counters = snapshot = suspect = sweep = tend = refuse = hit_many = hit_dict = pop_next = wid = _mine

    with Basket(loader=str.upper, ttl=60, maxsize=10) as basket:  # small: one order, on every build
        assert basket["a"] == "A"
        basket["b"] = 1
        basket.set("c", 2, tags=["t"])
        assert basket.get_many(["a", "b", "c", "d"]) == {"a": "A", "b": 1, "c": 2}
        basket.invalidate_tag("t")
        assert basket.popitem() == ("a", "A")
        assert dict(basket.items()) == {"b": 1}
        assert (basket.stats().l1.hits, basket.copy() == basket, basket.invalidate("b")) == (3, True, True)
