"""The child's end of the conversation, and its manners: how a child starts, hears, and ends.

Ctrl-C goes to every process of the terminal; only the parent answers it, so children ignore SIGINT. A child ends when
it is told to (SIGTERM, or what :meth:`Conversation.told_to_end` adds), and when its parent is gone, whichever way that
happened.
"""

from __future__ import annotations

import json
import os
import select
import signal
from typing import Any

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

    def _on_term(self, *_: object) -> None:
        self._terminated = True

    @property
    def over(self) -> bool:
        """Whether this process should end."""
        return self._terminated or os.getppid() != self._parent or self.told_to_end()

    def told_to_end(self) -> bool:
        """Whether the parent has said so in a way of its own; subclasses know."""
        return False

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
