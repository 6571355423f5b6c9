"""Lanes of shards that are in the list no more: their numbers, and that they are told of it again for a while.

Whoever told such a shard may have told a primary that had been replaced already, or one that fell before its replica
had heard of it. Its successor knows nothing of the change then, those who have not followed go on there, and nobody of
the new list comes by any more to whom they would be too far behind.
"""

from __future__ import annotations

from ...coherence import KEEP_NS


class Leaving:
    """See the module. Not locked: the caller is, but for :meth:`is_due`, which any thread may ask.

    They are told for as long as those who went on there remember what they have changed, and can make up for it.

    Args:
        every_ns: How often they are told.
        most: How many lanes there may be.
    """

    def __init__(self, every_ns: int, most: int) -> None:
        self._every_ns = every_ns
        self._most = most
        self._resting: dict[int, str] = {}  # numbers in no use, of which shard each was; the first were left first
        self._until_ns: dict[int, int] = {}  # those that are told, and until when
        self._next_ns = 0

    def rest(self, number: int, name: str) -> None:
        """A number is in no use any more."""
        self._resting[number] = name

    def tell(self, number: int, now_ns: int) -> None:
        """The shard of this number, which is to rest, is to be told again."""
        self._until_ns[number] = now_ns + KEEP_NS

    def number_for(self, name: str, made: int) -> int:
        """Return the number for the lane of another shard: one that nobody speaks to any more, if there is any.

        Args:
            made: How many numbers there have been.
        """
        for number, other in self._resting.items():
            if other == name:  # it comes back
                self._until_ns.pop(number, None)
        free = [number for number in self._resting if number not in self._until_ns]
        if not free and made < self._most:
            return made
        number = free[0] if free else next(iter(self._resting))
        del self._resting[number]
        self._until_ns.pop(number, None)
        return number

    def is_due(self, now_ns: int) -> bool:
        """Whether it is time to tell any. Cheap."""
        return bool(self._until_ns) and now_ns >= self._next_ns

    def take(self, now_ns: int) -> list[int]:
        """Return the lanes to be told now."""
        if not self.is_due(now_ns):
            return []
        self._next_ns = now_ns + self._every_ns
        self._until_ns = {number: until_ns for number, until_ns in self._until_ns.items() if now_ns < until_ns}
        return list(self._until_ns)
