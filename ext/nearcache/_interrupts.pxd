"""What signal handlers raise where a listener is called, and how it reaches the program all the same.

CPython runs the handler of a signal at the next step of Python code, which is the listener's where a store is what the
program is busy with. What the handler raises (KeyboardInterrupt, a time limit) is not the listener's, and not for
``sys.unraisablehook``. Nor can the change raise it, which is complete and may be in the middle of another. So it is
kept until the listener has been called, and then left to the interpreter, which raises it in the main thread as it
would have done for the signal.
"""

from cpython.exc cimport PyErr_ExceptionMatches
from cpython.object cimport PyObject

from nearcache._lookup cimport unlikely


cdef extern from *:
    """
    /* The exception that is set, a new reference; it is set no longer. */
    CYTHON_UNUSED static inline PyObject *take_error(void) {
    #if PY_VERSION_HEX >= 0x030C0000
        return PyErr_GetRaisedException();
    #else
        PyObject *type, *error, *trace;
        PyErr_Fetch(&type, &error, &trace);
        PyErr_NormalizeException(&type, &error, &trace);
        if (trace != NULL) {
            PyException_SetTraceback(error, trace);
        }
        Py_XDECREF(type);
        Py_XDECREF(trace);
        return error;
    #endif
    }
    /* Set an exception, whose reference goes with it. */
    CYTHON_UNUSED static inline int set_error(PyObject *error) {
    #if PY_VERSION_HEX >= 0x030C0000
        PyErr_SetRaisedException(error);
    #else
        PyErr_Restore(Py_NewRef((PyObject *)Py_TYPE(error)), error, PyException_GetTraceback(error));
    #endif
        return -1;
    }
    /* The same, as a pending call. */
    CYTHON_UNUSED static int raise_pending(void *error) {
        return set_error((PyObject *)error);
    }
    #define raise_soon(error) Py_AddPendingCall(raise_pending, error)
    """
    PyObject *take_error() noexcept
    int set_error(PyObject *error) noexcept
    int raise_soon(PyObject *error) noexcept


cdef extern from "Python.h":
    int run_pending "Py_MakePendingCalls"() noexcept
    void report_unraisable "PyErr_WriteUnraisable"(PyObject *where) noexcept


cdef inline PyObject *interruption() noexcept:
    """What the handlers of signals that have come raise, a new reference; NULL: nothing. Another may wait behind it."""
    return take_error() if unlikely(run_pending() < 0) else NULL


cdef inline bint is_main_thread() noexcept:
    import threading
    return threading.get_ident() == threading.main_thread().ident


cdef inline void postpone(PyObject *error, PyObject *where) noexcept:
    """Have the main thread raise it at its next step. The reference goes with it.

    What came in another thread is no handler's, and is reported; as is what would be one too many.
    """
    if not is_main_thread() or raise_soon(error) < 0:
        set_error(error)
        report_unraisable(where)


cdef inline void pass_on(PyObject *listener) noexcept:
    """See to what a listener has raised. That is reported as an error in a ``__del__`` is, and concerns nobody else.

    But what is no Exception is to end what the program does, and the listener's alone is not that.
    """
    if PyErr_ExceptionMatches(Exception):
        report_unraisable(listener)
    else:
        postpone(take_error(), listener)
