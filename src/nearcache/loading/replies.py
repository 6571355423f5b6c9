"""What replies say: errors among them, and the numbers that every step needs."""

from __future__ import annotations

from typing import Final

from .. import changes
from .._asking import has_error
from ..codecs import HEADER_SIZE
from ..errors import ServerReplyError, ShardError, ShardUnavailableError
from ..l2 import Reply
from ..options import MOST_TAGS

#: There is no value. Not ``None``, which is one.
MISSING: Final = changes.MISSING

#: What the script ``set`` answers first: it is stored, the mode refused it, or the queue has no room.
STORED: Final = 1
REFUSED: Final = 2
FULL: Final = 3

#: What a server says that has no room, in memory or on its disk.
_FULL: Final = frozenset({"OOM", "MISCONF"})

#: What follows the key in a GETRANGE that fetches a value's header: without and with its tags.
HEADER_RANGE: Final = (b"0", b"%d" % (HEADER_SIZE - 1))
TAGGED_RANGE: Final = (b"0", b"%d" % (HEADER_SIZE + 10 + 1 + 16 * MOST_TAGS - 1))


def answer(reply: Reply | ShardError) -> Reply:
    """Return a reply in which no command failed; raise the failure otherwise."""
    if isinstance(reply, Reply) and not has_error(reply.values, ShardError):
        return reply
    raise errors_in(reply)[0]


def errors_in(reply: Reply | ShardError) -> list[ShardError]:
    """Return what failed, in order."""
    if isinstance(reply, ShardError):
        return [reply]
    return [value for value in reply.values if isinstance(value, ShardError)]


def is_full(error: ShardError) -> bool:
    """Whether the server has no room and refused only to write: what the script was to read, it has read."""
    return isinstance(error, ServerReplyError) and error.code in _FULL


def is_late(error: object) -> bool:
    """Whether a shard did not answer in time: it has had its time, for a call has one deadline."""
    return isinstance(error, ShardUnavailableError) and isinstance(error.__cause__, TimeoutError)


def was_cut_off(error: ShardError) -> bool:
    """Whether nobody knows what came of a request, and the shard may be well: its connection ended before its time."""
    return isinstance(error, ShardUnavailableError) and error.sent and not is_late(error)


def is_worth_undoing(error: ShardError) -> bool:
    """Whether what a change was to end is to be ended at once, now that it has failed: it was refused, or cut off."""
    return isinstance(error, ServerReplyError) or was_cut_off(error)
