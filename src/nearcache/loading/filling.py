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

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from .._store import Op, Store
from ..absence import ABSENT, Absent
from ..answers import UNCHANGED, is_conditional, opened
from ..answers import given as given_old
from ..clocks import NS_PER_MS
from ..errors import ShardError
from ..flights import ABANDONED, Load, Signal, renewal_of, young_of
from ..freshness import Ttl
from ..l2 import Exchange
from .ages import read_young
from .aging import Due, renew_later
from .bulk_reading import read_many
from .claims import Leased
from .conditional import Shown, let_live, show
from .leasing import (
    LOOK_FIRST_S,
    LOOK_LONGEST_S,
    Answer,
    abort_command,
    holder_of,
    lease_answer,
    lease_command,
    outlast,
    patience_ms,
    replace_mode,
)
from .outcomes import Outcome, Tags, capture, failure_of, fill_commands, filled, outcome_of, outdate, tags_before
from .reading import read
from .replies import MISSING, answer, is_worth_undoing, was_cut_off
from .steps import Await, Call, JoinLoad, Steps
from .tier import Tier, hex_id, new_id


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


class Replacing(NamedTuple):
    """What a load replaces.

    Attributes:
        mode: In which the lease is asked for; empty: nothing is replaced, it loads what is not there.
        limit_ns: What was stored no longer ago stays, and will do.
        due: The old value that is loaded anew unasked.
    """

    mode: bytes = b""
    limit_ns: int | None = None
    due: Due | None = None


_NOTHING: Final = Replacing()


