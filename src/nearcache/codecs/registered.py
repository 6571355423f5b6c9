"""Classes of the user that the ``safe`` codec writes and reads.

An object is taken apart as pickle does it (``__reduce_ex__(4)``) and put together as pickle does it, with
these differences: the class is one that was registered, found by its name in a table and never imported; what
the payload can make it do is what the class itself does when it is unpickled, and nothing more. Arguments
reach ``__new__`` only if the class has ``__getnewargs__``; the class is called only if it has a
``__reduce__`` of its own; state goes to ``__setstate__``, or into ``__dict__`` and declared slots, past any
property; an enum member is found by name.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterable
from enum import Enum, Flag
from sys import intern
from types import MemberDescriptorType
from typing import Any

from nearcache.codecs.schema import fingerprint
from nearcache.codecs.stdlib import Reading, Unfit, fields
from nearcache.errors import ConfigError

TAG_NEW, TAG_CALL, TAG_MEMBER, TAG_FLAG = 32, 33, 34, 35

_EXPECTED = "an iterable of classes is expected, such as classes=(Money, Order)"

#: What typing leaves in an object that is made by ``Page[int](...)``: an annotation, and no part of the value.
_PARAMETERS = "__orig_class__"

_newobj = copyreg.__newobj__  # type: ignore[attr-defined]  # it exists, undocumented
_newobj_ex = copyreg.__newobj_ex__  # type: ignore[attr-defined]  # it exists, undocumented


_BUILTINS = (object, str, bytes, bytearray, int, float, complex, tuple, list, dict, set, frozenset, BaseException)
#: Those of types whose items the verifier sees, and those of identity. A list's is None: it has no hash.
_SHALLOW_HASHES: tuple[Any, ...] = tuple(kind.__hash__ for kind in _BUILTINS)
_SHALLOW_EQS: tuple[Any, ...] = tuple(kind.__eq__ for kind in _BUILTINS)


class RegisteredClass:
    """One registered class.

    Attributes:
        cls: The class.
        name: Module and qualified name: what stands for it on the wire.
        fingerprint: See :mod:`nearcache.codecs.schema`.
        slots: The declared slots, by name.
        is_called: Whether the class takes itself apart by itself, and may want to be called to be made again.
        is_compared: Whether its objects may look at what they hold when they are hashed or compared.
        is_deep: Whether they may when they are hashed.
    """

    __slots__ = (
        "_is_hashing",
        "_setstate",
        "_takes_args",
        "_takes_kwargs",
        "cls",
        "fingerprint",
        "is_called",
        "is_compared",
        "is_deep",
        "name",
        "slots",
    )

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.name = f"{cls.__module__}.{cls.__qualname__}"
        self.fingerprint = fingerprint(cls, self.name)
        self.is_called = any(
            getattr(cls, name) is not getattr(object, name) for name in ("__reduce_ex__", "__reduce__")
        )
        self._takes_kwargs = hasattr(cls, "__getnewargs_ex__")
        self._takes_args = self._takes_kwargs or hasattr(cls, "__getnewargs__")
        self._setstate: Callable[[Any, object], object] | None = getattr(cls, "__setstate__", None)
        self.slots = {
            name: member
            for base in reversed(cls.__mro__)
            for name, member in vars(base).items()
            if isinstance(member, MemberDescriptorType)
        }
        is_known = issubclass(cls, Enum)  # the members are not made by payloads
        self.is_deep = not is_known and all(cls.__hash__ is not shallow for shallow in _SHALLOW_HASHES)
        self.is_compared = not is_known and (self.is_deep or all(cls.__eq__ is not shallow for shallow in _SHALLOW_EQS))
        self._is_hashing = issubclass(cls, (dict, set, frozenset))

    # -- writing ---------------------------------------------------------------------------------------------

    def dump(self, obj: Any, index: int) -> tuple[int, tuple[object, ...], tuple[object, ...] | None]:
        """Return tag, first and later data of an object of this class, number ``index`` in the payload.

        Raises:
            Unfit: The class takes itself apart in a way that could not be reversed.
        """
        if isinstance(obj, Enum):
            return self._dump_member(obj, index)
        reduced = obj.__reduce_ex__(4)
        if type(reduced) is not tuple or not 2 <= len(reduced) <= 6:
            raise Unfit("its __reduce__ names a global; let it return its class, arguments and state")
        function, arguments, state, items, pairs, setter = (*reduced, None, None, None, None)[:6]
        if setter is not None:
            raise Unfit("its __reduce__ has a state setter; give the class a __setstate__")
        if type(state) is dict and _PARAMETERS in state:
            state = {name: value for name, value in state.items() if name != _PARAMETERS}
        later = None
        if not (state is None and items is None and pairs is None):
            later = (state, None if items is None else list(items), None if pairs is None else list(pairs))
            self._check_later(*later)
        tag, first = self._dump_call(function, arguments)
        return tag, (index, *first), later

    def _dump_call(self, function: object, arguments: Any) -> tuple[int, tuple[object, ...]]:
        if function is _newobj:
            cls, args, kwargs = arguments[0], tuple(arguments[1:]), None
        elif function is _newobj_ex:
            cls, args, kwargs = arguments
        else:
            cls, args, kwargs = function, tuple(arguments), None
        if cls is not self.cls:
            called = getattr(cls, "__qualname__", repr(cls))
            raise Unfit(f"its __reduce__ calls {called}; let it call its own class, or use __getstate__/__setstate__")
        if cls is function:
            self._check_called()
            return TAG_CALL, (args,)
        kwargs = kwargs or None
        self._check_new(args, kwargs)
        return TAG_NEW, (tuple(args), kwargs)

    def _dump_member(self, member: Enum, index: int) -> tuple[int, tuple[object, ...], None]:
        if isinstance(member, Flag):
            self._check_flag(member.value)
            return TAG_FLAG, (index, member.value), None
        if self.cls.__members__.get(member.name) is not member:  # type: ignore[attr-defined]  # an Enum
            raise Unfit("it is no longer a member of its class")
        return TAG_MEMBER, (index, member.name), None

    # -- reading ---------------------------------------------------------------------------------------------

    def load_new(self, args: Any, kwargs: Any, reading: Reading) -> object:
        """Return a new object that ``__init__`` has not seen."""
        self._check_new(args, kwargs)
        self._charge(reading, args)
        obj = self.cls.__new__(self.cls, *args, **(kwargs or {}))
        return self._made(obj, reading)

    def load_call(self, args: object, reading: Reading) -> object:
        """Return what the class returns when it is called, for a class that takes itself apart that way."""
        self._check_called()
        if type(args) is not tuple:
            raise Unfit("expected arguments")
        self._charge(reading, args)
        return self._made(self.cls(*args), reading)

    def load_member(self, name: object) -> Enum:
        """Return an enum member by its name."""
        if type(name) is not str or not issubclass(self.cls, Enum) or issubclass(self.cls, Flag):
            raise Unfit(f"{self.name} has no members to name")
        return self.cls.__members__[name]

    def load_flag(self, value: object) -> Flag:
        """Return a combination of named flags."""
        self._check_flag(value)
        member: Flag = self.cls(value)
        if type(member) is not self.cls or member.value != value:
            raise Unfit(f"{value} is no combination of {self.name}")
        return member

    def _made(self, obj: object, reading: Reading) -> object:
        if type(obj) is not self.cls:
            raise Unfit(f"{self.name} made a {type(obj).__qualname__}")

        reading.expect(obj, lambda obj, later: self._fill(obj, later, reading))
        return obj

    def _fill(self, obj: Any, later: Any, reading: Reading) -> None:
        state, items, pairs = fields(later, 3)
        self._check_later(state, items, pairs)
        reading.charge(len(items or ()) + len(pairs or ()))
        if items:
            obj.extend(items)
        if pairs:
            reading.hashing([key for key, _ in pairs])
        for key, value in pairs or ():
            obj[key] = value
        if state is not None:
            self._set_state(obj, state, reading)

    def _set_state(self, obj: Any, state: Any, reading: Reading) -> None:
        if self._setstate is not None:
            self._setstate(obj, state)
            return
        attributes, slots = self._split(state)
        reading.charge(len(attributes) + len(slots))
        if attributes:
            vars(obj).update({intern(name): value for name, value in attributes.items()})
        for name, value in slots.items():
            self.slots[name].__set__(obj, value)

    # -- what both sides hold to -----------------------------------------------------------------------------

    def _check_new(self, args: object, kwargs: object) -> None:
        if type(args) is not tuple or (args and not self._takes_args) or issubclass(self.cls, Enum):
            raise Unfit(f"{self.name}.__new__ does not take arguments from a pickle")
        if kwargs is not None and (type(kwargs) is not dict or not self._takes_kwargs or not _all_names(kwargs)):
            raise Unfit(f"{self.name}.__new__ does not take keyword arguments from a pickle")

    def _check_called(self) -> None:
        if not self.is_called or issubclass(self.cls, Enum):
            raise Unfit(f"{self.name} is not called to make its objects again")

    def _check_flag(self, value: object) -> None:
        if not issubclass(self.cls, Flag):
            raise Unfit(f"{self.name} is not a flag")
        known = 0
        for member in self.cls.__members__.values():
            known |= member.value if type(member.value) is int else 0
        # A negative value is the complement of a combination: IntFlag keeps those before Python 3.11.
        if type(value) is not int or (value if value >= 0 else ~value) & ~known:
            raise Unfit(f"{value} has bits that no flag of {self.name} names")

    def _check_later(self, state: object, items: object, pairs: object) -> None:
        if items is not None and (type(items) is not list or not (self.is_called or issubclass(self.cls, list))):
            raise Unfit(f"{self.name} is not a list")
        if pairs is not None and (type(pairs) is not list or not (self.is_called or issubclass(self.cls, dict))):
            raise Unfit(f"{self.name} is not a dict")
        if state is not None and self._setstate is None:
            self._split(state)

    def _split(self, state: Any) -> tuple[dict[str, object], dict[str, object]]:
        """Return the attributes and the slots in a state that is not for ``__setstate__``."""
        attributes, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
        for part in (attributes, slots):
            if part is not None and (type(part) is not dict or not _all_names(part)):
                raise Unfit(f"the state of {self.name} is not a dict of attributes; give the class a __setstate__")
        if attributes and not self.cls.__dictoffset__:
            raise Unfit(f"{self.name} has no __dict__ for its state; give the class a __setstate__")
        if slots and not slots.keys() <= self.slots.keys():
            raise Unfit(f"the state of {self.name} names slots that it does not have; give the class a __setstate__")
        return attributes or {}, slots or {}

    def _charge(self, reading: Reading, args: Any) -> None:
        if self._is_hashing:
            reading.hashing(args)
        reading.charge(len(args) + sum(len(arg) for arg in args if isinstance(arg, (str, bytes, bytearray))))


def _all_names(mapping: dict[Any, object]) -> bool:
    return all(type(name) is str for name in mapping)


def register(classes: Iterable[type], taken: Callable[[type], bool]) -> dict[type, RegisteredClass]:
    """Return the registered classes by class.

    Args:
        classes: The classes, as the user gave them.
        taken: Says of a type that the codec knows it without registration.
    Raises:
        ConfigError: One is no class, is known already or can have no objects of its own, or two have the same
            name.
    """
    found: dict[type, RegisteredClass] = {}
    names: dict[str, type] = {}
    if not isinstance(classes, Iterable) or isinstance(classes, (type, str)):
        raise ConfigError("classes", classes, _EXPECTED)
    for cls in classes:
        if not isinstance(cls, type) or hasattr(cls, "__origin__"):
            raise ConfigError("classes", cls, _EXPECTED)
        if taken(cls):
            raise ConfigError("classes", cls, "this class is understood without registration; leave it out")
        if issubclass(cls, type) or (cls.__module__ == "builtins" and not issubclass(cls, BaseException)):
            raise ConfigError("classes", cls, "builtins other than exceptions cannot be registered; leave it out")
        entry = RegisteredClass(cls)
        if names.setdefault(entry.name, cls) is not cls:
            raise ConfigError(
                "classes", cls, f"two classes are called {entry.name}, so a reader could not tell them apart"
            )
        found[cls] = entry
    return found
