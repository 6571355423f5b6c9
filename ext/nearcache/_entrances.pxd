"""What ``[]``, ``in``, assignment, ``del`` and ``get`` enter: a short way, before what Cython has made of the methods.

Most hits are by the very object that is the key. Such a one is served by two small functions, the first ending in a
call of the second, so that finding has nothing to put aside. The rest goes through the methods.

All of it is part of ``_store.pyx``, and nobody else's.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from nearcache._at_once cimport put_at_once, remove_at_once
from nearcache._core cimport clock_now, core_is_valid, core_t, entry_t, table_lacks, table_tag
from nearcache._cores cimport MOST_CORES
from nearcache._keyed cimport contains_hashed, remove_hashed, subscript_hashed
from nearcache._local cimport hit_at, hit_fast, put
from nearcache._lookup cimport ask_hash, find_same, hold, known_hash, likely, unlikely
from nearcache._slots cimport (
    METH_FASTCALL, METH_KEYWORDS, assign_found_t, assign_hashed_t, assign_t, contains_found_t, contains_t,
    default_t, delete_t, found_or_t, found_t, method_def_t, method_descr_t, method_t, put_once_t, rewrap, subscript_t,
    type_t,
)
from nearcache._store cimport Store, core_at


cdef extern from *:
    """
    #include "nearcache/core.h"
    /* What Cython has made: ways for everything. */
    static binaryfunc subscript_in_full;
    static objobjproc contains_in_full;
    static objobjargproc assign_in_full;
    static PyObject *(*get_in_full)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    /* What is called by address, so that the compiler keeps it apart from its caller. */
    static binaryfunc subscript_other;
    static objobjproc contains_other;
    static int (*contains_entry)(PyObject *, const entry_t *);
    static PyObject *(*subscript_entry)(PyObject *, const entry_t *);
    static int (*put_once)(core_t *, PyObject *, PyObject *, int64_t, uint64_t, int64_t);
    static objobjargproc assign_other;
    static int (*assign_entry)(PyObject *, PyObject *, entry_t *);
    static objobjargproc assign_again;
    static int (*assign_new)(PyObject *, PyObject *, PyObject *, int64_t);
    static int (*delete_entry)(PyObject *, PyObject *, int64_t);
    static int (*delete_again)(PyObject *, PyObject *, int64_t);
    static PyObject *(*get_entry)(PyObject *, const entry_t *, PyObject *);
    static PyObject *(*get_nothing)(PyObject *, PyObject *, PyObject *);
    static PyObject *(*get_again)(PyObject *, PyObject *, PyObject *);
    static PyObject *(*get_otherwise)(PyObject *, PyObject *const *, Py_ssize_t, PyObject *);
    """
    subscript_t subscript_in_full
    contains_t contains_in_full
    assign_t assign_in_full
    method_t get_in_full
    subscript_t subscript_other
    found_t subscript_entry
    contains_t contains_other
    contains_found_t contains_entry
    put_once_t put_once
    assign_t assign_other
    assign_found_t assign_entry
    assign_t assign_again
    assign_hashed_t assign_new
    delete_t delete_entry
    delete_t delete_again
    found_or_t get_entry
    default_t get_nothing
    default_t get_again
    method_t get_otherwise


# -- [] --------------------------------------------------------------------------------------------------------


cdef inline PyObject *subscript_found(PyObject *obj, const entry_t *entry) noexcept:
    cdef PyObject *value = hit_at(&(<Store>obj).core, entry)
    if unlikely(value == NULL):
        return subscript_in_full(obj, entry.key)
    return value


cdef inline PyObject *subscript_at_once(PyObject *obj, PyObject *key) noexcept:
    cdef int64_t hash
    cdef uint32_t ref
    if likely(MOST_CORES == 1 and (<Store>obj).keyfunc is None):
        hash = known_hash(key)
        if unlikely(hash == -1):
            return subscript_other(obj, key)
        ref = find_same(&(<Store>obj).core.table, key, hash)
        if likely(ref != 0):
            return subscript_entry(obj, &(<Store>obj).core.table.slab[ref])
    return subscript_in_full(obj, key)


cdef inline PyObject *subscript_asking(PyObject *obj, PyObject *key) except NULL:
    """The same for a key that is neither str nor int, or was not hashed before."""
    cdef int64_t hash = ask_hash(key)
    cdef uint32_t ref = find_same(&(<Store>obj).core.table, key, hash)
    if likely(ref != 0):
        return subscript_entry(obj, &(<Store>obj).core.table.slab[ref])
    return subscript_hashed(<Store>obj, <object>key, hash)


# -- in, assignment, del ------------------------------------------------------------------------------------------


cdef inline int contains_found(PyObject *obj, const entry_t *entry) noexcept:
    if likely(core_is_valid(&(<Store>obj).core, entry, clock_now(&(<Store>obj).core.source))):
        return 1
    return contains_in_full(obj, <PyObject *>entry.key)


cdef inline int contains_at_once(PyObject *obj, PyObject *key) noexcept:
    cdef int64_t hash
    cdef uint32_t ref
    if likely(MOST_CORES == 1 and (<Store>obj).keyfunc is None):
        hash = known_hash(key)
        if unlikely(hash == -1):
            return contains_other(obj, key)
        ref = find_same(&(<Store>obj).core.table, key, hash)
        if likely(ref != 0):
            return contains_entry(obj, &(<Store>obj).core.table.slab[ref])
        if likely(not (<Store>obj).hooked_in) and table_lacks(
            &(<Store>obj).core.table, table_tag(&(<Store>obj).core.table, hash)
        ):
            return 0
    return contains_in_full(obj, key)


cdef inline int contains_asking(PyObject *obj, PyObject *key) except -1:
    """The same for a key that is neither str nor int, or was not hashed before."""
    cdef core_t *core = &(<Store>obj).core
    cdef int64_t hash = ask_hash(key)
    cdef uint32_t ref = find_same(&core.table, key, hash)
    if likely(ref != 0 and core_is_valid(core, &core.table.slab[ref], clock_now(&core.source))):
        return 1
    if ref == 0 and table_lacks(&core.table, table_tag(&core.table, hash)) and not (<Store>obj).hooked_in:
        return 0
    return contains_hashed(<Store>obj, <object>key, <object>key, hash)


cdef inline int assign_at_once(PyObject *obj, PyObject *key, PyObject *value) noexcept:
    cdef int64_t hash
    cdef uint32_t ref
    if likely(MOST_CORES == 1 and (<Store>obj).keyfunc is None and (<Store>obj).sizeof is None):
        hash = known_hash(key)
        if unlikely(hash == -1):
            return assign_other(obj, key, value)
        if value == NULL:
            return delete_entry(obj, key, hash)
        ref = find_same(&(<Store>obj).core.table, key, hash)
        if ref != 0:
            return assign_entry(obj, value, &(<Store>obj).core.table.slab[ref])
        return assign_new(obj, key, value, hash)
    return assign_in_full(obj, key, value)


cdef inline int assign_asking(PyObject *obj, PyObject *key, PyObject *value) except -1:
    """The same for a key that is neither str nor int, or was not hashed before."""
    cdef int64_t hash = ask_hash(key)
    cdef uint32_t ref
    if value == NULL:
        return delete_entry(obj, key, hash)
    ref = find_same(&(<Store>obj).core.table, key, hash)
    if likely(ref != 0 and put_at_once(
        &(<Store>obj).core, &(<Store>obj).core.table.slab[ref], value, &(<Store>obj).ttl_ns
    )):
        return 0
    return assign_new(obj, key, value, hash)


cdef inline int assign_found(PyObject *obj, PyObject *value, entry_t *entry) noexcept:
    if likely(put_at_once(&(<Store>obj).core, entry, value, &(<Store>obj).ttl_ns)):
        return 0
    return assign_again(obj, <PyObject *>entry.key, value)


cdef inline int assign_unfit(PyObject *obj, PyObject *key, PyObject *value) noexcept:
    """For an entry that needs a closer look. Its key is the very object that was asked for, whose hash is known."""
    return assign_new(obj, key, value, known_hash(key))


cdef inline int assign_hashed(PyObject *obj, PyObject *key, PyObject *value, int64_t hash) noexcept:
    cdef int done = put_once(&(<Store>obj).core, key, value, hash, 0, (<Store>obj).ttl_ns)
    if likely(done == 1):
        return 0
    return -1 if done < 0 else assign_in_full(obj, key, value)


cdef inline int delete_hashed(PyObject *obj, PyObject *key, int64_t hash) noexcept:
    return 0 if likely(remove_at_once(&(<Store>obj).core, key, hash)) else delete_again(obj, key, hash)


cdef inline int delete_unfit(PyObject *obj, PyObject *key, int64_t hash) except -1:
    """For a key that is another object than the entry's, or whose entry needs a closer look."""
    return remove_hashed(<Store>obj, <object>key, <object>key, hash)


