"""Values on a real server: codecs, protection and isolation as users meet them, and what a stranger can do there."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nearcache
from nearcache import Cache, ConfigError
from nearcache.cache.tiered.cache import TieredCache
from nearcache.codecs import pack, peek_ids
from nearcache.keys import encode_key
from support.caches import opening
from support.redis import Binary, RedisServer
from support.threads import PATIENCE

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
EXECUTED: list[object] = []
#: The public ways to read a value that L1 holds.
READERS: dict[str, Callable[[Cache[Any, Any], str], Any]] = {
    "[]": lambda cache, key: cache[key],
    "get": lambda cache, key: cache.get(key),
    "get_many": lambda cache, key: cache.get_many([key])[key],
    "peek": lambda cache, key: cache.peek(key),
    "items": lambda cache, key: dict(cache.items())[key],
    "values": lambda cache, key: next(iter(cache.values())),
    "get_or_load": lambda cache, key: cache.get_or_load(key, lambda _: None),
    "setdefault": lambda cache, key: cache.setdefault(key, None),
    "hit": lambda cache, key: cache.l1_hit(key, None),
    "hit_dict": lambda cache, key: cache.l1_hit_dict([key], [])[key],
    "snapshot": lambda cache, key: dict(cache.l1_snapshot())[key],
    "copy": lambda cache, key: cache.copy()[key],
}


@pytest.fixture
def redis_server(newest_binary: Binary) -> Iterator[RedisServer]:
    """One server: what is tested here does not depend on its version."""
    with RedisServer(newest_binary) as server:
        yield server


@pytest.fixture
def open_cache(redis_server: RedisServer) -> Iterator[Callable[..., Cache[Any, Any]]]:
    """Open caches that are closed at the end."""
    with opening(f"unix://{redis_server.path}", namespace="shop") as opener:
        yield opener


def name_of(key: str) -> bytes:
    return b"nc:{shop:0}:v:" + encode_key(key)


def canary(*args: object) -> None:
    EXECUTED.append(args)


class Exploit:
    def __reduce__(self) -> Any:
        return canary, ("executed",)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"codec": "json"}, {"a": [1, None, "x"]}),
        ({"codec": "raw"}, b"\x00\xff"),
        ({"codec": "msgspec"}, {"a": [1, b"x"]}),
        ({"codec": "msgspec", "type": dict[str, set[int]]}, {"a": {1, 2}}),
        ({"codec": "pickle", "signing_keys": KEY}, {"a": {1, (2, frozenset())}}),
        ({"codec": "pickle", "encryption_keys": KEY}, {"a": {1, (2, frozenset())}}),
        ({"compress": "zlib", "compress_above": 10}, ["x" * 1000]),
        ({"compress": "zstd", "signing_keys": KEY}, ["x" * 30_000]),
        ({"compress": "lz4", "encryption_keys": [KEY, OTHER], "codec": "json"}, ["x" * 30_000]),
    ],
)
def test_value_of_one_process_is_read_by_another(open_cache: Any, options: dict[str, Any], value: Any) -> None:
    """Single and bulk writes, fills by a loader; single and bulk reads: each authenticates the same key."""
    writer, reader = open_cache(**options), open_cache(**options)
    writer["single"] = value
    writer.set_many({"many": value, "more": value})
    assert writer.get_or_load("loaded", lambda _: value) == value
    assert [reader[key] for key in ("single", "many", "loaded")] == [value] * 3
    assert open_cache(**options).get_many(["single", "many", "more", "loaded"]) == dict.fromkeys(
        ["single", "many", "more", "loaded"], value
    )
    assert reader.stats().l2.forged == reader.stats().l2.undecodable == 0


@pytest.mark.parametrize("option", ["signing_keys", "encryption_keys"])
def test_value_that_a_stranger_put_there_is_a_miss_that_is_counted_and_reported_once(
    open_cache: Any, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    """Copied from another key, changed, unprotected, of another key: never served; the loader's value replaces it."""
    EXECUTED.clear()
    cache = open_cache(codec="pickle", **{option: KEY})
    stranger = open_cache(codec="pickle", **{option: OTHER})
    cache.set_many({"mine": "genuine", "theirs": "elsewhere"})
    server = redis_server.client()
    genuine = server.get(name_of("mine"))
    attempts = [
        server.get(name_of("theirs")),
        genuine[:-1] + bytes([genuine[-1] ^ 1]),
        pack(*peek_ids(genuine), b"\0" + pickle.dumps(Exploit()), codec_id=4),
    ]
    stranger["mine"] = Exploit()
    attempts.append(server.get(name_of("mine")))
    caplog.set_level(logging.WARNING, "nearcache")
    for number, attempt in enumerate(attempts):
        fresh = open_cache(codec="pickle", **{option: KEY})
        server.set(name_of("mine"), attempt, px=60_000)
        assert fresh.get("mine", "nothing") == "nothing"
        assert fresh.get_many(["mine"]) == {}
        assert fresh.get_or_load("mine", lambda _: f"loaded {_}") == "loaded mine"
        l2 = fresh.stats().l2
        assert l2.forged + l2.undecodable == l2.misses >= 2, number
        assert fresh.get("theirs") == "elsewhere"
    server.close()
    assert EXECUTED == []
    reports = [record.getMessage() for record in caplog.records if "a miss" in record.getMessage()]
    assert len(reports) == len(attempts)
    assert all("key 'mine': " in text for text in reports)
    assert not any(key.hex() in text or repr(key) in text for key in (KEY, OTHER) for text in reports)


