"""The ``safe`` codec: Python values to bytes, and back without ever executing what the bytes say.

A payload is a tag byte and a body. Scalars are raw; everything else is pickle protocol 5 in a dialect that
cannot do more than build data (byte by byte in ``docs/wire.md``):

- *Writing*: the C pickler, so that documents of dicts, lists and strings cost what they cost with pickle.
  What it does not know itself comes to :meth:`_Pickler.reducer_override`, and leaves as a call ``rebuild(tag,
  data)`` or is refused. So the stream holds one global at most.
- *Reading*: the verifier of ``pickle_scan.h`` goes over the stream first and lets nothing through that our
  own writer does not emit; then the C unpickler runs, whose ``find_class`` knows that one global; then each
  ``rebuild`` checks tag and data (:mod:`~nearcache.codecs.reading`).
- The writer runs the verifier too: what could not be read back is refused when it is written. Short streams
  without a call are spared: nothing in them can be out of bounds, but a key that takes 2**24 steps to hash.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from struct import Struct
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Final, NoReturn

from nearcache._envelopes import text_payload
from nearcache._pickle_scan import MAX_DEPTH, MAX_HASH_DEPTH, scan
from nearcache.absence import Absent
from nearcache.codecs import arrays
from nearcache.codecs.envelope import CODEC_SAFE, Payload, payload_offset, read_varint, varint
from nearcache.codecs.reading import Pickled, load, rehearse
from nearcache.codecs.registered import RegisteredClass, register
from nearcache.codecs.schema import combine
from nearcache.codecs.stdlib import DUMPS, Dump, Dumped, Unfit, find_dump
from nearcache.errors import DecodeError, UnencodableValueError, words_of

_ALIGNMENT: Final = 16
#: An array takes more than this in the pickle and in the table of buffers, even one without items.
_ARRAY_BYTES: Final = 16
#: A stream of plain data up to this length cannot nest deeper than the verifier allows.
_SOUND_SIZE: Final = 2 * min(MAX_DEPTH, MAX_HASH_DEPTH)

_FLOAT = Struct("<d")
_PLAIN, _SECTIONS = b"pq"

_Writer = Callable[["_Pickler", Any], "tuple[object, ...]"]


class SafeCodec:
    """The default codec.

    Args:
        classes: Classes of the user's that values may contain: dataclasses, named tuples, enums, anything
            that can be pickled as class, arguments and state. Exactly these; a subclass is another class.
    Raises:
        ConfigError: ``classes`` holds something that cannot be registered.
    """

    __slots__ = ("_by_name", "_writers")

    codec_id = CODEC_SAFE

    def __init__(self, classes: Iterable[type] = ()) -> None:
        entries = register(classes, _is_known)
        self._by_name = {entry.name: entry for entry in entries.values()}
        # Grows by the types that values turn out to have; a lost update in a race is only looked up again.
        self._writers: dict[type, _Writer] = {kind: partial(_write_stdlib, dump) for kind, dump in DUMPS.items()}
        self._writers |= {cls: partial(_write_registered, entry) for cls, entry in entries.items()}

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return the payload of ``value`` and the fingerprint of the registered classes in it.

        Raises:
            UnencodableValueError: ``value`` is, or contains, something that could not be read back.
        """
        scalar = _SCALARS.get(type(value))
        return (scalar(value), 0) if scalar is not None else self._encode_pickle(value)

    def decode(self, payload: Payload, schema: int) -> Any:
        """Return the value.

        numpy arrays in it are read-only views of ``payload`` and keep it alive.

        Raises:
            DecodeError: Whatever is wrong with the payload. Nothing in it has been executed.
        """
        try:
            tag = payload[0]
            if tag == _PLAIN:
                return load(Pickled(payload, 1, len(payload)), schema, 0)
            if tag == _SECTIONS:
                return self._decode_sections(payload, schema)
            if schema:
                raise DecodeError("a scalar has no schema")
            return _LOADERS[tag](payload)
        except (DecodeError, MemoryError):
            raise
        except Exception as cause:
            raise DecodeError(
                f"a payload of {len(payload):,} bytes is damaged: {type(cause).__name__}: {words_of(cause)}"
            ) from cause

    # -- writing ---------------------------------------------------------------------------------------------

    def _encode_pickle(self, value: Any) -> tuple[bytes, int]:
        file = io.BytesIO()
        file.write(b"p")
        pickler = _Pickler(file, 5, buffer_callback=_refuse_buffer)
        pickler.writers = self._writers
        pickler.classes = {}
        pickler.buffers = []
        try:
            pickler.dump(value)
            payload = file.getvalue()
            if (not pickler.plain or len(payload) > _SOUND_SIZE) and scan(payload, 1):
                pickled = Pickled(payload, 1, len(payload), tuple(pickler.classes), pickler.buffers)
                if pickled.is_uncertain:
                    rehearse(pickled)
        except (UnencodableValueError, MemoryError):
            raise
        except RecursionError as cause:
            raise UnencodableValueError(_name(type(value)), "it is nested too deeply; store it in flat form") from cause
        except Exception as cause:
            raise UnencodableValueError(
                _name(type(value)), f"it could not be written, or not read back: {words_of(cause)}"
            ) from cause
        if not pickler.classes and not pickler.buffers:
            return payload, 0
        return _join_sections(payload, list(pickler.classes), pickler.buffers)

    # -- reading ---------------------------------------------------------------------------------------------

    def _decode_sections(self, payload: Payload, schema: int) -> Any:
        view = memoryview(payload).toreadonly()
        classes, at = self._read_classes(view, 1)
        sizes, at = _read_sizes(view, at)
        pickle_size, at = read_varint(view, at)
        pad, at = read_varint(view, at)
        end = at + pickle_size
        if end > len(view) or pad >= 2 * _ALIGNMENT:
            raise DecodeError("the pickle in the payload is cut off")
        buffers = _read_buffers(view, end, pad, sizes)
        expected = combine(entry.fingerprint for entry in classes)
        return load(Pickled(view[at:end], 0, len(view), classes, buffers), schema, expected)

    def _read_classes(self, view: memoryview, at: int) -> tuple[tuple[RegisteredClass, ...], int]:
        count, at = read_varint(view, at)
        classes: dict[RegisteredClass, None] = {}
        for _ in range(count):
            size, at = read_varint(view, at)
            name = str(view[at : at + size], "utf-8", "surrogatepass")
            at += size
            entry = self._by_name.get(name)
            if entry is None:
                raise DecodeError(f"the value holds a {name}, which is not among the classes= of this cache")
            if entry in classes:  # a short table would name one again and again
                raise DecodeError(f"the value names the class {name} twice")
            classes[entry] = None
        return tuple(classes), at


