"""Connections to several shards, made at the same time.

Each takes several round trips, and a host that is dead takes all the time it is given. One after the other, those of a
long list would not be made in the time of one call.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..clocks import Clock
from ..errors import ShardError
from ..workers import start_thread
from .connection import Connection
from .pool import Pool


def open_each(pools: Sequence[Pool], deadline_ns: int, clock: Clock) -> list[Connection | ShardError | None]:
    """Return for each pool a new connection, or None where it has as many as may be, or why there is none.

    Where there are several pools, it takes no more than half of the time: the rest is for those that live.

    Raises:
        ClosedError: A pool is closed. No connection is left then.
    Cost: a thread for each but the first, which ends before this returns.
    """
    outcomes: list[Connection | BaseException | None] = [None] * len(pools)
    if len(pools) > 1:
        deadline_ns -= max(0, deadline_ns - clock()) // 2

    def make(place: int, until_ns: int) -> None:
        try:
            outcomes[place] = pools[place].open(until_ns)
        except BaseException as error:  # noqa: BLE001  the caller has to be told
            outcomes[place] = error.with_traceback(None)  # its frames hold the outcomes

    threads = []
    for place in range(1, len(pools)):
        if (thread := start_thread("nearcache-connect", make, place, deadline_ns)) is None:
            break
        threads.append(thread)
    rest = [0, *range(len(threads) + 1, len(pools))]
    for position, place in enumerate(rest):
        # A dead host among several must leave time for the others.
        now = clock()
        make(place, now + (deadline_ns - now) // (len(rest) - position))
    for thread in threads:
        thread.join()
    return _sorted_out(pools, outcomes)


def _sorted_out(
    pools: Sequence[Pool], outcomes: list[Connection | BaseException | None]
) -> list[Connection | ShardError | None]:
    found: list[Connection | ShardError | None] = []
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, ShardError):
            for pool, other in zip(pools, outcomes, strict=True):
                if isinstance(other, Connection):
                    pool.discard(other)
            raise outcome
        found.append(outcome)
    return found
