# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""A call of a function whose results a cache keeps, as far as L1 answers it.

Most calls give as many positional arguments as the function has parameters. Behind the function's name and generation
these are a key as they come; it is looked up before it is made. Other arguments are arranged by a function that was
compiled for that (see ``calls.Arguments``). Python code sees to what is left: misses, types in keys, classes as
arguments.
"""

from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_New
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from nearcache._by_parts cimport MOST_ITEMS, hit_by_parts, owner_of
from nearcache._calls cimport put_item, type_of
from nearcache._local cimport hit_fast
from nearcache._lookup cimport hash_of, items_of, lent, likely, owned, tuple_item, tuple_length, unlikely
from nearcache._slots cimport (
    CALLABLE_FLAGS, PyVectorcall_NARGS, call_through, let_pass_instances, make_callable, new_object, pass_on_call,
    vectorcall_t,
)
from nearcache._store cimport Store, core_at


cdef extern from "Python.h":
    int replace_item "PyList_SetItem"(list items, Py_ssize_t at, PyObject *item) except -1
    bint is_class "PyType_Check"(PyObject *obj) noexcept
    object address_of "PyLong_FromVoidPtr"(PyObject *obj)


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
    #if PY_VERSION_HEX >= 0x030D0000
    static inline int refers_to(PyObject *reference, PyObject *obj) {
        PyObject *there = NULL;
        int is_alive = PyWeakref_GetRef(reference, &there) > 0;
        Py_XDECREF(there); /* if it is what is sought, the caller has another */
        return is_alive && there == obj;
    }
    #else
    #define refers_to(reference, obj) (PyWeakref_GET_OBJECT(reference) == (obj))
    #endif
    """
    object only_item(list items)
    void count_one(Py_ssize_t *counter) noexcept
    bint refers_to(PyObject *reference, PyObject *obj) noexcept


cdef object NOTHING = object()  # what L1 does not hold


cdef class Results:
    """A function's results in L1. Calling it returns one; ``_call`` is asked for what is not there.

    Args:
        plan: What is known of the function, a ``functions.plan.Plan``.
        generation: What its keys go on with behind the name; None: what the cache holds under ``(name,)``.
        bound: What makes a method of this function and an instance: a class derived from :class:`BoundResults`.
    """

    cdef vectorcall_t vectorcall
    cdef Store _store             # or None: only the next may be asked
    cdef object _hit
    cdef str _name
    cdef tuple _generation_key    # None: it is the one item of the next, which threads at the same time may replace
    cdef list _generation
    cdef Py_ssize_t _plain        # how many positional arguments are a key as they come; -1: none are
    cdef object _arrange          # what makes a tuple of any others, or None
    cdef object _by_key           # key=, or None
    cdef dict _named              # by address: a weak reference, and what stands in a key for an instance or a class
    cdef dict _classes            # the same of classes that say by __cache_key__ what stands behind their name
    cdef object _identity         # what is asked where these say nothing
    cdef type _bound
    cdef public bint _in_class    # the first argument is an instance
    cdef public Py_ssize_t _hits
    cdef object __weakref__

    def __cinit__(self, *_, **__):
        self.vectorcall = call
        self._generation = [None]
        pass_on_call(type(self))

    def __init__(self, plan, generation, type bound not None):
        if not issubclass(bound, BoundResults):
            raise TypeError("bound= is a class derived from BoundResults")
        self._hit = plan.cache.l1_hit
        self._store = owner_of(self._hit)
        self._name = plan.name
        self._generation_key = (plan.name,) if generation is None else None
        self._generation = [generation]
        self._plain = plan.plain
        self._arrange = plan.arrange
        self._by_key = plan.key
        self._named = plan.identities.named.entries
        self._classes = plan.identities.classes.entries
        self._identity = plan.identities.of
        self._bound = bound

    def __call__(self, /, *args, **kwargs):
        """Return what the function returned for these arguments, calling it if that is not known."""
        raise NotImplementedError  # replaced below, as the slot is

    def __get__(self, instance, owner):
        cdef BoundResults bound
        if instance is None:
            return self
        if self._bound is None:
            raise TypeError("a function's results were not initialised")
        bound = new_object(self._bound)
        bound.__func__ = self
        bound.__self__ = instance
        return bound

    def _find(self, tuple key not None, default):
        """Return the result under a key, or the default. A hit is counted."""
        found = hit(self, key, default)
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

    def _plain_hit(self, tuple args not None, default):
        """Return the result of a call with these arguments and no others, if it is a plain hit, else the default."""
        cdef PyObject *const *items = items_of(<PyObject *>args)
        if self._in_class and len(args) > 0:
            return plain_hit_or(self, items[0], items + 1, len(args) - 1, default)
        return plain_hit_or(self, NULL, items, len(args), default)


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

    def __cinit__(self, *_, **__):
        self.vectorcall = call_bound
        pass_on_call(type(self))

    def __init__(self, Results method not None, instance):
        self.__func__ = method
        self.__self__ = instance

    def _plain_hit(self, tuple args not None, default):
        """See :meth:`Results._plain_hit`."""
        cdef PyObject *const *items = items_of(<PyObject *>args)
        return plain_hit_or(method_of(self), <PyObject *>self.__self__, items, len(args), default)

    def __call__(self, /, *args, **kwargs):
        """Return what the method returned for these arguments, calling it if that is not known."""
        raise NotImplementedError  # replaced below, as the slot is


