"""How the ``safe`` codec reads a pickle: verified, rehearsed where need be, then unpickled.

What keys and set members take to hash is bounded by the verifier, which adds up what they hold. That does not do where
something is filled that other things hold already: in a cycle, or in a payload whose author wants it to be hashed for
ever. If there are also classes whose hash may look at what an object holds, the payload is *rehearsed*: read once with
stand-ins in place of these classes, whose hashes and comparisons are counted, against a budget; thrown away; and then
read as ever. The second reading hashes what the first one did.
"""

from __future__ import annotations

import io
import pickle
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from nearcache._hashing import Meter
from nearcache._pickle_scan import HASH_BUDGET, scan
from nearcache.codecs import arrays
from nearcache.codecs.envelope import Payload
from nearcache.codecs.registered import TAG_CALL, TAG_FLAG, TAG_MEMBER, TAG_NEW, RegisteredClass
from nearcache.codecs.rehearsal import stand_in
from nearcache.codecs.stdlib import LOADS, fields
from nearcache.errors import DecodeError

_GLOBAL: Final = ("nearcache.codecs.safe", "rebuild")
#: Items that a payload may make the reader copy beyond its own length, for objects that share state.
_COPY_SLACK: Final = 65_536
#: Types that CPython releases by recursion, without a bound of its own.
_RECURSIVE: Final = frozenset((deque, defaultdict))
#: How many of those may be put into one another before they have got their items. Each may add to a chain of them as
#: many as the verifier allows in one.
_MOST_UNFILLED: Final = 8
#: What a rehearsal may spend, and so much more for each byte: a call of a hash takes 32, an item that it may read 1.
REHEARSAL_BUDGET: Final = (1 << 20, 64)


class Pickled(NamedTuple):
    """A pickle and what belongs to it.

    Attributes:
        data, start: The pickle is ``data[start:]``.
        size: Bytes of the whole payload.
        classes, buffers: What it refers to by number.
    """

    data: Payload
    start: int
    size: int
    classes: tuple[RegisteredClass, ...] = ()
    buffers: list[memoryview] = []  # noqa: RUF012  (nobody adds to it)

    @property
    def is_uncertain(self) -> bool:
        """Whether the verifier cannot know what late fillings do to a hash."""
        return any(entry.is_deep for entry in self.classes)


class _Unrehearsed(Exception):
    """Something is going to be hashed whose cost nobody has counted."""


def load(pickled: Pickled, schema: int, expected: int) -> Any:
    """Return the value of a pickle, once schema and stream have been found in order.

    Raises:
        DecodeError: They are not, or what the pickle makes is out of proportion to it; other errors where data does not
            fit what it is meant for.
    """
    if schema != expected:
        raise DecodeError(f"the value was written with schema {schema:08x}, the classes here have {expected:08x}")
    late = scan(pickled.data, pickled.start)
    rebuilder = _Rebuilder(pickled)
    if late and pickled.is_uncertain:
        rehearse(pickled)
        rebuilder.rehearsed = True
    try:
        return _unpickle(pickled, rebuilder)
    except _Unrehearsed:
        rehearse(pickled)
    rebuilder = _Rebuilder(pickled)
    rebuilder.rehearsed = True
    return _unpickle(pickled, rebuilder)


def rehearse(pickled: Pickled) -> int:
    """Read a verified pickle with stand-ins, in order to count; return how often they were hashed or compared.

    Raises:
        ValueError: They would be so too often; whatever else reading it would raise.
    """
    floor, factor = REHEARSAL_BUDGET
    meter = Meter(floor + factor * pickled.size)
    try:
        classes = tuple(stand_in(entry, meter) for entry in pickled.classes)
        rebuilder = _Rebuilder(pickled._replace(classes=classes))
        rebuilder.rehearsed, rebuilder.meter = True, meter
        _unpickle(pickled, rebuilder)
        if meter.left < 0:  # a hash that keeps errors to itself
            raise DecodeError("keys or set members that are out of proportion to the payload when they are hashed")
        return meter.calls
    finally:
        meter.close()


