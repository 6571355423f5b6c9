"""Decoders of envelopes, payloads and messages, given damaged and made-up bytes: what ``make fuzz`` does, bounded."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.decoders import TARGETS, seeds

SEED = 20260103
ROUNDS = 60


def mutated(chance: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return the bytes with a few parts flipped, cut, doubled, or taken from others."""
    damaged = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        start = chance.randrange(len(damaged) + 1)
        end = min(len(damaged), start + chance.randrange(9))
        donor = chance.choice(others)
        patch = [
            b"", chance.randbytes(end - start), damaged[start:end] * 2, donor[start:end], b"\xff" * 8, b"\x80" * 5,
            b"4294967295", bytes(chance.randrange(4)),
        ]  # fmt: skip
        damaged[start:end] = chance.choice(patch)
    return bytes(damaged)


@pytest.mark.parametrize("target", TARGETS)
def test_decoder_of_well_formed_bytes_keeps_its_promises(target):
    """The seeds themselves, and each cut short."""
    for data in seeds(target):
        for size in range(len(data) + 1):
            TARGETS[target](data[:size])


@pytest.mark.parametrize("target", TARGETS)
def test_decoder_of_damaged_bytes_keeps_its_promises(target):
    """A seeded mixture; the seed is part of the failure."""
    chance = random.Random(SEED)
    known = seeds(target)
    for data in known:
        for number in range(ROUNDS):
            damaged = mutated(chance, data, known)
            try:
                TARGETS[target](damaged)
            except Exception as error:
                raise AssertionError(f"seed {SEED}, round {number}: {damaged.hex()}") from error


@pytest.mark.parametrize("target", TARGETS)
@given(st.binary(max_size=200))
def test_decoder_of_any_bytes_keeps_its_promises(target, data):
    """What no writer made."""
    TARGETS[target](data)
