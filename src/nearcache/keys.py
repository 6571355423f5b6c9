"""Keys as bytes: canonical, reversible, and the slot that a key belongs to.

Two keys that Python calls equal have one encoding (``1``, ``1.0`` and ``True`` are one key), and an encoding
has one form: :func:`decode_key` refuses whatever :func:`encode_key` would have written otherwise, so that
bytes and key determine each other. A tag byte comes first; nothing needs escaping, because lengths say where
items end:

=============  ====================================================================================
``s``          text, UTF-8; lone surrogates in their three-byte form (``surrogatepass``)
``b``          bytes, as they are
``i``          a number without a fraction that fits in 64 bits signed, decimal
``x``          any other number without a fraction, ``-`` and hexadecimal digits
``f``          any other float, its ``repr`` (``finf``, ``f-inf``); NaN is refused
``n``          ``None``
``(`` … ``)``  a tuple: each item as ``<length>:<encoded item>``
``!``          reserved for nearcache's own keys; never a user's
=============  ====================================================================================
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from typing import TypeAlias, Union

from nearcache.errors import DecodeError, UnencodableKeyError

#: What can be a key: these types and tuples of them.
Key: TypeAlias = Union[str, bytes, int, float, "tuple[Key, ...]", None]

#: The longest encoded key, in bytes.
MAX_KEY_BYTES = 65_536
#: How many tuples may stand in each other.
MAX_KEY_DEPTH = 32
#: Slots of the placement table: Redis Cluster's number.
SLOTS = 16_384

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1
_BASES: tuple[type, ...] = (str, bytes, int, float, tuple)

_DECIMAL = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_HEX = re.compile(rb"-?[1-9a-f][0-9a-f]*")
_LENGTH = re.compile(rb"([1-9][0-9]{0,4}):")

_TOO_LONG = f"it is over {MAX_KEY_BYTES:,} bytes when encoded: use a digest of it as the key, or pass key="
_TOO_DEEP = f"its tuples are nested more than {MAX_KEY_DEPTH} deep: use a flat tuple, or pass key="
_UNSUPPORTED = "cannot be part of a key; use str, bytes, int, float, bool, None or tuples of these, or pass key="


def encode_key(key: object) -> bytes:
    """Return the canonical encoding of ``key``.

    Raises:
        UnencodableKeyError: The type is none of :data:`Key`'s, a float is NaN, tuples nest more than
            :data:`MAX_KEY_DEPTH` deep, or the encoding is longer than :data:`MAX_KEY_BYTES`.
    """
    if type(key) is str:
        try:
            encoded = b"s" + key.encode()
        except UnicodeEncodeError:
            encoded = b"s" + key.encode("utf-8", "surrogatepass")
    else:
        encoded = _encode(key, key, MAX_KEY_DEPTH)
    if len(encoded) > MAX_KEY_BYTES:
        raise UnencodableKeyError(key, _TOO_LONG)
    return encoded


def decode_key(data: bytes) -> Key:
    """Return the key that :func:`encode_key` wrote as ``data``.

    Subclasses come back as their base type, numbers without a fraction as ``int``.

    Raises:
        DecodeError: ``data`` is not the canonical encoding of a key.
    """
    if len(data) > MAX_KEY_BYTES:
        raise DecodeError(f"an encoded key of {len(data):,} bytes is over the limit of {MAX_KEY_BYTES:,}")
    return _decode(data, MAX_KEY_DEPTH)


def slot_of(encoded: bytes) -> int:
    """Return the slot, 0 to 16,383, of an encoded key: CRC16/XMODEM modulo 16,384, as in Redis Cluster."""
    return crc_hqx(encoded, 0) & (SLOTS - 1)


# -- writing -------------------------------------------------------------------------------------------------


def _encode(item: object, key: object, depth: int) -> bytes:
    """Return the encoding of ``item``, a part of ``key``; it may still be over the limit.

    Methods of the base types are called by name, so that a subclass cannot say it is something else than it
    equals.
    """
    if item is None:
        return b"n"
    base = _base_of(item, key)
    if base is int:
        return _encode_int(int.__int__(item))  # type: ignore[arg-type]  # base says so
    if base is str:
        return b"s" + str.encode(item, "utf-8", "surrogatepass")  # type: ignore[arg-type]  # base says so
    if base is tuple:
        return _encode_tuple(item, key, depth)  # type: ignore[arg-type]  # base says so
    if base is bytes:
        return b"".join((b"b", item))  # type: ignore[arg-type]  # base says so
    return _encode_float(float.__float__(item), key)  # type: ignore[arg-type]  # base says so


def _base_of(item: object, key: object) -> type:
    """Return which of the base types ``item`` is, provided that it is equal to what its base type would
    be."""
    kind = type(item)
    if kind in _BASES:
        return kind
    if kind is bool:
        return int
    for base in _BASES:
        if issubclass(kind, base):
            if all(getattr(kind, name) is getattr(base, name) for name in ("__eq__", "__hash__")):
                return base
            raise UnencodableKeyError(
                key, f"{_name(kind)} has an equality of its own; convert it with {base.__name__}(key)"
            )
    if hasattr(kind, "__array_interface__"):  # numpy's scalars and arrays; numpy itself need not be there
        raise UnencodableKeyError(key, f"{_name(kind)} {_UNSUPPORTED}; or convert it with key.item() or key.tobytes()")
    raise UnencodableKeyError(key, f"{_name(kind)} {_UNSUPPORTED}")


def _encode_int(number: int) -> bytes:
    if _INT64_MIN <= number <= _INT64_MAX:
        return b"i%d" % number
    return b"x%x" % number  # hexadecimal: linear, and not subject to the interpreter's limit on decimal digits


def _encode_float(number: float, key: object) -> bytes:
    if number.is_integer():
        return _encode_int(int(number))
    if number != number:  # noqa: PLR0124  (this is what NaN is)
        raise UnencodableKeyError(key, "NaN is not equal to itself and could never be found again; use None or a str")
    return b"f" + repr(number).encode()


def _encode_tuple(items: tuple[object, ...], key: object, depth: int) -> bytes:
    if depth == 0:
        raise UnencodableKeyError(key, _TOO_DEEP)
    parts = [b"("]
    size = 2
    for item in tuple.__iter__(items):
        encoded = _encode(item, key, depth - 1)
        size += len(encoded) + 2
        # Checked at every level: tuples that share their parts grow exponentially when they are written out.
        if size > MAX_KEY_BYTES:
            raise UnencodableKeyError(key, _TOO_LONG)
        parts.append(b"%d:" % len(encoded))
        parts.append(encoded)
    parts.append(b")")
    return b"".join(parts)


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# -- reading -------------------------------------------------------------------------------------------------


def _decode(data: bytes, depth: int) -> Key:
    tag, body = data[:1], data[1:]
    if tag == b"s":
        try:
            return str(body, "utf-8", "surrogatepass")
        except UnicodeDecodeError as cause:
            raise _not_canonical(data, "its text is not UTF-8") from cause
    if tag == b"i":
        return _decode_int64(data, body)
    if tag == b"b":
        return body
    if tag == b"(":
        return _decode_tuple(data, depth)
    if tag == b"f":
        return _decode_float(data, body)
    if tag == b"x":
        return _decode_big(data, body)
    if data == b"n":
        return None
    raise _not_canonical(data, "no key begins like that")


def _decode_int64(data: bytes, body: bytes) -> int:
    if _DECIMAL.fullmatch(body) is not None:
        number = int(body)
        if _INT64_MIN <= number <= _INT64_MAX:
            return number
    raise _not_canonical(data, "its number is not a canonical 64-bit decimal")


def _decode_big(data: bytes, body: bytes) -> int:
    if _HEX.fullmatch(body) is not None:
        number = int(body, 16)
        if not _INT64_MIN <= number <= _INT64_MAX:
            return number
    raise _not_canonical(data, "its number is not canonical hexadecimal beyond 64 bits")


def _decode_float(data: bytes, body: bytes) -> float:
    if len(body) <= 32:
        try:
            number = float(body)
        except ValueError as cause:
            raise _not_canonical(data, "its number is not a float") from cause
        if not number.is_integer() and number == number and repr(number).encode() == body:  # noqa: PLR0124
            return number
    raise _not_canonical(data, "its number is not a canonical float with a fraction")


def _decode_tuple(data: bytes, depth: int) -> tuple[Key, ...]:
    if depth == 0:
        raise _not_canonical(data, f"its tuples are nested more than {MAX_KEY_DEPTH} deep")
    items: list[Key] = []
    at, end = 1, len(data) - 1
    while at < end:
        length = _LENGTH.match(data, at, end)
        if length is None:
            raise _not_canonical(data, f"no item begins at byte {at}")
        at = length.end() + int(length[1])
        if at > end:
            raise _not_canonical(data, f"the item at byte {length.end()} goes past the end")
        items.append(_decode(data[length.end() : at], depth - 1))
    if at != end or data[end:] != b")":
        raise _not_canonical(data, "its tuple is not closed")
    return tuple(items)


def _not_canonical(data: bytes, reason: str) -> DecodeError:
    shown = repr(data) if len(data) <= 60 else f"{data[:48]!r}... ({len(data)} bytes)"
    return DecodeError(f"encoded key {shown}: {reason}; it was not written by this version of nearcache")
