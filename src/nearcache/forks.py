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
#: The process whose objects they are; 0 before the first of them: importing has no side effects.
_pid = 0
#: The child in which they were told before the hook's turn came.
_early = 0


def tell_of_forks(one: Any, call: Callable[[Any], object]) -> None:
    """Have it called with this object in every child, as long as the object lives."""
    global _pid
    if _pid:
        notice()  # what is made in the child is not to begin anew there
    else:
        _pid = os.getpid()
        os.register_at_fork(after_in_child=_after_fork)
    of = id(one)
    forget = _told.pop  # at interpreter exit the module may have lost its names
    _told[of] = (weakref.ref(one, lambda _gone: forget(of, None)), call)


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


def notice() -> None:
    """Tell them now, if this is a child and they have not been told.

    Hooks that the program registered before the first cache was opened run before the one here, and code in C may fork
    without any hooks. So whatever is about to use more than L1 calls this.
    """
    global _early
    if os.getpid() != _pid:
        _tell_all()
        _early = _pid


def _after_fork() -> None:
    global _early
    if _early != os.getpid():
        _tell_all()
    _early = 0  # a child may have its parent's number, in a namespace of its own


def _tell_all() -> None:
    global _pid
    _pid = os.getpid()
    for reference, call in list(_told.values()):
        one = reference()
        if one is not None:
            tell(partial(call, one))
