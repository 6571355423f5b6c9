"""How the ``safe`` codec writes objects of the standard library: a tag, and plain data that is checked on
reading.

Each type has a *dump*, which returns the data of its first call (and, for containers, of a second call that
fills the object, so that a container may contain itself), and a *load*, which believes nothing: exact types,
exact lengths, values through the constructors that check them. Modules other than the ones every program has
loaded are not imported to write (the value's class proves that its module is there), and to read only when a
value needs them.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from decimal import Decimal
    from fractions import Fraction
    from pathlib import PurePath
    from uuid import UUID
    from zoneinfo import ZoneInfo


class Dumped(NamedTuple):
    """What is written for an object: ``rebuild(tag, first)``, then ``rebuild(obj, later)`` unless that is
    None."""

    tag: int
    first: object
    later: object = None


class Reading(Protocol):
    """What a load needs to know of the payload that it is part of."""

    def charge(self, size: int) -> None:
        """Account for ``size`` copied items or bytes; ValueError when the payload cannot have held so
        many."""

    def expect(self, obj: object, fill: Callable[[Any, Any], object]) -> None:
        """Let ``fill(obj, later)`` be called once."""

    def hashing(self, items: object) -> None:
        """Account for what is going to be hashed without the verifier's having seen it; ValueError for too much."""

    def nest(self, items: Iterable[object]) -> None:
        """Account for deques and defaultdicts that are put into one another and wait for their own items; DecodeError
        for too many."""


Dump = Callable[[Any], Dumped]
Load = Callable[[Any, Reading], object]


class Unfit(ValueError):
    """Why an object of an admitted type cannot be written, or data cannot be read."""


_TAG_DATE, _TAG_TIME, _TAG_DATETIME, _TAG_TIMEDELTA, _TAG_TIMEZONE, _TAG_ZONEINFO = 1, 2, 3, 4, 5, 6
_TAG_DECIMAL, _TAG_FRACTION, _TAG_COMPLEX, _TAG_RANGE, _TAG_UUID, _TAG_PATH = 7, 8, 9, 10, 11, 12
_TAG_ORDERED, _TAG_DEFAULT, _TAG_COUNTER, _TAG_DEQUE = 13, 14, 15, 16

#: Reducing a fraction takes time that grows with the square of its length.
_FRACTION_BITS = 65_536
_ZONE = re.compile(r"[A-Za-z0-9_+-]{1,64}(?:/[A-Za-z0-9_+-]{1,64}){0,3}")
_DECIMAL = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+|Infinity|s?NaN[0-9]*)")
_PATHS = ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath")
#: What a defaultdict may make: a name on the wire, a type here.
_FACTORIES: dict[str, type] = {kind.__name__: kind for kind in (list, dict, set, tuple, str, bytes, int, float, bool)}


def fields(state: object, count: int) -> tuple[Any, ...]:
    """Return ``state`` if it is a tuple of ``count`` items, or raise :class:`Unfit`."""
    if type(state) is not tuple or len(state) != count:
        raise Unfit(f"expected {count} fields")
    return state


