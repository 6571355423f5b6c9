"""Values as bytes: codecs, and the envelope that every stored value stands in."""

from nearcache.codecs.envelope import (
    HEADER_SIZE,
    TTL_NONE,
    Codec,
    Encoded,
    Envelope,
    ValueCodec,
    pack,
    peek_ids,
    peek_tags,
    unpack,
)
from nearcache.codecs.safe import SafeCodec

__all__ = [
    "HEADER_SIZE",
    "TTL_NONE",
    "Codec",
    "Encoded",
    "Envelope",
    "SafeCodec",
    "ValueCodec",
    "pack",
    "peek_ids",
    "peek_tags",
    "unpack",
]
