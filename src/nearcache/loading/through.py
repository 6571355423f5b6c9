"""Write-through: the user's writer first, then the cache. Steps only: no I/O here.

Between the writer's commit and the change of the cache a reader could load the new value, and one that began before the
commit could still store the old one. So the keys are invalidated and put on hold before, and the hold's end and the new
value are one step, which works only if the hold was nobody else's all the time. Of two processes that write one key at
once neither can know whose commit was the later: then the cache keeps nothing, and the next reader loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from .._store import Store
from ..codecs import thaw
from ..errors import BulkError, NotReplicatedError, ShardError
from ..freshness import Ttl
from ..writers import Writer
from .bulk import invalidate_many, owe_hold_end, write_many
from .reading import current_generation
from .steps import Call, Steps
from .tagging import Tag, depend, generations
from .tier import Tier, hex_id, new_id
from .ways import Known, held
from .writing import write

#: The longest that a writer may take for the cache to keep what it writes. If it takes longer, readers load.
HOLD_MS: Final = b"5000"


def write_through(
    tier: Tier,
    store: Store[Any, Any],
    writer: Writer,
    names: Mapping[Any, Any],
    values: Mapping[Any, Any],
    ttl_ms: Ttl | None,
    tags: tuple[Tag, ...] = (),
) -> Steps[None]:
    """Have values written, and then store them.

    Args:
        names: The keys as the cache holds them, by the keys as the user gave them, which is what the writer gets.
        values: By the user's keys.
        ttl_ms: Lifetime, or what tells it from the key held and the value; None: they are not stored.
    Raises:
        UnencodableKeyError, UnencodableValueError, ValueTooLargeError: Nothing was changed.
        ShardError, BulkError: The keys could not be put on hold. The writer was not called.
        Whatever the writer raises. The keys are invalidated: it may have written all the same.
        NotReplicatedError: It is written, and stored; but no replica has confirmed that it is stored.
    """
    for key, value in values.items():
        tier.codec.encode_of(key, value)
    token = hex_id(new_id())
    known = yield from _know(tier, store, names.values(), tags)
    yield from _under_hold(tier, store, list(names.values()), token, _calls(writer, values))
    if ttl_ms is None or known is None:
        yield from _end(tier, store, list(names.values()), token, is_change=True)
        return
    try:
        if len(names) == 1:
            ((key, name),) = names.items()
            chosen = ttl_ms(name, values[key]) if callable(ttl_ms) else ttl_ms
            yield from write(tier, store, name, values[key], chosen, tags=tags, way=held(token, known))
        else:
            named = {name: values[key] for key, name in names.items()}
            yield from write_many(tier, store, named, ttl_ms, tags, held(token, known))
    except NotReplicatedError:
        raise
    except (ShardError, BulkError):  # it is written; and an invalidation is owed
        owe_hold_end(tier, names.values(), token)
    except BaseException:  # an interrupt too: the writer is back, so nobody needs the hold
        owe_hold_end(tier, names.values(), token)
        raise


def delete_through(tier: Tier, store: Store[Any, Any], writer: Writer, names: Mapping[Any, Any]) -> Steps[int]:
    """Have keys deleted, and drop every copy of them. Returns how many of them L2 held.

    Raises:
        As :func:`write_through`.
    """
    token, keys = hex_id(new_id()), list(names)
    if writer.delete_many is not None and (len(keys) > 1 or writer.delete is None):
        calls: list[Call] = [Call(writer.delete_many, keys)]
    else:
        assert writer.delete is not None
        calls = [Call(writer.delete, key) for key in keys]
    count = yield from _under_hold(tier, store, list(names.values()), token, calls)
    yield from _end(tier, store, list(names.values()), token, is_change=True)
    return count


def _know(tier: Tier, store: Store[Any, Any], names: Iterable[Any], tags: tuple[Tag, ...]) -> Steps[Known | None]:
    """Find out all generations before the data changes: a change of a tag, or a clear, after that is later.

    Returns None if a shard does not answer. Then the value can be written, and not stored.
    """
    lanes = sorted({tier.place(name)[0] for name in names})
    under = {lane: depend(tier, store, lane, tags) for lane in lanes}
    of_lanes: dict[int, int] = {}
    try:
        for lane in lanes:
            generation = tier.known_generation(lane)
            if generation is None:
                generation = yield from current_generation(tier, lane)
            of_lanes[lane] = generation or 0
        return Known(of_lanes, (yield from generations(tier, store, tags)) if tags else (), under)
    except ShardError:
        tier.count(errors=1)
        return None


def _calls(writer: Writer, values: Mapping[Any, Any]) -> list[Call]:
    thawed = {key: thaw(value) for key, value in values.items()}
    if writer.write_many is not None and (len(values) > 1 or writer.write is None):
        return [Call(writer.write_many, thawed)]
    write_one: Callable[[Any, Any], object] | None = writer.write
    assert write_one is not None
    return [Call(partial(write_one, key), value) for key, value in thawed.items()]


def _under_hold(
    tier: Tier, store: Store[Any, Any], names: Sequence[Any], token: bytes, calls: list[Call]
) -> Steps[int]:
    """Put keys on hold and call the writer. The hold goes on, unless the writer raises."""
    count = 0
    try:
        count = yield from invalidate_many(tier, store, names, hold=(HOLD_MS, token))
    except NotReplicatedError:
        pass  # they are on hold; what is asked of a replica is the change, which is still to come
    except BulkError as error:
        yield from _end(tier, store, names, token)
        if len(names) == 1:  # as for every change of one key
            raise next(iter([*error.failed.values(), *error.unknown.values()])) from None
        raise
    except BaseException:  # interrupted before the writer was called
        owe_hold_end(tier, names, token)
        raise
    try:
        for call in calls:  # noqa: UP028  a list takes no answers
            yield call
    except Exception:
        yield from _end(tier, store, names, token)
        raise
    # Of what is interrupted or cancelled nobody knows when it ends: the hold goes on to its own end.
    return count


def _end(
    tier: Tier, store: Store[Any, Any], names: Sequence[Any], token: bytes, *, is_change: bool = False
) -> Steps[None]:
    """End a hold without a value. If that fails, it is owed, with the invalidation.

    Args:
        is_change: Whether this is what the caller wants to have confirmed by a replica.
    """
    try:
        yield from invalidate_many(tier, store, names, hold=(b"0", token), is_end=True)
    except NotReplicatedError:
        if is_change:
            raise
    except (ShardError, BulkError):
        pass
