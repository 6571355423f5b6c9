"""What a listener's connection says, in bytes, and an ear that hears it."""

from __future__ import annotations

from typing import Any

from nearcache._hearing import Ear
from nearcache.coherence import pack_message

EPOCH = 0xE


def bulk(*words: bytes) -> bytes:
    """Words as RESP carries them."""
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def push(channel: bytes, payload: bytes) -> bytes:
    """A message as RESP3 carries it."""
    return b">3\r\n" + bulk(b"message", channel, payload)


def ear_of(awaited: dict[bytes, Any] | None = None) -> Ear:
    """An ear for lane 0, which stands at message 4 with write id 0x10."""
    ear = Ear(0, b"nc:{t:0}:i", {} if awaited is None else awaited)
    ear.aim(EPOCH, 4, 0x10)
    return ear


def message(number: int) -> bytes:
    """The messages that follow where :func:`ear_of` stands, one by one."""
    payload = pack_message("S", EPOCH, 5 + number, 0x10 + number, 0x11 + number, [b"sa"])
    return push(b"nc:{t:0}:i", payload)
