"""Finding an entry by its key: where the C core proposes and Python decides.

The core yields the entries whose tag is the one sought. Identity and the exact built-in types are compared
here without running any Python. Everything else is asked through ``__eq__``, which may do whatever it likes
to the table; a table whose version has moved meanwhile is searched again from the start.

The caller holds the core's lock. It is let go while ``__eq__`` runs, and has been let go when an exception comes back.

These are inline functions in a ``.pxd``, so that the compiler can fold them into their callers.
"""

from cpython.object cimport Py_EQ, PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp

from nearcache._core cimport core_t, index_glance, table_next, table_t, table_tag
from nearcache._locking cimport core_lock, core_unlock


cdef extern from *:
    """
    #define owned(value) ((PyObject *)(value))
    """
    bint likely(bint condition) noexcept nogil
    bint unlikely(bint condition) noexcept nogil
    object owned(PyObject *value)  # a new reference, turned into an object
    PyObject *lent "Py_NewRef"(object value)  # and back


cdef extern from "Python.h":
    # With PyObject * instead of object, for Cython would count references that are only borrowed here.
    bint is_text "PyUnicode_CheckExact"(PyObject *obj) noexcept
    bint is_data "PyBytes_CheckExact"(PyObject *obj) noexcept
    bint is_int "PyLong_CheckExact"(PyObject *obj) noexcept
    Py_ssize_t text_length "PyUnicode_GET_LENGTH"(PyObject *obj) noexcept
    int text_kind "PyUnicode_KIND"(PyObject *obj) noexcept
    const void *text_start "PyUnicode_DATA"(PyObject *obj) noexcept
    Py_ssize_t data_length "PyBytes_GET_SIZE"(PyObject *obj) noexcept
    const void *data_start "PyBytes_AS_STRING"(PyObject *obj) noexcept
    long long int_value "PyLong_AsLongLongAndOverflow"(PyObject *obj, int *overflow) noexcept
    bint is_float "PyFloat_CheckExact"(PyObject *obj) noexcept
    double float_value "PyFloat_AS_DOUBLE"(PyObject *obj) noexcept
    bint is_tuple "PyTuple_CheckExact"(PyObject *obj) noexcept
    Py_ssize_t tuple_length "PyTuple_GET_SIZE"(PyObject *items) noexcept
    PyObject *tuple_item "PyTuple_GET_ITEM"(PyObject *items, Py_ssize_t at) noexcept
    Py_hash_t object_hash "PyObject_Hash"(PyObject *obj) except -1
    int ask_equal "PyObject_RichCompareBool"(PyObject *a, PyObject *b, int op) except -1
    void hold "Py_INCREF"(PyObject *obj) noexcept
    void release "Py_DECREF"(PyObject *obj) noexcept


