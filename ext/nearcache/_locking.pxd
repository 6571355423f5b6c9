"""The lock of a core.

With the interpreter lock there is nothing to do: it is not let go while the core is changed, since no Python runs then.
Without it (free-threaded builds) each core has a mutex. Whoever holds it neither runs Python nor allocates a Python
object, for either may come back to the same store; so nobody waits for a lock that he holds, and no thread ever holds
two.

A hit need not take it: ``core_enter`` lets threads read at the same time, each with notes of its own (``notes.h``).
What may be done between that and ``core_leave`` is to read, to hold what was read, and to note it.
"""

from libc.stdint cimport int64_t

from nearcache._core cimport core_t, notes_t


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #include "nearcache/core.h"
    CYTHON_UNUSED static inline void core_lock(const core_t *core) {
        PyMutex_Lock((PyMutex *)&core->lock);
        readers_await(&core->order.readers);
    }
    #define core_unlock(core) PyMutex_Unlock((PyMutex *)&(core)->lock)
    /* The least bit of a PyMutex says whether anybody holds it. */
    CYTHON_UNUSED static inline notes_t *core_enter(core_t *core) {
        uint32_t reader = (uint32_t)PyThreadState_GetUnchecked()->id;
        notes_t *notes = notes_of(&core->order.readers, reader);
        if (notes != NULL && notes_enter(notes, &core->lock)) {
            return notes;
        }
        if (notes != NULL) { /* somebody changes this core, or has these notes */
            PyMutex_Lock((PyMutex *)&core->lock);
            notes_take(notes);
            core_unlock(core);
            return notes;
        }
        core_lock(core);
        readers_welcome(&core->order.readers, reader);
        return NULL;
    }
    CYTHON_UNUSED static inline void core_leave(core_t *core, notes_t *notes) {
        if (notes != NULL) {
            notes_leave(notes);
        } else {
            core_unlock(core);
        }
    }
    /* Make room in notes that are full; 0: somebody has the lock, or more is to be done. */
    CYTHON_UNUSED static inline int core_unburden(core_t *core, notes_t *notes, int64_t now_ns) {
        int is_all;
        if (!notes_may_lock(&core->lock)) {
            return 0;
        }
        is_all = !core_wants_tending(core, now_ns);
        if (is_all) {
            core_settle_notes(core, notes);
        }
        core_unlock(core);
        return is_all;
    }
    #else
    #define core_unburden(core, notes, now_ns) ((void)(core), (void)(notes), (void)(now_ns), 0)
    #define core_lock(core) ((void)(core))
    #define core_unlock(core) ((void)(core))
    #define core_enter(core) ((void)(core), (notes_t *)NULL)
    #define core_leave(core, notes) ((void)(core), (void)(notes))
    #endif
    """
    void core_lock(core_t *core) noexcept nogil
    void core_unlock(core_t *core) noexcept nogil
    notes_t *core_enter(core_t *core) noexcept  # NULL: with the lock
    void core_leave(core_t *core, notes_t *notes) noexcept
    bint core_unburden(core_t *core, notes_t *notes, int64_t now_ns) noexcept