cdef inline Results method_of(BoundResults self):
    if self.__func__ is None:
        raise TypeError("a bound method was not initialised")
    return self.__func__


# -- keys ------------------------------------------------------------------------------------------------------


cdef inline object hit(Results self, object key, object default):
    """What L1 holds under a key, or the default."""
    cdef PyObject *value
    cdef int64_t hash
    cdef bint absent = False
    if likely(self._store is not None):
        hash = hash_of(<PyObject *>key)
        value = hit_fast(core_at(self._store, hash), <PyObject *>key, hash, &absent)
        if likely(value != NULL):
            return owned(value)
        if absent:
            return default
    return self._hit(key, default)


cdef inline object held_generation(Results self, object default):
    return only_item(self._generation) if self._generation_key is None else hit(self, self._generation_key, default)


cdef inline object known(dict entries, PyObject *thing):
    """What is known of an object, or None."""
    cdef object entry = entries.get(address_of(thing)) if entries else None
    if entry is not None and refers_to(tuple_item(<PyObject *>entry, 0), thing):
        return <object>tuple_item(<PyObject *>entry, 1)
    return None


cdef inline object identity_of(Results self, PyObject *target):
    """What stands in a key for the instance, or the class, that a method is called on."""
    cdef object kind = <object>type_of(target)
    cdef object found = known(self._classes, <PyObject *>kind)
    if found is not None:
        own = getattr(kind, "__cache_key__", None)
        if callable(own):
            return (found, own(<object>target))
    found = known(self._named, target)
    if found is not None:
        return found
    if is_class(target) and self._generation_key is None:
        return <object>target  # nobody else sees the key
    return self._identity(<object>target)


cdef inline bint is_plain(Results self, PyObject *instance, PyObject *const *args, Py_ssize_t count) noexcept:
    """Whether these arguments are a key as they come."""
    cdef Py_ssize_t given = count + (instance != NULL)
    if given != self._plain or given > MOST_ITEMS - 2:
        return False
    return instance != NULL or count == 0 or not is_class(args[0])


cdef inline Py_ssize_t lay_out(
    Results self, PyObject **items, PyObject *generation, PyObject *identity, PyObject *const *args, Py_ssize_t count
) noexcept:
    """Put down what a key of plain arguments holds. Returns how much that is."""
    cdef Py_ssize_t at = 2 + (identity != NULL)
    cdef Py_ssize_t i
    items[0] = <PyObject *>self._name
    items[1] = generation
    items[2] = identity
    for i in range(count):
        items[at + i] = args[i]
    return at + count


cdef inline tuple tuple_of(PyObject *const *items, Py_ssize_t count):
    cdef tuple made = PyTuple_New(count)
    cdef Py_ssize_t i
    for i in range(count):
        put_item(made, i, items[i])
    return made