def rebuild(subject: object, data: object) -> NoReturn:  # noqa: ARG001
    """Stand for the call that a payload holds; what it does in reading is :meth:`_Rebuilder.rebuild`.

    Raises:
        DecodeError: Always: whoever calls this one unpickles a payload with plain ``pickle``.
    """
    raise DecodeError("a payload of nearcache's safe codec was given to plain pickle; read it with SafeCodec")


# -- scalars -------------------------------------------------------------------------------------------------


def _int_size(value: int) -> int:
    """Return how many bytes an int takes: its bits and one for the sign."""
    return (value.bit_length() + 8) // 8


_SCALARS: dict[type, Callable[[Any], bytes]] = {
    str: text_payload,
    bytes: lambda value: b"b" + value,
    int: lambda value: b"i" + value.to_bytes(_int_size(value), "little", signed=True),
    float: lambda value: b"f" + _FLOAT.pack(value),
    bool: lambda value: b"T" if value else b"F",
    type(None): lambda _: b"N",
}


def _decode_int(payload: Payload) -> int:
    value = int.from_bytes(payload[1:], "little", signed=True)
    if len(payload) - 1 != _int_size(value):
        raise DecodeError("an int is not in its shortest form")
    return value


def _decode_constant(payload: Payload) -> bool | None:
    if len(payload) != 1:
        raise DecodeError("a constant has a body")
    return {0x54: True, 0x46: False, 0x4E: None}[payload[0]]


_LOADERS: dict[int, Callable[[Payload], object]] = {
    ord("s"): lambda payload: str(payload[1:], "utf-8", "surrogatepass"),
    ord("b"): lambda payload: bytes(payload[1:]),
    ord("i"): _decode_int,
    ord("f"): lambda payload: _FLOAT.unpack(payload[1:])[0],
    ord("T"): _decode_constant,
    ord("F"): _decode_constant,
    ord("N"): _decode_constant,
}


# -- sections: classes and buffers beside the pickle ---------------------------------------------------------


def _join_sections(payload: bytes, classes: list[RegisteredClass], buffers: list[memoryview]) -> tuple[bytes, int]:
    """Return the payload with its table of classes and its buffers, and the schema."""
    head = [varint(len(classes))]
    for entry in classes:
        name = entry.name.encode("utf-8", "surrogatepass")
        head += (varint(len(name)), name)
    head.append(varint(len(buffers)))
    head += (varint(len(buffer)) for buffer in buffers)
    head.append(varint(len(payload) - 1))
    front = b"".join(head)
    tail: list[bytes | memoryview] = []
    behind = 0  # how long the tail is
    for buffer in buffers:
        gap = -behind % _ALIGNMENT
        tail += (bytes(gap), buffer)
        behind += gap + len(buffer)
    fixed = 1 + len(front) + 1 + len(payload) - 1
    pad = _padding(fixed, behind) if tail else 0
    joined = b"".join((b"q", front, varint(pad), memoryview(payload)[1:], bytes(pad), *tail))
    return joined, combine(entry.fingerprint for entry in classes)


def _padding(before: int, behind: int) -> int:
    """Return how many zero bytes put the first buffer at a multiple of 16 bytes of the envelope.

    The padding is part of the payload, whose length takes a varying number of bytes in front of it, so the
    right number is one that is right when it is counted in. Twice the alignment is tried, since at the seam
    none of the first may be.
    """
    for pad in range(2 * _ALIGNMENT):
        if (payload_offset(before + pad + behind) + before + pad) % _ALIGNMENT == 0:
            return pad
    return 0


