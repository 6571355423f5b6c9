"""The child's end of the conversation, and its manners: how a worker or the changer starts, hears, and ends.

Ctrl-C goes to every process of the terminal; only the parent answers it, so children ignore SIGINT. A child ends when
it is told to (the board's stop word, SIGTERM), and when its parent is gone, whichever way that happened.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any

from .board import Board
from .job import Job

_READ_BYTES = 65_536


class Conversation:
    """Reads commands from the parent and answers.

    The parent's pipe is kept under another descriptor and ``stdout`` is joined to ``stderr``, so that nothing that
    happens to print can be taken for an answer.
    """

    def __init__(self) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
        self._answers = os.dup(1)
        os.dup2(2, 1)
        self._heard = b""
        self._terminated = False
        self._parent = os.getppid()
        self._board: Board | None = None

    def _on_term(self, *_: object) -> None:
        self._terminated = True

    def open_board(self) -> tuple[Job, Board] | None:
        """Return the job and the shared memory, once the parent has sent them; None when it has gone instead."""
        line = self.hear_line()
        if line is None:
            return None
        job = Job.from_json(line)
        self._board = Board(job.descriptor, job.workers, job.pages)
        return job, self._board

    @property
    def over(self) -> bool:
        """Whether this process should end."""
        return self._terminated or os.getppid() != self._parent or (self._board is not None and self._board.stopped)

    def say(self, what: str, **details: Any) -> None:
        """Tell the parent something."""
        try:
            os.write(self._answers, json.dumps({"say": what, **details}).encode() + b"\n")
        except BrokenPipeError:
            self._terminated = True

    def hear(self) -> dict[str, Any] | None:
        """Return the parent's next command, or None when this process should end."""
        line = self.hear_line()
        return None if line is None else json.loads(line)

    def hear_line(self) -> str | None:
        """Return the parent's next line, or None when this process should end."""
        while b"\n" not in self._heard:
            if self.over:
                return None
            if not select.select([0], [], [], 0.1)[0]:
                continue
            data = os.read(0, _READ_BYTES)
            if not data:
                return None
            self._heard += data
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode()


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
