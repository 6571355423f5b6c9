# cython: boundscheck=False, wraparound=False, initializedcheck=False
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Many keys that are read from L2 together: one share for each lane.

A bulk read does little for each of its keys, and does it a thousand times. What is alike for nearly all of them is done
here: placing, registering with the store, writing the request, and judging the usual answer. Whatever is not the usual
answer, to the letter (tags, compression, protection, another generation, a soft end), is left over for those who know
all of the rules; so this is no second implementation of them.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.list cimport PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint64_t

from nearcache._core cimport core_t, item_t, op_is_storable
from nearcache._flights cimport suspect_at
from nearcache._lookup cimport hash_of, is_data, is_int, unlikely
from nearcache._reads cimport Read, conclude, new_read
from nearcache._single cimport (
    COUNT_BYTES,
    SLOTS,
    deadline_of,
    decoded,
    encoded_key,
    envelope_plain,
    header_plain,
    is_body,
    key_slot,
    plain_t,
    put_name,
    put_words,
    terms_t,
    write_count,
)
from nearcache._store cimport Store, begin_op, confirm_op, core_at, finish_op, give_up_op

from nearcache._reads import ABANDONED as _ABANDONED


cdef extern from "Python.h":
    long long PyLong_AsLongLongAndOverflow(object number, int *overflow) noexcept


cdef object PENDING = object()


def deal(names, bytes table not None, encode):
    """Deal keys out to the lanes that they lie in. Returns the lanes' shares, in the order in which they come up.

    Args:
        names: The keys, each once.
        table: 16,384 bytes: the lane of each slot.
        encode: From a key to its encoded form; asked for those that are no plain cases. It may raise.
    """
    cdef dict shares = {}
    cdef const char *lanes = PyBytes_AS_STRING(table)
    cdef bytes encoded
    cdef uint8_t lane
    cdef Share share
    cdef Share last = None
    if PyBytes_GET_SIZE(table) != SLOTS:
        raise ValueError(f"a table of {len(table)} slots: there are {SLOTS}")
    for name in names:
        encoded = encoded_key(name, encode)
        lane = <uint8_t>lanes[key_slot(PyBytes_AS_STRING(encoded), <size_t>PyBytes_GET_SIZE(encoded))]
        share = last
        if share is None or share.lane != lane:
            share = shares.get(lane)
            if share is None:
                share = shares[lane] = Share.__new__(Share)
                begin_share(share, lane)
            last = share
        share.names.append(name)
        share.encoded.append(encoded)
    return list(shares.values())


