"""What a type checker sees of functions that ``cache.cached`` has decorated: their own signature, and the surface."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, Protocol, TypeVar, overload

from ..report import CacheInfo

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
Rest = ParamSpec("Rest")
R = TypeVar("R")
T = TypeVar("T")


class Observed(Protocol):
    """What does not depend on the function's signature."""

    def cache_info(self) -> CacheInfo:
        """Return hits and misses of the function in this process, the cache's ``maxsize``, and how many results of the
        function L1 holds."""

    def cache_parameters(self) -> dict[str, Any]:
        """Return what the function was decorated with."""


class BoundFunction(Observed, Protocol[P, R]):
    """A cached method of an instance, or of a class."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments, in every process. Returns whether there was one."""

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function now, keep its result and return it."""

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the result that this process's memory holds, or raise KeyError."""

    def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Keep a value as the result for these arguments."""

    def cache_clear(self) -> None:
        """Forget every result of the function, in every process."""


class CachedFunction(BoundFunction[P, R], Protocol[P, R]):
    """A cached function."""

    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    @overload
    def __get__(self, instance: None, owner: Any, /) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[T, Rest], R], instance: T, owner: type[T] | None = None, /
    ) -> BoundFunction[Rest, R]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = None, /) -> Self: ...  # a static method: nothing is bound


class BoundCoroutine(Observed, Protocol[P, R]):
    """A cached coroutine method of an instance, or of a class."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """See :meth:`BoundFunction.invalidate`."""

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See :meth:`BoundFunction.refresh`."""

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """See :meth:`BoundFunction.peek`."""

    async def set(self, value: R, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """See :meth:`BoundFunction.set`."""

    async def cache_clear(self) -> None:
        """See :meth:`BoundFunction.cache_clear`."""


class CachedCoroutine(BoundCoroutine[P, R], Protocol[P, R]):
    """A cached coroutine function."""

    __wrapped__: Callable[P, Coroutine[Any, Any, R]]
    __name__: str
    __qualname__: str

    @overload
    def __get__(self, instance: None, owner: Any, /) -> Self: ...
    @overload
    def __get__(
        self: CachedCoroutine[Concatenate[T, Rest], R], instance: T, owner: type[T] | None = None, /
    ) -> BoundCoroutine[Rest, R]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = None, /) -> Self: ...


class Decorator(Protocol):
    """What ``cache.cached(...)`` returns."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the result is Any: that fits every other one, a coroutine first
        self, function: Callable[P, NoReturn], /
    ) -> CachedFunction[P, Any]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine function is a function too: the first that fits counts
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> CachedCoroutine[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
