"""Rules about tags, tokens, changes and growing old, switched off one at a time. See ``mutants``."""

from __future__ import annotations

from typing import Any, Final

import pytest

from nearcache.coherence import Derived, Horizon, Journal, Lane, OrderedHorizon
from nearcache.l2 import Reply
from nearcache.loading import acking, aging, bulk, filling, reading, swapping, tagging, tokens, writing
from nearcache.loading.aging import Times
from nearcache.loading.stale import StaleCopies
from nearcache.loading.tier import Tier
from simulation.edited_scripts import edit

_TAKEN: Final = acking._taken
_BEHIND: Final = acking._behind


def _keep(patch: pytest.MonkeyPatch, name: str) -> None:
    patch.setattr(Derived, name, lambda self, *arguments: None)


def tags_unheard(patch: pytest.MonkeyPatch) -> None:
    """A message about a tag leaves the entries that have it as they are."""
    _keep(patch, "heard")


def own_tags_ignored(patch: pytest.MonkeyPatch) -> None:
    """A process' own change of a tag does so."""
    _keep(patch, "changed")


def tags_of_any_generation(patch: pytest.MonkeyPatch) -> None:
    """What L2 holds is current, whatever generations it states."""

    def are_current(*_: Any) -> Any:
        return True
        yield

    patch.setattr(reading, "are_current", are_current)
    patch.setattr(swapping, "are_current", are_current)


def tags_after_the_load(patch: pytest.MonkeyPatch) -> None:
    """The generations that an envelope states are those after the load."""
    real = filling._loaded

    def loaded(tier: Tier, store: Any, *arguments: Any, **options: Any) -> Any:
        found = yield from real(tier, store, *arguments, **options)
        if found.tags:
            tags = [tagging.tag_of(tier, hashed) for hashed, _ in found.tags]
            now = yield from tagging.generations(tier, store, tags)
            found = found._replace(tags=now)
        return found

    patch.setattr(filling, "_loaded", loaded)


def tag_lanes_unwatched(patch: pytest.MonkeyPatch) -> None:
    """An entry with tags is served although nothing is heard of its tags' lanes."""
    real = Derived.assign

    def assign(self: Derived, store: Any, lane: int, tags: Any) -> tuple[int, int]:
        return real(self, store, lane, [(key, lane) for key, _ in tags])

    patch.setattr(Derived, "assign", assign)


def tokens_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A token is taken, and nothing is done."""

    def catch_up(tier: Tier, store: Any, token: str, seconds: float) -> Any:
        return
        yield

    patch.setattr("simulation.further.catch_up", catch_up)


def tokens_without_own_changes(patch: pytest.MonkeyPatch) -> None:
    """A token names what its maker has heard of, and not what it has done."""

    def newest(self: Tier, lane: int) -> tuple[int, int] | None:
        position = self.lanes[lane].position
        return None if position is None else (position.epoch, position.seq)

    patch.setattr(Tier, "newest", newest)


def unanswered_tokens_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A lane that does not answer is served as before."""
    patch.setattr("simulation.further.catch_up", tokens.catch_up)
    patch.setattr(Tier, "suspect", lambda self, store, lane: None)


def swaps_unchecked(patch: pytest.MonkeyPatch) -> None:
    """The server takes a change whatever is there."""
    edit(patch, "set", b"if not fits then", b"if false then")


def absent_for_who_cannot_tell(patch: pytest.MonkeyPatch) -> None:
    """A verb takes a value for absent whose tags' shard does not answer."""
    real = reading.accept

    def accept(*arguments: Any, strict: bool = False, **more: Any) -> Any:
        return (yield from real(*arguments, **more))

    patch.setattr(swapping, "accept", accept)
    patch.setattr(writing, "accept", accept)


def taken_but_left(patch: pytest.MonkeyPatch) -> None:
    """What is taken is still there for the next one."""
    edit(patch, "take", b"call('UNLINK', v)\n", b"\n")


def touched_in_silence(patch: pytest.MonkeyPatch) -> None:
    """A shorter life is announced to nobody."""
    edit(patch, "touch", b"if pttl < 0 or ms < pttl then", b"if false then")


def holds_without_linger(patch: pytest.MonkeyPatch) -> None:
    """A hold ends with the change, though readers of the source lag behind it."""
    real = bulk.invalidate_many

    def invalidate_many(tier: Tier, store: Any, names: Any, *, hold: Any = ()) -> Any:
        if hold and len(hold[0]) < 3 and hold[0] != b"0":
            hold = (b"0", hold[1])
        return (yield from real(tier, store, names, hold=hold))

    patch.setattr("simulation.further.invalidate_many", invalidate_many)


