"""Rules about writing behind the cache, switched off one at a time. See ``mutants``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nearcache.backlog import Backlog
from nearcache.cache.tiered.behind import Scribe
from nearcache.loading import Queues, Tier
from simulation.edited_scripts import edit


def waiting_unread(patch: pytest.MonkeyPatch) -> None:
    """Who asks for a lease is not given the value that waits."""
    edit(patch, "lease", b"if w and letter == 'P' then", b"if false then")


def waiting_unmarked(patch: pytest.MonkeyPatch) -> None:
    """No mark is left at a key whose value waits."""
    edit(patch, "set", b"call('SET', KEYS[n + i], 'P' .. id)", b"call('UNLINK', KEYS[n + i])")


def outages_put_up_with(patch: pytest.MonkeyPatch) -> None:
    """What a shard that is out may have in its queue is loaded."""
    patch.setattr(Tier, "go_without", lambda *_: None)


def queues_of_anybody(patch: pytest.MonkeyPatch) -> None:
    """The server lets whoever asks own its queue."""
    edit(patch, "dequeue", b"if owner and not mine then", b"if false then")


def replaced_servers_unnoticed(patch: pytest.MonkeyPatch) -> None:
    """A queue's owner goes on where he was, whichever server he asks."""
    patch.setattr(Queues, "_is_replaced", lambda *_: False)


def first_of_several_written(patch: pytest.MonkeyPatch) -> None:
    """Of several changes of a key the first is written, and stands for all of them."""
    real = Backlog.add

    def add(self: Backlog, lane: int, encoded: bytes, *rest: Any) -> None:
        there = self._changes.get((lane, encoded))
        before = None if there is None else there.envelope
        real(self, lane, encoded, *rest)
        if before is not None:
            self._changes[lane, encoded].envelope = before

    patch.setattr(Backlog, "add", add)


def failures_settled(patch: pytest.MonkeyPatch) -> None:
    """What the writer has failed to write counts as written."""
    real = Scribe._try

    def attempt(self: Scribe, call: Callable[[], object]) -> None:
        real(self, call)

    patch.setattr(Scribe, "_try", attempt)
