from nearcache._single cimport HEAD_BYTES, plain_t


cdef class Opened:
    cdef plain_t plain
    cdef char[HEAD_BYTES] head
    cdef size_t ahead    # how many of these bytes there are
    cdef bint is_text
    cdef object value
    cdef char *start     # of the body, within the value; NULL: the value was decoded from it
    cdef size_t size     # of the body


cdef Opened begin_opened(const char *data, size_t have, size_t size, tuple usual)
cdef object end_opened(Opened opened)