@cython.final
cdef class Share:
    """One lane's part of the keys that are read together.

    Attributes:
        lane: Its number.
        encoded: The keys, encoded.
        reads: The reads, once they are opened; in the same order.
    """

    cdef readonly unsigned int lane
    cdef readonly list encoded
    cdef readonly list reads
    cdef list names
    cdef list suspects  # (wid, value, lane) of each, or None; None if there is none at all
    cdef list suspected  # the places of suspects
    cdef Py_ssize_t plain  # how many are none
    cdef list ranks  # how many of its kind, suspects or others, stand before each
    cdef list results  # what came of each; PENDING: nothing yet

    def __len__(self):
        return len(self.names)

    def leave_out(self, unwanted):
        """Leave out the keys whose encoded form is unwanted, before they are opened. Returns how many."""
        cdef list kept = [place for place, encoded in enumerate(self.encoded) if not unwanted(encoded)]
        cdef Py_ssize_t before = len(self.names)
        self.names = [self.names[place] for place in kept]
        self.encoded = [self.encoded[place] for place in kept]
        return before - len(kept)

    def open(self, Store store not None, int64_t since_ns):
        """Register a read of each key (R1). If one cannot be, those before it are to be ended all the same."""
        cdef core_t *core
        cdef object suspect
        cdef int64_t hash
        cdef Read read
        for name in self.names:
            hash = hash_of(<PyObject *>name)
            core = core_at(store, hash)
            suspect = suspect_at(core, <PyObject *>name, hash)
            read = new_read(name, hash, self.lane, since_ns)
            if unlikely(suspect is not None):
                if self.suspects is None:
                    self.suspects = [None] * len(self.names)
                self.suspects[len(self.reads)] = (suspect[2], suspect[3], suspect[0])
                self.ranks.append(len(self.suspected))
                self.suspected.append(len(self.reads))
            else:
                self.ranks.append(self.plain)
                self.plain += 1
            self.reads.append(read)
            self.results.append(PENDING)
            begin_op(store, read)

    cpdef tuple suspect(self, Py_ssize_t place):
        """``(wid, value, lane)`` of the suspect entry that a key had when it was opened; None if it had none."""
        return None if self.suspects is None else self.suspects[place]

    def ask(self, bytes prefix not None, bytes lane_key not None, tuple brief not None, tuple tagged not None, derived):
        """Return the commands: every key's lifetime first, then its value, or of a suspect the header alone; at last
        the lane's generation, and the version of the list of shards.

        Args:
            prefix: What the names of values begin with.
            lane_key: Of the lane record.
            brief, tagged: The range of bytes that is enough of a header, without tags and with them.
            derived: The number of the first lane for entries with tags.
        """
        return Commands(self, prefix, lane_key, brief, tagged, derived)

    cpdef object body(self, list values, Py_ssize_t place):
        """What was read of a key, of all the answers to :meth:`ask`."""
        cdef Py_ssize_t at = len(self.names)
        cdef Py_ssize_t rank = self.ranks[place]
        return values[at][rank] if self.suspect(place) is None else values[at + (self.plain > 0) + rank]

    def settle(
        self, Store store not None, list values not None, generation, identity, int64_t start_ns, int64_t l1_ttl_ms,
        int64_t tick_ns, tuple usual, dict found not None, missing,
    ):
        """Judge the usual answers, and let L1 keep what they bring (R3, R4).

        Args:
            values: The answers to :meth:`ask`.
            generation: What the lane record says; None leaves everything over.
            identity: Of the server that answered.
            start_ns: When the request was sent.
            l1_ttl_ms, tick_ns: Longest life of an L1 copy, and what is taken off it.
            usual: Number of the codec, what decodes a payload (payload, schema), most bytes of one; None leaves
                everything over. What decoding raises leaves a key over.
            found: Gets the values that were found.
            missing: What a reader is told who waits for a key that is not there.
        Returns:
            ``(left, changed, (hits, misses, bytes, poisoned, revalidated))``: the places of what is left over, and of
            suspects of which L2 holds another write by now.
        Raises:
            ValueError: An answer is not of the kind that was asked for, such as an error. Nothing has been done.
        """
        cdef verdict_t verdict
        cdef settling_t total = settling_t(0, 0, 0, 0, 0)
        cdef list left = []
        cdef list changed = []
        cdef Py_ssize_t place
        check_values(self, values)
        if usual is None or generation is None:
            return list(range(len(self.names))), changed, (0, 0, 0, 0, 0)
        cdef terms_t terms = terms_t(
            generation=generation, identity=identity, start_ns=start_ns, l1_ttl_ms=l1_ttl_ms, tick_ns=tick_ns,
            codec_id=usual[0], most=usual[2],
        )
        for place in range(len(self.names)):
            body = self.body(values, place)
            if self.suspect(place) is not None:
                verdict = confirm_one(self, store, place, values[place], body, &terms, found, &total)
            else:
                self.results[place] = missing
                verdict = keep_one(self, store, place, values[place], body, &terms, usual[1], found, &total)
            if verdict == LEFT:
                self.results[place] = PENDING
                left.append(place)
            elif verdict == CHANGED:
                changed.append(place)
        return left, changed, (total.hits, total.misses, total.bytes, total.poisoned, total.revalidated)

    def note(self, Py_ssize_t place, outcome):
        """Say what came of a read that was left over."""
        self.results[place] = outcome

    def again(self, list places not None):
        """Return a share of these places alone, whose entries are no suspects any more. It goes on with their reads."""
        cdef Share share = Share.__new__(Share)
        begin_share(share, self.lane)
        share.names = [self.names[place] for place in places]
        share.encoded = [self.encoded[place] for place in places]
        share.reads = [self.reads[place] for place in places]
        share.results = [PENDING] * len(places)
        share.plain = len(places)
        share.ranks = list(range(len(places)))
        return share

    def resolve(self, lock):
        """Give those who wait for a read what has come of it, if anything has."""
        cdef list woken = []
        cdef Py_ssize_t place
        try:
            with lock:
                for place in range(len(self.results)):
                    if self.results[place] is not PENDING:
                        conclude(self.reads[place], self.results[place], woken)
        finally:  # without memory for all of them, those that are known
            for call in woken:
                call()

    def end(self, Store store not None, lock):
        """Give up every read that has not come to its end: a shard failed, or somebody was interrupted."""
        cdef list woken = []
        cdef Read read
        for read in self.reads:
            give_up_op(store, read, False)
        try:
            with lock:
                for read in self.reads:
                    conclude(read, _ABANDONED, woken)
        finally:
            for call in woken:
                call()


