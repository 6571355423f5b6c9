"""Values that nobody shares: what ``isolation="copy"`` keeps in L1 instead of objects.

A :class:`Frozen` is a value's payload, as the codec made it. It takes the place of the value on all its ways through
this process, and is thawed where the caller gets it. Values that cannot be changed anyway (text, bytes, numbers ...)
stay themselves.
"""

from __future__ import annotations

from typing import Any, Final

from nearcache.codecs.envelope import FLAG_NEGATIVE, Codec, Envelope, Payload
from nearcache.codecs.plain import type_name
from nearcache.codecs.values import Encoded, Own, ValueCodec, check_size
from nearcache.errors import DecodeError, UnencodableValueError

_UNCHANGEABLE: Final = frozenset({str, bytes, int, float, complex, bool, type(None), Own})


class Frozen:
    """The payload of one value. Compares by identity, as the entries of L1 do."""

    __slots__ = ("_codec", "_encoded", "_payload", "_schema", "_spare")

    def __init__(self, codec: Codec, payload: Payload, schema: int, encoded: Encoded | None, *spare: Any) -> None:
        self._codec = codec
        self._payload = payload
        self._schema = schema
        self._encoded = encoded
        self._spare = list(spare)

    def thaw(self) -> Any:
        """Return an object that nobody else has."""
        try:
            # What was decoded to see that it can be is the first reader's. Only one gets it: list.pop is atomic.
            return self._spare.pop()
        except IndexError:
            return self._codec.decode(self._payload, self._schema)

    @property
    def size(self) -> int:
        """Bytes of the payload, before it is compressed."""
        return len(self._payload)

    @property
    def encoded(self) -> Encoded:
        """What is to be written, for a value that comes from this process."""
        if self._encoded is None:
            raise DecodeError("a value from L2 is not written again")
        return self._encoded


class FreezingCodec(ValueCodec):
    """A codec that reads frozen values, and writes them as well as others."""

    __slots__ = ()

    def _plain(self, max_value: int) -> None:  # noqa: ARG002
        return None  # what is written may be encoded already

    def _usual(self, max_value: int) -> None:  # noqa: ARG002
        return None  # what is read has to be frozen as well

    def freeze(self, value: Any) -> Any:
        """Return a value as it may be kept. It is decoded once, so that a reader does not meet what cannot be.

        Raises:
            UnencodableValueError: As :meth:`encode`. How large it is matters when it is written.
        """
        if type(value) in _UNCHANGEABLE or type(value) is Frozen:
            return value
        payload, schema = self._codec.encode(value)
        encoded = self._shrink(payload, schema)
        try:
            spare = self._codec.decode(payload, schema)
        except DecodeError as cause:
            raise UnencodableValueError(type_name(value), f"it could not be read back: {cause}") from cause
        return Frozen(self._codec, payload, schema, encoded, spare)

    def encode(self, value: Any) -> Encoded:
        """Return ``value`` encoded; a frozen one is. Raises as :meth:`ValueCodec.encode`."""
        if type(value) is not Frozen:
            return super().encode(value)
        check_size(value.size, self.max_value)
        return value.encoded

    def loads(self, data: bytes, *, key: bytes = b"") -> tuple[Any, Envelope]:
        """Return the value in an envelope, frozen, and the envelope. Raises as :meth:`ValueCodec.loads`."""
        payload, envelope = self._unseal(data, key)
        if envelope.flags & FLAG_NEGATIVE:
            return self._absence(payload, envelope), envelope
        value = self._value(payload, envelope)
        if type(value) not in _UNCHANGEABLE:
            value = Frozen(self._codec, payload, envelope.schema, None, value)
        return value, envelope


def thaw(value: Any) -> Any:
    """Return the value that a caller gets for one that is kept."""
    return value.thaw() if type(value) is Frozen else value
