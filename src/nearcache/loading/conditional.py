"""Loads that may find the old value unchanged. Steps only: no I/O here."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._store import Op, Store
from ..absence import Absent
from ..answers import Old
from ..codecs import peek_ids, peek_validator
from ..errors import ShardError
from ..l2 import Exchange
from .aging import judge, times_in
from .reading import accept
from .replies import MISSING, answer
from .steps import Steps
from .tier import Tier, hex_id


class Shown(NamedTuple):
    """The value that a loader is shown.

    Attributes:
        old: It, as the loader gets it.
        data: Its envelope.
        under: What an L1 entry of it depends on, if it has tags.
    """

    old: Old
    data: bytes
    under: tuple[int, int] | None


def show(tier: Tier, store: Store[Any, Any], lane: int, encoded: bytes) -> Steps[Shown | None]:
    """Return what L2 holds, under the lease of a load that is to replace it; None: nothing that could be shown."""
    name = tier.names[lane].value(encoded)
    start_ns = tier.clock()
    try:
        reply = answer((yield [Exchange(lane, [(b"PTTL", name), (b"GET", name), tier.ask_generation(lane)])])[0])
        pttl_ms, data, fields = reply.values
        generation = tier.generation_in(lane, fields)
        found = yield from accept(tier, store, lane, encoded, data, pttl_ms, generation, start_ns)
    except ShardError:
        return None
    if data is None or found.value is MISSING or isinstance(found.value, Absent):
        return None
    return Shown(Old(found.value, peek_validator(data)), data, found.under)


def let_live(
    tier: Tier, store: Store[Any, Any], op: Op, encoded: bytes, token: bytes, generation: int, shown: Shown
) -> Steps[Any]:
    """Let the value that was shown live once more, as long as it was to live at first, and return it."""
    wid, _, whole_ms = peek_ids(shown.data)
    keys = tier.write_keys(op.lane, [encoded])
    arguments = (hex_id(op.wid), hex_id(generation), token, hex_id(wid), b"%d" % whole_ms)
    start_ns = tier.clock()
    try:
        reply = answer((yield [Exchange(op.lane, [tier.call(tier.scripts.unchanged, keys, *arguments)])])[0])
    except ShardError:
        tier.count(errors=1)
        return shown.old.value
    if int(reply.values[0][0]) != 1:
        tier.count(fills_refused=1)
        return shown.old.value
    deadline_ns, _ = judge(tier, start_ns, whole_ms, times_in(shown.data))
    tier.sample(op.key)
    store.l1_finish(op, shown.old.value, wid, deadline_ns, len(shown.data), reply.identity, shown.under)
    return shown.old.value
