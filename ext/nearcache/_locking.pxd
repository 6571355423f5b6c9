"""The lock of a core.

With the interpreter lock there is nothing to do: it is not let go while the core is changed, since no Python runs then.
Without it (free-threaded builds) each core has a mutex. Whoever holds it neither runs Python nor allocates a Python
object, for either may come back to the same store; so nobody waits for a lock that he holds, and no thread ever holds
two.

A hit need not take it: ``core_enter`` lets threads read at the same time, each with notes of its own (``notes.h``).
What may be done between that and ``core_leave`` is to read, to hold what was read, and to note it. ``core_lock`` closes
the notes of all of them until ``core_unlock``.
"""

from libc.stdint cimport int64_t

from nearcache._core cimport core_t, notes_t


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #include "nearcache/core.h"
    CYTHON_UNUSED static inline void core_lock(const core_t *core) {
        if (!notes_await_lock((uint8_t *)&core->lock)) {
            PyMutex_Lock((PyMutex *)&core->lock);
        }
        readers_close(&core->order.readers);
    }
    CYTHON_UNUSED static inline void core_unlock(const core_t *core) {
        readers_open(&core->order.readers);
        PyMutex_Unlock((PyMutex *)&core->lock);
    }
    #define core_reader() ((uint32_t)PyThreadState_GetUnchecked()->id)
    CYTHON_UNUSED static inline notes_t *core_enter(core_t *core) {
        uint32_t reader = core_reader();
        notes_t *notes = notes_of(&core->order.readers, reader);
        if (notes != NULL && notes_enter(notes)) {
            return notes;
        }
        if (notes != NULL) { /* somebody is changing this core for long, or has these notes */
            PyMutex_Lock((PyMutex *)&core->lock);
            notes_claim_surely(notes, NOTES_BUSY);
            PyMutex_Unlock((PyMutex *)&core->lock);
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
    /* The notes of who holds the lock, or NULL. */
    CYTHON_UNUSED static inline notes_t *core_own_notes(core_t *core) {
        uint32_t reader = core_reader();
        notes_t *notes = notes_of(&core->order.readers, reader);
        if (notes == NULL) {
            readers_welcome(&core->order.readers, reader);
        }
        return notes;
    }
    /* Make room in notes; 0: another does so in his, or more is to be done. */
    CYTHON_UNUSED static inline int core_unburden(core_t *core, notes_t *notes, int64_t now_ns) {
        if (core_wants_tending(core, now_ns) || !notes_try_lock(&core->settling)) {
            return 0;
        }
        core_settle_notes(core, notes);
        notes_unlock(&core->settling);
        return 1;
    }
    #else
    #define core_unburden(core, notes, now_ns) ((void)(core), (void)(notes), (void)(now_ns), 0)
    #define core_lock(core) ((void)(core))
    #define core_unlock(core) ((void)(core))
    #define core_enter(core) ((void)(core), (notes_t *)NULL)
    #define core_leave(core, notes) ((void)(core), (void)(notes))
    #define core_own_notes(core) ((void)(core), (notes_t *)NULL)
    #endif
    """
    void core_lock(core_t *core) noexcept nogil
    void core_unlock(core_t *core) noexcept nogil
    notes_t *core_enter(core_t *core) noexcept  # NULL: with the lock
    void core_leave(core_t *core, notes_t *notes) noexcept
    notes_t *core_own_notes(core_t *core) noexcept
    bint core_unburden(core_t *core, notes_t *notes, int64_t now_ns) noexcept
