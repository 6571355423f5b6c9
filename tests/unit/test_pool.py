"""The pool of one shard's connections: what no server can make happen."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from nearcache.clocks import monotonic_ns
from nearcache.l2.pool import Pool
from nearcache.workers import Workers

TIMEOUT = 20.0


def closing_pool() -> None:
    """Close a pool where a collection may close it: in the middle."""
    pool = Pool("a", 1, lambda _: pytest.fail("nothing is to be connected"), monotonic_ns)
    with pool._free:
        pool.close()


def closing_workers() -> None:
    """The same for background threads."""
    workers = Workers()
    with workers._lock:
        workers.close()


@pytest.mark.parametrize("closing", [closing_pool, closing_workers])
def test_closed_by_a_collection_in_the_middle_does_not_wait_for_itself(closing: Callable[[], None]) -> None:
    """A cache that nobody holds any more is closed in whatever thread the collection happens to run."""
    thread = threading.Thread(target=closing, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
