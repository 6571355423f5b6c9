"""Graphs that are no bombs come back from the safe codec, whatever classes with hashes of their own are in them; what
could not come back is refused when it is written."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from nearcache.codecs import SafeCodec
from nearcache.codecs.reading import Pickled
from nearcache.errors import UnencodableValueError
from support import bombs
from support.bombs import (
    ASKED,
    CODEC,
    TUPLES_KEEP_HASHES,
    Called,
    Child,
    Link,
    Marks,
    Pair,
    Peer,
    Plain,
    Slim,
    Table,
    Vertex,
)


def ring(kind: Callable[[str], Any], edges: str, size: int) -> list[Any]:
    """Each knows the one before and the one behind."""
    nodes = [kind(f"n{number}") for number in range(size)]
    for number, node in enumerate(nodes):
        getattr(node, edges).extend((nodes[number - 1], nodes[(number + 1) % size]))
    return nodes


def star(kind: Callable[[str], Any], edges: str, size: int) -> list[Any]:
    """Three know all others, and all others know those three."""
    nodes = [kind(f"n{number}") for number in range(size)]
    for node in nodes:
        getattr(node, edges).extend(nodes[:3])
    for hub in nodes[:3]:
        getattr(hub, edges).extend(nodes)
    return nodes


def family(width: int, depth: int) -> list[Child]:
    """A tree whose nodes know their parents, and are hashed with them."""
    nodes = [Child("root")]
    level = nodes[:]
    for _ in range(depth):
        below = [Child(f"{parent.name}.{number}", parent) for parent in level for number in range(width)]
        for child in below:
            assert child.parent is not None
            child.parent.children.append(child)
        nodes += below
        level = below
    return nodes


def again(value: Any) -> Any:
    return CODEC.decode(*CODEC.encode(value))


GRAPHS: dict[str, Callable[[], list[Any]]] = {
    "ring of 60 frozen": lambda: ring(Vertex, "edges", 60),
    "ring of 60 with a hash": lambda: ring(Peer, "peers", 60),
    "ring of 60 plain": lambda: ring(Plain, "links", 60),
    "star of 60 frozen": lambda: star(Vertex, "edges", 60),
    "star of 60 with a hash": lambda: star(Peer, "peers", 60),
    "star of 60 plain": lambda: star(Plain, "links", 60),
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_with_cycles_comes_back_from_lists_sets_and_dicts(graph: str) -> None:
    """Beside classes with a deep hash, as list, set, keys, and members of tuples that are members."""
    nodes = GRAPHS[graph]()
    deep = {Link("a", Link("b", (1, 2))), Slim("c", Link("d"))}
    read = again(
        {"set": set(nodes), "list": nodes, "keys": dict.fromkeys(nodes), "pairs": {(x, 1) for x in nodes}, "x": deep}
    )
    assert [node.name for node in read["list"]] == [node.name for node in nodes]
    assert read["set"] == set(read["list"])
    assert list(read["keys"]) == read["list"]
    assert read["pairs"] == {(node, 1) for node in read["list"]}
    assert read["x"] == deep


@pytest.mark.parametrize(("kind", "edges"), [(Vertex, "edges"), (Peer, "peers"), (Plain, "links")])
def test_graph_of_500_in_a_cycle_comes_back(kind: Callable[[str], Any], edges: str) -> None:
    """With edges both ways, and each in reach of a list of all, so that it nests as little as it may."""
    nodes = [kind(f"n{number}") for number in range(500)]
    hub = kind("hub")
    for number, node in enumerate(nodes):
        getattr(node, edges).extend((hub, nodes[number - 1] if number % 50 else hub))
    getattr(hub, edges).extend(nodes)
    read = again([hub, set(nodes)])
    assert len(read[1]) == 500
    assert set(getattr(read[0], edges)) == read[1]
    assert all(getattr(node, edges)[0] is read[0] for node in read[1])


def test_tree_whose_nodes_are_hashed_with_their_parents_comes_back() -> None:
    """Late fillings that the hash does read, each of them once."""
    nodes = family(3, 5)
    read = again({"all": set(nodes), "root": nodes[0]})
    assert {node.name for node in read["all"]} == {node.name for node in nodes}
    assert read["root"] in read["all"]
    line = family(1, 60)
    assert again([line[0], set(line)])[1] == set(line)


def test_graph_whose_nodes_know_the_list_that_they_are_in_comes_back() -> None:
    """A list that is filled after others hold it, and is in the state of whatever is hashed."""
    nodes: list[Peer] = [Peer(f"n{number}") for number in range(1000)]
    for node in nodes:
        node.peers = nodes
    read = again([nodes, set(nodes)])
    assert set(read[0]) == read[1]
    assert all(node.peers is read[0] for node in read[0])


@pytest.mark.parametrize("size", [1_000, 10_000])
def test_set_of_many_frozen_objects_comes_back(size: int) -> None:
    """Alone, where nothing is counted, and beside a cycle, where each hash is."""
    members = {Link(number, Link("inner", (number, str(number)))) for number in range(size)}
    assert again([members]) == [members]
    knot = Peer("knot")
    knot.peers.append(knot)
    read = again([members, knot])
    assert read[0] == members
    assert read[1].peers[0] is read[1]


def test_shared_members_come_back() -> None:
    """A thousand that share what is large, beside a cycle."""
    large = tuple(range(300))
    knot = Peer("knot")
    knot.peers.append(knot)
    members = {Link(number, (large, knot)) for number in range(1000)}
    read = again([members, knot])
    assert len(read[0]) == 1000
    assert len({id(link.related[0]) for link in read[0]}) == 1


def test_containers_of_registered_classes_come_back() -> None:
    """What is hashed by the reader, of every kind, in a cycle and not."""
    knot = Peer("knot")
    table = Table({Link("a"): 2, (1, (2, "x")): 3, Pair(1, Link("b")): 4, "text": 5})
    marks = Marks([Link("a"), (1, 2), "text"])
    assert again([table, marks])[1] == marks
    knot.peers += [table, marks, knot, Called((1, Link("c")))]
    read = again([knot, table, Table({knot: 1}), {Called((1, 2)): 1}])
    assert read[1] is read[0].peers[0]
    assert read[2][read[0]] == 1
    assert read[0].peers[1] == marks


def test_graph_is_counted_only_where_it_may_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cycle, or without a class with a hash of its own, nothing is read twice."""
    asked: list[Pickled] = []
    for module in ("reading", "safe"):
        monkeypatch.setattr(f"nearcache.codecs.{module}.rehearse", asked.append)
    again([{Link("a", Link("b"))}, Table({"a": Link("c")}), Marks([1, (2, 3)])])
    again(ring(Plain, "links", 3))
    assert asked == []
    again(ring(Vertex, "edges", 3))
    assert len(asked) == 2