def test_older_value_of_the_same_key_is_what_a_stranger_can_put_back(
    open_cache: Any, redis_server: RedisServer
) -> None:
    """As docs/security.md says; a clear() ends that, for the generation is part of what is signed."""
    cache = open_cache(signing_keys=KEY)
    cache["k"] = "old"
    server = redis_server.client()
    old = server.get(name_of("k"))
    cache["k"] = "new"
    server.set(name_of("k"), old, px=60_000)
    assert open_cache(signing_keys=KEY)["k"] == "old"
    cache.clear()
    server.set(name_of("k"), old, px=60_000)
    assert open_cache(signing_keys=KEY).get("k") is None
    server.close()


def test_keys_rotate_while_caches_are_in_use(open_cache: Any) -> None:
    """The recipe of docs/security.md, step by step, without a miss."""
    a = open_cache(encryption_keys=KEY)
    a["k"] = 1
    b = open_cache(encryption_keys=[KEY, OTHER])
    assert b["k"] == 1
    c = open_cache(encryption_keys=[OTHER, KEY])
    assert c["k"] == 1
    c["k"] = 2
    assert open_cache(encryption_keys=[KEY, OTHER])["k"] == 2
    assert open_cache(encryption_keys=OTHER)["k"] == 2
    assert a.get("k", "unread") in ("unread", 2)


# -- isolation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["written", "read", "loaded"])
def test_isolated_reader_gets_an_object_of_its_own(open_cache: Any, way: str) -> None:
    """Whatever way the value came, and whatever way it is read; what the writer holds is not the cache's either."""
    cache = open_cache(isolation="copy")
    value = {"list": [1, 2]}
    if way == "loaded":
        cache.get_or_load("k", lambda _: value)["list"].append(5)
    elif way == "written":
        cache["k"] = value
    else:
        open_cache()["k"] = value
        assert cache.selftest().ok  # a message that comes while the key is read would keep the answer out of L1
        cache["k"]["list"].append(6)
    value["list"].append(3)
    before = cache.stats().l2.hits
    for read in [*READERS.values()] * 2:
        got = read(cache, "k")
        assert got == {"list": [1, 2]}
        got["list"].append(4)
    assert cache["k"] == {"list": [1, 2]}
    assert cache.stats().l2.hits == before, "L1 should have answered"
    if way != "read":
        assert open_cache()["k"] == {"list": [1, 2]}


@pytest.mark.parametrize(
    "write",
    [
        lambda cache, value: cache.set("k", value, ttl=60),
        lambda cache, value: cache.set_many({"k": value}),
        lambda cache, value: cache.update(k=value),
        lambda cache, value: cache.setdefault("k", value),
    ],
)
def test_isolated_writer_keeps_its_object_to_itself(open_cache: Any, write: Any) -> None:
    """Changing what was stored does not change the cache."""
    cache = open_cache(isolation="copy")
    value = [[1]]
    write(cache, value)
    value[0].append(2)
    assert cache["k"] == [[1]]
    assert cache.get_many(["k"]) == {"k": [[1]]}
    assert open_cache(isolation="copy")["k"] == [[1]]


