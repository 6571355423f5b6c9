from libc.stdint cimport int64_t


cdef class Meter:
    cdef:
        readonly int64_t left
        readonly int64_t calls
        readonly bint changes
        dict _counted
        bint _through
        bint _comparing
        dict _known

    cdef int charge(self, object obj, tuple slots) except -1
    cdef int unfold(self, object obj, tuple slots, list waiting) except -1
    cdef bint walk(self, list waiting) except -1
    cdef bint look(self, object item, list waiting) except -1
    cdef bint look_closer(self, object item, list waiting) except -1
