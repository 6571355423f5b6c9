"""A shard whose requests and subscription lead to two servers. No I/O but for a pair of sockets."""

from __future__ import annotations

import socket
from typing import Any

from nearcache.l2.breaker import BreakerSettings
from nearcache.l2.connection import Connection
from nearcache.l2.handshake import Peer
from nearcache.l2.shard import Shard
from nearcache.options import Endpoint

SECOND = 1_000_000_000


class Subscription:
    """What a listener holds: a connection to the server of this identity."""

    def __init__(self, identity: int) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.connection = Connection(ours, "a")
        self.connection.identity = identity

    def is_cut(self) -> bool:
        """Whether it was shut down."""
        try:
            return self.theirs.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Close both ends."""
        self.connection.close()
        self.theirs.close()


def test_subscription_at_another_server_is_cut_and_seldom_again_if_that_is_no_use() -> None:
    """Requests have met another server, or history. Where a proxy leads them apart for good, haste is of no use."""
    now = [100 * SECOND]
    endpoint = Endpoint("a", host="127.0.0.1", port=1)
    breaker = BreakerSettings(3, SECOND, SECOND)
    shard: Any = Shard(
        0, endpoint, connect_timeout_ns=SECOND, pool_size=1, breaker=breaker, clock=lambda: now[0], on_unreachable=None
    )

    def cut(*, subscribed: int, requests: int) -> bool:
        subscription = Subscription(subscribed)
        shard._link = lambda: subscription.connection
        shard._peer = Peer(requests, "")
        shard.note_alive()
        found = subscription.is_cut()
        subscription.close()
        return found

    assert not cut(subscribed=1, requests=1)
    assert cut(subscribed=1, requests=2)
    assert not cut(subscribed=2, requests=2)
    assert cut(subscribed=2, requests=3)
    assert not cut(subscribed=2, requests=3)
    now[0] += 60 * SECOND
    assert cut(subscribed=2, requests=3)
    assert not cut(subscribed=2, requests=3)


def test_idle_connection_to_another_identity_is_not_taken() -> None:
    """The server has become a replica and a primary again: what comes over the old connection could never be kept."""
    shard: Any = Shard(
        0,
        Endpoint("a", host="127.0.0.1", port=1),
        connect_timeout_ns=SECOND,
        pool_size=1,
        breaker=BreakerSettings(3, SECOND, SECOND),
        clock=lambda: SECOND,
        on_unreachable=None,
    )
    shard._peer = Peer(2, "")
    for identity in (1, 2):
        idle = Subscription(identity)
        idle.connection.term = shard._term
        shard.pool.put(idle.connection)
        assert (shard.take(idle.connection.used_ns, [(b"GET", b"k")]) is idle.connection) is (identity == 2)
        idle.close()
