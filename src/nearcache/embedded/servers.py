"""A user process' share in a set of embedded servers."""

from __future__ import annotations

import contextlib
import math
import os
import select
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from nearcache.embedded import directory as directories
from nearcache.embedded import locks
from nearcache.embedded.binary import find_program
from nearcache.embedded.locks import MAX_SHARDS, Settings, is_current, is_locked, open_lock, try_lock
from nearcache.embedded.supervisor import BUSY, FAILED, INTERRUPTED, READY
from nearcache.errors import ClosedError, ConfigError, EmbeddedError

#: Seconds between two looks at a lock that another process holds for a moment.
STEP_SECONDS = 0.005

MIN_MAXMEMORY_MB = 8

#: How many supervisors may be killed while they start before one call gives up.
START_ATTEMPTS = 3

#: Runs the supervisor.
DAEMON = str(Path(__file__).resolve().with_name("daemon.py"))


class _Plan(NamedTuple):
    """What this process wants to run."""

    directory: str
    shards: int
    maxmemory_mb: int
    start_timeout: float

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)


class _Share:
    """The open file ``users``. Who becomes a daemon closes whatever is open; its number is another file's then."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._status = os.fstat(fd)

    def close(self) -> None:
        """Close it, and never unlock it: the lock is also that of processes forked from, or before, this one."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self.fd), self._status):
                os.close(self.fd)


class EmbeddedServers:
    """This process' share in the servers of one name.

    Processes of one user that join the same name use the same servers. The servers run until the last of
    those processes has left or ended, in whatever way. A forked child has a share of its own until it leaves
    or ends.

    Attributes:
        directory: Where sockets and logs are.
        sockets: Path of the unix socket of each shard.
        names: Name of each shard: ``"0"``, ``"1"``...
        server_version: Version of the server program, such as ``"7.0.15"``.
    """

    directory: Path
    sockets: list[str]
    names: list[str]
    server_version: str

    def __init__(self, plan: _Plan, users: int, server_version: str) -> None:
        """Take over the lock ``users``; use :meth:`join`."""
        self._plan = plan
        self.directory = Path(plan.directory)
        self.sockets = [locks.socket_path(plan.directory, index) for index in range(plan.shards)]
        self.names = [str(index) for index in range(plan.shards)]
        self.server_version = server_version
        # A list, so that whoever takes the descriptor out is the only one to close it, in any thread.
        self._users = [_Share(users)]
        self._departure = weakref.finalize(self, _leave, self._users, plan.directory)

    @classmethod
    def join(cls, name: str, shards: int, *, maxmemory_mb: int = 256, start_timeout: float = 10.0) -> EmbeddedServers:
        """Return a share in the servers called ``name``, which are started if they do not run.

        Args:
            name: 1 to 64 of ``A-Z a-z 0-9 _ . -``.
            shards: How many servers, 1 to 64.
            maxmemory_mb: Memory for the data of each server, in MiB; the process that starts them decides.
            start_timeout: Seconds until they must answer.

        Raises:
            ConfigError: An argument is out of range, or servers of that name run with other ``shards``.
            ServerNotFoundError: There is no server program (see ``find_server``).
            EmbeddedError: They could not be started; says why and shows the end of the logs.

        Cost: under a millisecond when they run, about a tenth of a second when they have to be started.
        """
        directories.check_name(name)
        _check_range("shards", shards, 1, MAX_SHARDS)
        _check_range("maxmemory_mb", maxmemory_mb, MIN_MAXMEMORY_MB, 1 << 20)
        if not (isinstance(start_timeout, (int, float)) and 0 < start_timeout < math.inf):
            raise ConfigError("start_timeout", start_timeout, "give a positive number of seconds")
        deadline = time.monotonic() + start_timeout
        with _system_errors():
            plan = _Plan(directories.locate(name), shards, maxmemory_mb, start_timeout)
            users = _enter(plan, deadline)
            try:
                settings = _bring_up(plan, deadline)
                return cls(plan, users, settings.version)
            except BaseException:
                _leave([_Share(users)], plan.directory)
                raise

    def ensure(self) -> None:
        """See to it that a supervisor runs, which restarts servers that ended; call it when a shard fails.

        Returns at once while the supervisor lives. Otherwise it starts a new one, on the same sockets, and
        waits until all servers answer; they are empty then. Any number of threads and processes may call it
        at once.

        Raises:
            ClosedError: After :meth:`leave`.
            EmbeddedError, ServerNotFoundError, ConfigError: As for :meth:`join`.
        """
        if not self._departure.alive:
            raise ClosedError("this process has left the embedded servers; join them again")
        deadline = time.monotonic() + self._plan.start_timeout
        with _system_errors():
            if is_locked(self._plan.path("supervisor")):
                return
            if not self._is_member():
                # The directory was deleted behind our back: our lock is on a file that nobody else can find.
                self._replace(_enter(self._plan, deadline))
            self.server_version = _bring_up(self._plan, deadline).version

    def leave(self) -> None:
        """Give the share back; the last one out stops the servers, but does not wait for it. Idempotent."""
        self._departure()

    def __enter__(self) -> EmbeddedServers:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def __repr__(self) -> str:
        state = "joined" if self._departure.alive else "left"
        return f"<{type(self).__name__} {self.directory} shards={len(self.sockets)} {state}>"

    def _is_member(self) -> bool:
        with contextlib.suppress(IndexError, OSError):
            return is_current(self._users[0].fd, self._plan.path("users"))
        return False

    def _replace(self, users: int) -> None:
        try:
            old = self._users.pop()
        except IndexError:
            old = _Share(users)  # left meanwhile, in another thread
        else:
            self._users.append(_Share(users))
        old.close()


