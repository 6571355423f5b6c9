"""Exceptions that are remembered: their class by name, their arguments and attributes in the ``safe`` codec.

Reading one executes nothing of the class's own. It is found among the classes that the cache was told of and those
below them, never imported; what makes it are the ``__new__`` and ``__init__`` of the interpreter's own exceptions, and
its attributes are put into its dictionary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import BuiltinFunctionType, WrapperDescriptorType
from typing import Any

from nearcache.absence import Failure
from nearcache.codecs.envelope import Payload
from nearcache.codecs.safe import SafeCodec
from nearcache.errors import DecodeError, UnencodableValueError, words_of


class FailureCodec:
    """Failures to payloads and back.

    Args:
        listed: The classes that are remembered. Those below them are as well.
        classes: Other classes that arguments and attributes may be of.
    """

    __slots__ = ("_by_name", "_codec", "_listed")

    def __init__(self, listed: Iterable[type[Exception]], classes: Iterable[type] = ()) -> None:
        self._listed = tuple(listed)
        self._codec = SafeCodec(classes)
        self._by_name: dict[str, type[Exception] | None] = {}

    def encode(self, error: Exception) -> tuple[bytes, int]:
        """Return payload and schema fingerprint. Attributes that cannot be written are left out.

        Raises:
            UnencodableValueError: Its arguments cannot be written, or it could not be made again.
        """
        cls = type(error)
        name = _name(cls)
        if self._find(name) is not cls:
            raise UnencodableValueError(name, "another class has the same name, so a reader could not tell them apart")
        arguments = tuple(error.args)
        if not any("__reduce__" in vars(base) for base in cls.__mro__ if base.__flags__ & _HEAP):
            arguments = tuple(error.__reduce__()[1])  # OSError's knows of the file name too
        attributes = {each: value for each, value in vars(error).items() if self._takes(value)}
        payload, schema = self._codec.encode((name, arguments, attributes))
        try:
            self.decode(payload, schema)
        except DecodeError as cause:
            raise UnencodableValueError(name, f"it could not be made again: {cause}") from cause
        return payload, schema

    def decode(self, payload: Payload, schema: int) -> Failure:
        """Return the failure.

        Raises:
            DecodeError: It is damaged, or of a class that this cache was not told of.
        """
        parts = self._codec.decode(payload, schema)
        if type(parts) is not tuple or [type(part) for part in parts] != [str, tuple, dict]:
            raise DecodeError("a remembered error is not class, arguments and attributes")
        name, arguments, attributes = parts
        cls = self._find(name)
        if cls is None:
            raise DecodeError(f"a remembered error is of class {name[:100]!r}, which is not in error_ttl= here")
        make = partial(_make, cls, arguments, attributes)
        try:
            make()
        except Exception as cause:
            raise DecodeError(f"a remembered {name} cannot be made again: {words_of(cause)}") from cause
        return Failure(make)

    def _takes(self, value: Any) -> bool:
        try:
            self._codec.encode(value)
        except UnencodableValueError:
            return False
        return True

    def _find(self, name: str) -> type[Exception] | None:
        """Return the class of a name; ``None`` if there is none, or several."""
        if name not in self._by_name:
            found: dict[str, type[Exception] | None] = {}
            waiting, seen = list(self._listed), set()
            while waiting:
                cls = waiting.pop()
                if cls not in seen:
                    seen.add(cls)
                    found[_name(cls)] = None if _name(cls) in found else cls
                    waiting.extend(type.__subclasses__(cls))
            self._by_name = found
        return self._by_name.get(name)


#: Set in ``__flags__`` of classes that are not the interpreter's own (Py_TPFLAGS_HEAPTYPE).
_HEAP = 1 << 9


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _make(cls: type[Exception], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> Exception:
    """Return an exception as the interpreter's own part of its class makes it."""
    error = _native(cls, "__new__", BuiltinFunctionType)(cls, *arguments)
    if type(error) is not cls:
        raise TypeError(f"it became a {type(error).__qualname__}")
    _native(cls, "__init__", WrapperDescriptorType)(error, *arguments)
    vars(error).update(attributes)
    made: Exception = error
    return made


def _native(cls: type, method: str, kind: type) -> Callable[..., Any]:
    """Return the nearest method of this name that is not written in Python."""
    found: Callable[..., Any] = next(
        vars(base)[method] for base in cls.__mro__ if isinstance(vars(base).get(method), kind)
    )
    return found
