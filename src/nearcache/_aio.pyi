from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from datetime import timedelta
from types import GenericAlias
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, final, overload, type_check_only

from typing_extensions import Self, disjoint_base

_K = TypeVar("_K")
_V = TypeVar("_V")
_D = TypeVar("_D")

@type_check_only
class _Idle(Protocol):
    seconds: float

_Lifetime: TypeAlias = float | _Idle | Callable[[_K, _V], float | _Idle | None] | None
_Tags: TypeAlias = Sequence[str] | Callable[[_K, _V], Iterable[str]]

@final
class Ready(Coroutine[Any, Any, _V]):
    def __new__(cls, value: _V) -> Self: ...
    def __await__(self) -> Generator[Any, Any, _V]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, kind: Any, value: Any = None, trace: Any = None, /) -> Any: ...
    def close(self) -> None: ...

@disjoint_base
class Hits(Generic[_K, _V]):
    def __init__(self, hit: Callable[[_K, Any], Any]) -> None: ...
    def __class_getitem__(cls, item: Any, /) -> GenericAlias: ...
    @overload
    def get(
        self, key: _K, default: None = None, *, max_age: float | timedelta | None = None
    ) -> Coroutine[Any, Any, _V | None]: ...
    @overload
    def get(
        self, key: _K, default: _D, *, max_age: float | timedelta | None = None
    ) -> Coroutine[Any, Any, _V | _D]: ...
    @overload
    def get_or_load(
        self,
        key: _K,
        loader: None = None,
        *,
        ttl: _Lifetime[_K, _V] = ...,
        tags: _Tags[_K, _V] = ...,
        max_age: float | timedelta | None = None,
    ) -> Coroutine[Any, Any, _V]: ...
    @overload
    def get_or_load(
        self,
        key: _K,
        loader: Callable[[_K], Awaitable[_V]],
        *,
        ttl: _Lifetime[_K, _V] = ...,
        tags: _Tags[_K, _V] = ...,
        max_age: float | timedelta | None = None,
    ) -> Coroutine[Any, Any, _V]: ...
    @overload
    def get_or_load(
        self,
        key: _K,
        loader: Callable[[_K], _V],
        *,
        ttl: _Lifetime[_K, _V] = ...,
        tags: _Tags[_K, _V] = ...,
        max_age: float | timedelta | None = None,
    ) -> Coroutine[Any, Any, _V]: ...
