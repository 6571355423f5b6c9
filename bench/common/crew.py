"""The parent's end of the conversation: starts children, hears them, ends them."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Final

_READ_BYTES: Final = 65_536


class Member:
    """One child process.

    Args:
        entry: The program, a Python file that takes ``--role``.
        name: See below.
        role: What the child is to do.
        descriptors: Open files that it inherits.

    Attributes:
        name: As the reader sees it: ``worker 2``.
        pid: Its process id.
    """

    def __init__(
        self, entry: Path, name: str, role: str, descriptors: Collection[int], environment: Mapping[str, str] | None
    ) -> None:
        self.name = name
        # Signals wait while the child starts, and the child inherits that: none can hit it before it can answer.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(entry), "--role", role],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors, bufsize=0, env=environment,
            )  # fmt: skip
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.pid = self._process.pid
        self._to = self._process.stdin
        self.answers = self._process.stdout.fileno()
        self._from = self._process.stdout
        self._heard = b""

    @property
    def exit_status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def tell(self, line: str) -> None:
        """Send a line; a child that is gone is noticed elsewhere."""
        try:
            self._to.write(line.encode() + b"\n")
        except BrokenPipeError:
            return

    def hear(self) -> tuple[list[dict[str, Any]], bool]:
        """Return what the child has said, and whether it can say more."""
        data = os.read(self.answers, _READ_BYTES)
        *lines, self._heard = (self._heard + data).split(b"\n")
        return [json.loads(line) for line in lines], bool(data)

    def close(self) -> None:
        """Close the child's stdin: there is nothing more to tell."""
        self._to.close()

    def end(self, deadline: float) -> None:
        """Wait for the child until an instant of the monotonic clock, then kill it; reap it in any case."""
        try:
            self._process.wait(max(deadline - time.monotonic(), 0.05))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._from.close()


class Crew:
    """All children of one parent.

    Args:
        entry: The program that they run, a Python file that takes ``--role``.
        patience_s: How long a child may take to end. Python needs a good part of a second of a processor's time for it,
            and many at once on a busy machine wait for that.

    Attributes:
        members: Those that were started and have not been found dead.
        lost: Names and exit statuses of those that ended before they should.
    """

    def __init__(self, entry: Path, *, patience_s: float = 6.0) -> None:
        self._entry = entry
        self._patience_s = patience_s
        self._selector = selectors.DefaultSelector()
        self._all: list[Member] = []
        self.members: list[Member] = []
        self.lost: list[tuple[str, int]] = []

    def start(
        self, name: str, role: str, descriptors: Collection[int] = (), *, environment: Mapping[str, str] | None = None
    ) -> Member:
        """Start a child; ``environment``: all of its environment, instead of the parent's."""
        member = Member(self._entry, name, role, descriptors, environment)
        self._all.append(member)
        self.members.append(member)
        self._selector.register(member.answers, selectors.EVENT_READ, member)
        return member

    def tell_all(self, **command: Any) -> None:
        """Send a command to every living child."""
        for member in self.members:
            member.tell(json.dumps(command))

    def hear(self, timeout_s: float) -> list[tuple[Member, dict[str, Any]]]:
        """Return what children say within a time; returns as soon as one has spoken or died."""
        heard: list[tuple[Member, dict[str, Any]]] = []
        for key, _ in self._selector.select(timeout_s):
            member: Member = key.data
            said, more = member.hear()
            heard.extend((member, message) for message in said)
            if not more:
                self._selector.unregister(key.fileobj)
                self.members.remove(member)
                member.end(time.monotonic() + self._patience_s)
                status = member.exit_status
                self.lost.append((member.name, -signal.SIGKILL if status is None else status))
        return heard

    def dismiss(self, member: Member) -> None:
        """End one child that has done its work."""
        self._selector.unregister(member.answers)
        self.members.remove(member)
        member.close()
        member.end(time.monotonic() + self._patience_s)

    def end(self, tell_to_stop: Callable[[], None]) -> list[str]:
        """End all children and return the names of those that had to be killed."""
        tell_to_stop()
        for member in self._all:
            member.close()
        deadline = time.monotonic() + self._patience_s
        killed = []
        for member in self._all:
            before = member.exit_status
            member.end(deadline)
            if before is None and member.exit_status == -signal.SIGKILL:
                killed.append(member.name)
        self._selector.close()
        self._all.clear()
        self.members.clear()
        return killed
