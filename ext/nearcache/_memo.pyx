# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""A function that remembers its results in L1's core: ``lru_cache`` and ``ttl_cache``, in place of functools' own.

A hit is one C function: CPython calls it through the vectorcall protocol, the arguments lie where the caller has put
them, and an exact ``str`` or ``int`` that is the only argument is its own key. Everything else makes a key as
functools does.

A miss opens an operation on the key in the core's pending table, as a read of L2 would. It serves twice: another thread
that misses the key finds it there and waits for its end instead of calling the function too; and ``cache_clear`` marks
it as overtaken, so that a result of before is not kept after it.

Who may wait is decided without running Python. A thread does not wait for a call of its own (recursion), nor for one
whose thread waits, through others, for this one, nor in a signal's handler that has come while it waits: it calls the
function, as functools would. So nobody can wait for ever that did not with functools, but for locks that this module
cannot see.
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.unistd cimport getpid

import os
from _thread import allocate_lock

from nearcache._calls cimport join_or_list, key_of, store_result, unlist
from nearcache._core cimport (
    CAUSE_DROPPED,
    CLOCK_NEVER_NS,
    NO_BOUND,
    STORE_FULL,
    clock_shorten,
    core_settle,
    core_t,
    lane_vouch,
    lanes_release,
    order_is_full,
    order_touch,
)
from nearcache._cores cimport (
    MOST_CORES,
    begin_cores,
    drop_everything,
    end_cores,
    evict_any,
    first_wrong,
    fix_clock,
    forget_cores,
    memory_of,
    spread,
    sum_counters,
    take_expired,
    traverse_cores,
)
from nearcache._holding cimport visit_t
from nearcache._local cimport bound, hit_at, hit_fast, hit_items, read
from nearcache._locking cimport core_lock, core_unlock
from nearcache._lookup cimport (
    find_same,
    hash_of,
    hold,
    is_int,
    is_text,
    items_hash,
    likely,
    owned,
    text_hash,
    unlikely,
)
from nearcache._slots cimport (
    METHOD_FLAGS,
    PyVectorcall_NARGS,
    call_through,
    clear_t,
    make_callable,
    traverse_t,
    type_t,
    vectorcall_t,
)


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    static PyMutex waiters_mutex;
    #define waiters_lock() PyMutex_Lock(&waiters_mutex)
    #define waiters_unlock() PyMutex_Unlock(&waiters_mutex)
    #else
    #define waiters_lock() ((void)0)
    #define waiters_unlock() ((void)0)
    #endif
    /* A refusal is 1 in some versions of CPython and -1 in others. */
    #define enter_recursion(where) (Py_EnterRecursiveCall(where) != 0 ? -1 : 0)
    """
    core_t *core_at(Memo memo, int64_t hash) noexcept  # of _cores.pxd
    void waiters_lock() noexcept
    void waiters_unlock() noexcept
    int enter_recursion(const char *where) except -1


cdef extern from "Python.h":
    bint PyAsyncGen_CheckExact(PyObject *value) noexcept
    bint PyGen_CheckExact(PyObject *value) noexcept
    object PyMethod_New(object function, object instance)
    void leave_recursion "Py_LeaveRecursiveCall"() noexcept
    uint64_t this_thread "PyThread_get_thread_ident"() noexcept


cdef waiters_t waiters  # of all memos: threads may wait for each other through several


# -- one call of the function --------------------------------------------------------------------------------


@cython.final
@cython.freelist(8)
cdef class Call:
    """A call of the function for one key, or the wait for another thread's."""

    def __dealloc__(self):
        lanes_release(self.op.lanes)


cdef Call new_call(object key, int64_t hash):
    cdef Call call = Call.__new__(Call)
    call.key = key
    call.thread = this_thread()
    call.lock = allocate_lock()
    call.lock.acquire()
    call.op.hash = hash
    call.op.key = <PyObject *>key
    call.op.owner = <PyObject *>call
    call.op.wid = <uint64_t>getpid()
    return call


cdef bint wait_for(Call other, Call mine) except -1:
    """Wait until a call has ended. False at once if that would be for ever, or might come to be."""
    cdef bint may_wait
    mine.waiter.thread = mine.thread
    mine.waiter.awaited = other.thread
    waiters_lock()
    may_wait = waiters_add(&waiters, &mine.waiter, mine.op.wid)
    waiters_unlock()
    if not may_wait:
        return False
    try:
        other.lock.acquire()
        other.lock.release()
    finally:
        waiters_lock()
        waiters_remove(&waiters, &mine.waiter)
        waiters_unlock()
    return True


# -- the function that remembers -----------------------------------------------------------------------------


