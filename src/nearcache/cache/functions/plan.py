"""What ``cache.cached`` was told about one function, checked, and what follows for its keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ...absence import Unkept
from ...answers import DEFAULT, bare
from ...choices import lifetime
from ...codecs import Own
from ...coroutines import is_coroutine_function
from ...errors import ConfigError, UnencodableKeyError
from ...freshness import freshness_of
from ...keys import encode_key
from ...options import check_tags
from .calls import Arguments, Identities, explained, name_of, too_long

if TYPE_CHECKING:
    from ..base import Cache


#: Behind the arguments in a key: the first is a class, and not the text of its name, which stands for it.
_IS_CLASS: Final = ("class",)


def new_generation() -> Own:
    """Return what no generation was and none will be."""
    return Own(os.urandom(8).hex())


class Plan:
    """What ``cached`` was told about one function, and its keys.

    Attributes:
        is_shared: Whether other processes see the entries.
    """

    def __init__(
        self, cache: Cache[Any, Any], function: Callable[..., Any], key: Any, typed: bool, ttl: Any, tags: Any,
        unless: Any, version: Any, ignore: Any,
    ) -> None:  # fmt: skip
        if cache.settings.key is not None:
            raise ConfigError(
                "key", cache.settings.key, "a cache that was opened with key= has no room for cached's keys"
            )
        self.cache = cache
        self.is_shared = cache.settings.scheme != "memory"
        self.ttl = {} if ttl is DEFAULT else {"ttl": lifetime("ttl", ttl)}
        self.tags = check_tags(tags)
        self.key = _checked_callable("key", key)
        self.unless = _checked_callable("unless", unless)
        self.version = _checked_version(version)
        self.typed = _checked_flag("typed", typed)
        if self.typed and self.key is not None:
            raise ConfigError("typed", typed, "with key= it has no arguments to tell apart; let key= name their types")
        if ignore and self.key is not None:
            raise ConfigError("ignore", ignore, "with key= it has no arguments to leave out; let key= do so")
        self.name = name_of(function, self.version, is_shared=self.is_shared)
        self.arguments = Arguments(function, self.name, ignore)
        self.identities = Identities(self.name, is_shared=self.is_shared)
        self._known = freshness_of(cache.settings)

    @property
    def plain(self) -> int:
        """How many positional arguments are what they add to a key; -1: they have to be arranged (see :meth:`part`)."""
        return -1 if self.key is not None or self.typed else self.arguments.positional

    @property
    def arrange(self) -> Callable[..., tuple[Any, ...]] | None:
        """What arranges arguments that are not plain, the identity of an instance in its place; None: :meth:`part`."""
        is_simple = self.key is None and not self.typed and self.arguments.has_first
        return self.arguments.arrange if is_simple else None

    def part(self, args: tuple[Any, ...], keywords: dict[str, Any], *, is_method: bool) -> tuple[Any, ...]:
        """Return what the arguments add to a key.

        Raises:
            TypeError: The function does not take such arguments.
            UnencodableKeyError: One of them cannot be part of a key.
        """
        if self.key is not None:
            return (self.key(*args, **keywords),)
        if is_method and not args and self.arguments.names and self.arguments.names[0] in keywords:
            keywords = dict(keywords)
            args = (keywords.pop(self.arguments.names[0]),)
        mark: tuple[str, ...] = ()
        if args and self.arguments.has_first and (is_method or isinstance(args[0], type)):
            mark = () if is_method else _IS_CLASS
            args = (self.identities.of(args[0]), *args[1:])
        arranged = self.arguments.arrange(*args, **keywords)
        if self.typed:
            return (*arranged, *mark, self.arguments.type_names(arranged))
        return arranged + mark

    def checked(self, part: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a part that can stand in a key.

        Raises:
            UnencodableKeyError: It cannot; which argument it is, and what helps.
        """
        try:
            if self.is_shared:
                encode_key((self.name, "0123456789abcdef", *part))
            else:
                hash(part)
        except (UnencodableKeyError, TypeError) as error:
            if self.key is not None:
                raise UnencodableKeyError(
                    part[0], f"what key= of {self.name} returned cannot be a key: {error}"
                ) from error
            arranged = part[:-1] if self.typed else part
            raise (
                explained(self.arguments, arranged, is_shared=self.is_shared) or too_long(self.arguments, arranged)
            ) from error
        return part

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Where the function is called. Its KeyError is its own, and no word about the key: it goes past what would
        take it for one.
        """
        try:
            yield
        except KeyError as error:
            if self.cache.settings.negative_ttl is None or not self._known.means_absence(error):
                raise
            raise Unkept(None, error) from None

    def sifted(self, value: Any) -> Any:
        """Return a value that is to be kept.

        Raises:
            Unkept: It is not.
        """
        if self.unless is not None and self.unless(bare(value)):
            raise Unkept(bare(value))
        return value


# -- checks ------------------------------------------------------------------------------------------------------


def _checked_callable(option: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ConfigError(option, value, "give a function, or None")
    if value is not None and is_coroutine_function(value):
        raise ConfigError(option, value, "nobody awaits what it returns; give a function (def)")
    return value


def _checked_flag(option: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(option, value, "give True or False")
    return value


def _checked_version(version: Any) -> str | int | None:
    if version is not None and (isinstance(version, bool) or not isinstance(version, (str, int))):
        raise ConfigError("version", version, "give a str or an int, or None")
    return version
