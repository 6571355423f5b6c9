"""Placement: balanced, stable, and the same in every process and every language."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache._placement import fnv1a64, rendezvous
from nearcache.errors import ConfigError
from nearcache.placement import SLOTS, Placement, lane_prefix

MASK = 2**64 - 1


def hosts(count: int) -> list[str]:
    """Return names as they occur."""
    return [f"redis-{number}.example.com:6379" for number in range(count)]


def reference_hash(data: bytes) -> int:
    """FNV-1a as the document has it."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & MASK
    return value


def reference_shard(names: list[str], slot: int) -> int:
    """The document's formula, in plain Python."""

    def score(name: str) -> int:
        z = (reference_hash(name.encode()) + (slot + 1) * 0x9E3779B97F4A7C15) & MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        return z ^ z >> 31

    return max(range(len(names)), key=lambda number: score(names[number]))


NAMES = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1), min_size=1, max_size=8, unique=True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_name_hash_gives_the_published_vectors(data: bytes, expected: int) -> None:
    """It is the FNV-1a that everybody has."""
    assert fnv1a64(data) == expected


def test_table_gives_the_documented_vectors() -> None:
    """These stand in docs/wire.md, and never change."""
    placement = Placement(["a", "b", "c"])
    assert placement.table[:16].hex() == "02000000010202020202010201020202"
    assert placement.version == 0x156FD55E648D679C
    assert [placement.slots_of(shard) for shard in range(3)] == [5460, 5375, 5549]


@settings(deadline=None)
@given(names=NAMES, slot=st.integers(0, SLOTS - 1))
def test_table_agrees_with_the_formula(names: list[str], slot: int) -> None:
    """The compiled table is what the document's formula says."""
    assert Placement(names).shard_of(slot) == reference_shard(names, slot)


@pytest.mark.parametrize(("count", "fullest"), [(3, 1.03), (5, 1.05), (10, 1.08), (50, 1.20)])
def test_table_is_balanced(count: int, fullest: float) -> None:
    """The fullest shard has little more than its share, and the emptiest little less."""
    placement = Placement(hosts(count))
    shares = [placement.slots_of(shard) * count / SLOTS for shard in range(count)]
    assert max(shares) < fullest
    assert min(shares) > 2 - fullest


@pytest.mark.parametrize("count", [2, 3, 5, 10, 50])
def test_added_shard_takes_its_share_and_nothing_else_moves(count: int) -> None:
    """The n-th shard takes about 1/n of the slots, all of them for itself."""
    before, after = Placement(hosts(count - 1)), Placement(hosts(count))
    moved = [slot for slot in range(SLOTS) if before.table[slot] != after.table[slot]]
    assert {after.table[slot] for slot in moved} == {count - 1}
    assert 0.8 < len(moved) * count / SLOTS < 1.2


@settings(max_examples=20, deadline=None)
@given(names=NAMES, data=st.data())
def test_removed_shard_leaves_the_others_where_they_are(names: list[str], data: st.DataObject) -> None:
    """Only the slots of the shard that goes are given to others."""
    gone = data.draw(st.sampled_from(names))
    rest = [name for name in names if name != gone]
    if rest:
        before, after = Placement(names), Placement(rest)
        assert all(
            names[old] == rest[new] for old, new in zip(before.table, after.table, strict=True) if names[old] != gone
        )


@settings(max_examples=20, deadline=None)
@given(names=NAMES, random=st.randoms(use_true_random=False))
def test_order_of_names_decides_nothing(names: list[str], random: Random) -> None:
    """The same names in another order place every slot on the same name, and have the same version."""
    shuffled = list(names)
    random.shuffle(shuffled)
    first, second = Placement(names), Placement(shuffled)
    assert [names[shard] for shard in first.table] == [shuffled[shard] for shard in second.table]
    assert first.version == second.version


def test_version_of_other_names_differs() -> None:
    """Also where their bytes run together the same way."""
    versions = {Placement(names).version for names in (["ab", "c"], ["a", "bc"], ["a", "b", "c"], ["abc"], ["1:a"])}
    assert len(versions) == 5


def test_table_is_the_same_in_every_process() -> None:
    """Python's own hashing, which differs from process to process, has no part in it."""
    code = "from nearcache.placement import Placement as P; p = P(['x', 'y', 'z']); print(p.version, p.table.hex())"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("0", "1", "12345")
    }
    here = Placement(["x", "y", "z"])
    assert outputs == {f"{here.version} {here.table.hex()}\n".encode()}


def test_one_shard_has_all_slots() -> None:
    """There is nothing to choose."""
    assert Placement(["only"]).table == bytes(SLOTS)


@pytest.mark.parametrize("names", [[], ["a", "a"], [str(number) for number in range(256)]], ids=["0", "twice", "256"])
def test_placement_of_impossible_lists_is_refused(names: list[str]) -> None:
    """A shard's name is its own, and its number fits into a byte."""
    with pytest.raises(ConfigError, match="shard_names"):
        Placement(names)


def test_rendezvous_of_equal_hashes_is_refused() -> None:
    """Two shards with one hash would not share the slots."""
    with pytest.raises(ValueError, match="different"):
        rendezvous([1, 1])


def test_lane_prefix_carries_the_database_unless_it_is_0() -> None:
    """The channel follows from the prefix, and channels are common to all databases."""
    assert lane_prefix("shop") == b"nc:{shop:0}:"
    assert lane_prefix("shop", 5) == b"nc:{shop:5}:"
    assert lane_prefix("shop", db=3) == b"nc:{shop:0@3}:"
