"""The envelope: what stands around an encoded value in Redis (format 1; byte by byte in ``docs/wire.md``).

The header has a fixed size and fixed offsets, so that a script or a ``GETRANGE 0 35`` finds the wid and the
generation without understanding the rest. Those two are big-endian (their bytes read like their hexadecimal
text in the lane record and in messages), every other integer is little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from struct import error as StructError  # noqa: N812
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from nearcache.errors import DecodeError
from nearcache.options import MOST_TAGS

#: High nibble: nearcache. Low nibble: format 1.
MAGIC: Final = 0xC1
HEADER_SIZE: Final = 36

FLAG_COMPRESSED: Final = 1
FLAG_ENCRYPTED: Final = 2
FLAG_MAC: Final = 4
FLAG_NEGATIVE: Final = 8
FLAG_TAGGED: Final = 16
FLAG_VALIDATOR: Final = 32
#: The lifetime was changed since the envelope was written, and so nothing tells how old the value is. It is set in
#: Redis: what protects the head does not cover it.
FLAG_TOUCHED: Final = 64

CODEC_RAW: Final = 0
CODEC_SAFE: Final = 1
CODEC_MSGSPEC: Final = 2
CODEC_JSON: Final = 3
CODEC_PICKLE: Final = 4
#: Text that nearcache keeps for itself, beside the values of any codec: the last number that is no user's.
CODEC_OWN: Final = 127
#: What the option calls them.
_CODECS: Final = ("raw", "safe", "msgspec", "json", "pickle")
#: From here on the numbers are for codecs of users.
CODEC_CUSTOM: Final = 128

#: A whole ttl that is longer than 32 bits of milliseconds, or none at all.
TTL_NONE: Final = 0xFFFF_FFFF

Payload: TypeAlias = bytes | memoryview

_IDS = Struct(">BBBBQQ")  # magic, flags, codec id, key id, wid, generation
_NUMBERS = Struct("<IIII")  # whole ttl, soft-ttl distance, load cost (ms each), schema
_TAG = Struct("<QQ")  # tag hash, tag generation
#: What the length of a validator, the validator and its padding are a multiple of.
_VALIDATOR_UNIT = 16
#: What stands for itself, and what only its reader can undo: see ``sealing`` and ``compression``.
PLAIN_FLAGS: Final = FLAG_NEGATIVE | FLAG_TAGGED | FLAG_VALIDATOR | FLAG_TOUCHED
BODY_FLAGS: Final = FLAG_COMPRESSED | FLAG_ENCRYPTED | FLAG_MAC
_KEYED_FLAGS = FLAG_ENCRYPTED | FLAG_MAC


def codec_named(codec_id: int) -> str:
    """Return what to call a codec in messages to people: by the name that the option has for it, or else its number."""
    return f"codec={_CODECS[codec_id]!r}" if codec_id < len(_CODECS) else f"codec {codec_id}"


class Envelope(NamedTuple):
    """One unpacked envelope.

    ``payload`` is a view of the bytes it was unpacked from: of all that stands behind the header, whatever was done
    to it. ``raw_size`` is the length of what the codec made.
    """

    wid: int
    generation: int
    ttl_ms: int
    soft_ttl_ms: int
    cost_ms: int
    schema: int
    codec_id: int
    flags: int
    payload: Payload
    key_id: int = 0
    tags: tuple[tuple[int, int], ...] = ()
    raw_size: int = 0
    validator: str | None = None


class Codec(Protocol):
    """Values to payloads and back."""

    @property
    def codec_id(self) -> int:
        """The number of the codec in the envelope."""

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return payload and schema fingerprint, or raise :class:`UnencodableValueError`."""

    def decode(self, payload: Payload, schema: int) -> Any:
        """Return the value, or raise :class:`DecodeError` and nothing else."""


