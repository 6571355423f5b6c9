"""Compressed payloads: one byte that names the method, and what the method made.

Who can write to the cache can write a bomb. So a reader knows the length beforehand (the envelope states it, and it is
checked against ``max_value``), believes no length that is out of proportion to the bytes at hand, and lets no method
produce more than was announced.

``zlib`` is in the standard library; ``zstd`` is there from Python 3.14 on, and else comes with the package
``zstandard``; ``lz4`` is a package. They are imported when they are first needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

from nearcache.codecs.envelope import Payload
from nearcache.errors import ConfigError, DecodeError

#: Most bytes that one compressed byte may stand for. Larger ratios are those of bombs, and are not written either.
MAX_RATIO: Final = 1000
METHODS: Final = {"zlib": 1, "lz4": 2, "zstd": 3}
_NAMES: Final = {number: name for name, number in METHODS.items()}
_ZLIB_LEVEL: Final = 1  # what comes above costs several times the time for a few per cent
_ZSTD_LEVEL: Final = 3
#: A zstd frame that needs a larger window than its content, and than this, is none of ours.
_SMALL_WINDOW: Final = 1 << 20


class Method(NamedTuple):
    """One method: ``pack(data)``, and ``unpack(data, size)``, which never makes more than ``size`` bytes."""

    number: int
    pack: Callable[[bytes], bytes]
    unpack: Callable[[Payload, int], bytes]


class Compressor:
    """Makes payloads smaller where that helps.

    Args:
        method: ``zlib``, ``lz4`` or ``zstd``.
        above: Shorter payloads stay as they are, in bytes.
    Raises:
        ConfigError: The package that the method needs is not installed.
    """

    __slots__ = ("_above", "_pack", "_prefix")

    def __init__(self, method: str, above: int) -> None:
        try:
            found = _method(METHODS[method])
        except ImportError as cause:
            raise ConfigError("compress", method, f"install it with: pip install 'nearcache[{method}]'") from cause
        self._above = above
        self._pack = found.pack
        self._prefix = bytes((found.number,))

    def compress(self, payload: bytes) -> bytes | None:
        """Return the compressed body, or ``None`` if the payload is to stay as it is."""
        if len(payload) <= self._above:
            return None
        body = self._prefix + self._pack(payload)
        return body if len(body) < len(payload) <= MAX_RATIO * (len(body) - 1) else None


def decompress(body: Payload, raw_size: int) -> bytes:
    """Return the payload of ``raw_size`` bytes in a compressed body.

    Raises:
        DecodeError: The method is not known or not installed, the bytes are damaged, or they make more or less than
            was announced.
    """
    view = memoryview(body)
    if len(view) < 2 or not 0 < raw_size <= MAX_RATIO * (len(view) - 1):
        raise DecodeError(f"{len(view):,} compressed bytes that promise {raw_size:,} are out of proportion")
    try:
        payload = _method(view[0]).unpack(view[1:], raw_size)
    except ImportError as cause:
        raise DecodeError(f"a payload is compressed with {_NAMES[view[0]]}, which is not installed here") from cause
    except (DecodeError, MemoryError):
        raise
    except Exception as cause:
        raise DecodeError(f"a compressed payload is damaged: {type(cause).__name__}: {cause}") from cause
    if len(payload) != raw_size:
        raise DecodeError(f"a compressed payload promises {raw_size:,} bytes and makes another number of them")
    return payload


def _method(number: int) -> Method:
    found = _loaded.get(number)
    if found is None:
        if number not in _MAKERS:
            raise DecodeError(f"a payload is compressed with method {number}, which this version does not know")
        found = _loaded[number] = _MAKERS[number]()
    return found


# -- the methods -----------------------------------------------------------------------------------------------


def _zlib() -> Method:
    def unpack(data: Payload, size: int) -> bytes:
        machine = zlib.decompressobj()
        payload = machine.decompress(data, size + 1)  # one more than right, so that the end is seen
        if not machine.eof or machine.unused_data:
            raise DecodeError("a zlib stream makes too much, ends early, or is followed by more bytes")
        return payload

    return Method(METHODS["zlib"], lambda data: zlib.compress(data, _ZLIB_LEVEL), unpack)


def _lz4() -> Method:
    from lz4 import block

    def pack(data: bytes) -> bytes:
        packed: bytes = block.compress(data, store_size=False)
        return packed

    def unpack(data: Payload, size: int) -> bytes:
        payload: bytes = block.decompress(data, uncompressed_size=size)
        return payload

    return Method(METHODS["lz4"], pack, unpack)


def _zstd() -> Method:
    try:
        return _zstd_of_python()
    except ImportError:
        return _zstd_of_package()


def _zstd_of_python() -> Method:
    from compression import zstd

    def unpack(data: Payload, size: int) -> bytes:
        machine = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _window_log(size)})
        payload: bytes = machine.decompress(data, size + 1)
        if not machine.eof or machine.unused_data:
            raise DecodeError("a zstd frame makes too much, ends early, or is followed by more bytes")
        return payload

    return Method(METHODS["zstd"], lambda data: zstd.compress(data, _ZSTD_LEVEL), unpack)


def _zstd_of_package() -> Method:
    import zstandard

    def unpack(data: Payload, size: int) -> bytes:
        # The size in the frame is what the package allocates, whatever it is told besides.
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != size or frame.window_size > max(size, _SMALL_WINDOW):
            raise DecodeError("a zstd frame does not say the size that the envelope says, or asks for more memory")
        payload: bytes = zstandard.ZstdDecompressor().decompress(data, max_output_size=size, allow_extra_data=False)
        return payload

    # Its objects are not for several threads at a time, and cost little.
    return Method(METHODS["zstd"], lambda data: zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(data), unpack)


def _window_log(size: int) -> int:
    return (max(size, _SMALL_WINDOW) - 1).bit_length()


_MAKERS: Final[dict[int, Callable[[], Method]]] = {1: _zlib, 2: _lz4, 3: _zstd}
#: Grows by the methods that were used. A lost update in a race is only made again.
_loaded: dict[int, Method] = {}
