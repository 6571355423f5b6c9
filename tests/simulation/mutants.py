"""Rules switched off in the real code, one at a time: each must make the simulation fail, or it checks nothing.

A mutant replaces something of the code under test while a block runs, under those faults that show it soonest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import pytest

from nearcache._store import Op
from nearcache.bus.follower import Follower
from nearcache.coherence import Attach, Detach, Lane, Suspect, Vouch
from nearcache.flights import Load
from nearcache.l2 import Reply
from nearcache.loading import bulk_reading, reading, writing
from nearcache.loading.tier import Tier
from nearcache.loading.upkeep import Upkeep
from simulation import behind_mutants as behind
from simulation import flushing_mutants as flush
from simulation import further_mutants as more
from simulation import gathering_mutants as many
from simulation import moving_mutants as moving
from simulation import through_mutants as through
from simulation.edited_scripts import edit
from simulation.process import L1
from simulation.runs import BEHIND, CONFIRMED, HASTY, ORDERED, PONDERING, TARDY, WIDE

Patch = Callable[[pytest.MonkeyPatch], None]


class Mutant(NamedTuple):
    """One rule switched off.

    Attributes:
        name: What is wrong with it.
        apply: Makes it wrong.
        faults: Kinds of faults to run it under; none: none.
        rules: Any of which must be found broken.
        first: The seed to begin with: where it was found last, for the sake of speed.
        busy: Kinds of operations that show it.
    """

    name: str
    apply: Patch
    faults: tuple[str, ...]
    rules: str
    first: int = 0
    busy: tuple[str, ...] = ()


@contextmanager
def switched_off(mutant: Mutant) -> Iterator[None]:
    """Run a block with the rule switched off."""
    with pytest.MonkeyPatch.context() as patch:
        mutant.apply(patch)
        yield


def _without(kind: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator that takes actions of one kind out of what a lane's method returns."""

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: [each for each in method(*arguments) if not isinstance(each, kind)]

    return decorate


def _ignore_gaps(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "_follow", _without(Suspect)(Lane._follow))


def _ignore_heartbeat_position(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "heartbeat_reply", _without(Suspect)(Lane.heartbeat_reply))


def _ignore_all_losses(patch: pytest.MonkeyPatch) -> None:
    _ignore_gaps(patch)
    _ignore_heartbeat_position(patch)


def _vouch_too_long(patch: pytest.MonkeyPatch) -> None:
    """From the reply's time, near enough: twice the bound from the sending."""
    real = Lane.heartbeat_reply

    def reply(self: Lane, *arguments: Any) -> list[Any]:
        actions = real(self, *arguments)
        return [Vouch(each.until_ns + self.bound_ns) if isinstance(each, Vouch) else each for each in actions]

    patch.setattr(Lane, "heartbeat_reply", reply)


def _stay_as_it_is_when_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "lost", _without(Suspect)(_without(Detach)(Lane.lost)))


def _trust_after_reconnect(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "lost", _without(Suspect)(Lane.lost))


class _Hearing(L1):
    """A store that heeds messages in a way of its own."""

    def lane_apply(self, lane: int, wid: int, keys: list[Any]) -> int:
        return super().lane_apply(lane, wid, [])


class _Overlooking(_Hearing):
    def lane_apply(self, lane: int, wid: int, keys: list[Any]) -> int:
        return L1.lane_apply(self, lane, wid, [key for key in keys if key != "k0"])


def _apply_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("simulation.process.L1", _Hearing)


def _overlook_a_key(patch: pytest.MonkeyPatch) -> None:
    """A message does nothing for one key."""
    patch.setattr("simulation.process.L1", _Overlooking)


def _attach_to_anybody(patch: pytest.MonkeyPatch) -> None:
    """Whoever answers counts as the server whose messages are heard."""
    real = Follower._perform

    def perform(self: Follower, each: Any, actions: list[Any]) -> None:
        real(self, each, [Attach(1) if isinstance(action, Attach) else action for action in actions])

    patch.setattr(Follower, "_perform", perform)
    patch.setattr("simulation.network.Reply", lambda values, identity: Reply(values, 1))


