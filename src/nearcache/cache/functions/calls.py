"""From the call of a function to a key: names, arguments, instances.

An entry's key is a tuple: the function's name, its generation, then the arguments. Arguments are put into the order of
the signature, with defaults filled in, so that ``f(1)``, ``f(1, b=2)`` and ``f(b=2, a=1)`` are one key if 2 is b's
default. What ``**keywords`` collects keeps its order, as a function can see that.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import weakref
from collections.abc import Callable, Collection
from itertools import count
from typing import Any, Final, cast

from ...errors import ConfigError, UnencodableKeyError, words_of
from ...keys import MAX_KEY_BYTES, encode_key

#: Makes the names of functions unique in this process.
_numbers: Final = count(1)
_REMEDY: Final = (
    "; give cached(key=...) a function of the same arguments that returns a str, a number or a tuple of them"
)


# -- names -------------------------------------------------------------------------------------------------------


def name_of(function: Any, version: Any, *, is_shared: bool) -> str:
    """Return what the keys of a function begin with: ``module.qualname``, and ``@version``.

    Args:
        is_shared: Whether other processes see the entries. If not, a number makes the name this function's alone.
    Raises:
        ConfigError: The name would not tell functions apart that are different.
    """
    is_partial = isinstance(function, functools.partial)
    named = function.func if is_partial and not hasattr(function, "__qualname__") else function
    module, qualname = getattr(named, "__module__", None), getattr(named, "__qualname__", None)
    if not is_shared:
        return f"{module or type(function).__module__}.{qualname or type(function).__qualname__}#{next(_numbers)}"
    if not isinstance(module, str) or not isinstance(qualname, str):
        raise ConfigError("cached", function, "it has no __module__ and __qualname__: decorate a function (def)")
    name = f"{importable(module)}.{qualname}" + ("" if version is None else f"@{version}")
    if version is None and (is_partial or "<lambda>" in qualname or _is_closure(function, qualname)):
        raise ConfigError(
            "cached",
            name,
            "a lambda, a partial, a function that uses variables of the one around it, or what another decorator "
            "returns, is not told by its name, so its entries might be mixed up with another one's; define it at the "
            "top of a module, put cached below the other decorator, or give a version= that names it",
        )
    return name


def _is_closure(function: Any, qualname: str) -> bool:
    """Return whether a function uses variables of one around it. A method that says ``super()`` uses its class, which
    its name tells.
    """
    if not getattr(function, "__closure__", None):
        return False
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    return names != ("__class__",) or "<locals>" in qualname


def importable(module: str) -> str:
    """Return the name that a module has for those who import it.

    What is run as a script is called ``__main__``, and ``__mp_main__`` in a process spawned from it: two scripts would
    share their functions' results, and a script none with those who import it. A directory that is run, or an archive,
    has a ``__main__`` as any other has one. Without a file there is no better name.
    """
    if module not in ("__main__", "__mp_main__"):
        return module
    main = sys.modules.get(module)
    spec, path = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None and spec.name != "__main__":
        return cast("str", spec.name)
    name = (None if path is None else inspect.getmodulename(path)) or "__main__"
    if path is not None and name == "__main__":  # of a directory or an archive, as if it were a package
        return f"{os.path.basename(os.path.dirname(os.path.abspath(path)))}.__main__"
    return name


# -- arguments ---------------------------------------------------------------------------------------------------


#: From Python 3.14 on annotations are evaluated when somebody asks for them. Only the parameters are of interest, and a
#: name that is not defined, or not yet, is none of our business.
_UNJUDGED: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    import annotationlib

    _UNJUDGED = {"annotation_format": annotationlib.Format.STRING}


class Arguments:
    """The signature of one function, as something that turns a call into a tuple.

    Args:
        ignored: Names of parameters that nothing in the tuples tells of.
    Attributes:
        names: The parameters, in the order of the tuples.
        ignored: Those that are, in the same order.
        positional: How many there are, if a call may give all of them by their place and none is ignored; else -1.
        has_first: Whether the first one counts.
    Raises:
        ConfigError: A name to be ignored is none of a parameter.
    """

    def __init__(self, function: Callable[..., Any], name: str, ignored: Any = ()) -> None:
        try:
            # Not that of what it wraps: a wrapper may take other arguments.
            signature = inspect.signature(function, follow_wrapped=False, **_UNJUDGED)
        except (TypeError, ValueError):  # some builtins have none
            signature = inspect.signature(_anything)
        self.function_name = name
        self.names = tuple(signature.parameters)
        self._kinds = [parameter.kind for parameter in signature.parameters.values()]
        by_place = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        left_out = _checked_names(ignored, self.names)
        self.ignored = tuple(each for each in self.names if each in left_out)
        self.positional = len(self._kinds) if by_place.issuperset(self._kinds) and not left_out else -1
        self.has_first = left_out.isdisjoint(self.names[:1])
        self.arrange = _arranger(signature, name, left_out)

    def type_names(self, arranged: tuple[Any, ...]) -> tuple[str, ...]:
        """Return the full names of the arguments' types, of each one that ``*`` and ``**`` collect."""
        values: list[Any] = []
        for kind, value in zip(self._kinds, arranged, strict=True):
            if kind is inspect.Parameter.VAR_POSITIONAL:
                values.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                values.extend(item for _, item in value)
            else:
                values.append(value)
        return tuple(f"{importable(type(value).__module__)}.{type(value).__qualname__}" for value in values)

    def culprit(self, arranged: tuple[Any, ...], check: Callable[[Any], object]) -> tuple[str, Any, Exception] | None:
        """Return name and value of the first argument that ``check`` raises for, and what it raised."""
        for name, value in zip(self.names, arranged, strict=False):
            try:
                check(value)
            except Exception as error:  # noqa: BLE001  whatever it is, it is returned
                return name, value, error
        return None


