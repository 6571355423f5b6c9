# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""What makes an L1 hit through a view cheap: its keys are tuples of its names and the key, looked for before they are
made.
"""

from cpython.object cimport PyObject

from nearcache._by_parts cimport MOST_ITEMS, hit_by_parts, owner_of
from nearcache._lookup cimport items_of, likely, owned
from nearcache._store cimport Store

from types import GenericAlias


cdef class Part:
    """The part of a view that answers from L1. What it does not find at once, ``_missing`` and the others look for.

    Args:
        hit: The cache's ``l1_hit``.
        path: The view's names.
    """

    cdef Store _store  # or None: keys are not looked for here
    cdef readonly tuple path

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, hit, tuple path not None):
        self.path = path
        self._store = owner_of(hit) if len(path) < MOST_ITEMS else None

    def __getitem__(self, key):
        cdef PyObject *value = part_hit(self, key)
        return owned(value) if likely(value != NULL) else self._missing(key)

    def get(self, key, default=None, *, max_age=None):
        """Return the value for a key, or the default. Never calls the loader."""
        cdef PyObject *value = part_hit(self, key) if max_age is None else NULL
        return owned(value) if likely(value != NULL) else self._missing_get(key, default, max_age)

    def l1_plain_hit(self, key, default):
        """Return the value if it is found at once, else the default: it may be there all the same."""
        cdef PyObject *value = part_hit(self, key)
        return owned(value) if value != NULL else default


cdef inline PyObject *part_hit(Part self, object key) noexcept:
    cdef PyObject *items[MOST_ITEMS]
    cdef Py_ssize_t count
    cdef Py_ssize_t i
    if self._store is None:
        return NULL
    count = len(self.path)
    for i in range(count):
        items[i] = items_of(<PyObject *>self.path)[i]
    items[count] = <PyObject *>key
    return hit_by_parts(self._store, items, count + 1)
