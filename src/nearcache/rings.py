"""Rings: which shards a namespace has, and how it comes from one list of them to another. No I/O.

A list of shards changes in four steps, each a version of its own, so that no process ever reads where another does not
invalidate. At most two neighbouring versions are in use at a time; the lanes see to that.

::

    version    reads    invalidates      so that
    v          old      old
    v + 1      old      old and new      whoever is ahead may read the new owner
    v + 2      new      old and new      whoever is behind may still read the old owner
    v + 3      new      new              this is the next change's v

Versions begin at 1. A version is written with a fingerprint of what it means, since two processes may have been started
with different lists: ``4-156fd55e648d679c``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ._placement import fnv1a64
from .endpoints import MOST_SHARDS, Endpoint
from .placement import SLOTS, Placement

__all__ = ["FIRST", "SLOTS", "Ring", "Shards", "admits", "gained", "moved", "shards_of", "version_in"]

#: Version of the first list.
FIRST: Final = 1
#: Fingerprint of all lists of one shard: it may be reached by one address here and by another there.
ONE: Final = fnv1a64(b"")
_STEPS: Final = 3
_LAST_PORT: Final = 65_535
#: Most characters of a name or an address: a host has 253 of them, and a port behind it.
_LONGEST: Final = 300
#: What would end a line of the log, or change how it is shown.
_FORGES: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: Exact as a number in Lua too.
_VERSION: Final = re.compile(rb"([0-9]{1,15})(?:-([0-9a-f]{0,16}))?")


@dataclass(frozen=True)
class Shards:
    """One list of shards, and which of them has which slot."""

    strategy: str
    endpoints: tuple[Endpoint, ...]
    placement: Placement

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, in the order of the list."""
        return self.placement.names

    @property
    def fingerprint(self) -> int:
        """Equal for lists that place every key on the same name. Of one shard the name decides nothing."""
        return ONE if len(self.endpoints) == 1 else self.placement.version

    def __str__(self) -> str:
        """What people read in errors."""
        weights = self.placement.weights
        listed = ", ".join(
            endpoint.name if set(weights) == {1} else f"{endpoint.name} x{weight}"
            for endpoint, weight in zip(self.endpoints, weights, strict=True)
        )
        return f"[{listed}]" if self.strategy == "rendezvous" else f"[{listed}] by {self.strategy}"

    def agrees(self, other: Shards) -> bool:
        """Whether both place every key on the same shard, as far as names tell."""
        return self.fingerprint == other.fingerprint

    def is_same(self, other: Shards) -> bool:
        """The same, and all names are."""
        return self.agrees(other) and set(self.names) == set(other.names)

    def named_as(self, other: Shards) -> Shards:
        """The same list; of one shard, by the name that the other list has for its address."""
        here = self.endpoints[0]
        name = next((each.name for each in other.endpoints if each.address == here.address), here.name)
        return self if len(self.endpoints) > 1 else shards_of(self.strategy, (replace(here, name=name),))

    def owner(self, slot: int) -> str:
        """Name of the shard that has a slot."""
        return self.names[self.placement.table[slot]]


def shards_of(strategy: str, endpoints: tuple[Endpoint, ...]) -> Shards:
    """Return the list of these shards.

    Raises:
        ConfigError: They cannot be told apart, or have weights that the strategy does not heed.
    """
    placement = Placement(
        [endpoint.name for endpoint in endpoints],
        weights=[endpoint.weight for endpoint in endpoints],
        strategy=strategy,
    )
    return Shards(strategy, endpoints, placement)


