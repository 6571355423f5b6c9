"""A value's whole way to bytes and back: codec, compression, protection, envelope, and the limits of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from nearcache._envelopes import sealed
from nearcache.absence import ABSENT, Absent
from nearcache.codecs.compression import Compressor, decompress
from nearcache.codecs.envelope import (
    BODY_FLAGS,
    CODEC_OWN,
    CODEC_PICKLE,
    FLAG_COMPRESSED,
    FLAG_ENCRYPTED,
    FLAG_MAC,
    FLAG_NEGATIVE,
    FLAG_TOUCHED,
    HEADER_SIZE,
    PLAIN_FLAGS,
    TTL_NONE,
    Codec,
    Envelope,
    Payload,
    codec_named,
    pack,
    peek_absence,
    unpack,
)
from nearcache.codecs.failures import FailureCodec
from nearcache.codecs.sealing import Guard, context_of
from nearcache.errors import ConfigError, DecodeError, ForgedError, ValueTooLargeError, with_key
from nearcache.options import MOST_TAGS

_HANDLED: Final = PLAIN_FLAGS | BODY_FLAGS
_PROTECTION: Final = FLAG_ENCRYPTED | FLAG_MAC
#: More bytes than header, lengths, tags, validator and protection of any envelope take together.
_SLACK: Final = HEADER_SIZE + 20 + 16 * MOST_TAGS + 256 + 64


class Own(str):
    """Text that nearcache keeps for itself. It goes past the cache's codec, which may not take any text."""

    __slots__ = ()


class Encoded(NamedTuple):
    """A value that is encoded but not sealed: it has no wid and no generation yet.

    ``payload`` is what will be stored, compressed if ``raw_size`` is not 0; then that is its length before.
    ``flags`` are what the envelope is to say beside. ``codec_id`` says whose payload it is; ``None``: the
    cache's codec's.
    """

    payload: bytes
    schema: int
    raw_size: int = 0
    flags: int = 0
    codec_id: int | None = None


#: In front of a key, where its deletion waits to be written behind the cache: no user's key begins so.
_DELETION: Final = b"!d:"
#: What is stored where there is no value.
NO_VALUE: Final = Encoded(b"", 0, flags=FLAG_NEGATIVE)


