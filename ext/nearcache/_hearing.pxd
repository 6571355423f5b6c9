from libc.stdint cimport uint64_t

from nearcache._frames cimport chain_t


# What has come on a connection: bytes from `begin` to `end`.
cdef struct box_t:
    char *data
    size_t begin
    size_t end
    size_t capacity


cdef class Ear:
    cdef readonly unsigned int lane
    cdef bytes channel
    cdef dict awaited
    cdef chain_t chain
    cdef uint64_t epoch
    cdef uint64_t seq
    cdef uint64_t wid
    cdef Py_ssize_t messages
    cdef Py_ssize_t dropped
    cdef bint follows


cdef class Inbox:
    cdef public bint blind
    cdef public object witness
    cdef list ears
    cdef Ear last
    cdef bytes operations
    cdef object decode
    cdef dict watched
    cdef list keys
    cdef box_t box