def defined_in(function: Any) -> str:
    """Return the qualified name of the class that a function is defined in; '' if it is in none."""
    outer = getattr(function, "__qualname__", "").rpartition(".")[0]
    return "" if outer.endswith("<locals>") else outer


def is_method(function: Any, arguments: Arguments) -> bool:
    """Whether its first argument is an instance, whoever calls it: a property does not say that it is one."""
    return bool(defined_in(function)) and arguments.names[:1] == ("self",)


def _anything(*args: Any, **keywords: Any) -> None:
    """Has the signature of what has none."""


def _checked_names(ignored: Any, names: tuple[str, ...]) -> frozenset[str]:
    if isinstance(ignored, str) or not isinstance(ignored, Collection) or any(name not in names for name in ignored):
        raise ConfigError("ignore", ignored, f"give a list of parameters, which are ({', '.join(names)})")
    return frozenset(ignored)


def _arranger(signature: inspect.Signature, name: str, left_out: frozenset[str]) -> Callable[..., tuple[Any, ...]]:
    """Compile a function of the same parameters that returns them in order: the interpreter binds faster than
    ``Signature.bind``, and says of a wrong call what it says of any. In the place of what is left out stands ()."""
    scope: dict[str, Any] = {}
    heads, parts = [], []
    for at, parameter in enumerate(signature.parameters.values()):
        own = parameter.name
        if parameter.default is not parameter.empty:
            scope[f"_default{at}_"] = parameter.default
        heads.append((parameter.kind, own, f"=_default{at}_" if parameter.default is not parameter.empty else ""))
        part = f"(*{own}.items(),)" if parameter.kind is parameter.VAR_KEYWORD else own
        parts.append("()" if own in left_out else part)
    source = f"lambda {_parameters(heads)}: ({''.join(f'{part}, ' for part in parts)})"
    made: Any = eval(compile(source, "<arguments>", "eval"), scope)  # noqa: S307  names of parameters are identifiers
    made.__name__ = made.__qualname__ = name.rpartition(".")[2].partition("#")[0]  # in errors about the arguments
    return cast("Callable[..., tuple[Any, ...]]", made)


def _parameters(heads: list[tuple[Any, str, str]]) -> str:
    texts: list[str] = []
    kinds = inspect.Parameter
    previous: Any = None
    for kind, name, default in heads:
        if previous is kinds.POSITIONAL_ONLY and kind is not kinds.POSITIONAL_ONLY:
            texts.append("/")
        if kind is kinds.KEYWORD_ONLY and previous not in (kinds.KEYWORD_ONLY, kinds.VAR_POSITIONAL):
            texts.append("*")
        stars = "*" if kind is kinds.VAR_POSITIONAL else "**" if kind is kinds.VAR_KEYWORD else ""
        texts.append(f"{stars}{name}{default}")
        previous = kind
    if previous is kinds.POSITIONAL_ONLY:
        texts.append("/")
    return ", ".join(texts)


# -- what a method is called on ------------------------------------------------------------------------------------


