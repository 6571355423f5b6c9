# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Listeners of stores: how they are called, also by others, and those that caches have for themselves."""

cimport cython
from cpython.object cimport PyObject

from weakref import WeakMethod

from nearcache._holding cimport tell_named
from nearcache._interrupts cimport postpone
from nearcache._lookup cimport hold


def tell_listener(listener, key, value, str cause):
    """Call a listener as a store does: an Exception that it raises goes to ``sys.unraisablehook``."""
    tell_named(<PyObject *>listener, <PyObject *>key, <PyObject *>value, cause)


@cython.final
cdef class WeakListener:
    """A listener that calls a method of a cache which has the store, or is the store: without a cycle of references.

    The method raises nothing. What comes out of it all the same is a signal handler's (or of a key's ``__eq__``), and
    the program gets it. It is compiled, so that no handler can run in here.
    """

    cdef object method

    def __init__(self, method):
        self.method = WeakMethod(method)

    def __call__(self, key, value, cause, /):
        try:
            method = self.method()
            if method is not None:
                method(key, value, cause)
        except BaseException as error:
            hold(<PyObject *>error)
            postpone(<PyObject *>error, <PyObject *>self)
