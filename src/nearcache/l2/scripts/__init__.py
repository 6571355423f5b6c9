"""The server side: Lua scripts, each with the prelude ``lane.lua`` in front. The ``.lua`` files say what they do.

They are sent as EVALSHA and, where the server does not have one yet, once as EVAL. Every key a script touches is among
its KEYS; the channel follows from the lane key.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

#: All scripts, by name.
NAMES: Final = ("set", "invalidate", "clear", "fence", "fill", "heartbeat")
# What passes through Lua is copied twice, so larger envelopes go round it. Redis 7 gains from 4 KB on, Redis 6.2 from
# about 64 KB.
_STAGE_BYTES: Final = 16_384
_STAGE_MS: Final = b"10000"
# Where the envelopes begin among the arguments of the scripts that have some.
_ENVELOPES: Final = {"set": 6, "fill": 6}
_WID: Final = 2

# What may be sent again when an answer was lost. Running `invalidate`, `clear` (its generation is the wid), `heartbeat`
# and `fence` (it finds its own mark) twice leaves what running them once leaves. A repeated `set` would not: between
# the two runs another process may have written or invalidated the key, and readers would see the older value come back.
# A repeated `fill` finds its fence gone and would report LOST for a value that it has stored.
_REPEATABLE: Final = frozenset({"invalidate", "clear", "heartbeat", "fence"})


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One script.

    Attributes:
        name: One of :data:`NAMES`.
        source: What EVAL takes, UTF-8.
        sha: What EVALSHA takes: 40 hex digits.
        repeatable: Whether running it twice does no harm.
        envelopes: Where its envelopes begin among the arguments; 0: it has none.
    """

    name: str
    source: bytes
    sha: bytes
    repeatable: bool
    envelopes: int

    def call(self, keys: Iterable[Any], arguments: Iterable[Any]) -> tuple[Any, ...]:
        """Return the command that runs it, as :class:`~nearcache.l2.driver.Exchange` takes it."""
        keys = tuple(keys)
        return (self, len(keys), *keys, *arguments)

    def is_large(self, command: tuple[Any, ...]) -> bool:
        """Return whether this command, which runs the script, has an envelope to be staged."""
        return self.envelopes > 0 and max(map(len, command[2 + command[1] + self.envelopes :])) >= _STAGE_BYTES

    def stage(self, command: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        """Return the commands to send instead: a SET for each large envelope, and last the script without them.

        The staging keys bear the write's id, so they are this write's own, and last a few seconds. The script renames
        them into place.
        """
        count = command[1]
        keys, arguments = list(command[2 : 2 + count]), list(command[2 + count :])
        lane = keys.pop()
        commands: list[tuple[Any, ...]] = []
        for place in range(self.envelopes, len(arguments)):
            if len(arguments[place]) >= _STAGE_BYTES:
                keys.append(b"%bs:%b:%d" % (lane[:-1], arguments[_WID], place - self.envelopes))
                commands.append((b"SET", keys[-1], arguments[place], b"PX", _STAGE_MS))
                arguments[place] = b""
        return [*commands, (self, len(keys) + 1, *keys, lane, *arguments)]


@functools.cache
def load(name: str) -> Script:
    """Return the script of that name, read from the package once.

    Raises:
        KeyError: There is no such script.
    """
    if name not in NAMES:
        raise KeyError(name)
    files = resources.files(__name__)
    source = b"".join((files / f"{part}.lua").read_bytes() for part in ("lane", name))
    sha = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
    return Script(name, source, sha, name in _REPEATABLE, _ENVELOPES.get(name, 0))
