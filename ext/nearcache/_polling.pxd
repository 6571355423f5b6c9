"""What the system has for waiting: descriptors that are watched, a clock, and sockets that are read."""

from libc.stdint cimport int64_t


cdef extern from "poll.h" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    const short POLLIN
    const short POLLOUT
    int poll(pollfd *watched, unsigned long count, int timeout_ms)


cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    const int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *now)
    int nanosleep(const timespec *wanted, timespec *left)


cdef extern from "sys/socket.h" nogil:
    cdef struct iovec:
        void *iov_base
        size_t iov_len
    cdef struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
        void *msg_control
        size_t msg_controllen
        int msg_flags
    const int MSG_DONTWAIT
    ssize_t recvmsg(int descriptor, msghdr *message, int flags)
    ssize_t sendmsg(int descriptor, const msghdr *message, int flags)
    ssize_t recv(int descriptor, void *buffer, size_t size, int flags)


cdef inline int64_t now_ns() noexcept nogil:
    """The monotonic clock."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec
