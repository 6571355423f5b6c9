"""Draws on a terminal, or writes plain lines where there is none."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from typing import TextIO

_PLAIN_EVERY_S = 5.0
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


class Screen:
    """Output for the reader.

    On a terminal, :meth:`draw` replaces what it drew before, and :meth:`say` writes above it.

    Attributes:
        live: Whether it is a terminal.
        broken: Whether nobody reads any more; nothing is written then.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.live = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.broken = False
        self._drawn: list[str] = []
        self._next_plain = 0.0

    def say(self, line: str = "", *, bold: bool = False) -> None:
        """Write a line that stays."""
        block = self._drawn
        self._erase()
        self._write((f"{_BOLD}{line}{_PLAIN}" if bold and self.live else line) + "\n")
        if block:
            self.draw(block)

    @property
    def width(self) -> int:
        """Columns that can be written without wrapping."""
        return shutil.get_terminal_size().columns - 1

    def draw(self, lines: Sequence[str]) -> None:
        """Draw lines in place of those drawn before; only on a terminal."""
        height = max(shutil.get_terminal_size().lines - 1, 1)
        fitting = [line[: self.width] for line in lines[:height]]
        # One write, and lines are cleared one by one as they are replaced: the table does not flicker.
        text = f"\x1b[{len(self._drawn)}A" if self._drawn else ""
        text += "".join(f"\x1b[2K{line}\n" for line in fitting) + "\x1b[J"
        self._write(text)
        self._drawn = list(fitting)

    def keep(self) -> None:
        """Leave what is drawn where it is."""
        self._drawn = []

    def plain_due(self) -> bool:
        """Return whether it is time for another plain line of progress."""
        now = time.monotonic()
        if self.live or now < self._next_plain:
            return False
        self._next_plain = now + _PLAIN_EVERY_S
        return True

    def restart_plain(self) -> None:
        """Let the next plain line wait its full time."""
        self._next_plain = time.monotonic() + _PLAIN_EVERY_S

    def _erase(self) -> None:
        if self._drawn:
            self._write(f"\x1b[{len(self._drawn)}A\x1b[J")
            self._drawn = []

    def _write(self, text: str) -> None:
        if self.broken:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self.broken = True
