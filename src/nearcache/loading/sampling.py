"""The sampler: it checks in production what the protocol promises, on a few keys a second. Steps only: no I/O here.

The idea is Polaris' ("Cache made consistent", Meta, 2022). Of a key that L1 would serve at this moment L2 is asked
which write it holds. If that is another one, L1 is looked at again when the staleness bound has passed: an L1 that
*still* serves the first has broken its promise. Write ids are unique, so that no coincidence can accuse it wrongly.

Another write of an equal value accuses nobody. What L2 evicts is announced to nobody, nor is the load that fills the
gap, so this process rightly goes on with what it has loaded itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from .._store import Store
from ..codecs import peek_ids, thaw
from ..errors import DecodeError
from ..l2 import Exchange
from .replies import HEADER_RANGE, MISSING, answer
from .steps import Steps
from .tier import Tier

#: Keys remembered, to choose from.
REMEMBERED: Final = 1024


class Sampler:
    """Which keys to look at, and what was found.

    Args:
        uniform: Returns a random number from 0 to below 1.
    Attributes:
        checks: Comparisons of L1 with L2.
        mismatches: Keys for which L1 served, later than the bound, what L2 did not hold any more.
    """

    def __init__(self, uniform: Callable[[], float] = random.random) -> None:
        self._uniform = uniform
        self._keys: list[Any] = []
        self._suspicions: list[tuple[int, Any, int]] = []  # when to look again, at what, for which write
        self.checks = 0
        self.mismatches = 0

    def note(self, name: Any) -> None:
        """A key has been read from L2 or written: L1 may serve it from now on."""
        if len(self._keys) < REMEMBERED:
            self._keys.append(name)
        else:
            self._keys[int(self._uniform() * REMEMBERED)] = name

    def check(self, tier: Tier, store: Store[Any, Any]) -> Steps[list[Any]]:
        """Look at one key, and again at those that are due. Returns the keys that are mismatches.

        Raises:
            ShardError: L2 did not answer; nothing is known then.
        """
        found = yield from self._look_again(tier, store)
        if not self._keys:
            return found
        name = self._keys[int(self._uniform() * len(self._keys))]
        served = store.l1_wid(name)
        if not served:
            return found
        held = yield from _held(tier, name)
        self.checks += 1
        # Evicted is not changed: an eviction announces nothing, and L1 may serve the value for the rest of its time.
        if held not in (0, served) and not (yield from _is_equal(tier, store, name)):
            self._suspicions.append((tier.clock() + tier.lanes[0].bound_ns, name, served))
        return found

    def _look_again(self, tier: Tier, store: Store[Any, Any]) -> Steps[list[Any]]:
        now_ns = tier.clock()
        due = [suspicion for suspicion in self._suspicions if suspicion[0] <= now_ns]
        self._suspicions = [suspicion for suspicion in self._suspicions if suspicion[0] > now_ns]
        found = []
        for _, name, served in due:
            # A failover may have brought the first write back meanwhile.
            if store.l1_wid(name) == served and (yield from _held(tier, name)) != served:
                found.append(name)
        self.mismatches += len(found)
        return found


def _held(tier: Tier, name: Any) -> Steps[int]:
    """Return which write L2 holds of a key; 0: none."""
    lane, encoded = tier.place(name)
    command = (b"GETRANGE", tier.names[lane].value(encoded), *HEADER_RANGE)
    reply = answer((yield [Exchange(lane, [command])])[0])
    try:
        return peek_ids(reply.values[0])[0]
    except DecodeError:
        return 0


def _is_equal(tier: Tier, store: Store[Any, Any], name: Any) -> Steps[bool]:
    """Whether the values of a key in L1 and L2 are equal, whoever wrote them."""
    lane, encoded = tier.place(name)
    reply = answer((yield [Exchange(lane, [(b"GET", tier.names[lane].value(encoded))])])[0])
    data, mine = reply.values[0], store.peek(name, MISSING)
    if data is None or mine is MISSING:
        return False
    try:
        return bool(thaw(tier.codec.loads(data, key=encoded)[0]) == thaw(mine))
    except Exception:  # noqa: BLE001  not to be read, or their comparison raises: then nobody can say that they are
        return False
