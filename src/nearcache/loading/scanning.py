"""Walking through the keys that L2 holds, some at a time. Steps only: no I/O here.

A server is asked for some names and then for the headers of what they name, for a name says nothing of whether the
value counts: it may be of a generation that was cleared, have a tag that was changed, or say that there is no value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .._store import Store
from ..codecs import peek_absence, peek_ids, peek_tags
from ..errors import DecodeError
from ..keys import decode_key, slot_of
from ..l2 import Exchange
from .replies import TAGGED_RANGE, answer
from .steps import Steps
from .tagging import are_current
from .tier import Tier

#: How many names a server looks at before it answers. It does nothing else meanwhile.
_COUNT: Final = b"512"
#: What means something in a pattern of SCAN.
_SPECIAL: Final = re.compile(rb"[*?\[\]\\]")


class Reached(NamedTuple):
    """How far a walk through a lane has come.

    Attributes:
        cursor: Where the server is to go on; ``b"0"``: at the beginning.
        identity: Of the server. The cursor means nothing to another.
    """

    cursor: bytes = b"0"
    identity: int = 0


class Walk:
    """Where a walk through all lanes of a cache is. The list of shards may change meanwhile."""

    def __init__(self) -> None:
        self._done: set[int] = set()
        self._lane = -1
        self._reached: Reached | None = None

    def next(self, tier: Tier) -> tuple[int, Reached] | None:
        """Return where to go on: a lane, and how far the walk is in it; None at the end."""
        if self._reached is None or self._lane not in tier.active:
            self._done.add(self._lane)
            self._lane = next((lane for lane in tier.active if lane not in self._done), -1)
            self._reached = Reached()
        return None if self._lane < 0 else (self._lane, self._reached)

    def went(self, reached: Reached | None) -> None:
        """Note how far it is now; None: at the end of the lane."""
        self._reached = reached


def scan(
    tier: Tier, store: Store[Any, Any], lane: int, reached: Reached, start: bytes
) -> Steps[tuple[Reached | None, list[Any]]]:
    """Return some keys of a lane that have a value, as the cache holds them, and how far the walk is; None: at its end.

    Args:
        start: What their encoding begins with.
    Raises:
        ShardError: The shard, or that of a tag, did not answer.
    """
    names = tier.names[lane]
    pattern = _SPECIAL.sub(rb"\\\g<0>", names.value_prefix + start) + b"*"
    command = (b"SCAN", reached.cursor, b"MATCH", pattern, b"COUNT", _COUNT)
    reply = answer((yield [Exchange(lane, [command])])[0])
    if reached.cursor != b"0" and reply.identity != reached.identity:
        return Reached(), []
    cursor, found = reply.values[0]
    # What lies where another shard has the key by now is nobody's, and `!` is for records of nearcache's own.
    encoded = [name[len(names.value_prefix) :] for name in found]
    ours = [key for key in encoded if tier.table[slot_of(key)] == lane and not key.startswith(b"!")]
    keys = yield from _with_values(tier, store, lane, [key for key in ours if not tier.is_owed(lane, key)])
    return (None if cursor == b"0" else Reached(cursor, reply.identity)), keys


def _with_values(tier: Tier, store: Store[Any, Any], lane: int, encoded: Sequence[bytes]) -> Steps[list[Any]]:
    """Return those keys, decoded, whose values count."""
    if not encoded:
        return []
    commands: list[Any] = [(b"GETRANGE", tier.names[lane].value(key), *TAGGED_RANGE) for key in encoded]
    reply = answer((yield [Exchange(lane, [*commands, tier.ask_generation(lane)])])[0])
    generation = tier.generation_in(lane, reply.values[-1])
    keys = []
    for key, header in zip(encoded, reply.values, strict=False):
        try:
            if peek_ids(header)[1] != generation or peek_absence(header):
                continue
            tags = peek_tags(header)
            if not tags or (yield from are_current(tier, store, tags)):
                keys.append(decode_key(key))
        except DecodeError:
            continue
    return keys
