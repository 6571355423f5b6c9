# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""What makes an L1 hit through ``await`` cheap: an answer that is ready, and the method that gives it.

``await`` asks an object for its iterator and that for its next step. A coroutine answers by running a frame, and an
iterator by raising StopIteration with the value in it. :class:`Ready` does neither: it hands the value to the
interpreter through ``am_send``, the slot that coroutines of Python's own are driven by, and makes no exception.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from types import GenericAlias


cdef extern from *:
    """
    static void ready_send(PyObject *type, sendfunc send) {
        ((PyTypeObject *)type)->tp_as_async->am_send = send;
    }
    """
    ctypedef enum PySendResult:
        PYGEN_RETURN
    ctypedef PySendResult (*sendfunc)(PyObject *ready, PyObject *value, PyObject **result) noexcept
    void ready_send(object type, sendfunc send)


cdef object NOTHING = object()  # what the store does not hold


@cython.final
@cython.freelist(64)
cdef class Ready:
    """A coroutine that is over before it begins: ``await`` returns the value without suspending.

    It can be awaited, or run as a task, and more than once.
    """

    cdef object value

    def __cinit__(self, value):
        self.value = value

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration(self.value)

    def send(self, value, /):
        """Return by raising StopIteration, as a coroutine does that has nothing to wait for."""
        raise StopIteration(self.value)

    def throw(self, kind, value=None, trace=None, /):
        """Raise the exception: there is nobody inside to handle it."""
        error = kind
        if isinstance(kind, type):
            if value is None:
                error = kind()
            elif isinstance(value, kind):
                error = value
            else:
                error = kind(*value) if isinstance(value, tuple) else kind(value)
        elif value is not None:
            raise TypeError("instance exception may not have a separate value")
        raise error if trace is None else error.with_traceback(trace)

    def close(self):
        """Nothing is open."""


cdef PySendResult send_ready(PyObject *ready, PyObject *value, PyObject **result) noexcept:
    cdef object answer = (<Ready>ready).value
    Py_INCREF(answer)
    result[0] = <PyObject *>answer
    return PYGEN_RETURN


ready_send(Ready, send_ready)


cdef class Hits:
    """The part of an asynchronous cache that answers from L1.

    Args:
        hit: The ``l1_hit`` method of the store.
    """

    cdef object _hit

    __class_getitem__ = classmethod(GenericAlias)

    def __init__(self, hit):
        self._hit = hit

    def get(self, key, default=None, *, max_age=None):
        """Return, when awaited, the value of a key, or the default if no tier has it. Never calls the loader.

        Args:
            max_age: A value that was stored longer ago, in seconds, counts as missing.
        """
        if max_age is not None:
            return self._missing_aged(key, default, max_age)
        found = self._hit(key, NOTHING)
        if found is NOTHING:
            return self._missing_get(key, default)
        return Ready(found)

    def get_or_load(self, key, loader=None, *, ttl=..., tags=..., max_age=None):
        """Return, when awaited, the value of a key, loading it on a miss. See :meth:`Cache.get_or_load`.

        Args:
            key: Encodable (``memory://``: hashable).
            loader: A coroutine function, which runs in this event loop, or a function that may block, which runs in a
                worker thread; default: the cache's own ``loader=``.
            ttl: Lifetime of a loaded value in seconds; ``None``: no expiry; default: the cache's.
            tags: Of a loaded value; as in :meth:`Cache.get_or_load`.
            max_age: A value that was stored longer ago, in seconds, is loaded anew.
        """
        if max_age is None:
            found = self._hit(key, NOTHING)
            if found is not NOTHING:
                return Ready(found)
        options = {}  # the defaults are the hook's
        if ttl is not ...:
            options["ttl"] = ttl
        if tags is not ...:
            options["tags"] = tags
        if max_age is not None:
            options["max_age"] = max_age
        return self._missing_load(key, loader, **options)
