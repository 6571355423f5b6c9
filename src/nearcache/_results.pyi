from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Results:
    _generation: Any
    _in_class: bool
    _hits: int
    def __init__(
        self,
        hit: Callable[[Any, Any], Any],
        name: str,
        generation: Any,
        plain: int,
        identity: Callable[[Any], Any],
        bound: Callable[[Any, Any], Any],
    ) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def __get__(self, instance: Any, owner: Any, /) -> Any: ...
    def _find(self, key: tuple[Any, ...], default: Any) -> Any: ...
    def _held_generation(self, default: Any) -> Any: ...
    def _plain_key(self, args: tuple[Any, ...]) -> tuple[Any, ...] | None: ...

@disjoint_base
class BoundResults:
    __func__: Any
    __self__: Any
    def __init__(self, method: Results, instance: Any) -> None: ...
    def __call__(self, /, *args: Any, **kwargs: Any) -> Any: ...
    def _plain_key(self, args: tuple[Any, ...]) -> tuple[Any, ...] | None: ...
