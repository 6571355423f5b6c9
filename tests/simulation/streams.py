"""The streams of the Redis double: what a queue with one group of readers, and one reader, needs of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from simulation.scripting import RedisError

if TYPE_CHECKING:
    from simulation.database import Database

_WRONGTYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
_INVALID: Final = "ERR Invalid stream ID specified as stream command argument"

Words = list[bytes]
Place = tuple[int, int]


class Group:
    """Readers of a stream: how far they have come, and how often each record that is not settled was given out."""

    def __init__(self, last: Place) -> None:
        self.last = last
        self.given: dict[Place, int] = {}

    def copy(self) -> Group:
        """Another one that is the same."""
        new = Group(self.last)
        new.given = dict(self.given)
        return new


class Stream:
    """Records, by their ids, the oldest first."""

    def __init__(self) -> None:
        self.records: dict[Place, Words] = {}
        self.last: Place = (0, 0)
        self.groups: dict[bytes, Group] = {}

    def copy(self) -> Stream:
        """Another one that is the same. Records do not change."""
        new = Stream()
        new.records, new.last = dict(self.records), self.last
        new.groups = {name: group.copy() for name, group in self.groups.items()}
        return new


def _text(place: Place) -> bytes:
    return b"%d-%d" % place


def _place(word: bytes, missing: int = 0) -> Place:
    first, dash, second = word.partition(b"-")
    if not first.isdigit() or (dash and not second.isdigit()):
        raise RedisError(_INVALID)
    return int(first), int(second) if dash else missing


def _bounds(start: bytes, end: bytes) -> tuple[Place, Place]:
    """The first and the last id of a range."""
    most = (1 << 64) - 1
    first = (0, 0) if start == b"-" else _place(start.removeprefix(b"("))
    last = (most, most) if end == b"+" else _place(end.removeprefix(b"("), most)
    if start.startswith(b"("):
        first = (first[0], first[1] + 1)
    if end.startswith(b"("):
        last = (last[0], last[1] - 1)
    return first, last


def stream(db: Database, key: bytes) -> Stream | None:
    """The stream under a key."""
    value = db.live(key)
    if value is not None and value.__class__ is not Stream:
        raise RedisError(_WRONGTYPE)
    return value


def _group(db: Database, key: bytes, name: bytes) -> tuple[Stream, Group]:
    held = stream(db, key)
    if held is None or name not in held.groups:
        raise RedisError(f"NOGROUP No such key '{key.decode()}' or consumer group '{name.decode()}'")
    return held, held.groups[name]


def _xadd(db: Database, words: Words) -> bytes:
    key, place, *fields = words
    if len(fields) % 2:
        raise RedisError("ERR wrong number of arguments for 'xadd' command")
    held = stream(db, key)
    if place != b"*":
        raise RedisError(_INVALID)
    if held is None:
        held = Stream()
        db.put(key, held, None)
    held.last = max((db.now_ms, 0), (held.last[0], held.last[1] + 1))
    held.records[held.last] = fields
    db.dirty[key] = None
    return _text(held.last)


def _xlen(db: Database, words: Words) -> int:
    held = stream(db, words[0])
    return 0 if held is None else len(held.records)


def _most(words: Words) -> int:
    if words and (len(words) != 2 or words[0].upper() != b"COUNT"):
        raise RedisError("ERR syntax error")
    return int(words[1]) if words else 1 << 62


def _xrange(db: Database, words: Words) -> list[Any]:
    key, start, end, *rest = words
    (first, last), most, held = _bounds(start, end), _most(rest), stream(db, key)
    found = [] if held is None else [place for place in held.records if first <= place <= last]
    return [] if held is None else [[_text(place), list(held.records[place])] for place in found[:most]]


def _xrevrange(db: Database, words: Words) -> list[Any]:
    key, end, start, *rest = words
    return _xrange(db, [key, start, end])[::-1][: _most(rest)]


def _xdel(db: Database, words: Words) -> int:
    held, places = stream(db, words[0]), [_place(word) for word in words[1:]]
    gone = 0 if held is None else sum(held.records.pop(place, None) is not None for place in places)
    if gone:
        db.dirty[words[0]] = None
    return gone


def _xack(db: Database, words: Words) -> int:
    held, places = stream(db, words[0]), [_place(word) for word in words[2:]]
    if held is None or words[1] not in held.groups:
        return 0
    settled = sum(held.groups[words[1]].given.pop(place, None) is not None for place in places)
    if settled:
        db.dirty[words[0]] = None
    return settled


def _xgroup(db: Database, words: Words) -> bytes:
    what, key, name, start = words
    if what.upper() != b"CREATE" or start == b"$":
        raise RedisError("ERR syntax error")
    held = stream(db, key)
    if held is None:
        raise RedisError("ERR The XGROUP subcommand requires the key to exist.")
    if name in held.groups:
        raise RedisError("BUSYGROUP Consumer Group name already exists")
    held.groups[name] = Group(_place(start))
    db.dirty[key] = None
    return b"OK"


def _xreadgroup(db: Database, words: Words) -> list[Any] | None:
    """Records that nobody has been given, from one stream."""
    if [words[0].upper(), words[3].upper(), words[5].upper(), words[7]] != [b"GROUP", b"COUNT", b"STREAMS", b">"]:
        raise RedisError("ERR syntax error")
    held, group = _group(db, words[6], words[1])
    fresh = [place for place in held.records if place > group.last][: int(words[4])]
    if not fresh:
        return None
    for place in fresh:
        group.given[place] = 1
    group.last = fresh[-1]
    db.dirty[words[6]] = None
    return [[words[6], [[_text(place), list(held.records[place])] for place in fresh]]]


def _xpending(db: Database, words: Words) -> list[Any]:
    """What has been given out and is not settled: id, reader, for how long, how often."""
    key, name, start, end, count = words
    (first, last), (_, group) = _bounds(start, end), _group(db, key, name)
    found = sorted(place for place in group.given if first <= place <= last)[: int(count)]
    return [[_text(place), b"w", 0, group.given[place]] for place in found]


def _xclaim(db: Database, words: Words) -> list[Any]:
    """Give a record out once more."""
    key, name, _, _, *places = words
    held, group = _group(db, key, name)
    claimed = []
    for place in map(_place, places):
        if place in group.given and place in held.records:
            group.given[place] += 1
            claimed.append([_text(place), list(held.records[place])])
    db.dirty[key] = None
    return claimed


#: Name -> what runs it, fewest and most arguments, and whether it writes (1) or may need memory (2). See ``database``.
STREAMS: Final[dict[bytes, tuple[Any, int, int, int]]] = {
    b"XADD": (_xadd, 4, 1 << 20, 2),
    b"XLEN": (_xlen, 1, 1, 0),
    b"XRANGE": (_xrange, 3, 5, 0),
    b"XREVRANGE": (_xrevrange, 3, 5, 0),
    b"XDEL": (_xdel, 2, 1 << 20, 1),
    b"XACK": (_xack, 3, 1 << 20, 1),
    b"XGROUP": (_xgroup, 4, 4, 2),
    b"XREADGROUP": (_xreadgroup, 8, 8, 1),
    b"XPENDING": (_xpending, 5, 5, 0),
    b"XCLAIM": (_xclaim, 5, 1 << 20, 1),
}
