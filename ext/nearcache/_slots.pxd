"""What the other modules patch of their types: the parts of CPython's structures that are concerned."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t

from nearcache._core cimport core_t, entry_t
from nearcache._holding cimport visit_t


cdef extern from "Python.h":
    ctypedef PyObject *(*subscript_t "binaryfunc")(PyObject *obj, PyObject *key) noexcept
    ctypedef int (*assign_t "objobjargproc")(PyObject *obj, PyObject *key, PyObject *value) noexcept
    ctypedef int (*contains_t "objobjproc")(PyObject *obj, PyObject *key) noexcept
    ctypedef struct mapping_t "PyMappingMethods":
        subscript_t mp_subscript
        assign_t mp_ass_subscript
    ctypedef struct sequence_t "PySequenceMethods":
        contains_t sq_contains
        void *sq_item
        void *sq_ass_item
    ctypedef struct type_t "PyTypeObject":
        int (*tp_traverse)(PyObject *obj, visit_t visit, void *arg) noexcept
        int (*tp_clear)(PyObject *obj) noexcept
        sequence_t *tp_as_sequence
        mapping_t *tp_as_mapping
    ctypedef struct method_def_t "PyMethodDef":
        void *ml_meth
        int ml_flags
    ctypedef struct wrapper_descr_t "PyWrapperDescrObject":
        void *d_wrapped
    ctypedef struct method_descr_t "PyMethodDescrObject":
        method_def_t *d_method
    const int METH_FASTCALL
    const int METH_KEYWORDS
    object new_method "PyDescr_NewMethod"(type_t *owner, method_def_t *definition)


ctypedef int (*traverse_t)(PyObject *obj, visit_t visit, void *arg) noexcept
ctypedef int (*clear_t)(PyObject *obj) noexcept
ctypedef int (*contains_found_t)(PyObject *obj, const entry_t *entry) noexcept
ctypedef int (*assign_found_t)(PyObject *obj, PyObject *value, entry_t *entry) noexcept
ctypedef int (*assign_hashed_t)(PyObject *obj, PyObject *key, PyObject *value, int64_t hash) noexcept
ctypedef int (*put_once_t)(
    core_t *core, PyObject *key, PyObject *value, int64_t hash, uint64_t size, int64_t ttl_ns
) noexcept
ctypedef int (*delete_t)(PyObject *obj, PyObject *key, int64_t hash) noexcept
ctypedef PyObject *(*found_t)(PyObject *obj, const entry_t *entry) noexcept
ctypedef PyObject *(*found_or_t)(PyObject *obj, const entry_t *entry, PyObject *default) noexcept
ctypedef PyObject *(*default_t)(PyObject *obj, PyObject *key, PyObject *default) noexcept
ctypedef PyObject *(*method_t)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *) noexcept


cdef inline int rewrap(object cls, str name, void *function) except -1:
    """Change what a special method calls. Subclasses take their slot from the dictionary, by the name."""
    (<wrapper_descr_t *><PyObject *>cls.__dict__[name]).d_wrapped = function
    return 0


cdef inline int give_method(object cls, object method) except -1:
    """Give a subclass a descriptor of its own for an inherited method.

    CPython calls a method directly only where the descriptor is of the very type of the instance.
    """
    cdef object inherited = getattr(cls, method.__name__)
    cdef method_def_t *definition = (<method_descr_t *><PyObject *>method).d_method
    if (
        type(inherited) is type(method)
        and (<method_descr_t *><PyObject *>inherited).d_method == definition
        and inherited.__objclass__ is not cls
    ):
        setattr(cls, method.__name__, new_method(<type_t *><PyObject *>cls, definition))
    return 0


# An instance that is called through a field of its own, its arguments where the caller has put them (PEP 590).
cdef extern from "Python.h":
    """
    #define METHOD_FLAGS (Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR)
    #define INHERITS_VECTORCALL (PY_VERSION_HEX >= 0x030C0000)
    """
    ctypedef PyObject *(*vectorcall_t "vectorcallfunc")(
        PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names
    ) except NULL
    ctypedef struct callable_t "PyTypeObject":
        unsigned long tp_flags
        Py_ssize_t tp_vectorcall_offset
        void *tp_call
    const unsigned long METHOD_FLAGS
    const unsigned long PASSES_INSTANCES "Py_TPFLAGS_METHOD_DESCRIPTOR"
    const unsigned long CALLABLE_FLAGS "Py_TPFLAGS_HAVE_VECTORCALL"
    const bint INHERITS_VECTORCALL
    void PyType_Modified(type_t *kind)
    void *PyVectorcall_Call
    Py_ssize_t PyVectorcall_NARGS(size_t flagged) noexcept
    PyObject *call_through "PyObject_Vectorcall"(
        PyObject *function, PyObject *const *args, size_t flagged, PyObject *names
    ) except NULL


cdef inline int make_callable(object sample, const void *field, unsigned long flags) except -1:
    """Have the instances of a class called through a field of theirs, which is shown by one of them."""
    cdef object cls = type(sample)
    cdef callable_t *kind = <callable_t *><PyObject *>cls
    kind.tp_vectorcall_offset = <const char *>field - <const char *><PyObject *>sample
    kind.tp_call = PyVectorcall_Call
    kind.tp_flags |= flags
    rewrap(cls, "__call__", kind.tp_call)
    PyType_Modified(<type_t *>kind)
    return 0


cdef inline int let_pass_instances(object cls) except -1:
    """Have the instances of a class called with what they are called on as the first argument, without being bound."""
    (<callable_t *><PyObject *>cls).tp_flags |= PASSES_INSTANCES
    PyType_Modified(<type_t *><PyObject *>cls)
    return 0


cdef extern from *:
    """
    /* An instance of a class, not initialised. */
    static inline PyObject *new_object(PyObject *cls) {
        PyObject *none = PyTuple_New(0);
        PyObject *made = none != NULL ? ((PyTypeObject *)cls)->tp_new((PyTypeObject *)cls, none, NULL) : NULL;
        Py_XDECREF(none);
        return made;
    }
    """
    object new_object(object cls)


cdef inline int pass_on_call(object cls) except -1:
    """Have a class that was derived from such a one, and is called as it is, called as directly."""
    cdef callable_t *kind = <callable_t *><PyObject *>cls
    if not INHERITS_VECTORCALL and kind.tp_call == PyVectorcall_Call and not kind.tp_flags & CALLABLE_FLAGS:
        kind.tp_flags |= CALLABLE_FLAGS
        PyType_Modified(<type_t *>kind)
    return 0
