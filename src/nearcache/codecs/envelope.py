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

from nearcache.errors import DecodeError, ValueTooLargeError

#: High nibble: nearcache. Low nibble: format 1.
MAGIC: Final = 0xC1
HEADER_SIZE: Final = 36

FLAG_COMPRESSED: Final = 1
FLAG_ENCRYPTED: Final = 2
FLAG_MAC: Final = 4
FLAG_NEGATIVE: Final = 8
FLAG_TAGGED: Final = 16

CODEC_RAW: Final = 0
CODEC_SAFE: Final = 1
CODEC_MSGSPEC: Final = 2
CODEC_JSON: Final = 3
CODEC_PICKLE: Final = 4

#: A whole ttl that is longer than 32 bits of milliseconds, or none at all.
TTL_NONE: Final = 0xFFFF_FFFF
#: Most tags of one value.
MAX_TAGS: Final = 127

Payload: TypeAlias = bytes | memoryview

_IDS = Struct(">BBBBQQ")  # magic, flags, codec id, key id, wid, generation
_NUMBERS = Struct("<IIII")  # whole ttl, soft-ttl distance, load cost (ms each), schema
_TAG = Struct("<QQ")  # tag hash, tag generation
_HANDLED = FLAG_NEGATIVE | FLAG_TAGGED


class Envelope(NamedTuple):
    """One unpacked envelope; ``payload`` is a view of the bytes it was unpacked from."""

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


class Codec(Protocol):
    """Values to payloads and back."""

    @property
    def codec_id(self) -> int:
        """The number of the codec in the envelope."""

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return payload and schema fingerprint, or raise :class:`UnencodableValueError`."""

    def decode(self, payload: Payload, schema: int) -> Any:
        """Return the value, or raise :class:`DecodeError` and nothing else."""


class Encoded(NamedTuple):
    """A value that is encoded but not sealed: it has no wid and no generation yet."""

    payload: bytes
    schema: int


class ValueCodec:
    """A codec and the envelope around it, within a limit of size.

    Args:
        codec: What makes the payload.
        max_value: The largest payload, in bytes, that is written or read.
    """

    __slots__ = ("_codec", "_codec_id", "max_value")

    def __init__(self, codec: Codec, max_value: int) -> None:
        self._codec = codec
        self._codec_id = codec.codec_id
        self.max_value = max_value

    def encode(self, value: Any) -> Encoded:
        """Return ``value`` encoded, to be sealed as often as its generation has to be corrected.

        Raises:
            UnencodableValueError: The codec does not take it.
            ValueTooLargeError: The payload is longer than ``max_value``.
        """
        payload, schema = self._codec.encode(value)
        if len(payload) > self.max_value:
            raise ValueTooLargeError(len(payload), self.max_value, "max_value")
        return Encoded(payload, schema)

    def seal(
        self, encoded: Encoded, wid: int, generation: int, ttl_ms: int, tags: Iterable[tuple[int, int]] = ()
    ) -> bytes:
        """Return the envelope of an encoded value. ``tags``: hash and generation of each."""
        return pack(wid, generation, ttl_ms, encoded.payload, encoded.schema, self._codec_id, tags=tags)

    def dumps(self, value: Any, *, wid: int, generation: int, ttl_ms: int) -> bytes:
        """Return ``value`` encoded and sealed. Raises as :meth:`encode`."""
        return self.seal(self.encode(value), wid, generation, ttl_ms)

    def loads(self, data: bytes) -> tuple[Any, Envelope]:
        """Return the value in an envelope, and the envelope.

        Raises:
            DecodeError: Torn, foreign, of another format, schema or codec, or longer than ``max_value``.
        """
        envelope = unpack(data)
        # The codec id is compared before a byte of the payload is looked at: a writer cannot choose its
        # reader.
        if envelope.codec_id != self._codec_id:
            raise DecodeError(
                f"the value was written with codec {envelope.codec_id}, this cache reads {self._codec_id}"
            )
        if envelope.flags & FLAG_NEGATIVE:
            raise DecodeError("the envelope records that there is no value, which this version does not use")
        if len(envelope.payload) > self.max_value:
            raise DecodeError(f"a payload of {len(envelope.payload):,} bytes is over max_value={self.max_value}")
        return self._codec.decode(envelope.payload, envelope.schema), envelope


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
        tags: Pairs of tag hash and tag generation, 64 bits each, at most :data:`MAX_TAGS`.
    Raises:
        ValueError: A number is out of its range.
    """
    pairs = tuple(tags)
    if not wid or len(pairs) > MAX_TAGS:
        raise ValueError(f"wid={wid} stands for no write, or {len(pairs)} tags are over {MAX_TAGS}")
    if ttl_ms > TTL_NONE or soft_ttl_ms > TTL_NONE or cost_ms > TTL_NONE:
        ttl_ms, soft_ttl_ms, cost_ms = (min(number, TTL_NONE) for number in (ttl_ms, soft_ttl_ms, cost_ms))
    try:
        ids = _IDS.pack(MAGIC, FLAG_TAGGED if pairs else 0, codec_id, 0, wid, generation)
        numbers = _NUMBERS.pack(ttl_ms, soft_ttl_ms, cost_ms, schema)
        table = bytes((len(pairs),)) + b"".join(_TAG.pack(*pair) for pair in pairs) if pairs else b"\0"
    except StructError as cause:
        raise ValueError(f"a number of the envelope is out of its range: {cause}") from cause
    return b"".join((ids, numbers, varint(len(payload)), table, payload))


def unpack(data: bytes) -> Envelope:
    """Return what an envelope of format 1 says.

    Raises:
        DecodeError: ``data`` is not exactly one well-formed envelope, or has a flag that this version cannot
            handle.
    """
    if len(data) < HEADER_SIZE + 2:
        raise DecodeError(f"{len(data)} bytes are too few for an envelope")
    magic, flags, codec_id, key_id, wid, generation = _IDS.unpack_from(data)
    _check_magic(magic)
    if flags & ~_HANDLED or key_id:
        raise DecodeError(f"flags 0x{flags:02x} and key id {key_id} ask for what this version cannot do")
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
    if len(data) - at != raw_size:
        raise DecodeError(f"the envelope promises {raw_size:,} bytes of payload and holds {len(data) - at:,}")
    # tuple.__new__ spares the generated __new__, which costs as much as all the rest of this function.
    return tuple.__new__(
        Envelope,
        (wid, generation, *numbers, codec_id, flags, memoryview(data)[at:], key_id, tags),
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
    return wid, generation, _NUMBERS.unpack_from(data, 20)[0]


def peek_tags(data: bytes) -> tuple[tuple[int, int], ...]:
    """Return hash and generation of the tags from the beginning of an envelope; none if it has no tags.

    Raises:
        DecodeError: What is there does not reach to the end of the tags.
    """
    if not data[1] & FLAG_TAGGED:
        return ()
    _, at = read_varint(data, HEADER_SIZE)
    return _read_tags(data, at)[0]


def payload_offset(payload_size: int) -> int:
    """Return where a payload of this size begins, modulo 16: a codec can align what it puts into the payload.

    Each tag takes 16 bytes and their number one, so that tags do not matter.
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
    if not 0 < count <= MAX_TAGS or end > len(data):
        raise DecodeError(f"{count} tags do not fit into the envelope, or are none in spite of the flag")
    return tuple(_TAG.iter_unpack(data[at:end])), end
