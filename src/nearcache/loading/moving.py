"""While the list of shards changes, what changes a key is to be heard by both of its owners.

The steps know nothing of it: they name the lane where a key is read. Whoever carries out their requests lets
:class:`Spread` add an invalidation on the other owner's lane to each change, and answers with the failure of that as if
the change itself had failed. So it is owed, here on the other lane, by the steps on theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from .._asking import has_error
from ..errors import ServerReplyError, ShardError
from ..keys import slot_of
from ..l2 import Command, Exchange, Reply, Script
from .replies import errors_in
from .tier import Tier

#: The scripts after which an old copy is not to be read any more, and where in their arguments the write's id stands.
_CHANGING: Final = frozenset({"set", "invalidate", "take", "touch"})
_WID: Final = 2


class _Extra(NamedTuple):
    """An invalidation that was added: for which command of which exchange, and of which keys."""

    exchange: int
    command: int
    lane: int
    encoded: list[bytes]
    since: int


class Spread:
    """One request, with what has to be said to the other owners.

    Args:
        tier: Of any version.
    Attributes:
        exchanges: What to send.
    """

    def __init__(self, tier: Tier, exchanges: Sequence[Exchange]) -> None:
        self._tier = tier
        self._extras: list[_Extra] = []
        self.exchanges = list(exchanges)
        for number, (lane, commands) in enumerate(exchanges):
            for place, command in enumerate(commands):
                if isinstance(command[0], Script) and command[0].name in _CHANGING:
                    self._add(number, place, lane, command)

    def _add(self, number: int, place: int, lane: int, command: Command) -> None:
        keys, arguments = command[2 : 2 + command[1]], command[2 + command[1] :]
        version = self._tier.changing.get(arguments[0])
        if version is None or version.other is None:
            return
        prefix = version.names[lane].value_prefix
        by_lane: dict[int, list[bytes]] = {}
        for encoded in (key[len(prefix) :] for key in keys if key.startswith(prefix)):
            other = version.other[slot_of(encoded)]
            if other != lane:
                by_lane.setdefault(other, []).append(encoded)
        # The same id, so that the copy of a value which was written is spared by both messages.
        hold = arguments[_WID + 1 :] if command[0].name == "invalidate" else ()
        for other, encoded_keys in by_lane.items():
            invalidate = version.call(
                version.scripts.invalidate, version.write_keys(other, encoded_keys), arguments[_WID], *hold
            )
            self._extras.append(_Extra(number, place, other, encoded_keys, version.serial(other)))
            self.exchanges.append(Exchange(other, [invalidate]))

    def gathered(self, replies: Sequence[Reply | ShardError]) -> list[Reply | ShardError]:
        """Return the replies to the request that was given; what the other owners said is noted."""
        given = list(replies[: len(replies) - len(self._extras)])
        for extra, reply in zip(self._extras, replies[len(given) :], strict=True):
            errors = errors_in(reply)
            if errors:
                self._tier.owe(extra.lane, extra.encoded)
                whole = given[extra.exchange]
                if isinstance(whole, Reply):
                    whole.values[extra.command] = errors[0]
                continue
            assert isinstance(reply, Reply)
            *_, epoch, seq = reply.values[0]
            self._tier.acknowledge(extra.lane, epoch, seq, extra.encoded, extra.since)
        return given

    def interrupted(self) -> None:
        """Nobody knows what has been done."""
        for extra in self._extras:
            self._tier.owe(extra.lane, extra.encoded)


def heed(tier: Tier, replies: Sequence[Reply | ShardError]) -> None:
    """Have it seen to that this process catches up, if a server has refused it for its version."""
    for reply in replies:
        if not isinstance(reply, Reply) or not has_error(reply.values, ServerReplyError):
            continue
        if any(isinstance(value, ServerReplyError) and value.code == "NCTOPO" for value in reply.values):
            tier.outdated()
            return
