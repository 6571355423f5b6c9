from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from typing_extensions import disjoint_base

from ._store import Op

__pyx_capi__: Final[dict[str, object]]
ABANDONED: Final[object]

@disjoint_base
class Read(Op):
    since_ns: int
    due: int
    def __init__(self, key: Any, lane: int, since_ns: int = 0) -> None: ...
    @property
    def outcome(self) -> Any: ...
    def resolve(self, outcome: object, lock: AbstractContextManager[Any]) -> None: ...
    def wait(self, lock: AbstractContextManager[Any], timeout_s: float) -> Any: ...
    def add_done_callback(self, callback: Callable[[], object], lock: AbstractContextManager[Any]) -> None: ...
    def remove_done_callback(self, callback: Callable[[], object], lock: AbstractContextManager[Any]) -> None: ...

def gather(gets: Callable[[], Any], more: object, values: list[Any], count: int) -> bool: ...
