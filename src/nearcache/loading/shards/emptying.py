"""Ridding a shard that gains keys of what it has of them from earlier times: nobody has invalidated that since.

It is a change like others, and entered in the journal as one of everything in the lane: where a failover loses it, what
the shard was rid of is back, and the lane is owed a clear.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..._reads import Event
from ...errors import ClosedError, ServerReplyError, ShardError, ShardUnavailableError
from ...keys import slot_of
from ...l2 import Driver, Exchange, Reply
from ...logs import log
from .. import new_id

if TYPE_CHECKING:
    from .. import Tier

#: Keys of one SCAN.
_SCANNED: Final = b"1000"

#: Takes a reply, and raises if it is an error.
Demand = Callable[["Reply | ShardError"], Any]


class Emptying:
    """What rids one shard of what it has.

    Args:
        namespace: Which it is emptied of, for messages.
        tier: Which knows the lane, as of the version before the change: nobody has led on while that is admitted, and
            what is stored there by those who have may not be removed.
        number: The lane.
        demand: Returns a reply's first value, or raises.
        stopping: Set when the cache is being closed.
    """

    def __init__(
        self, namespace: str, tier: Tier, driver: Driver, number: int, demand: Demand, stopping: Event
    ) -> None:
        self._namespace = namespace
        self._tier = tier
        self._driver = driver
        self._number = number
        self._demand = demand
        self._stopping = stopping

    def clear(self) -> None:
        """Let everything in the lane be absent."""
        self._change(self._tier.clear_exchange(self._number, new_id()), settles=True)

    def sweep(self, gained: Sequence[bool]) -> bool:
        """Remove what the shard has in the slots that it gains.

        Returns False if it does not let itself be scanned, or another server answered in between: that has, perhaps,
        what the one before was rid of.
        """
        prefix = self._tier.names[self._number].value_prefix
        cursor, servers = b"0", set[int]()
        while True:
            reply = self._ask((b"SCAN", cursor, b"MATCH", prefix + b"*", b"COUNT", _SCANNED))
            if isinstance(reply, Reply) and isinstance(reply.values[0], ShardError):
                if isinstance(reply.values[0], ShardUnavailableError):
                    self._demand(reply)
                log(
                    logging.WARNING,
                    "%s; all that it holds of namespace %s starts cold",
                    reply.values[0],
                    self._namespace,
                )
                return False
            cursor, keys = self._said(reply, servers)
            found = [key for key in keys if gained[slot_of(key[len(prefix) :])]]
            if found:  # by a script, since a plain UNLINK would be carried out after the change is over, too
                encoded = [key[len(prefix) :] for key in found]
                removal = self._tier.invalidate_exchange(self._number, encoded, new_id())
                servers.add(self._change(removal, settles=False))
            if self._stopping.is_set():
                raise ClosedError("the cache was closed")
            if int(cursor) == 0:
                break
        return len(servers) == 1

    def _ask(self, command: tuple[Any, ...]) -> Reply | ShardError:
        return self._driver.execute([Exchange(self._number, [command])])[0]

    def _said(self, reply: Reply | ShardError, servers: set[int]) -> Any:
        value = self._demand(reply)
        assert isinstance(reply, Reply)  # or it would have raised
        servers.add(reply.identity)
        return value

    def _change(self, exchange: Exchange, *, settles: bool) -> int:
        """Make a change, and note it as one of everything. Returns which server has made it."""
        tier, lane = self._tier, self._number
        since = tier.serial(lane)
        reply = self._driver.execute([exchange])[0]
        *_, epoch, seq = self._demand(reply)
        try:
            counts = tier.acknowledge(lane, epoch, seq, None, since, settles=settles)
        except ServerReplyError as error:
            self._demand(error)
        if not counts:
            self._demand(ShardUnavailableError(tier.shard_names[lane], "it was replaced meanwhile"))
        assert isinstance(reply, Reply)
        return reply.identity
