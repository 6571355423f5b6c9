"""When values were stored, as far as somebody has asked: L1 itself does not keep it."""

from __future__ import annotations

from collections.abc import Hashable

from .._store import Store
from ..clocks import NEVER_NS

#: Keys whose values' birth is remembered.
KEPT = 100_000


class Births:
    """The births of values, by key and write id.

    Attributes:
        in_use: Whether anybody has asked so far.
    """

    def __init__(self) -> None:
        self.in_use = False
        self._known: Store[Hashable, tuple[int, int, int]] = Store(KEPT)
        self._known.lane_vouch(0, NEVER_NS)
        self._slept_ns = 0

    def note(self, name: Hashable, wid: int, born_ns: int, asked_ns: int) -> None:
        """The value of this write is no younger than that, as Redis has told who asked then."""
        self._known[name] = wid, born_ns, asked_ns

    def slept(self, now_ns: int) -> None:
        """The machine has slept, and the clock stood still: what was asked for before now tells no age any more."""
        self._slept_ns = now_ns

    def is_young(self, name: Hashable, wid: int, since_ns: int) -> bool:
        """Whether it is known of the value of a write that it was stored since."""
        known_wid, born_ns, asked_ns = self._known.l1_hit(name, (0, 0, 0))
        return wid != 0 and wid == known_wid and born_ns >= since_ns and self.is_told(asked_ns)

    def is_told(self, asked_ns: int) -> bool:
        """Whether what was asked for then still tells an age."""
        return asked_ns >= self._slept_ns
