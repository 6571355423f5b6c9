from libc.stdint cimport int64_t, uint64_t

from nearcache._core cimport core_t, graveyard_t, item_t, op_t, quota_t
from nearcache._cores cimport cores_t


cdef class Op:
    cdef op_t op
    cdef bint ready            # __init__ ran
    cdef readonly object key


cdef class Store:
    cdef object keyfunc        # or None; first what a hit reads
    cdef core_t core           # the only one, but on free-threaded builds
    cdef cores_t cores         # all of them: &core, or an array
    cdef quota_t quota
    cdef int64_t ttl_ns
    cdef bint ready            # __init__ ran
    cdef bint hooked_get       # a subclass has a _missing_get of its own
    cdef bint hooked_in
    cdef object sizeof         # or None
    cdef object listener       # or None
    cdef object teller         # see tell(); None until then
    cdef object __weakref__


# What changes a store's tables is done by the module that made them: an empty table is known by its address there.
cdef int begin_op(Store self, Op op) except -1
cdef bint finish_op(Store self, Op op, object value, const item_t *item, uint64_t identity) except -1
cdef bint confirm_op(Store self, Op op, const item_t *item, uint64_t identity) except -1
cdef int give_up_op(Store self, Op op, bint drop) except -1
cdef Py_ssize_t apply_keys(Store self, list keys, uint64_t wid, graveyard_t *yard) except -1


cdef extern from *:
    core_t *core_at(Store store, int64_t hash) noexcept  # of _cores.pxd
