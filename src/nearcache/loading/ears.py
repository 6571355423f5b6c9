"""Who tells the steps what others do, and whom they tell what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..l2 import Script


class Ears(Protocol):
    """Who hears the messages: the bus."""

    def await_key(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> bool:
        """Call ``woken`` once when a message names the key, or may have been missed; False: nothing is heard."""

    def unawait(self, lane: int, encoded: bytes, woken: Callable[[], None]) -> None:
        """Forget a registration."""

    def watch(self, wid: int, seen: Callable[[], None]) -> None:
        """Call ``seen`` once when a message with this write id is heard."""

    def unwatch(self, wid: int) -> None:
        """Forget a write id."""

    @property
    def expect(self) -> Callable[[int], None]:
        """To be called with a write id of one's own before it is sent: its message can be heard a little later."""

    def fence(self, lane: int, woken: Callable[[], None]) -> bool:
        """Call ``woken`` once when everything that is in the server by now has been heard; False: nothing is heard."""

    def place(self, lane: int) -> tuple[int, int, int] | None:
        """Epoch, number and write id of the lane's last message, from when it begins to be applied; None: not known."""


class Witness(Protocol):
    """Who is told what this process is about to send, in order to know its messages when they come."""

    def writing(self, wid: int, name: Any, value: Any) -> None:
        """A value is about to be written under this id."""

    def calling(self, script: Script, arguments: tuple[bytes, ...]) -> None:
        """A script is about to be called; the first argument is the id of what it does."""

    def loaded_alone(self, wid: int) -> None:
        """What was written under this id is stored, and there is no message about it."""