@dataclass(frozen=True)
class Ring:
    """One version.

    Attributes:
        old: The list; of a change that is under way, the one that it comes from.
        new: The one that it goes to; None: no change is under way.
    """

    version: int
    old: Shards
    new: Shards | None = None

    @property
    def step(self) -> int:
        """0: no change is under way; 1 or 2: how far it is."""
        return (self.version - FIRST) % _STEPS

    @property
    def text(self) -> bytes:
        """What scripts say it by, and lanes record it by."""
        fingerprint = self.old.fingerprint
        if self.new is not None:
            fingerprint = fnv1a64(b"%016x>%016x" % (fingerprint, self.new.fingerprint))
        return b"%d-%016x" % (self.version, fingerprint)

    @property
    def left(self) -> bytes:
        """What is told to a shard that is none any more: nobody of this version is to work with it."""
        return b"%d-%016x" % (self.version, 0)

    @property
    def reads(self) -> Shards:
        """The list that tells where a key is read, loaded and written."""
        return self.new if self.new is not None and self.step == _STEPS - 1 else self.old

    @property
    def also(self) -> Shards | None:
        """The list that tells where it is invalidated beside; None: nowhere."""
        return None if self.new is None else self.new if self.reads is self.old else self.old

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All shards that take part, each once."""
        found = {endpoint.name: endpoint for endpoint in self.old.endpoints}
        for endpoint in self.new.endpoints if self.new is not None else ():
            found.setdefault(endpoint.name, endpoint)
        return tuple(found.values())

    def __str__(self) -> str:
        """What people read in errors."""
        if self.new is None:
            return f"version {self.version}, {self.old}"
        return f"version {self.version}, a change from {self.old} to {self.new}"

    def begin(self, new: Shards) -> Ring:
        """Return the first step of a change to another list. A shard that was alone takes its name there."""
        return Ring(self.version + 1, self.old.named_as(new), new)

    def following(self) -> Ring:
        """Return the next step of the change that is under way."""
        assert self.new is not None
        if self.step == _STEPS - 1:
            return Ring(self.version + 1, self.new)
        return Ring(self.version + 1, self.old, self.new)

    def preceding(self) -> Ring:
        """Return the step before, of the change that is under way."""
        assert self.new is not None
        return Ring(self.version - 1, self.old, self.new if self.step > 1 else None)

    def at(self, known: Mapping[str, Endpoint]) -> Ring:
        """Return the same ring, with these addresses of shards that are known by their names."""

        def placed(shards: Shards) -> Shards:
            # What they weigh is a part of the list, and not of where they are.
            endpoints = (replace(known.get(each.name, each), weight=each.weight) for each in shards.endpoints)
            return replace(shards, endpoints=tuple(endpoints))

        return replace(self, old=placed(self.old), new=None if self.new is None else placed(self.new))

    def before(self) -> bytes:
        """Return the text of the step before, where it follows from this one; empty: it does not."""
        return self.preceding().text if self.step else b""

    # -- as a lane records it

    def dump(self) -> bytes:
        """Return what a lane records, so that whoever comes later can follow or tell the difference. No secrets."""
        lists = [self.old] if self.new is None else [self.old, self.new]
        content = {"version": self.version, "lists": [_dump(each) for each in lists]}
        return json.dumps(content, separators=(",", ":")).encode()

    @staticmethod
    def load(recorded: bytes, like: Endpoint) -> Ring:
        """Return what has been dumped.

        Args:
            like: A shard of this process: how it is spoken to (user, TLS, database) holds for all others.
        Raises:
            ValueError: It is not what :meth:`dump` returns.
        """
        try:
            content = json.loads(recorded)
            lists = [_load(each, like) for each in content["lists"]]
            ring = Ring(int(content["version"]), *lists)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a record of shards: {recorded[:200]!r}") from error
        if ring.version < FIRST or not _VERSION.fullmatch(ring.text) or bool(ring.step) != (ring.new is not None):
            raise ValueError(f"not a record of shards: {recorded[:200]!r}")
        return ring


def version_in(text: bytes) -> tuple[int, bytes]:
    """Return version and fingerprint that a lane records; the fingerprint is empty where none is said.

    Raises:
        ValueError: It is no such text.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"not a version of the list of shards: {text!r:.100}")
    return int(match[1]), match[2] or b""


def admits(mine: bytes, seen: bytes) -> bool:
    """Whether a lane that has recorded ``seen`` lets a caller of ``mine`` go on, as ``record.lua`` has it."""
    if mine == seen:
        return True
    try:
        (here, own), (newest, others) = version_in(mine), version_in(seen)
    except ValueError:
        return False
    return here >= newest - 1 and not (here == newest and own and others)


def moved(before: Shards, after: Shards) -> dict[tuple[str, str], int]:
    """Return how many slots go from one shard to another: (name, name) -> number."""
    found: dict[tuple[str, str], int] = {}
    for old, new in zip(before.placement.table, after.placement.table, strict=True):
        pair = (before.names[old], after.names[new])
        if pair[0] != pair[1]:
            found[pair] = found.get(pair, 0) + 1
    return found


def gained(before: Shards, after: Shards, name: str) -> list[bool]:
    """Return of each slot whether a shard gains it."""
    return [after.owner(slot) == name != before.owner(slot) for slot in range(SLOTS)]


def _dump(shards: Shards) -> dict[str, Any]:
    return {
        "placement": shards.strategy,
        "shards": [[endpoint.name, endpoint.weight, _place(endpoint)] for endpoint in shards.endpoints],
    }


def _place(endpoint: Endpoint) -> list[Any]:
    if endpoint.master:
        return [endpoint.master, [list(sentinel) for sentinel in endpoint.sentinels]]
    return [endpoint.path] if endpoint.path else [endpoint.host, endpoint.port]


def _load(dumped: dict[str, Any], like: Endpoint) -> Shards:
    endpoints: list[Endpoint] = []
    for name, weight, place in dumped["shards"]:
        if len(endpoints) == MOST_SHARDS:
            raise ValueError(f"more than {MOST_SHARDS} shards")
        bare = replace(like, name=_text(name), weight=int(weight), host="", port=0, path="", master="", sentinels=())
        if len(place) == 1:
            endpoint = replace(bare, path=_text(place[0]))
        elif isinstance(place[1], list):
            sentinels = tuple((_text(host), _port(port)) for host, port in place[1])
            endpoint = replace(bare, master=_text(place[0]), sentinels=sentinels)
        else:
            endpoint = replace(bare, host=_text(place[0]), port=_port(place[1]))
        endpoints.append(endpoint)
    return shards_of(str(dumped["placement"]), tuple(endpoints))


def _text(recorded: Any) -> str:
    """Return what errors and the log will show as it stands: a line end in it would forge a line there."""
    if not isinstance(recorded, str) or not 0 < len(recorded) <= _LONGEST or _FORGES.search(recorded):
        raise ValueError("not a name")
    return recorded


def _port(recorded: Any) -> int:
    if not isinstance(recorded, int) or not 0 < recorded <= _LAST_PORT:
        raise ValueError("not a port")
    return recorded
