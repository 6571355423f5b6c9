# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Packing: commands of any kind to the bytes that go to the server."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.string cimport memcpy

from nearcache._lookup cimport is_data, is_int, is_text, unlikely


cdef extern from "nearcache/envelopes.h" nogil:
    size_t write_count(char *at, char kind, size_t count)


def pack(commands, script, fallback):
    """Return commands in the Redis protocol.

    Args:
        commands: Tuples of bytes, texts and numbers. One that begins with a script is run by its hash.
        script: The class of scripts; each has its first two words in the protocol, as ``head``.
        fallback: Returns a command in the protocol that has words of other kinds. It may raise.
    Raises:
        ValueError: A command has no words.
    """
    cdef list all_words = []
    cdef Py_ssize_t size = 0
    cdef bytes packed
    cdef char *at
    for command in commands:
        all_words.append(words_of(command, script, fallback, &size))
    packed = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(packed)
    for words in all_words:
        at = put_command(at, words)
    return packed


cdef list words_of(tuple command, object script, object fallback, Py_ssize_t *size):
    """What a command consists of: how many words, what is in the protocol already, and further words."""
    if not command:
        raise ValueError("an empty command: its first word says what to do")
    cdef object first = command[0]
    cdef bint is_script = type(first) is script
    cdef list words = [len(command) + is_script, first.head if is_script else b""]
    cdef Py_ssize_t whole = count_size(words[0]) + len(words[1])
    cdef Py_ssize_t place
    for place in range(is_script, len(command)):
        word = command[place]
        if is_int(<PyObject *>word):
            word = b"%d" % word
        elif is_text(<PyObject *>word):
            word = (<str>word).encode()
        elif unlikely(not is_data(<PyObject *>word)):
            words = [0, fallback((b"EVALSHA", first.sha, *command[1:]) if is_script else command)]
            size[0] += len(words[1])
            return words
        whole += count_size(PyBytes_GET_SIZE(word)) + PyBytes_GET_SIZE(word) + 2
        words.append(word)
    size[0] += whole
    return words


cdef char *put_command(char *at, list words) noexcept:
    cdef size_t count = words[0]
    cdef Py_ssize_t place
    if count > 0:
        at += write_count(at, c"*", count)
    at = put_bytes(at, <bytes>words[1])
    for place in range(2, len(words)):
        at += write_count(at, c"$", <size_t>PyBytes_GET_SIZE(<bytes>words[place]))
        at = put_bytes(at, <bytes>words[place])
        at[0] = c"\r"
        at[1] = c"\n"
        at += 2
    return at


cdef inline char *put_bytes(char *at, bytes data) noexcept:
    memcpy(at, PyBytes_AS_STRING(data), <size_t>PyBytes_GET_SIZE(data))
    return at + PyBytes_GET_SIZE(data)


cdef inline Py_ssize_t count_size(Py_ssize_t count) noexcept:
    """How many bytes a count takes with its letter and the end of its line."""
    cdef Py_ssize_t size = 4
    while count > 9:
        count //= 10
        size += 1
    return size
