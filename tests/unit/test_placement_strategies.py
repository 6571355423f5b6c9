"""The other ways to give keys to shards, and weights: how balanced they are, and how much moves when shards change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nearcache
from nearcache.errors import ConfigError
from nearcache.options import parse
from nearcache.placement import POINTS, SLOTS, STRATEGIES, Placement

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
#: Strategies that move little.
STEADY = ["rendezvous", "ring"]

NAMES = st.lists(st.from_regex(r"[a-z0-9.:-]{1,20}", fullmatch=True), min_size=2, max_size=64, unique=True)


@st.composite
def weighted(draw: st.DrawFn, most: int = 12, heaviest: int = 8) -> tuple[list[str], list[int]]:
    """Names and weights."""
    names = draw(NAMES.filter(lambda names: len(names) <= most))
    return names, draw(st.lists(st.integers(1, heaviest), min_size=len(names), max_size=len(names)))


def owners(placement: Placement) -> list[str]:
    """Return the name of the shard of each slot."""
    return [placement.names[shard] for shard in placement.table]


def mix(z: int) -> int:
    """As in docs/wire.md."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def seeds(name: str, weight: int) -> list[int]:
    """The name hashes that a shard takes part under, as in docs/wire.md."""
    found = []
    for copy in range(weight):
        value = 0xCBF29CE484222325
        for byte in name.encode() + (b"\0%d" % copy if copy else b""):
            value = (value ^ byte) * 0x100000001B3 & MASK
        found.append(value)
    return found


def reference(strategy: str, names: list[str], weights: list[int], slot: int) -> str:
    """The document's formulas, in plain Python."""
    at = mix((slot + 1) * GOLDEN & MASK)
    shards = list(zip(names, weights, strict=True))
    if strategy == "rendezvous":
        scores = {mix(seed + (slot + 1) * GOLDEN & MASK): n for n, w in shards for seed in seeds(n, w)}
        return scores[max(scores)]
    if strategy == "ring":
        ring = {mix(s + (j + 1) * GOLDEN & MASK): n for n, w in shards for s in seeds(n, w) for j in range(POINTS)}
        return ring[min((point for point in ring if point >= at), default=min(ring))]
    turn = [name for name, weight in sorted(shards) for _ in range(weight)]
    return turn[slot % len(turn)]


@settings(max_examples=12, deadline=None)
@given(shards=weighted(4, 2), strategy=st.sampled_from(sorted(STRATEGIES)), slot=st.integers(0, SLOTS - 1))
def test_table_agrees_with_the_formula(shards: tuple[list[str], list[int]], strategy: str, slot: int) -> None:
    """The table is what the document says, whatever the strategy."""
    names, weights = shards
    if strategy == "modulo":
        weights = [1] * len(names)
    placement = Placement(names, weights=weights, strategy=strategy)
    assert owners(placement)[slot] == reference(strategy, names, weights, slot)


@settings(max_examples=20, deadline=None)
@given(shards=weighted())
def test_rendezvous_any_weights_gives_each_its_share(shards: tuple[list[str], list[int]]) -> None:
    """A shard has slots in proportion to its weight, within five standard deviations of chance."""
    names, weights = shards
    placement, total = Placement(names, weights=weights), sum(weights)
    for shard, weight in enumerate(weights):
        expected = SLOTS * weight / total
        assert abs(placement.slots_of(shard) - expected) < 5 * expected**0.5 + 1


@pytest.mark.parametrize(("count", "fullest"), [(2, 1.15), (3, 1.2), (10, 1.3), (64, 1.45)])
def test_ring_is_balanced_as_rings_are(count: int, fullest: float) -> None:
    """With 160 points each the fullest shard has somewhat more than its share."""
    placement = Placement([f"redis-{number}.example.com:6379" for number in range(count)], strategy="ring")
    assert max(map(placement.slots_of, range(count))) * count / SLOTS < fullest


@settings(max_examples=20, deadline=None)
@given(shards=weighted(64, 3), strategy=st.sampled_from(["modulo", "round_robin"]))
def test_dealt_slots_are_balanced_to_one_turn(shards: tuple[list[str], list[int]], strategy: str) -> None:
    """Nobody has a turn more than its share."""
    names, weights = shards
    if strategy == "modulo":
        weights = [1] * len(names)
    placement, total = Placement(names, weights=weights, strategy=strategy), sum(weights)
    for shard, weight in enumerate(weights):
        assert abs(placement.slots_of(shard) - SLOTS * weight / total) <= weight


