"""Pools whose connections are all in use."""

from __future__ import annotations

from typing import Any

from nearcache.errors import ShardUnavailableError
from nearcache.l2 import Driver


def wanting_another(driver: Driver, exchanges: list[Any], *, timeout_s: float) -> ShardUnavailableError:
    """Return what a call is told that needs one more connection while the only one of the first shard is in use."""
    pool = driver.shard(0).pool
    only = pool.take_idle()
    assert only is not None
    error = driver.execute(exchanges, timeout_s=timeout_s)[0]
    pool.put(only)
    assert isinstance(error, ShardUnavailableError)
    return error
