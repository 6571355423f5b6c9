# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
# cython: auto_pickle=False, autotestdict=False, binding=False
# cython: embedsignature=True, embedsignature.format=clinic
"""A read from L2 that is under way, and that others may wait for."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t

import threading

from nearcache._store cimport Op


cdef extern from "Python.h":
    unsigned long this_thread "PyThread_get_thread_ident"() noexcept

#: Outcome of a flight that ended with nothing to share: the waiter has to do the work itself.
ABANDONED = object()

cdef object PENDING = object()
cdef object make_event = threading.Event


cdef class Read(Op):
    """A pending L2 read that others may wait for.

    Attributes:
        since_ns: When it began: what it brings may be as old.
        due: The write id of what it brought, if that is to be loaded anew; else 0.
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
                self.done = make_event()
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
