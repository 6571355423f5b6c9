from libc.stdint cimport int64_t, uint64_t

from nearcache._core cimport core_t, op_t, quota_t
from nearcache._cores cimport cores_t
from nearcache._slots cimport vectorcall_t


cdef extern from "nearcache/waiters.h" nogil:
    ctypedef struct waiter_t:
        uint64_t thread
        uint64_t awaited
    ctypedef struct waiters_t:
        pass
    bint waiters_add(waiters_t *list, waiter_t *mine, uint64_t process)
    void waiters_remove(waiters_t *list, waiter_t *mine)


cdef class Call:
    cdef op_t op               # its wid is the number of the process
    cdef waiter_t waiter
    cdef uint64_t thread
    cdef bint is_done
    cdef object key
    cdef object lock           # held until the call has ended
    cdef object value
    cdef object error          # an Exception, which concerns every waiter, or None
    cdef object trace          # its traceback, to which no waiter is to add those of the others


cdef class Memo:
    cdef vectorcall_t vectorcall
    cdef core_t core           # the only one, but on free-threaded builds
    cdef cores_t cores         # all of them: &core, or an array
    cdef quota_t quota
    cdef int64_t ttl_ns
    cdef bint typed
    cdef object function
    cdef object timer          # or None
    cdef object info
    cdef object refuse
    cdef object mark           # stands between positional and keyword arguments in a key
    cdef dict __dict__
    cdef object __weakref__
