from collections.abc import Callable
from typing import Any, final

from ._hearing import Ear, Inbox
from ._store import Store

MUCH: int
CHUNKS: int

@final
class Echoes:
    def expect(self, wid: int) -> None: ...

@final
class Watch:
    def __init__(self, store: Callable[[], Store[Any, Any] | None], echoes: Echoes) -> None: ...
    def add(
        self, descriptor: int, inbox: Inbox | None = None, note: Callable[[list[Ear]], object] | None = None
    ) -> None: ...
    def remove(self, descriptor: int) -> None: ...
    def want(self, descriptor: int, is_writing: bool) -> None: ...
    def wait(self, longest_ms: int) -> list[int]: ...
