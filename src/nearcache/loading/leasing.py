"""The lease of a key: asking for it, giving it back, and waiting for somebody else's. See ``filling``.

Steps only: no I/O here.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from .._store import Store
from ..absence import ABSENT
from ..clocks import NS_PER_MS
from ..errors import DecodeError, LoadCycleError
from ..flights import Load
from ..l2 import Command
from .reading import accept
from .replies import MISSING
from .steps import JoinLoad, Steps
from .tier import LEASE_LONGEST_NS, Tier, hex_id, new_id

#: Pauses between looks where no message would be heard: the first and the longest, in seconds.
LOOK_FIRST_S: Final = 0.02
LOOK_LONGEST_S: Final = 0.2

#: What the script ``lease`` answers first: load, and fill; the value; somebody loads; a value that waits to be written.
#: Anything else keeps the key as a hold does: load, and keep it nowhere.
_LEASED: Final = 0
_FOUND: Final = 1
_AWAITED: Final = 2
_WAITING: Final = 4


class Answer(NamedTuple):
    """What ``lease`` said.

    Attributes:
        value: MISSING unless one is there.
        token: The lease; empty: none, and then what is loaded is kept nowhere.
        generation: The key's, for the fill.
        wait_ms: For how long somebody else has the lease; 0: nobody has.
    """

    value: Any = MISSING
    token: bytes = b""
    generation: int = 0
    wait_ms: int = 0


def lease_command(tier: Tier, lane: int, encoded: bytes, mode: bytes, token: bytes) -> Command:
    """The command that asks for a key's lease: if it has no value, or as :func:`replace_mode` says.

    Not to be sent twice with one token: one that comes late would give out anew what an invalidation has voided.
    """
    keys = tier.write_keys(lane, [encoded])
    keys.insert(2, tier.names[lane].queue)
    return tier.call(tier.scripts.lease, keys, token, b"%d" % tier.lease_ms_on(lane), mode)


def replace_mode(old_wid: int = 0) -> bytes:
    """The mode in which a lease is asked for over the value of this write; 0: of any."""
    return b"REPLACE" + hex_id(old_wid) if old_wid else b"REPLACE"


def abort_command(tier: Tier, lane: int, encoded: bytes, token: bytes) -> Command:
    """The command that gives a key's lease back."""
    return tier.call(tier.scripts.abort, tier.write_keys(lane, [encoded]), hex_id(new_id()), token)


def lease_answer(
    tier: Tier, store: Store[Any, Any], lane: int, encoded: bytes, answered: list[Any], start_ns: int
) -> Steps[Answer | None]:
    """Return what the script has answered; None: a value that cannot be read here (another schema, say), which is to be
    loaded over."""
    status, generation, *rest = answered
    if int(status) == _LEASED:
        return Answer(token=rest[0], generation=tier.generation(generation))
    if int(status) == _AWAITED:
        return Answer(wait_ms=max(1, int(rest[0])))
    if int(status) == _WAITING:
        return Answer(_waiting_value(tier, encoded, rest[0]))
    if int(status) != _FOUND:
        return Answer()
    current = tier.generation(generation)
    found = yield from accept(tier, store, lane, encoded, rest[0], int(rest[1]), current, start_ns)
    return None if found.value is MISSING else Answer(found.value)


def _waiting_value(tier: Tier, encoded: bytes, envelope: bytes) -> Any:
    """Return the value that waits to be written behind the cache; ABSENT for a deletion, MISSING if nobody here can
    read it."""
    try:
        value = tier.codec.loads_queued(envelope, key=encoded)
    except DecodeError as error:
        tier.count_unreadable(encoded, error)
        return MISSING
    if value is not ABSENT:
        tier.count_hit(len(envelope))
    return value


def patience_ms(tier: Tier, since_ns: int, left_ms: int) -> int:
    """Return how long to go on waiting for somebody else's lease or lock, of which so much is left; 0: no longer.

    Args:
        since_ns: When the wait began. Who keeps others waiting for longer than any lease is renewed is taken to hang.
    """
    return min(left_ms, max(0, since_ns + LEASE_LONGEST_NS - tier.clock()) // NS_PER_MS)


def holder_of(tier: Tier, encoded: bytes) -> Load | None:
    """Return the load of this process that holds the lease of a key, if one does."""
    return next((each.load for each in list(tier.leases.values()) if each.encoded == encoded), None)


def outlast(holder: Load) -> Steps[None]:
    """Wait until another load of this process has given its lease back.

    Raises:
        LoadCycleError: It waits, directly or through others, for this one.
    """
    try:
        yield JoinLoad(holder)
    except LoadCycleError:
        raise
    except Exception:
        if not holder.done.is_set():  # not its error, but ours
            raise
