"""Tags: the generations that values depend on. Steps only: no I/O here.

A tag has a record in L2, an ordinary coherent key whose value is nothing but its write id: the tag's *generation*. The
envelope of a value with tags states their generations, and it counts as absent when one of them is another by now. So
changing one record invalidates any number of values, in any number of shards; and a record that was evicted or flushed,
and is made anew, has another generation too.

The generations have to be known *before* what depends on them is loaded. A generation that is too old is always safe:
the value is then dead from the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from .._placement import fnv1a64
from .._store import Op, Store
from ..codecs import Encoded, peek_ids
from ..coherence import TAG_KEY
from ..errors import DecodeError, ServerReplyError
from ..flights import Read
from ..freshness import ENDLESS_MS
from ..l2 import Exchange, Reply
from .acking import confirmed
from .proof import prove, proven
from .replies import HEADER_RANGE, REFUSED, STORED, answer
from .steps import Steps
from .tier import TAGS_KEPT, Tier, hex_id, new_id
from .versions import GENERATIONS

_NOTHING: Final = Encoded(b"", 0)


class Tag(NamedTuple):
    """One tag: its 64-bit hash, the encoded key of its record, and the lane of that."""

    hash: int
    key: bytes
    lane: int


def tag_hash(name: str) -> int:
    """Return the 64-bit hash of a tag, by which envelopes and records know it."""
    return fnv1a64(name.encode("utf-8", "surrogatepass"))


def tag_key(hashed: int) -> bytes:
    """Return the encoded key of the record of the tag with this hash."""
    return TAG_KEY + b"%016x" % hashed


def tag_of(tier: Tier, hashed: int) -> Tag:
    """Return the tag with this hash."""
    key = tag_key(hashed)
    return Tag(hashed, key, tier.lane_of(key))


def tags_named(tier: Tier, names: Iterable[str]) -> tuple[Tag, ...]:
    """Return the tags of these names, each once, in the order of their hashes."""
    return tags_hashed(tier, map(tag_hash, names))


def tags_hashed(tier: Tier, hashes: Iterable[int]) -> tuple[Tag, ...]:
    """The same of the tags with these hashes."""
    return tuple(tag_of(tier, hashed) for hashed in sorted(set(hashes)))


def depend(tier: Tier, store: Store[Any, Any], lane: int, tags: Sequence[Tag]) -> tuple[int, int] | None:
    """Return what an entry with these tags is to be entered under. To be asked before :func:`generations`."""
    if not tags:
        return None
    return tier.derived.assign(store, lane, [(tag.key, tag.lane) for tag in tags])


def generations(tier: Tier, store: Store[Any, Any], tags: Sequence[Tag]) -> Steps[tuple[tuple[int, int], ...]]:
    """Return hash and generation of each tag, from L1 where it is known, else from L2, in one round trip.

    What depends on a tag whose next change would not be heard is suspect from the start.

    Raises:
        ShardError: A lane did not answer.
    """
    # A tag whose change is not known to have been made has no generation: nothing that states one is current.
    owed = {tag for tag in tags if tier.is_owed(tag.lane, tag.key)}
    found = {tag: 0 if tag in owed else tier.tags.l1_hit(tag.key, 0) for tag in tags}
    unknown = [tag for tag, generation in found.items() if not generation and tag not in owed]
    if unknown:
        found.update((yield from _fetch(tier, store, unknown)))
    return tuple((tag.hash, found[tag]) for tag in tags)


def are_current(tier: Tier, store: Store[Any, Any], stated: Sequence[tuple[int, int]]) -> Steps[bool]:
    """Whether the generations that an envelope states are those of now."""
    tags = [tag_of(tier, hashed) for hashed, _ in stated]
    current = dict((yield from generations(tier, store, tags)))
    others = [tag for tag, (_, generation) in zip(tags, stated, strict=True) if generation != current[tag.hash]]
    if any(tier.is_owed(tag.lane, tag.key) for tag in others):
        return False
    # What L1 knows of a tag may be older than the envelope: it is asked for before the value is called dead.
    found = (yield from _fetch(tier, store, others)) if others else {}
    return all(found[tag] == dict(stated)[tag.hash] for tag in others)


def known(tier: Tier, tags: Sequence[Tag], since_ns: int) -> tuple[tuple[int, int], ...] | None:
    """Return the generations if L1 has known all of them since an instant; None if not.

    What was known before a load began may be stated of the load, even if the tags are found out only after it.
    """
    stated = []
    for tag in tags:
        generation = tier.tags.l1_hit(tag.key, 0)
        known_ns = tier.tags_since.get(tag.key)
        if generation and known_ns is None:
            tier.remember_tag(tag.key, tier.clock())  # it was forgotten; the next load will find it
        if not generation or known_ns is None or known_ns > since_ns:
            return None
        stated.append((tag.hash, generation))
    return tuple(stated)


@confirmed
def invalidate_tag(tier: Tier, store: Store[Any, Any], name: str) -> Steps[None]:
    """Give a tag another generation: every value that has it is absent, in every process. O(1).

    Raises:
        ShardError: It is not known to be done. It is owed, and will be made up for; where the tier forgives, that is
            all.
    """
    (tag,) = tags_named(tier, [name])
    try:
        try:
            yield from _renew(tier, tag, absent_only=False)
        except ServerReplyError as error:
            if error.code != "OOM":
                raise
            yield from _remove(tier, tag)  # what states a record that is gone is dead as well, and this takes no room
        tier.count(invalidations=1)
    finally:
        tier.derived.changed(store, tag.key)
        # Who comes from now on does not join what began before.
        tier.share(overtaken_ns=tier.clock())
        tier.loads.close_all()


def _fetch(tier: Tier, store: Store[Any, Any], tags: list[Tag]) -> Steps[dict[Tag, int]]:
    """Read the records in L2; make those that are not there."""
    ops = [Read(tag.key, tag.lane) for tag in tags]
    found: dict[Tag, int] = {}
    heard: set[Tag] = set()
    try:
        for op in ops:
            tier.tags.l1_open(op)
        start_ns = tier.clock()
        asked = [
            prove(
                tier,
                tag.lane,
                [
                    (b"PTTL", tier.names[tag.lane].value(tag.key)),
                    (b"GETRANGE", tier.names[tag.lane].value(tag.key), *HEADER_RANGE),
                    tier.ask_generation(tag.lane),
                ],
            )
            for tag in tags
        ]
        replies = yield [exchange for exchange, _ in asked]
        for tag, op, (_, proof), reply in zip(tags, ops, asked, replies, strict=True):
            found[tag], is_kept = _take(tier, tag, op, proven(tier, proof, answer(reply)), start_ns)
            if is_kept:
                heard.add(tag)
    finally:
        for op in ops:
            tier.tags.l1_abandon(op, drop=False)
            op.resolve(None, tier.lock)
    for tag, generation in found.items():
        if not generation:
            is_new = _is_new(tier, tag)
            found[tag] = yield from _renew(tier, tag, absent_only=True)
            if is_new and tier.tags.peek(tag.key) == found[tag]:
                heard.add(tag)
    for tag in tags:
        # It was read from another server than the one that is heard, say: whoever takes over from a primary that is
        # still there tells what is changed on it to nobody who follows that.
        if tag not in heard:
            tier.derived.changed(store, tag.key)
    return found


def _is_new(tier: Tier, tag: Tag) -> bool:
    """Whether nothing in L1 can depend on a tag. One that was known, and whose record is lost, takes that along."""
    return tag.key not in tier.tags_since and len(tier.tags_since) < TAGS_KEPT


def _take(tier: Tier, tag: Tag, op: Op, reply: Reply, start_ns: int) -> tuple[int, bool]:
    """Return the generation that a record states, 0 if there is none; and whether L1 keeps it."""
    pttl_ms, header, generation = reply.values
    try:
        wid, written_in, whole_ms = peek_ids(header)
    except DecodeError:
        return 0, False
    if written_in != tier.generation_in(tag.lane, generation):
        return 0, False
    deadline_ns = tier.deadline_ns(start_ns, pttl_ms, whole_ms)
    is_kept = False
    if deadline_ns:
        if not tier.tags.l1_hit(tag.key, 0):
            # From now on, not since the request: what began in between may be older than what the answer tells.
            tier.remember_tag(tag.key, tier.clock())
        is_kept = tier.tags.l1_finish(op, wid, wid, deadline_ns, 0, reply.identity)
    return wid, is_kept


def _renew(tier: Tier, tag: Tag, *, absent_only: bool) -> Steps[int]:
    """Write a tag's record anew; return its generation. With ``absent_only`` a live record stays."""
    op = Op(tag.key, tag.lane, wid=new_id(), write=True, announced=True)
    tier.derived.expect(op.wid)
    try:
        tier.tags.l1_open(op)
        return (yield from _write(tier, tag, op, b"NX" if absent_only else b""))
    except BaseException as error:
        tier.derived.unexpect(op.wid)
        if tier.give_up(tier.tags, op, tag.key, error):
            tier.refusals.changed(error)
            return 0
        raise


