"""How a cache of one process keeps its lock from ``on_removal``, which is the user's."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from threading import get_ident
from typing import Any

from ..._listeners import tell_listener
from ...options import RemovalCause


class Removals:
    """What is called in place of ``on_removal``: it is told later of what goes while this thread has the cache's lock.

    It may take a lock of the program, and another thread may have that while it waits for the cache's. So whoever takes
    the cache's lock does so in this context, which calls ``on_removal`` when the lock has been let go.

    Args:
        on_removal: What the user gave.
    """

    def __init__(self, on_removal: Callable[[Any, Any, RemovalCause], object]) -> None:
        self._on_removal = on_removal
        self.begin(threading.RLock())

    def begin(self, lock: threading.RLock) -> None:
        """Nothing is left to tell, and this is the cache's lock."""
        self._has_lock: Callable[[], bool] = lock._is_owned  # type: ignore[attr-defined]  # as threading.Condition asks
        self._left: dict[int, deque[tuple[Any, Any, RemovalCause]]] = {}  # by thread

    def __call__(self, key: Any, value: Any, cause: RemovalCause) -> None:
        """Tell of it, now or later."""
        if self._has_lock():
            self._left.setdefault(get_ident(), deque()).append((key, value, cause))
        else:
            self._on_removal(key, value, cause)

    def __enter__(self) -> None:
        """Nothing: the lock alone says when to tell, so that no interruption can upset it."""

    def __exit__(self, *_: object) -> None:
        if get_ident() in self._left and not self._has_lock():
            self._tell_the_rest()

    def _tell_the_rest(self) -> None:
        mine = get_ident()
        left = self._left[mine]
        while left:  # what is told may use the cache, and tell what comes of that
            tell_listener(self._on_removal, *left.popleft())
        self._left.pop(mine, None)
