"""What hashes and comparisons cost, counted while they are made (see ``codecs/rehearsal.py``).

A *stand-in* is a subclass of a registered class that lives as long as one rehearsal. Its ``__hash__`` and ``__eq__``
are the class's own behind a counter:

    hash((order, 1))                the interpreter hashes the tuple ...
      stand-in of Order             ... and comes here: one call, and a step for each item of the order's state, written
        hash((customer, ...))       out as a tree, down to scalars and the next stand-ins;
          stand-in of Customer      those are charged when they are reached
            ...

So what a hash may have to do is paid for before it does it, whatever the classes do in between. The functions here add
no Python frame: what nests within Python's limits does so in a rehearsal too.
"""

from cpython.dict cimport PyDict_Check, PyDict_Next
from cpython.list cimport PyList_Check
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_Check
from libc.stdint cimport int64_t

from collections import deque
from sys import getsizeof

cimport cython

cdef extern from "Python.h":
    # `long long`, and no error when it does not fit.
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

cdef extern from *:
    """
    #define NEARCACHE_NEVER ((int64_t)1 << 38)
    """
    # More than any budget, and not so much that it could overflow in a few million steps.
    const int64_t _NEVER "NEARCACHE_NEVER"

cdef enum:
    # In steps, each of which hashes an item of a tuple: a call of a function in Python, the hash of a date, a path ...
    _CALL = 32
    _OTHER = 8
    # So many bytes of a number are read in a step.
    _READ = 64

_deque_items = deque.__iter__
_set_items = set.__iter__
_frozenset_items = frozenset.__iter__
_native = type(object.__sizeof__)


class _Quiet:
    """Keeps a stand-in from what its class does about subclasses."""

    __slots__ = ()

    def __init_subclass__(cls, **_):
        pass


@cython.final
cdef class Meter:
    """A budget for hashing.

    Attributes:
        left: The steps that are left; below zero once it is overdrawn.
        calls: How many hashes and comparisons of stand-ins have been paid for.
        changes: Whether there was something that can change afterwards in what was weighed last.
    """

    def __init__(self, int64_t steps, counted=()):
        self.left = steps
        self.calls = 0
        self.changes = self._comparing = False
        self._counted = dict.fromkeys(counted, ())
        self._through = False
        self._known = {}

    def weigh(self, items):
        """Pay for hashing all that is in ``items``; return whether objects of ``counted`` classes are in it.

        Raises:
            ValueError: It is more than is left.
        """
        self.changes = False
        return self.walk([items])

    def keep(self, obj, made_of):
        """Weigh what an object was made of: so much it costs wherever it is found, in a hash or a comparison."""
        cdef int64_t before = self.left
        self.weigh(made_of)
        self._known[id(obj)] = (before - self.left, _NEVER if self.changes else before - self.left, obj)

    def change(self, obj):
        """Let a comparison that finds an object be too much, since what it holds has changed."""
        self._known[id(obj)] = (_OTHER, _NEVER, obj)

    def stand_in(self, cls, slots, strict):
        """Return a subclass of ``cls`` whose hashes and comparisons this meter counts.

        Args:
            cls: The class.
            slots: What reads the state of its objects, besides their ``__dict__``.
            strict: Whether its comparison may see that a stand-in is of another class, and leave out what it would do.
        Raises:
            TypeError: The class cannot have one.
        """
        cdef tuple readers = tuple(slots)
        own_hash, own_eq = cls.__hash__, cls.__eq__

        def counted_hash(obj):
            self.charge(obj, readers)
            return own_hash(obj)

        def counted_eq(obj, other):
            self._comparing = True
            try:
                self.charge(obj, readers)
            finally:
                self._comparing = False
            equal = own_eq(obj, other)
            if strict and equal is not True and type(obj) is type(other):
                self._through = self._comparing = True
                try:
                    self.walk([(obj,)])
                finally:
                    self._through = self._comparing = False
            return equal

        namespace = {
            "__slots__": (),
            "__module__": cls.__module__,
            "__qualname__": cls.__qualname__,
            "__hash__": None if own_hash is None else counted_hash,
            "__eq__": counted_eq,
        }
        made = type.__new__(type(cls), cls.__name__, (_Quiet, cls), namespace)
        self._counted[made] = readers
        return made

    cdef int charge(self, object obj, tuple slots) except -1:
        """Pay for one hash or comparison of a stand-in."""
        cdef list waiting = []
        self.calls += 1
        self.left -= _CALL
        self.unfold(obj, slots, waiting)
        self.walk(waiting)
        return 0

    cdef int unfold(self, object obj, tuple slots, list waiting) except -1:
        """Let the state of a stand-in wait."""
        attributes = getattr(obj, "__dict__", None)
        if attributes is not None:
            waiting.append(attributes)
        for member in slots:
            try:
                value = member.__get__(obj)
            except AttributeError:  # not set
                continue
            waiting.append((value,))
        if isinstance(obj, (tuple, list, dict, set, frozenset)):
            waiting.append(obj)
        return 0

    cdef bint walk(self, list waiting) except -1:
        """Take a step for each item of the containers that wait, and of those in them; say if stand-ins are there."""
        cdef Py_ssize_t position = 0
        cdef PyObject *key
        cdef PyObject *value
        cdef bint found = False
        while waiting and self.left >= 0:
            container = waiting.pop()
            if PyTuple_Check(container):
                for item in <tuple> container:
                    found |= self.look(item, waiting)
            elif PyDict_Check(container):
                position = 0
                while PyDict_Next(container, &position, &key, &value):
                    found |= self.look(<object> key, waiting)
                    found |= self.look(<object> value, waiting)
            elif PyList_Check(container):
                for item in <list> container:
                    found |= self.look(item, waiting)
            else:
                items = _deque_items if isinstance(container, deque) else _set_items
                if isinstance(container, frozenset):
                    items = _frozenset_items
                for item in items(container):
                    found |= self.look(item, waiting)
        if self.left < 0:
            raise ValueError("keys or set members that are out of proportion to the payload when they are hashed")
        return found

    cdef inline bint look(self, object item, list waiting) except -1:
        """Take the step for one item; say whether it is a stand-in."""
        cdef int overflow
        kind = type(item)
        self.left -= 1
        if kind is str or item is None or kind is float or kind is bytes or kind is bool:
            return False
        if PyLong_CheckExact(item):
            PyLong_AsLongLongAndOverflow(item, &overflow)
            if overflow:
                self.left -= getsizeof(item) // _READ
            return False
        if kind is tuple:
            waiting.append(item)
            return False
        return self.look_closer(item, waiting)

    cdef bint look_closer(self, object item, list waiting) except -1:
        kind = type(item)
        readers = self._counted.get(kind)
        if readers is not None:
            if self._through:
                self.unfold(item, <tuple> readers, waiting)
            return True
        known = self._known.get(id(item))
        if known is not None:
            self.left -= <int64_t> known[1 if self._comparing else 0]
        elif isinstance(item, (tuple, frozenset)):
            waiting.append(item)
        elif isinstance(item, (dict, list, set, deque)):
            self.changes = True
            waiting.append(item)
        else:
            self.left -= _OTHER
            if type(kind.__sizeof__) is _native:  # a Decimal is as long as its digits
                self.left -= getsizeof(item) // _READ
        return False

    def close(self):
        """Let go of what was weighed and of the stand-ins."""
        self._known.clear()
        self._counted.clear()
