"""A cluster that leads on from node to node, while another node has not answered: by real drivers, from fake nodes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import pytest

from nearcache.l2 import Exchange, Reply
from nearcache.l2.clustering import ClusterDriver
from nearcache.l2.clustering_aio import AsyncClusterDriver
from nearcache.options import Endpoint
from support.fake import FakeServer, bulk

TIMEOUT_S = 20.0
MOVING, SLOW = 5, 9  # slots, of which each is a lane's
CHAINS = {
    "MOVED twice": (b"-MOVED 5 127.0.0.1:%d\r\n", b"-MOVED 5 127.0.0.1:%d\r\n"),
    "MOVED, then ASK": (b"-MOVED 5 127.0.0.1:%d\r\n", b"-ASK 5 127.0.0.1:%d\r\n"),
    "ASK twice": (b"-ASK 5 127.0.0.1:%d\r\n", b"-ASK 5 127.0.0.1:%d\r\n"),
}


class Cluster:
    """Three nodes that a lane's read is led through, and one that answers only when the other is done."""

    def __init__(self, first: bytes, second: bytes) -> None:
        self.done = threading.Event()
        self.first, self.second = first, second
        self.nodes = [FakeServer(answer) for answer in (self._first, self._second, self._third, self._slow)]

    def _slots(self) -> bytes:
        def served(slot: int, node: FakeServer) -> bytes:
            return b"*3\r\n:%d\r\n:%d\r\n*2\r\n%b:%d\r\n" % (slot, slot, bulk(b"127.0.0.1"), node.port)

        return b"*2\r\n" + served(MOVING, self.nodes[0]) + served(SLOW, self.nodes[3])

    def _first(self, command: list[bytes]) -> bytes:
        return self._slots() if command[0] == b"CLUSTER" else self.first % self.nodes[1].port

    def _second(self, command: list[bytes]) -> bytes:
        return b"+OK\r\n" if command[0] == b"ASKING" else self.second % self.nodes[2].port

    def _third(self, command: list[bytes]) -> bytes:
        return b"+OK\r\n" if command[0] == b"ASKING" else bulk(b"found")

    def _slow(self, _: list[bytes]) -> bytes:
        return bulk(b"late" if self.done.wait(TIMEOUT_S) else b"too late")

    def heard(self, place: int, reply: object) -> None:
        """An exchange has been answered."""
        if place == 0:
            self.done.set()


@pytest.fixture(params=CHAINS)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    cluster = Cluster(*CHAINS[request.param])
    with contextlib.ExitStack() as stack:
        for node in cluster.nodes:
            stack.enter_context(node)
        yield cluster


@pytest.mark.parametrize("way", ["in a thread", "in a loop"])
def test_chain_is_followed_while_another_node_is_waited_for(way: str, cluster: Cluster) -> None:
    """The slow node answers when the lane that was led on has its answer: waiting for it first would take for ever."""
    endpoint = Endpoint("seed", host="127.0.0.1", port=cluster.nodes[0].port, clustered=True)
    exchanges = [Exchange(0, [(b"GET", b"moving")]), Exchange(1, [(b"GET", b"slow")])]
    driver = ClusterDriver([endpoint], [MOVING, SLOW])

    async def in_loop() -> list[object]:
        aio = AsyncClusterDriver(driver)
        try:
            return list(await aio.execute(exchanges, timeout_s=TIMEOUT_S, on_reply=cluster.heard))
        finally:
            aio.close_here()

    if way == "in a loop":
        found = asyncio.run(in_loop())
    else:
        found = list(driver.execute(exchanges, timeout_s=TIMEOUT_S, on_reply=cluster.heard))
    driver.close()
    assert [reply.values for reply in found if isinstance(reply, Reply)] == [[b"found"], [b"late"]]
