"""The ``raw`` and ``json`` codecs: what any program can read.

Both refuse to write what would come back as something else. L1 holds the object that was stored, other processes the
one that was read, and the two must not differ: a tuple that JSON makes a list is an error here, not a surprise there.
"""

from __future__ import annotations

import json
import marshal
import math
from enum import Enum
from typing import Any, NoReturn

from nearcache.codecs.envelope import CODEC_JSON, CODEC_RAW, Payload
from nearcache.errors import DecodeError, UnencodableValueError


class RawCodec:
    """Bytes, as they are."""

    __slots__ = ()

    codec_id = CODEC_RAW

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return ``value``.

        Raises:
            UnencodableValueError: It is not ``bytes``.
        """
        if type(value) is not bytes:
            raise UnencodableValueError(type_name(value), "codec='raw' stores bytes; convert it, or use another codec")
        return value, 0

    def decode(self, payload: Payload, schema: int) -> bytes:
        """Return the payload. Raises DecodeError for a schema: bytes have none."""
        if schema:
            raise DecodeError("bytes have no schema")
        return bytes(payload)


class JsonCodec:
    """JSON in UTF-8: ``None``, bool, int, float, str, lists, and dicts with text for keys."""

    __slots__ = ("_decoder", "_encoder")

    codec_id = CODEC_JSON

    def __init__(self) -> None:
        self._encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return the JSON text of ``value``.

        Raises:
            UnencodableValueError: It would not come back as it is.
        """
        try:
            text = self._encoder.encode(value)
            back = self._decoder.decode(text)
            same = (is_plain(value) and bool(back == value)) or same_plain(value, back)
        except (TypeError, ValueError, RecursionError, DecodeError) as cause:
            raise UnencodableValueError(type_name(value), f"codec='json' does not store it: {cause}") from cause
        if not same:
            odd = changed_part(value, back)
            raise UnencodableValueError(
                type_name(odd), f"JSON would give back something else; {_conversion(odd)}, or use codec='safe'"
            )
        return text.encode("utf-8", "surrogatepass"), 0

    def decode(self, payload: Payload, schema: int) -> Any:
        """Return the value.

        Raises:
            DecodeError: It is not JSON.
        """
        if schema:
            raise DecodeError("JSON has no schema")
        try:
            return self._decoder.decode(str(payload, "utf-8", "surrogatepass"))
        except (DecodeError, MemoryError):
            raise
        except (ValueError, RecursionError) as cause:
            raise DecodeError(f"a payload of {len(payload):,} bytes is not JSON: {cause}") from cause


def is_plain(value: Any) -> bool:
    """Return whether a value is made of plain types alone, and not of subclasses, which may compare equal to them.

    ``marshal`` takes no others, and is much faster than a walk. It takes for bytes whatever has a buffer, and it does
    not go down for ever: False says nothing, then.
    """
    try:
        marshal.dumps(value, 2)
    except ValueError:
        return False
    return True


def same_plain(left: Any, right: Any) -> bool:
    """Return whether two values of plain data are equal, where NaN equals NaN. Neither may contain itself.

    A subclass of a plain type is no plain data, though it may compare equal: members of IntEnum have names, and a
    Counter answers for keys that it has not. Items of dicts are expected in the same order.
    """
    if type(left) is not type(right):
        return False
    if type(left) is dict:
        return len(left) == len(right) and all(map(_same_item, left.items(), right.items()))
    if type(left) is list or type(left) is tuple:
        return len(left) == len(right) and all(map(same_plain, left, right))
    if type(left) is float:
        return left == right or (math.isnan(left) and math.isnan(right))
    return bool(left == right)


def _same_item(left: tuple[Any, Any], right: tuple[Any, Any]) -> bool:
    return same_plain(left[0], right[0]) and same_plain(left[1], right[1])


def changed_part(left: Any, right: Any) -> Any:
    """Return the part of a value that is not the same in another: no list or dict, if it is within one."""
    if type(left) is not type(right) or type(left) not in (dict, list) or len(left) != len(right):
        return left
    if type(left) is list:
        pairs = list(zip(left, right, strict=True))
    else:
        if not all(isinstance(key, str) for key in left):
            return left  # numbers as keys are text
        pairs = [pair for items in zip(left.items(), right.items(), strict=True) for pair in zip(*items, strict=True)]
    return next((changed_part(*pair) for pair in pairs if not same_plain(*pair)), left)


def _conversion(value: Any) -> str:
    """What to do with a value that is no plain data, but was taken for some."""
    if isinstance(value, Enum):
        return "store its value (value.value) or its name"
    if type(value) is dict:
        return "convert its keys to text"
    if isinstance(value, (list, tuple)):
        return "convert it with list(value)"
    for plain in (dict, str, int, float):
        if isinstance(value, plain):
            return f"convert it with {plain.__name__}(value)"
    return "convert it"


def type_name(value: object) -> str:
    """Return the name of a value's class, for messages."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is not JSON")