cdef object arranged_key(
    Results self, PyObject *instance, PyObject *const *args, Py_ssize_t count, PyObject *names, bint is_method
):
    """The key of arguments that a function arranges; None: Python code has to find it."""
    cdef Py_ssize_t named_count = tuple_length(names) if names != NULL else 0
    cdef PyObject *arguments[MOST_ITEMS]
    cdef Py_ssize_t at = instance != NULL
    if at + count + named_count > MOST_ITEMS:
        return None
    if self._by_key is None and (
        self._arrange is None or (instance == NULL and (is_method or (count > 0 and is_class(args[0]))))
    ):
        return None
    generation = held_generation(self, NOTHING)
    if generation is NOTHING:
        return None
    arguments[0] = instance
    memcpy(&arguments[at], args, <size_t>(count + named_count) * sizeof(PyObject *))
    if self._by_key is not None:
        part = owned(call_through(<PyObject *>self._by_key, arguments, <size_t>(at + count), names))
        return (self._name, generation, part)
    if at:
        identity = identity_of(self, instance)
        arguments[0] = <PyObject *>identity
    part = owned(call_through(<PyObject *>self._arrange, arguments, <size_t>(at + count), names))
    return (self._name, generation, *part)


# -- calls -----------------------------------------------------------------------------------------------------


cdef PyObject *plain_hit(
    Results self, PyObject *instance, PyObject *const *args, Py_ssize_t count, PyObject **key
) except? NULL:
    """The result for arguments that are a key as they come, a new reference. NULL without an exception: it has to be
    looked for with care, under the key, of which there is a new reference if it is wanted and the generation known.
    """
    cdef PyObject *items[MOST_ITEMS]
    cdef PyObject *value = NULL
    cdef PyObject *identity_or_null = NULL
    cdef object identity
    generation = held_generation(self, NOTHING)
    if unlikely(generation is NOTHING):
        return NULL
    if instance != NULL:
        identity = identity_of(self, instance)
        identity_or_null = <PyObject *>identity
    count = lay_out(self, items, <PyObject *>generation, identity_or_null, args, count)
    if likely(self._store is not None):
        value = hit_by_parts(self._store, items, count)
        if likely(value != NULL):
            count_one(&self._hits)
            return value
    if key != NULL:
        key[0] = lent(tuple_of(items, count))
    return NULL


cdef object plain_hit_or(
    Results self, PyObject *instance, PyObject *const *args, Py_ssize_t count, object default
):
    cdef PyObject *value = NULL
    if is_plain(self, instance, args, count):
        value = plain_hit(self, instance, args, count, NULL)
    return owned(value) if value != NULL else default


cdef PyObject *result(
    Results self, PyObject *instance, PyObject *const *args, Py_ssize_t count, PyObject *names, bint is_method
) except NULL:
    cdef PyObject *value
    cdef PyObject *made = NULL
    cdef object key = None
    if likely(names == NULL and is_plain(self, instance, args, count)):
        value = plain_hit(self, instance, args, count, &made)
        if likely(value != NULL):
            return value
        if made != NULL:
            key = owned(made)
    else:
        key = arranged_key(self, instance, args, count, names, is_method)
    return lent(looked_up(self, key, instance, args, count, names, is_method))


cdef object looked_up(
    Results self, object key, PyObject *instance, PyObject *const *args, Py_ssize_t count, PyObject *names,
    bint is_method,
):
    """The result under a key, if there is one, which is None where Python code has to find it."""
    if key is None:
        return self._call(None, positional(instance, args, count), named(args + count, names), is_method)
    try:
        found = hit(self, key, NOTHING)
    except TypeError:  # Python code says which argument it is about
        return self._call(None, positional(instance, args, count), named(args + count, names), is_method)
    if found is NOTHING:
        return self._call(key, positional(instance, args, count), named(args + count, names), is_method)
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
        return result(self, args[0], args + 1, count - 1, names, True)
    return result(self, NULL, args, count, names, self._in_class)


cdef PyObject *call_bound(PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names) except NULL:
    cdef BoundResults self = <BoundResults>obj
    return result(method_of(self), <PyObject *>self.__self__, args, PyVectorcall_NARGS(flagged), names, True)


cdef int make_results_callable(Results sample, BoundResults bound) except -1:
    make_callable(sample, &sample.vectorcall, CALLABLE_FLAGS)
    return make_callable(bound, &bound.vectorcall, CALLABLE_FLAGS)


def called_on_instances(cls):
    """Decorate a class of results whose first argument is an instance, always: such are called without being bound."""
    let_pass_instances(cls)
    return cls


make_results_callable(Results.__new__(Results), BoundResults.__new__(BoundResults))
