"""Who takes part, and how each contestant is made and spoken to.

Each is spoken to as its own documentation does it: ``cache[key]`` where there is a subscript, a method where there is
none, a call for ``functools.lru_cache``. Whoever is not installed, or refuses an option, is reported as absent.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from typing import Any
from uuid import uuid4

from . import loops

TTL_S = 3600
#: Beyond this many entries filling two servers takes longer than all measurements together.
MOST_TIERED = 1_000_000
DICT = "dict"
LRU = "nearcache lru"
ADAPTIVE = "nearcache adaptive"
TIERED = "nearcache, 2 shards"
OURS = (LRU, ADAPTIVE, TIERED)


@dataclass(frozen=True)
class Contestant:
    """One cache.

    Attributes:
        name: How tables call it.
        package: The distribution it comes in; '' for the standard library.
        make: Returns an empty cache for so many entries; what has to be closed goes onto the stack.
        hit: The loop that asks for keys that are there.
        write: The loop that stores, ``None`` where only a call does.
        delete: The loop that removes.
        default: Whether ``get`` takes a second argument.
        bounded: Whether a full one evicts.
        most: The most entries it is asked to hold.
    """

    name: str
    package: str
    make: Callable[[int, ExitStack], Any]
    hit: loops.Loop = loops.subscript
    write: loops.Loop | None = loops.assign
    delete: loops.Loop | None = loops.delete
    default: bool = True
    bounded: bool = True
    most: int = 10**9

    @property
    def version(self) -> str:
        """Return the installed version, or that of the Python that brings it along."""
        return metadata.version(self.package) if self.package else platform.python_version()

    def fill(self, cache: Any, keys: list[Any], values: list[Any]) -> None:
        """Store all keys, each with its own value."""
        if self.name == TIERED:
            for start in range(0, len(keys), 10_000):
                cache.set_many(dict(zip(keys[start : start + 10_000], values[start : start + 10_000], strict=True)))
        elif self.write is None:
            loops.call(cache, keys, None)
        else:
            for key, value in zip(keys, values, strict=True):
                self.write(cache, (key,), value)

    def why_absent(self) -> str:
        """Return why it cannot take part here; '' if it can."""
        try:
            with ExitStack() as stack:
                self.make(16, stack)
                return "" if self.version else "its version is unknown"
        except metadata.PackageNotFoundError:
            return f"{self.package} is not installed"
        except Exception as error:
            return f"{type(error).__name__}: {error}"


def _dict(size: int, stack: ExitStack) -> Any:
    return {}


def _memory(policy: str, size: int, stack: ExitStack) -> Any:
    import nearcache

    return stack.enter_context(nearcache.open("memory://", maxsize=size, ttl=TTL_S, policy=policy))


def _tiered(size: int, stack: ExitStack) -> Any:
    import nearcache
    from nearcache.embedded import EmbeddedServers

    servers = stack.enter_context(EmbeddedServers.join(f"bench-{uuid4().hex[:12]}", 2))
    url = "unix://" + ",".join(servers.sockets)
    # Patient, because filling it on a busy machine is not what is measured.
    return stack.enter_context(nearcache.open(url, maxsize=size, max_staleness=60.0, timeout=30.0))


def lru_cache_of(function: Callable[[Any], Any], size: int, stack: ExitStack) -> Any:
    """Return a function whose results are remembered."""
    return functools.lru_cache(maxsize=size)(function)


def _lru_dict(size: int, stack: ExitStack) -> Any:
    import lru

    return lru.LRU(size)


def _cachebox(name: str, arguments: tuple[Any, ...], size: int, stack: ExitStack) -> Any:
    import cachebox

    return getattr(cachebox, name)(size, *arguments)


def _cachetools(name: str, arguments: tuple[Any, ...], size: int, stack: ExitStack) -> Any:
    import cachetools

    return getattr(cachetools, name)(size, *arguments)


def _moka(size: int, stack: ExitStack) -> Any:
    from moka_py import Moka

    return Moka(size, ttl=TTL_S)


def _theine(size: int, stack: ExitStack) -> Any:
    from theine import Cache

    cache: Any = Cache(size)
    stack.callback(cache.close)
    return cache


ALL: tuple[Contestant, ...] = (
    Contestant(DICT, "", _dict, bounded=False),
    Contestant(LRU, "nearcache", functools.partial(_memory, "lru")),
    Contestant(ADAPTIVE, "nearcache", functools.partial(_memory, "adaptive")),
    Contestant(TIERED, "nearcache", _tiered, write=None, delete=None, most=MOST_TIERED),
    Contestant(
        # hash: compiled, cheap, and gives each key a value of its own.
        "functools.lru_cache", "", functools.partial(lru_cache_of, hash), hit=loops.call, write=None, delete=None
    ),
    Contestant("lru-dict", "lru-dict", _lru_dict),
    Contestant("cachebox LRUCache", "cachebox", functools.partial(_cachebox, "LRUCache", ())),
    Contestant("cachebox TTLCache", "cachebox", functools.partial(_cachebox, "TTLCache", (TTL_S,))),
    Contestant("cachebox VTTLCache", "cachebox", functools.partial(_cachebox, "VTTLCache", ()), write=loops.insert_ttl),
    Contestant("cachetools LRUCache", "cachetools", functools.partial(_cachetools, "LRUCache", ())),
    Contestant("cachetools TTLCache", "cachetools", functools.partial(_cachetools, "TTLCache", (TTL_S,))),
    Contestant("moka-py", "moka-py", _moka, hit=loops.get, write=loops.set_, delete=loops.remove),
    Contestant(
        "theine", "theine", _theine, hit=loops.get, write=loops.set_, delete=loops.delete_method, default=False
    ),
)  # fmt: skip


def choose(names: Iterable[str]) -> list[Contestant]:
    """Return the contestants whose name begins with one of these; all of them for no name. ``dict`` always comes.

    Raises:
        ValueError: No contestant is called like that.
    """
    wanted = list(names)
    for name in wanted:
        if not any(one.name.startswith(name) for one in ALL):
            raise ValueError(f"no contestant is called {name!r}: choose from {', '.join(one.name for one in ALL)}")
    return [one for one in ALL if not wanted or one.name == DICT or one.name.startswith(tuple(wanted))]


def roll_call(contestants: Iterable[Contestant]) -> tuple[list[Contestant], dict[str, str]]:
    """Return who is here, and why the others are not."""
    reasons = {one: one.why_absent() for one in contestants}
    return [one for one, why in reasons.items() if not why], {one.name: why for one, why in reasons.items() if why}
