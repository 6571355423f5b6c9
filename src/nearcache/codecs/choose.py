"""From options to a codec: which one, with what around it, and which combinations make no sense."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from typing import Any, Final

from nearcache.choices import DEFAULT_COMPRESS_ABOVE, Secrets
from nearcache.codecs.compression import Compressor
from nearcache.codecs.custom import CustomCodec
from nearcache.codecs.envelope import CODEC_CUSTOM, Codec
from nearcache.codecs.failures import FailureCodec
from nearcache.codecs.frozen import FreezingCodec
from nearcache.codecs.pickled import PickleCodec
from nearcache.codecs.plain import JsonCodec, RawCodec
from nearcache.codecs.safe import SafeCodec
from nearcache.codecs.sealing import Encrypter, Guard, Signer, scope_of
from nearcache.codecs.typed import MsgspecCodec
from nearcache.codecs.values import ValueCodec
from nearcache.errors import ConfigError
from nearcache.options import Settings

#: A key that could be guessed is no key. 32 random bytes are right: secrets.token_bytes(32).
MIN_KEY_SIZE: Final = 16
MAX_KEY_SIZE: Final = 1024

_OWN: Final = (SafeCodec, JsonCodec, RawCodec, MsgspecCodec, PickleCodec)
_KEY_FORM: Final = (
    f"give one key or a sequence of them, each at least {MIN_KEY_SIZE} random bytes (secrets.token_bytes(32)) "
    "as bytes, or as text in hex or base64, or a function that returns them"
)


def value_codec(settings: Settings, db: int = 0) -> ValueCodec:
    """Return what turns a cache's values into envelopes and back.

    Args:
        settings: ``codec``, ``type``, ``classes``, ``compress``, ``compress_above``, ``signing_keys``,
            ``encryption_keys``, ``isolation``, ``error_ttl``, ``max_value`` and ``namespace`` of them.
        db: The Redis database, which belongs to the cache's identity.
    Raises:
        ConfigError: Options that do not go together, keys that are none, or a package that is not installed.
    """
    guard = _guard(settings)
    codec = _codec(settings)
    compressor = None
    if settings.compress is not None:
        above = settings.compress_above
        compressor = Compressor(settings.compress, DEFAULT_COMPRESS_ABOVE if above is None else above)
    elif settings.compress_above is not None:
        raise ConfigError("compress_above", settings.compress_above, "give compress= too, or leave it out")
    make = FreezingCodec if settings.isolation == "copy" else ValueCodec
    scope = scope_of(settings.namespace, db)
    failures = FailureCodec(settings.error_ttl, settings.classes) if settings.error_ttl else None
    return make(codec, settings.max_value, compressor=compressor, guard=guard, scope=scope, failures=failures)


def _codec(settings: Settings) -> Codec:
    chosen = settings.codec
    if settings.classes and chosen != "safe":
        raise ConfigError("classes", settings.classes, f"only codec='safe' registers classes, not {chosen!r}")
    if settings.type is not None and chosen != "msgspec":
        raise ConfigError("type", settings.type, f"only codec='msgspec' reads values of a type, not {chosen!r}")
    if chosen == "safe":
        return SafeCodec(settings.classes)
    if chosen == "json":
        return JsonCodec()
    if chosen == "raw":
        return RawCodec()
    if chosen == "msgspec":
        return MsgspecCodec(settings.type)
    if chosen == "pickle":
        return PickleCodec()
    return _custom(chosen)


def _custom(codec: Any) -> Codec:
    """Return a codec of the user's, if it can be one."""
    number = getattr(codec, "codec_id", None)
    least = 0 if isinstance(codec, _OWN) else CODEC_CUSTOM
    if type(number) is not int or not least <= number <= 255:
        raise ConfigError(
            "codec",
            codec,
            f"an object needs a codec_id from {CODEC_CUSTOM} to 255, the number of its format on the wire",
        )
    for name in ("encode", "decode"):
        if not callable(getattr(codec, name, None)):
            raise ConfigError("codec", codec, "an object needs encode(value) and decode(payload, schema)")
    return codec if isinstance(codec, _OWN) else CustomCodec(codec)


# -- keys --------------------------------------------------------------------------------------------------------


def _guard(settings: Settings) -> Guard | None:
    if settings.signing_keys is not None and settings.encryption_keys is not None:
        raise ConfigError("signing_keys", "***", "encryption authenticates too: give signing_keys= or encryption_keys=")
    if settings.signing_keys is not None:
        return Signer(read_keys("signing_keys", settings.signing_keys))
    if settings.encryption_keys is not None:
        return Encrypter(read_keys("encryption_keys", settings.encryption_keys))
    return None


def read_keys(option: str, secrets: Secrets) -> list[bytes]:
    """Return the keys that an option gives, the writing one first.

    Raises:
        ConfigError: They are not keys. What was given is not in the message, nor in its cause.
    """
    given = secrets.reveal()
    if callable(given):
        try:
            given = given()
        except Exception as cause:
            raise ConfigError(
                option, "***", f"the function that gives the keys raised {type(cause).__name__}"
            ) from cause
    if isinstance(given, (str, bytes)):
        given = [given]
    if not isinstance(given, Iterable):
        raise ConfigError(option, "***", _KEY_FORM)
    keys = [_key(option, key) for key in given]
    if not keys or len(set(keys)) != len(keys):
        raise ConfigError(option, "***", "give at least one key, and each once")
    return keys


def _key(option: str, given: object) -> bytes:
    key = given
    if isinstance(given, str):
        key = _from_text(given.strip())
    if not isinstance(key, bytes) or not MIN_KEY_SIZE <= len(key) <= MAX_KEY_SIZE:
        raise ConfigError(option, "***", _KEY_FORM)
    return key


def _from_text(text: str) -> bytes | None:
    """Return the bytes that hex or base64 (either alphabet) stands for; hex where it could be both."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (ValueError, binascii.Error):
        return None
