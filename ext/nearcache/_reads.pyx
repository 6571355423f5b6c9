# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""A read from L2 that is under way, and that others may wait for; and what threads wait on."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

import _thread

from nearcache._store cimport Op


cdef extern from "Python.h":
    unsigned long this_thread "PyThread_get_thread_ident"() noexcept


cdef extern from *:
    """
    static inline int flag_is_up(const int *flag) { return __atomic_load_n(flag, __ATOMIC_SEQ_CST); }
    static inline void flag_put(int *flag, int up) { __atomic_store_n(flag, up, __ATOMIC_SEQ_CST); }
    """
    bint flag_is_up(const int *flag) noexcept
    void flag_put(int *flag, int up) noexcept


#: Outcome of a flight that ended with nothing to share: the waiter has to do the work itself.
ABANDONED = object()

cdef object PENDING = object()
cdef double LONGEST_S = _thread.TIMEOUT_MAX


cdef class Event:
    """Something that happens, and wakes the threads that wait for it: ``threading.Event`` without its lock.

    That one's methods are in Python. A signal handler that raises (Ctrl-C, a time limit) can end them just when they
    have the lock, and then whoever comes next, the listener say, waits for it for ever. Here a handler can run only
    while :meth:`wait` blocks. Who waits does so on a lock of their own, known before they look for the last time; and
    it is of the kind that is made by then, for gevent may have put its own there after the import.
    """

    def __cinit__(self):
        self.waiting = []

    def is_set(self):
        """Whether it has happened."""
        return flag_is_up(&self.flag)

    def set(self):
        """It happens. Harmless the second time."""
        flag_put(&self.flag, 1)
        for gate in list(self.waiting):
            try:
                gate.release()
            except RuntimeError:  # somebody else has just done it
                pass

    def clear(self):
        """It has not happened any more."""
        flag_put(&self.flag, 0)

    def wait(self, timeout=None):
        """Block until it happens, or for so many seconds at most; return whether it has."""
        if flag_is_up(&self.flag):
            return True
        cdef object gate = _thread.allocate_lock()
        gate.acquire()
        self.waiting.append(gate)
        try:
            if not flag_is_up(&self.flag):
                gate.acquire(True, -1 if timeout is None else min(max(timeout, 0), LONGEST_S))
            return flag_is_up(&self.flag)
        finally:
            self.waiting.remove(gate)


cdef class Read(Op):
    """A pending L2 read that others may wait for.

    Attributes:
        since_ns: When it began: what it brings may be as old.
        due: What it brought, if that is to be loaded anew; else None.
    """

    def __init__(self, key, lane, since_ns=0):
        Op.__init__(self, key, lane)
        begin_read(self, since_ns)

    @property
    def outcome(self):
        """What came of it; :data:`ABANDONED` as long as nothing has."""
        return ABANDONED if self.result is PENDING else self.result

    def resolve(self, outcome, lock):
        """Give every waiter the outcome. Once is enough: later calls change nothing."""
        cdef list woken = []
        try:
            with lock:
                conclude(self, outcome, woken)
        finally:  # without memory for all of them, those that are known
            for call in woken:
                call()

    def wait(self, lock, timeout_s):
        """Return the outcome, or :data:`ABANDONED` if it is not there within the time.

        It is abandoned at once in the thread that began the read, which only a thread with several things in hand
        asks for: tasks, or a signal handler. It would keep itself waiting.
        """
        with lock:
            if self.result is not PENDING:
                return self.result
            if self.carrier == this_thread():
                return ABANDONED
            if self.done is None:
                self.done = Event()
            done = self.done
        return self.result if done.wait(timeout_s) else ABANDONED

    def add_done_callback(self, callback, lock):
        """Have it called, in whatever thread, when :attr:`outcome` is there; at once if it is."""
        cdef bint is_pending
        with lock:
            is_pending = self.result is PENDING
            if is_pending:
                if self.callbacks is None:
                    self.callbacks = []
                self.callbacks.append(callback)
        if not is_pending:
            callback()

    def remove_done_callback(self, callback, lock):
        """Forget a callback, if it is not being called already."""
        with lock:
            if self.callbacks is not None and callback in self.callbacks:
                self.callbacks.remove(callback)


cdef int begin_read(Read self, int64_t since_ns) except -1:
    self.since_ns = since_ns
    self.result = PENDING
    self.carrier = this_thread()
    return 0


cdef Read new_read(object key, int64_t hash, unsigned int lane, int64_t since_ns):
    """As ``Read(key, lane, since_ns)``, of a key whose hash is known."""
    cdef Read read = Read.__new__(Read)
    read.op.lane = lane
    read.op.hash = hash
    read.key = key
    read.op.key = <PyObject *>key
    read.op.owner = <PyObject *>read
    read.op.storable = True
    read.op.joinable = True
    read.ready = True
    begin_read(read, since_ns)
    return read


cdef int conclude(Read self, object outcome, list woken) except -1:
    """Note what came of it, once, and who is to be told. The caller holds the lock."""
    if self.result is not PENDING:
        return 0
    self.result = outcome
    if self.done is not None:
        woken.append(self.done.set)
    if self.callbacks is not None:
        for callback in self.callbacks:  # one by one: some Pythons leak a list if they cannot extend another by it
            woken.append(callback)
        self.callbacks = None
    return 0


def gather(gets, more, list values not None, Py_ssize_t count):
    """Move whole replies from a parser to ``values``; return whether there are ``count`` now.

    Args:
        gets: Returns the next reply, or ``more`` when it needs more bytes.
    """
    cdef object value
    while len(values) < count:
        value = gets()
        if value is more:
            return False
        values.append(value)
    return True
