"""Who is told, in the child of a fork, that no other thread of the parent's is here to be waited for."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from .logs import log

#: Whom, by ``id``, and what to call with him. They hash by no value, so a WeakSet cannot hold them.
_told: Final[dict[int, tuple[weakref.ref[Any], Callable[[Any], object]]]] = {}
_watched = False


def tell_of_forks(one: Any, call: Callable[[Any], object]) -> None:
    """Have it called with this object in every child, as long as the object lives."""
    global _watched
    of = id(one)
    forget = _told.pop  # at interpreter exit the module may have lost its names
    _told[of] = (weakref.ref(one, lambda _gone: forget(of, None)), call)
    if not _watched:  # at the first: importing has no side effects
        _watched = True
        os.register_at_fork(after_in_child=_after_fork)


def tell_no_more(of: int) -> None:
    """The object with this ``id`` need not be told any more."""
    _told.pop(of, None)


def tell(call: Callable[[], object]) -> None:
    """Call something in the child, and log what it raises: the others have still to be told.

    Who is not would go on with the parent's sockets. And nobody could catch it: the interpreter prints it and goes on.
    """
    try:
        call()
    except BaseException as error:  # noqa: BLE001  whatever it is, see above
        log(logging.ERROR, "a part of a cache could not begin anew in a forked child", error=error)


def _after_fork() -> None:
    for reference, call in list(_told.values()):
        one = reference()
        if one is not None:
            tell(partial(call, one))