cdef enum verdict_t:
    SETTLED = 0
    LEFT = 1
    CHANGED = 2


cdef struct settling_t:
    Py_ssize_t hits
    Py_ssize_t misses
    Py_ssize_t bytes
    Py_ssize_t poisoned
    Py_ssize_t revalidated


cdef int begin_share(Share self, unsigned int lane) except -1:
    self.lane = lane
    self.names = []
    self.encoded = []
    self.reads = []
    self.results = []
    self.suspected = []
    self.ranks = []
    self.plain = 0
    return 0


cdef inline bint fits_int64(PyObject *number) noexcept:
    """Whether a lifetime is one that a server counts."""
    cdef int overflow = 0
    PyLong_AsLongLongAndOverflow(<object>number, &overflow)
    return overflow == 0


cdef int check_values(Share self, list values) except -1:
    """See that the answers are of the kinds that were asked for."""
    cdef Py_ssize_t count = len(self.names)
    cdef Py_ssize_t suspects = count - self.plain
    cdef Py_ssize_t i
    cdef bint fits = len(values) == count + (self.plain > 0) + suspects + 1
    cdef PyObject *bodies
    for i in range(count if fits else 0):
        fits = fits and is_int(PyList_GET_ITEM(values, i)) and fits_int64(PyList_GET_ITEM(values, i))
    if fits and self.plain:
        bodies = PyList_GET_ITEM(values, count)
        fits = PyList_CheckExact(<object>bodies) and PyList_GET_SIZE(<object>bodies) == self.plain
        for i in range(self.plain if fits else 0):
            fits = fits and is_body(PyList_GET_ITEM(<object>bodies, i))
    for i in range(suspects if fits else 0):
        fits = fits and is_data(PyList_GET_ITEM(values, count + (self.plain > 0) + i))
    if not fits:
        raise ValueError("an answer is not of the kind that was asked for")
    return 0


cdef verdict_t keep_one(
    Share self, Store store, Py_ssize_t place, int64_t pttl_ms, object body, const terms_t *terms, object decode,
    dict found, settling_t *total,
) except? LEFT:
    """Judge what a GET returned, and complete its read."""
    cdef Read read = self.reads[place]
    cdef item_t item = item_t(wid=0, deadline_ns=0, size=0, stamp=read.op.stamp0, lane=read.op.lane, flags=0)
    cdef object value = None
    cdef plain_t plain
    if body is not None:
        if not envelope_plain(PyBytes_AS_STRING(body), <size_t>PyBytes_GET_SIZE(body), terms.codec_id, &plain):
            return LEFT
        item.size = <uint64_t>PyBytes_GET_SIZE(body)
        if plain.generation != terms.generation or item.size - plain.payload > terms.most:
            return LEFT
        try:
            value = decoded(body, &plain, terms.codec_id, decode)
        except Exception:  # whoever decodes it again meets the same, and knows what it means
            return LEFT
        item.deadline_ns = deadline_of(terms, pttl_ms, plain.ttl_ms)
        if item.deadline_ns != 0:
            item.wid = plain.wid
            total.poisoned += not op_is_storable(&read.op)
    finish_op(store, read, value, &item, terms.identity)
    if body is None:
        total.misses += 1
        return SETTLED
    total.hits += 1
    total.bytes += PyBytes_GET_SIZE(body)
    found[read.key] = value
    self.results[place] = value
    return SETTLED