# -- get: to unpack the arguments as Cython does costs half as much as a hit, so a hit is tried first -----------------


cdef inline PyObject *get_found(PyObject *obj, const entry_t *entry, PyObject *default) noexcept:
    cdef PyObject *value = hit_at(&(<Store>obj).core, entry)
    if unlikely(value == NULL):
        return get_again(obj, <PyObject *>entry.key, default)
    return value


cdef inline PyObject *get_at_once(PyObject *obj, PyObject *const *args, Py_ssize_t count, PyObject *names) noexcept:
    cdef PyObject *default
    cdef int64_t hash
    cdef uint32_t ref
    if likely(MOST_CORES == 1 and <size_t>count - 1 < 2 and names == NULL and (<Store>obj).keyfunc is None):
        hash = known_hash(args[0])
        if likely(hash != -1):
            default = args[1] if count == 2 else <PyObject *>None
            ref = find_same(&(<Store>obj).core.table, args[0], hash)
            if likely(ref != 0):
                return get_entry(obj, &(<Store>obj).core.table.slab[ref], default)
            if table_lacks(&(<Store>obj).core.table, table_tag(&(<Store>obj).core.table, hash)):
                return get_nothing(obj, args[0], default)
    return get_otherwise(obj, args, count, names)


cdef inline PyObject *get_farther(PyObject *obj, PyObject *const *args, Py_ssize_t count, PyObject *names) except NULL:
    cdef PyObject *value
    cdef PyObject *default
    cdef int64_t hash
    cdef uint32_t ref
    cdef bint absent = False
    if likely(names == NULL and (count == 1 or count == 2) and (<Store>obj).keyfunc is None):
        default = args[1] if count == 2 else <PyObject *>None
        hash = known_hash(args[0])
        if hash == -1:  # get_at_once has not tried it
            hash = ask_hash(args[0])
            if MOST_CORES == 1:
                ref = find_same(&(<Store>obj).core.table, args[0], hash)
                if likely(ref != 0):
                    return get_entry(obj, &(<Store>obj).core.table.slab[ref], default)
                if table_lacks(&(<Store>obj).core.table, table_tag(&(<Store>obj).core.table, hash)):
                    return get_lacking(obj, args[0], default)
        value = hit_fast(core_at(<Store>obj, hash), args[0], hash, &absent)
        if likely(value != NULL):
            return value
        if absent:
            return get_absent(obj, args[0], default)
    return get_in_full(obj, args, count, names)


