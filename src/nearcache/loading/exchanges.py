"""What steps ask of L2."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import ShardError
from ..l2 import Exchange, Reply

#: Called with the place of an exchange, and its reply.
OnReply = Callable[[int, Reply | ShardError], None]


class Exchanges(list[Exchange]):
    """Exchanges whose replies can be dealt with one by one.

    Attributes:
        on_reply: May be called with the place of an exchange and its reply as soon as that is there, in the thread that
            carries out the steps. All replies together are the answer in any case.
    """

    def __init__(self, exchanges: Iterable[Exchange], on_reply: OnReply) -> None:
        super().__init__(exchanges)
        self.on_reply = on_reply
