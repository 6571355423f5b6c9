"""What a loader may answer, beside a value: a value with terms of its own, or that the old one is still right.

::

    @nearcache.conditional
    def load(key, old):
        answer = requests.get(url(key), headers={"If-None-Match": old.validator} if old else {})
        if answer.status_code == 304:
            return nearcache.UNCHANGED
        return nearcache.Loaded(answer.json(), validator=answer.headers["ETag"])
"""

from __future__ import annotations

import functools
import types
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar, cast, overload

from .absence import ABSENT, Absent
from .choices import Idle, Seconds, ttl_seconds
from .coroutines import ONCE_ONLY, good_again, is_coroutine_function, is_generator_function
from .errors import ConfigError
from .options import Settings, check_tags

#: What a loader returns instead of a generator.
_INSTEAD: Final = {"loader": "a list", "load_many": "a mapping"}
S = TypeVar("S")
K = TypeVar("K")
V = TypeVar("V")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as TypeVarWithDefault

    Shown = TypeVarWithDefault("Shown", default=Any)  # ``Old`` alone is ``Old[Any]``
else:
    Shown = TypeVar("Shown")

#: Longest validator, in bytes of UTF-8.
MOST_VALIDATOR_BYTES: Final = 255


class _NotGiven:
    """The type of :data:`DEFAULT`, of which there is one object. Signatures show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "<not given>"

    def __reduce__(self) -> str:
        return "DEFAULT"


#: "Not given", where None means something.
DEFAULT: Final[Any] = _NotGiven()
_MARK: Final = "_nearcache_conditional"


@dataclass(frozen=True, slots=True)
class Loaded(Generic[V]):
    """A loaded value with terms of its own.

    Attributes:
        value: The value. It alone is kept, and given to who asks.
        ttl: Lifetime in seconds, or :class:`Idle`; ``None``: no expiry; default: that of the call, or of the cache.
        tags: What :meth:`Cache.invalidate_tag` invalidates the value by, beside the tags of the call or of the cache.
        validator: Tells this state of the value from others: an ETag, a date, a version; at most 255 bytes. The next
            load is given it, if the loader is :func:`conditional`. It is stored in the clear.
    """

    value: V
    ttl: Seconds | Idle | None = DEFAULT
    tags: Sequence[str] = ()
    validator: str | None = None

    def __post_init__(self) -> None:
        if self.ttl is not DEFAULT and not isinstance(self.ttl, Idle):
            ttl_seconds("ttl", self.ttl)
        object.__setattr__(self, "tags", check_tags(self.tags))
        if self.validator is not None and not _is_validator(self.validator):
            remedy = f"give a text of 1 to {MOST_VALIDATOR_BYTES} bytes in UTF-8, or None"
            raise ConfigError("validator", self.validator, remedy)


class Unchanged:
    """The type of :data:`UNCHANGED`, of which there is one object."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "nearcache.UNCHANGED"

    def __reduce__(self) -> str:
        return "UNCHANGED"


#: The old value is still right: it lives once more, for as long as it was to live at first. Nothing is sent.
UNCHANGED: Final = Unchanged()


@dataclass(frozen=True, slots=True)
class Old(Generic[Shown]):
    """What a :func:`conditional` loader is given of the value that is there.

    Attributes:
        value: The value: treat it as read-only.
        validator: As it was given with :class:`Loaded`; ``None``: none was.
    """

    value: Shown
    validator: str | None


#: What a loader may return.
Answer: TypeAlias = V | Loaded[V] | Absent
#: What a conditional one may return.
ConditionalAnswer: TypeAlias = V | Loaded[V] | Absent | Unchanged


