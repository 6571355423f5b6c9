"""Parts of a simulated process that stand between it and the real code: its store, its old copies, its upkeep."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nearcache._store import Store
from nearcache.cache.shards.moving import Placed
from nearcache.flights import Read, strand
from nearcache.loading import Tier, Upkeep
from nearcache.loading.stale import StaleCopies

if TYPE_CHECKING:
    from simulation.client import Client, Payer
    from simulation.process import Process


class OldCopies(StaleCopies):
    """What may be served although nobody can be asked; what is served is told to the checker."""

    def __init__(self, lanes: list[Any], allowed_ns: int, most: int, process: Process) -> None:
        super().__init__(lanes, allowed_ns, most)
        self._process = process

    def find(self, store: Store[Any, Any], key: Any, lane: int, now_ns: int, default: Any) -> Any:
        """See :class:`StaleCopies`."""
        value = super().find(store, key, lane, now_ns, default)
        if value is not default:
            self._process.checker.old_copy(self._process, key, value)
        return value


class L1(Placed[Any, Any]):
    """The store, with what a cache adds to it: a word with the old copies first. See :class:`TieredCache`."""

    old: StaleCopies | None = None
    clock: Callable[[], int]
    process: Process
    membership: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kept_ns: dict[Any, int] = {}
        self.askers: dict[Any, Client] = {}  # by read

    @property
    def _tier(self) -> Tier:
        return self.process.tier

    @_tier.setter
    def _tier(self, tier: Tier) -> None:
        self.process.tier = tier

    def l1_open(self, op: Any) -> None:
        """See :class:`Store`. It is noted whose it is."""
        if isinstance(op, Read):
            self.askers[op] = strand.get()  # type: ignore[assignment]  # all tokens are clients
        super().l1_open(op)

    def l1_finish(self, op: Any, *arguments: Any, **more: Any) -> bool:
        """See :class:`Store`. It is noted when."""
        self.kept_ns[op.key] = self.clock()
        return super().l1_finish(op, *arguments, **more)

    def lane_vouch(self, lane: int, until_ns: int) -> None:
        """See :class:`Store`."""
        if self.old is not None:
            self.old.vouched(lane, until_ns)
        super().lane_vouch(lane, until_ns)

    def lane_suspect(self, lane: int) -> None:
        """See :class:`Store`."""
        if self.old is not None:
            self.old.suspected(lane, self.lane_stamp(lane), self.clock())
        super().lane_suspect(lane)


class Keeper(Upkeep):
    """The cache's upkeep, which pays in the simulation's way of having threads."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.tier, None)  # type: ignore[arg-type]  # nobody runs anything with it
        self._process = process

    def vouched(self, lane: int) -> None:
        """The lane is well: pay what is owed on it."""
        super().vouched(lane)

    def _pay(self, lane: int) -> None:
        self._process.payer.pay(lane)

    def paid(self, lane: int) -> None:
        """The payer has come back."""
        self._paid(lane)


def apart(_name: str, pay: Any, lane: int) -> Any:
    """A thread of the upkeep's: the payer's errand. It has one at a time."""
    payer: Payer = pay.__self__._process.payer  # a method of the keeper's
    if payer.lane is not None:
        return None
    pay(lane)
    return payer
