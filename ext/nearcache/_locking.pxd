"""The lock of a core.

With the interpreter lock there is nothing to do: it is not let go while the core is changed, since no Python runs then.
Without it (free-threaded builds) each core has a mutex. Whoever holds it neither runs Python nor allocates a Python
object, for either may come back to the same store; so nobody waits for a lock that he holds, and no thread ever holds
two.
"""

from nearcache._core cimport core_t


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define core_lock(core) PyMutex_Lock((PyMutex *)&(core)->lock)
    #define core_unlock(core) PyMutex_Unlock((PyMutex *)&(core)->lock)
    #else
    #define core_lock(core) ((void)(core))
    #define core_unlock(core) ((void)(core))
    #endif
    """
    void core_lock(core_t *core) noexcept nogil
    void core_unlock(core_t *core) noexcept nogil
