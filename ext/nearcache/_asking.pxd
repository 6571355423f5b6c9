cdef class Pieces:
    cdef bytes front
    cdef object owner      # of the middle piece, which it keeps alive; None: there is only the front
    cdef const char *body
    cdef size_t size       # of the middle piece
    cdef bytes back
    cdef tuple usual       # how an envelope among the replies may be opened; None: there is none, or it is not to be
    cdef Py_ssize_t place  # which reply that is
