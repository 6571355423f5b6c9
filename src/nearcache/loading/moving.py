"""While the list of shards changes, what changes a key is to be heard by both of its owners.

The steps know nothing of it: they name the lane where a key is read. Whoever carries out their requests lets
:class:`Spread` add an invalidation on the other owner's lane to each change, and answers with the failure of that as if
the change itself had failed. So it is owed, here on the other lane, by the steps on theirs. What waits for a replica
waits for one of the other owner's too: a failover there would bring the old copy back as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from .._asking import has_error
from ..errors import NotReplicatedError, ServerReplyError, ShardError, ShardUnavailableError
from ..keys import slot_of
from ..l2 import WAIT, Command, Exchange, Reply, Script
from .tier import Tier

#: The scripts after which an old copy is not to be read any more, and where in their arguments the write's id stands.
#: What a loader brings may be newer than what somebody a step away keeps at the other owner.
_CHANGING: Final = frozenset({"set", "invalidate", "take", "touch", "fill"})
_WID: Final = 2


class _Extra(NamedTuple):
    """An invalidation that was added.

    Attributes:
        exchange, command: For which command of which exchange.
        lane, encoded: Where, and of which keys.
        since: How many changes had been acknowledged there when it was made.
        waits: Whether a WAIT stands behind both.
    """

    exchange: int
    command: int
    lane: int
    encoded: list[bytes]
    since: int
    waits: bool


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

    @property
    def adds(self) -> bool:
        """Whether there is anything to be said to other owners."""
        return bool(self._extras)

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
        last = self.exchanges[number].commands[-1]
        behind = [last] if last[0] == WAIT else []
        for other, encoded_keys in by_lane.items():
            invalidate = version.call(
                version.scripts.invalidate, version.write_keys(other, encoded_keys), arguments[_WID], *hold
            )
            self._extras.append(_Extra(number, place, other, encoded_keys, version.serial(other), bool(behind)))
            self.exchanges.append(Exchange(other, [invalidate, *behind]))

    def gathered(self, replies: Sequence[Reply | ShardError]) -> list[Reply | ShardError]:
        """Return the replies to the request that was given; what the other owners said is noted."""
        given = list(replies[: len(replies) - len(self._extras)])
        for extra, reply in zip(self._extras, replies[len(given) :], strict=True):
            whole = given[extra.exchange]
            error = self._tier.answered(extra.lane, extra.encoded, reply, extra.since)
            if not isinstance(whole, Reply):
                continue
            if error is not None:
                if not isinstance(whole.values[extra.command], ShardError):
                    whole.values[extra.command] = _half_done(error)
            elif extra.waits:
                assert isinstance(reply, Reply)  # or there would be an error
                whole.values[-1] = self._confirmed(extra, whole.values[-1], reply.values[1])
        return given

    def _confirmed(self, extra: _Extra, own: Any, others: Any) -> Any:
        """What is known of replicas in all: as little as one of the two owners knows."""
        if isinstance(others, int) and others > 0:
            return own
        error = NotReplicatedError(self._tier.name_at(extra.lane), self._tier.ack_ms / 1000)
        error.__cause__ = others if isinstance(others, ShardError) else None
        return error

    def interrupted(self) -> None:
        """Nobody knows what has been done."""
        for extra in self._extras:
            self._tier.owe(extra.lane, extra.encoded)


def _half_done(error: ShardError) -> ShardError:
    """Return why the other owner has not heard of a change, as the failure of a change that is made at the first.

    Nobody may take it for one that is certainly not done.
    """
    if not isinstance(error, ShardUnavailableError) or error.sent:
        return error
    told = ShardUnavailableError(
        error.shard, f"it did not hear of a change that another shard has made, as it has to now: {error}", sent=True
    )
    told.__cause__ = error
    return told


def heed(tier: Tier, replies: Sequence[Reply | ShardError]) -> None:
    """Have it seen to that this process catches up, if a server has refused it for its version."""
    for reply in replies:
        if not isinstance(reply, Reply) or not has_error(reply.values, ServerReplyError):
            continue
        if any(isinstance(value, ServerReplyError) and value.code == "NCTOPO" for value in reply.values):
            tier.outdated()
            return
