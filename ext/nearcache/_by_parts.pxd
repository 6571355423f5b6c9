"""A hit of a cache by a tuple that is a key, before it is made: what it would hold is hashed and compared."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

from nearcache._local cimport hit_items
from nearcache._lookup cimport items_hash, likely
from nearcache._store cimport Store, core_at


cdef enum:
    MOST_ITEMS = 12  # of a key that is looked for so


cdef inline Store owner_of(object method):
    """The store whose own ``l1_hit`` this is; None where it is another's, or keys are others there."""
    cdef object owner = getattr(method, "__self__", None)
    if isinstance(owner, Store) and method == Store.l1_hit.__get__(owner) and (<Store>owner).keyfunc is None:
        return owner
    return None


cdef inline PyObject *hit_by_parts(Store store, PyObject *const *items, Py_ssize_t count) noexcept:
    """The value under a tuple of these, a new reference. NULL: it is to be looked for with care."""
    cdef int64_t hash = items_hash(items, count)
    return hit_items(core_at(store, hash), items, count, hash) if likely(hash != -1) else NULL
