"""Exceptions such as users may raise."""

from __future__ import annotations


class WordlessError(Exception):
    """One whose ``str()`` raises, as where it formats what it was never given."""

    def __str__(self) -> str:
        raise AttributeError("detail")
