"""Write-through for verbs that decide by what is there: the data decides. Steps only: no I/O here.

What the cache has may be older than the data, and what it has not may be in the data all the same. So the value to
decide by is the loader's, and of all processes one at a time is between loading and writing: it has the key's lock.

::

    flight of this process -- lock in L2 --> loader --> the change --SKIP--> unlock
                                ^                           \\-- hold, writer, store (``through``) --> unlock
                                 \\-- the lock has ended --------/

The lock ends with the process that has it, and unlike a lease it outlasts a clear. It is asked for by verbs only: a
plain ``set`` is not held up by it, and is not ordered against them.

It ends by its time as well, where the process was stopped while it loaded, or nobody has renewed it. Then another verb
may have written by now, and what was loaded is no base to write on. So the request that puts the key on hold for the
writer asks for the lock to last longer, first; if it is not there any more, all begins anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from .._store import Store
from ..absence import ABSENT
from ..answers import given as given_old
from ..answers import opened
from ..changes import MISSING, SKIP, Change, Swapped
from ..errors import ContentionError
from ..flights import Load, Signal, change_of
from ..l2 import Command, Exchange, Reply
from ..writers import Writer
from .claims import Locked
from .leasing import LOOK_FIRST_S, LOOK_LONGEST_S, outlast, patience_ms
from .replies import answer
from .steps import Await, Call, Steps
from .swapping import find
from .tagging import Tag
from .through import delete_through, write_through
from .tier import Tier, hex_id, new_id
from .writing import invalidate

T = TypeVar("T")

#: So often all begins anew because the lock has ended.
_ATTEMPTS: Final = 5


class _LockLost(Exception):
    """Somebody else may have changed the data since it was loaded. Nothing is written."""


class Source(NamedTuple):
    """The data behind a cache."""

    loader: Callable[[Any], Any]
    writer: Writer


def swap_through(
    tier: Tier,
    store: Store[Any, Any],
    source: Source,
    key: Any,
    name: Any,
    change: Change,
    ttl: Callable[[Any], int],
    tags: tuple[Tag, ...] = (),
) -> Steps[Swapped]:
    """Have the writer write what is made of the loader's value, and store it; no other verb of the key gets in between.

    What a change that keeps lifetime and tags has made is not stored: they are the loader's to say, to the next reader.

    Raises:
        UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Nothing was changed.
        ContentionError: Others had the lock all the time, or it ended too early, every time. Nothing was changed.
        LoadCycleError: The loader or the writer has asked for a verb of the same key. Nothing was changed.
        ShardError: The lock or the hold could not be had. The writer was not called.
        Whatever loader, change and writer raise.
        NotReplicatedError: It is written and stored; but no replica has confirmed that it is stored.
    """
    return _alone(tier, name, lambda: _swap(tier, store, source, key, name, change, ttl, tags))


def take_through(tier: Tier, store: Store[Any, Any], source: Source, key: Any, name: Any) -> Steps[Any]:
    """Have the writer delete a key, and return the loader's value of it; MISSING, if there is none to delete.

    Raises:
        As :func:`swap_through`.
    """
    return _alone(tier, name, lambda: _take(tier, store, source, key, name))


def _swap(
    tier: Tier,
    store: Store[Any, Any],
    source: Source,
    key: Any,
    name: Any,
    change: Change,
    ttl: Callable[[Any], int],
    tags: tuple[Tag, ...],
) -> Steps[Swapped]:
    version = 0
    if change.guess:  # what was read with that version is there still, and only then
        there = yield from find(tier, store, name)
        value, version = there.value, there.version
    else:
        value = yield from _load(tier, source, key)
        version = 0 if value is MISSING else 1  # of nothing, or of something
    new = change.make(value, version)
    if new is SKIP:
        return Swapped(False, value, SKIP)
    life = None if change.keeps else lambda _name, made: ttl(made)
    yield from write_through(tier, store, source.writer, {key: name}, {key: new}, life, tags)
    return Swapped(True, value, new)


def _take(tier: Tier, store: Store[Any, Any], source: Source, key: Any, name: Any) -> Steps[Any]:
    value = yield from _load(tier, source, key)
    if value is MISSING:
        yield from invalidate(tier, store, name)  # a copy, if there is one, is of what is gone
    else:
        yield from delete_through(tier, store, source.writer, {key: name})
    return value


def _load(tier: Tier, source: Source, key: Any) -> Steps[Any]:
    """Return what the data says now, or MISSING. It is kept nowhere."""
    tier.count(loads=1)
    try:
        found = opened((yield Call(given_old(source.loader, None), key))).value
    except KeyError:
        return MISSING
    except BaseException:
        tier.count(load_errors=1)
        raise
    return MISSING if found is ABSENT else found


def _alone(tier: Tier, name: Any, work: Callable[[], Steps[T]]) -> Steps[T]:
    """Carry out steps while nobody else in the fleet has the key's lock."""
    lane, encoded = tier.place(name)
    mine, token = Load(change_of(name)), hex_id(new_id())
    is_held = False
    try:
        while (flight := tier.loads.begin(mine)) is not mine:
            yield from outlast(flight)
        is_held = True  # perhaps, even if it fails
        for _ in range(_ATTEMPTS):
            yield from _lock(tier, name, lane, encoded, token)
            try:
                return (yield from _kept(work(), _renewal(tier, lane, encoded, token)))
            except _LockLost:
                tier.locks.pop(token, None)
        raise ContentionError(name, _ATTEMPTS)
    except Exception:
        raise
    except BaseException:
        is_held = False  # of what is interrupted or cancelled nobody knows when it ends: the lock ends by its time
        raise
    finally:
        tier.locks.pop(token, None)
        try:
            if is_held:
                yield [Exchange(lane, [_unlock(tier, lane, encoded, token)])]  # if that fails, it ends by its time
        finally:
            try:
                tier.loads.end(mine)
            finally:  # an interrupt in the middle of it must not leave others waiting
                tier.loads.end(mine)


