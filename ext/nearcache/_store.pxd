from libc.stdint cimport int64_t

from nearcache._core cimport core_t, op_t


cdef class Op:
    cdef op_t op
    cdef bint ready            # __init__ ran
    cdef readonly object key


cdef class Store:
    cdef core_t core           # first: a hit reads this and nothing else of the object
    cdef int64_t ttl_ns
    cdef bint ready            # __init__ ran
    cdef object keyfunc        # or None
    cdef object sizeof         # or None
    cdef object __weakref__
