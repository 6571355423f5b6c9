"""Loading many keys by one call of the user's bulk loader. Steps only: no I/O here.

What holds for one key (``filling``) holds for each of many: one load in the whole fleet, no late fill. A key has a
flight and a lease of its own, so that bulk loads and single ones find each other. Everything is asked of a shard in
one batch, or in large ones one after the other, and who loads a part of the keys waits for nobody before that part is
stored: so two that want the same keys, each holding some, never wait for each other.

::

    round: begin flights -- read -- lease -- one call -- fill all -- await other processes -- end the flights
             \\-- of others here: join them, last                    \\-- these again
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from .._store import Op, Store
from ..absence import ABSENT, Absent
from ..answers import checked_answers
from ..clocks import NS_PER_MS
from ..errors import ShardError
from ..flights import ABANDONED, Load, Signal, renewal_of
from ..freshness import Ttl
from ..l2 import Command, Exchange
from ..logs import log
from .ages import read_young
from .aging import Due, renew_many_later
from .bulk_reading import read_many
from .claims import Leased
from .exchanges import batched, slices
from .leasing import (
    LOOK_FIRST_S,
    LOOK_LONGEST_S,
    abort_command,
    holder_of,
    lease_answer,
    lease_command,
    outlast,
    patience_ms,
    replace_mode,
)
from .outcomes import Captured, Outcome, Tags, capture, fill_commands, filled, outcome_of, outdate, tags_before
from .replies import MISSING, is_worth_undoing, was_cut_off
from .steps import Await, Call, JoinLoad, Steps
from .tier import Tier, hex_id, new_id

#: How many leases are asked for, and how many values stored, at a time. What has been leased is renewed from then on,
#: however many keys are still to come.
_PORTION: Final = 2048


@dataclass(frozen=True, slots=True)
class Gathering:
    """A request to load many keys.

    Attributes:
        keys: The keys as the user gave them, by the keys as the cache holds them.
        loader: Returns a mapping from keys as the user gave them, without those that have no value; or raises.
        ttl_ms: Lifetime of a filled value, or what tells it from key and value.
        tags: What invalidates the values beside their keys: names, or a function that tells them from key and value.
        limit_ns: What was stored longer ago is loaded anew.
    """

    keys: Mapping[Any, Any]
    loader: Callable[[list[Any]], Any]
    ttl_ms: Ttl
    tags: Tags = ()
    limit_ns: int | None = None


@dataclass(slots=True, eq=False)
class _Part:
    """One key of a bulk load.

    Attributes:
        key, ttl_ms, tags: What is asked for.
        mine: The flight.
        op: The fill, once the lease has been asked for.
        token: The lease; empty: none, and then what is loaded is kept nowhere.
        asked: The token that it was asked for with.
        is_doubtful: Whether nobody knows what came of that.
        is_loaded: Whether the loader is to be asked for it.
        wait_ms: For how long another process has the lease.
        mode: Of the script ``lease``.
        due: The old value that is loaded anew unasked.
    """

    name: Any
    key: Any
    ttl_ms: Ttl
    tags: Tags
    lane: int
    encoded: bytes
    mine: Load
    op: Op | None = None
    token: bytes = b""
    asked: bytes = b""
    is_doubtful: bool = False
    generation: int = 0
    is_loaded: bool = False
    wait_ms: int = 0
    mode: bytes = b""
    due: Due | None = None
    signal: Signal = field(default_factory=Signal)
    is_heard: bool = False


def gather(tier: Tier, store: Store[Any, Any], wanted: Gathering) -> Steps[dict[Any, Any]]:
    """Return the values of many keys, by the keys as the cache holds them; those that have none are left out.

    L2 is asked first, in one round trip per shard. What it does not hold is loaded by one call; what others are loading
    is waited for, in this process and in others. What a shard that does not answer may hold is loaded, and not kept;
    but see :meth:`Tier.go_without`.

    Raises:
        Whatever the loader raises; whoever waits for one of its keys in this process gets that too.
        ShardError: With a queue, as :meth:`Tier.go_without`.
        LoadCycleError: The loader waits, directly or through others, for itself.
    """
    found: dict[Any, Any] = {}
    missing, due = list(wanted.keys), dict[Any, Due]()
    since_ns = tier.clock()
    pause_s = LOOK_FIRST_S
    while missing:
        missing = yield from _round(tier, store, wanted, missing, found, due, since_ns, pause_s)
        pause_s = min(2 * pause_s, LOOK_LONGEST_S)
    if due:
        yield from renew_many_later(tier, store, wanted, due, renew_many)
    return {name: value for name, value in found.items() if not isinstance(value, Absent)}


def renew_many(tier: Tier, store: Store[Any, Any], wanted: Gathering, due: Mapping[Any, Due]) -> Steps[None]:
    """Load anew what is there, but what somebody in the fleet is loading already, by one call. Nobody waits for it.

    Args:
        due: The values that were found to be old. Where another one is there by now, it stays.
    Raises:
        Whatever the loader raises; the old values stay.
    """
    parts: list[_Part] = []
    try:
        _begin(tier, wanted, list(wanted.keys), parts, renewal_of)
        for part in parts:
            part.due = due[part.name]
            part.mode = replace_mode(part.due.wid)
        yield from _carry_out(tier, store, wanted, parts, tier.clock())
    finally:
        _end(tier, store, parts)
        for name in wanted.keys:
            tier.renewed(name)


def _begin(
    tier: Tier, wanted: Gathering, names: list[Any], parts: list[_Part], known_as: Callable[[Any], Any]
) -> list[Load]:
    """Begin the flights of these keys: those that are ours become ``parts``; returns those that others have begun."""
    others: list[Load] = []
    for name in names:
        mine = Load(known_as(name))
        mine.beside = parts
        lane, encoded = tier.place(name)
        part = _Part(name, wanted.keys[name], wanted.ttl_ms, wanted.tags, lane, encoded, mine)
        parts.append(part)
        flight = tier.loads.begin(mine)
        if flight is not mine:
            parts.pop()
            others.append(flight)
    return others


def _end(tier: Tier, store: Store[Any, Any], parts: list[_Part]) -> None:
    """End the flights that are left."""
    while parts:
        part = parts[-1]
        tier.leases.pop(part.token, None)
        tier.ears.unawait(part.lane, part.encoded, part.signal.set)
        if part.op is not None:
            store.l1_abandon(part.op, drop=False)  # unless it is finished
        tier.loads.end(part.mine)
        parts.pop()


def _round(
    tier: Tier,
    store: Store[Any, Any],
    wanted: Gathering,
    names: list[Any],
    found: dict[Any, Any],
    due: dict[Any, Due],
    since_ns: int,
    pause_s: float,
) -> Steps[list[Any]]:
    """Get on with these keys; returns those that are to be looked at again."""
    parts: list[_Part] = []
    others: list[Load] = []
    try:
        others = _begin(tier, wanted, names, parts, lambda name: name)
        # Only now: a read that ends speaks against every load of its key that others have under way.
        yield from _look(tier, store, wanted, parts, due)
        yield from _carry_out(tier, store, wanted, [part for part in parts if part.mine.value is ABANDONED], since_ns)
        again = yield from _await_others(tier, parts, pause_s)
        found.update((part.name, part.mine.value) for part in parts if part.mine.value is not ABANDONED)
    except Exception as error:
        for part in parts:
            if part.is_loaded and part.mine.value is ABANDONED and part.mine.error is None:
                part.mine.error = error
        raise
    finally:
        try:
            _end(tier, store, parts)
        finally:  # an interrupt in the middle of it ends them all the same
            _end(tier, store, parts)
    for flight in others:
        try:
            value = yield JoinLoad(flight)
        except KeyError:  # a loader's word that there is none, but a bulk loader has another for that
            if flight.beside is not None:
                raise
            value = ABSENT
        if value is ABANDONED or value is MISSING or wanted.limit_ns is not None:  # it may be any age
            again.append(flight.key)
        else:
            found[flight.key] = value
    return again


def _look(
    tier: Tier, store: Store[Any, Any], wanted: Gathering, parts: list[_Part], due: dict[Any, Due]
) -> Steps[None]:
    """Give the keys that L2 holds their values, and note what is to be loaded anew."""
    flights = {part.name: part.mine for part in parts}
    if not flights:
        return
    if wanted.limit_ns is None:
        found = yield from read_many(tier, store, flights, flights, due)
    else:
        found = yield from read_young(tier, store, flights, wanted.limit_ns, flights)
    for name, flight in flights.items():
        if name in found:
            flight.value = found[name]
        else:
            flight.op = None  # who comes now may wait: what is about to begin is younger than their question


def _carry_out(tier: Tier, store: Store[Any, Any], wanted: Gathering, parts: list[_Part], since_ns: int) -> Steps[None]:
    """Lease the keys, load those that were leased, and fill them."""
    for part in parts:
        # Before asking, so that the message that ends a wait cannot come too early.
        part.is_heard = tier.ears.await_key(part.lane, part.encoded, part.signal.set)
        part.op = Op(part.name, part.lane, wid=new_id(), write=True)
        store.l1_open(part.op)
        part.mine.rests_on(part.op, tier.clock())
        if wanted.limit_ns is not None or tier.is_owed(part.lane, part.encoded):
            part.mode = replace_mode()
    late: dict[int, ShardError] = {}
    try:
        for some in slices(parts, _PORTION):
            asked = some
            while asked:
                asked = yield from _lease(tier, store, asked, late)
        for part in parts:
            if part.wait_ms:
                part.wait_ms = patience_ms(tier, since_ns, part.wait_ms)
                part.is_loaded = not part.wait_ms  # somebody's loader hangs; ours may not
        loaded = [part for part in parts if part.is_loaded]
        if loaded:
            yield from _load(tier, store, wanted, loaded, late)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _abort(tier, [part for part in parts if part.token])
        raise
    finally:
        for part in parts:
            tier.leases.pop(part.token, None)


def _lease(
    tier: Tier, store: Store[Any, Any], parts: Sequence[_Part], late: dict[int, ShardError]
) -> Steps[list[_Part]]:
    """Ask for the leases; returns those to ask for once more: a value cannot be read here, or no answer has come."""
    start_ns = tier.clock()
    answers = yield from batched([Exchange(part.lane, _lease_commands(tier, part)) for part in parts], late)
    again = []
    for part, (reply, _) in zip(parts, answers, strict=True):
        if isinstance(reply, ShardError):
            if was_cut_off(reply) and not part.is_doubtful:
                part.is_doubtful = True
                again.append(part)
                continue
            tier.count(errors=1)
            tier.go_without(reply)
            part.is_loaded = True
            continue
        given = yield from lease_answer(tier, store, part.lane, part.encoded, reply, start_ns)
        if given is None:
            part.mode = replace_mode()
            again.append(part)
        elif given.value is not MISSING:
            part.mine.value = given.value
            assert part.op is not None
            store.l1_abandon(part.op, drop=True)  # L1 may hold an older one, which must not be read after it (R4)
        else:
            part.token, part.generation, part.wait_ms = given.token, given.generation, given.wait_ms
            part.is_loaded = not part.wait_ms
            if part.token:
                tier.leases[part.token] = Leased(part.lane, part.encoded, part.token, tier.clock(), part.mine)
    return again


def _lease_commands(tier: Tier, part: _Part) -> list[Command]:
    before = [abort_command(tier, part.lane, part.encoded, part.asked)] if part.is_doubtful else []
    part.asked = hex_id(new_id())
    return [*before, lease_command(tier, part.lane, part.encoded, part.mode, part.asked)]


def _load(
    tier: Tier, store: Store[Any, Any], wanted: Gathering, parts: list[_Part], late: dict[int, ShardError]
) -> Steps[None]:
    """Call the loader once, and store what it brings."""
    places = {part: (part.lane, tags_before(tier, part.tags, part.due)) for part in parts}
    captured = yield from capture(tier, store, places.values())
    begun_ns = tier.clock()
    answers = yield from _call(tier, wanted, [part.key for part in parts])
    cost_ms = (tier.clock() - begun_ns) // NS_PER_MS // len(parts) + 1
    outcomes: list[tuple[_Part, Outcome]] = []
    unfit: Exception | None = None
    for part in parts:
        try:
            outcome = yield from _outcome(tier, store, part, answers, captured[places[part]], cost_ms)
        except Exception as error:  # noqa: BLE001  of this key alone: it is raised when the others' values are kept
            part.mine.error = error
            unfit = unfit or error
            continue
        part.mine.value = outcome.value
        if part.op is not None:
            tier.writing(part.op.wid, part.name, outcome.value)
        outcomes.append((part, outcome))
    fills = [(part, outcome) for part, outcome in outcomes if part.token and _is_kept(tier, part, outcome)]
    kept = {part for part, _ in fills}
    yield from _abort(tier, [part for part in parts if part.token and part not in kept])
    yield from outdate(tier, store, [p.op for p, loaded in outcomes if loaded.content is None and p.mode and p.op])
    for some in slices(fills, _PORTION):
        yield from _fill(tier, store, some, late)
    if unfit is not None:
        raise unfit


def _outcome(
    tier: Tier, store: Store[Any, Any], part: _Part, answers: Mapping[Any, Any], captured: Captured, cost_ms: int
) -> Steps[Outcome]:
    return (yield from outcome_of(tier, store, part.lane, part, answers.get(part.key, ABSENT), captured, cost_ms))


def _is_kept(tier: Tier, part: _Part, outcome: Outcome) -> bool:
    if outcome.tags is None:  # the value may be older than the last change of one of them
        return False
    return outcome.value is not ABSENT or bool(tier.freshness.negative_ms and part.due is None)


def _call(tier: Tier, wanted: Gathering, keys: list[Any]) -> Steps[Mapping[Any, Any]]:
    tier.count(loads=1)
    try:
        answers = checked_answers(wanted.loader, (yield Call(wanted.loader, list(keys))))
    except BaseException:
        tier.count(load_errors=1)
        raise
    surplus = len(answers.keys() - set(keys))
    if surplus:
        # There is no lease for them, so nobody could tell whether they are still right when they arrive.
        tier.count(surplus=surplus)
        if tier.counters.surplus == surplus:
            log(
                logging.WARNING,
                "namespace %s: load_many=%r returned %d keys that it was not asked for; they are left out "
                "(from now on only counted: stats().loader.surplus)", tier.namespace, wanted.loader, surplus,
            )  # fmt: skip
    return answers


def _fill(
    tier: Tier, store: Store[Any, Any], fills: Sequence[tuple[_Part, Outcome]], late: dict[int, ShardError]
) -> Steps[None]:
    """Store values under their leases, in one round trip per shard."""
    start_ns = tier.clock()
    exchanges, sizes = [], []
    for part, outcome in fills:
        assert part.op is not None
        commands, size = fill_commands(tier, part.op, part.encoded, part.token, part.generation, outcome)
        exchanges.append(Exchange(part.lane, commands))
        sizes.append(size)
    answers = yield from batched(exchanges, late)
    refused = []
    for (part, outcome), size, (reply, identity) in zip(fills, sizes, answers, strict=True):
        assert part.op is not None
        if isinstance(reply, ShardError):
            tier.count_unkept(reply)
            store.l1_abandon(part.op, drop=True)
            if is_worth_undoing(reply):
                refused.append(part)
        else:
            filled(tier, store, part.op, outcome, reply, start_ns, size, identity)
    yield from _abort(tier, refused)


def _abort(tier: Tier, parts: Sequence[_Part]) -> Steps[None]:
    """Give leases back, so that nobody has to wait for their end. If that fails, they do."""
    late: dict[int, ShardError] = {}
    for some in slices(parts, _PORTION):
        aborts = [Exchange(part.lane, [abort_command(tier, part.lane, part.encoded, part.token)]) for part in some]
        yield from batched(aborts, late)


def _await_others(tier: Tier, parts: list[_Part], pause_s: float) -> Steps[list[Any]]:
    """Wait until something is known of each key that another process loads. Returns what is to be looked at again."""
    again = []
    begun_ns = tier.clock()
    for part in parts:
        if not part.wait_ms:
            continue
        again.append(part.name)
        part.mine.op = None  # whatever happens now, it will be read again
        holder = holder_of(tier, part.encoded)
        if holder is not None:  # of this process: it may wait for us
            yield from outlast(holder)
            continue
        longest_s = part.wait_ms / 1000 if part.is_heard else min(pause_s, part.wait_ms / 1000)
        left_s = longest_s - (tier.clock() - begun_ns) / 1e9
        if left_s > 0:
            yield Await(part.signal, left_s)
    return again
