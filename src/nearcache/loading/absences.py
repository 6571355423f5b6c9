"""What L1 keeps of keys whose loader has failed.

A hit returns what lies in the store, so nothing but values may lie there for it to find. What is noted of a key that
failed is entered under a stamp that its lane does not have any more: to the store it is a suspect from the start. No
hit serves it, but messages, clears and lifetimes remove it as they remove any entry. The stamp that the lane had indeed
stands in the note, and who looks for one compares that. Its write id is not that of the envelope, so that no
revalidation can make a served entry of it.
"""

from __future__ import annotations

from typing import Any, Final

from .._store import Op, Store
from ..absence import Absent, Failure, Noted
from .replies import MISSING
from .tier import Tier

_STAMPS: Final = 0xFFFF_FFFF


def note(
    store: Store[Any, Any],
    op: Op,
    answer: Absent,
    wid: int,
    deadline_ns: int,
    size: int,
    identity: int,
    under: tuple[int, int] | None,
) -> None:
    """Finish an operation that has found, or stored, that there is no value."""
    if not isinstance(answer, Failure):  # who asks for it next asks L2: somebody may have stored a value by then
        store.l1_finish(op, None, 0, 0)
        return
    # If the lane's stamp has moved since the operation began, the store does not keep its result anyway.
    lane, stamp = under or (op.lane, store.lane_stamp(op.lane))
    noted: Any = Noted(answer.remembered(), lane, stamp)
    store.l1_finish(op, noted, wid ^ 1 or 2, deadline_ns, size, identity, (lane, stamp - 1 & _STAMPS))


def noted(tier: Tier, store: Store[Any, Any], key: Any) -> Any:
    """Return the Failure that L1 remembers of a key, or MISSING."""
    found = store.l1_suspect(key)
    entry: Any = None if found is None else found[1]
    if not isinstance(entry, Noted):
        return MISSING
    if store.lane_stamp(entry.lane) != entry.stamp or tier.clock() >= store.lane_fresh_until(entry.lane):
        return MISSING
    return entry.answer
