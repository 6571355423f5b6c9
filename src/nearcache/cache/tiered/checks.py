"""What is looked at when a cache on Redis is opened: whether the servers are configured for what they are to keep."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from ...errors import ConfigError, ShardError
from ...l2 import Driver, Exchange
from ...loading import Tier
from ...logs import log
from ...options import Endpoint


def check_queues(driver: Driver, tier: Tier, timeout_s: float, *, delayed: bool) -> None:
    """Look whether the servers keep locks, and what is in the queues, as far as they say.

    Args:
        delayed: Whether there are queues.
    Raises:
        ConfigError: One may evict them.
    """
    sections = [(b"INFO", b"memory"), (b"INFO", b"persistence")]
    lanes = range(len(tier.shard_names))
    exchanges = [Exchange(lane, sections) for lane in lanes]
    known: set[int] = set()
    for lane, reply in zip(lanes, driver.execute(exchanges, timeout_s=timeout_s), strict=True):
        name = tier.name_at(lane)
        answers = [reply] if isinstance(reply, ShardError) else reply.values
        error = next((answer for answer in answers if isinstance(answer, ShardError)), None)
        if error is not None:
            if not delayed:
                continue
            text = "namespace %s: shard %s does not tell whether it keeps what waits to be written: %s"
            log(logging.WARNING, text, tier.namespace, name, str(error).removeprefix(f"shard {name}: "))
            continue
        assert not isinstance(reply, ShardError)
        if reply.identity in known:
            continue
        known.add(reply.identity)
        text = b"\n".join(reply.values).decode("utf-8", "replace")
        told = dict(re.findall(r"^(\w+):(.*?)\r?$", text, re.MULTILINE))
        _check_policy(told.get("maxmemory_policy", "") if told.get("maxmemory", "0") != "0" else "", delayed=delayed)
        if delayed and told.get("aof_enabled") == "0":
            log(
                logging.WARNING,
                "namespace %s: shard %s has no append-only file (appendonly no), and loses the changes that wait "
                "to be written when it ends or is restarted (docs/writing.md)",
                tier.namespace,
                name,
            )


def _check_policy(policy: str, *, delayed: bool) -> None:
    option, remedy = "write_delay" if delayed else "writer", "set it to volatile-lru or noeviction"
    if delayed and policy.startswith("allkeys"):
        what = "with this maxmemory-policy the server may evict changes that wait to be written"
        raise ConfigError(option, policy, f"{what}: {remedy}")
    # The shortest lifetimes are those of locks; and to LFU a lock is what was read less often than any value in use.
    how = "first" if policy == "volatile-ttl" else "as well"
    if policy == "volatile-ttl" or policy.endswith(("-random", "-lfu")):
        what = f"with this maxmemory-policy a full server evicts locks {how}, so that two processes write at once"
        raise ConfigError(option, policy, f"{what}: {remedy}")


def check_masters(driver: Driver, namespace: str, endpoints: Mapping[int, Endpoint]) -> None:
    """Look whether masters that sentinels watch cease to take writes when they are cut off. ``endpoints``: by lane."""
    for shard, endpoint in endpoints.items():
        status = driver.status(shard) if endpoint.master else None
        if status is not None and status.version and not status.guarded:
            log(
                logging.WARNING,
                "namespace %s: shard %s: %s has no min-replicas-to-write: cut off by a network failure, it would go on "
                "taking writes and vouching for copies after another one was promoted (docs/failure.md)",
                namespace, endpoint.name, status.address,
            )  # fmt: skip
