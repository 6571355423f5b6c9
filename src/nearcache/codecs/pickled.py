"""The ``pickle`` codec: any object, in the hands of those alone who hold the cache's key.

Unpickling executes what the bytes say. So :class:`~nearcache.codecs.values.ValueCodec` takes this codec with a guard
only, which has verified every byte before one of them gets here.

In front of the pickle stands a table of the classes in it that have a shape (dataclasses, named tuples, enums, attrs,
pydantic, msgspec), with their fingerprints: plain pickle would fill an object of today's class with yesterday's
fields.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any, Final

from nearcache.codecs.envelope import CODEC_PICKLE, Payload, read_varint, varint
from nearcache.codecs.plain import type_name
from nearcache.codecs.schema import combine, fingerprint, has_shape
from nearcache.errors import DecodeError, UnencodableValueError, words_of

#: Types that say nothing about anybody's classes, and come by the thousand.
_SHAPELESS: Final = 0


class PickleCodec:
    """Plain pickle, protocol 5, and the fingerprints of the classes in it."""

    __slots__ = ("_fingerprints",)

    codec_id = CODEC_PICKLE

    def __init__(self) -> None:
        # By class; grows by those that values turn out to have.
        self._fingerprints: dict[type, int] = {}

    def encode(self, value: Any) -> tuple[bytes, int]:
        """Return ``value`` pickled, and the fingerprint of the classes in it.

        Raises:
            UnencodableValueError: It cannot be pickled.
        """
        file = io.BytesIO()
        pickler = _Pickler(file, 5)
        pickler.known = self._fingerprints
        pickler.found = {}
        try:
            pickler.dump(value)
        except MemoryError:
            raise
        except Exception as cause:  # whatever a __reduce__ of the user's raises
            raise UnencodableValueError(type_name(value), f"it cannot be pickled: {words_of(cause)}") from cause
        head = [varint(len(pickler.found))]
        for kind in pickler.found:
            for name in (kind.__module__, kind.__qualname__):
                raw = name.encode("utf-8", "surrogatepass")
                head += (varint(len(raw)), raw)
        return b"".join((*head, file.getbuffer())), combine(pickler.found.values())

    def decode(self, payload: Payload, schema: int) -> Any:
        """Return the value. The payload must have been authenticated: unpickling it executes what it says.

        Raises:
            DecodeError: A class has changed since it was written, is gone, or does not like what it is given.
        """
        try:
            view = memoryview(payload)
            classes, at = self._read_classes(view)
            expected = combine(self._fingerprint(kind) for kind in classes)
            if schema != expected:
                raise DecodeError(
                    f"the value was written with schema {schema:08x}, the classes here have {expected:08x}"
                )
            return pickle.loads(view[at:])
        except (DecodeError, MemoryError):
            raise
        except Exception as cause:
            raise DecodeError(
                f"a pickle of {len(payload):,} bytes cannot be read: {type(cause).__name__}: {words_of(cause)}"
            ) from cause

    def _read_classes(self, view: memoryview) -> tuple[list[type], int]:
        count, at = read_varint(view, 0)
        classes = []
        for _ in range(count):
            module, at = _read_text(view, at)
            name, at = _read_text(view, at)
            classes.append(_find(module, name))
        return classes, at

    def _fingerprint(self, kind: type) -> int:
        known = self._fingerprints.get(kind)
        if known is None:
            known = self._fingerprints[kind] = _fingerprint(kind)
        return known


class _Pickler(pickle.Pickler):
    """The C pickler, which notes whose objects it writes."""

    known: dict[type, int]
    found: dict[type, int]

    def reducer_override(self, obj: Any) -> Any:
        kind = obj if isinstance(obj, type) else type(obj)
        number = self.known.get(kind)
        if number is None:
            number = self.known[kind] = _fingerprint(kind)
        if number != _SHAPELESS:
            self.found[kind] = number
        return NotImplemented


def _fingerprint(kind: type) -> int:
    return fingerprint(kind, f"{kind.__module__}.{kind.__qualname__}") or 1 if has_shape(kind) else _SHAPELESS


def _read_text(view: memoryview, at: int) -> tuple[str, int]:
    size, at = read_varint(view, at)
    return str(view[at : at + size], "utf-8", "surrogatepass"), at + size


def _find(module: str, name: str) -> type:
    """Return the class of that name, as pickle would find it."""
    __import__(module)
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise DecodeError(f"{module}.{name} is no longer a class")
    return found
