"""The demo's children: how a worker or the changer starts, and what it has besides the conversation.

They also end when the board's stop word is set.
"""

from __future__ import annotations

import sys

from common import conversation

from .board import Board
from .job import Job


class Conversation(conversation.Conversation):
    """The conversation, and the shared memory that comes with it."""

    def __init__(self) -> None:
        super().__init__()
        self._board: Board | None = None

    def open_board(self) -> tuple[Job, Board] | None:
        """Return the job and the shared memory, once the parent has sent them; None when it has gone instead."""
        line = self.hear_line()
        if line is None:
            return None
        job = Job.from_json(line)
        self._board = Board(job.descriptor, job.workers, job.pages)
        return job, self._board

    def told_to_end(self) -> bool:
        """Whether the board says so."""
        return self._board is not None and self._board.stopped


def main(role: str) -> int:
    """Run as a child of the demo: ``worker``, ``changer`` or ``survey``."""
    conversation = Conversation()
    if role == "survey":
        from . import pages

        line = conversation.hear_line()
        if line is not None:
            conversation.say("surveyed", modules=pages.survey(int(line)))
        return 0
    opened = conversation.open_board()
    if opened is None:
        return 0
    if role == "worker":
        from .worker import Worker

        return Worker(conversation, *opened).work()
    if role == "changer":
        from .changer import Changer

        return Changer(conversation, *opened).work()
    sys.exit(f"there is no role {role!r}")
