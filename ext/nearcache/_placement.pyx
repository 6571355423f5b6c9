"""Rendezvous hashing of slots over shards: 16,384 times the number of shards is too much arithmetic for Python.

The hash is fixed for ever, because every program that shares the servers must compute the same table:

    name_hash(name)  = FNV-1a, 64 bits, over the UTF-8 bytes of the name
    score(slot, h)   = mix(h + (slot + 1) * 0x9E3779B97F4A7C15)         all arithmetic modulo 2**64
    mix(z)           : z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31

which is the splitmix64 generator, seeded with the name's hash, at its slot-th step. The shard with the highest score
has the slot.
"""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    _SLOTS = 16384

SLOTS = _SLOTS


cdef inline uint64_t mix(uint64_t z) noexcept nogil:
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


def fnv1a64(const uint8_t[::1] data):
    """Return the 64-bit FNV-1a hash of bytes."""
    cdef uint64_t h = <uint64_t>0xCBF29CE484222325
    cdef Py_ssize_t i
    for i in range(data.shape[0]):
        h = (h ^ data[i]) * <uint64_t>0x100000001B3
    return h


def rendezvous(hashes):
    """Return a table of 16,384 bytes: for each slot, the index into ``hashes`` of the shard that has it.

    Args:
        hashes: The shards' name hashes, at most 255, all different. Their order decides nothing but the numbering.
    """
    cdef uint64_t seeds[255]
    cdef Py_ssize_t count = len(hashes), i
    if not 1 <= count <= 255 or len(set(hashes)) != count:
        raise ValueError("give 1 to 255 different hashes")
    for i in range(count):
        seeds[i] = hashes[i]
    table = bytearray(_SLOTS)
    cdef uint8_t[::1] view = table
    cdef uint64_t step, score, best
    cdef Py_ssize_t slot, winner
    for slot in range(_SLOTS):
        step = <uint64_t>(slot + 1) * <uint64_t>0x9E3779B97F4A7C15
        winner = 0
        best = mix(seeds[0] + step)
        for i in range(1, count):
            score = mix(seeds[i] + step)
            # mix is a permutation, so two different seeds never score the same.
            if score > best:
                best = score
                winner = i
        view[slot] = <uint8_t>winner
    return bytes(table)


def tag_number(const uint8_t[::1] stem, unsigned int slot):
    """Return the least number that, in decimal behind ``stem``, puts the text in this slot of Redis Cluster.

    It is found within about a hundred thousand tries: the CRC of more digits reaches every slot.
    """
    cdef char digits[20]
    cdef uint64_t number
    cdef unsigned int crc, begun = 0
    cdef Py_ssize_t i
    if slot >= _SLOTS:
        raise ValueError(f"slot {slot}: there are {_SLOTS}")
    for i in range(stem.shape[0]):
        begun = crc16(begun, stem[i])
    for number in range(10_000_000):
        crc = begun
        for i in range(written(number, digits)):
            crc = crc16(crc, <uint8_t>digits[i])
        if crc % _SLOTS == slot:
            return number
    raise ValueError(f"no number leads to slot {slot}")


cdef inline unsigned int crc16(unsigned int crc, uint8_t byte) noexcept nogil:
    """CRC-16/XMODEM, one byte further."""
    cdef unsigned int x = ((crc >> 8) ^ byte) & 0xFF
    x ^= x >> 4
    return ((crc << 8) ^ (x << 12) ^ (x << 5) ^ x) & 0xFFFF


cdef inline Py_ssize_t written(uint64_t number, char *digits) noexcept nogil:
    """Write a number in decimal; return how many digits it has."""
    cdef Py_ssize_t count = 1, i
    cdef uint64_t left = number // 10
    while left:
        count += 1
        left //= 10
    for i in range(count):
        digits[count - 1 - i] = <char>(c"0" + number % 10)
        number //= 10
    return count