def test_isolated_values_that_go_are_shown_as_values(open_cache: Any) -> None:
    """To the removal listener, to popitem and pop, to expire."""
    gone: list[Any] = []
    cache = open_cache(isolation="copy", on_removal=lambda *event: gone.append(event))
    cache["a"] = [1]
    cache["a"] = [2]
    cache.drop("a")
    assert gone == [("a", [1], "replaced"), ("a", [2], "dropped")]
    cache["b"] = [3]
    assert cache.popitem() == ("b", [3])
    cache["c"] = [4]
    assert cache.pop("c") == [4]
    cache["d"] = [5]
    assert cache.expire(1e12) == [("d", [5])]


def test_isolated_misses_defaults_and_scalars_are_as_ever(open_cache: Any) -> None:
    """What cannot be changed is not copied; what is not there is not there."""
    cache = open_cache(isolation="copy", loader=lambda key: {"loaded": key})
    default: list[int] = []
    assert cache.get("absent", default) is default
    assert cache["x"] == {"loaded": "x"}
    assert cache["x"] is not cache["x"]
    text = "scalar " * 3
    cache["s"] = text
    assert cache["s"] is text
    assert "x" in cache
    assert cache == {"x": {"loaded": "x"}, "s": text}
    with pytest.raises(nearcache.UnencodableValueError):
        cache["bad"] = object()


def test_isolated_value_is_shown_to_the_function_that_tells_its_tags(open_cache: Any) -> None:
    """As a value, and not the one that the cache keeps."""
    cache = open_cache(isolation="copy", tags=lambda key, value: [value.pop(), key])
    assert cache.get_or_load("k", lambda _: ["other", "label"]) == ["other", "label"]
    cache.set("s", ["set"], tags=["label"])
    cache.invalidate_tag("label")
    assert cache.get("k") is cache.get("s") is None


@pytest.mark.parametrize("option", ["tags", "ttl"])
@pytest.mark.parametrize("scheme", ["memory", "redis"])
def test_function_of_a_value_that_raises_stop_iteration_is_the_error_that_a_loader_is(
    open_cache: Any, scheme: str, option: str
) -> None:
    """A RuntimeError that names it, wherever values are, for threads and tasks; and the load has ended."""
    cache = open_cache() if scheme == "redis" else nearcache.open("memory://")

    def stop(_key: str, _value: str) -> Any:
        raise StopIteration

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"function .*stop.* raised StopIteration"):
            cache.get_or_load("k", str.upper, **{option: stop})
        with pytest.raises(RuntimeError, match=r"function .*stop.* raised StopIteration"):
            asyncio.run(asyncio.wait_for(cache.aio.get_or_load("k", str.upper, **{option: stop}), PATIENCE))
    assert cache.get_or_load("k", str.upper) == "K"


def test_isolated_array_is_a_view_that_nobody_can_change(open_cache: Any) -> None:
    """Read-only, without a copy."""
    cache = open_cache(isolation="copy")
    cache["a"] = [np.arange(1000)]
    first, second = cache["a"][0], cache["a"][0]
    assert first is not second
    assert not second.flags.writeable
    assert second.tolist() == list(range(1000))


def test_shared_reader_gets_the_object_itself(open_cache: Any) -> None:
    """The default; and its class is the one without copies, so that a hit pays nothing."""
    cache = open_cache()
    cache["k"] = value = [1]
    assert cache["k"] is value
    assert type(cache) is TieredCache
    assert type(cache).__getitem__ is Cache.__getitem__


def test_isolated_cache_is_opened_by_open_alone(redis_server: RedisServer) -> None:
    """A class that shares would not do what was asked for."""
    with pytest.raises(ConfigError, match=r"nearcache\.open"):
        TieredCache(f"unix://{redis_server.path}", isolation="copy")


def test_isolated_cache_does_not_lend_itself_to_asyncio(open_cache: Any) -> None:
    """Tasks that wait for one load would get one object."""
    with pytest.raises(ConfigError, match="asyncio"):
        open_cache(isolation="copy")._async_view()


def test_options_about_values_are_checked_before_anything_is_started() -> None:
    """No connection, no embedded server for a cache that cannot be."""
    with pytest.raises(ConfigError, match="signing_keys="):
        nearcache.open("redis://host.invalid:1", codec="pickle")
    with pytest.raises(ConfigError, match="signing_keys="):
        nearcache.open("embedded://never", codec="pickle")