def test_reading_that_counts_leaves_nothing_behind() -> None:
    """What it makes is of classes that nobody else sees: the value has the registered ones."""
    read = again([set(nodes := ring(Vertex, "edges", 10)), nodes])
    assert {type(node) for node in read[1]} == {Vertex}
    assert type(again(Table({Link("a"): 1, (Link("b"),): 2})).popitem()[0][0]) is Link


def test_classes_do_not_hear_of_stand_ins() -> None:
    """A class that keeps a list of its subclasses, or does not want any, is not asked."""
    assert again(ring(bombs.Final, "peers", 3))[0].name == "n0"


def test_hash_of_a_stand_in_nests_as_deep_as_that_of_the_class() -> None:
    """What Python's limit admits in the second reading, it admits in the first."""
    line: Any = None
    nodes = []
    for number in range(300):
        line = Link(number, line)
        nodes.append(line)
    knot = Peer("knot")
    knot.peers.append(knot)
    payload, schema = CODEC.encode([nodes, {nodes[-1]: 1}])
    assert CODEC.decode(payload, schema)[1] == {nodes[-1]: 1}
    assert CODEC.decode(*CODEC.encode([knot, nodes, {nodes[-1]: 1}]))[2] == {nodes[-1]: 1}


def test_value_that_takes_forever_to_hash_is_refused_when_it_is_written() -> None:
    """Its own members were hashed when they held less; the error says what it is and what to do."""
    ASKED[0] = 0
    if TUPLES_KEEP_HASHES:  # it takes no time
        nodes, _members = CODEC.decode(*CODEC.encode(bomb()))
        assert isinstance(nodes, Link)
    else:
        with pytest.raises(UnencodableValueError, match="hash") as caught:
            CODEC.encode(bomb())
        assert "list" in str(caught.value)
    assert ASKED[0] < 1_000_000


def bomb() -> Any:
    """Objects of which each holds the one outside of it twice, and the next one where its hash does not look; and a set
    of the innermost, made while that was empty."""
    nodes = [Link(level) for level in range(41)]
    members = {nodes[-1]}
    for outer, inner in pairwise(nodes):
        vars(outer)["unread"] = inner
        vars(inner)["related"] = (outer, outer)
    return [nodes[0], members]


def test_value_whose_members_are_hashed_before_they_are_filled_is_refused_when_it_is_written() -> None:
    """As plain pickle writes it, and cannot read it."""
    child = Child("child", Child("parent"))
    assert child.parent is not None
    vars(child.parent)["children"] = {child}
    with pytest.raises(UnencodableValueError, match="not read back"):
        CODEC.encode(child.parent)


class Parcel(msgspec.Struct):
    """One that msgspec makes: with a hash that refuses, and a metaclass that has no stand-ins."""

    weight: int
    labels: list[str]


def test_objects_that_have_no_stand_ins_come_back_beside_a_cycle() -> None:
    """Where they cannot be keys, or are complete when they are made."""
    codec = SafeCodec((Peer, Called, Parcel))
    knot = Peer("knot")
    knot.peers += [knot, Parcel(1, ["a"]), Called((1, 2))]
    read = codec.decode(*codec.encode([knot, {knot, Called((1,))}]))
    assert read[0].peers == [read[0], Parcel(1, ["a"]), Called((1, 2))]
    assert read[1] == {read[0], Called((1,))}


def test_value_with_keys_that_change_and_cannot_be_counted_is_refused_when_it_is_written() -> None:
    """The error names the class and the way out."""
    knot = Peer("knot")
    knot.peers += [knot, Called([1])]
    with pytest.raises(UnencodableValueError, match=r"bombs\.Called cannot be counted beside cycles.* leave"):
        CODEC.encode(knot)