@overload
def conditional(
    function: Callable[[K, Old[V] | None], Awaitable[ConditionalAnswer[V]]], /
) -> Callable[[K], Awaitable[V]]: ...
@overload
def conditional(function: Callable[[K, Old[V] | None], ConditionalAnswer[V]], /) -> Callable[[K], V]: ...
@overload
def conditional(
    function: Callable[[S, K, Old[V] | None], Awaitable[ConditionalAnswer[V]]], /
) -> Callable[[S, K], Awaitable[V]]: ...
@overload
def conditional(function: Callable[[S, K, Old[V] | None], ConditionalAnswer[V]], /) -> Callable[[S, K], V]: ...
def conditional(function: Callable[..., Any], /) -> Callable[..., Any]:
    """Return a loader that is also given what is there, so that it may find it unchanged.

    Args:
        function: Called with the key, and with :class:`Old`, or ``None`` where there is nothing. It may return
            :data:`UNCHANGED` if it was given something. A coroutine function stays one, and a method (of an instance,
            a class, or static) too. Other decorators belong below this one: one above it is called with the key alone,
            so that nothing is shown through it.
    Cost: one more round trip before each load that replaces a value.
    """
    if isinstance(function, (staticmethod, classmethod)):
        kind: Any = type(function)
        return cast("Callable[..., Any]", kind(conditional(function.__func__)))
    if is_coroutine_function(function):

        @functools.wraps(function)
        async def load_later(*key: Any) -> Any:  # of a method the instance comes first
            return await function(*key, None)

        setattr(load_later, _MARK, function)
        return load_later

    @functools.wraps(function)
    def load(*key: Any) -> Any:
        return function(*key, None)

    setattr(load, _MARK, function)
    return load


def is_conditional(loader: Callable[..., Any]) -> bool:
    """Whether a loader wants to be given the old value."""
    return _of_two(loader) is not None


def given(loader: Callable[[Any], Any], old: Old | None) -> Callable[[Any], Any]:
    """Return a loader that has been given the old value."""
    function = _of_two(loader)
    return loader if function is None else _Given(function, old)


def _of_two(loader: Callable[..., Any]) -> Any:
    """Return the function of key and old value that a conditional loader is made of; None: it is no such loader.

    A mark alone says nothing: a decorator copies it to what it makes of such a loader, and a mock has every attribute
    that it is asked for. Only a conditional loader itself wraps the very function that its mark names.
    """
    function = getattr(loader, _MARK, DEFAULT)
    if getattr(loader, "__wrapped__", loader) is not function:
        return None
    return types.MethodType(function, loader.__self__) if isinstance(loader, types.MethodType) else function


class _Given:
    """A conditional loader together with the old value."""

    def __init__(self, function: Callable[[Any, Old | None], Any], old: Old | None) -> None:
        self._function = function
        self._old = old

    def __call__(self, key: Any) -> Any:
        return self._function(key, self._old)


def require_loader(argument: str, loader: object) -> None:
    """Raise TypeError for what was given as a loader and can be none. Before anything is asked of a server."""
    if not callable(loader):
        calls = "a list of keys, and returns a mapping" if argument == "load_many" else "the key, and returns the value"
        raise TypeError(f"{argument}={loader!r:.80} cannot be called: give a function that takes {calls}")
    if is_generator_function(loader):
        raise TypeError(f"{argument}={loader!r:.80}: {ONCE_ONLY} {_INSTEAD[argument]}")


def is_coroutine_loader(loader: Callable[..., Any]) -> bool:
    """Whether only an event loop can call a loader."""
    return is_coroutine_function(loader._function if isinstance(loader, _Given) else loader)


def opened(answer: Any) -> Loaded[Any]:
    """Return a loader's answer with its terms."""
    if isinstance(answer, Loaded):
        return answer
    if isinstance(answer, Unchanged):
        raise TypeError(
            "the loader answered UNCHANGED without having been given an old value: decorate it with "
            "nearcache.conditional, and return a value where old is None"
        )
    return Loaded(good_again("the loader", answer))


def bare(answer: Any) -> Any:
    """Return the value in a loader's answer."""
    return answer.value if isinstance(answer, Loaded) else answer


