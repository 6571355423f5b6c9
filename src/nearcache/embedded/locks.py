"""What lies in the directory of one set of embedded servers, and the locks that say who uses it.

User processes and the supervisor share this module. It imports little: it is part of the supervisor's start.

The directory, mode 0700::

    users           each user process holds it locked, shared; the supervisor waits for the exclusive lock
    start           locked while somebody looks whether the servers run and, if they do not, starts them
    supervisor      locked for as long as the supervisor lives; its pid
    settings        what runs: shards, maxmemory_mb, version
    N.sock          unix socket of server N
    N.pid           locked for as long as server N lives (it inherits the descriptor); its pid
    N.log, supervisor.log

All locks are ``flock``: they belong to an open file, which a forked child shares, and the kernel drops them
with the last descriptor, so a SIGKILLed process leaves nothing to clean up. No decision rests on a pid read
from a file: it may be somebody else's by now, or of another pid namespace.

Rules that make it safe:

* Only a holder of ``users`` (shared) and the supervisor it started make files here; only a holder of
  ``users`` (exclusive) and ``supervisor`` removes them, ``users`` last. Whoever gets a lock checks that the
  file still has its name, and begins again if it has not.
* The descriptor that makes a process a user is never unlocked, only closed: unlocking would take the lock
  from its forked children, and from its parent, as well. All other locks are unlocked before they are closed,
  for the opposite reason: a child that was forked meanwhile must not keep them.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import suppress
from typing import NamedTuple

#: Servers of one set, at most. The place for sockets is chosen so that the longest of their names fits.
MAX_SHARDS = 64

#: Seconds that a server has to end when it is told to.
STOP_SECONDS = 2.0


class Settings(NamedTuple):
    """What the servers of a directory were started with."""

    shards: int
    maxmemory_mb: int
    version: str

    def write(self, directory: str) -> None:
        """Put the settings into ``directory``, in one step."""
        path = os.path.join(directory, "settings")
        with open(path + ".new", "w", encoding="ascii") as file:
            file.write(f"{self.shards} {self.maxmemory_mb} {self.version}\n")
        os.replace(path + ".new", path)

    @classmethod
    def read(cls, directory: str) -> Settings | None:
        """Return the settings of ``directory``; None when there are none that can be read."""
        try:
            with open(os.path.join(directory, "settings"), encoding="ascii") as file:
                shards, maxmemory_mb, version = file.read().split()
                return cls(int(shards), int(maxmemory_mb), version)
        except (FileNotFoundError, ValueError):  # torn by a crash of the whole machine: as good as none
            return None


def socket_path(directory: str, index: int) -> str:
    """Return the unix socket of server ``index``."""
    return os.path.join(directory, f"{index}.sock")


def open_lock(path: str, *, create: bool) -> int:
    """Open a lock file and return its descriptor; FileNotFoundError unless ``create``."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    return os.open(path, flags, 0o600)


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock at once or not at all; return whether it is locked."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Unlock and close: for every lock but a user's own on ``users``."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def is_locked(path: str) -> bool:
    """Return whether somebody holds the file's exclusive lock; False when there is no such file."""
    try:
        fd = open_lock(path, create=False)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(fd, shared=True)
    finally:
        unlock(fd)


def is_current(fd: int, path: str) -> bool:
    """Return whether ``path`` is still the name of the open file ``fd``."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(fd))


def answers(path: str) -> bool:
    """Return whether a Redis server answers PING on the unix socket ``path``."""
    return ask(path, b"PING\r\n").startswith(b"+PONG")


def ask(path: str, command: bytes) -> bytes:
    """Return the beginning of the reply to an inline command; empty when there is none within a second."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(1.0)
        try:
            link.connect(path)
            link.sendall(command)
            return link.recv(64)
        except OSError:
            return b""


def end_leftovers(directory: str) -> None:
    """End servers that outlived their supervisor. Call it only with ``supervisor`` held."""
    deadline = time.monotonic() + STOP_SECONDS
    for name in os.listdir(directory):
        if name.endswith(".pid"):
            fd = open_lock(os.path.join(directory, name), create=False)
            try:
                while not try_lock(fd) and time.monotonic() < deadline:
                    ask(os.path.join(directory, name[:-4] + ".sock"), b"SHUTDOWN NOSAVE\r\n")
                    time.sleep(0.005)
            finally:
                unlock(fd)


def sweep(directory: str) -> None:
    """Delete the directory if there is neither a user nor a supervisor; leave it alone if there is."""
    held: list[int] = []
    try:
        # With ``users`` exclusively held it is ours to make the other file, if nobody ever did.
        for name, create in (("users", False), ("supervisor", True)):
            path = os.path.join(directory, name)
            held.append(open_lock(path, create=create))
            if not try_lock(held[-1]) or not is_current(held[-1], path):
                return
        end_leftovers(directory)
        _remove(directory)
    except FileNotFoundError:
        pass  # somebody else has done it
    finally:
        for fd in held:
            unlock(fd)


def _remove(directory: str) -> None:
    names = [name for name in os.listdir(directory) if name != "users"]
    for name in [*names, "users"]:
        with suppress(OSError):
            os.unlink(os.path.join(directory, name))
    # Where it is not empty, somebody has joined since ``users`` went, or put there what is not ours.
    with suppress(OSError):
        os.rmdir(directory)
        os.rmdir(os.path.dirname(directory))
