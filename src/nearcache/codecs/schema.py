"""Fingerprints of registered classes: 32 bits that change when the shape of a class does.

They are compared before anything is decoded, so that a deploy which changes a dataclass reads the values of
the previous one as misses. They must come out alike in every process that runs the same source: addresses,
the order of sets and the like may not enter.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterable
from enum import Enum
from zlib import crc32

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_UNIONS: tuple[object, ...] = (typing.Union, types.UnionType)


def fingerprint(cls: type, name: str) -> int:
    """Return the fingerprint of one class.

    A dataclass and a ``NamedTuple`` count with their fields and annotations, an ``Enum`` with its members and
    their values, any other class with its name alone.
    """
    lines = [name]
    if issubclass(cls, Enum):
        lines += [f"{key}={stable_repr(member.value)}" for key, member in cls.__members__.items()]
    elif dataclasses.is_dataclass(cls):
        lines += [f"{field.name}:{annotation_text(field.type)}" for field in dataclasses.fields(cls)]
    elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
        annotations = _annotations(cls)
        lines += [f"{field}:{annotation_text(annotations.get(field, ''))}" for field in cls._fields]
    return crc32("\n".join(lines).encode("utf-8", "surrogatepass"))


def combine(fingerprints: Iterable[int]) -> int:
    """Return one fingerprint for a set of them: 0 for none, never 0 otherwise."""
    ordered = sorted(fingerprints)
    if not ordered:
        return 0
    return crc32(b"".join(number.to_bytes(4, "little") for number in ordered)) or 1


def annotation_text(annotation: object) -> str:
    """Return an annotation as text that does not depend on the process, nor on how it was spelled."""
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    origin = typing.get_origin(annotation)
    if origin is None:
        if isinstance(annotation, type):
            return _class_name(annotation)
        forward = getattr(annotation, "__forward_arg__", None)
        return forward if isinstance(forward, str) else stable_repr(annotation)
    arguments = typing.get_args(annotation)
    if origin in _UNIONS:
        return " | ".join(annotation_text(argument) for argument in arguments)
    if origin is typing.Annotated:  # the rest is advice to tools, often with addresses in its repr
        return annotation_text(arguments[0])
    if origin is typing.Literal:
        return f"Literal[{', '.join(stable_repr(argument) for argument in arguments)}]"
    return f"{annotation_text(origin)}[{', '.join(annotation_text(argument) for argument in arguments)}]"


def stable_repr(value: object) -> str:
    """Return ``repr(value)`` without addresses, with sets in order, or the name of the class if there is no
    repr."""
    try:
        if isinstance(value, (set, frozenset)):
            return f"{{{', '.join(sorted(stable_repr(item) for item in value))}}}"
        if isinstance(value, tuple):
            return f"({', '.join(stable_repr(item) for item in value)})"
        return _ADDRESS.sub("", repr(value))
    except Exception:  # noqa: BLE001  (a repr of the user's; its class is the best that is left)
        return _class_name(type(value))


def _class_name(cls: type) -> str:
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _annotations(cls: type) -> dict[str, object]:
    """Return the annotations of the class that declares the fields of a ``NamedTuple``."""
    owner = next(base for base in cls.__mro__ if "_fields" in vars(base))
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(owner, format=annotationlib.Format.FORWARDREF)
    annotations: dict[str, object] = vars(owner).get("__annotations__", {})
    return annotations
