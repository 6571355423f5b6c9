cdef class Pieces:
    cdef bytes front
    cdef object owner      # of the middle piece, which it keeps alive; None: there is only the front
    cdef const char *body
    cdef size_t size       # of the middle piece
    cdef bytes back
