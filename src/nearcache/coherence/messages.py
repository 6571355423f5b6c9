"""Invalidation messages: bytes on a lane's channel -> :class:`Message`. The format is described in docs/wire.md.

A message says which write it announces (``wid``), which one came before it on the lane (``prev``), its place in the
lane's sequence, and the keys concerned. It never carries a value.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from ..errors import DecodeError

#: Operations: set, fill, invalidate, lease given back, clear, new epoch.
OPERATIONS: Final = frozenset("SFIACE")
#: First byte of encoded keys that belong to nobody's data; the self-test invalidates such a key.
RESERVED: Final = b"!"
#: What the encoded key of a tag's record begins with; the tag's hash follows in 16 hexadecimal digits.
TAG_KEY: Final = b"!t:"

#: Most bytes of a message's keys: twice what writers send. Taking more apart would hold up the lanes beside this one.
MOST_BYTES: Final = 131_072

_HEADER = re.compile(rb"([SFIACE]) ([0-9a-f]{16}) (\d{1,19}) ([0-9a-f]{16}) ([0-9a-f]{16})")


class Message(NamedTuple):
    """One invalidation message. Ids are unsigned 64-bit numbers; keys are encoded, as ``keys`` encodes them.

    Of the reserved keys only those of tags are among them.
    """

    operation: str
    epoch: int
    seq: int
    prev: int
    wid: int
    keys: list[bytes]


def unsigned(number: int) -> int:
    """Return a number that somebody has written for one of a lane's, which have 64 bits each.

    Raises:
        ValueError: It has more, or is negative.
    """
    if not 0 <= number < 1 << 64:
        raise ValueError("not a number of 64 bits")
    return number


def parse_message(payload: bytes) -> Message:
    """Return what a payload says.

    Raises:
        DecodeError: It is not a well-formed message. The lane that it came on can no longer be vouched for.
    """
    header, newline, rest = payload.partition(b"\n")
    match = _HEADER.fullmatch(header)
    if match is None or not newline:
        raise DecodeError(f"not an invalidation message: {payload[:80]!r}")
    operation, epoch, seq, prev, wid = match.groups()
    return Message(operation.decode(), int(epoch, 16), int(seq), int(prev, 16), int(wid, 16), _keys(rest))


def _keys(rest: bytes) -> list[bytes]:
    if len(rest) > MOST_BYTES:
        raise DecodeError(f"an invalidation message with {len(rest):,} bytes of keys is over {MOST_BYTES:,}")
    keys: list[bytes] = []
    start, end = 0, len(rest)
    while start < end:
        colon = rest.find(b":", start, start + 7)
        length = rest[start:colon]
        if colon < 0 or not length.isdigit():
            raise DecodeError(f"bad key length in an invalidation message at byte {start}")
        start, stop = colon + 1, colon + 1 + int(length)
        if stop > end:
            raise DecodeError("an invalidation message ends in the middle of a key")
        if rest[start : start + 1] != RESERVED or rest[start : start + 3] == TAG_KEY:
            keys.append(rest[start:stop])
        start = stop
    return keys


def pack_message(operation: str, epoch: int, seq: int, prev: int, wid: int, encoded_keys: list[bytes]) -> bytes:
    """Return the payload of a message, as the Lua scripts build it. For tools, tests and other publishers."""
    header = f"{operation} {epoch:016x} {seq} {prev:016x} {wid:016x}\n".encode()
    return header + b"".join(b"%d:%s" % (len(key), key) for key in encoded_keys)