def replicas_not_heeded(patch: pytest.MonkeyPatch) -> None:
    """A replica is waited for, and whatever comes of it is good."""

    def taken(tier: Tier, asked: Any, sent: Any, reply: Any) -> Any:
        found, _ = _TAKEN(tier, asked, sent, reply)
        return found, None

    patch.setattr(acking, "_taken", taken)


def replicas_asked_first(patch: pytest.MonkeyPatch) -> None:
    """The replica is waited for before the change, not behind it."""

    def behind(tier: Tier, exchange: Any) -> Any:
        sent = _BEHIND(tier, exchange)
        return sent if sent is exchange else sent._replace(commands=[sent.commands[-1], *exchange.commands])

    def taken(tier: Tier, asked: Any, sent: Any, reply: Any) -> Any:
        if sent is not asked and isinstance(reply, Reply):
            reply = reply._replace(values=[*reply.values[1:], reply.values[0]])
        return _TAKEN(tier, asked, sent, reply)

    patch.setattr(acking, "_behind", behind)
    patch.setattr(acking, "_taken", taken)


def old_copies_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Copies are served for as long as a shard is out."""
    real = StaleCopies.__init__

    def init(self: StaleCopies, lanes: Any, allowed_ns: int, *arguments: Any) -> None:
        real(self, lanes, allowed_ns << 10, *arguments)

    patch.setattr(StaleCopies, "__init__", init)


def due_unseen(patch: pytest.MonkeyPatch) -> None:
    """L1 keeps a value to its end, whenever it is due."""

    def judge(tier: Tier, start_ns: int, pttl_ms: int, times: Times) -> tuple[int, bool]:
        return tier.deadline_ns(start_ns, pttl_ms, times.whole_ms), False

    for module in (aging, bulk, filling, reading, swapping, writing):
        if hasattr(module, "judge"):
            patch.setattr(module, "judge", judge)


def observations_unheeded(patch: pytest.MonkeyPatch) -> None:
    """What has been observed of a lane withholds nothing."""
    patch.setattr(OrderedHorizon, "observe", lambda self, lane, place: None)


def withheld_but_vouched(patch: pytest.MonkeyPatch) -> None:
    """A heartbeat vouches for a lane that is withheld."""

    def lane_vouch(self: OrderedHorizon, lane: int, until_ns: int) -> None:
        self._until_ns[lane] = until_ns
        Horizon.lane_vouch(self, lane, until_ns)

    patch.setattr(OrderedHorizon, "lane_vouch", lane_vouch)


def generations_trusted_while_behind(patch: pytest.MonkeyPatch) -> None:
    """A lane's generation is taken as it was heard, though more has been observed."""
    patch.setattr(OrderedHorizon, "is_ahead", lambda self, lane: False)


def paid_clears_dropped_nothing(patch: pytest.MonkeyPatch) -> None:
    """The message of a clear that was owed leaves the entries of the process that has paid it as they are."""
    real = Lane.cleared
    patch.setattr(Lane, "cleared", lambda self, wid, now_ns, **_: real(self, wid, now_ns))


def clears_done_twice(patch: pytest.MonkeyPatch) -> None:
    """A clear that is sent again, because its answer was lost, is done again."""
    edit(patch, "clear", b"if string.find(done, wid, 1, true) then", b"if false then")


def strays_not_reclaimed(patch: pytest.MonkeyPatch) -> None:
    """A change counts that was taken in an epoch which the lane does not come from."""
    patch.setattr(Journal, "reclaim", lambda self, _: setattr(self, "has_strayed", False))


def records_begin_anew(patch: pytest.MonkeyPatch) -> None:
    """A lane's record that is as it began counts as a new one, although it was there before."""
    real = Journal.forked

    def forked(self: Journal, epoch: int, ends: Any, seq: int) -> int:
        if ends is None and epoch in self._over:
            self._over.remove(epoch)
        return real(self, epoch, ends, seq)

    patch.setattr(Journal, "forked", forked)


def burials_for_good(patch: pytest.MonkeyPatch) -> None:
    """What a record made anew has ended is over, whoever takes over that has not heard of that record."""
    real = Journal.forked

    def forked(self: Journal, epoch: int, ends: Any, seq: int) -> int:
        if ends:
            self._burier = epoch
        return real(self, epoch, ends, seq)

    patch.setattr(Journal, "forked", forked)
