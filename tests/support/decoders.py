"""What every decoder owes to any bytes: a value or DecodeError, within bounds. For tests, and for atheris.

``python decoders.py TARGET [options of libFuzzer]`` fuzzes one target until it is stopped; ``make fuzz`` does all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nearcache.codecs import SafeCodec, ValueCodec, pack, peek_ids, unpack
from nearcache.codecs.compression import Compressor, decompress
from nearcache.codecs.envelope import (
    FLAG_COMPRESSED,
    FLAG_ENCRYPTED,
    FLAG_MAC,
    FLAG_NEGATIVE,
    FLAG_TOUCHED,
    HEADER_SIZE,
    peek_tags,
    read_varint,
)
from nearcache.codecs.plain import JsonCodec, RawCodec
from nearcache.codecs.sealing import Encrypter, Signer, key_id_of
from nearcache.codecs.typed import MsgspecCodec
from nearcache.coherence.messages import pack_message, parse_message
from nearcache.errors import DecodeError, ForgedError
from support import parsers

KEY = bytes(range(32))
LIMIT = 1 << 16
CODECS = [SafeCodec(), JsonCodec(), RawCodec(), MsgspecCodec(), MsgspecCodec(dict[str, list[int]])]
PLAIN = [ValueCodec(codec, LIMIT) for codec in CODECS]
GUARDED = [ValueCodec(SafeCodec(), LIMIT, guard=guard, scope=b"s@0") for guard in (Signer([KEY]), Encrypter([KEY]))]


def check_envelope(data: bytes) -> None:
    """Unpacking, peeking, opening accept or refuse; what is accepted packs to the same bytes; no guard is passed."""
    for function in (peek_ids, peek_tags):
        if len(data) >= HEADER_SIZE:
            _tried(function, data)
    envelope = _tried(unpack, data)
    if envelope is not None:
        again = pack(
            *envelope[:3], envelope.payload, envelope.schema, envelope.codec_id, soft_ttl_ms=envelope.soft_ttl_ms,
            cost_ms=envelope.cost_ms, tags=envelope.tags, flags=envelope.flags & (FLAG_NEGATIVE | FLAG_TOUCHED),
            validator=envelope.validator,
        )  # fmt: skip
        assert again == data
    for codec in PLAIN:
        read = _tried(codec.loads, data)
        assert read is None or len(read[1].payload) <= LIMIT
    for codec in GUARDED:
        assert _tried(codec.loads, data) is None


def check_values(data: bytes) -> None:
    """The same behind a header that is in order, so that payloads are reached: plain, compressed, guarded."""
    choice, rest = (data[0], data[1:]) if data else (0, b"")
    codec = PLAIN[choice % len(PLAIN)]
    number = CODECS[choice % len(CODECS)].codec_id
    read = _tried(codec.loads, pack(1, 2, 3, rest, 0, number))
    if read is not None and not isinstance(codec._codec, MsgspecCodec):
        _again(codec, read[0])
    raw_size = int.from_bytes(rest[:3], "little")
    _tried(codec.loads, pack(1, 2, 3, rest[3:], 0, number, flags=FLAG_COMPRESSED, raw_size=raw_size))
    made = _tried(lambda body: decompress(body, raw_size), rest[3:])
    assert made is None or len(made) == raw_size
    for guard, flag in zip(GUARDED, (FLAG_MAC, FLAG_ENCRYPTED), strict=True):
        sealed = pack(1, 2, 3, rest, 0, 1, flags=flag, key_id=key_id_of(KEY), raw_size=len(rest))
        try:
            guard.loads(sealed, key=b"k")
        except ForgedError:
            continue
        raise AssertionError("a value that nobody protected was read")


def check_message(data: bytes) -> None:
    """Messages parse or are refused, behind a header that is in order too; what parses packs to the same keys."""
    for payload in (data, data[:2] + parsers.CHAIN + data[2:]):
        message = _tried(parse_message, payload)
        if message is not None:
            assert parse_message(pack_message(*message)) == message


TARGETS: dict[str, Callable[[bytes], None]] = {
    "envelope": check_envelope,
    "values": check_values,
    "message": check_message,
    **parsers.TARGETS,
}


def seeds(target: str) -> list[bytes]:
    """Return well-formed inputs to begin with."""
    if target in parsers.TARGETS:
        return parsers.seeds(target)
    if target == "message":
        keys = [b"sa", b"i1", b"(2:sa2:i1)", b"!selftest"]
        # All continue the chain that check_message knows, but for the last two, whose ids are not written as ours are.
        found = [pack_message(operation, 1, 2, 1, 3, keys) for operation in "SFIC"]
        return [
            *found,
            pack_message("S", 1, 2, 1, 0xABCDEF, []).upper(),
            found[0].replace(b"0000000000000003\n", b"0x00000000000003\n"),
        ]
    values: list[Any] = [None, 1, "text", b"data", [1, {"a": (2.5, None)}], {"a": [1, 2]}]
    found = []
    for number, (codec, bare) in enumerate(zip(PLAIN, CODECS, strict=True)):
        for value in values:
            try:
                whole, payload = codec.dumps(value, wid=1, generation=2, ttl_ms=3), bare.encode(value)[0]
            except TypeError:  # not for this codec
                continue
            found.append(whole if target == "envelope" else bytes((number,)) + payload)
    if target == "envelope":
        found.append(pack(1, 2, 3, b"s1", flags=FLAG_TOUCHED, tags=[(4, 5)], validator="etag"))
        found.append(pack(1, 2, 3, b"", flags=FLAG_NEGATIVE, soft_ttl_ms=6, cost_ms=7))
    text = b"text " * 50
    squeezed = [Compressor(name, 0).compress(text) or b"" for name in ("zlib", "lz4", "zstd")]
    found += [b"\2" + len(text).to_bytes(3, "little") + body for body in squeezed]
    found += [codec.dumps([1], wid=1, generation=2, ttl_ms=3, key=b"other") for codec in GUARDED]
    return found


def _tried(function: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return function(data)
    except DecodeError:
        return None


def _again(codec: ValueCodec, value: Any) -> None:
    """What was read can be written, and reads as the same."""
    try:
        data = codec.dumps(value, wid=1, generation=2, ttl_ms=3)
    except (TypeError, ValueError):  # a foreign writer's value may be more than ours would write, but is harmless
        return
    assert repr(codec.loads(data)[0])[:1000] == repr(value)[:1000]


def main() -> None:
    """Fuzz one target with atheris."""
    import atheris

    name, *options = sys.argv[1:]
    if options and (corpus := Path(options[-1])).is_dir():
        for number, data in enumerate(seeds(name)):
            (corpus / f"seed_{number}").write_bytes(data)
    # It is the decoders' branches that are followed; the modules are loaded, so their functions are rewritten in place.
    functions: list[Any] = [unpack, peek_tags, read_varint, decompress, parse_message]
    for function in [*functions, SafeCodec.decode, SafeCodec._decode_sections, ValueCodec.loads, ValueCodec._unseal]:
        function.__code__ = atheris.instrument_func(function).__code__
    atheris.Setup([name, *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