cdef extern from *:
    """
    #if PY_VERSION_HEX < 0x030B0000
    #include "longintrepr.h"
    #endif
    /* As Py_XDECREF, which compilers leave as a call. */
    static inline __attribute__((always_inline)) void release_or_null(PyObject *obj) {
        if (obj != NULL) {
            Py_DECREF(obj);
        }
    }
    /* A str's hash, or -1. Another thread may be storing it, where threads run at the same time. */
    #define text_hash(obj) __atomic_load_n(&((PyASCIIObject *)(obj))->hash, __ATOMIC_RELAXED)
    /* The value of an int of one or two digits, as every number from 1 to 2**60 is on all usual builds, and its hash,
     * which is the same; -1: it is another, and has to be asked. */
    static inline __attribute__((always_inline)) int64_t plain_value(PyObject *obj) {
    #if PY_VERSION_HEX < 0x030C0000
        const digit *digits = ((PyLongObject *)obj)->ob_digit;
        Py_ssize_t size = Py_SIZE(obj);
    #else
        const digit *digits = ((PyLongObject *)obj)->long_value.ob_digit;
        uintptr_t tag = ((PyLongObject *)obj)->long_value.lv_tag & ~(uintptr_t)4; /* from 3.14 on: immortal */
        uintptr_t size = (tag & 7) == 0 ? tag >> 3 : 0;
    #endif
        if (size == 1) {
            return (int64_t)digits[0];
        }
        return size == 2 ? (int64_t)digits[0] | (int64_t)digits[1] << PyLong_SHIFT : -1;
    }
    /* A tuple's hash, or -1: it has to be asked. From 3.14 on a tuple keeps it. Before, a tuple of ints and of strings
     * that were hashed before is hashed here as CPython does it (xxHash, Objects/tupleobject.c, since 3.8), but without
     * a call for each member; and so is, by calls, one of whatever is hashed without running Python, and of tuples. */
    #define items_of(items) (((PyTupleObject *)(items))->ob_item)
    #if PY_VERSION_HEX >= 0x030E0000
    #define TUPLES_KEEP_HASHES 1
    #define kept_hash(obj) __atomic_load_n(&((PyTupleObject *)(obj))->ob_hash, __ATOMIC_RELAXED)
    #else
    #define TUPLES_KEEP_HASHES 0
    #define kept_hash(obj) (-1)
    #endif
    #if SIZEOF_SIZE_T == 8
    #define PRIME_5 2870177450012600261u
    #define hash_more(hash, known) do { \
            (hash) += (uint64_t)(known) * 14029467366897019727u; \
            (hash) = ((hash) << 31 | (hash) >> 33) * 11400714785074694791u; \
        } while (0)
    #define hash_end(hash, size) ((int64_t)((hash) + ((uint64_t)(size) ^ PRIME_5 ^ 3527539u)))
    /* Whether a kind of object, if it is no tuple, is hashed without running Python. */
    static inline int hashes_itself(PyTypeObject *kind) {
        hashfunc hash = kind->tp_hash;
        return hash == PyUnicode_Type.tp_hash || hash == PyBytes_Type.tp_hash || hash == PyLong_Type.tp_hash ||
               hash == PyFloat_Type.tp_hash || hash == PyBaseObject_Type.tp_hash || hash == Py_TYPE(Py_None)->tp_hash;
    }
    static __attribute__((noinline)) int64_t hash_deep(PyObject *const *items, Py_ssize_t size, int depth) {
        uint64_t hash = PRIME_5;
        for (Py_ssize_t i = 0; i < size; i++) {
            int64_t known = -1;
            if (PyTuple_CheckExact(items[i])) {
                known = kept_hash(items[i]);
                if (known == -1 && depth > 0) {
                    known = hash_deep(items_of(items[i]), PyTuple_GET_SIZE(items[i]), depth - 1);
                }
            } else if (hashes_itself(Py_TYPE(items[i]))) {
                known = PyObject_Hash(items[i]);
            }
            if (known == -1) {
                return -1;
            }
            hash_more(hash, known);
        }
        return hash_end(hash, size);
    }
    static inline __attribute__((always_inline)) int64_t items_hash(PyObject *const *items, Py_ssize_t size) {
        uint64_t hash = PRIME_5;
        for (Py_ssize_t i = 0; i < size; i++) {
            int64_t known = -1;
            if (PyUnicode_CheckExact(items[i])) {
                known = text_hash(items[i]);
            } else if (PyLong_CheckExact(items[i])) {
                known = plain_value(items[i]);
            }
            if (__builtin_expect(known == -1, 0)) {
                return hash_deep(items, size, 2);
            }
            hash_more(hash, known);
        }
        return hash_end(hash, size);
    }
    #else
    #define items_hash(items, size) (-1)
    #endif
    #define tuple_hash(obj) (TUPLES_KEEP_HASHES ? kept_hash(obj) : items_hash(items_of(obj), PyTuple_GET_SIZE(obj)))
    """
    void release_or_null(PyObject *obj) noexcept
    const bint TUPLES_KEEP_HASHES
    Py_hash_t text_hash(PyObject *obj) noexcept
    int64_t plain_value(PyObject *obj) noexcept
    int64_t tuple_hash(PyObject *obj) noexcept
    int64_t items_hash(PyObject *const *items, Py_ssize_t size) noexcept  # of a tuple of these
    PyObject **items_of(PyObject *items) noexcept


cdef enum verdict_t:
    DIFFERENT = 0
    SAME = 1
    ASK = 2


ctypedef verdict_t (*inner_t)(PyObject *held, PyObject *key) noexcept


# A key whose __eq__ changes the table every time would be sought for ever.
cdef enum:
    MOST_RESTARTS = 10000


cdef extern from *:
    """
    /* What find_fast returns when only the keys themselves could tell; no entry has this index. */
    #define UNDECIDED UINT32_MAX
    """
    const uint32_t UNDECIDED


