"""What the verbs make of a value. Each is tried as often as others get in between, so none has an effect of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from .coroutines import ONCE_ONLY, carried, good_again, is_coroutine_function, is_generator_function

#: There is no value. Not ``None``, which is one.
MISSING: Final[Any] = object()

#: What a change answers when nothing is to be stored.
SKIP: Final[Any] = object()

#: So often a change is tried before somebody is told that others are always quicker.
ATTEMPTS: Final = 64


class Change(NamedTuple):
    """What is to become of a value.

    Attributes:
        make: From the value (or MISSING) and its version (or 0) to the new value, or SKIP. May be called repeatedly.
        guess: The version that the value is expected to have: then it is not asked for first.
        keeps: Whether a value that is there passes on its tags and what is left of its lifetime.
    """

    make: Callable[[Any, int], Any]
    guess: int | None = None
    keeps: bool = False


class Swapped(NamedTuple):
    """What came of a change: whether it was stored, the value before (or MISSING) and the new one (or SKIP)."""

    stored: bool
    old: Any
    new: Any


def adding(value: Any) -> Change:
    """Only if there is none."""
    return Change(lambda there, _: value if there is MISSING else SKIP, guess=0)


def replacing(value: Any) -> Change:
    """Only if there is one."""
    return Change(lambda there, _: SKIP if there is MISSING else value)


def setting(value: Any) -> Change:
    """In any case; what was there is of interest."""
    return Change(lambda _there, _: value)


def at_version(value: Any, version: int) -> Change:
    """Only if it is still that one.

    Raises:
        ValueError: There is no such version.
    """
    if not isinstance(version, int) or not 0 <= version < 1 << 64:
        raise ValueError(f"version={version!r}: give what gets() returned with the value; 0 stands for no value")
    return Change(lambda _there, now: value if now == version else SKIP, guess=version)


def computing(function: Callable[[Any], Any], default: Any) -> Change:
    """What a function makes of it, or of the default.

    Raises:
        TypeError: It cannot be called, or is a coroutine or generator function; when it is called: it returns a
            coroutine or a generator.
        RuntimeError: When it is called: it raises StopIteration or GeneratorExit.
    """
    if not callable(function):
        raise TypeError(f"compute(..., {function!r:.80}): give a function of the value")
    if is_coroutine_function(function):
        raise TypeError(f"compute(..., {function!r}): it is a coroutine function, and is called between read and write")
    if is_generator_function(function):
        raise TypeError(f"compute(..., {function!r}): {ONCE_ONLY} a list")

    def compute(there: Any, _: int) -> Any:
        return good_again("the function", carried(function, default if there is MISSING else there))

    return Change(compute)


def counting(delta: int, initial: int) -> Change:
    """A number, by so much more.

    Raises:
        TypeError: ``delta`` or ``initial`` is no int; when it is made: the value is none.
    """
    _require_int("delta", delta)
    _require_int("initial", initial)

    def count(there: Any, _: int) -> int:
        if there is MISSING:
            return initial + delta
        _require_int("the value", there)
        return int(there) + delta

    return Change(count, keeps=True)


def joining(piece: Any, *, in_front: bool) -> Change:
    """Text or bytes with a piece added, if there are any.

    Raises:
        TypeError: The piece is neither; when it is made: the value is of another type.
    """
    if not isinstance(piece, (str, bytes)):
        raise TypeError(f"{type(piece).__name__} cannot be appended: give str or bytes, as the value is")
    kind = str if isinstance(piece, str) else bytes

    def join(there: Any, _: int) -> Any:
        if there is MISSING:
            return SKIP
        if not isinstance(there, kind):
            raise TypeError(f"the value is {type(there).__name__}, and {kind.__name__} cannot be added to it")
        return piece + there if in_front else there + piece  # type: ignore[operator]  # both are of one kind

    return Change(join, keeps=True)


def _require_int(what: str, number: Any) -> None:
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{what} is {type(number).__name__}: only int can be counted")
