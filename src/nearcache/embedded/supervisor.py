"""The process that keeps embedded servers running for as long as somebody uses them.

It has one thread. A child of it, the watcher, waits for the exclusive lock on ``users`` and ends when it gets
it; parent and child share the open file, so the supervisor holds the lock from that instant. With a thread in
its place, every later fork of a server would be a fork beside a running thread.

Servers and watcher ask the kernel to end them when the supervisor dies (Linux). Elsewhere the next
supervisor, or the last user, sends SHUTDOWN to servers that still hold their ``N.pid``.

Imports are few and none is needless: somebody waits for the start (see ``daemon``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn

from nearcache.embedded.locks import (
    STOP_SECONDS,
    Settings,
    answers,
    end_leftovers,
    is_current,
    open_lock,
    socket_path,
    sweep,
    try_lock,
    unlock,
)

# The report to the process that started this one: a line with one of these words, after "failed" the reason.
# No line at all means the same as "interrupted": somebody ended this process.
READY = "ready"
BUSY = "busy"
INTERRUPTED = "interrupted"
FAILED = "failed"

#: Seconds that a server must have lived for its end not to count as one more crash in a row.
STEADY_SECONDS = 5.0

#: How often a server may be killed during the start before the start has failed.
MAX_START_CRASHES = 3

#: The longest pause, in seconds, before a server that keeps crashing is started again.
MAX_PAUSE_SECONDS = 5.0

#: Seconds after which a supervisor whose directory was deleted behind its back notices it.
CHECK_SECONDS = 5.0

#: How often, in seconds, what lies in the directory is made young. Cleaners of temporary directories go by age, and
#: nothing there is read or written again.
FRESHEN_SECONDS = 3600.0

#: A server's log is emptied before a restart when it is longer than this.
MAX_LOG_BYTES = 1 << 20


class Server:
    """One server: its process, and when to start the next one if it has ended."""

    __slots__ = ("crashes", "due", "index", "outcome", "pid", "started")

    def __init__(self, index: int) -> None:
        self.index = index
        self.pid = 0
        self.started = 0.0
        self.crashes = 0
        self.due = 0.0
        self.outcome = 0

    def ended(self, now: float, outcome: int) -> None:
        """Note the end of the process; the first restart comes at once, then the pauses double.

        Args:
            now: Monotonic seconds.
            outcome: Its exit status, or the number of the signal that ended it, negative.
        """
        self.crashes = 1 if now - self.started >= STEADY_SECONDS else self.crashes + 1
        pause = 0.0 if self.crashes == 1 else min(MAX_PAUSE_SECONDS, 0.05 * 2**self.crashes)
        self.pid = 0
        self.outcome = outcome
        self.due = now + pause


class Supervisor:
    """Runs the servers of ``directory``. One thread, one instance per process."""

    def __init__(self, directory: str, settings: Settings, program: str) -> None:
        self.directory = directory
        self.settings = settings
        self.program = program
        self.servers = [Server(index) for index in range(settings.shards)]
        self.users = -1
        self.lock = -1
        self.watcher = 0
        self.ending = False
        self.freshened = time.monotonic()
        self.wake, self._waker = os.pipe()
        self._prctl = _load_prctl()

    def run(self, start_seconds: float) -> int:
        """Do everything, and return the exit status."""
        self._catch_signals()
        trouble = self._claim()
        if trouble:
            report(trouble)
            return 1
        try:
            _write_pid(self.lock)
            self._watch()
            trouble = self._start(start_seconds)
            report(trouble or READY)
            while not trouble and not self.ending:
                self._tend()
        finally:
            self._stop()
        return 1 if trouble else 0

    # -- beginning -------------------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        # The process that started this one may have had signals blocked or ignored; both are inherited.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.set_blocking(self._waker, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_end_signal)

    def _on_end_signal(self, number: int, _frame: FrameType | None) -> None:
        log(f"signal {number}: ending")
        self.ending = True

    def _claim(self) -> str:
        """Become the supervisor of the directory; return what prevents it, or the empty string."""
        paths = [os.path.join(self.directory, name) for name in ("users", "supervisor")]
        try:
            # Both files were made by the user who started this process. Not to make them here means never to
            # leave one behind in a directory that was removed meanwhile.
            self.users, self.lock = (open_lock(path, create=False) for path in paths)
        except FileNotFoundError:
            return f"{FAILED} the directory was removed"
        # A user that looks whether a supervisor lives holds the lock for some microseconds.
        deadline = time.monotonic() + 0.2
        while not try_lock(self.lock):
            if time.monotonic() > deadline:
                return BUSY
            time.sleep(0.002)
        if not is_current(self.users, paths[0]) or not is_current(self.lock, paths[1]):
            return f"{FAILED} the directory was removed"
        return ""

    def _watch(self) -> None:
        """Start the watcher: a child that ends when it has locked ``users``: when no user is left."""
        pid = self._fork()
        if pid:
            self.watcher = pid
            return
        try:
            # While somebody has the file "supervisor" open and locked, a supervisor is believed to live.
            os.close(self.lock)
            fcntl.flock(self.users, fcntl.LOCK_EX)
            os._exit(0)
        finally:
            os._exit(1)

    def _start(self, seconds: float) -> str:
        """Start all servers; return what went wrong, or the empty string when all answer."""
        end_leftovers(self.directory)
        self.settings.write(self.directory)
        for server in self.servers:
            self._launch(server)
        waiting = {server.index for server in self.servers}
        deadline = time.monotonic() + seconds
        while waiting:
            waiting -= {index for index in waiting if answers(socket_path(self.directory, index))}
            self._reap()
            if self.ending:
                return INTERRUPTED
            for server in self.servers:
                # One that ends of its own accord will do so again. One that was killed had bad luck.
                if not server.pid and (server.outcome >= 0 or server.crashes >= MAX_START_CRASHES):
                    return f"{FAILED} server {server.index} ended while starting: {describe(server.outcome)}"
            waiting |= {server.index for server in self.servers if not server.pid}
            if waiting and time.monotonic() > deadline:
                return f"{FAILED} server {min(waiting)} did not answer within {seconds:g} s"
            if waiting:
                self._sleep(0.003)
                self._launch_due()
        return ""

    # -- while it runs ---------------------------------------------------------------------------------------

    def _tend(self) -> None:
        """Wait for something to happen, and see to it."""
        now = time.monotonic()
        pauses = [server.due - now for server in self.servers if not server.pid]
        self._sleep(max(0.0, min([CHECK_SECONDS, *pauses])))
        self._reap()
        if os.fstat(self.users).st_nlink == 0:
            # Somebody deleted the directory (a logout, a cleaner). New users would meet at new sockets while
            # old ones go on here, and neither would hear of the other's writes: send all to the new place.
            log("the directory was removed: ending")
            self.ending = True
        if not self.ending:
            self._launch_due()
        if now - self.freshened >= FRESHEN_SECONDS:
            self._freshen()
            self.freshened = now

    def _freshen(self) -> None:
        for name in (".", *os.listdir(self.directory)):
            with suppress(OSError):  # a file of a server's that has just gone
                os.utime(os.path.join(self.directory, name), follow_symlinks=False)

    def _launch_due(self) -> None:
        now = time.monotonic()
        for server in self.servers:
            if not server.pid and server.due <= now:
                self._launch(server)

    def _sleep(self, seconds: float) -> None:
        """Return after ``seconds``, or when a signal comes."""
        poll = select.poll()
        poll.register(self.wake, select.POLLIN)
        if poll.poll(seconds * 1000):
            os.read(self.wake, 4096)

    def _reap(self) -> None:
        """Take note of all children that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            outcome = os.waitstatus_to_exitcode(status)
            if pid == self.watcher:
                self._watcher_ended(outcome)
            for server in self.servers:
                if server.pid == pid:
                    server.ended(time.monotonic(), outcome)
                    log(f"server {server.index} ended: {describe(outcome)}")

    def _watcher_ended(self, outcome: int) -> None:
        self.watcher = 0
        if outcome == 0:
            self.ending = True
        elif not self.ending:
            log(f"watcher ended: {describe(outcome)}")
            self._sleep(0.1)
            self._watch()

    def _launch(self, server: Server) -> None:
        log_path = os.path.join(self.directory, f"{server.index}.log")
        with suppress(FileNotFoundError):
            if os.path.getsize(log_path) > MAX_LOG_BYTES:
                os.truncate(log_path, 0)
        server.started = time.monotonic()
        server.pid = self._fork()
        if server.pid == 0:
            try:
                self._become_server(server.index)
            except OSError as error:
                log(f"server {server.index}: {self.program}: {error}")
            finally:
                os._exit(127)

    def _become_server(self, index: int) -> NoReturn:
        # The lock goes with the descriptor, through exec: it is held for exactly as long as the server lives.
        fd = open_lock(os.path.join(self.directory, f"{index}.pid"), create=True)
        deadline = time.monotonic() + STOP_SECONDS
        while not try_lock(fd):  # by something that the server before this one had started
            if time.monotonic() > deadline:
                raise BlockingIOError(errno.EAGAIN, "another server holds the pid file")
            time.sleep(0.005)
        _write_pid(fd)
        os.set_inheritable(fd, True)
        # Since 7.2 a server ends at once where the user's locale is not installed; it has no use for any.
        os.environ["LC_ALL"] = "C"
        os.execv(self.program, [self.program, *server_arguments(self.directory, index, self.settings)])  # noqa: S606

    def _fork(self) -> int:
        """Fork a child that dies with this process and has ordinary signal handling."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            if self._prctl is not None:
                self._prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
            if os.getppid() != parent:
                os._exit(1)
            # Whoever waits for the report must see the end of the pipe if this process dies without one.
            os.dup2(2, 1)
        return pid

    # -- end -------------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        """End all children; remove the directory if nobody uses it."""
        self.ending = True
        ours = is_current(self.users, os.path.join(self.directory, "users"))
        # A server deletes its socket's path when it ends in good order, but in a directory that somebody has
        # made anew since, that path is another server's.
        self._end_servers(signal.SIGTERM if ours else signal.SIGKILL)
        if self.watcher:
            os.kill(self.watcher, signal.SIGKILL)
            os.waitpid(self.watcher, 0)
            self.watcher = 0
        log("ended")
        # First let go, then look for users: one that leaves before cannot be overlooked here, and one that
        # leaves after finds no supervisor and does this itself. A second look, because one that is leaving
        # may hold the exclusive lock for an instant, having found us alive.
        unlock(self.lock)
        unlock(self.users)
        for pause in (0.0, 0.05):
            time.sleep(pause)
            sweep(self.directory)

    def _end_servers(self, how: signal.Signals) -> None:
        self._signal_servers(how)
        deadline = time.monotonic() + STOP_SECONDS
        while any(server.pid for server in self.servers):
            self._sleep(max(0.0, deadline - time.monotonic()))
            self._reap()
            if time.monotonic() >= deadline:
                self._signal_servers(signal.SIGKILL)
                deadline += STOP_SECONDS

    def _signal_servers(self, number: signal.Signals) -> None:
        for server in self.servers:
            if server.pid:
                os.kill(server.pid, number)


def server_arguments(directory: str, index: int, settings: Settings) -> list[str]:
    """Return the command line of server ``index``, without the program."""
    options = {
        "port": "0",
        "unixsocket": socket_path(directory, index),
        "unixsocketperm": "700",
        "daemonize": "no",
        "dir": directory,
        "logfile": os.path.join(directory, f"{index}.log"),
        "save": "",
        "appendonly": "no",
        "maxmemory": f"{settings.maxmemory_mb}mb",
        # Values have a lifetime and may be evicted. A lane record (epoch, sequence, generation) has none and
        # must stay: its loss makes every process doubt its whole L1.
        "maxmemory-policy": "volatile-lru",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def report(text: str) -> None:
    """Tell the process that waits at the other end of standard output, and close that."""
    with suppress(OSError):
        os.write(1, text.encode("utf-8", "replace") + b"\n")
    os.dup2(2, 1)


def log(text: str) -> None:
    """Write a line to the log file, which is standard error."""
    line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}\n"
    with suppress(OSError):
        os.write(2, line.encode("utf-8", "replace"))


def _write_pid(fd: int) -> None:
    # For people and tests; in this order, so that the first line is a whole number at any time.
    length = os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    os.ftruncate(fd, length)


def describe(outcome: int) -> str:
    """Return how a process ended, in words."""
    return f"signal {-outcome}" if outcome < 0 else f"exit status {outcome}"


def _load_prctl() -> Callable[[int, int], Any] | None:
    """Return Linux' ``prctl``; None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)
        return prctl
    except (ImportError, OSError, AttributeError) as error:
        log(f"servers will not end with this process when it is killed: {error}")
        return None


def main(arguments: list[str]) -> int:
    """Run as a daemon: ``DIRECTORY SHARDS MAXMEMORY_MB VERSION PROGRAM START_SECONDS``."""
    directory, shards, maxmemory_mb, version, program, seconds = arguments
    os.umask(0o077)
    # The process that started this one waits for its end, which is now: a supervisor that stayed its child
    # would surprise a program that waits for all of its children.
    if os.fork():
        return 0
    settings = Settings(int(shards), int(maxmemory_mb), version)
    try:
        return Supervisor(directory, settings, program).run(float(seconds))
    except OSError as error:  # on a full disk the log cannot tell
        report(f"{FAILED} {error}")
        raise
