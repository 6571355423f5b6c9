"""What ``_store.pyx`` and ``_memo.pyx`` patch of their types: the parts of CPython's structures that are concerned."""

from cpython.object cimport PyObject

from nearcache._core cimport entry_t
from nearcache._holding cimport visit_t


cdef extern from "Python.h":
    ctypedef PyObject *(*subscript_t "binaryfunc")(PyObject *obj, PyObject *key) noexcept
    ctypedef struct mapping_t "PyMappingMethods":
        subscript_t mp_subscript
    ctypedef struct sequence_t "PySequenceMethods":
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
ctypedef PyObject *(*found_t)(PyObject *obj, const entry_t *entry) noexcept
ctypedef PyObject *(*method_t)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *) noexcept


# An instance that is called through a field of its own, its arguments where the caller has put them (PEP 590).
cdef extern from "Python.h":
    """
    #define METHOD_FLAGS (Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_METHOD_DESCRIPTOR)
    """
    ctypedef PyObject *(*vectorcall_t "vectorcallfunc")(
        PyObject *obj, PyObject *const *args, size_t flagged, PyObject *names
    ) except NULL
    ctypedef struct callable_t "PyTypeObject":
        unsigned long tp_flags
        Py_ssize_t tp_vectorcall_offset
        void *tp_call
    const unsigned long METHOD_FLAGS
    void PyType_Modified(type_t *kind)
    void *PyVectorcall_Call
    Py_ssize_t PyVectorcall_NARGS(size_t flagged) noexcept
    PyObject *call_through "PyObject_Vectorcall"(
        PyObject *function, PyObject *const *args, size_t flagged, PyObject *names
    ) except NULL
