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
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
V = TypeVar("V")


class BoundFunction(Protocol[P, R_co]):
    """A cached method of an instance, or of a class.

    ``R_co`` is what a call returns: of a coroutine function the coroutine. What of the surface is to be awaited then
    hangs on it, and not on which decorator fits: mypy takes a function that is generic in its result, ``(x: T) -> T``,
    for one that returns whatever the first decorator asks for. A result that is Any fits everything, a coroutine too,
    so it is looked for first.
    """

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    @overload
    def invalidate(  # type: ignore[overload-overlap]  # the result is Any: that fits the next as well
        self: BoundFunction[P, NoReturn], /, *args: P.args, **kwargs: P.kwargs
    ) -> bool: ...
    @overload
    def invalidate(  # type: ignore[overload-overlap]  # a coroutine is a result too: the first that fits counts
        self: BoundFunction[P, Coroutine[Any, Any, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, bool]: ...
    @overload
    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments, in every process. Returns whether there was one."""

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call the function now, keep its result and return it."""

    @overload
    def peek(self: BoundFunction[P, NoReturn], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def peek(self: BoundFunction[P, Coroutine[Any, Any, V]], /, *args: P.args, **kwargs: P.kwargs) -> V: ...
    @overload
    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result that this process's memory holds, or raise KeyError."""

    @overload
    def set(  # type: ignore[overload-overlap]  # as for invalidate
        self: BoundFunction[P, NoReturn], value: Any, /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...
    @overload
    def set(  # type: ignore[overload-overlap]  # as for invalidate
        self: BoundFunction[P, Coroutine[Any, Any, V]], value: V, /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, None]: ...
    @overload
    def set(self: BoundFunction[P, V], value: V, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Keep a value as the result for these arguments."""

    @overload
    def key(  # type: ignore[overload-overlap]  # as for invalidate
        self: BoundFunction[P, NoReturn], /, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[Any, ...]: ...
    @overload
    def key(  # type: ignore[overload-overlap]  # as for invalidate
        self: BoundFunction[P, Coroutine[Any, Any, Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, tuple[Any, ...]]: ...
    @overload
    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> tuple[Any, ...]:
        """Return the key under which the cache has the result for these arguments, until the next ``cache_clear``."""

    @overload
    def cache_clear(self: BoundFunction[P, NoReturn]) -> None: ...  # type: ignore[overload-overlap]  # as for invalidate
    @overload
    def cache_clear(  # type: ignore[overload-overlap]  # as for invalidate
        self: BoundFunction[P, Coroutine[Any, Any, Any]],
    ) -> Coroutine[Any, Any, None]: ...
    @overload
    def cache_clear(self) -> None:
        """Forget every result of the function, in every process."""

    def cache_info(self) -> CacheInfo:
        """Return hits and misses of the function in this process, the cache's ``maxsize``, and how many results of the
        function L1 holds."""

    def cache_parameters(self) -> dict[str, Any]:
        """Return what the function was decorated with."""


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


class Decorator(Protocol):
    """What ``cache.cached(...)`` returns."""

    def __call__(self, function: Callable[P, R], /) -> CachedFunction[P, R]: ...
