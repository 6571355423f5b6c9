"""The data of the Redis double, and the commands that nearcache uses, as Redis 7 carries them out.

``test_double.py`` compares it with a real server, command by command and script by script.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nearcache.l2.scripts import Script
from simulation.scripting import RedisError, engine
from simulation.streams import STREAMS

_WRONGTYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"
_OOM: Final = "OOM command not allowed when used memory > 'maxmemory'."
_INTEGER: Final = "ERR value is not an integer or out of range"

Words = list[bytes]


class Database:
    """Keys with values and expiry.

    Attributes:
        data: Key -> bytes, a dict for a hash, or a stream.
        expires: Key -> the millisecond at which it ends.
        now_ms: Set it before each command. A script sees one instant.
        full: Whether memory has run out.
        dirty: Keys that changed since somebody emptied it. A dict, because its order is the order of the changes.
        published: ``(channel, payload)``, likewise.
    """

    def __init__(self) -> None:
        self.data: dict[bytes, Any] = {}
        self.expires: dict[bytes, int] = {}
        self.now_ms = 0
        self.full = False
        self.dirty: dict[bytes, None] = {}
        self.published: list[tuple[bytes, bytes]] = []
        self._in_script = False
        self._has_written = False

    def execute(self, name: bytes, words: Words) -> Any:
        """Carry out one command: bytes, int, None or a list of these.

        Raises:
            RedisError: Redis would have answered with this error.
        """
        found = COMMANDS.get(name)
        if found is None:
            raise RedisError(f"ERR unknown command '{name.decode()}'")
        run, least, most, kind = found
        if not least <= len(words) <= most:
            raise RedisError(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        if kind:
            if kind == _GROWS and self.full and not (self._in_script and self._has_written):
                raise RedisError(_OOM)
            self._has_written = True
        return run(self, words)

    def evaluate(self, source: bytes, count: int, words: tuple[bytes, ...]) -> Any:
        """Run a script. Raises RedisError, and then what it did before stays done."""
        self._in_script, self._has_written = True, False
        try:
            return engine().run(self.execute, source, count, words)
        finally:
            self._in_script = False

    def command(self, command: tuple[Any, ...]) -> Any:
        """Carry out a command as steps ask for it; an error is returned as the RedisError."""
        first, *rest = command
        words = [word if word.__class__ is bytes else str(word).encode() for word in rest]
        try:
            if first.__class__ is Script:
                return self.evaluate(first.source, int(rest[0]), tuple(words[1:]))
            return self.execute(first if first.__class__ is bytes else first.encode(), words)
        except RedisError as error:
            return error

    # -- inside

    def live(self, key: bytes) -> Any:
        """The value of a key, or None."""
        end = self.expires.get(key)
        if end is not None and end <= self.now_ms:
            self.remove(key)
            return None
        return self.data.get(key)

    def remove(self, key: bytes) -> bool:
        """Remove a key; return whether it was there, alive or not."""
        self.expires.pop(key, None)
        self.dirty[key] = None
        return self.data.pop(key, None) is not None

    def text(self, key: bytes) -> bytes | None:
        """The value of a key, which must be neither a hash nor a stream."""
        value = self.live(key)
        if value is not None and value.__class__ is not bytes:
            raise RedisError(_WRONGTYPE)
        return value

    def hash(self, key: bytes) -> dict[bytes, bytes] | None:
        """The value of a key, which must be a hash."""
        value = self.live(key)
        if value is not None and value.__class__ is not dict:
            raise RedisError(_WRONGTYPE)
        return value

    def put(self, key: bytes, value: Any, end: int | None) -> None:
        """Give a key a value and an end, whatever it had before."""
        self.data[key] = value
        self.dirty[key] = None
        if end is None:
            self.expires.pop(key, None)
        else:
            self.expires[key] = end


def copied(value: Any) -> Any:
    """A value that goes on by itself: bytes do not change."""
    return value if value.__class__ is bytes or value is None else value.copy()


def _integer(word: bytes) -> int:
    try:
        number = int(word)
    except ValueError:
        raise RedisError(_INTEGER) from None
    if b"%d" % number != word or not -(1 << 63) <= number < 1 << 63:
        raise RedisError(_INTEGER)
    return number


def _get(db: Database, words: Words) -> Any:
    return db.text(words[0])


def _mget(db: Database, words: Words) -> Any:
    values = map(db.live, words)
    return [value if value.__class__ is bytes else None for value in values]


def _set(db: Database, words: Words) -> Any:
    key, value, *options = words
    end, mode = None, b""
    while options:
        option = options.pop(0).upper()
        if option in (b"PX", b"EX") and options:
            life = _integer(options.pop(0)) * (1000 if option == b"EX" else 1)
            if life <= 0:
                raise RedisError("ERR invalid expire time in 'set' command")
            end = db.now_ms + life
        elif option in (b"NX", b"XX") and not mode:
            mode = option
        else:
            raise RedisError("ERR syntax error")
    if mode and (db.live(key) is None) != (mode == b"NX"):
        return None
    db.put(key, value, end)
    return b"OK"


def _pttl(db: Database, words: Words) -> int:
    if db.live(words[0]) is None:
        return -2
    end = db.expires.get(words[0])
    return -1 if end is None else end - db.now_ms


def _pexpire(db: Database, words: Words) -> int:
    key, life = words[0], _integer(words[1])
    if db.live(key) is None:
        return 0
    if life <= 0:
        db.remove(key)
    else:
        db.put(key, db.data[key], db.now_ms + life)
    return 1


def _persist(db: Database, words: Words) -> int:
    if db.live(words[0]) is None or words[0] not in db.expires:
        return 0
    db.put(words[0], db.data[words[0]], None)
    return 1


def _exists(db: Database, words: Words) -> int:
    return sum(db.live(key) is not None for key in words)


def _unlink(db: Database, words: Words) -> int:
    return sum(db.live(key) is not None and db.remove(key) for key in words)


def _rename(db: Database, words: Words) -> bytes:
    source, target = words
    value = db.live(source)
    if value is None:
        raise RedisError("ERR no such key")
    end = db.expires.get(source)
    if source != target:
        db.remove(source)
    db.put(target, value, end)
    return b"OK"


def _getrange(db: Database, words: Words) -> bytes:
    value = db.text(words[0]) or b""
    start, end = (_integer(word) for word in words[1:])
    if start < 0 and end < 0 and start > end:
        return b""
    start, end = (max(each + len(value), 0) if each < 0 else each for each in (start, end))
    return value[start : end + 1]


def _setrange(db: Database, words: Words) -> int:
    key, start, piece = words[0], _integer(words[1]), words[2]
    value = db.text(key) or b""
    if start < 0:
        raise RedisError("ERR offset is out of range")
    if piece:
        padded = value.ljust(start, b"\0")
        db.put(key, padded[:start] + piece + padded[start + len(piece) :], db.expires.get(key))
    return len(db.text(key) or b"")


def _strlen(db: Database, words: Words) -> int:
    return len(db.text(words[0]) or b"")


def _hset(db: Database, words: Words) -> int:
    key, *fields = words
    if len(fields) % 2:
        raise RedisError("ERR wrong number of arguments for 'hset' command")
    held = db.hash(key)
    if held is None:
        held = {}
        db.put(key, held, None)
    before = len(held)
    held.update(zip(fields[::2], fields[1::2], strict=True))
    db.dirty[key] = None
    return len(held) - before


def _hget(db: Database, words: Words) -> Any:
    return (db.hash(words[0]) or {}).get(words[1])


def _hmget(db: Database, words: Words) -> list[Any]:
    held = db.hash(words[0]) or {}
    return [held.get(field) for field in words[1:]]


def _hdel(db: Database, words: Words) -> int:
    held = db.hash(words[0])
    if held is None:
        return 0
    gone = sum(held.pop(field, None) is not None for field in words[1:])
    if gone:
        db.dirty[words[0]] = None
    if not held:
        db.remove(words[0])
    return gone


def _hincrby(db: Database, words: Words) -> int:
    step, held = _integer(words[2]), db.hash(words[0])
    try:
        number = _integer((held or {}).get(words[1], b"0")) + step
    except RedisError:
        raise RedisError("ERR hash value is not an integer") from None
    if held is None:
        held = {}
        db.put(words[0], held, None)
    held[words[1]] = b"%d" % number
    db.dirty[words[0]] = None
    return number


def _scan(db: Database, words: Words) -> list[Any]:
    """All at once: what is found in how many pieces is up to the server."""
    cursor, match, pattern, *_ = words
    if cursor != b"0" or match.upper() != b"MATCH" or pattern[-1:] != b"*":
        raise RedisError("ERR syntax error")
    return [b"0", [key for key in list(db.data) if key.startswith(pattern[:-1]) and db.live(key) is not None]]


def _publish(db: Database, words: Words) -> int:
    db.published.append((words[0], words[1]))
    return 0


def _time(db: Database, _words: Words) -> list[bytes]:
    return [b"%d" % (db.now_ms // 1000), b"%d" % (db.now_ms % 1000 * 1000)]


def _ping(db: Database, words: Words) -> bytes:
    return words[0] if words else b"PONG"


_READS, _WRITES, _GROWS = 0, 1, 2
_ANY: Final = 1 << 20

#: Name -> what runs it, fewest and most arguments, and whether it writes or may need memory.
COMMANDS: Final[dict[bytes, tuple[Callable[[Database, Words], Any], int, int, int]]] = {
    b"GET": (_get, 1, 1, _READS),
    b"MGET": (_mget, 1, _ANY, _READS),
    b"SET": (_set, 2, 8, _GROWS),
    b"PTTL": (_pttl, 1, 1, _READS),
    b"PEXPIRE": (_pexpire, 2, 2, _WRITES),
    b"PERSIST": (_persist, 1, 1, _WRITES),
    b"EXISTS": (_exists, 1, _ANY, _READS),
    b"UNLINK": (_unlink, 1, _ANY, _WRITES),
    b"DEL": (_unlink, 1, _ANY, _WRITES),
    b"RENAME": (_rename, 2, 2, _WRITES),
    b"GETRANGE": (_getrange, 3, 3, _READS),
    b"SETRANGE": (_setrange, 3, 3, _GROWS),
    b"STRLEN": (_strlen, 1, 1, _READS),
    b"HSET": (_hset, 3, _ANY, _GROWS),
    b"HGET": (_hget, 2, 2, _READS),
    b"HMGET": (_hmget, 2, _ANY, _READS),
    b"HDEL": (_hdel, 2, _ANY, _WRITES),
    b"HINCRBY": (_hincrby, 3, 3, _GROWS),
    b"PUBLISH": (_publish, 2, 2, _READS),
    b"SPUBLISH": (_publish, 2, 2, _READS),
    b"SCAN": (_scan, 3, 5, _READS),
    b"PING": (_ping, 0, 1, _READS),
    b"TIME": (_time, 0, 0, _READS),
    **STREAMS,
}
