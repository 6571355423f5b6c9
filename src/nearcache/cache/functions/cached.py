"""``cache.cached``: functions whose results are kept in a cache.

A decorated function is an object with the surface of ``functools.lru_cache`` and more. Most calls that hit end in its
compiled part (``_results``). It holds the cache, never an instance: a method's key names the instance
(``calls.Identities``), and what binds a method is made for each access.

``cache_clear`` takes O(1): each function has a generation, which is part of every key, and a clear ends it. In a
cache that other processes share it is an ordinary entry, so that it is as coherent as the others; random, so that one
which was lost never comes back.
"""

from __future__ import annotations

import copy
import functools
import inspect
import threading
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..._results import BoundResults, Results, called_on_instances
from ...absence import Unkept
from ...answers import bare
from ...changes import MISSING
from ...coroutines import ONCE_ONLY, is_coroutine_function, is_generator_function
from ...forks import tell_of_forks
from ..report import CacheInfo
from .calls import defined_in, is_method
from .plan import Plan, new_generation

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..base import Cache


def _doc(bound: BoundResults) -> Any:
    return bound.__func__.__doc__


class Bound(BoundResults):
    """A cached method together with its instance. Made for each access, and held by nobody but the caller."""

    __slots__ = ()
    __doc__ = property(_doc)  # of an instance, the method's

    @property
    def __signature__(self) -> inspect.Signature:
        """Of the method as it is called here, for what would find that of the function by ``__wrapped__``."""
        return inspect.signature(types.MethodType(self.__func__.__wrapped__, self.__self__))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__func__, name)

    # Copied and pickled as bound methods are.
    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.__self__, self.__func__.__name__)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return type(self)(self.__func__, copy.deepcopy(self.__self__, memo))

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`Cached.invalidate`."""
        return self.__func__._invalidate((self.__self__, *args), kwargs, True)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`Cached.refresh`."""
        return self.__func__._refresh((self.__self__, *args), kwargs, True)

    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`Cached.peek`."""
        return self.__func__._peek((self.__self__, *args), kwargs, True)

    def set(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`Cached.set`."""
        return self.__func__._set(value, (self.__self__, *args), kwargs, True)

    def key(self, /, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`Cached.key`."""
        return self.__func__._key((self.__self__, *args), kwargs, True)

    def cache_info(self) -> CacheInfo:
        """See :meth:`Cached.cache_info`."""
        info: CacheInfo = self.__func__.cache_info()
        return info

    def cache_parameters(self) -> dict[str, Any]:
        """See :meth:`Cached.cache_parameters`."""
        parameters: dict[str, Any] = self.__func__.cache_parameters()
        return parameters

    def cache_clear(self) -> Any:
        """See :meth:`Cached.cache_clear`: of all instances."""
        return self.__func__.cache_clear()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bound) and self.__func__ is other.__func__ and self.__self__ is other.__self__

    def __hash__(self) -> int:
        return hash((id(self.__func__), id(self.__self__)))

    def __repr__(self) -> str:
        return f"<bound {self.__func__!r} of {type(self.__self__).__qualname__}>"


class Cached(Results):
    """A function whose results are kept in a cache. Made by :meth:`Cache.cached`.

    Called as a method it names its instance in the key; ``obj.method.invalidate(x)`` and the others know it too.
    """

    _binding = Bound  #: what a method is, together with its instance

    def __init__(self, plan: Plan, function: Callable[..., Any]) -> None:
        generation = None if plan.is_shared else 0
        super().__init__(plan, generation, self._binding)
        functools.update_wrapper(cast("Any", self), function)
        if TYPE_CHECKING:  # annotations of the class would hide those of the function, from Python 3.14 on
            self.__wrapped__: Callable[..., Any]
            self.__name__: str
            self.__qualname__: str
        self._plan = plan
        self._function = function
        self._in_class = is_method(function, plan.arguments)
        self._misses = 0
        self._begin_counting()
        tell_of_forks(self, Cached._begin_counting)

    def __set_name__(self, owner: type, name: str) -> None:
        if defined_in(self._function) == owner.__qualname__:  # else it has got another name there, and is what it was
            self._in_class = True

    def __repr__(self) -> str:
        return f"<cached {self._plan.name}>"

    # Copied and pickled by name, as functions are.
    def __reduce__(self) -> str:
        return self.__qualname__

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    # -- the surface of functools.lru_cache

    def cache_info(self) -> CacheInfo:
        """Return hits and misses of this function in this process, the cache's ``maxsize``, and how many results of
        the function L1 holds. Cost: O(entries of L1), for the last one.
        """
        plan = self._plan
        begin = (plan.name, self._known_generation())
        mine = sum(1 for key in plan.cache if type(key) is tuple and key[:2] == begin)
        return CacheInfo(self._hits, self._misses, plan.cache.settings.maxsize, mine)

    def cache_parameters(self) -> dict[str, Any]:
        """Return what the function was decorated with."""
        plan = self._plan
        return {
            "maxsize": plan.cache.settings.maxsize,
            "typed": plan.typed,
            "ttl": plan.ttl.get("ttl", plan.cache.settings.ttl),
            "tags": plan.tags,
            "version": plan.version,
            "ignore": plan.arguments.ignored,
        }

    def cache_clear(self) -> Any:
        """Forget every result of this function, in every process, and the counts of this one. Cost: one request.

        Raises:
            ShardUnavailableError: It is not known to be done.
        """
        if self._plan.is_shared:
            self._plan.cache.invalidate((self._plan.name,))  # who calls next draws another, and this takes no room
        else:
            self._draw()
        self._forget_counts()

    # -- single results

    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        """Forget the result for these arguments, in every process. Returns whether there was one."""
        return self._invalidate(args, kwargs, self._in_class)

    def refresh(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function now, keep its result and return it. What was kept is forgotten first, in every process."""
        return self._refresh(args, kwargs, self._in_class)

    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the result that this process's memory holds. Calls nothing and moves no recency.

        Raises:
            KeyError: There is none.
        """
        return self._peek(args, kwargs, self._in_class)

    def set(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Keep a value as the result for these arguments."""
        return self._set(value, args, kwargs, self._in_class)

    def key(self, /, *args: Any, **kwargs: Any) -> Any:
        """Return the key under which the cache has the result for these arguments: for ``hold``, ``touch`` or ``get``
        with ``max_age``, or to know it in an event.

        Until the next ``cache_clear``, in whichever process: from then on results have other keys, so ask for it anew.

        Raises:
            ShardUnavailableError: What ``cache_clear`` changes is in L2, and not known here.
        """
        return self._key(args, kwargs, self._in_class)

    # -- generations

    def _current_generation(self) -> Any:
        """Return what changes with every ``cache_clear``."""
        held = self._held_generation(MISSING)
        if held is MISSING:
            held = self._plan.cache._missing_load((self._plan.name,), lambda _key: new_generation(), ttl=None, tags=())
        return held

    def _known_generation(self) -> Any:
        """Return the generation if this process knows it, else ``None``; that is no use of it."""
        return self._plan.cache.peek((self._plan.name,)) if self._plan.is_shared else self._held_generation(None)

    def _draw(self) -> None:
        """Begin another generation, in a cache of this process."""
        self._replace_generation(new_generation())  # no number: two threads at once could bring an old one back

    # -- how; ``is_method``: the first argument is an instance

    def _key(self, args: Any, kwargs: Any, is_method: bool) -> Any:  # of a coroutine function it is awaited
        part = self._checked_part(args, kwargs, is_method)
        return (self._plan.name, self._current_generation(), *part)

    def _checked_part(self, args: Any, kwargs: Any, is_method: bool) -> tuple[Any, ...]:
        return self._plan.checked(self._plan.part(args, kwargs, is_method=is_method))

    def _found(self, key: tuple[Any, ...]) -> Any:
        """Return what L1 holds under a key, or MISSING. Without I/O.

        Raises:
            UnencodableKeyError: It cannot be hashed.
        """
        try:
            return self._find(key, MISSING)
        except TypeError:  # or its __eq__ raised, and then it is an error of the caller's
            self._plan.checked(key[2:])
            raise

    def _call(self, key: tuple[Any, ...] | None, args: Any, kwargs: Any, is_method: bool) -> Any:
        """Return the value for these arguments. ``key``: theirs, which L1 does not hold; ``None``: find it out."""
        if key is None:
            try:
                generation = self._current_generation()
            except ConnectionError:  # nothing that is kept can be told from older
                return bare(self._function(*args, **kwargs))
            key = (self._plan.name, generation, *self._plan.part(args, kwargs, is_method=is_method))
            found = self._found(key)
            if found is not MISSING:
                return found
        self._plan.checked(key[2:])
        return self._read_through(key, args, kwargs)[0]

    def _read_through(self, key: tuple[Any, ...], args: Any, kwargs: Any) -> Any:
        """Return the value, and whether it is this call of ours that has made it."""
        plan, called = self._plan, False

        def load(_key: Any) -> Any:
            nonlocal called
            called = True
            with plan.calling():
                return plan.sifted(self._function(*args, **kwargs))

        try:
            value = plan.cache._missing_load(key, load, tags=plan.tags, **plan.ttl)
        except Unkept as unkept:
            value = unkept.outcome()
        finally:
            self._count(hit=not called)
        return value, called

    def _invalidate(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        return self._plan.cache.invalidate(self._key(args, kwargs, is_method))

    def _refresh(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        key = self._key(args, kwargs, is_method)
        while True:  # a load that was under way before brings something older: then once more
            self._plan.cache.invalidate(key)
            value, is_new = self._read_through(key, args, kwargs)
            if is_new:
                return value

    def _peek(self, args: Any, kwargs: Any, is_method: bool) -> Any:
        part = self._checked_part(args, kwargs, is_method)
        key = (self._plan.name, self._known_generation(), *part)
        found = self._plan.cache.peek(key, MISSING)
        if found is MISSING:
            raise KeyError(key)
        return found

    def _set(self, value: Any, args: Any, kwargs: Any, is_method: bool) -> Any:
        key = self._key(args, kwargs, is_method)
        self._plan.cache._set_unwritten(key, value, tags=self._plan.tags, **self._plan.ttl)

    def _begin_counting(self) -> None:
        self._counting = threading.RLock()

    def _count(self, *, hit: bool) -> None:
        if hit:
            self._count_hit()
            return
        with self._counting:
            self._misses += 1

    def _forget_counts(self) -> None:
        with self._counting:
            self._hits = self._misses = 0


@called_on_instances
class CachedMethod(Cached):
    """A cached function that is a method, as its name and its first parameter say."""


class _ClassMethod(classmethod):  # type: ignore[type-arg]  # of whatever signature
    """Binds all of a cached function to a class. The built-in one, from Python 3.13 on, binds the call alone."""

    def __get__(self, instance: Any, owner: Any = None, /) -> Any:
        return self.__func__.__get__(type(instance) if owner is None else owner)


def decorate(cache: Cache[Any, Any], function: Any, options: dict[str, Any]) -> Any:
    """Return a function, method (bound or not), class method, static method or coroutine function, cached."""
    if isinstance(function, (staticmethod, classmethod)):
        kind: Any = staticmethod if isinstance(function, staticmethod) else _ClassMethod
        return kind(decorate(cache, function.__func__, options))
    if isinstance(function, (types.MethodType, Bound)) and cache.settings.scheme != "memory":
        # Its name is that of all instances' methods: only a key that names the instance tells them apart.
        return decorate(cache, function.__func__, options).__get__(function.__self__)
    if not callable(function):
        raise TypeError(f"cannot decorate {function!r}: the first argument must be callable")
    plan = Plan(cache, function, **options)
    if is_coroutine_function(function):
        from .awaited import CachedCoroutine, CachedCoroutineMethod

        return (CachedCoroutineMethod if is_method(function, plan.arguments) else CachedCoroutine)(plan, function)
    if is_generator_function(function):
        raise TypeError(f"cannot cache {plan.name}: {ONCE_ONLY} a list")
    return (CachedMethod if is_method(function, plan.arguments) else Cached)(plan, function)
