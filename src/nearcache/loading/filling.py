"""Filling: the user's loader, and its value's way into L2 and L1. Steps only: no I/O here.

Two things have to be right. One load in the whole fleet: in this process a flight sees to that, between processes a
lease, a token under the key's name in L2 that one loader holds while the others wait for its message. And no late fill:
a value that was loaded before an invalidation must not be stored after it. In L1 the pending operation sees to that, in
L2 the lease again, because every write and invalidation voids it, and the fill is refused without it.

::

    read --hit--> value
      | miss
    lease --0 leased--> loader --> fill --stored--> L1
      |  |                |         \\--refused--> the value, kept nowhere
      |  |                \\--raises--> abort: the lease goes back, one of the waiters loads
      |  \\--3 on hold--> loader --> the value, kept nowhere
      \\--2 somebody loads--> wait for a message about the key, or for the lease's end --> read
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .._store import Op, Store
from ..absence import ABSENT
from ..codecs import NO_VALUE, Encoded
from ..coherence import State
from ..errors import DecodeError, ShardError
from ..flights import ABANDONED, Load, Signal, renewal_of
from ..freshness import Life, Ttl, ttl_for
from ..l2 import Exchange, stage
from ..options import check_tags
from .aging import Times, judge, renew_later
from .reading import accept, read
from .replies import MISSING, answer
from .steps import Await, Call, JoinLoad, Steps
from .tagging import Tag, depend, generations, known, tags_named
from .tier import LEASE_LONGEST_NS, LEASE_UNHEARD_MS, Leased, Tier, hex_id, new_id

#: Pauses between looks where no message would be heard: the first and the longest, in seconds.
_LOOK_FIRST_S: Final = 0.02
_LOOK_LONGEST_S: Final = 0.2

Tags = Sequence[str] | Callable[[Any, Any], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Loading:
    """One request to load.

    Attributes:
        name: The key as the cache holds it.
        key: The key as the user gave it, which is what the loader gets.
        loader: Returns the value, or raises.
        ttl_ms: Lifetime of the filled value, or what tells it from key and value.
        tags: What invalidates the value beside its key: names, or a function that tells them from key and value.
    """

    name: Any
    key: Any
    loader: Callable[[Any], Any]
    ttl_ms: Ttl
    tags: Tags = ()


class _Answer(NamedTuple):
    """What ``lease`` said. ``value`` is MISSING unless one is there; ``token`` is empty unless the key was leased."""

    value: Any = MISSING
    token: bytes = b""
    generation: int = 0
    wait_ms: int = 0


def load(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    """Return the value in L2, or else the loader's, which L2 and L1 then keep.

    However many threads, tasks and processes ask for one key at the same time, one of them does the work. A shard that
    does not answer costs the caching, not the value.

    Where absence is kept, that is ABSENT if the loader says so.

    Raises:
        Whatever the loader raises, to everybody who waits in this process; in other processes one of them tries again.
        LoadCycleError: The loader waits, directly or through others, for itself.
    """
    mine = Load(wanted.name)
    try:
        while (flight := tier.loads.begin(mine)) is not mine:
            value = yield JoinLoad(flight)
            if value is not ABANDONED:
                return value
        return (yield from carry_out(tier, store, wanted, mine))
    finally:
        tier.loads.end(mine)


def carry_out(tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load) -> Steps[Any]:
    """Do the work of a load that has begun, and end it. See :func:`load`."""
    try:
        mine.value = yield from _load(tier, store, wanted, mine)
    except Exception as error:
        mine.error = error
        raise
    finally:
        tier.loads.end(mine)
    if mine.is_due:
        yield from renew_later(tier, store, wanted, renew)
    return mine.value


def look(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    """Return the value in L2, or MISSING, without loading; but have it loaded anew in the background if that is due.

    Raises:
        ShardError: As for :func:`read`.
    """
    flight = Load(wanted.name)
    value = yield from read(tier, store, wanted.name, flight)
    if flight.is_due:
        yield from renew_later(tier, store, wanted, renew)
    return value


def renew(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[None]:
    """Load anew what is there, unless somebody in the fleet does already. Nobody waits for it, in this process either.

    Raises:
        Whatever the loader raises; the old value stays.
    """
    mine = Load(renewal_of(wanted.name))
    try:
        if tier.loads.begin(mine) is mine:
            encoded = tier.place(wanted.name)[1]
            mine.value = (yield from _attempt(tier, store, wanted, encoded, mine, anew=True)).value
    finally:
        tier.loads.end(mine)
        tier.renewed(wanted.name)


def refresh(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    """Load anew, now, whatever is there. Returns the value: ours, or that of a load which is under way in the fleet.

    Raises:
        As :func:`load`. The old value stays then.
    """
    mine = Load(renewal_of(wanted.name))
    try:
        while (flight := tier.loads.begin(mine)) is not mine:
            value = yield JoinLoad(flight)
            if value is not ABANDONED and value is not MISSING:
                return value
        return (yield from carry_out_anew(tier, store, wanted, mine))
    finally:
        tier.loads.end(mine)


def carry_out_anew(tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load) -> Steps[Any]:
    """Do the work of a refresh that has begun, and end it. See :func:`refresh`."""
    try:
        mine.value = yield from _load(tier, store, wanted, mine, anew=True)
        return mine.value
    except Exception as error:
        mine.error = error
        raise
    finally:
        tier.loads.end(mine)


def _load(tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load, *, anew: bool = False) -> Steps[Any]:
    lane, encoded = tier.place(wanted.name)
    since_ns = tier.clock()
    pause_s = _LOOK_FIRST_S
    while True:
        try:
            value = MISSING if anew else (yield from read(tier, store, wanted.name, mine))
        except ShardError:
            return (yield from _load_only(tier, store, wanted, mine))
        if value is not MISSING:
            return value
        signal = Signal()
        # Before asking, so that the message that ends the wait cannot come too early.
        is_heard = tier.ears.await_key(lane, encoded, signal.set)
        try:
            given = yield from _attempt(tier, store, wanted, encoded, mine, anew=anew)
            if given.value is not MISSING:
                return given.value
            if not given.wait_ms or tier.clock() - since_ns > LEASE_LONGEST_NS:
                # Down, on hold, or somebody's loader hangs. Ours may not: but what it brings is kept nowhere.
                return (yield from _load_only(tier, store, wanted, mine))
            seconds = given.wait_ms / 1000
            anew = False  # somebody has loaded anew
            mine.op = None  # whatever happens now, it will read again
            yield Await(signal, seconds if is_heard else min(pause_s, seconds))
            pause_s = min(2 * pause_s, _LOOK_LONGEST_S)
        finally:
            tier.ears.unawait(lane, encoded, signal.set)


def _attempt(
    tier: Tier, store: Store[Any, Any], wanted: Loading, encoded: bytes, mine: Load, *, anew: bool = False
) -> Steps[_Answer]:
    """Ask for the lease; with it, load and fill. ``anew``: whatever is there."""
    lane = tier.lane_of(encoded)
    op = Op(wanted.name, lane, wid=new_id(), write=True)
    try:
        store.open(op)
        mine.op = op
        try:
            given = yield from _lease(tier, store, lane, encoded, anew=anew)
        except ShardError:
            return _Answer()
        if not given.token:
            # L1 may hold a value older than this one, and after this one it must not be read (R4).
            store.abandon(op, drop=given.value is not MISSING)
            return given
        return _Answer((yield from _fill(tier, store, wanted, op, encoded, given, mine)))
    finally:
        store.abandon(op, drop=False)  # unless it is finished


def _lease(tier: Tier, store: Store[Any, Any], lane: int, encoded: bytes, *, anew: bool) -> Steps[_Answer]:
    """Ask for the key: get a value that has come meanwhile, or the lease, or how long to wait (0: not at all)."""
    keys = tier.write_keys(lane, [encoded])
    keys.insert(2, tier.names[lane].queue)
    lease_ms = tier.lease_ms if tier.lanes[lane].state is State.LIVE else max(tier.lease_ms, LEASE_UNHEARD_MS)
    # What is owed an invalidation is loaded over: it is not known to be gone.
    mode = b"REPLACE" if anew or tier.is_owed(lane, encoded) else b""
    while True:
        start_ns = tier.clock()
        command = tier.call(tier.scripts.lease, keys, hex_id(new_id()), b"%d" % lease_ms, mode)
        reply = answer((yield [Exchange(lane, [command])])[0])
        status, generation, *rest = reply.values[0]
        if int(status) == 0:
            return _Answer(token=rest[0], generation=int(generation, 16))
        if int(status) == 2:
            return _Answer(wait_ms=max(1, int(rest[0])))
        if int(status) == 4:
            return _Answer(value=waiting_value(tier, encoded, rest[0]))
        if int(status) != 1:
            return _Answer()
        found = yield from accept(tier, store, lane, encoded, rest[0], int(rest[1]), int(generation, 16), start_ns)
        if found.value is not MISSING:
            return _Answer(value=found.value)
        mode = b"REPLACE"  # a value that cannot be read here (another schema, say) is to be loaded over


def waiting_value(tier: Tier, encoded: bytes, envelope: bytes) -> Any:
    """Return the value that waits to be written behind the cache; ABSENT for a deletion, MISSING if nobody here can
    read it."""
    if not envelope:
        return ABSENT
    try:
        value = tier.codec.loads(envelope, key=encoded)[0]
    except DecodeError as error:
        tier.count_unreadable(error)
        return MISSING
    tier.count_hit(len(envelope))
    return value


class _Loaded(NamedTuple):
    """What a load brought: the value, its tags as they were before the load, and what an L1 entry depends on.

    ``cost_ms`` is what the loader took, at least 1. ``tags`` is None if a tag was not known before;
    the value may be older than that tag's last change then.
    """

    value: Any
    content: Encoded
    tags: tuple[tuple[int, int], ...] | None
    under: tuple[int, int] | None
    life: Life
    cost_ms: int


def _fill(
    tier: Tier, store: Store[Any, Any], wanted: Loading, op: Op, encoded: bytes, given: _Answer, mine: Load
) -> Steps[Any]:
    """Load and fill, under lease. The operation is finished, or left to the caller to abandon."""
    tier.leases[given.token] = Leased(op.lane, encoded, given.token, tier.clock())
    try:
        loaded = yield from _loaded(tier, store, wanted, op)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _abort(tier, op.lane, encoded, given.token)
        raise
    finally:
        tier.leases.pop(given.token, None)  # a loader may have forked, and this be the child
    if loaded.tags is None:
        tier.loads.close(mine)
        yield from _abort(tier, op.lane, encoded, given.token)
        return loaded.value
    ttl_ms, soft_ms = loaded.life
    sealed = tier.codec.seal(
        loaded.content,
        wid=op.wid,
        generation=given.generation,
        ttl_ms=ttl_ms,
        key=encoded,
        tags=loaded.tags,
        soft_ttl_ms=soft_ms,
        cost_ms=loaded.cost_ms,
    )
    before, staging, envelopes = stage(tier.names[op.lane].prefix, hex_id(op.wid), [sealed])
    arguments = (hex_id(op.wid), hex_id(given.generation), given.token, b"%d" % ttl_ms, *envelopes)
    command = tier.call(tier.scripts.fill, tier.write_keys(op.lane, [encoded], staging), *arguments)
    start_ns = tier.clock()
    try:
        reply = answer((yield [Exchange(op.lane, [*before, command])])[0])
    except ShardError:
        tier.count(errors=1)
        tier.loads.close(mine)
        store.abandon(op, drop=True)
        return loaded.value
    if int(reply.values[-1][0]) != 1:
        tier.count(fills_refused=1)
        return loaded.value
    tier.count_fill(len(sealed), op.wid, int(reply.values[-1][3]))
    deadline_ns, _ = judge(tier, start_ns, ttl_ms, Times(ttl_ms, soft_ms, loaded.cost_ms))
    if loaded.value is ABSENT:
        store.finish(op, None, 0, 0)
        return ABSENT
    tier.sample(op.key)
    store.finish(op, loaded.value, op.wid, deadline_ns, len(sealed), reply.identity, loaded.under)
    return loaded.value


def _loaded(tier: Tier, store: Store[Any, Any], wanted: Loading, op: Op) -> Steps[_Loaded]:
    """Call the loader, with the generations of the value's tags captured before."""
    since_ns = tier.clock()
    tags: tuple[Tag, ...] = () if callable(wanted.tags) else tags_named(tier, wanted.tags)
    under = depend(tier, store, op.lane, tags)
    stated: tuple[tuple[int, int], ...] | None = ()
    try:
        stated = (yield from generations(tier, tags)) if tags else ()
    except ShardError:
        stated = None
    begun_ns = tier.clock()
    value = yield from _call(tier, wanted)
    tier.writing(op.wid, op.key, value)
    if value is ABSENT:
        return _Loaded(value, NO_VALUE, stated, under, tier.freshness.absence(), 0)
    cost_ms = (tier.clock() - begun_ns) // 1_000_000 + 1
    content = tier.codec.encode(value)
    life = tier.freshness.life(ttl_for(wanted.ttl_ms, wanted.key, value))
    if callable(wanted.tags):
        tags = tags_named(tier, check_tags(wanted.tags(wanted.key, value)))
        under = depend(tier, store, op.lane, tags)
        stated = known(tier, tags, since_ns)
        if stated is None:  # the next load will find them known
            with suppress(ShardError):
                yield from generations(tier, tags)
    return _Loaded(value, content, stated, under, life, cost_ms)


def _load_only(tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load) -> Steps[Any]:
    """Load, and keep the value nowhere. Who comes after a write of the key does not join, even so."""
    op = Op(wanted.name, tier.place(wanted.name)[0], write=True)
    try:
        store.open(op)
        mine.op = op
        value = yield from _call(tier, wanted)
        tier.loads.close(mine)
        return value
    finally:
        store.abandon(op, drop=False)


def _abort(tier: Tier, lane: int, encoded: bytes, token: bytes) -> Steps[None]:
    """Give the lease back, so that nobody has to wait for its end. If that fails, they do."""
    command = tier.call(tier.scripts.abort, tier.write_keys(lane, [encoded]), hex_id(new_id()), token)
    yield [Exchange(lane, [command])]


def _call(tier: Tier, wanted: Loading) -> Steps[Any]:
    tier.count(loads=1)
    try:
        value = yield Call(wanted.loader, wanted.key)
        if value is ABSENT and not tier.freshness.negative_ms:
            raise KeyError(wanted.key)
        return value
    except BaseException as error:
        if isinstance(error, KeyError) and tier.freshness.negative_ms:
            return ABSENT
        tier.count(load_errors=1)
        raise
