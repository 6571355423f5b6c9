"""Holds that run while the list of shards changes: a key stays on hold where it moves to.

One that is begun in the middle of a change is told to both owners at once (see ``loading.moving``). One from before is
known to the old owner alone, and whoever is a step further loads and stores at the new one. So each process repeats its
own there, for the time that is left, when it has taken a step.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...clocks import NS_PER_MS
from ...errors import UnencodableKeyError
from ...keys import slot_of
from ...l2 import Driver
from .. import new_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .. import Tier


def repeat_holds(before: Tier, tier: Tier, driver: Driver) -> None:
    """Hold what this process holds where it has become another owner's. A shard that does not answer is owed for it.

    Args:
        before, tier: Of the version that was in use, and of the one that is: what begins now is placed by that.
    """
    for token, hold in list(tier.held.items()):
        left_ms = (hold.until_ns - tier.clock()) // NS_PER_MS
        by_lane = _gained(before, tier, hold.names) if left_ms > 0 else {}
        since = [tier.serial(lane) for lane in by_lane]
        exchanges = [
            tier.invalidate_exchange(lane, keys, new_id(), b"%d" % left_ms, token) for lane, keys in by_lane.items()
        ]
        replies = driver.execute(exchanges) if exchanges else []
        for (lane, keys), reply, serial in zip(by_lane.items(), replies, since, strict=True):
            tier.answered(lane, keys, reply, serial)
            if token not in tier.held:  # it has ended meanwhile, and perhaps before this came
                tier.owe(lane, keys, (hold.linger_ms, token))


def _gained(before: Tier, tier: Tier, names: Iterable[Any]) -> dict[int, list[bytes]]:
    """Return the keys that have other owners than before, by the lanes of these."""
    by_lane: dict[int, list[bytes]] = {}
    for name in names:
        with suppress(UnencodableKeyError):  # it cannot be on hold
            encoded = tier.place(name)[1]
            slot = slot_of(encoded)
            old, new = ({each.table[slot], (each.other or each.table)[slot]} for each in (before, tier))
            for lane in new - old:
                by_lane.setdefault(lane, []).append(encoded)
    return by_lane