def pack(
    wid: int,
    generation: int,
    ttl_ms: int,
    payload: Payload,
    schema: int = 0,
    codec_id: int = CODEC_SAFE,
    *,
    soft_ttl_ms: int = 0,
    cost_ms: int = 0,
    tags: Iterable[tuple[int, int]] = (),
    flags: int = 0,
    key_id: int = 0,
    raw_size: int | None = None,
    validator: str | None = None,
) -> bytes:
    """Return an envelope of format 1.

    Args:
        wid: Id of the write, 1 to 2**64 - 1 (0 means "no write" and never occurs in an envelope).
        generation: Generation of the lane, 0 to 2**64 - 1.
        ttl_ms: The whole ttl; ``TTL_NONE`` and anything longer mean "none, or longer than this field can
            say".
        payload: The encoded value.
        schema: Fingerprint of the classes in it, 0 for none.
        codec_id: Which codec made the payload.
        soft_ttl_ms, cost_ms: Distance of the soft ttl and cost of the load; cut off at 2**32 - 1.
        tags: Pairs of tag hash and tag generation, 64 bits each, at most :data:`MOST_TAGS`.
        flags: What was done to the payload; that it is tagged is added here.
        key_id: Which key did it.
        raw_size: Length of the payload before that; ``None``: nothing was done.
        validator: What tells this state of the value from others, at most 255 bytes of UTF-8.
    Raises:
        ValueError: A number is out of its range.
    """
    pairs = tuple(tags)
    if not wid or len(pairs) > MOST_TAGS:
        raise ValueError(f"wid={wid} stands for no write, or {len(pairs)} tags are over {MOST_TAGS}")
    if ttl_ms > TTL_NONE or soft_ttl_ms > TTL_NONE or cost_ms > TTL_NONE:
        ttl_ms, soft_ttl_ms, cost_ms = (min(number, TTL_NONE) for number in (ttl_ms, soft_ttl_ms, cost_ms))
    if pairs:
        flags |= FLAG_TAGGED
    if validator is not None:
        flags |= FLAG_VALIDATOR
    try:
        ids = _IDS.pack(MAGIC, flags, codec_id, key_id, wid, generation)
        numbers = _NUMBERS.pack(ttl_ms, soft_ttl_ms, cost_ms, schema)
        table = bytes((len(pairs),)) + b"".join(_TAG.pack(*pair) for pair in pairs) if pairs else b"\0"
        if validator is not None:
            table += _pack_validator(validator)
    except StructError as cause:
        raise ValueError(f"a number of the envelope is out of its range: {cause}") from cause
    return b"".join((ids, numbers, varint(len(payload) if raw_size is None else raw_size), table, payload))


def unpack(data: bytes, handled: int = PLAIN_FLAGS) -> Envelope:
    """Return what an envelope of format 1 says.

    Args:
        data: The envelope.
        handled: The flags that the caller can deal with.
    Raises:
        DecodeError: ``data`` is not exactly one well-formed envelope, or has a flag that is not handled.
    """
    if len(data) < HEADER_SIZE + 2:
        raise DecodeError(f"{len(data)} bytes are too few for an envelope")
    magic, flags, codec_id, key_id, wid, generation = _IDS.unpack_from(data)
    _check_magic(magic)
    if flags & ~handled or (key_id and not flags & _KEYED_FLAGS):
        raise DecodeError(f"flags 0x{flags:02x} and key id {key_id} ask for what this reader cannot do")
    if not wid:
        raise DecodeError("the envelope has wid 0, which no write has")
    numbers = _NUMBERS.unpack_from(data, 20)
    raw_size, at = read_varint(data, HEADER_SIZE)
    tags: tuple[tuple[int, int], ...] = ()
    if flags & FLAG_TAGGED:
        tags, at = _read_tags(data, at)
    elif at < len(data) and not data[at]:
        at += 1
    else:
        raise DecodeError("the envelope ends early, or has tags without the flag for them")
    validator = None
    if flags & FLAG_VALIDATOR:
        validator, at = _read_validator(data, at)
    if len(data) - at != raw_size and not flags & BODY_FLAGS:
        raise DecodeError(f"the envelope promises {raw_size:,} bytes of payload and holds {len(data) - at:,}")
    # tuple.__new__ spares the generated __new__, which costs as much as all the rest of this function.
    return tuple.__new__(
        Envelope,
        (wid, generation, *numbers, codec_id, flags, memoryview(data)[at:], key_id, tags, raw_size, validator),
    )


def peek_ids(data: bytes) -> tuple[int, int, int]:
    """Return wid, generation and whole ttl (ms) from the first :data:`HEADER_SIZE` bytes of an envelope.

    Raises:
        DecodeError: Too short, or not of format 1.
    """
    if len(data) < HEADER_SIZE:
        raise DecodeError(f"{len(data)} bytes are too few for the header of an envelope")
    magic, _, _, _, wid, generation = _IDS.unpack_from(data)
    _check_magic(magic)
    if not wid:
        raise DecodeError("the envelope has the wid 0, which stands for no write")
    return wid, generation, _NUMBERS.unpack_from(data, 20)[0]


