"""What callers ask and get, and the bytes in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import hiredis

from ..errors import ServerReplyError
from .scripts import Script

#: Commands that change nothing, as far as nearcache uses them.
_READS: Final = frozenset({
    "GET", "PTTL", "GETRANGE", "STRLEN", "EXISTS", "MGET", "HGET", "HMGET", "SCAN", "PING", "INFO", "DBSIZE", "TIME",
})  # fmt: skip


#: Texts, bytes and numbers, the first of them perhaps a :class:`Script`.
Command = tuple[Any, ...]


class Exchange(NamedTuple):
    """One batch for one shard.

    Attributes:
        shard: Its number.
        commands: Tuples of texts, bytes and numbers; a command that begins with a :class:`Script` is run by its hash
            (see ``Script.call``). They are executed in order, except that a script the server does not know yet is
            executed after the rest.
    """

    shard: int
    commands: list[Command]


class Reply(NamedTuple):
    """What a shard answered.

    Attributes:
        values: One per command; an error reply is a :class:`ServerReplyError` in its place.
        identity: Of the connection it came over (see ``handshake``).
    """

    values: list[Any]
    identity: int


#: The bytes to send, the commands in them, and the places of those that were added.
Packed = tuple[bytes, Sequence[Command], list[int]]


def pack(commands: Sequence[Command]) -> Packed:
    """Return what is to be sent.

    Added are those that bring large envelopes past Lua (see ``Script.stage``).
    """
    parts = []
    for command in commands:
        script = command[0]
        if script.__class__ is not Script:
            parts.append(hiredis.pack_command(command))
        elif script.is_large(command):
            return _pack_staged(commands)
        else:
            parts.append(hiredis.pack_command((b"EVALSHA", script.sha, *command[1:])))
    return b"".join(parts), commands, []


def _pack_staged(commands: Sequence[Command]) -> Packed:
    expanded: list[Command] = []
    added: list[int] = []
    for command in commands:
        if command[0].__class__ is Script and command[0].is_large(command):
            replacement = command[0].stage(command)
            added += range(len(expanded), len(expanded) + len(replacement) - 1)
            expanded += replacement
        else:
            expanded.append(command)
    return pack(expanded)[0], expanded, added


def pack_in_full(commands: Sequence[Command]) -> bytes:
    """Return the bytes of script calls; the first use of each script carries its source."""
    known: set[bytes] = set()
    parts = []
    for script, *rest in commands:
        if script.sha in known:
            parts.append(hiredis.pack_command((b"EVALSHA", script.sha, *rest)))
        else:
            known.add(script.sha)
            parts.append(hiredis.pack_command((b"EVAL", script.source, *rest)))
    return b"".join(parts)


def without_added(values: list[Any], added: list[int]) -> list[Any]:
    """Return the replies without those to added commands.

    Where such a command was refused, its error takes the place of the script's, which only missed the value.
    """
    kept = []
    refused = None
    for place, value in enumerate(values):
        if place in added:
            refused = value if isinstance(value, ServerReplyError) else refused
            continue
        missed = refused is not None and isinstance(value, ServerReplyError) and value.code == "NCSTAGE"
        kept.append(refused if missed else value)
        refused = None
    return kept


def is_repeatable(commands: Sequence[Command]) -> bool:
    """Return whether executing the commands twice does no harm."""
    for first in (command[0] for command in commands):
        if isinstance(first, Script):
            if not first.repeatable:
                return False
        elif (first.decode() if isinstance(first, bytes) else first).upper() not in _READS:
            return False
    return True
