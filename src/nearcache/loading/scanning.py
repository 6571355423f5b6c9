"""Walking through the keys that L2 holds, some at a time. Steps only: no I/O here.

A server is asked for some names and then for the headers of what they name, for a name says nothing of whether the
value counts: it may be of a generation that was cleared, have a tag that was changed, or say that there is no value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .._store import Store
from ..codecs import peek_absence, peek_ids, peek_own, peek_tags
from ..errors import DecodeError, ShardError
from ..keys import decode_key, slot_of
from ..l2 import Command, Exchange, Reply
from .replies import TAGGED_RANGE, answer, errors_in, is_full
from .steps import Steps
from .tagging import are_current
from .tier import Tier

#: How many names a server looks at before it answers. It does nothing else meanwhile.
_COUNT: Final = b"512"
#: What follows a lane's number in the names of its values.
_TAIL: Final = b"}:v:"
#: What means something in a pattern of SCAN.
_SPECIAL: Final = re.compile(rb"[*?\[\]\\]")


class _Part(NamedTuple):
    """A part of a walk: what one server has.

    Attributes:
        lanes: Whose keys are looked for.
        via: The lane whose server it is.
        identity: Of the server; 0: unknown.
        is_last: Whether these lanes have been walked through after it.
    """

    lanes: tuple[int, ...]
    via: int
    identity: int = 0
    is_last: bool = True

    @property
    def is_whole(self) -> bool:
        """Whether all that its lanes have was there when the walk was planned."""
        return self.identity != 0 and self.via in self.lanes


class Walk:
    """Where a walk through all lanes of a cache is. Shards may come and go meanwhile, and lanes move between nodes.

    Lanes that are at one node are walked through together. What they have is known if they were there, as a whole, from
    the beginning to the end; a lane of which that is not so is walked through again.

    Attributes:
        part: What it is in the middle of.
        cursor: Where the server is to go on; None: the part is over.
        identity: Of the server; a cursor means nothing to another.
        ahead: The parts that come after this one, as far as they have been planned.
    """

    def __init__(self) -> None:
        self._done: set[int] = set()
        self.part = _Part((), -1)
        self.cursor: bytes | None = None
        self.identity = 0
        self.ahead: list[_Part] = []

    def goes_on(self, tier: Tier) -> bool:
        """Whether there is more to come."""
        if self.cursor is not None and not set(self.part.lanes) <= set(tier.active):
            self.give_up()
        return self.cursor is not None or bool(self.left(tier))

    def left(self, tier: Tier) -> list[int]:
        """Return the lanes that have not been walked through."""
        return [lane for lane in tier.active if lane not in self._done]

    def begin(self) -> None:
        """Go on with the next part."""
        self.part, self.cursor = self.ahead.pop(0), b"0"
        self.identity = self.part.identity

    def end(self, lanes: Sequence[int]) -> None:
        """Be done with the part, and with these lanes."""
        self._done.update(lanes)
        self.cursor = None

    def give_up(self) -> None:
        """Plan anew. What has been found is found again."""
        self.cursor = None
        self.ahead.clear()


def scan(tier: Tier, store: Store[Any, Any], walk: Walk, start: bytes) -> Steps[list[Any]]:
    """Go on with a walk; return some keys that have a value, as the cache holds them, or none.

    Args:
        start: What their encoding begins with.
    Raises:
        ShardError: A shard, or that of a tag, did not answer.
    """
    if walk.cursor is None:
        if not tier.clustered:
            lane = walk.left(tier)[0]
            walk.ahead = [_Part((lane,), lane)]
        elif not walk.ahead:
            # A call of its own: a node that does not answer takes all of its time.
            walk.ahead = yield from _plan(tier, walk.left(tier))
            return []
        walk.begin()
    part, cursor = walk.part, walk.cursor
    assert cursor is not None
    command = (b"SCAN", cursor, b"MATCH", _pattern(tier, part.lanes, start), b"COUNT", _COUNT)
    reply = answer((yield [Exchange(part.via, [command])])[0])
    if cursor == b"0" and not part.identity:
        walk.identity = reply.identity
    if reply.identity != walk.identity:
        walk.give_up()
        return []
    walk.cursor, found = reply.values[0]
    keys = yield from _with_values(tier, store, _by_lane(tier, part.lanes, found))
    if walk.cursor == b"0":
        lanes: Sequence[int] = part.lanes if part.is_last else ()
        walk.end((yield from _still_there(tier, part)) if part.is_whole else lanes)
    return keys


def _plan(tier: Tier, lanes: Sequence[int]) -> Steps[list[_Part]]:
    """Return how these lanes of a cluster are walked through: as a part for each node that answers.

    A lane of which some keys may be at another node, for its slot is on its way, is looked for where it comes from,
    and then everywhere else: so a key that leaves one node is met at the next. If the servers do not say who they are,
    each lane is walked through by itself.

    Raises:
        ShardError: None of these lanes' nodes has answered.
    """
    at: dict[int, list[int]] = {}
    failed: list[ShardError] = []
    replies = yield [_whereabouts(tier, lane) for lane in tier.active]
    for lane, reply in zip(tier.active, replies, strict=True):
        if errors := errors_in(reply):
            failed += errors if lane in lanes else []
        else:
            at.setdefault(reply.identity, []).append(lane)
    parts: list[_Part] = []
    split = [lane for lane in at.pop(0, []) if lane in lanes]
    for lane in split:
        others = [_Part((lane,), there[0], identity, is_last=False) for identity, there in at.items()]
        parts += [_Part((lane,), lane, is_last=False), *others]
        parts[-1] = parts[-1]._replace(is_last=True)
    for identity, there in at.items():
        if ours := tuple(lane for lane in there if lane in lanes):
            parts.append(_Part(ours, ours[0], identity))
    if not parts:
        raise failed[0]
    return parts


def _still_there(tier: Tier, part: _Part) -> Steps[Sequence[int]]:
    """Return which lanes were at the server, as a whole, to the end."""
    replies = yield [_whereabouts(tier, lane) for lane in part.lanes]
    pairs = zip(part.lanes, replies, strict=True)
    return [lane for lane, reply in pairs if isinstance(reply, Reply) and reply.identity == part.identity]


def _whereabouts(tier: Tier, lane: int) -> Exchange:
    """What is answered by who has the lane; a server that gives it away leads on, for there is no such key."""
    return Exchange(lane, [(b"GETRANGE", tier.names[lane].lane_key + b"?", b"0", b"0")])


def _pattern(tier: Tier, lanes: Sequence[int], start: bytes) -> bytes:
    prefix = tier.names[lanes[0]].value_prefix
    if len(lanes) == 1:
        return _quoted(prefix + start) + b"*"
    return b"%b*%b%b*" % (_quoted(_head(prefix)), _TAIL, _quoted(start))


def _quoted(name: bytes) -> bytes:
    return _SPECIAL.sub(rb"\\\g<0>", name)


def _head(prefix: bytes) -> bytes:
    """Return what the names of all lanes of a cluster have in front of their number: ``nc:{shop:``."""
    return prefix[: prefix.rindex(b":", 0, -len(_TAIL)) + 1]


def _by_lane(tier: Tier, lanes: Sequence[int], found: Sequence[bytes]) -> dict[int, list[bytes]]:
    """Return the encoded keys of these lanes, by lane.

    What lies where another shard has the key by now is nobody's, and ``!`` is for records of nearcache's own.
    """
    of_prefix = {tier.names[lane].value_prefix: lane for lane in lanes}
    first = tier.names[lanes[0]].value_prefix
    least = len(first) if len(lanes) == 1 else len(_head(first))
    ours: dict[int, list[bytes]] = {}
    for name in found:
        end = len(first) if len(lanes) == 1 else name.find(_TAIL, least) + len(_TAIL)
        lane, key = of_prefix.get(name[:end]), name[end:]
        if lane is None or tier.table[slot_of(key)] != lane or key.startswith(b"!") or tier.is_owed(lane, key):
            continue
        ours.setdefault(lane, []).append(key)
    return ours


def _with_values(tier: Tier, store: Store[Any, Any], by_lane: dict[int, list[bytes]]) -> Steps[list[Any]]:
    """Return those keys, decoded, whose values count."""
    keys: list[Any] = []
    if not by_lane:
        return keys
    replies = yield [Exchange(lane, _headers(tier, lane, encoded)) for lane, encoded in by_lane.items()]
    for (lane, encoded), reply in zip(by_lane.items(), replies, strict=True):
        values = answer(reply).values
        generation = tier.generation_in(lane, values[-1])
        for key, header in zip(encoded, values, strict=False):
            try:
                if peek_ids(header)[1] != generation or peek_absence(header) or peek_own(header):
                    continue
                tags = peek_tags(header)
                if not tags or (yield from are_current(tier, store, tags)):
                    keys.append(decode_key(key))
            except DecodeError:
                continue
            except ShardError as error:
                if not is_full(error):
                    raise  # else a tag has no record, and there is no room for one: what states an earlier one is dead
    return keys


def _headers(tier: Tier, lane: int, encoded: Sequence[bytes]) -> list[Command]:
    commands: list[Command] = [(b"GETRANGE", tier.names[lane].value(key), *TAGGED_RANGE) for key in encoded]
    return [*commands, tier.ask_generation(lane)]