@settings(max_examples=20, deadline=None)
@given(shards=weighted(), strategy=st.sampled_from(STEADY), weight=st.integers(1, 8))
def test_added_shard_takes_slots_and_no_others_move(
    shards: tuple[list[str], list[int]], strategy: str, weight: int
) -> None:
    """What moves when a shard joins, moves to it; and back again, when it leaves."""
    names, weights = shards
    before = owners(Placement(names, weights=weights, strategy=strategy))
    after = owners(Placement(["Z", *names], weights=[weight, *weights], strategy=strategy))
    assert all(new in (old, "Z") for old, new in zip(before, after, strict=True))


@settings(max_examples=20, deadline=None)
@given(shards=weighted(), strategy=st.sampled_from(STEADY), data=st.data())
def test_heavier_shard_takes_slots_and_no_others_move(
    shards: tuple[list[str], list[int]], strategy: str, data: st.DataObject
) -> None:
    """What moves when a shard gets heavier, moves to it; and back again, when it gets lighter."""
    names, weights = shards
    which = data.draw(st.integers(0, len(names) - 1))
    heavier = [weight + (place == which) * 2 for place, weight in enumerate(weights)]
    before = owners(Placement(names, weights=weights, strategy=strategy))
    after = owners(Placement(names, weights=heavier, strategy=strategy))
    assert all(new in (old, names[which]) for old, new in zip(before, after, strict=True))


@settings(max_examples=15, deadline=None)
@given(names=NAMES)
def test_rendezvous_added_shard_moves_its_share_only(names: list[str]) -> None:
    """The n-th of equal shards moves 1/n of the slots, within five standard deviations of chance."""
    before, after = owners(Placement(names)), owners(Placement([*names, "Z"]))
    moved = sum(old != new for old, new in zip(before, after, strict=True))
    expected = SLOTS / (len(names) + 1)
    assert abs(moved - expected) < 5 * expected**0.5


@settings(max_examples=20, deadline=None)
@given(shards=weighted(), strategy=st.sampled_from(sorted(STRATEGIES)), data=st.data())
def test_order_of_shards_decides_nothing(
    shards: tuple[list[str], list[int]], strategy: str, data: st.DataObject
) -> None:
    """The same shards in another order place every slot on the same name, and have the same fingerprint."""
    names, weights = shards
    if strategy == "modulo":
        weights = [1] * len(names)
    pairs = data.draw(st.permutations(list(zip(names, weights, strict=True))))
    first = Placement(names, weights=weights, strategy=strategy)
    second = Placement([name for name, _ in pairs], weights=[weight for _, weight in pairs], strategy=strategy)
    assert owners(first) == owners(second)
    assert first.version == second.version


def test_fingerprints_of_different_placements_differ() -> None:
    """Names, weights and strategy are all in it."""
    versions = {
        Placement(["a", "b"], weights=weights, strategy=strategy).version
        for weights, strategy in [
            ([1, 1], "rendezvous"), ([2, 1], "rendezvous"), ([1, 2], "rendezvous"), ([2, 2], "rendezvous"),
            ([1, 1], "ring"), ([2, 1], "ring"), ([1, 1], "modulo"), ([1, 1], "round_robin"), ([12, 1], "ring"),
            ([1, 12], "ring"),
        ]
    }  # fmt: skip
    assert len(versions) == 10
    assert Placement(["a", "b"]).version == Placement(["a", "b"], weights=[1, 1]).version


def test_placement_most_shards_are_placed() -> None:
    """255 shards, whatever the strategy, all have slots."""
    names = [str(number) for number in range(255)]
    for strategy in STRATEGIES:
        assert set(Placement(names, strategy=strategy).table) == set(range(255))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"placement": "ketama"}, "placement='ketama': give one of 'rendezvous', 'ring', 'modulo', 'round_robin'"),
        ({"shard_weights": (1, 0)}, "shard_weights=0: give a whole number from 1 to 100"),
        ({"shard_weights": "1,x"}, "shard_weights='x'"),
        ({"shard_weights": 3}, "shard_weights=3: give one weight per shard"),
        ({"shard_weights": (1, 2, 3)}, "give one weight for each of the 2 shards"),
        ({"shard_weights": (1, 2), "placement": "modulo"}, "'round_robin' has|\"round_robin\" has"),
    ],
)
def test_options_wrong_placement_is_refused(options: dict, named: str) -> None:
    """The error names option, value and remedy, before anything is connected."""
    with pytest.raises(ConfigError, match=named):
        nearcache.open("redis://a,b", **options)


def test_options_weights_and_strategy_may_stand_in_the_url() -> None:
    """Like all that is no object."""
    chosen = parse("redis://a,b?shard_weights=2,1&placement=ring")
    assert [endpoint.weight for endpoint in chosen.endpoints] == [2, 1]
    assert chosen.placement == "ring"
    assert parse("embedded://?shards=2&placement=round_robin").placement == "round_robin"
