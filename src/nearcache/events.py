"""What is told of entries: the vocabulary of :meth:`Cache.listen`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from .errors import ConfigError

#: What became of an entry; ``cleared`` and ``missed`` concern all entries.
EventKind = Literal["created", "updated", "removed", "expired", "evicted", "cleared", "missed"]
#: Why.
EventCause = Literal["stored", "loaded", "invalidated", "dropped", "expired", "evicted", "cleared", "lost", "overflow"]
#: Whose doing it was: this process's, or another's.
EventOrigin = Literal["local", "remote"]

KINDS: Final[frozenset[str]] = frozenset(get_args(EventKind))
#: What is told unless something else is asked for: what L1 gives up is still in L2.
USUAL: Final[frozenset[str]] = KINDS - {"evicted"}
#: Events that concern no single key.
WHOLE: Final[frozenset[str]] = frozenset({"cleared", "missed"})


@dataclass(frozen=True, slots=True)
class EntryEvent:
    """What happened to an entry. See docs/events.md.

    Attributes:
        kind: See :data:`EventKind`.
        key: As the cache holds it, after ``key=``; None for ``cleared`` and ``missed``.
        value: The new value of ``created`` and ``updated``, else the one that went; None where ``has_value`` is false.
        has_value: Whether the value is known in this process: messages from others carry none.
        cause: See :data:`EventCause`.
        origin: See :data:`EventOrigin`.
    """

    kind: EventKind
    key: Any
    value: Any
    has_value: bool
    cause: EventCause
    origin: EventOrigin


def check_kinds(kinds: Iterable[str] | None) -> frozenset[str]:
    """Return the kinds of events that somebody asks for; None: the usual ones.

    Raises:
        ConfigError: There is no such kind, or none at all was named.
    """
    if kinds is None:
        return USUAL
    chosen = frozenset((kinds,) if isinstance(kinds, str) else kinds)
    if not chosen or not chosen <= KINDS:
        raise ConfigError("events", kinds, f"give some of {', '.join(sorted(KINDS))}")
    return chosen
