"""The wire format of lanes does not change: names, messages, heartbeats, tags and tokens are as the vectors say."""

from __future__ import annotations

import doctest
import json
import re
from pathlib import Path

import pytest

from nearcache import wire
from nearcache.coherence import Lane, State
from nearcache.errors import DecodeError

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "tests" / "data" / "wire_1.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "wire.md").read_text(encoding="utf-8")
M64 = 2**64 - 1


def cases(kind: str) -> pytest.MarkDecorator:
    """Run a test once for each vector of a kind."""
    return pytest.mark.parametrize("vector", VECTORS[kind].values(), ids=list(VECTORS[kind]))


@cases("names")
def test_names_of_a_lane_are_as_recorded(vector: dict) -> None:
    """Prefix, record, channel, value and mark: a program that computes others meets nobody."""
    names = wire.LaneNames(wire.lane_prefix(vector["namespace"], vector["lane"], vector["db"]))
    key = wire.encode_key("sku:1")
    found = [names.prefix, names.lane_key, names.channel, names.value(key), names.lease(key)]
    kinds = ("prefix", "record", "channel", "value of sku:1", "mark of sku:1")
    assert [each.hex() for each in found] == [vector[kind] for kind in kinds]


@cases("messages")
def test_message_is_written_and_read_as_recorded(vector: dict) -> None:
    """Every operation, both ways."""
    ids = (int(vector["epoch"], 16), vector["seq"], int(vector["prev"], 16), int(vector["wid"], 16))
    keys = [bytes.fromhex(key) for key in vector["keys"]]
    payload = bytes.fromhex(vector["payload"])
    assert wire.pack_message(vector["op"], *ids, keys) == payload
    assert wire.parse_message(payload) == wire.Message(vector["op"], *ids, keys)


@cases("not messages")
def test_payload_that_is_no_message_is_refused(vector: str) -> None:
    """What is not of the documented form is never guessed at."""
    with pytest.raises(DecodeError):
        wire.parse_message(bytes.fromhex(vector))


@pytest.mark.parametrize("name", VECTORS["tags"])
def test_tag_record_has_the_recorded_key(name: str) -> None:
    """Hash, key and slot, computed once more by hand."""
    vector = VECTORS["tags"][name]
    by_hand = 0xCBF29CE484222325
    for byte in name.encode():
        by_hand = (by_hand ^ byte) * 0x100000001B3 & M64
    assert f"{wire.tag_hash(name):016x}" == f"{by_hand:016x}" == vector["hash"]
    assert wire.tag_key(name).hex() == vector["key"]
    assert wire.slot_of(wire.tag_key(name)) == vector["slot"]


@pytest.mark.parametrize("token", VECTORS["tokens"])
def test_token_is_written_and_read_as_recorded(token: str) -> None:
    """Positions by lane; epochs and numbers in hexadecimal."""
    positions = {int(lane): (int(epoch, 16), int(seq, 16)) for lane, (epoch, seq) in VECTORS["tokens"][token].items()}
    assert wire.parse_token(token) == positions
    assert wire.pack_token(positions) == token


@pytest.mark.parametrize("field", VECTORS["ends"])
def test_ends_of_epochs_are_read_as_recorded(field: str) -> None:
    """Newest first: of an epoch that stands there twice the first number counts."""
    expected = {int(epoch, 16): seq for epoch, seq in VECTORS["ends"][field].items()}
    assert wire.parse_ends(field.encode()) == expected
    assert wire.parse_ends(field.encode() or None) == expected


@cases("heartbeats")
def test_heartbeat_reply_gives_the_recorded_baseline(vector: dict) -> None:
    """The first reply on a connection is where the lane stands."""
    lane = Lane(2_000_000_000)
    lane.connected(1)
    lane.heartbeat_sent(1)
    lane.heartbeat_reply([None if part is None else bytes.fromhex(part) for part in vector["reply"]], 0)
    assert lane.state is State.LIVE
    assert lane.position is not None
    assert (lane.position.epoch, lane.position.seq, lane.position.wid) == (
        int(vector["epoch"], 16),
        vector["seq"],
        int(vector["wid"], 16),
    )
    assert lane.generation == int(vector["generation"], 16)


@cases("forks")
def test_fork_of_a_server_is_as_recorded(vector: dict) -> None:
    """All clients must call a primary the same, or they would begin epochs in turn."""
    assert f"{wire.fork_of(vector['run_id'], vector['master_replid']):016x}" == vector["fork"]


def score(slot: int, name: str) -> int:
    """The documented formula, in plain Python."""
    z = 0xCBF29CE484222325
    for byte in name.encode():
        z = (z ^ byte) * 0x100000001B3 & M64
    z = z + (slot + 1) * 0x9E3779B97F4A7C15 & M64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M64
    z = (z ^ z >> 27) * 0x94D049BB133111EB & M64
    return z ^ z >> 31


@cases("placements")
def test_placement_is_as_recorded_and_as_the_formula_says(vector: dict) -> None:
    """The slots of each shard, found by the page's formula as well."""
    names = vector["names"]
    table = wire.Placement(names).table
    assert list(table[:16]) == vector["first 16 slots"]
    assert [table.count(number) for number in range(len(names))] == vector["slots of each"]
    assert f"{wire.Placement(names).version:016x}" == vector["version"]
    for slot in range(0, 16_384, 257):
        assert table[slot] == max(range(len(names)), key=lambda number, slot=slot: score(slot, names[number]))


def test_page_shows_the_placement_of_the_vectors() -> None:
    """The slots that docs/wire.md prints are those of the code."""
    (line,) = re.findall(r"slots 0 to 15 belong to\n\n    ([\d ]+)\n", PAGE)
    assert [int(number) for number in line.split()] == VECTORS["placements"]["three"]["first 16 slots"]


def test_page_shows_the_hash_of_a_tag() -> None:
    """So is the example of a tag."""
    assert f"`red` has the hash `{VECTORS['tags']['red']['hash']}`" in PAGE


def test_module_examples_hold() -> None:
    """What the docstring shows is so."""
    assert doctest.testmod(wire).failed == 0
    assert doctest.testmod(wire).attempted >= 4


def test_module_offers_what_it_names() -> None:
    """Everything in ``__all__`` is there, once, in order."""
    assert wire.__all__ == sorted(set(wire.__all__))
    assert all(hasattr(wire, name) for name in wire.__all__)
