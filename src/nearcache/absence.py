"""The answer of a loader that there is no value, which is not ``None``: that is one."""

from __future__ import annotations

from typing import Final


class Absent:
    """The type of :data:`ABSENT`, of which there is one object."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "nearcache.ABSENT"

    def __reduce__(self) -> str:
        return "ABSENT"


#: There is no value. A loader may return it instead of raising KeyError.
ABSENT: Final = Absent()
