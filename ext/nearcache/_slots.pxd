"""What ``_store.pyx`` patches of its type: the parts of CPython's structures that are concerned."""

from cpython.object cimport PyObject

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
ctypedef PyObject *(*method_t)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *) except NULL