def mapped(
    loader: Callable[[Any], Any], outward: Callable[[Any], Any], inward: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """Return a loader whose values pass through functions.

    Args:
        outward: From the value that the loader returned to the one that is kept.
        inward: From the one that is kept to the one that a conditional loader is given.
    """

    def passed(answer: Any) -> Any:
        return _passed(answer, outward)

    function = _of_two(loader)
    if function is None:
        return lambda key: passed(loader(key))

    @conditional
    def load(key: Any, old: Old | None) -> Any:
        return passed(function(key, None if old is None else Old(inward(old.value), old.validator)))

    return cast("Callable[[Any], Any]", load)


def mapped_many(load_many: Callable[[list[Any]], Any], outward: Callable[[Any], Any]) -> Callable[[list[Any]], Any]:
    """Return a bulk loader whose values pass through a function."""

    def load(keys: list[Any]) -> Any:
        answers = load_many(keys)
        if not isinstance(answers, Mapping):  # it is found out later
            return answers
        return {key: _passed(answer, outward) for key, answer in answers.items()}

    return load


def _passed(answer: Any, outward: Callable[[Any], Any]) -> Any:
    if isinstance(answer, (Absent, Unchanged)):
        return answer
    if isinstance(answer, Loaded):
        return Loaded(outward(answer.value), answer.ttl, answer.tags, answer.validator)
    return outward(answer)


def for_key(loader: Callable[[Any], Any], key: Any) -> Callable[[Any], Any]:
    """Return a loader that is called with this key, whatever it is asked for.

    A conditional one stays one, and one that only an event loop can call stays one.

    Raises:
        TypeError: It cannot be called.
    """
    require_loader("loader", loader)
    function = _of_two(loader)
    if function is not None:
        if not is_coroutine_function(function):
            return cast("Callable[[Any], Any]", conditional(lambda _, old: function(key, old)))

        async def load_given(_: Any, old: Old | None) -> Any:
            return await function(key, old)

        return cast("Callable[[Any], Any]", conditional(load_given))
    if not is_coroutine_loader(loader):
        return lambda _: loader(key)

    async def load(_: Any) -> Any:
        return await loader(key)

    return load


class Single:
    """A bulk loader as a loader of one key."""

    def __init__(self, load_many: Callable[[list[Any]], Any]) -> None:
        self._load_many = load_many

    def __repr__(self) -> str:
        return f"load_many={self._load_many!r}"

    def __call__(self, key: Any) -> Any:
        return self._answer(self._load_many([key]), key)

    def _answer(self, answers: Any, key: Any) -> Any:
        return checked_answers(self._load_many, answers).get(key, ABSENT)


class AsyncSingle(Single):
    """The same of a coroutine function."""

    async def __call__(self, key: Any) -> Any:
        return self._answer(await self._load_many([key]), key)


def single(load_many: Callable[[list[Any]], Any]) -> Single:
    """Return a bulk loader as a loader of one key, of the same kind."""
    return (AsyncSingle if is_coroutine_loader(load_many) else Single)(load_many)


def with_single(settings: Settings) -> Settings:
    """Return settings in which a bulk loader does for single keys too, if there is no other.

    Raises:
        ConfigError: A loader is a generator function.
    """
    for option, instead in _INSTEAD.items():
        loader = getattr(settings, option)
        if loader is not None and is_generator_function(loader):
            raise ConfigError(option, loader, f"{ONCE_ONLY} {instead}")
    if settings.loader is not None or settings.load_many is None:
        return settings
    return replace(settings, loader=single(settings.load_many))


def checked_answers(load_many: Any, answers: Any) -> Mapping[Any, Any]:
    """Return what a bulk loader returned, if that is a mapping. Raises TypeError."""
    if not isinstance(answers, Mapping):
        kind = type(answers).__qualname__
        raise TypeError(f"load_many={load_many!r} returned a {kind}: let it return a mapping from keys")
    return answers


def _is_validator(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        return 0 < len(value.encode()) <= MOST_VALIDATOR_BYTES
    except UnicodeEncodeError:
        return False