cdef inline int64_t known_hash(PyObject *key) noexcept:
    """The key's hash, if it can be read off, of a str hashed before, most ints, a tuple that keeps it; else -1."""
    if likely(is_text(key)):
        return text_hash(key)
    if is_int(key):
        return plain_value(key)
    return tuple_hash(key) if TUPLES_KEEP_HASHES and is_tuple(key) else -1


cdef inline int64_t ask_hash(PyObject *key) except -1:
    """The hash of a key that it cannot be read off."""
    cdef int64_t hash = tuple_hash(key) if not TUPLES_KEEP_HASHES and is_tuple(key) else -1
    return hash if hash != -1 else object_hash(key)


cdef inline int64_t hash_of(PyObject *key) except -1:
    """The key's hash."""
    cdef int64_t known = known_hash(key)
    return known if likely(known != -1) else ask_hash(key)


cdef inline verdict_t same_text(PyObject *a, PyObject *b) noexcept:
    cdef Py_ssize_t length = text_length(a)
    cdef int kind = text_kind(a)
    if length != text_length(b) or kind != text_kind(b):
        return DIFFERENT
    return SAME if memcmp(text_start(a), text_start(b), <size_t>(length * kind)) == 0 else DIFFERENT


cdef inline verdict_t same_data(PyObject *a, PyObject *b) noexcept:
    cdef Py_ssize_t length = data_length(a)
    if length != data_length(b):
        return DIFFERENT
    return SAME if memcmp(data_start(a), data_start(b), <size_t>length) == 0 else DIFFERENT


cdef inline verdict_t same_int(PyObject *a, PyObject *b) noexcept:
    cdef int64_t plain = plain_value(a)
    if likely(plain != -1):
        return SAME if plain_value(b) == plain else DIFFERENT
    cdef int a_is_large = 0
    cdef int b_is_large = 0
    cdef long long a_value = int_value(a, &a_is_large)
    cdef long long b_value = int_value(b, &b_is_large)
    if a_is_large and b_is_large:
        return ASK
    return SAME if a_value == b_value and not a_is_large and not b_is_large else DIFFERENT


cdef inline verdict_t same_each(
    PyObject *const *held, PyObject *const *items, Py_ssize_t count, inner_t inner
) noexcept:
    """Of what two tuples hold. It is asked about, unless it is the very same."""
    cdef Py_ssize_t i
    cdef verdict_t verdict
    for i in range(count):
        if held[i] != items[i]:
            verdict = inner(held[i], items[i])
            if verdict != SAME:
                return verdict
    return SAME


cdef inline verdict_t same_items(PyObject *held, PyObject *key, inner_t inner) noexcept:
    """Of two tuples. ``inner`` compares what they hold."""
    if tuple_length(held) != tuple_length(key):
        return DIFFERENT
    return same_each(items_of(held), items_of(key), tuple_length(key), inner)


cdef inline verdict_t same_inner(PyObject *held, PyObject *key) noexcept:
    """Of what tuples hold that may be tuples."""
    if unlikely(is_tuple(key) and is_tuple(held)):
        return same_items(held, key, same_innermost)
    return same_plain(held, key)


cdef inline verdict_t same_innermost(PyObject *held, PyObject *key) noexcept:
    return same_items(held, key, same_plain) if is_tuple(key) and is_tuple(held) else same_plain(held, key)


cdef inline verdict_t same_key(PyObject *held, PyObject *key) noexcept:
    """Are two objects of equal hash equal, as far as can be said without running Python?"""
    if is_tuple(key):
        return same_items(held, key, same_inner) if is_tuple(held) else ASK
    return same_plain(held, key)


cdef inline verdict_t same_plain(PyObject *held, PyObject *key) noexcept:
    """The same of two that are no tuples, or of two whose hashes may differ."""
    if is_text(key):
        if is_text(held):
            return same_text(held, key)
        # str and bytes of the same ASCII text have the same hash, and comparing them may warn (python -b).
        return DIFFERENT if is_data(held) else ASK
    if is_data(key):
        if is_data(held):
            return same_data(held, key)
        return DIFFERENT if is_text(held) else ASK
    if is_int(key) and is_int(held):
        return same_int(held, key)
    if is_float(key) and is_float(held):
        return SAME if float_value(key) == float_value(held) else DIFFERENT
    return ASK


