"""What waits to be written behind the cache: a change of the list of shards could leave it where nobody looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...l2 import Command
from ...placement import LaneNames
from .. import is_owned


def queue_question(names: LaneNames) -> list[Command]:
    """The commands that ask a lane for what :func:`left_behind` judges by."""
    return [(b"XLEN", names.queue), (b"GET", names.owner), (b"TIME",), (b"XLEN", names.dead)]


def left_behind(shard: str, answers: Sequence[Any], *, leaves: bool) -> str:
    """Return what would be left behind, and what to do; empty: nothing.

    Args:
        answers: To :func:`queue_question`.
        leaves: Whether the shard is none of the list that is to be.
    """
    length, mark, time, letters = answers
    if int(length) or (mark and is_owned(mark, time)):  # one that has run empty is still there: its readers' group is
        return (
            f"changes wait in the queue of shard {shard} to be written behind the cache; end the processes that have "
            "write_delay=, and let the queue run empty"
        )
    if int(letters) and leaves:
        return (
            f"shard {shard}, which is to leave, has {int(letters)} dead letters; replay or discard them first "
            "(cache.dead_letters())"
        )
    return ""
