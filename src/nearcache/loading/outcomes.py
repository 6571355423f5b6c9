"""What a load brought, and its way into L2 and L1. Steps only: no I/O here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from .._store import Op, Store
from ..absence import Absent, Failure
from ..answers import DEFAULT, opened
from ..codecs import NO_VALUE, Encoded
from ..errors import DecodeError, ShardError, UnencodableValueError, ValueTooLargeError
from ..freshness import ENDLESS_MS, Life, Ttl, checked_ttl, ttl_for
from ..l2 import Command, stage
from ..logs import log
from ..options import MOST_TAGS, check_tags, tags_told
from .absences import note
from .aging import Due, Times, judge
from .steps import Steps
from .tagging import Tag, depend, generations, known, tag_hash, tags_hashed
from .tier import Tier, hex_id
from .writing import invalidate

#: Names of tags, or a function that tells them from key and value.
Tags = Sequence[str] | Callable[[Any, Any], Iterable[str]]


class Asked(Protocol):
    """What a load was asked for with, as far as it concerns what becomes of its value."""

    @property
    def key(self) -> Any:
        """As the user gave it."""

    @property
    def ttl_ms(self) -> Ttl:
        """Lifetime of the value."""

    @property
    def tags(self) -> Tags:
        """What invalidates it beside its key."""


class Outcome(NamedTuple):
    """What a load brought: the value, its tags as they were before the load, and what an L1 entry depends on.

    ``cost_ms`` is what the loader took, at least 1. ``tags`` is None if a tag was not known before; the value may be
    older than that tag's last change then. ``content`` is None, and so are the tags, if the value is not to be kept
    though what was there is over: it is over ``max_value``, or its tags and those that it inherits are too many.
    """

    value: Any
    content: Encoded | None
    tags: tuple[tuple[int, int], ...] | None
    under: tuple[int, int] | None
    life: Life
    cost_ms: int
    validator: str | None = None


class Captured(NamedTuple):
    """What was known before a load of the tags that its value will have whatever it is.

    Attributes:
        since_ns: When that was.
        tags: The tags.
        stated: Hash and generation of each; None: a shard did not answer.
        under: What an L1 entry depends on.
    """

    since_ns: int
    tags: tuple[Tag, ...]
    stated: tuple[tuple[int, int], ...] | None
    under: tuple[int, int] | None


def tags_before(tier: Tier, tags: Tags, due: Due | None) -> tuple[Tag, ...]:
    """Return the tags that are known before a load: those named, and those of the value that it renews."""
    names = () if callable(tags) else tags
    return tags_hashed(tier, (*map(tag_hash, names), *(() if due is None else due.tags)))


def capture(
    tier: Tier, store: Store[Any, Any], places: Iterable[tuple[int, tuple[Tag, ...]]]
) -> Steps[dict[tuple[int, tuple[Tag, ...]], Captured]]:
    """Find out the generations of tags, before a load whose values will depend on them.

    Args:
        places: For each value its lane and its tags, which tell it from others in what is returned.
    """
    since_ns = tier.clock()
    under = {place: depend(tier, store, *place) for place in set(places)}
    every = sorted({tag for _, tags in under for tag in tags})
    found: dict[int, int] | None = {}
    try:
        found = dict((yield from generations(tier, store, every))) if every else {}
    except ShardError:
        found = None
    return {
        (lane, tags): Captured(
            since_ns, tags, None if found is None else tuple((tag.hash, found[tag.hash]) for tag in tags), depends
        )
        for (lane, tags), depends in under.items()
    }


def outcome_of(
    tier: Tier, store: Store[Any, Any], lane: int, asked: Asked, answered: Any, captured: Captured, cost_ms: int
) -> Steps[Outcome]:
    """Return what becomes of a loader's answer.

    Raises:
        UnencodableValueError: The codec does not take it.
        ConfigError: The lifetime or the tags that were told for it are wrong.
        TypeError: It is no answer.
    """
    stated, under = captured.stated, captured.under
    if isinstance(answered, Failure):
        content, life = _encoded(tier, answered)
        return Outcome(answered, content, stated, under, life, 0)
    if isinstance(answered, Absent):
        return Outcome(answered, NO_VALUE, stated, under, tier.freshness.absence(), 0)
    loaded = opened(answered)
    value, ttl = loaded.value, asked.ttl_ms if loaded.ttl is DEFAULT else checked_ttl(loaded.ttl, ENDLESS_MS)
    try:
        content = tier.codec.encode_of(asked.key, value)
    except ValueTooLargeError as error:
        tier.count_unkept(error)
        return Outcome(value, None, None, under, Life(0), cost_ms)
    life = tier.freshness.life(ttl_for(ttl, asked.key, value))
    told = (*tags_told(asked.tags, asked.key, value), *loaded.tags)
    tags = captured.tags
    if told:
        check_tags({*(() if callable(asked.tags) else asked.tags), *told})
        tags = tags_hashed(tier, (*(tag.hash for tag in tags), *map(tag_hash, told)))
    if len(tags) > MOST_TAGS:
        return Outcome(value, None, None, under, Life(0), cost_ms)
    if told:
        under, stated = yield from _tell(tier, store, lane, captured, tags)
    return Outcome(value, content, stated, under, life, cost_ms, loaded.validator)


def outdate(tier: Tier, store: Store[Any, Any], ops: Iterable[Op]) -> Steps[None]:
    """Remove what is there of keys whose newer value cannot take its place."""
    for op in ops:
        store.l1_abandon(op, drop=True)
        with suppress(ShardError):  # an invalidation is owed
            yield from invalidate(tier, store, op.key)


def _tell(
    tier: Tier, store: Store[Any, Any], lane: int, captured: Captured, tags: tuple[Tag, ...]
) -> Steps[tuple[tuple[int, int] | None, tuple[tuple[int, int], ...] | None]]:
    """Return what an L1 entry depends on, and the generations, when there are tags that only the value told of."""
    under = depend(tier, store, lane, tags)
    before = dict(captured.stated or ())
    late = [tag for tag in tags if tag.hash not in before]
    stated = known(tier, late, captured.since_ns)
    if stated is None:  # the next load will find them known
        with suppress(ShardError):
            yield from generations(tier, store, late)
    # What was captured under other terms has to be right under these as well.
    if captured.stated is None or stated is None or not all(_is_now(tier, tag, before) for tag in tags):
        return under, None
    return under, tuple(sorted((*captured.stated, *stated)))


def _is_now(tier: Tier, tag: Tag, before: dict[int, int]) -> bool:
    return tag.hash not in before or tier.tags.l1_hit(tag.key, 0) == before[tag.hash]


def failure_of(tier: Tier, error: BaseException) -> Failure | None:
    """Return what is remembered of an error that a loader raised; None: nothing is."""
    if not isinstance(error, Exception) or not tier.freshness.failure(error).ttl_ms:
        return None
    codec = tier.codec.failures
    assert codec is not None
    try:
        tier.codec.encode_failure(error)
        failure = codec.decode(*codec.encode(error))
    except (UnencodableValueError, ValueTooLargeError, DecodeError) as cause:
        tier.count(unremembered=1)
        if tier.counters.unremembered == 1:
            log(
                logging.WARNING,
                "namespace %s: an error in error_ttl= cannot be remembered, and from now on that is not said again: %s",
                tier.namespace,
                cause,
            )
        return None
    return Failure(failure.error, error)


def _encoded(tier: Tier, failure: Failure) -> tuple[Encoded, Life]:
    error = failure.error()
    return tier.codec.encode_failure(error), tier.freshness.failure(error)


def fill_commands(
    tier: Tier, op: Op, encoded: bytes, token: bytes, generation: int, outcome: Outcome
) -> tuple[list[Command], int]:
    """Return the commands that store what a load brought, of which the last one's answer counts, and its size."""
    assert outcome.tags is not None
    assert outcome.content is not None
    ttl_ms, soft_ms = outcome.life
    sealed = tier.codec.seal(
        outcome.content,
        wid=op.wid,
        generation=generation,
        ttl_ms=ttl_ms,
        key=encoded,
        tags=outcome.tags,
        soft_ttl_ms=soft_ms,
        cost_ms=outcome.cost_ms,
        validator=outcome.validator,
    )
    before, staging, envelopes = stage(tier.names[op.lane].prefix, hex_id(op.wid), [sealed])
    arguments = (hex_id(op.wid), hex_id(generation), token, b"%d" % ttl_ms, *envelopes)
    command = tier.call(tier.scripts.fill, tier.write_keys(op.lane, [encoded], staging), *arguments)
    return [*before, command], len(sealed)


def filled(
    tier: Tier,
    store: Store[Any, Any],
    op: Op,
    outcome: Outcome,
    reply: Any,
    start_ns: int,
    size: int,
    identity: int,
) -> None:
    """Finish an operation whose fill was answered; one that was refused is left to the caller to abandon."""
    if int(reply[0]) != 1:
        tier.count(fills_refused=1)
        return
    try:
        tier.filled(size, op.wid, op.lane, int(reply[2], 16), int(reply[3]))
    except ValueError:  # somebody else has written into the lane record; the caller has its value all the same
        tier.count(errors=1)
        return
    ttl_ms, soft_ms = outcome.life
    deadline_ns, _ = judge(tier, start_ns, ttl_ms, Times(ttl_ms, soft_ms, outcome.cost_ms))
    if isinstance(outcome.value, Absent):
        note(store, op, outcome.value, op.wid, deadline_ns, size, identity, outcome.under)
        return
    tier.sample(op.key)
    if tier.births.in_use:
        tier.births.note(op.key, op.wid, start_ns, start_ns)
    store.l1_finish(op, outcome.value, op.wid, deadline_ns, size, identity, outcome.under)