cdef inline uint32_t find_same(const table_t *t, PyObject *key, int64_t hash) noexcept:
    """The entry whose key is this very object, found without calling anything; 0 says nothing."""
    cdef uint32_t ref = index_glance(&t.index, table_tag(t, hash))
    return ref if likely(ref - 1 < t.used and t.slab[ref].key == key) else 0


cdef inline uint32_t find_fast(const table_t *t, PyObject *key, int64_t hash) noexcept:
    """The key's entry, as far as can be told without running Python; 0: there is none; UNDECIDED."""
    cdef uint32_t tag = table_tag(t, hash)
    cdef uint64_t position = tag
    cdef uint32_t ref
    cdef verdict_t verdict
    while True:
        ref = table_next(t, tag, &position)
        if unlikely(ref == 0):
            return 0
        if likely(t.slab[ref].key == key):
            return ref
        if t.details[ref].tag != tag:
            continue
        verdict = same_key(t.slab[ref].key, key)
        if likely(verdict == SAME):
            return ref
        if verdict == ASK:
            return UNDECIDED


cdef inline uint32_t find_items(const table_t *t, PyObject *const *items, Py_ssize_t count, int64_t hash) noexcept:
    """As ``find_fast``, for a tuple that there need not be: what it would hold, and its hash."""
    cdef uint32_t tag = table_tag(t, hash)
    cdef uint64_t position = tag
    cdef uint32_t ref
    cdef PyObject *held
    cdef verdict_t verdict
    while True:
        ref = table_next(t, tag, &position)
        if unlikely(ref == 0):
            return 0
        held = t.slab[ref].key
        if unlikely(not is_tuple(held) or tuple_length(held) != count):
            continue
        verdict = same_each(items_of(held), items, count, same_inner)
        if likely(verdict == SAME):
            return ref
        if verdict == ASK:
            return UNDECIDED


cdef inline int ask(core_t *core, PyObject *held, PyObject *key) except -1:
    """Is this entry's key equal to that one? May run any code, for which the lock is let go."""
    cdef int equal
    hold(held)
    core_unlock(core)
    try:
        equal = ask_equal(held, key, Py_EQ)
    finally:
        release(held)
    core_lock(core)
    return equal


cdef inline int find_once(
    core_t *core, const table_t *t, PyObject *key, int64_t hash, uint32_t *found, bint *moved
) except -1:
    """One search. ``moved`` is set when the table changed under it; then the result is worthless."""
    cdef uint32_t tag = table_tag(t, hash)
    cdef uint64_t position = tag
    cdef uint64_t version = t.version
    cdef PyObject *held
    cdef verdict_t verdict
    moved[0] = False
    while True:
        found[0] = table_next(t, tag, &position)
        if found[0] == 0:
            return 0
        held = t.slab[found[0]].key
        if held == key:
            return 0
        if t.details[found[0]].tag != tag:
            continue
        verdict = same_key(held, key)
        if verdict == ASK:
            verdict = SAME if ask(core, held, key) else DIFFERENT
            if t.version != version:
                moved[0] = True
                return 0
        if verdict == SAME:
            return 0


cdef inline int find(core_t *core, const table_t *t, PyObject *key, int64_t hash, uint32_t *found) except -1:
    """Set ``found`` to the key's entry, or to 0. From the last comparison to the return no Python runs.

    Raises whatever ``__eq__`` raises, and RuntimeError if it never stops changing the table.
    """
    cdef bint moved
    for _ in range(MOST_RESTARTS):
        find_once(core, t, key, hash, found, &moved)
        if not moved:
            return 0
    core_unlock(core)
    raise RuntimeError("a key's __eq__ changes the store each time it is called")


cdef inline int find_both(
    core_t *core, PyObject *key, int64_t hash, uint32_t *found, uint32_t *pending
) except -1:
    """Find the key's entry and its entry in the pending table, both as of one instant."""
    cdef uint64_t version
    for _ in range(MOST_RESTARTS):
        find(core, &core.table, key, hash, found)
        pending[0] = 0
        if core.pending.count == 0:
            return 0
        version = core.table.version
        find(core, &core.pending, key, hash, pending)
        if core.table.version == version:
            return 0
    core_unlock(core)
    raise RuntimeError("a key's __eq__ changes the store each time it is called")
