"""The answer of a loader that there is no value, which is not ``None``: that is one. What is kept of it, or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final


class Absent:
    """The type of :data:`ABSENT`. Whatever stands in the place of a value without being one is of this type."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "nearcache.ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


#: There is no value. A loader may return it instead of raising KeyError.
ABSENT: Final = Absent()


class Failure(Absent):
    """There is no value, because the loader raised something that is remembered.

    Args:
        make: Makes the error anew: what is raised twice would grow a traceback of both.
        original: The error itself, in the process whose loader raised it.

    Attributes:
        trace: The traceback that the original has when it is raised: its own, and not of all who raised it before.
    """

    __slots__ = ("_make", "_original", "trace")

    def __init__(self, make: Callable[[], Exception], original: Exception | None = None) -> None:
        self._make = make
        self._original = original
        self.trace = None if original is None else original.__traceback__

    def __repr__(self) -> str:
        return f"<remembered {self.error()!r}>"

    def error(self) -> Exception:
        """Return what is to be raised."""
        return self._make() if self._original is None else self._original

    def remembered(self) -> Failure:
        """Return the same without the original."""
        return Failure(self._make)


class Noted(Absent):
    """What L1 holds of a key that has no value. No hit finds it: it lies there as a suspect.

    Attributes:
        answer: What is remembered.
        lane, stamp: It is to be believed while the lane is vouched for and has this stamp.
    """

    __slots__ = ("answer", "lane", "stamp")

    def __init__(self, answer: Failure, lane: int, stamp: int) -> None:
        self.answer = answer
        self.lane = lane
        self.stamp = stamp


class Unkept(BaseException):
    """Carries what is not to be kept past the loading, which has to end without a value.

    Args:
        value: A result that ``unless`` turned away.
        error: What the function raised, instead.
    """

    def __init__(self, value: Any, error: KeyError | None = None) -> None:
        super().__init__()
        self._value = value
        self._error = error

    def __repr__(self) -> str:  # the log has nothing else of a value that was to be made anew in the background
        return "unless= has turned the result away" if self._error is None else repr(self._error)

    def outcome(self) -> Any:
        """Return or raise what became of the call."""
        if self._error is not None:
            raise self._error from None
        return self._value


def raise_absent(key: Any, answer: Absent) -> None:
    """Raise what an answer without a value means: what was remembered, or KeyError."""
    if isinstance(answer, Failure):
        raise answer.error().with_traceback(answer.trace)
    raise KeyError(key)
