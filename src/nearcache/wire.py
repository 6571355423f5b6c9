"""The wire format as functions: for tools, for tests, and as the reference of a program in another language.

Everything is described byte by byte in ``docs/wire.md``; ``tests/data/`` has test vectors. Nothing here does I/O.

>>> from nearcache import wire
>>> wire.encode_key(("sku", 1))
b'(4:ssku2:i1)'
>>> wire.LaneNames(wire.lane_prefix("shop")).value(wire.encode_key("sku:1"))
b'nc:{shop:0}:v:ssku:1'
>>> wire.LaneNames(wire.cluster_prefixes("shop")[49]).value(wire.encode_key("sku:1"))  # Redis Cluster; 49: slot % 64
b'nc:{shop:49-24828}:v:ssku:1'
>>> wire.tag_key("red")
b'!t:89e9be1960f4c21c'
>>> wire.parse_token("1.0-c0ffee-2a")
{0: (12648430, 42)}
"""

from __future__ import annotations

from .codecs.envelope import Envelope, peek_ids, peek_tags
from .codecs.envelope import pack as pack_envelope
from .codecs.envelope import unpack as unpack_envelope
from .coherence import Message, pack_message, pack_token, parse_message, parse_token
from .coherence.lane import parse_ends
from .keys import decode_key, encode_key, slot_of
from .l2.handshake import identity_of as fork_of
from .loading.tagging import tag_hash
from .loading.tagging import tag_key as _tag_key
from .placement import LaneNames, Placement, cluster_prefixes, lane_prefix

__all__ = [
    "Envelope",
    "LaneNames",
    "Message",
    "Placement",
    "cluster_prefixes",
    "decode_key",
    "encode_key",
    "fork_of",
    "lane_prefix",
    "pack_envelope",
    "pack_message",
    "pack_token",
    "parse_ends",
    "parse_message",
    "parse_token",
    "peek_ids",
    "peek_tags",
    "slot_of",
    "tag_hash",
    "tag_key",
    "unpack_envelope",
]


def tag_key(name: str) -> bytes:
    """Return the encoded key of a tag's record. Its wid is the generation that envelopes state of the tag."""
    return _tag_key(tag_hash(name))