def _remove(tier: Tier, tag: Tag) -> Steps[None]:
    """Remove a tag's record. Raises as :func:`invalidate_tag`."""
    op = Op(tag.key, tag.lane, wid=new_id(), write=True)
    since = tier.serial(tag.lane)
    try:
        tier.tags.l1_open(op)
        reply = answer((yield [tier.invalidate_exchange(tag.lane, [tag.key], op.wid)])[0])
        _, _, _, epoch, seq = reply.values[0]
        tier.acknowledge(tag.lane, epoch, seq, (tag.key,), since)
        tier.tags.l1_finish(op, None, 0, 0)
    except BaseException as error:
        if not tier.give_up(tier.tags, op, tag.key, error):
            raise
        tier.refusals.changed(error)


def _write(tier: Tier, tag: Tag, op: Op, mode: bytes) -> Steps[int]:
    generation, since = tier.lanes[tag.lane].generation or 0, tier.serial(tag.lane)
    keys = tier.write_keys(tag.lane, [tag.key])
    for _ in range(GENERATIONS):
        sealed = tier.codec.seal(_NOTHING, wid=op.wid, generation=generation, ttl_ms=ENDLESS_MS, key=tag.key)
        start_ns = tier.clock()
        arguments = (hex_id(op.wid), hex_id(generation), mode, b"%d" % ENDLESS_MS, sealed)
        reply = answer((yield [Exchange(tag.lane, [tier.call(tier.scripts.set, keys, *arguments)])])[0])
        heard = tier.said(tag.lane, reply.values[0])
        if heard.status == STORED:
            tier.acknowledge(tag.lane, heard.epoch, heard.seq, (tag.key,), since)
            tier.remember_tag(tag.key, tier.clock())
            deadline_ns = tier.deadline_ns(start_ns, ENDLESS_MS, ENDLESS_MS)
            tier.tags.l1_finish(op, op.wid, op.wid, deadline_ns, 0, reply.identity)
            return op.wid
        if heard.status == REFUSED:  # somebody else made it meanwhile
            try:
                there = peek_ids(heard.envelope or b"")[0]
            except DecodeError:  # no record, then, though it has the generation of one
                mode = b""
                continue
            tier.tags.l1_abandon(op, drop=False)
            return there
        generation = heard.generation
    raise tier.outrun(tag.lane)
