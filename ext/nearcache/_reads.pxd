from libc.stdint cimport int64_t

from nearcache._store cimport Op


cdef class Event:
    cdef int flag
    cdef list waiting      # the locks of those who wait


cdef class Read(Op):
    cdef public int64_t since_ns
    cdef public object due
    cdef object result     # PENDING until there is one
    cdef Event done        # once somebody waits; or None
    cdef list callbacks    # or None
    cdef unsigned long carrier


cdef Read new_read(object key, int64_t hash, unsigned int lane, int64_t since_ns)
cdef int conclude(Read self, object outcome, list woken) except -1