cdef inline PyObject *get_unfit(PyObject *obj, PyObject *key, PyObject *default) noexcept:
    """For an entry that needs a closer look."""
    cdef PyObject *args[2]
    args[0] = key
    args[1] = default
    return get_in_full(obj, args, 2, NULL)


cdef inline PyObject *get_lacking(PyObject *obj, PyObject *key, PyObject *default) except NULL:
    (<Store>obj).core.counters.misses += 1
    return get_absent(obj, key, default)


cdef inline PyObject *get_absent(PyObject *obj, PyObject *key, PyObject *default) except NULL:
    """What ``get`` returns for a key that is certainly absent, which has been counted. A new reference."""
    cdef object result = <object>default
    if (<Store>obj).hooked_get:
        result = (<object>obj)._missing_get(<object>key, result)
    hold(<PyObject *>result)
    return <PyObject *>result


# -- putting them in place, before anybody derives a class --------------------------------------------------------


cdef inline int patch_subscript(type_t *store, object cls) except -1:
    global subscript_in_full, subscript_other, subscript_entry
    subscript_in_full = store.tp_as_mapping.mp_subscript
    subscript_other = <subscript_t>subscript_asking
    subscript_entry = subscript_found
    store.tp_as_mapping.mp_subscript = subscript_at_once
    return rewrap(cls, "__getitem__", <void *>subscript_at_once)


cdef inline int patch_contains(type_t *store, object cls) except -1:
    global contains_in_full, contains_other, contains_entry
    contains_in_full = store.tp_as_sequence.sq_contains
    contains_other = <contains_t>contains_asking
    contains_entry = contains_found
    store.tp_as_sequence.sq_contains = contains_at_once
    return rewrap(cls, "__contains__", <void *>contains_at_once)


cdef inline int patch_assign(type_t *store, object cls) except -1:
    global assign_in_full, put_once, assign_other, assign_entry, assign_again, assign_new, delete_entry, delete_again
    assign_in_full = store.tp_as_mapping.mp_ass_subscript
    put_once = <put_once_t>put
    assign_other = <assign_t>assign_asking
    assign_entry = assign_found
    assign_again = assign_unfit
    assign_new = assign_hashed
    delete_entry = delete_hashed
    delete_again = <delete_t>delete_unfit
    store.tp_as_mapping.mp_ass_subscript = assign_at_once
    rewrap(cls, "__setitem__", <void *>assign_at_once)
    return rewrap(cls, "__delitem__", <void *>assign_at_once)


cdef inline int patch_get(object method) except -1:
    global get_in_full, get_entry, get_nothing, get_again, get_otherwise
    cdef method_def_t *definition = (<method_descr_t *><PyObject *>method).d_method
    if definition.ml_flags == METH_FASTCALL | METH_KEYWORDS:
        get_in_full = <method_t>definition.ml_meth
        get_entry = get_found
        get_nothing = <default_t>get_lacking
        get_again = get_unfit
        get_otherwise = <method_t>get_farther
        definition.ml_meth = <void *>get_at_once
    return 0


cdef inline int patch_entrances(object cls) except -1:
    """Give ``Store`` the entrances above."""
    patch_subscript(<type_t *><PyObject *>cls, cls)
    patch_contains(<type_t *><PyObject *>cls, cls)
    patch_assign(<type_t *><PyObject *>cls, cls)
    return patch_get(cls.get)
