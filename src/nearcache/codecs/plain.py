"""The ``raw`` and ``json`` codecs: what any program can read.

Both refuse to write what would come back as something else. L1 holds the object that was stored, other processes the
one that was read, and the two must not differ: a tuple that JSON makes a list is an error here, not a surprise there.
"""

from __future__ import annotations

import json
import math
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
            same = same_plain(value, self._decoder.decode(text))
        except (TypeError, ValueError, RecursionError, DecodeError) as cause:
            raise UnencodableValueError(type_name(value), f"codec='json' does not store it: {cause}") from cause
        if not same:
            raise UnencodableValueError(
                type_name(value),
                "JSON would give back something else (lists for tuples, text for keys that are numbers); convert it",
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


def same_plain(left: Any, right: Any) -> bool:
    """Return whether two values of plain data are equal, where NaN equals NaN. Neither may contain itself."""
    if type(left) is not type(right):
        # A subclass of a plain type that equals it is understood to be one: members of IntEnum, OrderedDict.
        return isinstance(left, type(right)) and bool(left == right)
    if type(left) is dict:
        return len(left) == len(right) and all(key in right and same_plain(left[key], right[key]) for key in left)
    if type(left) is list or type(left) is tuple:
        return len(left) == len(right) and all(map(same_plain, left, right))
    if type(left) is float:
        return left == right or (math.isnan(left) and math.isnan(right))
    return bool(left == right)


def type_name(value: object) -> str:
    """Return the name of a value's class, for messages."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _refuse_constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is not JSON")