cdef verdict_t confirm_one(
    Share self, Store store, Py_ssize_t place, int64_t pttl_ms, object header, const terms_t *terms, dict found,
    settling_t *total,
) except? LEFT:
    """Judge a suspect entry by its value's header; if it is good, complete its read."""
    cdef Read read = self.reads[place]
    cdef object suspect = self.suspects[place]
    cdef uint64_t wid = suspect[0]
    cdef item_t item = item_t(wid=wid, deadline_ns=0, size=0, stamp=read.op.stamp0, lane=read.op.lane, flags=0)
    cdef plain_t plain
    if not header_plain(PyBytes_AS_STRING(header), <size_t>PyBytes_GET_SIZE(header), &plain):
        return LEFT
    if plain.wid == wid and plain.generation == terms.generation:
        item.deadline_ns = deadline_of(terms, pttl_ms, plain.ttl_ms)
    if item.deadline_ns == 0:
        return CHANGED
    confirm_op(store, read, &item, terms.identity)
    total.revalidated += 1
    total.hits += 1
    found[read.key] = self.results[place] = suspect[1]
    return SETTLED


# -- the request ---------------------------------------------------------------------------------------------------


@cython.final
cdef class Commands:
    """What :meth:`Share.ask` asks: the commands in order, and, as ``data``, the bytes that go to the server."""

    cdef Share share
    cdef bytes prefix
    cdef bytes lane_key
    cdef tuple brief
    cdef tuple tagged
    cdef unsigned int derived
    cdef readonly bytes data

    def __init__(
        self, Share share not None, bytes prefix not None, bytes lane_key not None, tuple brief not None,
        tuple tagged not None, unsigned int derived,
    ):
        self.share = share
        self.prefix = prefix
        self.lane_key = lane_key
        self.brief = brief
        self.tagged = tagged
        self.derived = derived
        self.data = written(self)

    def __len__(self):
        cdef Share share = self.share
        return 2 * len(share.names) - share.plain + (share.plain > 0) + 1

    def __getitem__(self, place):
        cdef Share share = self.share
        cdef Py_ssize_t count = len(share.names)
        if not 0 <= place < len(self):
            raise IndexError(place)
        if place < count:
            return (b"PTTL", self.prefix + share.encoded[place])
        if place == len(self) - 1:
            return (b"HMGET", self.lane_key, b"g", b"r")
        if share.plain and place == count:
            return (b"MGET", *[self.prefix + key for at, key in enumerate(share.encoded) if share.suspect(at) is None])
        at = share.suspected[place - count - (share.plain > 0)]
        return (b"GETRANGE", self.prefix + share.encoded[at], *header_range(self, at))


cdef tuple header_range(Commands self, Py_ssize_t place):
    """Which bytes are enough of the header of a suspect's value."""
    return self.tagged if self.share.suspects[place][2] >= self.derived else self.brief


cdef bytes written(Commands self):
    """All of the commands in the Redis protocol."""
    cdef Share share = self.share
    cdef Py_ssize_t prefix = PyBytes_GET_SIZE(self.prefix)
    cdef Py_ssize_t size = 4 * COUNT_BYTES + 32 + PyBytes_GET_SIZE(self.lane_key)
    cdef Py_ssize_t place
    cdef bytes encoded
    for encoded in share.encoded:
        # A name stands twice, each time with its length, a word before it, and at most two numbers behind it.
        size += 2 * (prefix + PyBytes_GET_SIZE(encoded) + 5 * COUNT_BYTES) + 64
    size += len(share.suspected) * sum([len(word) for word in (*self.brief, *self.tagged)])
    cdef bytes data = PyBytes_FromStringAndSize(NULL, size)
    cdef char *start = PyBytes_AS_STRING(data)
    cdef char *at = start
    for encoded in share.encoded:
        at = put_words(at, b"*2\r\n$4\r\nPTTL\r\n", 14)
        at = put_name(at, self.prefix, encoded)
    if share.plain:
        at += write_count(at, c"*", <size_t>share.plain + 1)
        at = put_words(at, b"$4\r\nMGET\r\n", 10)
        for place in range(len(share.names)):
            if share.suspects is None or share.suspects[place] is None:
                at = put_name(at, self.prefix, share.encoded[place])
    for place in share.suspected:
        at = put_words(at, b"*4\r\n$8\r\nGETRANGE\r\n", 18)
        at = put_name(at, self.prefix, share.encoded[place])
        for word in header_range(self, place):
            at = put_name(at, b"", word)
    at = put_words(at, b"*4\r\n$5\r\nHMGET\r\n", 15)
    at = put_name(at, b"", self.lane_key)
    at = put_words(at, b"$1\r\ng\r\n$1\r\nr\r\n", 14)
    assert at - start <= size
    return data[:at - start]