# -- the lock "users" ----------------------------------------------------------------------------------------


def _enter(plan: _Plan, deadline: float) -> int:
    """Become a user; return the descriptor that makes this process one."""
    while True:
        users = _try_enter(plan)
        if users >= 0:
            return users
        try:
            _pause(plan, deadline, "servers of this name are being stopped, and do not end")
        except BaseException:
            locks.sweep(plan.directory)
            raise


def _try_enter(plan: _Plan) -> int:
    path = plan.path("users")
    try:
        directories.make(plan.directory)
        fd = open_lock(path, create=True)
    except FileNotFoundError:
        return -1  # removed by a supervisor that ends
    entered = False
    try:
        alone = try_lock(fd)
        if alone and is_current(fd, path) and not _may_join_alone(plan):
            return -1
        # From exclusive to shared there is an instant without a lock, in which a supervisor that ends may get
        # it and remove the directory: so the look at the name comes last.
        entered = try_lock(fd, shared=True) and is_current(fd, path)
        return fd if entered else -1
    finally:
        if not entered:
            locks.unlock(fd)


def _may_join_alone(plan: _Plan) -> bool:
    """Decide for a process that found no other user.

    Settings without a supervisor are of a dead set and bind nobody. A living supervisor is about to stop its
    servers; it is kept if they are as many as we want, and otherwise let go on.
    """
    if not is_locked(plan.path("supervisor")):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(plan.path("settings"))
        return True
    settings = Settings.read(plan.directory)
    return settings is None or settings.shards == plan.shards


def _leave(users: list[_Share], directory: str) -> None:
    """Stop being a user; clean up if there is neither a user nor a supervisor left to do so."""
    with contextlib.suppress(IndexError):
        users.pop().close()
        locks.sweep(directory)


# -- starting ------------------------------------------------------------------------------------------------


def _bring_up(plan: _Plan, deadline: float) -> Settings:
    """Return when all servers answer, having started them if need be. Call it as a user."""
    attempts = 0
    with _start_lock(plan, deadline):
        while True:
            alive = is_locked(plan.path("supervisor"))
            settings = Settings.read(plan.directory)
            if settings is not None:
                _check_shards(plan, settings)
            if not alive:
                _check_deadline(plan, deadline, "the supervisor ends again and again")
                attempts += 1
                _start_supervisor(plan, settings, deadline, is_last=attempts >= START_ATTEMPTS)
            elif settings is not None and _all_answer(plan):
                return settings
            else:
                _pause(plan, deadline, "the servers run but do not answer")


def _all_answer(plan: _Plan) -> bool:
    paths = (locks.socket_path(plan.directory, index) for index in range(plan.shards))
    return all(locks.answers(path) for path in paths)