class ValueCodec:
    """A codec and the envelope around it, within a limit of size.

    Args:
        codec: What makes the payload.
        max_value: The largest payload, in bytes, that is written or read, compressed or not.
        compressor: Makes payloads smaller. Whatever it is, compressed values are read.
        guard: Signs or encrypts. With one, nothing is read that it did not protect.
        scope: Which cache a protected value belongs to: namespace and database.
        failures: Writes and reads errors of loaders that are remembered; ``None``: none is.
    Raises:
        ConfigError: The pickle codec without a guard: it would execute what anybody wrote.
    """

    __slots__ = ("_codec", "_codec_id", "_compressor", "_guard", "_scope", "failures", "max_value", "plain", "usual")

    def __init__(
        self,
        codec: Codec,
        max_value: int,
        *,
        compressor: Compressor | None = None,
        guard: Guard | None = None,
        scope: bytes = b"",
        failures: FailureCodec | None = None,
    ) -> None:
        if codec.codec_id == CODEC_PICKLE and guard is None:
            raise ConfigError(
                "codec", "pickle", "unpickling executes what the bytes say: give signing_keys= or encryption_keys= too"
            )
        self._codec = codec
        self._codec_id = codec.codec_id
        self._compressor = compressor
        self._guard = guard
        self._scope = scope
        self.failures = failures
        #: What reads an envelope without flags: number and ``decode`` of the codec, and the most bytes of a payload.
        #: None: it takes more than that.
        self.usual = self._usual(max_value)
        #: What writes such an envelope: number of the codec, what encodes a value within the limit, and the limit. Or
        #: None.
        self.plain = self._plain(max_value)
        self.max_value = max_value

    def _usual(self, max_value: int) -> tuple[int, Callable[[Payload, int], Any], int] | None:
        return None if self._guard is not None else (self._codec_id, self._codec.decode, max_value)

    def _plain(self, max_value: int) -> tuple[int, Callable[[Any], tuple[bytes, int]], int] | None:
        if self._guard is not None or self._compressor is not None:
            return None
        return self._codec_id, partial(_payload, self._codec, max_value), max_value

    def encode(self, value: Any) -> Encoded:
        """Return ``value`` encoded, to be sealed as often as its generation has to be corrected.

        Raises:
            UnencodableValueError: The codec does not take it.
            ValueTooLargeError: The payload is longer than ``max_value``, before it is compressed.
        """
        if type(value) is Own:
            return Encoded(value.encode(), 0, codec_id=CODEC_OWN)
        return self._shrink(*_payload(self._codec, self.max_value, value))

    def encode_of(self, key: object, value: Any) -> Encoded:
        """As :meth:`encode`; what it raises names the key that the value is for."""
        try:
            return self.encode(value)
        except Exception as error:
            with_key(error, key)
            raise

    def encode_failure(self, error: Exception) -> Encoded:
        """Return an error of a loader encoded, if errors are remembered. Raises as :meth:`encode`."""
        assert self.failures is not None
        return self._shrink(*_payload(self.failures, self.max_value, error))._replace(flags=FLAG_NEGATIVE)

    def _shrink(self, payload: bytes, schema: int) -> Encoded:
        if self._compressor is not None:
            body = self._compressor.compress(payload)
            if body is not None:
                return Encoded(body, schema, len(payload))
        return Encoded(payload, schema)

    def seal(
        self,
        encoded: Encoded,
        wid: int,
        generation: int,
        ttl_ms: int,
        *,
        key: bytes = b"",
        tags: Iterable[tuple[int, int]] = (),
        soft_ttl_ms: int = 0,
        cost_ms: int = 0,
        validator: str | None = None,
    ) -> bytes:
        """Return the envelope of an encoded value.

        Args:
            encoded: From :meth:`encode`.
            wid, generation, ttl_ms, tags, soft_ttl_ms, cost_ms, validator: As :func:`~nearcache.codecs.envelope.pack`
                takes them.
            key: The encoded key that it will be stored under: a protected value can be read under no other.
        """
        body, schema, raw_size, flags, codec_id = encoded
        codec_id = self._codec_id if codec_id is None else codec_id
        guard = self._guard
        is_plain = validator is None and not (raw_size or flags or tags or cost_ms)
        if guard is None and is_plain and wid and ttl_ms <= TTL_NONE:
            return sealed(body, wid, generation, ttl_ms, schema, codec_id, min(soft_ttl_ms, TTL_NONE))
        flags |= FLAG_COMPRESSED if raw_size else 0
        if guard is None:
            return pack(
                wid, generation, ttl_ms, body, schema, codec_id,
                soft_ttl_ms=soft_ttl_ms, cost_ms=cost_ms, tags=tags, flags=flags, raw_size=raw_size or None,
                validator=validator,
            )  # fmt: skip
        head = pack(
            wid, generation, ttl_ms, b"", schema, codec_id, soft_ttl_ms=soft_ttl_ms, cost_ms=cost_ms, tags=tags,
            flags=flags | guard.flag, key_id=guard.key_id, raw_size=raw_size or len(body), validator=validator,
        )  # fmt: skip
        return head + guard.protect(context_of(self._scope, key), head, body)

    def dumps(self, value: Any, *, wid: int, generation: int, ttl_ms: int, key: bytes = b"") -> bytes:
        """Return ``value`` encoded and sealed. Raises as :meth:`encode`."""
        return self.seal(self.encode(value), wid, generation, ttl_ms, key=key)

    def seal_deletion(self, wid: int, *, key: bytes) -> bytes:
        """Return what a queue holds where a key is to be deleted: nothing, unless values are protected.

        Then it is protected too, and under a name of its own: neither a value of the key nor its absence, which
        anybody finds in Redis, can be passed off as a deletion.
        """
        return b"" if self._guard is None else self.seal(NO_VALUE, wid, 0, TTL_NONE, key=_DELETION + key)

    def loads_queued(self, data: bytes, *, key: bytes) -> Any:
        """Return the value in a queue's record of a key; ABSENT for a deletion. Raises as :meth:`loads`."""
        if not is_deletion(data):
            return self.loads(data, key=key)[0]
        if data:
            self.loads(data, key=_DELETION + key)
        elif self._guard is not None:
            raise ForgedError("a deletion is not protected in the way that this cache protects its own")
        return ABSENT

    def loads(self, data: bytes, *, key: bytes = b"") -> tuple[Any, Envelope]:
        """Return the value in an envelope, or what it says in its place; and the envelope.

        Args:
            data: The envelope.
            key: The encoded key that it was found under.
        Raises:
            ForgedError: It is not what a holder of our keys wrote under this key.
            DecodeError: Torn, foreign, of another format, schema or codec, or longer than ``max_value``.
        """
        payload, envelope = self._unseal(data, key)
        if envelope.flags & FLAG_NEGATIVE:
            return self._absence(payload, envelope), envelope
        return self._value(payload, envelope), envelope

    def _value(self, payload: Payload, envelope: Envelope) -> Any:
        if envelope.codec_id != CODEC_OWN:
            return self._codec.decode(payload, envelope.schema)
        try:
            return str(payload, "utf-8")
        except UnicodeDecodeError as cause:
            raise DecodeError("text of nearcache's own is no UTF-8") from cause

    def _absence(self, payload: Payload, envelope: Envelope) -> Absent:
        if not envelope.raw_size:
            return ABSENT
        if self.failures is None:
            raise DecodeError("an error is remembered there, and this cache was opened without error_ttl=")
        return self.failures.decode(payload, envelope.schema)

    def _unseal(self, data: bytes, key: bytes) -> tuple[Payload, Envelope]:
        """Return what the codec made, and the envelope, when all that can be said without the codec is in order."""
        if len(data) > self.max_value + _SLACK:
            raise DecodeError(f"an envelope of {len(data):,} bytes is over max_value={self.max_value}")
        envelope = unpack(data, _HANDLED)
        flags, body = envelope.flags, envelope.payload
        if self._guard is not None:
            body = self._open(self._guard, data, envelope, key)
        elif flags & _PROTECTION:
            raise DecodeError("a value is signed or encrypted, and this cache has no keys for it")
        # The codec id is compared before a byte of the payload is looked at: a writer cannot choose its
        # reader.
        if envelope.codec_id not in (self._codec_id, CODEC_OWN):
            raise DecodeError(
                f"the value was written with {codec_named(envelope.codec_id)}, "
                f"this cache reads {codec_named(self._codec_id)}"
            )
        if flags & FLAG_NEGATIVE and flags & FLAG_COMPRESSED and not envelope.raw_size:
            raise DecodeError("an envelope says that there is nothing, and that it is compressed")
        if envelope.raw_size > self.max_value or len(body) > self.max_value:
            size = max(envelope.raw_size, len(body))
            raise DecodeError(f"a payload of {size:,} bytes is over max_value={self.max_value}")
        if flags & FLAG_COMPRESSED:
            body = decompress(body, envelope.raw_size)
        elif len(body) != envelope.raw_size:
            raise DecodeError(f"the envelope promises {envelope.raw_size:,} bytes and holds {len(body):,}")
        return body, envelope

    def _open(self, guard: Guard, data: bytes, envelope: Envelope, key: bytes) -> Payload:
        if envelope.flags & _PROTECTION != guard.flag:
            raise ForgedError("a value is not protected in the way that this cache protects its own")
        head: Payload = memoryview(data)[: len(data) - len(envelope.payload)]
        if envelope.flags & FLAG_TOUCHED:
            head = bytes((head[0], head[1] & ~FLAG_TOUCHED)) + bytes(head[2:])
        return guard.open(envelope.key_id, context_of(self._scope, key), head, envelope.payload)


def is_deletion(queued: bytes) -> bool:
    """Return whether a queue's record says that its key is to be deleted, be it true or not."""
    return not queued or (len(queued) > 1 and peek_absence(queued))


def _payload(codec: Codec | FailureCodec, most: int, value: Any) -> tuple[bytes, int]:
    """Return the payload of a value, and its schema. Raises as :meth:`ValueCodec.encode`."""
    payload, schema = codec.encode(value)
    check_size(len(payload), most)
    return payload, schema


def check_size(size_bytes: int, most: int) -> None:
    """Raise ValueTooLargeError if a payload is longer than ``max_value``."""
    if size_bytes > most:
        raise ValueTooLargeError(size_bytes, most, "max_value")
