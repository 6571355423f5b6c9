"""Rendezvous hashing of slots over shards: 16,384 times the number of shards is too much arithmetic for Python.

The hash is fixed for ever, because every program that shares the servers must compute the same table:

    name_hash(name)  = FNV-1a, 64 bits, over the UTF-8 bytes of the name
    score(slot, h)   = mix(h + (slot + 1) * 0x9E3779B97F4A7C15)         all arithmetic modulo 2**64
    mix(z)           : z ^= z >> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >> 27; z *= 0x94D049BB133111EB; z ^= z >> 31

which is the splitmix64 generator, seeded with the name's hash, at its slot-th step. The shard with the highest score
has the slot. A shard of weight w has w such names, of which all but the first end in a zero byte and a number.

A ring has points instead, which are the first steps of the same generators; the slots' places on it are those of the
generator seeded with 0, and a slot belongs to the next point at or after its place.
"""

from array import array

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    _SLOTS = 16384

SLOTS = _SLOTS


cdef inline uint64_t mix(uint64_t z) noexcept nogil:
    z = (z ^ (z >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t>0x94D049BB133111EB
    return z ^ (z >> 31)


def fnv1a64(bytes data not None):
    """Return the 64-bit FNV-1a hash of bytes."""
    cdef const uint8_t *text = <const uint8_t *>data
    cdef uint64_t h = <uint64_t>0xCBF29CE484222325
    cdef Py_ssize_t i
    for i in range(len(data)):
        h = (h ^ text[i]) * <uint64_t>0x100000001B3
    return h


def rendezvous(hashes, owners=None):
    """Return a table of 16,384 bytes: for each slot, the owner of the hash with the highest score.

    Args:
        hashes: The shards' name hashes, all different. Their order decides nothing but the numbering.
        owners: For each hash the number of its shard, 0 to 254; None: its place.
    """
    owners = range(len(hashes)) if owners is None else owners
    cdef Py_ssize_t count = len(hashes), i
    if count < 1 or len(set(hashes)) != count or len(owners) != count or max(owners) > 254:
        raise ValueError("give different hashes, of 1 to 255 shards")
    cdef bytes packed = array("Q", hashes).tobytes(), numbers = bytes(owners)
    cdef const uint64_t *seeds = <const uint64_t *><const char *>packed
    cdef const uint8_t *owner = <const uint8_t *>numbers
    cdef bytearray table = bytearray(_SLOTS)
    cdef uint8_t *view = <uint8_t *>table
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
        view[slot] = owner[winner]
    return bytes(table)


def points(uint64_t seed, Py_ssize_t count):
    """Return the first steps of the generator with this seed, as a list."""
    cdef Py_ssize_t i
    return [mix(seed + <uint64_t>(i + 1) * <uint64_t>0x9E3779B97F4A7C15) for i in range(count)]


def tag_number(bytes stem not None, unsigned int slot):
    """Return the least number that, in decimal behind ``stem``, puts the text in this slot of Redis Cluster.

    It is found within about a hundred thousand tries: the CRC of more digits reaches every slot.
    """
    cdef const uint8_t *text = <const uint8_t *>stem
    cdef char digits[20]
    cdef uint64_t number
    cdef unsigned int crc, begun = 0
    cdef Py_ssize_t i
    if slot >= _SLOTS:
        raise ValueError(f"slot {slot}: there are {_SLOTS}")
    for i in range(len(stem)):
        begun = crc16(begun, text[i])
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
