"""The ``msgspec`` codec: MessagePack, checked against a type while it is read. Needs the package ``msgspec``."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterable
from typing import Any, Final

from nearcache.codecs.envelope import CODEC_MSGSPEC, Payload
from nearcache.codecs.plain import is_plain, same_plain, type_name
from nearcache.codecs.schema import type_fingerprint
from nearcache.errors import ConfigError, DecodeError, UnencodableValueError, words_of

#: The bytes that bytes begin with in MessagePack.
_BINARY: Final = re.compile(rb"[\xc4-\xc6]")


class MsgspecCodec:
    """MessagePack by msgspec.

    Args:
        type_: What values are: a Struct, a dataclass, ``list[Struct]``, a union ... (what msgspec can decode). Its
            fingerprint, with those of all classes it refers to, is the schema. ``None``: plain data.
    Raises:
        ConfigError: msgspec is not installed, or cannot decode the type.
    """

    __slots__ = ("_decoder", "_encoder", "_is_typed", "_schema")

    codec_id = CODEC_MSGSPEC

    def __init__(self, type_: Any = None) -> None:
        try:
            import msgspec
        except ImportError as cause:
            raise ConfigError("codec", "msgspec", "install it with: pip install 'nearcache[msgspec]'") from cause
        self._is_typed = type_ is not None
        try:
            self._decoder: Any = msgspec.msgpack.Decoder(type_ if self._is_typed else Any)
        except Exception as cause:
            raise ConfigError("type", type_, f"give a type that msgspec can decode ({cause})") from cause
        self._encoder: Any = msgspec.msgpack.Encoder()
        self._schema = type_fingerprint(type_) if self._is_typed else 0

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return ``value`` as MessagePack.

        Raises:
            UnencodableValueError: It is not of the type, or would not come back as it is.
        """
        try:
            payload: bytes = self._encoder.encode(value)
            back = self._decoder.decode(payload)
            same = type(back) is type(value) and self._is_same(value, back, payload)
        except Exception as cause:
            reason = f"codec='msgspec' does not store it: {words_of(cause)}"
            raise UnencodableValueError(type_name(value), reason) from cause
        if not same:
            remedy = "it is not of the type= of this cache" if self._is_typed else "say with type= what values are"
            raise UnencodableValueError(type_name(value), f"msgspec would give back something else; {remedy}")
        return payload, self._schema

    def decode(self, payload: Payload, schema: int) -> Any:
        """Return the value.

        Raises:
            DecodeError: It is not MessagePack, not of the type, or was written with another type.
        """
        if schema != self._schema:
            raise DecodeError(f"the value was written with schema {schema:08x}, the type here has {self._schema:08x}")
        try:
            return self._decoder.decode(payload)
        except MemoryError:
            raise
        except Exception as cause:
            raise DecodeError(f"a payload of {len(payload):,} bytes is damaged: {cause}") from cause

    def _is_same(self, value: Any, back: Any, payload: bytes) -> bool:
        """Whether two values are the same: also NaN, and objects without ``__eq__``, which do not compare equal.

        Equal bytes do not say it: where the type says ``Any``, and where the value is not of the type, several values
        are written as the same bytes.
        """
        if self._is_typed:
            return _same_typed(value, back)
        is_sure = not _BINARY.search(payload) and is_plain(value)  # something else with a buffer may equal bytes
        return (is_sure and bool(back == value)) or same_plain(value, back)


def _same_typed(left: Any, right: Any) -> bool:
    """Return whether two values are equal, or of one class and the same in all their parts.

    The right one has been read, so that it ends somewhere, also where the left one contains itself.
    """
    if left == right:
        return True
    if type(left) is not type(right):
        return False
    from decimal import Decimal  # few values get here, and importing the codecs is to be quick

    if isinstance(left, (float, Decimal)):
        return left != left and right != right  # noqa: PLR0124  (this is what NaN is)
    if isinstance(left, dict):
        return _all_same(left.items(), right.items())
    if isinstance(left, (list, tuple)):
        return _all_same(left, right)
    if isinstance(left, (set, frozenset)):  # what is in both is equal
        return _all_same(sorted(left - right, key=repr), sorted(right - left, key=repr))
    names = _field_names(type(left))
    return names is not None and all(_same_typed(getattr(left, name), getattr(right, name)) for name in names)


def _all_same(left: Collection[Any], right: Collection[Any]) -> bool:
    return len(left) == len(right) and all(map(_same_typed, left, right))


def _field_names(kind: Any) -> Iterable[str] | None:
    """Return the fields of a class that msgspec makes objects of; ``None`` if it has none."""
    if (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        return [attribute.name for attribute in attributes]
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return getattr(kind, "__struct_fields__", None)