def load(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    """Return the value in L2, or else the loader's, which L2 and L1 then keep.

    However many threads, tasks and processes ask for one key at the same time, one of them does the work. A shard that
    does not answer costs the caching, not the value; but see :meth:`Tier.go_without`.

    Where absence is kept, that is ABSENT if the loader says so; where its error is, a Failure.

    Raises:
        Whatever the loader raises, to everybody who waits in this process; in other processes one of them tries again.
        ShardError: With a queue, as :meth:`Tier.go_without`.
        LoadCycleError: The loader waits, directly or through others, for itself.
    """
    mine = Load(wanted.name)
    return _join(tier, mine, carry_out(tier, store, wanted, mine))


def _join(tier: Tier, mine: Load, work: Steps[Any]) -> Steps[Any]:
    """Return what a load of the same kind brings that is under way in this process, or else do the work."""
    try:
        while (flight := tier.loads.begin(mine)) is not mine:
            value = yield JoinLoad(flight)
            # MISSING: of a load in the background that left the work to another process.
            if value is not ABANDONED and value is not MISSING:
                return value
        return (yield from work)
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
    if mine.due:
        yield from renew_later(tier, store, wanted, mine.due, renew)
    return mine.value


def look(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    """Return the value in L2, or MISSING, without loading; but have it loaded anew in the background if that is due.

    Raises:
        ShardError: As for :func:`read`.
    """
    flight = Load(wanted.name)
    value = yield from read(tier, store, wanted.name, flight)
    if flight.due:
        yield from renew_later(tier, store, wanted, flight.due, renew)
    return value


def look_many(
    tier: Tier, store: Store[Any, Any], names: Iterable[Any], wanted: Callable[[Any], Loading]
) -> Steps[dict[Any, Any]]:
    """Return what L2 holds of many keys, as :func:`look` does of one. ``wanted``: from a name to its request."""
    due: dict[Any, Due] = {}
    found = yield from read_many(tier, store, names, due=due)
    for name, old in due.items():
        yield from renew_later(tier, store, wanted(name), old, renew)
    return found


def renew(tier: Tier, store: Store[Any, Any], wanted: Loading, due: Due) -> Steps[None]:
    """Load anew what is there, unless somebody in the fleet does already. Nobody waits for it, in this process either.

    Args:
        due: The value that was found to be old. If another one is there by now, it stays.
    Raises:
        Whatever the loader raises, and KeyError if it has no value; the old one stays.
    """
    mine = Load(renewal_of(wanted.name))
    try:
        if tier.loads.begin(mine) is mine:
            encoded = tier.place(wanted.name)[1]
            replacing = Replacing(replace_mode(due.wid), due=due)
            mine.value = (yield from _attempt(tier, store, wanted, encoded, mine, replacing)).value
    finally:
        tier.loads.end(mine)
        tier.renewed(wanted.name)


def refresh(tier: Tier, store: Store[Any, Any], wanted: Loading) -> Steps[Any]:
    """Load anew, now, whatever is there. Returns the value: ours, or that of a load which is under way in the fleet.

    Raises:
        As :func:`load`. The old value stays then.
    """
    mine = Load(renewal_of(wanted.name))
    return _join(tier, mine, carry_out_anew(tier, store, wanted, mine))


def carry_out_anew(
    tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load, limit_ns: int | None = None
) -> Steps[Any]:
    """Do the work of a refresh that has begun, and end it. See :func:`refresh` and :func:`load_young`."""
    try:
        mine.value = yield from _load(tier, store, wanted, mine, Replacing(replace_mode(), limit_ns))
        return mine.value
    except Exception as error:
        mine.error = error
        raise
    finally:
        tier.loads.end(mine)


def load_young(tier: Tier, store: Store[Any, Any], wanted: Loading, limit_ns: int) -> Steps[Any]:
    """Return the value in L2 if it was stored no longer ago, or else load anew. As :func:`load` otherwise."""
    mine = Load(young_of(wanted.name, limit_ns))
    return _join(tier, mine, carry_out_anew(tier, store, wanted, mine, limit_ns))


def _load(
    tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load, replacing: Replacing = _NOTHING
) -> Steps[Any]:
    lane, encoded = tier.place(wanted.name)
    since_ns = tier.clock()
    pause_s = LOOK_FIRST_S
    while True:
        try:
            value = yield from _held(tier, store, wanted.name, mine, replacing)
        except ShardError as error:
            tier.go_without(error)
            return (yield from _load_only(tier, store, wanted, mine))
        if value is not MISSING:
            return value
        mine.op = None  # who comes now may wait: what is about to begin is younger than their question
        signal = Signal()
        # Before asking, so that the message that ends the wait cannot come too early.
        is_heard = tier.ears.await_key(lane, encoded, signal.set)
        try:
            given = yield from _attempt(tier, store, wanted, encoded, mine, replacing)
            if given.value is not MISSING:
                return given.value
            wait_ms = patience_ms(tier, since_ns, given.wait_ms)
            if not wait_ms:
                # Down, on hold, or somebody's loader hangs. Ours may not: but what it brings is kept nowhere.
                return (yield from _load_only(tier, store, wanted, mine))
            seconds = wait_ms / 1000
            if replacing.limit_ns is None:
                replacing = _NOTHING  # somebody has loaded anew
            mine.op = None  # whatever happens now, it will read again
            holder = holder_of(tier, encoded)
            if holder is not None:  # of this process: it may wait for us
                yield from outlast(holder)
                continue
            yield Await(signal, seconds if is_heard else min(pause_s, seconds))
            pause_s = min(2 * pause_s, LOOK_LONGEST_S)
        finally:
            tier.ears.unawait(lane, encoded, signal.set)


def _held(tier: Tier, store: Store[Any, Any], name: Any, mine: Load, replacing: Replacing) -> Steps[Any]:
    """Return what L2 holds that is not to be replaced, or MISSING."""
    if replacing.limit_ns is not None:
        return (yield from read_young(tier, store, [name], replacing.limit_ns, {name: mine})).get(name, MISSING)
    return MISSING if replacing.mode else (yield from read(tier, store, name, mine, strict=False))


def _attempt(
    tier: Tier, store: Store[Any, Any], wanted: Loading, encoded: bytes, mine: Load, replacing: Replacing
) -> Steps[Answer]:
    """Ask for the lease; with it, load and fill."""
    lane = tier.lane_of(encoded)
    op = Op(wanted.name, lane, wid=new_id(), write=True)
    try:
        store.l1_open(op)
        mine.rests_on(op, tier.clock())
        try:
            given = yield from _lease(tier, store, lane, encoded, replacing.mode)
        except ShardError as error:
            tier.count(errors=1)
            tier.go_without(error)
            return Answer()
        if not given.token:
            # L1 may hold a value older than this one, and after this one it must not be read (R4).
            store.l1_abandon(op, drop=given.value is not MISSING)
            return given
        return Answer((yield from _fill(tier, store, wanted, op, encoded, given, mine, replacing)))
    finally:
        store.l1_abandon(op, drop=False)  # unless it is finished


def _lease(tier: Tier, store: Store[Any, Any], lane: int, encoded: bytes, mode: bytes) -> Steps[Answer]:
    """Ask for the key: get a value that has come meanwhile, or the lease, or how long to wait (0: not at all)."""
    if not mode and tier.is_owed(lane, encoded):
        mode = replace_mode()  # what is owed an invalidation is not known to be gone
    while True:
        start_ns, token = tier.clock(), hex_id(new_id())
        replies = yield [Exchange(lane, [lease_command(tier, lane, encoded, mode, token)])]
        if isinstance(replies[0], ShardError) and was_cut_off(replies[0]):
            # It may have been leased, to nobody, and be waited for by all others.
            again = lease_command(tier, lane, encoded, mode, hex_id(new_id()))
            replies = yield [Exchange(lane, [abort_command(tier, lane, encoded, token), again])]
        given = yield from lease_answer(tier, store, lane, encoded, answer(replies[0]).values[-1], start_ns)
        if given is not None:
            return given
        mode = replace_mode()


def _fill(
    tier: Tier,
    store: Store[Any, Any],
    wanted: Loading,
    op: Op,
    encoded: bytes,
    given: Answer,
    mine: Load,
    replacing: Replacing,
) -> Steps[Any]:
    """Load and fill, under lease. The operation is finished, or left to the caller to abandon."""
    tier.leases[given.token] = Leased(op.lane, encoded, given.token, tier.clock(), mine)
    shown = None
    try:
        if replacing.mode and is_conditional(wanted.loader) and not tier.is_owed(op.lane, encoded):
            shown = yield from show(tier, store, op.lane, encoded)
        loaded = yield from _loaded(tier, store, wanted, op, shown, replacing)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _abort(tier, op.lane, encoded, given.token)
        raise
    finally:
        tier.leases.pop(given.token, None)  # a loader may have forked, and this be the child
    if replacing.limit_ns is not None:  # who asks from now on may find it stored longer ago
        tier.loads.close(mine)
    if loaded is None:
        assert shown is not None
        return (yield from let_live(tier, store, op, encoded, given.token, given.generation, shown))
    if loaded.tags is None:
        tier.loads.close(mine)
        yield from _abort(tier, op.lane, encoded, given.token)
        if replacing.mode and loaded.content is None:
            yield from outdate(tier, store, [op])
        return loaded.value
    commands, size = fill_commands(tier, op, encoded, given.token, given.generation, loaded)
    start_ns = tier.clock()
    try:
        reply = answer((yield [Exchange(op.lane, commands)])[0])
    except ShardError as error:
        tier.count_unkept(error)
        tier.loads.close(mine)
        store.l1_abandon(op, drop=True)
        if is_worth_undoing(error):  # no memory, say; whoever waits is to load rather than to wait on
            yield from _abort(tier, op.lane, encoded, given.token)
        return loaded.value
    filled(tier, store, op, loaded, reply.values[-1], start_ns, size, reply.identity)
    return loaded.value


def _loaded(
    tier: Tier, store: Store[Any, Any], wanted: Loading, op: Op, shown: Shown | None, replacing: Replacing
) -> Steps[Outcome | None]:
    """Call the loader, with the generations of the value's tags captured before. None: the value shown is right."""
    place = op.lane, tags_before(tier, wanted.tags, replacing.due)
    captured = (yield from capture(tier, store, [place]))[place]
    begun_ns = tier.clock()
    try:
        value = yield from _call(tier, wanted, shown, replacing)
    except Exception as error:
        value = None if replacing.mode else failure_of(tier, error)  # an old value stays, whatever is kept of errors
        if value is None:
            raise
    if value is UNCHANGED and shown is not None:
        tier.count(unchanged=1)
        return None
    cost_ms = (tier.clock() - begun_ns) // NS_PER_MS + 1
    outcome = yield from outcome_of(tier, store, op.lane, wanted, value, captured, cost_ms)
    tier.writing(op.wid, op.key, ABSENT if isinstance(outcome.value, Absent) else outcome.value)
    return outcome


def _load_only(tier: Tier, store: Store[Any, Any], wanted: Loading, mine: Load) -> Steps[Any]:
    """Load, and keep the value nowhere. Who comes after a write of the key does not join, even so."""
    op = Op(wanted.name, tier.place(wanted.name)[0], write=True)
    try:
        store.l1_open(op)
        mine.rests_on(op, tier.clock())
        value = opened((yield from _call(tier, wanted))).value
        tier.loads.close(mine)
        return value
    finally:
        store.l1_abandon(op, drop=False)


def _abort(tier: Tier, lane: int, encoded: bytes, token: bytes) -> Steps[None]:
    """Give the lease back, so that nobody has to wait for its end. If that fails, they do."""
    yield [Exchange(lane, [abort_command(tier, lane, encoded, token)])]


def _call(tier: Tier, wanted: Loading, shown: Shown | None = None, replacing: Replacing = _NOTHING) -> Steps[Any]:
    """Call the loader. Returns its answer, or ABSENT where absence is kept: not over an old value unasked."""
    tier.count(loads=1)
    keeps_absence = replacing.due is None
    try:
        value = yield Call(given_old(wanted.loader, None if shown is None else shown.old), wanted.key)
        if value is ABSENT and not (keeps_absence and tier.freshness.negative_ms):
            raise KeyError(wanted.key)
        return value
    except BaseException as error:
        if keeps_absence and tier.freshness.means_absence(error):
            return ABSENT
        tier.count(load_errors=1)
        raise