def _read_sizes(view: memoryview, at: int) -> tuple[list[int], int]:
    count, at = read_varint(view, at)
    if count * _ARRAY_BYTES > len(view):
        raise DecodeError(f"{count:,} buffers are more than there can be arrays in the payload")
    sizes = []
    for _ in range(count):
        size, at = read_varint(view, at)
        sizes.append(size)
    return sizes, at


def _read_buffers(view: memoryview, end: int, pad: int, sizes: list[int]) -> list[memoryview]:
    """Return the buffers behind the pickle, which fill the payload to its last byte; padding is zero."""
    buffers = []
    at = end
    for size in sizes:
        start = at + pad
        if any(view[at:start]):
            raise DecodeError("padding that is not zero")
        at = start + size
        pad = -size % _ALIGNMENT
        buffers.append(view[start:at])
    if at != len(view):
        raise DecodeError("the buffers do not fill the payload")
    return buffers


# -- writing objects -----------------------------------------------------------------------------------------


class _Pickler(pickle.Pickler):
    """The C pickler, with our say about everything that it does not write by itself."""

    writers: dict[type, _Writer]
    classes: dict[RegisteredClass, int]  # in order of appearance
    buffers: list[memoryview]
    plain = True  # until something comes that the C pickler does not write by itself

    def reducer_override(self, obj: Any) -> Any:
        self.plain = False
        kind = type(obj)
        writer = self.writers.get(kind)
        if writer is None:
            if obj is rebuild:
                return NotImplemented  # by name, as the one global
            writer = self.writers[kind] = _find_writer(obj)
        try:
            return writer(self, obj)
        except Unfit as cause:
            raise UnencodableValueError(_name(kind), str(cause)) from cause


def _is_known(kind: type) -> bool:
    return kind in DUMPS or find_dump(kind) is not None or arrays.is_numpy(kind)


def _find_writer(obj: Any) -> _Writer:
    kind = type(obj)
    dump = find_dump(kind)
    if dump is not None:
        return partial(_write_stdlib, dump)
    if arrays.is_numpy(kind):
        return _write_array if kind.__name__ == "ndarray" else _write_scalar
    raise UnencodableValueError(_name(kind), _remedy(obj))


def _reduced(dumped: Dumped) -> tuple[object, ...]:
    """Return a call of the rebuild function, and another one for the state, as pickle's reduce protocol puts
    it."""
    if dumped.later is None:
        return rebuild, (dumped.tag, dumped.first)
    return rebuild, (dumped.tag, dumped.first), dumped.later, None, None, rebuild


def _write_stdlib(dump: Dump, _: _Pickler, obj: Any) -> tuple[object, ...]:
    return _reduced(dump(obj))


def _write_registered(entry: RegisteredClass, pickler: _Pickler, obj: Any) -> tuple[object, ...]:
    classes = pickler.classes
    return _reduced(Dumped(*entry.dump(obj, classes.setdefault(entry, len(classes)))))


def _write_array(pickler: _Pickler, obj: Any) -> tuple[object, ...]:
    data, raw = arrays.dump_array(obj, len(pickler.buffers))
    pickler.buffers.append(raw)
    return rebuild, (arrays.TAG_ARRAY, data)


def _write_scalar(_: _Pickler, obj: Any) -> tuple[object, ...]:
    return rebuild, (arrays.TAG_SCALAR, arrays.dump_scalar(obj))


def _refuse_buffer(buffer: pickle.PickleBuffer) -> NoReturn:
    raise UnencodableValueError(_name(type(buffer)), "it is a view of other memory; convert it with bytes()")


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _remedy(obj: Any) -> str:
    """Return what to do with an object that the codec does not take."""
    kind = type(obj)
    if isinstance(obj, Absent):
        return "it is no value, but what a loader returns where there is none; to remove one, del cache[key]"
    if isinstance(obj, type):
        return f"the class {_name(obj)} itself cannot be stored; store its name"
    if isinstance(obj, (FunctionType, BuiltinFunctionType, MethodType, ModuleType)) or callable(obj):
        return "functions, methods and modules cannot be stored; store the data that they need"
    if hasattr(kind, "__next__") or hasattr(kind, "__await__"):
        return "iterators, generators and coroutines cannot be stored; store their items, list(value)"
    if kind.__module__ == "builtins" and not isinstance(obj, BaseException):
        return "this type cannot be stored; convert it to bytes, a list or a dict"
    register_it = f"register the class with classes=({kind.__name__}, ...) on nearcache.open(), or "
    if unfit := _unfit(obj):
        register_it = f"its class cannot be registered as it is ({unfit}); "
    if isinstance(obj, Enum):
        return f"{register_it}store the member's name"
    for base in (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float):
        if isinstance(obj, base):
            return f"{register_it}convert it with {base.__name__}(value)"
    return f"{register_it}store plain data that it can be made of again"


def _unfit(obj: Any) -> str:
    """Return why registering its class would not do for an object; empty: it would."""
    try:
        RegisteredClass(type(obj)).dump(obj, 0)
    except Exception as error:  # noqa: BLE001  whatever its own methods raise
        return words_of(error)
    return ""
