from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, final, overload, type_check_only

from typing_extensions import Self

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")
_Rest = ParamSpec("_Rest")

@type_check_only
class _Surface:
    def cache_info(self) -> Any: ...
    def cache_clear(self) -> None: ...
    def cache_parameters(self) -> dict[str, Any]: ...

# What a memo is as a method of an instance: at run time a bound method, whose attributes are the memo's.
@type_check_only
class _BoundMemo(_Surface, Generic[_Rest, _R]):
    __wrapped__: Callable[..., _R]
    def __call__(self, *args: _Rest.args, **kwargs: _Rest.kwargs) -> _R: ...

@final
class Call: ...

@final
class Memo(Generic[_P, _R]):
    __wrapped__: Callable[_P, _R]
    __name__: str
    __qualname__: str
    cache_parameters: Callable[[], dict[str, Any]]
    def __new__(
        cls,
        function: Callable[_P, _R],
        maxsize: int | None,
        typed: bool,
        ttl_ns: int,
        timer: Callable[[], float] | None,
        info: Callable[[int, int, int | None, int], Any],
        refuse: Callable[[Any], Any],
    ) -> Self: ...
    def __call__(self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
    @overload
    def __get__(self, instance: None, owner: Any, /) -> Self: ...
    @overload
    def __get__(
        self: Memo[Concatenate[_T, _Rest], _R], instance: _T, owner: type[_T] | None = ..., /
    ) -> _BoundMemo[_Rest, _R]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = ..., /) -> Self: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: Any) -> Self: ...
    def __sizeof__(self) -> int: ...
    def cache_info(self) -> Any: ...
    def cache_clear(self) -> None: ...
    def check_invariants(self) -> None: ...