def _check_shards(plan: _Plan, settings: Settings) -> None:
    if settings.shards != plan.shards:
        name = os.path.basename(plan.directory)
        raise ConfigError(
            "shards",
            plan.shards,
            f"the embedded servers called {name!r} are in use with shards={settings.shards}; "
            f"ask for {settings.shards}, or choose another name",
        )


@contextlib.contextmanager
def _start_lock(plan: _Plan, deadline: float) -> Iterator[None]:
    fd = open_lock(plan.path("start"), create=True)
    try:
        while not try_lock(fd):
            _pause(plan, deadline, "another process is starting the servers, and does not finish")
        yield
    finally:
        locks.unlock(fd)


def _start_supervisor(plan: _Plan, earlier: Settings | None, deadline: float, *, is_last: bool) -> None:
    """Start a supervisor and wait until its servers answer, or until another one turns out to live.

    Returns too when somebody killed it meanwhile, unless ``is_last``: then that is an error, as any other
    failure is at once.
    """
    program = find_program()
    maxmemory_mb = earlier.maxmemory_mb if earlier else plan.maxmemory_mb
    os.close(open_lock(plan.path("supervisor"), create=True))
    seconds = max(0.1, deadline - time.monotonic())
    command = [find_python(), "-I", "-S", DAEMON, plan.directory, str(plan.shards)]
    command += [str(maxmemory_mb), program.version, program.path, f"{seconds:.3f}"]
    with open(plan.path("supervisor.log"), "ab") as log:
        process = subprocess.Popen(
            command,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # out of reach of Ctrl-C in this process' terminal
        )
    with process:
        try:
            answer = _read_report(process, deadline)
        finally:
            process.kill()  # a daemon by now, unless its interpreter hangs
    # Busy: there is the supervisor of a process that was killed while it waited for it, as we do now.
    interrupted = answer in {"", INTERRUPTED}
    if answer not in {READY, BUSY} and (is_last or not interrupted):
        reason = "the supervisor was ended" if interrupted else answer.removeprefix(FAILED).strip()
        raise EmbeddedError(f"the embedded servers did not start: {reason}{_log_tails(plan)}")


def _read_report(process: subprocess.Popen[bytes], deadline: float) -> str:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    # The supervisor watches the deadline too, and can say more: let it speak first.
    deadline += 1.0
    parts: list[bytes] = []
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        part = os.read(fd, 65536)
        parts.append(part)
        # Not the end of the pipe alone: a child that another thread forked just now may hold it open.
        if not part or part.endswith(b"\n"):
            return b"".join(parts).decode("utf-8", "replace").strip()
    return "the supervisor did not report in time"


def find_python() -> str:
    """Return a Python interpreter: in a program that embeds one, ``sys.executable`` is that program."""
    if "python" in os.path.basename(sys.executable or "").lower():
        return sys.executable
    found = os.path.join(sys.exec_prefix, "bin", "python{}.{}".format(*sys.version_info))
    if not os.access(found, os.X_OK):
        raise EmbeddedError(f"no Python interpreter to run the supervisor: neither {sys.executable!r} nor {found}")
    return found


# -- small things --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedError(f"the embedded servers cannot be used: {error}") from error


def _pause(plan: _Plan, deadline: float, trouble: str) -> None:
    _check_deadline(plan, deadline, trouble)
    time.sleep(STEP_SECONDS)


def _check_deadline(plan: _Plan, deadline: float, trouble: str) -> None:
    if time.monotonic() >= deadline:
        raise EmbeddedError(f"not within {plan.start_timeout:g} s: {trouble}{_log_tails(plan)}")


def _log_tails(plan: _Plan) -> str:
    tails = []
    for name in ["supervisor.log", *(f"{index}.log" for index in range(plan.shards))]:
        with contextlib.suppress(OSError):
            text = Path(plan.path(name)).read_text("utf-8", "replace").strip()
            tails += [f"\n{plan.path(name)} ends:\n{text[-1000:]}"] if text else []
    return "".join(tails[:3])


def _check_range(option: str, value: Any, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(option, value, f"give a whole number from {low} to {high}")