def peek_absence(data: bytes) -> bool:
    """Return whether the beginning of an envelope, at least 2 bytes, says that there is no value."""
    return bool(data[1] & FLAG_NEGATIVE)


def peek_own(data: bytes) -> bool:
    """Return whether the beginning of an envelope, at least 3 bytes, says that it holds what is nearcache's own."""
    return data[2] == CODEC_OWN


def peek_times(data: bytes) -> tuple[int, int, int]:
    """Return whole ttl, distance of the soft ttl and cost of the load (ms each) from the header of an envelope.

    Raises:
        DecodeError: Too short for a header.
    """
    if len(data) < HEADER_SIZE:
        raise DecodeError(f"{len(data)} bytes are too few for the header of an envelope")
    ttl_ms, soft_ttl_ms, cost_ms, _ = _NUMBERS.unpack_from(data, 20)
    return ttl_ms, soft_ttl_ms, cost_ms


def peek_tags(data: bytes) -> tuple[tuple[int, int], ...]:
    """Return hash and generation of the tags from the beginning of an envelope; none if it has no tags.

    Raises:
        DecodeError: What is there does not reach to the end of the tags.
    """
    if not data[1] & FLAG_TAGGED:
        return ()
    _, at = read_varint(data, HEADER_SIZE)
    return _read_tags(data, at)[0]


def peek_validator(data: bytes) -> str | None:
    """Return the validator in an envelope; ``None`` if it has none.

    Raises:
        DecodeError: What is there does not reach to the end of the validator.
    """
    if not data[1] & FLAG_VALIDATOR:
        return None
    _, at = read_varint(data, HEADER_SIZE)
    return _read_validator(data, _read_tags(data, at)[1] if data[1] & FLAG_TAGGED else at + 1)[0]


def peek_touched(data: bytes) -> bool:
    """Return whether the beginning of an envelope, at least 2 bytes, says that its lifetime was changed since."""
    return bool(data[1] & FLAG_TOUCHED)


def payload_offset(payload_size: int) -> int:
    """Return where a payload of this size begins, modulo 16: a codec can align what it puts into the payload.

    Each tag takes 16 bytes and their number one, and a validator a multiple of 16, so that they do not matter.
    """
    return (HEADER_SIZE + len(varint(payload_size)) + 1) % 16


def varint(number: int) -> bytes:
    """Return ``number`` in groups of 7 bits, lowest first, the top bit set on all but the last."""
    if number < 0x80:
        return bytes((number,))
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


def read_varint(data: Payload, at: int) -> tuple[int, int]:
    """Return the number at offset ``at`` and the offset behind it.

    Raises:
        DecodeError: It is cut off, longer than 63 bits, or not in its shortest form.
    """
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    number = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            raise DecodeError("a length is cut off")
        group = data[at]
        at += 1
        number |= (group & 0x7F) << shift
        if group < 0x80:
            if not group and shift:
                break
            return number, at
    raise DecodeError("a length is not in its shortest form, or is longer than 63 bits")


def _check_magic(magic: int) -> None:
    if magic != MAGIC:
        known = "a newer format of nearcache" if magic >> 4 == MAGIC >> 4 else "not nearcache's"
        raise DecodeError(f"the envelope begins with 0x{magic:02x}: {known}")


def _read_tags(data: bytes, at: int) -> tuple[tuple[tuple[int, int], ...], int]:
    count, at = read_varint(data, at)
    end = at + count * _TAG.size
    if not 0 < count <= MOST_TAGS or end > len(data):
        raise DecodeError(f"{count} tags do not fit into the envelope, or are none in spite of the flag")
    return tuple(_TAG.iter_unpack(data[at:end])), end


def _pack_validator(validator: str) -> bytes:
    text = validator.encode()
    if len(text) > 0xFF:
        raise ValueError(f"a validator of {len(text)} bytes is over 255")
    return (bytes((len(text),)) + text).ljust(-(-(len(text) + 1) // _VALIDATOR_UNIT) * _VALIDATOR_UNIT, b"\0")


def _read_validator(data: bytes, at: int) -> tuple[str, int]:
    size = data[at] if at < len(data) else 0
    end = at - (-(size + 1) // _VALIDATOR_UNIT) * _VALIDATOR_UNIT
    text, padding = data[at + 1 : at + 1 + size], data[at + 1 + size : end]
    if end > len(data) or any(padding):
        raise DecodeError("the validator in the envelope is cut off, or not padded with zeros")
    try:
        return text.decode(), end
    except UnicodeDecodeError as cause:
        raise DecodeError("the validator in the envelope is no UTF-8") from cause