def _lock(tier: Tier, name: Any, lane: int, encoded: bytes, token: bytes) -> Steps[None]:
    """Wait for the lock, and have it."""
    names, since_ns, pause_s, attempts = tier.names[lane], tier.clock(), LOOK_FIRST_S, 0
    while True:
        signal = Signal()
        # Before asking, so that the message that ends the wait cannot come too early.
        is_heard = tier.ears.await_key(lane, encoded, signal.set)
        try:
            keys = [names.lock(encoded), names.lane_key]
            command = tier.call(tier.scripts.lock, keys, token, b"%d" % tier.lease_ms_on(lane))
            reply = answer((yield [Exchange(lane, [command])])[0])
            status, _, *rest = reply.values[0]
            attempts += 1
            if int(status) == 1:
                tier.locks[token] = Locked(lane, encoded, tier.clock())
                return
            wait_ms = patience_ms(tier, since_ns, max(1, int(rest[0])))
            if not wait_ms:
                raise ContentionError(name, attempts)
            seconds = wait_ms / 1000
            yield Await(signal, seconds if is_heard else min(pause_s, seconds))
            pause_s = min(2 * pause_s, LOOK_LONGEST_S)
        finally:
            tier.ears.unawait(lane, encoded, signal.set)


def _kept(work: Steps[T], renewal: Command) -> Steps[T]:
    """Carry out steps, and let them call the writer only if the lock was there when they put the key on hold.

    Raises:
        _LockLost: It was not.
    """
    move: Callable[[Any], Any] = work.send
    given: Any = None
    is_there: bool | None = None  # not known before there is a hold
    while True:
        try:
            request = move(given)
        except StopIteration as stop:
            value: T = stop.value
            return value
        move = work.send
        if is_there is False and isinstance(request, Call):  # the hold ends as if the writer had failed
            move, given = work.throw, _LockLost()
            continue
        # What is owed may be paid by such a request, too, before the one that counts.
        is_hold = isinstance(request, list) and any(map(_invalidates, request))
        try:
            given = yield [Exchange(each.shard, [renewal, *each.commands]) for each in request] if is_hold else request
        except BaseException as error:  # noqa: BLE001  an interrupt too: the steps have something to undo
            move, given = work.throw, error
            continue
        if is_hold:  # of one key: there is one exchange
            is_there = given[0].__class__ is Reply and given[0].values[0] == 1
            given = [Reply(each.values[1:], each.identity) if isinstance(each, Reply) else each for each in given]


def _invalidates(exchange: Exchange) -> bool:
    return any(getattr(command[0], "name", "") == "invalidate" for command in exchange.commands)


def _renewal(tier: Tier, lane: int, encoded: bytes, token: bytes) -> Command:
    return (tier.scripts.renew, 1, tier.names[lane].lock(encoded), token, b"%d" % tier.lease_ms_on(lane))


def _unlock(tier: Tier, lane: int, encoded: bytes, token: bytes) -> Any:
    names = tier.names[lane]
    keys = [names.value(encoded), names.lock(encoded), names.lane_key]
    return tier.call(tier.scripts.abort, keys, hex_id(new_id()), token)
