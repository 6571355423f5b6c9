"""Telling somebody what the messages say, for those who listen to a cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..coherence import TAG_KEY, Action, Apply, Suspect, parse_message
from ..errors import DecodeError
from ..keys import decode_key


class Observer(Protocol):
    """Who wants to know what the messages say, before it is carried out. Nothing of it may raise."""

    def heard(self, lane: int, operation: str, keys: list[Any], wid: int) -> None:
        """A change of these keys, decoded; there are none of tags among them."""

    def cleared(self, wid: int) -> None:
        """Everything in a lane is gone."""

    def missed(self) -> None:
        """Messages may have been lost."""


def report(observer: Observer, lane: int, payload: bytes, actions: Sequence[Action]) -> None:
    """Report a message, given what the lane makes of it."""
    try:
        message = parse_message(payload)
        if message.operation == "C":
            observer.cleared(message.wid)
            return
        if any(isinstance(action, Suspect) for action in actions):
            observer.missed()
        if any(isinstance(action, Apply) for action in actions):
            keys = [decode_key(key) for key in message.keys if not key.startswith(TAG_KEY)]
            observer.heard(lane, message.operation, keys, message.wid)
    except DecodeError:  # whoever applies it knows what that means for the lane
        observer.missed()