@cython.final
@cython.trashcan(True)
cdef class Memo:
    """A function with a memory. Made by ``nearcache.lru_cache`` and ``nearcache.ttl_cache``.

    Args:
        function: What to call on a miss.
        maxsize: Most results to keep; None: no bound; 0: none.
        typed: Whether equal arguments of different types are different.
        ttl_ns: How long a result is kept; 0: without an end.
        timer: The clock, in seconds; None: the system's monotonic one.
        info: What ``cache_info`` returns, called with hits, misses, maxsize and currsize.
        refuse: Called with a generator that the function has returned; raises.
    """

    def __cinit__(self, function, maxsize, typed, ttl_ns, timer, info, refuse):
        begin_cores(&self.cores, &self.core, &self.quota, bound("maxsize", maxsize), os.urandom(16))
        lane_vouch(&self.core.lanes.lane[0], CLOCK_NEVER_NS)
        spread(&self.cores, MOST_CORES)
        self.ttl_ns = ttl_ns
        self.typed = bool(typed)
        self.function = function
        self.timer = timer
        self.info = info
        self.refuse = refuse
        self.mark = object()
        self.vectorcall = way_to_call(self)

    def __dealloc__(self):
        end_cores(&self.cores, &self.core)

    def __call__(self, *args, **kwargs):
        """Return what the function returned for these arguments, calling it if that is not known."""
        raise NotImplementedError  # replaced below, as the slot is

    def __get__(self, instance, owner):
        return self if instance is None else PyMethod_New(self, instance)

    def __reduce__(self):
        return self.__qualname__

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self

    def __sizeof__(self):
        return object.__sizeof__(self) + memory_of(&self.cores, &self.core)

    def cache_info(self):
        """Report cache statistics: hits, misses, maxsize and currsize."""
        cdef dict counted
        if self.ttl_ns != 0:
            set_time(self)
            take_expired(&self.cores, None)
        counted = sum_counters(&self.cores)
        limit = None if self.quota.limit == NO_BOUND else self.quota.limit
        return self.info(counted["hits"], counted["misses"], limit, counted["entries"])

    def cache_clear(self):
        """Clear the cache and cache statistics. Results of calls under way are not kept."""
        cdef uint32_t i
        drop_everything(&self.cores, CAUSE_DROPPED)
        for i in range(self.cores.count):
            core_lock(&self.cores.core[i])
            core_settle(&self.cores.core[i])
            self.cores.core[i].counters.hits = 0
            self.cores.core[i].counters.misses = 0
            core_unlock(&self.cores.core[i])

    def check_invariants(self):
        """Examine everything; AssertionError says what is wrong. Cost: O(capacity)."""
        cdef const char *wrong = first_wrong(&self.cores)
        if wrong != NULL:
            raise AssertionError(wrong.decode())


cdef int set_time(Memo self) except -1:
    """Ask the timer, if there is one, and make its instant the store's."""
    if self.timer is None:
        return 0
    seconds = self.timer()
    try:
        if not 0 <= seconds < 9e9:
            raise ValueError(f"timer() gave {seconds!r}: it must give seconds, 0 or more, as time.monotonic does")
    except TypeError as error:
        raise TypeError(
            f"timer() gave {seconds!r}: give a timer= of seconds, as time.monotonic; ttl= may be a timedelta anyway"
        ) from error
    fix_clock(&self.cores, True, <int64_t>(<double>seconds * 1e9))
    return 0


# -- calling it ----------------------------------------------------------------------------------------------


cdef vectorcall_t way_to_call(Memo self) noexcept:
    if self.quota.limit == 0:
        return call_uncached
    if self.typed or self.timer is not None or MOST_CORES != 1:
        return call_in_full
    return call_known if self.ttl_ns == 0 else call_known_timed


cdef inline uint32_t find_known(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) noexcept:
    """The entry of an only argument that is a str or an int, and the very object that is the key; or 0."""
    cdef int64_t hash
    if unlikely(names != NULL or PyVectorcall_NARGS(flagged) != 1):
        return 0
    if likely(is_text(args[0])):
        hash = text_hash(args[0])
        if unlikely(hash == -1):
            return 0
    elif is_int(args[0]):
        hash = hash_of(args[0])
    else:
        return 0
    return find_same(&(<Memo>obj).core.table, args[0], hash)


