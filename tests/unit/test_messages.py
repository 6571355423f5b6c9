"""Invalidation messages: the parser takes what the scripts write, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.coherence import Message, pack_message, parse_message
from nearcache.coherence.messages import MOST_BYTES
from nearcache.errors import DecodeError
from nearcache.keys import MAX_KEY_BYTES

IDS = st.integers(0, 2**64 - 1)
KEYS = st.lists(st.binary(max_size=20).filter(lambda key: not key.startswith(b"!")), max_size=5)


@given(st.sampled_from("SFI"), IDS, st.integers(0, 10**18), IDS, IDS, KEYS)
def test_message_packed_and_parsed_is_the_same(op: str, epoch: int, seq: int, prev: int, wid: int, keys: list) -> None:
    """Keys of any bytes survive: their lengths say where they end."""
    payload = pack_message(op, epoch, seq, prev, wid, keys)
    assert parse_message(payload) == Message(op, epoch, seq, prev, wid, keys)


def test_message_about_a_reserved_key_names_nobody() -> None:
    """The self-test's key continues the chain and concerns no entry."""
    payload = pack_message("I", 1, 2, 3, 4, [b"!selftest", b"sk"])
    assert parse_message(payload).keys == [b"sk"]


@given(st.binary(max_size=200))
def test_message_of_any_bytes_is_parsed_or_refused(data: bytes) -> None:
    """No input makes the parser raise anything else."""
    try:
        parse_message(data)
    except DecodeError:
        pass


@given(KEYS.filter(bool), st.data())
def test_message_cut_anywhere_is_refused_or_shorter(keys: list, data: st.DataObject) -> None:
    """A cut never turns one key into another."""
    payload = pack_message("S", 1, 2, 3, 4, keys)
    cut = data.draw(st.integers(0, len(payload) - 1))
    try:
        found = parse_message(payload[:cut])
    except DecodeError:
        return
    assert found.keys == keys[: len(found.keys)]


@pytest.mark.parametrize(
    "payload",
    [
        b"S 1 2 3 4\n",
        b"S 000000000000000E 1 0000000000000000 0000000000000000\n",
        b"S 000000000000000e -1 0000000000000000 0000000000000000\n",
        b"S 000000000000000e 1 0000000000000000 0000000000000000",
        b"S 000000000000000e 1 0000000000000000 0000000000000000\n9:sk",
        b"S 000000000000000e 1 0000000000000000 0000000000000000\n2sk",
        b"S 000000000000000e 1 0000000000000000 0000000000000000\n99999999:sk",
    ],
)
def test_message_malformed_is_refused(payload: bytes) -> None:
    """Each of these could hide a key."""
    with pytest.raises(DecodeError):
        parse_message(payload)


def test_message_longer_than_any_writer_sends_is_refused_unread() -> None:
    """Millions of keys would hold up all lanes of the connection."""
    longest = pack_message("S", 1, 2, 3, 4, [b"s" * MAX_KEY_BYTES])
    assert parse_message(longest).keys == [b"s" * MAX_KEY_BYTES]
    payload = pack_message("S", 1, 2, 3, 4, [b"sk"] * (MOST_BYTES // 4 + 1))
    with pytest.raises(DecodeError, match="is over 131,072"):
        parse_message(payload)