class Known:
    """What is known of objects, by identity, as long as they live. Holds none of them.

    Attributes:
        entries: By address: a weak reference to the object, and what is known.
    """

    def __init__(self) -> None:
        self.entries: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, thing: Any) -> Any:
        """Return what is known of an object, or None."""
        entry = self.entries.get(id(thing))
        return entry[1] if entry is not None and entry[0]() is thing else None

    def add(self, thing: Any, what: Any) -> Any:
        """Note something of an object, and return it; of two threads that do, both get the same.

        Raises:
            TypeError: It cannot be referred to weakly.
        """
        place, entries = id(thing), self.entries

        def forget(gone: weakref.ref[Any]) -> None:
            entry = entries.get(place)
            if entry is not None and entry[0] is gone:
                del entries[place]

        fresh = (weakref.ref(thing, forget), what)
        while True:  # of two threads that come here with one object, the first to have stored decides
            stored = entries.setdefault(place, fresh)
            if stored[0]() is thing:
                return stored[1]
            forget(stored[0])


class Instances(Known):
    """Numbers for instances, which no other has or will have."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = count(1)

    def number(self, instance: Any) -> int:
        """Return the instance's number.

        Raises:
            TypeError: It cannot be referred to weakly.
        """
        known = self.get(instance)
        return cast("int", self.add(instance, next(self._numbers)) if known is None else known)


class Identities:
    """What stands in a key for the instance, or the class, that a method is called on.

    Args:
        is_shared: Whether other processes see the key: then it has to mean the same there.
    Attributes:
        named: What stands for instances that have a number, and for classes.
        classes: The names of classes whose instances say by ``__cache_key__()`` what stands behind that.
    """

    def __init__(self, name: str, *, is_shared: bool) -> None:
        self._name = name
        self._is_shared = is_shared
        self.named = Instances()
        self.classes = Known()

    def of(self, target: Any) -> Any:
        """Return the target's part of the key: of a class its name; of an instance its ``__cache_key__()``, or in a
        cache of this process a number that goes with it.

        Raises:
            UnencodableKeyError: It has no identity that could be used.
        """
        known = self.named.get(target)
        if known is not None:
            return known
        if isinstance(target, type):
            return self.named.add(target, self._of_class(target)) if self._is_shared else target
        kind = type(target)
        own = getattr(kind, "__cache_key__", None)
        if own is not None:
            try:
                return self.classes.add(kind, f"{importable(kind.__module__)}.{kind.__qualname__}"), own(target)
            except TypeError:
                if callable(own):
                    raise
                what = f"{self._name} is called on an instance, and __cache_key__ of its class is {own!r}"
                raise UnencodableKeyError(target, f"{what}; make it a method, def __cache_key__(self)") from None
        if self._is_shared:
            raise UnencodableKeyError(
                target,
                f"{self._name} is called on an instance, which is another object in every process; give its class "
                f"a method __cache_key__() that returns what identifies it{_REMEDY}",
            )
        try:
            return self.named.number(target)
        except TypeError as error:
            raise UnencodableKeyError(
                target,
                f"{self._name} is called on an instance that cannot be referred to weakly; add '__weakref__' to its "
                f"__slots__, or a method __cache_key__(){_REMEDY}",
            ) from error

    def _of_class(self, cls: type) -> str:
        if "<locals>" in cls.__qualname__:
            raise UnencodableKeyError(
                cls, f"{self._name} is called with a class made in a function, which has no name of its own{_REMEDY}"
            )
        return f"{importable(cls.__module__)}.{cls.__qualname__}"


# -- errors ------------------------------------------------------------------------------------------------------


def explained(arguments: Arguments, arranged: tuple[Any, ...], *, is_shared: bool) -> UnencodableKeyError | None:
    """Return an error that names the argument which cannot be part of a key; ``None`` if all of them can."""
    check: Callable[[Any], object] = encode_key if is_shared else hash
    found = arguments.culprit(arranged, check)
    if found is not None:
        name, value, error = found
        reason = error.remedy if isinstance(error, UnencodableKeyError) else words_of(error)
        return UnencodableKeyError(
            value, f"argument {name!r} of {arguments.function_name} cannot be part of a key ({reason}){_REMEDY}"
        )
    return None


def too_long(arguments: Arguments, arranged: tuple[Any, ...]) -> UnencodableKeyError:
    """Return the error for arguments that are fine, but too much together; it names the longest."""
    sizes = {name: len(encode_key(value)) for name, value in zip(arguments.names, arranged, strict=False)}
    name = max(sizes, key=sizes.__getitem__, default="key")
    return UnencodableKeyError(
        arranged,
        f"the arguments of {arguments.function_name} are over {MAX_KEY_BYTES:,} bytes together, most of them "
        f"{name!r}{_REMEDY}",
    )