cdef PyObject *call_known(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    """Call a memo whose results have no end: what is there is valid."""
    cdef PyObject *value
    cdef uint32_t ref = find_known(obj, args, flagged, names)
    if likely(ref != 0 and not order_is_full(&(<Memo>obj).core.order)):
        order_touch(&(<Memo>obj).core.order, ref)
        value = (<Memo>obj).core.table.slab[ref].value
        hold(value)
        return value
    return call_in_full(obj, args, flagged, names)


cdef PyObject *call_known_timed(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    cdef PyObject *value
    cdef uint32_t ref = find_known(obj, args, flagged, names)
    if likely(ref != 0):
        value = hit_at(&(<Memo>obj).core, &(<Memo>obj).core.table.slab[ref])
        if likely(value != NULL):
            return value
    return call_in_full(obj, args, flagged, names)


cdef PyObject *call_uncached(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    cdef core_t *core = (<Memo>obj).cores.core
    core_lock(core)
    core.counters.misses += 1
    core_unlock(core)
    return call_function(<Memo>obj, args, flagged, names)


cdef PyObject *call_in_full(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    """Call a memo with any arguments, and any outcome."""
    cdef Memo self = <Memo>obj
    cdef Py_ssize_t count = PyVectorcall_NARGS(flagged)
    cdef object key
    cdef int64_t hash = -1
    cdef PyObject *value
    if self.timer is not None:
        set_time(self)
    if names == NULL and count > 1 and not self.typed:
        hash = items_hash(args, count)
        value = hit_items(core_at(self, hash), args, count, hash) if hash != -1 else NULL
        if likely(value != NULL):
            return value
    key = key_of(args, count, names, self.mark, self.typed)
    if hash == -1:
        hash = hash_of(<PyObject *>key)
    value = look_up(core_at(self, hash), <PyObject *>key, hash)
    if likely(value != NULL):
        return value
    result = compute(self, key, hash, args, flagged, names)
    hold(<PyObject *>result)
    return <PyObject *>result


cdef PyObject *look_up(core_t *core, PyObject *key, int64_t hash) except? NULL:
    """A counted read; NULL without an exception on a miss."""
    cdef bint absent = False
    cdef PyObject *value = NULL
    if is_text(key) or is_int(key):
        value = hit_fast(core, key, hash, &absent)
    if value != NULL or absent:
        return value
    return read(core, key, hash)


cdef PyObject *call_function(Memo self, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    """Call the function. Counted as a level of recursion, because our frames lie on the C stack as well."""
    cdef PyObject *value
    enter_recursion(b" while calling a function that remembers its results")
    try:
        value = call_through(<PyObject *>self.function, args, flagged, names)
    finally:
        leave_recursion()
    if unlikely(PyGen_CheckExact(value) or PyAsyncGen_CheckExact(value)):
        self.refuse(owned(value))
    return value


cdef object compute(
    Memo self, object key, int64_t hash, PyObject *const *args, size_t flagged, PyObject *names
):
    """What the function returns, of which another thread may be finding out just now."""
    cdef core_t *core = core_at(self, hash)
    cdef Call mine = new_call(key, hash)
    cdef Call other
    cdef PyObject *found
    while True:
        found = join_or_list(core, &mine.op, False)
        if found == NULL:
            return carry_out(self, core, mine, args, flagged, names)
        other = <Call>owned(found)
        if not wait_for(other, mine):
            join_or_list(core, &mine.op, True)
            return carry_out(self, core, mine, args, flagged, names)
        if other.error is not None:
            raise other.error.with_traceback(other.trace)
        if other.is_done:
            return other.value


cdef object carry_out(
    Memo self, core_t *core, Call mine, PyObject *const *args, size_t flagged, PyObject *names
):
    """Call the function in this thread, keep the result, and tell those who wait."""
    try:
        try:
            mine.value = owned(call_function(self, args, flagged, names))
        except Exception as error:
            mine.trace = error.__traceback__
            mine.error = error
            raise
        mine.is_done = True
        keep(self, core, mine)
        return mine.value
    finally:
        unlist(core, &mine.op)
        mine.lock.release()


cdef int keep(Memo self, core_t *core, Call mine) except -1:
    """Keep the result of a call, unless the cache was cleared since it began."""
    if self.timer is not None:
        set_time(self)
    while store_result(core, &mine.op, <PyObject *>mine.value, self.ttl_ns) == STORE_FULL:
        evict_any(&self.cores, <uint32_t>(core - self.cores.core) + 1)
    return 0


# -- the type's slots, patched once --------------------------------------------------------------------------


# Garbage collection. Cython does not see references in C structs; what it generates is called first.

cdef traverse_t traverse_objects = (<type_t *>Memo).tp_traverse
cdef clear_t clear_objects = (<type_t *>Memo).tp_clear


cdef int traverse_memo(PyObject *obj, visit_t visit, void *arg) noexcept:
    cdef int stop = traverse_objects(obj, visit, arg)
    return stop if stop != 0 else traverse_cores(&(<Memo>obj).cores, visit, arg)


cdef int clear_memo(PyObject *obj) noexcept:
    forget_cores(&(<Memo>obj).cores)
    return clear_objects(obj)


(<type_t *>Memo).tp_traverse = traverse_memo
(<type_t *>Memo).tp_clear = clear_memo


cdef int make_memos_callable(Memo sample) except -1:
    # As a method, its instance is put in front of the arguments without binding first.
    return make_callable(sample, &sample.vectorcall, METHOD_FLAGS)


make_memos_callable(Memo(None, 0, False, 0, None, None, None))
clock_shorten()
