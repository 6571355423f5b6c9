"""Exceptions such as users may raise, and all that a log could show of one."""

from __future__ import annotations

import traceback


class WordlessError(Exception):
    """One whose ``str()`` raises, as where it formats what it was never given."""

    def __str__(self) -> str:
        raise AttributeError("detail")


def everything_said(error: BaseException) -> str:
    """Return all that a log could show of an exception: text, repr, attributes, causes."""
    shown = [str(error), repr(error), repr(vars(error))]
    shown += traceback.format_exception_only(type(error), error)
    for linked in (error.__cause__, None if error.__suppress_context__ else error.__context__):
        shown += [everything_said(linked)] if linked is not None else []
    return "\n".join(shown)
