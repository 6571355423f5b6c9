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
    """

    name: str
    source: bytes
    sha: bytes
    repeatable: bool

    def call(self, keys: Iterable[Any], arguments: Iterable[Any]) -> tuple[Any, ...]:
        """Return the command that runs it, as :class:`~nearcache.l2.driver.Exchange` takes it."""
        keys = tuple(keys)
        return (self, len(keys), *keys, *arguments)


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
    return Script(name, source, sha, name in _REPEATABLE)
