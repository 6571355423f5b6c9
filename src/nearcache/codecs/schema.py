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
from typing import Any
from zlib import crc32

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_UNIONS: tuple[object, ...] = (typing.Union, types.UnionType)


def fingerprint(cls: type, name: str) -> int:
    """Return the fingerprint of one class.

    A dataclass, a ``NamedTuple``, a ``TypedDict``, and a class of attrs, pydantic or msgspec count with their
    fields and annotations (msgspec's with what it writes for them, too), an ``Enum`` with its members and their
    values, any other class with its name alone. The packages are known by what they leave in a class; none is
    imported.
    """
    return crc32("\n".join([name, *(_shape(cls) or ())]).encode("utf-8", "surrogatepass"))


def has_shape(cls: type) -> bool:
    """Return whether more is known of a class than its name."""
    return _shape(cls) is not None


def type_fingerprint(annotation: object) -> int:
    """Return the fingerprint of a type as it stands in an annotation, with all classes that it refers to. Never 0."""
    classes: dict[str, type] = {}
    _collect(annotation, classes, set())
    lines = [annotation_text(annotation), *(f"{fingerprint(classes[name], name):08x}" for name in sorted(classes))]
    return crc32("\n".join(lines).encode("utf-8", "surrogatepass")) or 1


def _shape(cls: type) -> list[str] | None:
    """Return a line for each part of a class; ``None`` for a class whose parts are not known beforehand."""
    if issubclass(cls, Enum):
        return [f"{key}={stable_repr(member.value)}" for key, member in cls.__members__.items()]
    if dataclasses.is_dataclass(cls):
        return [f"{field.name}:{annotation_text(field.type)}" for field in dataclasses.fields(cls)]
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        annotations = _annotations(cls)
        return [f"{field}:{annotation_text(annotations.get(field, ''))}" for field in cls._fields]
    return _foreign_shape(cls)


def _foreign_shape(cls: Any) -> list[str] | None:
    """The same for attrs, pydantic 2 and 1, msgspec, and ``TypedDict``."""
    if isinstance(attributes := getattr(cls, "__attrs_attrs__", None), tuple):
        return [f"{attribute.name}:{annotation_text(attribute.type)}" for attribute in attributes]
    if isinstance(fields := getattr(cls, "__pydantic_fields__", None) or vars(cls).get("__fields__"), dict):
        return [f"{name}:{annotation_text(_pydantic_type(field))}" for name, field in fields.items()]
    if isinstance(names := getattr(cls, "__struct_fields__", None), tuple):
        annotations = _all_annotations(cls)
        written = zip(names, getattr(cls, "__struct_encode_fields__", names), strict=True)
        lines = [f"{name}:{annotation_text(annotations.get(name, ''))}:{alias}" for name, alias in written]
        config = getattr(cls, "__struct_config__", None)
        return [*lines, *(f"{key}={getattr(config, key, None)!r}" for key in ("tag", "tag_field", "array_like"))]
    if typing.is_typeddict(cls):
        required: frozenset[str] = cls.__required_keys__
        annotations = _all_annotations(cls)
        return [f"{name}:{annotation_text(kind)}:{name in required}" for name, kind in annotations.items()]
    return None


def _pydantic_type(field: Any) -> object:
    """Return the annotation in pydantic's record of a field: of version 2, or of version 1."""
    return getattr(field, "annotation", None) or getattr(field, "outer_type_", "")


def _collect(annotation: object, classes: dict[str, type], seen: set[int]) -> None:
    """Add the classes that an annotation refers to, and those that their own annotations do."""
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    for argument in typing.get_args(annotation):
        _collect(argument, classes, seen)
    if not isinstance(annotation, type) or typing.get_origin(annotation) is not None or not has_shape(annotation):
        return
    classes[_class_name(annotation)] = annotation
    if issubclass(annotation, Enum):
        return
    try:
        hints: Iterable[object] = typing.get_type_hints(annotation, include_extras=True).values()
    except Exception:  # noqa: BLE001  (names that cannot be resolved count as the text they are)
        return
    for hint in hints:
        _collect(hint, classes, seen)


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
    return _own_annotations(next(base for base in cls.__mro__ if "_fields" in vars(base)))


def _all_annotations(cls: type) -> dict[str, object]:
    """Return the annotations of a class and of those it inherits from."""
    return {name: kind for base in reversed(cls.__mro__) for name, kind in _own_annotations(base).items()}


def _own_annotations(cls: type) -> dict[str, object]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    annotations: dict[str, object] = vars(cls).get("__annotations__", {})
    return annotations
