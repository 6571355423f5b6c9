"""Proof that what was read is what this process hears about, where the server does not say who it is.

A value may enter L1 only if whatever changes it will be heard. Most servers say which process they are, of which
replication history, on every connection; if a reply and the messages come from the same, that is so. Where INFO is
forbidden nobody says it, and two connections may lead to different servers: behind a virtual address, or a proxy, to a
primary and to the one that has taken over from it.

The lane itself can tell. Every change of it has a number and a random id, and a script numbers and announces it in one
step. A server where the lane stands at a change that this process has heard of has the same history up to there; if
nothing later had been heard when the read was registered, then whatever it lacks is still to be heard, and keeps the
value out of L1 when it comes. So such a read asks where the lane stands, *before* it asks for the value, in the same
batch.

::

    register the read                      place before: (epoch, 7, id of 7)
    HGET where the lane stands, then GET   the server says (epoch, 8, id of 8)
    the reply is in                        place now:    (epoch, 8, id of 8)    proved: 8 has been heard meanwhile

What is said to be ahead of all that was heard, and of which nobody knows yet whether it will be, is not kept. Nor is
what this process writes: its reply comes before its message. The next read will see to that.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ..coherence import CHAINED
from ..l2 import Command, Exchange, Reply
from .tier import Tier

_FIELDS: Final = (b"e", b"s", b"w")

Place = tuple[int, int, int]


class Proof(NamedTuple):
    """What will tell where a reply came from.

    Attributes:
        lane: The lane.
        before: Where the lane stood, by its messages, after the read was registered.
    """

    lane: int
    before: Place


def prove(tier: Tier, lane: int, commands: Any) -> tuple[Exchange, Proof | None]:
    """Return the exchange for a read that is registered, and what its reply is to be given to.

    Where the server says who it is there is nothing to prove, and nothing is added.
    """
    before = tier.ears.place(lane) if tier.lanes[lane].identity == CHAINED else None
    if before is None:
        return Exchange(lane, commands), None
    where: Command = (b"HMGET", tier.names[lane].lane_key, *_FIELDS)
    return Exchange(lane, [where, *commands]), Proof(lane, before)


def proven(tier: Tier, proof: Proof | None, reply: Reply) -> Reply:
    """Return the reply to the commands alone, with the identity that it may be kept under."""
    if proof is None:
        return reply
    there, *values = reply.values
    place = _place(there)
    is_heard = place is not None and place in (proof.before, tier.ears.place(proof.lane))
    return Reply(values, CHAINED if is_heard else 0)


def _place(fields: Any) -> Place | None:
    try:
        epoch, seq, wid = fields
        return int(epoch, 16), int(seq), int(wid, 16)
    except (TypeError, ValueError):  # there is no record
        return None
