"""Values as bytes: codecs, and the envelope that every stored value stands in."""

from nearcache.codecs.choose import value_codec
from nearcache.codecs.envelope import (
    HEADER_SIZE,
    TTL_NONE,
    Codec,
    Envelope,
    pack,
    peek_absence,
    peek_ids,
    peek_own,
    peek_tags,
    peek_times,
    peek_touched,
    peek_validator,
    unpack,
)
from nearcache.codecs.frozen import FreezingCodec, Frozen, thaw
from nearcache.codecs.safe import SafeCodec
from nearcache.codecs.values import NO_VALUE, Encoded, Own, ValueCodec, is_deletion

__all__ = [
    "HEADER_SIZE",
    "NO_VALUE",
    "TTL_NONE",
    "Codec",
    "Encoded",
    "Envelope",
    "FreezingCodec",
    "Frozen",
    "Own",
    "SafeCodec",
    "ValueCodec",
    "is_deletion",
    "pack",
    "peek_absence",
    "peek_ids",
    "peek_own",
    "peek_tags",
    "peek_times",
    "peek_touched",
    "peek_validator",
    "thaw",
    "unpack",
    "value_codec",
]
