"""The server side: Lua scripts. The ``.lua`` files say what they do; a line ``-- include x.lua`` stands for that file.

What a script includes costs it time in every call, so it includes what it needs, and the rarer parts behind the point
where the commonest calls have returned.

They are sent as EVALSHA and, where the server does not have one yet, once as EVAL. Every key a script touches is among
its KEYS; the channel follows from the lane key.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final

#: All scripts, by name.
NAMES: Final = (
    "set", "invalidate", "clear", "lease", "fill", "abort", "renew", "adopt", "heartbeat", "touch", "take", "unchanged",
    "extend", "dequeue", "written", "buried", "requeue", "rebury", "hurry", "ring", "lock",
)  # fmt: skip
#: Envelopes from this size on are staged. Redis 7 gains from 4 KB on, Redis 6.2 from about 64 KB.
STAGE_BYTES: Final = 16_384
#: The same, and for how many milliseconds.
STAGING: Final = (STAGE_BYTES, 10_000)
_INCLUDE: Final = re.compile(rb"^ *-- include ([a-z_]+\.lua)\n", re.MULTILINE)

# What may be sent again when an answer was lost. Running `invalidate`, `clear` (which finds that it was done),
# `heartbeat`, `abort`, `renew`, `adopt`, `hurry`, `ring` and `lock` twice leaves what running them once leaves. A
# repeated `set` would not: between the two runs another process may have written or invalidated the key, and readers
# would see the older value come back. A repeated `fill` finds its lease gone and would report LOST for a value that
# it has stored; a repeated `lease` would wait for itself; a repeated `take` would find nothing, a repeated
# `unchanged` no lease, and a repeated `touch` or `extend` might find another's value. A repeated `dequeue` would pass
# over what the first was given, and a repeated `buried` or `requeue` finds the record gone, and a repeated
# `rebury` makes two of it; a repeated `written` finds nothing left to do.
_REPEATABLE: Final = frozenset(
    {"invalidate", "clear", "heartbeat", "abort", "renew", "adopt", "written", "hurry", "ring", "lock"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One script.

    Attributes:
        name: One of :data:`NAMES`.
        source: What EVAL takes, UTF-8.
        sha: What EVALSHA takes: 40 hex digits.
        repeatable: Whether running it twice does no harm.
        head: The first two words of running it by its hash, as they are sent.
    """

    name: str
    source: bytes
    sha: bytes
    repeatable: bool
    head: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        head = b"$7\r\nEVALSHA\r\n$%d\r\n%b\r\n" % (len(self.sha), self.sha)
        object.__setattr__(self, "head", head)  # the class is frozen

    def call(self, keys: Iterable[Any], arguments: Iterable[Any]) -> tuple[Any, ...]:
        """Return the command that runs it, as :class:`~nearcache.l2.driver.Exchange` takes it."""
        keys = tuple(keys)
        return (self, len(keys), *keys, *arguments)


def stage(
    prefix: bytes, wid: bytes, envelopes: Sequence[bytes]
) -> tuple[list[tuple[Any, ...]], list[bytes], list[bytes]]:
    """Take the large envelopes out of a `set` or `fill`: what passes through Lua costs many times a plain SET.

    They are sent by commands of their own, under keys that last a few seconds, and the script renames those.

    Args:
        prefix: The lane's.
        wid: The write's, 16 hex digits; it makes the staging keys this write's own.
        envelopes: All of the script.
    Returns:
        The commands to send before the script, in the same exchange; the staging keys, which stand before the lane
        key among the script's; and the envelopes as the script gets them. The script's answer is the exchange's last.
    """
    commands: list[tuple[Any, ...]] = []
    keys: list[bytes] = []
    remaining = list(envelopes)
    for place, envelope in enumerate(envelopes):
        if len(envelope) >= STAGE_BYTES:
            keys.append(b"%bs:%b:%d" % (prefix, wid, place))
            commands.append((b"SET", keys[-1], envelope, b"PX", b"%d" % STAGING[1]))
            remaining[place] = b""
    return commands, keys, remaining


@functools.cache
def load(name: str) -> Script:
    """Return the script of that name, read from the package once.

    Raises:
        KeyError: There is no such script.
    """
    if name not in NAMES:
        raise KeyError(name)
    source = _read(f"{name}.lua")
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return Script(name, source, sha, name in _REPEATABLE)


def _read(file: str) -> bytes:
    text = (resources.files(__name__) / file).read_bytes()
    return _INCLUDE.sub(lambda line: _read(line[1].decode()), text)
