"""Messages as a connection carries them (``ext/include/nearcache/frames.h``), as Cython sees that."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "nearcache/frames.h" nogil:
    const size_t ID_DIGITS

    ctypedef enum frame_t:
        FRAME_OTHER
        FRAME_PARTIAL
        FRAME_WHOLE

    ctypedef struct slice_t:
        const char *at
        size_t size

    ctypedef struct chain_t:
        pass

    ctypedef struct message_t:
        char operation
        uint64_t wid
        slice_t keys

    bint read_id(const char *at, uint64_t *value)
    void write_id(char *at, uint64_t value)
    void chain_set(chain_t *chain, uint64_t epoch, uint64_t seq, uint64_t wid)
    void chain_follow(chain_t *chain, const message_t *message)
    frame_t frame_push(const char *data, size_t size, slice_t *channel, slice_t *payload, size_t *used)
    frame_t frame_skip(const char *data, size_t size, size_t *used)
    bint message_next(slice_t payload, const chain_t *chain, const char *operations, message_t *message)
    int key_next(slice_t *rest, slice_t *key)
    bint key_number(slice_t key, int64_t *number)
