"""Codecs of users, who need not know which exceptions a reader may meet."""

from __future__ import annotations

from typing import Any

from nearcache.codecs.envelope import Codec, Payload
from nearcache.codecs.plain import type_name
from nearcache.errors import DecodeError, UnencodableValueError, words_of


class CustomCodec:
    """A codec of the user's. Whatever it raises over bytes that it cannot read, they are a miss."""

    __slots__ = ("_decode", "_encode", "codec_id")

    def __init__(self, codec: Codec) -> None:
        self.codec_id = codec.codec_id
        self._encode = codec.encode
        self._decode = codec.decode

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return payload and schema. What the user's codec raises reaches whoever writes.

        Raises:
            UnencodableValueError: It returned something else.
        """
        made = self._encode(value)
        if type(made) is tuple and [type(part) for part in made] == [bytes, int] and 0 <= made[1] < 1 << 32:
            return made
        raise UnencodableValueError(
            type_name(value),
            f"codec {self.codec_id} returned {made!r:.100}: let it return bytes, and a number below 2**32",
        )

    def decode(self, payload: Payload, schema: int) -> Any:
        """Return the value.

        Raises:
            DecodeError: The user's codec raised something.
        """
        try:
            return self._decode(payload, schema)
        except (DecodeError, MemoryError):
            raise
        except Exception as cause:
            raise DecodeError(
                f"codec {self.codec_id} cannot read a payload of {len(payload):,} bytes: "
                f"{type(cause).__name__}: {words_of(cause)}"
            ) from cause
