"""Rules about flushing, dead letters and the order of what is written, switched off one at a time. See ``mutants``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nearcache.backlog import Backlog, Change
from nearcache.cache.tiered import behind as behind_module
from nearcache.cache.tiered import letters as letters_module
from nearcache.loading import Queues, Tier, deciding
from simulation.edited_scripts import edit


def flushes_unawaited(patch: pytest.MonkeyPatch) -> None:
    """Who flushes hurries the writer, and does not wait for it."""

    def still_waiting(tier: Tier, ends: Mapping[int, bytes]) -> Any:
        return {}
        yield

    patch.setattr(behind_module, "still_waiting", still_waiting)


def flushes_of_one_shard(patch: pytest.MonkeyPatch) -> None:
    """Who flushes looks at the last shard only."""
    real = behind_module.queue_ends

    def queue_ends(tier: Tier) -> Any:
        ends = yield from real(tier)
        return {lane: end for lane, end in ends.items() if lane == len(tier.names) - 1}

    patch.setattr(behind_module, "queue_ends", queue_ends)


def failures_never_due(patch: pytest.MonkeyPatch) -> None:
    """What has failed is not tried again before something newer of its key comes."""
    real = Backlog._pause

    def pause(self: Backlog, change: Change, now_ns: int) -> None:
        real(self, change, now_ns)
        change.due_ns = 1 << 62

    patch.setattr(Backlog, "_pause", pause)


def letters_unwritten(patch: pytest.MonkeyPatch) -> None:
    """What is given up becomes no dead letter."""
    edit(patch, "buried", b"if found then", b"if false then")


def letters_over_newer_changes(patch: pytest.MonkeyPatch) -> None:
    """A dead letter is put back although a newer change of its key waits."""
    edit(patch, "requeue", b"return {2, m[3]} end", b"end")


def letters_put_back_twice(patch: pytest.MonkeyPatch) -> None:
    """A dead letter stays where it is when it is put back."""
    edit(patch, "requeue", b"call('XDEL', d, ARGV[i])", b"1")


def letters_put_back_unmarked(patch: pytest.MonkeyPatch) -> None:
    """Nobody is given the value of a dead letter that waits once more."""
    mark = b"if not mark or sub(mark, 1, 1) ~= 'H' then call('SET', l, 'P' .. id) end"
    edit(patch, "requeue", mark, b"")


def first_page_of_letters(patch: pytest.MonkeyPatch) -> None:
    """Of more dead letters than one answer has, the rest is not asked for."""
    real = letters_module.dead_letters

    def dead_letters(tier: Tier, lane: int, after: bytes = b"") -> Any:
        page, _ = yield from real(tier, lane, after)
        return page, b""

    patch.setattr(letters_module, "dead_letters", dead_letters)


def overtaken_left_waiting(patch: pytest.MonkeyPatch) -> None:
    """Of several changes of a key that one call of the writer stood for, the last one only leaves the queue."""
    real = Queues._written

    def written(self: Queues, tier: Tier, lane: int, share: list[Change]) -> Any:
        last = [Change(each.lane, each.encoded, each.envelope, each.ids[-1:], each.due_ns) for each in share]
        return real(self, tier, lane, last)

    patch.setattr(Queues, "_written", written)


def refused_but_queued(patch: pytest.MonkeyPatch) -> None:
    """What is refused for want of room is in the queue all the same."""
    refusal = b"return '3 ' .. m[3] .. ' ' .. length end"
    edit(patch, "set", refusal, b"call('XADD', w, '*', 'k', sub(KEYS[1], #L + 2), 'e', ARGV[7]) " + refusal)


def outrun_but_queued(patch: pytest.MonkeyPatch) -> None:
    """What is refused because somebody else was quicker is in the queue all the same."""
    refusal = b"if not fits then return"
    edit(
        patch,
        "set",
        refusal,
        b"if not fits and w then call('XADD', w, '*', 'k', sub(KEYS[1], #L + 2), 'e', ARGV[7]) end " + refusal,
    )


def settled_by_anybody(patch: pytest.MonkeyPatch) -> None:
    """Who has lost a queue to another one takes records out of it."""
    edit(patch, "written", b"if sub(call('GET', o) or '', 1, 17) ~= 'L' .. ARGV[4] then return {0, m[3]} end", b"")


def ended_locks_unheeded(patch: pytest.MonkeyPatch) -> None:
    """Whose lock has ended while he loaded writes all the same."""
    patch.setattr(deciding, "_kept", lambda work, renewal: work)


def leases_of_anybody(patch: pytest.MonkeyPatch) -> None:
    """Who has lost a lease fills under the one that another loader has."""
    mine = b"if mark ~= 'L' .. lease and mark ~= 'W' .. lease then"
    edit(patch, "fill", mine, b"if not mark or string.sub(mark, 18) ~= gen then")