def _all(kind: type, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not all(type(value) is kind for value in values):
        raise Unfit(f"expected nothing but {kind.__name__}")
    return values


def _text(state: object, pattern: re.Pattern[str]) -> str:
    if type(state) is not str or pattern.fullmatch(state) is None:
        raise Unfit("text of the wrong form")
    return state


# -- datetime ------------------------------------------------------------------------------------------------


def _dump_date(value: datetime.date) -> Dumped:
    return Dumped(_TAG_DATE, (value.year, value.month, value.day))


def _load_date(state: object, _: Reading) -> datetime.date:
    return datetime.date(*_all(int, fields(state, 3)))


def _dump_time(value: datetime.time) -> Dumped:
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Dumped(_TAG_TIME, (*clock, value.tzinfo))


def _load_time(state: object, _: Reading) -> datetime.time:
    *clock, zone = fields(state, 6)
    hour, minute, second, microsecond, fold = _all(int, tuple(clock))
    return datetime.time(hour, minute, second, microsecond, zone, fold=fold)


def _dump_datetime(value: datetime.datetime) -> Dumped:
    day = (value.year, value.month, value.day)
    clock = (value.hour, value.minute, value.second, value.microsecond, value.fold)
    return Dumped(_TAG_DATETIME, (*day, *clock, value.tzinfo))


def _load_datetime(state: object, _: Reading) -> datetime.datetime:
    *clock, zone = fields(state, 9)
    year, month, day, hour, minute, second, microsecond, fold = _all(int, tuple(clock))
    return datetime.datetime(year, month, day, hour, minute, second, microsecond, zone, fold=fold)


def _dump_timedelta(value: datetime.timedelta) -> Dumped:
    return Dumped(_TAG_TIMEDELTA, (value.days, value.seconds, value.microseconds))


def _load_timedelta(state: object, _: Reading) -> datetime.timedelta:
    return datetime.timedelta(*_all(int, fields(state, 3)))


def _dump_timezone(value: datetime.timezone) -> Dumped:
    offset, *name = value.__getinitargs__()  # type: ignore[attr-defined]  # the one way to tell a name from its absence
    return Dumped(_TAG_TIMEZONE, (offset.days, offset.seconds, offset.microseconds, name[0] if name else None))


def _load_timezone(state: object, _: Reading) -> datetime.timezone:
    *offset, name = fields(state, 4)
    delta = datetime.timedelta(*_all(int, tuple(offset)))
    return datetime.timezone(delta) if name is None else datetime.timezone(delta, _all(str, (name,))[0])


def _dump_zoneinfo(value: ZoneInfo) -> Dumped:
    if value.key is None or _ZONE.fullmatch(value.key) is None:
        raise Unfit("it has no key to find it by; make it with ZoneInfo('Area/City')")
    return Dumped(_TAG_ZONEINFO, value.key)


def _load_zoneinfo(state: object, _: Reading) -> ZoneInfo:
    from zoneinfo import ZoneInfo

    # Dots and leading slashes do not pass: the key becomes the name of a file, or of a module of `tzdata`.
    return ZoneInfo(_text(state, _ZONE))


# -- numbers -------------------------------------------------------------------------------------------------


def _dump_decimal(value: Decimal) -> Dumped:
    return Dumped(_TAG_DECIMAL, str(value))


def _load_decimal(state: object, reading: Reading) -> Decimal:
    from decimal import Decimal

    text = _text(state, _DECIMAL)
    reading.charge(len(text))
    return Decimal(text)


def _dump_fraction(value: Fraction) -> Dumped:
    _check_fraction(value.numerator, value.denominator)
    return Dumped(_TAG_FRACTION, (value.numerator, value.denominator))


def _load_fraction(state: object, reading: Reading) -> Fraction:
    from fractions import Fraction

    numerator, denominator = _all(int, fields(state, 2))
    _check_fraction(numerator, denominator)
    reading.charge((numerator.bit_length() + denominator.bit_length()) // 8)
    return Fraction(numerator, denominator)


def _check_fraction(numerator: int, denominator: int) -> None:
    if numerator.bit_length() > _FRACTION_BITS or denominator.bit_length() > _FRACTION_BITS:
        raise Unfit(f"its numerator or denominator is over {_FRACTION_BITS:,} bits; store the two as a tuple of ints")


def _dump_complex(value: complex) -> Dumped:
    return Dumped(_TAG_COMPLEX, (value.real, value.imag))


def _load_complex(state: object, _: Reading) -> complex:
    return complex(*_all(float, fields(state, 2)))


def _dump_range(value: range) -> Dumped:
    return Dumped(_TAG_RANGE, (value.start, value.stop, value.step))


def _load_range(state: object, _: Reading) -> range:
    return range(*_all(int, fields(state, 3)))


# -- identifiers and paths -----------------------------------------------------------------------------------


def _dump_uuid(value: UUID) -> Dumped:
    return Dumped(_TAG_UUID, value.bytes)


def _load_uuid(state: object, _: Reading) -> UUID:
    from uuid import UUID

    return UUID(bytes=_all(bytes, (state,))[0])


def _dump_path(value: PurePath) -> Dumped:
    return Dumped(_TAG_PATH, (type(value).__name__, str(value)))


def _load_path(state: object, reading: Reading) -> PurePath:
    import pathlib

    kind, text = _all(str, fields(state, 2))
    if kind not in _PATHS:
        raise Unfit("no such kind of path")
    reading.charge(len(text))
    path: PurePath = getattr(pathlib, kind)(text)
    return path


# -- containers ----------------------------------------------------------------------------------------------


def _plain(value: Any) -> None:
    if getattr(value, "__dict__", None):
        raise Unfit("it has attributes besides its items, which would be lost; store them beside it")


def _dump_ordered(value: OrderedDict[Any, Any]) -> Dumped:
    _plain(value)
    return Dumped(_TAG_ORDERED, None, dict(value))


def _load_ordered(state: object, reading: Reading) -> OrderedDict[Any, Any]:
    ordered: OrderedDict[Any, Any] = OrderedDict()
    if state is not None:
        raise Unfit("an OrderedDict has items alone")
    reading.expect(ordered, lambda obj, items: obj.update(_items(dict, items, reading)))
    return ordered


def _dump_default(value: defaultdict[Any, Any]) -> Dumped:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if name is not None and _FACTORIES.get(name) is not factory:
        raise Unfit(f"its default_factory is none of {', '.join(_FACTORIES)}; convert it with dict(value)")
    return Dumped(_TAG_DEFAULT, name, dict(value))


def _load_default(state: object, reading: Reading) -> defaultdict[Any, Any]:
    filled: defaultdict[Any, Any] = defaultdict(None if state is None else _FACTORIES[_all(str, (state,))[0]])
    reading.expect(filled, lambda obj, items: dict.update(obj, _nested(dict, items, reading)))
    return filled


def _dump_counter(value: Counter[Any]) -> Dumped:
    _plain(value)
    return Dumped(_TAG_COUNTER, None, dict(value))


def _load_counter(state: object, reading: Reading) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    if state is not None:
        raise Unfit("a Counter has items alone")
    # Not Counter's own update, which adds up.
    reading.expect(counter, lambda obj, items: dict.update(obj, _items(dict, items, reading)))
    return counter


def _dump_deque(value: deque[Any]) -> Dumped:
    return Dumped(_TAG_DEQUE, value.maxlen, list(value))


def _load_deque(state: object, reading: Reading) -> deque[Any]:
    reading.charge(16)  # even an empty one has a block of 64 places; an honest payload has some twenty bytes for it
    items: deque[Any] = deque(maxlen=None if state is None else _all(int, (state,))[0])
    reading.expect(items, lambda obj, later: obj.extend(_nested(list, later, reading)))
    return items


def _items(source: type[Any], items: Any, reading: Reading) -> Any:
    """Return ``items`` if they are a list, or a dict, as ``source`` says."""
    if type(items) is not source:
        raise Unfit(f"expected a {source.__name__}")
    reading.charge(len(items))
    return items


def _nested(source: type[Any], items: Any, reading: Reading) -> Any:
    """The same, for a container that CPython releases by recursion."""
    items = _items(source, items, reading)
    reading.nest(items.values() if source is dict else items)
    return items


# -- tables --------------------------------------------------------------------------------------------------

#: Types whose modules every program has.
DUMPS: dict[type, Dump] = {
    datetime.date: _dump_date,
    datetime.time: _dump_time,
    datetime.datetime: _dump_datetime,
    datetime.timedelta: _dump_timedelta,
    datetime.timezone: _dump_timezone,
    complex: _dump_complex,
    range: _dump_range,
    OrderedDict: _dump_ordered,
    defaultdict: _dump_default,
    Counter: _dump_counter,
    deque: _dump_deque,
}

#: Types whose modules may not be there, by where they are found.
_LATER: dict[tuple[str, str], Dump] = {
    ("zoneinfo", "ZoneInfo"): _dump_zoneinfo,
    ("decimal", "Decimal"): _dump_decimal,
    ("fractions", "Fraction"): _dump_fraction,
    ("uuid", "UUID"): _dump_uuid,
    **{("pathlib", name): _dump_path for name in _PATHS},
}

LOADS: dict[int, Load] = {
    _TAG_DATE: _load_date,
    _TAG_TIME: _load_time,
    _TAG_DATETIME: _load_datetime,
    _TAG_TIMEDELTA: _load_timedelta,
    _TAG_TIMEZONE: _load_timezone,
    _TAG_ZONEINFO: _load_zoneinfo,
    _TAG_DECIMAL: _load_decimal,
    _TAG_FRACTION: _load_fraction,
    _TAG_COMPLEX: _load_complex,
    _TAG_RANGE: _load_range,
    _TAG_UUID: _load_uuid,
    _TAG_PATH: _load_path,
    _TAG_ORDERED: _load_ordered,
    _TAG_DEFAULT: _load_default,
    _TAG_COUNTER: _load_counter,
    _TAG_DEQUE: _load_deque,
}


def find_dump(kind: type) -> Dump | None:
    """Return the dump of a type from a module that is imported on demand, or None."""
    for (module, name), dump in _LATER.items():
        if kind.__name__ == name and getattr(sys.modules.get(module), name, None) is kind:
            return dump
    return None