def _open_late(patch: pytest.MonkeyPatch) -> None:
    """Reads are registered when the answer is there, not before they are sent."""

    real = reading._fetch

    def fetch(tier: Tier, store: Any, op: Any, *arguments: Any, **keywords: Any) -> Any:
        return (yield from real(tier, _Late(store, op), op, *arguments, **keywords))

    patch.setattr(reading, "_fetch", fetch)


class _Late:
    """A store that has forgotten an operation, and registers it when it ends."""

    def __init__(self, store: Any, op: Any) -> None:
        store.l1_abandon(op, drop=False)
        self._store = store
        self._op = op

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def l1_finish(self, op: Any, *arguments: Any) -> bool:
        fresh = Op(op.key, op.lane)
        self._store.l1_open(fresh)
        return bool(self._store.l1_finish(fresh, *arguments))

    def l1_confirm(self, op: Any, *arguments: Any) -> bool:
        fresh = Op(op.key, op.lane)
        self._store.l1_open(fresh)
        return bool(self._store.l1_confirm(fresh, *arguments))


def _fill_regardless(patch: pytest.MonkeyPatch) -> None:
    """The server takes a fill whose lease was voided."""
    check = b"if mark ~= 'L' .. lease and mark ~= 'W' .. lease then return {0, gen, 'LOST'} end"
    edit(patch, "fill", check, b"mark = mark or 'L'")


def _forget_generation(patch: pytest.MonkeyPatch) -> None:
    """A suspect is current if the write is the same, whatever has been cleared."""

    def revalidated(*arguments: Any) -> Any:
        *known, header, _, start_ns = arguments
        return _REVALIDATED(*known, header, int.from_bytes(header[12:20], "big"), start_ns)

    patch.setattr(reading, "revalidated", revalidated)
    patch.setattr(bulk_reading, "revalidated", revalidated)
    patch.setattr("nearcache.codecs.ValueCodec._usual", lambda *_: None)  # compiled code judges the usual ones


def _ignore_expiry(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tier, "deadline_ns", lambda self, start_ns, pttl_ms, whole_ms: start_ns + (whole_ms << 20))


def _join_any_load(patch: pytest.MonkeyPatch) -> None:
    """A load may be joined whatever has happened to its key."""
    patch.setattr(Load, "joinable", True)


def _never_pay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("simulation.process.Keeper.vouched", lambda self, lane: None)


def _never_replay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upkeep, "forked", lambda self, lane, epoch, ends: None)


def _raise_on_reading(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bulk_reading, "ShardError", _NeverRaised)


def _clear_keeps_l1(patch: pytest.MonkeyPatch) -> None:
    """A clear leaves this process' own entries."""

    def clear(tier: Tier, store: Any) -> Any:
        return (yield from _CLEAR(tier, _Keeping(store)))

    patch.setattr(Tier, "suspect", lambda self, store, lane: None)
    patch.setattr("simulation.workload.clear", clear)


class _Keeping:
    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def drop_all(self, *, invalidated: bool) -> int:
        return 0


class _NeverRaised(Exception):
    pass


_CLEAR: Final = writing.clear
_REVALIDATED: Final = reading.revalidated
#: Where the runs begin in which more is done: see ``runs``.
_RICHER: Final = 1_000_000
_FULLER: Final = 80_000_000
_IMPORTING: Final = 90_000_000
_NEWEST: Final = 300_000_000
_STRAYING: Final = 3_000_000_000
_FLUSHING: Final = 500_000_000
_TAGGED: Final = ("tag_update", "load")
_TOKENS: Final = ("update", "token", "wait_for", "get", "set")
_YOUNG: Final = ("young_many", "load", "get")
_MOVES: Final = ("reshard", "update", "load", "get")
_ORDERED: Final = ("get", "set", ORDERED)
_REPLAYING: Final = (BEHIND, "replay")
_DEAF: Final = ("half-open bus",)
_SLOW: Final = ("slow bus",)
_LOSSES: Final = ("lost messages",)
_LINKS: Final = ("half-open bus", "reset bus", "slow bus", "partition")

