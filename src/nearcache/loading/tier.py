"""What the steps of one tiered cache share: names, placement, lanes, codec, counters."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

from .._envelopes import placed
from .._store import Op, Store
from ..clocks import NS_PER_MS, TICK_NS, Clock, monotonic_ns
from ..codecs import ValueCodec
from ..coherence import CHAINED, NOWHERE, Debt, Derived, Histogram, HoldEnd, Journal, Lane, OrderedHorizon, State
from ..errors import BacklogFullError, DecodeError, ShardError, ValueTooLargeError
from ..flights import Loads
from ..freshness import Freshness
from ..keys import decode_key, encode_key, slot_of
from ..l2 import Command, Exchange, Script, load_script
from ..logs import log
from ..placement import ClusterPlacement, Placement, names_of_lanes
from .births import Births
from .claims import Leased, Locked, Owned
from .counters import Judged, L2Counters, unreadable_as
from .ears import Ears, Witness
from .exchanges import slices
from .refusals import Refusals
from .replies import is_full
from .stale import StaleCopies
from .versions import TagStore, Versions

if TYPE_CHECKING:
    from .._putting import Said
    from .sampling import Sampler

#: How long a lease lasts at least where nobody listens, and hence nobody renews it.
LEASE_UNHEARD_MS: Final = 10_000
#: A loader that has run for so long is taken to hang: its lease is not renewed any more, and others may load.
LEASE_LONGEST_NS: Final = 60_000_000_000
#: Leases that one call renews, at most: it is one uninterrupted piece of work for the server.
_RENEWED_TOGETHER: Final = 128
#: A millisecond for so many: where more are held, they last longer, so that renewing them takes little of the server.
_LEASES_PER_MS: Final = 5
#: Tags whose generations L1 remembers.
TAGS_KEPT: Final = 10_000
#: How often the way of a write's message is timed, at most.
_LAG_EVERY_NS: Final = 100_000_000
#: Writes whose messages are waited for in order to time them. Of some none will come.
_LAGS_TIMED: Final = 64


def new_id() -> int:
    """Return a random 64-bit id, never 0. From the kernel: a program may seed Python's generator as it likes."""
    return int.from_bytes(os.urandom(8), "big") or 1


def hex_id(number: int) -> bytes:
    """Return an id as Redis holds it: 16 hexadecimal digits."""
    return b"%016x" % number


@dataclass(slots=True)
class Scripts:
    """The Lua scripts, loaded once per cache."""

    set: Script = field(default_factory=lambda: load_script("set"))
    invalidate: Script = field(default_factory=lambda: load_script("invalidate"))
    clear: Script = field(default_factory=lambda: load_script("clear"))
    lease: Script = field(default_factory=lambda: load_script("lease"))
    fill: Script = field(default_factory=lambda: load_script("fill"))
    abort: Script = field(default_factory=lambda: load_script("abort"))
    renew: Script = field(default_factory=lambda: load_script("renew"))
    adopt: Script = field(default_factory=lambda: load_script("adopt"))
    touch: Script = field(default_factory=lambda: load_script("touch"))
    take: Script = field(default_factory=lambda: load_script("take"))
    extend: Script = field(default_factory=lambda: load_script("extend"))
    unchanged: Script = field(default_factory=lambda: load_script("unchanged"))
    dequeue: Script = field(default_factory=lambda: load_script("dequeue"))
    written: Script = field(default_factory=lambda: load_script("written"))
    buried: Script = field(default_factory=lambda: load_script("buried"))
    requeue: Script = field(default_factory=lambda: load_script("requeue"))
    rebury: Script = field(default_factory=lambda: load_script("rebury"))
    hurry: Script = field(default_factory=lambda: load_script("hurry"))
    lock: Script = field(default_factory=lambda: load_script("lock"))


