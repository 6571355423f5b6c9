"""The ways in which a value can be sent to L2: as it is, under a hold of one's own, or into a queue as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from .._putting import Said
from ..errors import BacklogFullError
from ..flights import Signal
from ..l2 import Command, Exchange
from .replies import FULL, STORED, answer
from .steps import Await, Steps
from .tier import Tier, new_id

#: Pauses of who waits for room in a queue: the first and the longest, in seconds.
ROOM_FIRST_S: Final = 0.005
_LONGEST_S: Final = 0.1


class Room(NamedTuple):
    """How much room a queue has.

    Attributes:
        most: Records that may wait in it.
        patience_ns: How long a write waits for room.
        wake: Called when a record is in it.
    """

    most: int
    patience_ns: int
    wake: Callable[[], None]


class Known(NamedTuple):
    """What was known at some time of all that may end a value beside its key.

    Attributes:
        generations: Of each lane.
        stated: Hash and generation of each tag.
        under: What an L1 entry of each lane depends on.
    """

    generations: dict[int, int]
    stated: tuple[tuple[int, int], ...]
    under: dict[int, tuple[int, int] | None]


class Way(NamedTuple):
    """How a value is sent.

    Attributes:
        mark: What the mode of the script ``set`` begins with.
        room: Of the queue that the value goes into as well; ``None``: into none.
        known: What was known before the data changed; ``None``: it has not, and what is known now counts.
    """

    mark: bytes = b""
    room: Room | None = None
    known: Known | None = None


DIRECT: Final = Way()


def held(token: bytes, known: Known) -> Way:
    """Only where the hold with this token has lasted until now, and nobody else has announced a change under it."""
    return Way(b"HELD" + token, known=known)


def queued(room: Room) -> Way:
    """Into the lane's queue as well, in one step."""
    return Way(b"Q%d:" % room.most, room)


def put(tier: Tier, lane: int, commands: Sequence[Command], way: Way) -> Steps[tuple[Said, int]]:
    """Have commands carried out whose last is ``set``; wait for room in the queue if there is none.

    Returns what that has answered, and the identity of the server.

    Raises:
        ShardError: Of the first command that failed.
        BacklogFullError: There was no room all the time.
    """
    since_ns, pause_s = tier.clock(), ROOM_FIRST_S
    while True:
        reply = answer((yield [Exchange(lane, commands)])[0])
        heard = tier.said(lane, reply.values[-1])
        if way.room is None or heard.status != FULL:
            if way.room is not None and heard.status == STORED:
                way.room.wake()
            return heard, reply.identity
        pause_s = yield from wait_for_room(tier, lane, way.room, heard.length, since_ns, pause_s)


def wait_for_room(tier: Tier, lane: int, room: Room, length: int, since_ns: int, pause_s: float) -> Steps[float]:
    """Wait a little. Returns how long to wait the next time.

    Raises:
        BacklogFullError: It has been long enough.
    """
    left_s = (since_ns + room.patience_ns - tier.clock()) / 1e9
    if left_s <= 0:
        raise BacklogFullError(tier.shard_names[lane], length, room.most)
    room.wake()
    yield Await(Signal(), min(left_s, pause_s * (0.5 + new_id() / 2.0**65)))
    return min(2 * pause_s, _LONGEST_S)
