"""Where lanes stand, for ``consistency="lane"``: every exchange asks for it too, behind all that it is about.

The steps know nothing of it. Whoever carries out their requests has the question added here, tells the horizon what the
answer is (see :class:`~nearcache.coherence.OrderedHorizon`), and gives the steps what they have asked for. The question
comes last, so what is told is never behind what was read or done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..coherence import NOWHERE, unsigned
from ..errors import ShardError
from ..l2 import WAIT, Exchange, Extended, Reply
from .exchanges import Exchanges
from .tier import Tier


class Observing:
    """One request, with the question where its lanes stand.

    Args:
        tier: One that observes.
        request: What the steps have asked for.
    Attributes:
        exchanges: What to send.
    """

    def __init__(self, tier: Tier, request: Sequence[Exchange]) -> None:
        self._tier = tier
        self._request = request
        exchanges = [self.asking(exchange) for exchange in request]
        on_reply = request.on_reply if isinstance(request, Exchanges) else None
        if on_reply is not None:
            self.exchanges: list[Exchange] = Exchanges(
                exchanges, lambda number, reply: on_reply(number, self.heard(number, reply))
            )
        else:
            self.exchanges = exchanges

    def asking(self, exchange: Exchange) -> Exchange:
        """Return an exchange with the question in it."""
        lane, commands = exchange
        question = (b"HMGET", self._tier.names[lane].lane_key, b"e", b"s")
        if _waits(exchange):  # that has to stay at the end
            return Exchange(lane, [*commands[:-1], question, commands[-1]])
        return Exchange(lane, Extended(commands, question))

    def heard(self, number: int, reply: Reply | ShardError) -> Reply | ShardError:
        """Note what an answer says of its lane, and return it without that."""
        if not isinstance(reply, Reply):
            return reply
        exchange = self._request[number]
        values = list(reply.values)
        fields = values.pop(-2 if _waits(exchange) else -1)
        horizon = self._tier.observed
        assert horizon is not None
        horizon.observe(exchange.shard, _place(fields))
        return Reply(values, reply.identity)

    def taken(self, replies: Sequence[Reply | ShardError]) -> list[Reply | ShardError]:
        """Do that with all of them."""
        return [self.heard(number, reply) for number, reply in enumerate(replies)]


def _waits(exchange: Exchange) -> bool:
    return bool(exchange.commands[len(exchange.commands) - 1][0] == WAIT)


def _place(fields: Any) -> tuple[int, int]:
    """Return epoch and number. Where there is no record, or no answer, nobody knows how far the lane is."""
    try:
        epoch, seq = fields
        return unsigned(int(epoch, 16)), unsigned(int(seq))
    except (TypeError, ValueError):
        return NOWHERE