MUTANTS: Final = (
    Mutant("losses are ignored", _ignore_all_losses, _LOSSES, "I1 I4 I5", 19),
    Mutant("losses are ignored behind a proxy", _ignore_all_losses, ("proxied failover",), "I1 I4 I5", 37),
    Mutant("one heartbeat vouches for too long", _vouch_too_long, ("paused",), "I1", 4),
    Mutant("a lost connection changes nothing", _stay_as_it_is_when_lost, _LINKS, "I1 I2 I4 I5", 23),
    Mutant("entries are trusted after a reconnect", _trust_after_reconnect, _LINKS, "I1 I4 I5", 4),
    Mutant("messages drop nothing", _apply_nothing, (), "I1 I4 I5", 3),
    Mutant("messages overlook one key", _overlook_a_key, (), "I1 I4 I5", 3),
    Mutant("any server's values are stored", _attach_to_anybody, ("zombie", "failover"), "I1 I4 I5", 27),
    Mutant("reads are registered late", _open_late, (), "I1 I4 I5 I9", 11),
    Mutant("fills under a void lease are taken", _fill_regardless, (), "I6 I7", 5),
    Mutant(
        "a suspect's generation is not looked at", _forget_generation, ("reset bus", "evicted lane"), "I1 I4 I5 I9", 27
    ),
    Mutant("expiry is not looked at", _ignore_expiry, (), "I2", 1),
    Mutant("any load is joined", _join_any_load, ("slow data",), "I3 I4", 2),
    Mutant("what is owed is not paid", _never_pay, ("lost answer", "lost request"), "I8", 1),
    Mutant("what a failover lost is not replayed", _never_replay, ("failover", "proxied failover"), "I4 I8", 68),
    Mutant("reading many raises what one shard raised", _raise_on_reading, ("half-open data",), "I10 ServerReplyError"),
    Mutant("a clear leaves this process' entries", _clear_keeps_l1, ("slow bus",), "I1 I4 I9"),
    Mutant("messages about tags are not heeded", more.tags_unheard, (), "I1 I5 I9", _RICHER + 17, _TAGGED),
    Mutant("own changes of tags are not heeded", more.own_tags_ignored, ("slow bus",), "I1 I9", _RICHER, _TAGGED),
    Mutant("any generation of a tag will do", more.tags_of_any_generation, (), "I1 I9", _RICHER, _TAGGED),
    Mutant("a tag's generation is taken after the load", more.tags_after_the_load, (), "I7", _RICHER + 3, _TAGGED),
    Mutant(
        "a tag's lane is not watched",
        more.tag_lanes_unwatched,
        ("half-open bus", "lost messages"),
        "I1 I9 I5",
        _RICHER + 56,
        ("tag_update", "load", "get"),
    ),
    Mutant("a token is not waited for", more.tokens_not_waited_for, _DEAF, "I14", _RICHER + 19, _TOKENS),
    Mutant("a token leaves out what was done", more.tokens_without_own_changes, _DEAF, "I14", _RICHER + 156, _TOKENS),
    Mutant(
        "what did not answer for a token is served",
        more.unanswered_tokens_forgotten,
        _DEAF,
        "I14",
        _RICHER + 19,
        _TOKENS,
    ),
    Mutant("a change replaces whatever is there", more.swaps_unchecked, (), "I13", _RICHER, ("compute", "cas")),
    Mutant(
        "tags that nobody can tell of are no tags",
        more.absent_for_who_cannot_tell,
        ("partition",),
        "I13",
        _RICHER + 60,
        ("tag_update", "incr", "compute", "get"),
    ),
    Mutant("what is taken stays", more.taken_but_left, (), "I13 I1 I3 I4", _RICHER, ("take", "set")),
    Mutant("a shorter life is not told", more.touched_in_silence, (), "I2", _RICHER + 18, ("touch", "get")),
    Mutant("a hold does not linger", more.holds_without_linger, (), "I7", _RICHER + 10, ("held_change", "load")),
    Mutant("old copies have no end", more.old_copies_for_ever, ("cut off",), "I15", _RICHER + 22, ("get",)),
    Mutant("what is due is kept to its end", more.due_unseen, (), "I15", _RICHER + 3, ("load", "get")),
    Mutant("a replica's silence is good", more.replicas_not_heeded, ("failover",), "I16", _RICHER, ("update", "set")),
    Mutant("a replica is asked too early", more.replicas_asked_first, ("failover",), "I16", _RICHER, ("update", "set")),
    Mutant("what has moved is served on", moving.left_lanes_trusted, (), "I1 I2", 2_000_426, _MOVES),
    Mutant("who is behind does not follow", moving.nobody_follows, (), "I5 I10", 2_000_000, _MOVES),
    Mutant("a sweep is lost", moving.emptying_unnoted, ("failover",), "I8", 2_000_804, (*_MOVES, HASTY)),
    Mutant("what comes back is not swept", moving.gained_unswept, (), "I1 I8", 2_000_017, (*_MOVES, HASTY)),
    Mutant(
        "the other owner hears nothing",
        moving.other_owner_untold,
        (),
        "I1 I7 I8",
        2_000_030,
        ("reshard", "load", "get", WIDE, TARDY),
    ),
    Mutant(
        "fills of any list of shards are taken",
        moving.fills_of_any_version,
        (),
        "I7",
        2_000_006,
        ("reshard", "load", "update", HASTY, WIDE, PONDERING),
    ),
    Mutant(
        "any list of shards is admitted",
        moving.any_version_admitted,
        ("paused",),
        "I1 I8",
        2_000_004,
        (*_MOVES, HASTY, WIDE),
    ),
    Mutant(
        "debts stay where they came to be",
        moving.debts_left_behind,
        (),
        "I1 I3 I8",
        2_000_000,
        ("reshard", "load", "update", HASTY, WIDE, TARDY),
    ),
    Mutant(
        "who began before a change owes where he began",
        moving.debts_not_passed_on,
        ("lost request", "half-open data", "slow data"),
        "I1 I8",
        2_001_010,
        ("reshard", "update", "load", "get", HASTY, WIDE, TARDY),
    ),
    Mutant(
        "what a lost epoch has taken is not owed again",
        more.strays_not_reclaimed,
        ("forgetful zombie",),
        "I8",
        _RICHER + 5,
        ("update", "load"),
    ),
    Mutant(
        "what a record made anew has ended stays dead",
        more.burials_for_good,
        ("zombie", "evicted lane"),
        "I8",
        _RICHER + 93,
        ("update", "load"),
    ),
    Mutant(
        "a record that is back began anew",
        more.records_begin_anew,
        ("led astray",),
        "I8",
        _STRAYING,
        ("update", "load"),
    ),
    Mutant("what was observed is not awaited", more.observations_unheeded, _SLOW, "I17", _RICHER + 2, _ORDERED),
    Mutant("a heartbeat vouches for what is withheld", more.withheld_but_vouched, _SLOW, "I17", _RICHER + 25, _ORDERED),
    Mutant(
        "a generation is trusted although more was observed",
        more.generations_trusted_while_behind,
        _SLOW,
        "I17",
        _RICHER + 6,
        (*_ORDERED, "clear"),
    ),
    Mutant(
        "a clear that is sent again is done again",
        more.clears_done_twice,
        ("lost request", "lost answer"),
        "I9",
        _RICHER + 65,
        ("clear", "load", "get", ORDERED),
    ),
    Mutant(
        "a clear that is paid leaves what was stored before",
        more.paid_clears_dropped_nothing,
        ("failover",),
        "I17",
        _RICHER + 42,
        ("get", "load", "clear", ORDERED),
    ),
    Mutant("what is asleep grows no older", many.ages_kept_asleep, ("asleep",), "I18", _FULLER + 7, _YOUNG),
    Mutant("what was young stays young", many.young_for_ever, (), "I18", _FULLER + 2, _YOUNG),
    Mutant("a longer life is a younger age", many.touched_is_younger, (), "I18", _FULLER + 42, ("young_many", "touch")),
    Mutant("what is being stored is waited for", many.joined_to_the_end, (), "I18", _FULLER + 41, ("young_load",)),
    Mutant("what others load is nothing", many.others_not_asked_again, (), "I1", _FULLER, ("load_many", "update")),
    Mutant(
        "tags of many are taken after the load",
        many.tags_after_loading_many,
        (),
        "I7",
        _FULLER + 2,
        ("load_many", "tag_update"),
    ),
    Mutant(
        "what is announced under a hold is written over",
        through.changes_under_holds_unmarked,
        (),
        "I7",
        _FULLER + 3,
        ("write_through", "update", "load"),
    ),
    Mutant(
        "what is cleared under a hold is written over",
        through.clears_under_holds_ignored,
        (),
        "I7",
        _IMPORTING + 12,
        ("write_through", "import"),
    ),
    Mutant("a hold of several is one's own", through.shared_holds_stored_under, (), "I7", _FULLER, ("write_through",)),
    Mutant(
        "tags are taken after the writer",
        through.tags_after_the_writer,
        (),
        "I7",
        _FULLER + 3,
        ("write_through", "tag_update"),
    ),
    Mutant(
        "the other owner's replica is all the same",
        moving.other_replica_unheeded,
        ("failover",),
        "I16",
        _NEWEST + 19,
        ("reshard", "update", "set", CONFIRMED, TARDY),
    ),
    Mutant("a lock in force is given away", through.locks_given_away, (), "I6", _NEWEST + 1, ("swap_through", "load")),
    Mutant("the data is read without the lock", through.locks_not_asked_for, (), "I13", _NEWEST, ("swap_through",)),
    Mutant("who asks is not given what waits", behind.waiting_unread, (), "I1 I7", _NEWEST, (BEHIND,)),
    Mutant("what waits is not marked", behind.waiting_unmarked, (), "I1 I7", _NEWEST, (BEHIND,)),
    Mutant(
        "a queue that is out is done without", behind.outages_put_up_with, ("paused",), "I1", _NEWEST + 514, (BEHIND,)
    ),
    Mutant("a queue is anybody's", behind.queues_of_anybody, (), "I6", _NEWEST, (BEHIND,)),
    Mutant("the first of several is written", behind.first_of_several_written, (), "W1", _NEWEST, (BEHIND,)),
    Mutant("what fails counts as written", behind.failures_settled, (), "I1 W1", _NEWEST + 9, (BEHIND,)),
    Mutant(
        "an owner goes on with a replaced server's queue",
        behind.replaced_servers_unnoticed,
        ("failover",),
        "I1 I7 W1",
        _NEWEST + 37,
        (BEHIND,),
    ),
    Mutant("a flush is not waited for", flush.flushes_unawaited, (), "W4", _FLUSHING, (BEHIND,)),
    Mutant("a flush is of one shard", flush.flushes_of_one_shard, (), "W4", _FLUSHING + 12, (BEHIND,)),
    Mutant("what has failed is never due", flush.failures_never_due, (), "W4", _FLUSHING + 63, (BEHIND,)),
    Mutant("what is given up is no dead letter", flush.letters_unwritten, (), "W5", _FLUSHING + 1, (BEHIND,)),
    Mutant("a dead letter overtakes", flush.letters_over_newer_changes, (), "W5", _FLUSHING + 1, _REPLAYING),
    Mutant("a dead letter is put back twice", flush.letters_put_back_twice, (), "W5", _FLUSHING + 1, _REPLAYING),
    Mutant("a dead letter is not marked", flush.letters_put_back_unmarked, (), "I1 I7", _FLUSHING + 1, _REPLAYING),
    Mutant("what is overtaken waits", flush.overtaken_left_waiting, ("killed",), "W2", _FLUSHING + 27, (BEHIND,)),
    Mutant("what is refused is queued", flush.refused_but_queued, (), "W3", _FLUSHING + 4, (BEHIND,)),
    Mutant("what is outrun is queued", flush.outrun_but_queued, (), "W3", _FLUSHING + 1, (BEHIND, "compute_behind")),
    Mutant("who has lost a queue settles", flush.settled_by_anybody, ("paused",), "I6", _FLUSHING + 22, (BEHIND,)),
    Mutant("whose lock has ended writes", flush.ended_locks_unheeded, ("paused",), "I13", _FLUSHING, ("swap_through",)),
    Mutant("who has lost a lease fills", flush.leases_of_anybody, (), "I6", _FLUSHING + 8, ("load",)),
)
