# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""A call of a function whose results a cache keeps, as far as L1 answers it.

Most calls give as many positional arguments as the function has parameters. Behind the function's name and generation
these are a key as they come; it is looked up before anything else happens. Python code arranges all others.
"""

from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_New

from nearcache._calls cimport put_item
from nearcache._lookup cimport lent, tuple_item, tuple_length
from nearcache._slots cimport CALLABLE_FLAGS, PyVectorcall_NARGS, make_callable, pass_on_call, vectorcall_t


cdef extern from "Python.h":
    int replace_item "PyList_SetItem"(list items, Py_ssize_t at, PyObject *item) except -1
    bint is_class "PyType_Check"(PyObject *obj) noexcept


cdef extern from *:
    """
    /* Without a GIL threads count, and read the item that another one replaces, at the same time. */
    #ifdef Py_GIL_DISABLED
    #define count_one(counter) ((void)__atomic_fetch_add((counter), 1, __ATOMIC_RELAXED))
    #define only_item(items) PyList_GetItemRef((items), 0)
    #else
    #define count_one(counter) ((void)++*(counter))
    #define only_item(items) Py_NewRef(PyList_GET_ITEM((items), 0))
    #endif
    #define items_of(items) (((PyTupleObject *)(items))->ob_item)
    """
    PyObject **items_of(tuple items) noexcept
    object only_item(list items)
    void count_one(Py_ssize_t *counter) noexcept


cdef object NOTHING = object()  # what L1 does not hold


cdef class Results:
    """A function's results in L1. Calling it returns one; ``_call`` is asked for what is not there.

    Args:
        hit: The cache's ``l1_hit``.
        name: What the function's keys begin with.
        generation: What they go on with; None: what the cache holds under ``(name,)``.
        plain: How many positional arguments are a key as they come; -1: none are.
        identity: What stands in a key for the instance of a method, a function.
        bound: What makes a method of this function and an instance.
    """

    cdef vectorcall_t vectorcall
    cdef object _hit
    cdef str _name
    cdef tuple _generation_key    # None: it is the one item of the next, which threads at the same time may replace
    cdef list _generation
    cdef Py_ssize_t _plain
    cdef object _identity
    cdef object _bound
    cdef public bint _in_class    # the first argument is an instance
    cdef public Py_ssize_t _hits
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        self.vectorcall = call
        self._generation = [None]
        pass_on_call(type(self))

    def __init__(self, hit, str name not None, generation, Py_ssize_t plain, identity, bound):
        self._hit = hit
        self._name = name
        self._generation_key = (name,) if generation is None else None
        self._generation = [generation]
        self._plain = plain
        self._identity = identity
        self._bound = bound

    def __call__(self, /, *args, **kwargs):
        """Return what the function returned for these arguments, calling it if that is not known."""
        raise NotImplementedError  # replaced below, as the slot is

    def __get__(self, instance, owner):
        return self if instance is None else self._bound(self, instance)

    def _find(self, tuple key not None, default):
        """Return the result under a key, or the default. A hit is counted."""
        found = self._hit(key, default)
        if found is not default:
            count_one(&self._hits)
        return found

    def _count_hit(self):
        """A call brought what another one has loaded."""
        count_one(&self._hits)

    def _held_generation(self, default):
        """Return the generation if this process knows it, else the default. It is used."""
        return held_generation(self, default)

    def _replace_generation(self, generation):
        """Begin another one, if the cache does not hold it."""
        replace_item(self._generation, 0, lent(generation))

    def _plain_key(self, tuple args not None):
        """Return the key of a call with these arguments and no others; None: Python code has to find it."""
        cdef PyObject *const *items = items_of(args)
        if self._in_class and len(args) > 0:
            return plain_key(self, items[0], items + 1, len(args) - 1)
        return plain_key(self, NULL, items, len(args))


cdef class BoundResults:
    """A function's results as a method of one instance.

    Args:
        method: The function.
        instance: What it is called on.
    """

    cdef vectorcall_t vectorcall
    cdef readonly Results __func__
    cdef readonly object __self__
    cdef object __weakref__

    def __cinit__(self, Results method not None, instance):
        self.vectorcall = call_bound
        self.__func__ = method
        self.__self__ = instance
        pass_on_call(type(self))

    def _plain_key(self, tuple args not None):
        """See :meth:`Results._plain_key`."""
        return plain_key(self.__func__, <PyObject *>self.__self__, items_of(args), len(args))

    def __call__(self, /, *args, **kwargs):
        """Return what the method returned for these arguments, calling it if that is not known."""
        raise NotImplementedError  # replaced below, as the slot is


cdef inline object held_generation(Results self, object default):
    return only_item(self._generation) if self._generation_key is None else self._hit(self._generation_key, default)


cdef inline object plain_key(Results self, PyObject *instance, PyObject *const *args, Py_ssize_t count):
    """The key of these arguments, if it takes no Python code to arrange them; else None.

    Args:
        instance: What the function is called on as a method, before the arguments; or NULL.
    """
    cdef Py_ssize_t at = 2 + (instance != NULL)
    cdef Py_ssize_t i
    if at + count != 2 + self._plain or (instance == NULL and count > 0 and is_class(args[0])):
        return None
    generation = held_generation(self, NOTHING)
    if generation is NOTHING:
        return None
    identity = self._identity(<object>instance) if instance != NULL else None
    cdef tuple key = PyTuple_New(at + count)
    put_item(key, 0, <PyObject *>self._name)
    put_item(key, 1, <PyObject *>generation)
    if instance != NULL:
        put_item(key, 2, <PyObject *>identity)
    for i in range(count):
        put_item(key, at + i, args[i])
    return key


cdef inline object result(
    Results self, PyObject *instance, PyObject *const *args, Py_ssize_t count, PyObject *names, bint is_method
):
    cdef object key = plain_key(self, instance, args, count) if names == NULL else None
    if key is None:
        return self._call(None, positional(instance, args, count), named(args + count, names), is_method)
    try:
        found = self._hit(key, NOTHING)
    except TypeError:  # Python code says which argument it is about
        return self._call(None, positional(instance, args, count), {}, is_method)
    if found is NOTHING:
        return self._call(key, positional(instance, args, count), {}, is_method)
    count_one(&self._hits)
    return found


cdef tuple positional(PyObject *instance, PyObject *const *args, Py_ssize_t count):
    cdef Py_ssize_t at = instance != NULL
    cdef Py_ssize_t i
    cdef tuple items = PyTuple_New(at + count)
    if instance != NULL:
        put_item(items, 0, instance)
    for i in range(count):
        put_item(items, at + i, args[i])
    return items


cdef dict named(PyObject *const *values, PyObject *names):
    cdef Py_ssize_t i
    cdef dict keywords = {}
    for i in range(tuple_length(names) if names != NULL else 0):
        keywords[<object>tuple_item(names, i)] = <object>values[i]
    return keywords


cdef PyObject *call(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    cdef Results self = <Results>obj
    cdef Py_ssize_t count = PyVectorcall_NARGS(flagged)
    if self._in_class and count > 0:
        return lent(result(self, args[0], args + 1, count - 1, names, True))
    return lent(result(self, NULL, args, count, names, self._in_class))


cdef PyObject *call_bound(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    cdef BoundResults self = <BoundResults>obj
    return lent(result(self.__func__, <PyObject *>self.__self__, args, PyVectorcall_NARGS(flagged), names, True))


cdef int make_results_callable(Results sample, BoundResults bound) except -1:
    make_callable(sample, &sample.vectorcall, CALLABLE_FLAGS)
    return make_callable(bound, &bound.vectorcall, CALLABLE_FLAGS)


make_results_callable(Results.__new__(Results), BoundResults(Results.__new__(Results), None))