def _unpickle(pickled: Pickled, rebuilder: _Rebuilder) -> Any:
    file = io.BytesIO(pickled.data)
    file.seek(pickled.start)
    unpickler = _Unpickler(file)
    unpickler.rebuild = rebuilder.rebuild
    return unpickler.load()


class _Unpickler(pickle.Unpickler):
    """The C unpickler with one global. It holds the rebuilder, not the other way round, so that no cycle
    remains."""

    rebuild: Callable[[object, object], object]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) != _GLOBAL:
            raise DecodeError(f"the payload names {module}.{name}")
        return self.rebuild


class _Rebuilder:
    """What ``rebuild`` does while one payload is read.

    Attributes:
        meter: What counts hashes that the verifier has not seen; None until there is one.
        rehearsed: Whether those of the registered classes have been counted, or are being so.
    """

    __slots__ = ("_budget", "_buffers", "_classes", "_pending", "_size", "_unfilled", "meter", "rehearsed")

    def __init__(self, pickled: Pickled) -> None:
        self._classes = pickled.classes
        self._buffers = pickled.buffers
        self._size = pickled.size
        self._budget = pickled.size + _COPY_SLACK
        self.meter: Meter | None = None
        self.rehearsed = False
        # Objects that wait for their state, which each may be given once; holding them keeps their ids their
        # own.
        self._pending: dict[int, tuple[object, Callable[[Any, Any], object]]] = {}
        self._unfilled = _MOST_UNFILLED

    def rebuild(self, subject: object, data: object) -> object:
        """Return the object that tag and data describe, or give an object its state."""
        if type(subject) is not int:
            obj, fill = self._pending.pop(id(subject))
            return fill(obj, data)
        load = LOADS.get(subject)
        return load(data, self) if load is not None else self._rebuild_other(subject, data)

    def charge(self, size: int) -> None:
        """Account for copied items or bytes.

        Each was written at least once, so the copies cannot outnumber the payload's bytes by far, unless the
        payload refers to the same large part again and again in order to exhaust the reader.
        """
        self._budget -= size
        if self._budget < 0:
            raise DecodeError("objects that are out of proportion to the payload")

    def expect(self, obj: object, fill: Callable[[Any, Any], object]) -> None:
        """Let ``fill(obj, later)`` be called once."""
        self._pending[id(obj)] = (obj, fill)

    def nest(self, items: Iterable[object]) -> None:
        """Account for items that are released by recursion, and wait for their own.

        The verifier counts how deep a value is when it is put into another. Our writer fills what is inside first, but
        in a cycle; a chain that is filled from the outside would be of any depth.
        """
        if self._pending:
            self._unfilled -= sum(type(item) in _RECURSIVE and id(item) in self._pending for item in items)
            if self._unfilled < 0:
                raise DecodeError("containers are put into one another before they are filled")

    def hashing(self, items: object) -> None:
        """Account for what a container of a registered class is going to hash, which the verifier has not seen."""
        if self.meter is None:
            floor, factor = HASH_BUDGET
            deep = [entry.cls for entry in self._classes if entry.is_deep]
            self.meter = Meter(floor + factor * self._size, deep)
        if self.meter.weigh(items) and not self.rehearsed:
            raise _Unrehearsed

    def _rebuild_other(self, tag: int, data: object) -> object:
        if tag == arrays.TAG_ARRAY:
            return arrays.load_array(data, self, self._buffers)
        if tag == arrays.TAG_SCALAR:
            return arrays.load_scalar(data, self)
        if tag == TAG_NEW:
            index, args, kwargs = fields(data, 3)
            return self._entry(index).load_new(args, kwargs, self)
        index, rest = fields(data, 2)
        entry = self._entry(index)
        if tag == TAG_CALL:
            return entry.load_call(rest, self)
        if tag == TAG_MEMBER:
            return entry.load_member(rest)
        if tag == TAG_FLAG:
            return entry.load_flag(rest)
        raise DecodeError(f"no object has the tag {tag}")

    def _entry(self, index: object) -> RegisteredClass:
        if type(index) is not int or not 0 <= index < len(self._classes):
            raise DecodeError("an object of a class that is not in the payload's table")
        return self._classes[index]