class Tier(Versions):
    """The L2 side of one cache, without its I/O.

    Args:
        namespace: Name of the logical cache.
        placement: Which lane has which key, and the names of their shards.
        most_lanes: How many lanes there may ever be.
        db: Number of the Redis database.
        clustered: Whether it is a Redis Cluster: then there are no shards, and lanes of a fixed number.
        codec: Values to envelopes and back.
        l1_ttl_ms: Longest life of an L1 copy.
        bound_ns: The staleness bound B.
        lease_ms: Life of a lease on a key, unless it is renewed: so long a dead loader keeps the others waiting, or,
            if it held very many, up to ``LEASE_UNHEARD_MS``.
        forgives: Whether a change that fails is no error to the caller, but owed.
        has_queue: Whether changes wait in a queue to be written behind the cache.
        ack_ms: How long a change waits for a replica to confirm it; 0: not at all.
        stale_ns: ``stale_if_error``; 0: off.
        freshness: When values end, and when they are loaded anew.
        clock: Monotonic nanoseconds.
    Attributes:
        namespace: Its name, for the log.
        ears: Who hears messages: to be set before anything is asked.
        witness: Who is told what is about to be sent; None: nobody.
        observed: Who compares what is observed of lanes with what is applied (``consistency="lane"``); None: nobody.
        leases: What this process is loading under lease, by token.
        lasting_ms: How long a lease is asked for, and renewed for, until the next renewals.
        locks: What it is changing by what it is, by token.
        journals: What this process has changed, by lane. Used under ``lock``.
        tags: The generations of tags, by the encoded key of the tag's record.
        tags_since: Since when ``tags`` has had them without a break.
        overtaken_ns: When this process last changed a tag.
        derived: The lanes for L1 entries with tags.
        queues: The queues that it is this process's task to write behind the cache, by lane.
        births: When values were stored, as far as that was asked for.
        renewing: Names of the keys whose values are to be loaded anew in the background.
    """

    ears: Ears
    observed: OrderedHorizon | None = None

    def __init__(
        self,
        *,
        namespace: str,
        placement: Placement | ClusterPlacement,
        most_lanes: int,
        db: int,
        clustered: bool,
        codec: ValueCodec,
        l1_ttl_ms: int,
        bound_ns: int,
        lease_ms: int,
        forgives: bool,
        has_queue: bool,
        ack_ms: int,
        stale_ns: int,
        freshness: Freshness,
        clock: Clock = monotonic_ns,
    ) -> None:
        super().__init__(placement, most_lanes)
        lanes = len(placement.names)
        self.names, self.clustered = names_of_lanes(namespace, lanes, db, clustered=clustered), clustered
        self.lanes = [Lane(bound_ns) for _ in range(lanes)]
        self.stale = StaleCopies(self.lanes, stale_ns, most_lanes) if stale_ns else None
        self.namespace, self.codec, self.l1_ttl_ms = namespace, codec, l1_ttl_ms
        self.bound_ns, self.freshness, self.clock = bound_ns, freshness, clock
        self.scripts = Scripts()
        self.loads = Loads()
        # Re-entrant: the end of an event loop, which gives up what it had under way, may come with a collection.
        self.lock = threading.RLock()
        self.counters = L2Counters()
        self.lease_ms = self.lasting_ms = lease_ms
        self.ack_ms, self.forgives, self.has_queue = ack_ms, forgives, has_queue
        self.witness: Witness | None = None
        self.leases: dict[bytes, Leased] = {}
        self.locks: dict[bytes, Locked] = {}
        self.births, self.renewing = Births(), set[Any]()
        self.queues: dict[int, Owned] = {}
        self.journals = [Journal() for _ in range(lanes)]
        self.inherited: dict[Journal, int] = {}  # in a forked child: the serial of the newest debt of the parent
        self.tags = TagStore(self._newest, TAGS_KEPT, lanes=most_lanes)
        self.tags_since: dict[bytes, int] = {}
        self.overtaken_ns = 0
        self.derived = Derived(most_lanes)
        self.sampler: Sampler | None = None
        self.lags, self.judged = [Histogram() for _ in range(lanes)], [Judged() for _ in range(lanes)]
        self.refusals, self._lag_due_ns = Refusals(namespace), 0
        self._timed: deque[int] = deque()
        self.adopted: dict[int, int] = {}  # shard -> the server that was told last

    def observe_with(self, horizon: OrderedHorizon) -> None:
        """From now on let this process read nothing that is older, in its lane, than what it has observed."""
        self.observed = horizon
        self.loads.oldest = lambda name: horizon.seen_ns(self.now.place(name)[0])

    def place(self, key: Any) -> tuple[int, bytes]:
        """Return a key's lane and its encoded form. Raises UnencodableKeyError."""
        return placed(key, self.table, encode_key)

    def lane_of(self, encoded: bytes) -> int:
        """Return the lane of an encoded key."""
        return self.table[slot_of(encoded)]

    def known_generation(self, number: int) -> int | None:
        """The lane's generation, while the lane is followed closely enough to trust it."""
        lane = self.lanes[number]
        if self._newest.tier is not self:
            return None  # the heartbeats speak for a later version than this one
        if self.observed is not None and self.observed.is_ahead(number):
            return None  # a clear may be among what has not been heard
        return lane.generation if lane.state is State.LIVE and self.clock() < lane.fresh_until_ns else None

    def deadline_ns(self, start_ns: int, pttl_ms: int, whole_ms: int) -> int:
        """Return when an L1 copy must end.

        The remaining lifetime is read *before* the value, without a transaction. In between the key may only expire
        and be silently refilled; then the remainder is the old value's and ``whole_ms``, from the envelope, the new
        one's, and the smaller of the two errs on the safe side. Any other change in between publishes, which
        poisons the read.

        Args:
            start_ns: When the request was sent.
            pttl_ms: Redis' answer: -1 no expiry, -2 there was no key.
            whole_ms: The whole lifetime that the envelope states.
        Returns:
            An instant, with one tick taken off; 0 when the copy must not be kept.
        """
        if pttl_ms < -1:
            return 0
        life_ms = min(whole_ms, self.l1_ttl_ms) if pttl_ms == -1 else min(pttl_ms, whole_ms, self.l1_ttl_ms)
        return start_ns + life_ms * NS_PER_MS - TICK_NS

    def count(self, **amounts: int) -> None:
        """Add to the counters. ``+=`` on an attribute is not atomic between threads, so it takes the lock."""
        with self.lock:
            for name, amount in amounts.items():
                setattr(self.counters, name, getattr(self.counters, name) + amount)

    def judge(self, lane: int, *, revalidated: int = 0, dropped: int = 0, poisoned: int = 0) -> None:
        """Count what became of results and of suspects, by lane and altogether: lanes come and go."""
        with self.lock:
            for judged in (self.judged[lane], self.counters):
                judged.revalidated += revalidated
                judged.dropped += dropped
                judged.poisoned += poisoned

    def count_unreadable(self, encoded: bytes, error: DecodeError) -> None:
        """Count a value that counts as absent because it cannot be read, and report the first one of its kind."""
        kind = unreadable_as(error)
        with self.lock:
            self.counters.misses += 1
            count = getattr(self.counters, kind) + 1
            setattr(self.counters, kind, count)
        if count == 1:
            text = "namespace %s: key %.80r: %s (a miss; from now on only counted: stats().l2.%s)"
            log(logging.WARNING, text, self.namespace, decode_key(encoded), error, kind)

    def count_write(self, size_bytes: int) -> None:
        """Count a write, without the dictionary of :meth:`count`."""
        with self.lock:
            self.counters.writes += 1
            self.counters.bytes_written += size_bytes

    def filled(self, size_bytes: int, wid: int, lane: int, epoch: int, seq: int) -> None:
        """Count a loaded value as written; it is that number of the lane, or 0 if the lane says nothing of it."""
        self.count_write(size_bytes)
        if seq:
            with self.lock:
                self.journals[lane].reach(epoch, seq)
        elif self.witness is not None:
            self.witness.loaded_alone(wid)

    def stored(self, lane: int, said: Said, encoded: bytes, since: int, size_bytes: int) -> None:
        """A value of so many bytes is in the server: :meth:`count_write` and :meth:`acknowledge` in one."""
        if self.observed is not None:
            self.observed.observe(lane, (said.epoch, said.seq))
        with self.lock:
            self.counters.writes += 1
            self.counters.bytes_written += size_bytes
            if not self.journals[lane].note(said.epoch, said.seq, (encoded,), self.clock(), since):
                self.pass_on_debts()

    def serial(self, lane: int) -> int:
        """What comes to be owed on a lane from now on has a higher serial."""
        return self.journals[lane].serial

    def hold_ended(self, lane: int, encoded: Sequence[bytes], hold: HoldEnd) -> None:
        """The end of a hold of these keys is acknowledged: see :meth:`Journal.ended`."""
        with self.lock:
            self.journals[lane].ended(hold, encoded)

    def give_up(self, store: Store[Any, Any], op: Op, encoded: bytes, error: BaseException) -> bool:
        """A change failed, or nobody knows (R6): keep no copy, owe an invalidation. Returns whether that is enough."""
        if not isinstance(error, BacklogFullError):  # of that it is known that nothing was done
            self.owe(op.lane, (encoded,))
        store.l1_abandon(op, drop=True)
        if not isinstance(error, ShardError):
            return False
        self.count(errors=1)
        return self.forgives

    def owe_clear(self, lane: int) -> None:
        """Owe a lane a clear: a change of everything failed, or nobody knows."""
        with self.lock:
            self.journals[lane].owe_clear()
            self.pass_on_debts()

    def due(self, lane: int) -> Debt | None:
        """What to invalidate next: see :meth:`Journal.due`."""
        with self.lock:
            return self.journals[lane].due()

    def paid(self, lane: int, debt: Debt) -> None:
        """It is invalidated."""
        with self.lock:
            self.journals[lane].paid(debt)

    def suspect(self, store: Store[Any, Any], lane: int) -> None:
        """Nothing of a lane may be served before it is looked at: values, tags, and what depends on them."""
        store.lane_suspect(lane)
        self.tags.lane_suspect(lane)
        self.derived.suspected(store, lane)

    def is_owed(self, lane: int, encoded: bytes) -> bool:
        """Whether what L2 holds may be what this process meant to be rid of."""
        journal = self.journals[lane]
        return journal.owes and journal.is_owed(encoded)

    def remember_tag(self, key: bytes, since_ns: int) -> None:
        """Note since when L1 has known a tag without a break; of several who say so the last is right."""
        with self.lock:
            self.tags_since[key] = max(since_ns, self.tags_since.get(key, since_ns))
            while len(self.tags_since) > TAGS_KEPT:
                del self.tags_since[next(iter(self.tags_since))]

    def expect_message(self, lane: int, wid: int, now_ns: int) -> None:
        """A write is about to be sent. Of a few a second it is measured how long it takes until the message is heard.

        The others' messages are no news, and need not be heard at once; but where the lane's place is what proves a
        read (``proof``), or lets L1 serve (``observed``), it is to be known.
        """
        if now_ns < self._lag_due_ns:
            if self.observed is None and self.lanes[lane].identity != CHAINED:
                self.ears.expect(wid)
            return
        self._lag_due_ns = now_ns + _LAG_EVERY_NS
        self._timed.append(wid)
        if len(self._timed) > _LAGS_TIMED:
            self.ears.unwatch(self._timed.popleft())
        self.ears.watch(wid, lambda: self.lags[lane].add(self.clock() - now_ns))

    def newest(self, lane: int) -> tuple[int, int] | None:
        """Epoch and number of the last change that this process made on a lane, or has heard of."""
        position = self.lanes[lane].position
        heard = None if position is None else (position.epoch, position.seq)
        observed = None if self.observed is None else self.observed.newest(lane)
        places = [place for place in (self.journals[lane].newest, heard, observed) if place is not None]
        # Of two epochs it is not known which is the later. Whoever is given no place asks the server.
        return max(places, default=None) if len({epoch for epoch, _ in places}) < 2 else NOWHERE

    def forked(self, lane: int, epoch: int, ends: dict[int, int] | None, seq: int) -> None:
        """The lane is in a new epoch: owe again what the server has lost."""
        with self.lock:
            self.journals[lane].forked(epoch, ends, seq)

    def reclaim(self, lane: int) -> None:
        """The lane is still in its epoch: owe again what another one had taken when it was asked."""
        with self.lock:
            self.journals[lane].reclaim(self.lanes[lane].asked_ns)

    def sample(self, name: Any) -> None:
        """A key has been read from L2, or written: L1 may serve it from now on."""
        if self.sampler is not None:
            self.sampler.note(name)

    def count_hit(self, size_bytes: int) -> None:
        """Count a hit, without the dictionary of :meth:`count`."""
        with self.lock:
            self.counters.hits += 1
            self.counters.bytes_read += size_bytes

    def counted(self) -> dict[str, int]:
        """Return a consistent copy of the counters."""
        with self.lock:
            return {f.name: getattr(self.counters, f.name) for f in fields(self.counters)}

    def call(self, script: Script, keys: list[bytes], *arguments: bytes) -> Command:
        """The command that runs a script. Its own arguments begin with a fresh id, and that serves as the nonce too."""
        if self.witness is not None:
            self.witness.calling(script, arguments)
        return (script, len(keys), *keys, self.ring, arguments[0], *arguments)

    def writing(self, wid: int, name: Any, value: Any) -> None:
        """A value is about to be written."""
        if self.witness is not None:
            self.witness.writing(wid, name, value)

    def write_keys(self, lane: int, encoded: Sequence[bytes], staging: Sequence[bytes] = ()) -> list[bytes]:
        """The keys that a script which writes several of a lane's keys declares."""
        names = self.names[lane]
        if len(encoded) == 1 and not staging:
            return [names.value_prefix + encoded[0], names.lease_prefix + encoded[0], names.lane_key]
        return [*map(names.value, encoded), *map(names.lease, encoded), *staging, names.lane_key]

    def invalidate_exchange(self, lane: int, encoded: Sequence[bytes], wid: int, *hold: bytes) -> Exchange:
        """One message that drops every copy of the keys, wherever it is. ``hold``: milliseconds and token."""
        keys = self.write_keys(lane, encoded)
        return Exchange(lane, [self.call(self.scripts.invalidate, keys, hex_id(wid), *hold)])

    def clear_exchange(self, lane: int, wid: int) -> Exchange:
        """One message that makes every copy of everything in the lane absent."""
        return Exchange(lane, [self.call(self.scripts.clear, [self.names[lane].lane_key], hex_id(wid))])

    def adopt_commands(self, shard: int, identity: int) -> list[Command]:
        """What to say first to a server that this process has not met there: begin a new epoch, unless others have.

        Before anything of ours is written there, so that what the server lost can be told from what came later.
        """
        if not identity or self.adopted.get(shard) == identity:
            return []
        wid, ring = hex_id(new_id()), self.left if shard in self.resting else self.ring
        return [(self.scripts.adopt, 1, self.names[shard].lane_key, ring, wid, wid, hex_id(identity))]

    def note_adopted(self, shard: int, identity: int) -> None:
        """It has been said."""
        self.adopted[shard] = identity

    def renewals(self, now_ns: int) -> list[tuple[int, Script, tuple[bytes, ...], tuple[bytes, ...]]]:
        """What keeps the leases of running loaders alive: lane, script, keys and arguments of each call.

        Many leases to a call: a bulk load has as many as it has keys, and the lane's heartbeats stand behind them.
        """
        held = [
            (lease.lane, self.names[lease.lane].lease(lease.encoded), lease.token, lease.since_ns)
            for lease in list(self.leases.values())
        ]
        held += [
            (lock.lane, self.names[lock.lane].lock(lock.encoded), token, lock.since_ns)
            for token, lock in list(self.locks.items())
        ]
        held += [
            (lane, self.names[lane].owner, owned.token, owned.since_ns) for lane, owned in list(self.queues.items())
        ]
        marks: dict[int, list[tuple[bytes, bytes]]] = {}
        for lane, name, token, since_ns in held:
            if now_ns - since_ns < LEASE_LONGEST_NS:
                marks.setdefault(lane, []).append((name, token))
        # At most twice the term of before: a lease that is under way here under that one has to see the next renewals.
        longest_ms = min(2 * self.lasting_ms, LEASE_UNHEARD_MS)
        lasting_ms = max(self.lease_ms, min(len(self.leases) // _LEASES_PER_MS, longest_ms))
        self.share(lasting_ms=lasting_ms)
        return [
            (lane, self.scripts.renew, names, (*tokens, b"%d" % lasting_ms))
            for lane, of_lane in marks.items()
            for names, tokens in (zip(*some, strict=True) for some in slices(of_lane, _RENEWED_TOGETHER))
        ]

    def lease_ms_on(self, lane: int) -> int:
        """How long a lease is to last: where nobody listens, nobody renews it."""
        return self.lasting_ms if self.lanes[lane].state is State.LIVE else max(self.lease_ms, LEASE_UNHEARD_MS)

    def go_without(self, error: ShardError) -> None:
        """A loader is about to be asked, because a shard does not answer.

        Raises:
            ShardError: The same: the newest value may wait in the queue there, and the loader would give an older one.
                A full server has been asked for that.
        """
        if self.has_queue and not is_full(error):
            raise error
        self.refusals.loaded(error)

    def count_unkept(self, error: ShardError | ValueTooLargeError) -> None:
        """What is loaded is returned, and not kept."""
        kind = "errors" if isinstance(error, ShardError) else "fills_too_large"
        self.count(**{kind: 1})
        self.refusals.loaded(error)

    def renewed(self, name: Any) -> None:
        """A value is not to be loaded anew any more."""
        with self.lock:
            self.renewing.discard(name)

    def owed_alone(self) -> int:
        """Return how many changes only this process knows to be owed: what was owed before a fork the parent pays, too.

        Where something has come to be owed since, what is left of the parent's is counted along.
        """
        with self.lock:
            return sum(each.owed_count for each in self.journals if each.serial != self.inherited.get(each))

    def after_fork(self) -> None:
        """In the child: no thread of the parent's lives here, so nothing can be waited for."""
        self.share(renewing=set(), lock=threading.RLock(), loads=Loads(self.loads.oldest))
        self.share(leases={}, locks={}, queues={}, held={})
        self.derived.after_fork()
        self.tags.l1_reset_pending()
        for journal in self.journals:
            journal.after_fork()
        self.share(inherited={journal: journal.serial for journal in self.journals})
        for lane in self.lanes:
            lane.lost("forked")
