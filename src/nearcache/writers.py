"""What stands behind a cache and is written to: the user's functions, whatever form they were given in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .errors import ConfigError


@dataclass(frozen=True)  # without slots, which leave no room for weak references in Python 3.10
class Writer:
    """Functions that change the data behind a cache, for ``writer=``. All of them may be called again with the same.

    Attributes:
        write: Called with a key and its new value.
        write_many: Called with a mapping of keys to new values, in place of ``write`` for each.
        delete: Called with a key that is to go.
        delete_many: Called with a list of such keys, in place of ``delete`` for each.
    Raises:
        ConfigError: Neither ``write`` nor ``write_many`` is given, or one of them cannot be called.
    """

    write: Callable[[Any, Any], object] | None = None
    write_many: Callable[[Mapping[Any, Any]], object] | None = None
    delete: Callable[[Any], object] | None = None
    delete_many: Callable[[Sequence[Any]], object] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            function = getattr(self, field.name)
            if function is not None and not callable(function):
                raise ConfigError(f"writer.{field.name}", function, "give a function, or None")
        if self.write is None and self.write_many is None:
            raise ConfigError("writer", self, "give it write or write_many")

    @property
    def deletes(self) -> bool:
        """Whether it can delete."""
        return self.delete is not None or self.delete_many is not None

    def require_deletes(self) -> None:
        """Check that it can delete.

        Raises:
            TypeError: It cannot.
        """
        if not self.deletes:
            raise TypeError(
                "the writer cannot delete: give it a method delete(key), as in writer=nearcache.Writer(write=..., "
                "delete=...), or call invalidate(key), which drops copies and leaves the data alone"
            )


def writer_of(option: str, given: Any) -> Writer | None:
    """Return the writer that a function, or an object with methods named as those of :class:`Writer`, stands for.

    Raises:
        ConfigError: It is neither.
    """
    if given is None or isinstance(given, Writer):
        return given
    if not isinstance(given, type):
        # Not found by asking: a mock has every attribute that it is asked for, and lists it from then on.
        is_function = callable(given) and {"write", "write_many"}.isdisjoint(dir(given))
        methods = {} if is_function else {field.name: getattr(given, field.name, None) for field in fields(Writer)}
        if methods.get("write") is not None or methods.get("write_many") is not None:
            return Writer(**methods)
        if callable(given):
            return Writer(write=given)
    raise ConfigError(
        option, given, "give a function of key and value, or an object with a method write(key, value) or "
        "write_many(mapping), and delete(key) or delete_many(keys) if it can",
    )  # fmt: skip
