"""Where the lanes of a cluster are, by what nodes say; no network, no time."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from nearcache.errors import ShardUnavailableError
from nearcache.l2 import clustermap
from nearcache.l2.clustermap import NOWHERE, ClusterMap, _address
from nearcache.options import Endpoint

SECOND = 1_000_000_000


class Scene:
    """A map of two lanes, in slots of the same number, which are both at node ``old``; the only seed is ``seed``.

    ``hosts`` are those of the nodes that have been met, by their numbers, and ``left`` the numbers of those that left.
    """

    def __init__(self) -> None:
        self.now = 0
        self.hosts: list[str] = []
        self.left: list[int] = []
        seeds = [Endpoint("seed", host="seed", port=1)]
        self.map = ClusterMap(seeds, range(2), self._add, self.left.append, lambda: self.now)
        self.map.places[:] = [self.map.place_at("old", 7000)] * 2

    def _add(self, endpoint: Endpoint) -> int:
        self.hosts.append(endpoint.host)
        return len(self.hosts) - 1

    @property
    def places(self) -> list[str | None]:
        """Where the lanes are."""
        return [None if place == NOWHERE else self.hosts[place] for place in self.map.places]


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ([b"10.0.0.1", 7000, b"id", []], ("10.0.0.1", 7000)),
        ([b"", 7000, b"id"], ("asked", 7000)),
        ([None, 7000, b"id", []], ("asked", 7000)),
        ([b"?", 7000, b"id", [b"ip", b"10.0.0.2"]], ("10.0.0.2", 7000)),
        ([b"host.name", 7000, b"id", [b"ip", b"10.0.0.2"]], ("host.name", 7000)),
    ],
)
def test_addresses_of_nodes_as_servers_write_them(server: list[Any], address: tuple[str, int]) -> None:
    """A node may have a name, an address, or neither that it knows of."""
    assert _address(server, "asked") == address


def test_map_takes_over_ranges_and_forgets_slots_that_nobody_has() -> None:
    """The first of the servers of a range is its primary."""
    scene = Scene()
    nodes = scene.map._take([[0, 0, [b"x", 1, b"id"], [b"y", 2, b"id"]], [2, 3, [b"y", 2, b"id"]]], "asked")
    assert nodes == [("x", 1), ("y", 2), ("y", 2)]
    assert scene.places == ["x", None]
    assert scene.map.lanes_at(scene.map.place_at("x", 1)) == [0]


def test_node_without_lanes_any_more_is_told_of_once() -> None:
    """Whichever way its last one went; not while it has another."""
    scene = Scene()
    scene.map.heed("MOVED 0 new:7000", "old")
    assert scene.left == []
    scene.map.heed("MOVED 1 new:7000", "old")
    scene.map.heed("MOVED 1 new:7000", "old")
    assert scene.left == [scene.map.place_at("old", 7000)]
    scene.map._take([[0, 1, [b"last", 7000]]], "asked")
    scene.map._take([[0, 1, [b"last", 7000]]], "asked")
    assert scene.left == [scene.map.place_at("old", 7000), scene.map.place_at("new", 7000)]


def test_map_does_not_believe_a_node_that_knows_of_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was taken out of the cluster, or has not come in yet. Others are asked, and it comes last from then on."""
    ranges = [[0, 1, [b"a", 7000], [b"b", 7000]]]
    said: dict[str, list[Any]] = {"seed": [], "a": ranges, "b": ranges}
    asked: list[str] = []

    def converse(endpoint: Endpoint, *_: Any) -> tuple[Any, dict[str, Any]]:
        asked.append(endpoint.host)
        return SimpleNamespace(close=lambda: None), {"slots": said[endpoint.host]}

    monkeypatch.setattr(clustermap, "converse", converse)
    scene = Scene()
    error = scene.map.refresh(SECOND)
    assert isinstance(error, ShardUnavailableError)
    assert "seed:1 knows of nobody who has slots" in str(error)
    assert scene.places == ["old", "old"]
    scene.map._known = (("seed", 1), ("a", 7000))
    for _ in range(2):
        scene.now += SECOND
        assert scene.map.refresh(scene.now + SECOND) is None
        assert scene.places == ["a", "a"]
    assert asked == ["seed", "seed", "a", "b"]


def test_map_that_nobody_could_tell_is_asked_for_by_one_caller_at_a_time_and_with_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Silent nodes cost a time-out each; whoever comes meanwhile, or right after, is told so at once."""
    scene, calls, meanwhile = Scene(), [0], list[Any]()

    def converse(endpoint: Endpoint, *_: Any) -> Any:
        calls[0] += 1
        if calls[0] > 1:
            meanwhile.append(scene.map.refresh(scene.now + SECOND))
        scene.now += SECOND
        raise ShardUnavailableError(endpoint.name, "silent")

    monkeypatch.setattr(clustermap, "converse", converse)
    first = scene.map.refresh(scene.now + SECOND)
    assert isinstance(first, ShardUnavailableError)
    scene.now += SECOND // 2
    assert scene.map.refresh(scene.now + SECOND) is first
    assert calls == [1]
    scene.now += SECOND // 2
    assert scene.map.refresh(scene.now + SECOND) is not first
    assert (calls, meanwhile) == ([2], [first])


def test_map_that_stays_as_it_is_is_asked_for_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a node is away, all who miss it ask. With news, or after a while without a question, that begins anew."""
    scene, asked, owner = Scene(), list[int](), ["a"]

    def converse(*_: Any) -> tuple[Any, dict[str, Any]]:
        asked.append(scene.now)
        return SimpleNamespace(close=lambda: None), {"slots": [[0, 1, [owner[0].encode(), 7000]]]}

    def ask_for(seconds: int) -> list[float]:
        """All the time; returns how far apart nodes were asked, in tenths of a second."""
        asked.clear()
        for _ in range(20 * seconds):
            assert scene.map.refresh(scene.now + SECOND) is None
            scene.now += SECOND // 20
        return [(later - before) / (SECOND / 10) for before, later in pairwise(asked)]

    monkeypatch.setattr(clustermap, "converse", converse)
    assert ask_for(4)[:6] == [1, 2, 4, 8, 8, 8]
    owner[0] = "b"
    assert ask_for(4)[:5] == [1, 2, 4, 8, 8]
    scene.now += 2 * SECOND
    assert ask_for(2)[:4] == [1, 2, 4, 8]
