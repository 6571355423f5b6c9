"""Stand-ins for registered classes, in a reading that is made to count hashes and comparisons, and then thrown away."""

from __future__ import annotations

import copy
from types import BuiltinFunctionType
from typing import Any

from nearcache._hashing import Meter
from nearcache.codecs.registered import RegisteredClass
from nearcache.codecs.stdlib import Reading, Unfit


def stand_in(entry: RegisteredClass, meter: Meter) -> RegisteredClass:
    """Return what makes the objects of a class in a rehearsal.

    That is a subclass that the meter counts. It is not made where it could be noticed: a class that is called, or whose
    ``__new__`` is its own, may keep what it makes. What such objects cost to hash is what they are made of, once that
    cannot change any more.
    """
    if not entry.is_compared:
        return entry
    of_its_own = entry.is_called or _asks_for(entry.cls, entry.cls.__hash__)
    if not of_its_own and isinstance(entry.cls.__new__, BuiltinFunctionType):
        try:
            cls = meter.stand_in(entry.cls, entry.slots.values(), _asks_for(entry.cls, entry.cls.__eq__))
        except TypeError:  # its metaclass has a structure of its own, as msgspec's
            return _weighed(entry, meter)
        counted = copy.copy(entry)
        counted.cls = cls
        return counted
    return _weighed(entry, meter)


def _asks_for(cls: type, method: Any) -> bool:
    """Return whether a method asks for just this class, ``type(other) is Order``, which no stand-in is."""
    code = getattr(method, "__code__", None)
    names = {*code.co_names, *code.co_freevars} if code is not None else set()
    return bool(names & {"type", "__class__"}) and any(base.__name__ in names for base in cls.__mro__)


def _has_hash(obj: object) -> bool:
    """Return whether an object can be a key: a class may have a hash that says no, as msgspec's do."""
    try:
        hash(obj)
    except TypeError:
        return False
    return True


def _weighed(entry: RegisteredClass, meter: Meter) -> RegisteredClass:
    weighed = _Weighed(entry.cls)
    weighed.meter = meter
    return weighed


class _Weighed(RegisteredClass):
    """A class whose hashes and comparisons are not counted: its objects are weighed when they are made.

    Those that have a hash must be complete then. Those without are no keys: they may change, but not be compared.
    """

    __slots__ = ("meter",)

    meter: Meter

    def load_new(self, args: Any, kwargs: Any, reading: Reading) -> object:
        return self._weigh(super().load_new(args, kwargs, reading), (args, kwargs))

    def load_call(self, args: object, reading: Reading) -> object:
        return self._weigh(super().load_call(args, reading), args)

    def _weigh(self, obj: object, made_of: object) -> object:
        self.meter.keep(obj, (made_of,))
        if self.is_deep and self.meter.changes and _has_hash(obj):
            raise self._unfit()
        return obj

    def _fill(self, obj: Any, later: Any, reading: Reading) -> None:
        if self.is_deep:
            raise self._unfit()
        self.meter.change(obj)
        super()._fill(obj, later, reading)

    def _unfit(self) -> Unfit:
        return Unfit(
            f"the hash of {self.name} cannot be counted beside cycles: it has a __new__ or __reduce__ of its own, "
            "and its objects change after they were made; leave its __hash__ and __eq__ to object, or the cycle out"
        )
