"""The files and locks of an embedded directory, and the supervisor's decisions that need no process."""

from __future__ import annotations

import os

import pytest

from nearcache.embedded import locks
from nearcache.embedded.locks import Settings, is_current, is_locked, open_lock, sweep, try_lock, unlock
from nearcache.embedded.supervisor import MAX_PAUSE_SECONDS, STEADY_SECONDS, Server, server_arguments


@pytest.fixture
def place(tmp_path):
    """A directory as embedded servers have it, used by nobody."""
    path = tmp_path / "nearcache" / "shop"
    path.mkdir(parents=True)
    for name in ("users", "start", "supervisor", "settings", "0.pid", "0.log", "supervisor.log"):
        (path / name).touch()
    return path


@pytest.fixture
def hold(place):
    """A function that opens and locks a file of the directory; all are let go at the end."""
    held = []

    def take(name, *, shared=False):
        fd = open_lock(str(place / name), create=True)
        held.append(fd)
        assert try_lock(fd, shared=shared)
        return fd

    yield take
    for fd in held:
        unlock(fd)


def test_try_lock_conflicts_as_flock_does(hold, place):
    """Shared locks go together; an exclusive one stands alone."""
    hold("users", shared=True)
    hold("users", shared=True)
    fd = open_lock(str(place / "users"), create=False)
    assert not try_lock(fd)
    unlock(fd)


def test_is_locked_sees_exclusive_holder_only(hold, place):
    """A supervisor lives exactly while its file is locked exclusively; no file means no supervisor."""
    path = str(place / "supervisor")
    assert not is_locked(path)
    fd = hold("supervisor")
    assert is_locked(path)
    locks.fcntl.flock(fd, locks.fcntl.LOCK_UN)
    assert not is_locked(path)
    assert not is_locked(str(place / "absent"))


def test_open_lock_symbolic_link_is_refused(place):
    """A lock file is never reached through a symbolic link."""
    (place / "link").symlink_to(place / "users")
    with pytest.raises(OSError, match="symbolic links"):
        open_lock(str(place / "link"), create=True)


def test_is_current_replaced_file_is_not(place, hold):
    """A file that was removed, or replaced by another of its name, is not the current one."""
    fd = hold("users")
    path = place / "users"
    assert is_current(fd, str(path))
    path.unlink()
    assert not is_current(fd, str(path))
    path.touch()
    assert not is_current(fd, str(path))


def test_sweep_unused_removes_directory_and_empty_parent(place):
    """With neither user nor supervisor everything goes, the level above too."""
    sweep(str(place))
    assert not place.parent.exists()
    sweep(str(place))


def test_sweep_without_supervisor_file_removes_directory(place):
    """A set that failed before its first supervisor is cleaned up as well."""
    (place / "supervisor").unlink()
    sweep(str(place))
    assert not place.exists()


@pytest.mark.parametrize(("name", "shared"), [("users", True), ("users", False), ("supervisor", False)])
def test_sweep_in_use_touches_nothing(place, hold, name, shared):
    """While anybody holds a lock nothing is removed."""
    hold(name, shared=shared)
    before = sorted(os.listdir(place))
    sweep(str(place))
    assert sorted(os.listdir(place)) == before


def test_sweep_neighbours_and_foreign_things_stay(place):
    """Other names' directories stay, and so does a directory that somebody put into ours."""
    other = place.parent / "other"
    other.mkdir()
    (place / "mine").mkdir()
    sweep(str(place))
    assert os.listdir(place) == ["mine"]
    assert other.exists()


def test_settings_written_are_read_back(place):
    """What one process writes another one reads; nothing else is left."""
    settings = Settings(3, 128, "7.0.15")
    settings.write(str(place))
    assert Settings.read(str(place)) == settings
    assert "settings.new" not in os.listdir(place)


@pytest.mark.parametrize("text", [None, "", "2 256", "two 256 7.0"])
def test_settings_absent_or_torn_are_none(place, text):
    """A file that a power failure left empty or half written binds nobody."""
    path = place / "settings"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert Settings.read(str(place)) is None


def test_server_first_end_restarts_at_once_then_pauses_double():
    """A crash is repaired at once; a server that keeps crashing waits longer each time, up to a limit."""
    server = Server(0)
    pauses = []
    for now in range(100, 110):
        server.started = now - 0.1
        server.ended(now, -9)
        pauses.append(server.due - now)
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] == MAX_PAUSE_SECONDS
    server.started = 200
    server.ended(200 + STEADY_SECONDS, -9)
    assert server.due == 200 + STEADY_SECONDS


def test_server_arguments_no_network_no_disk_no_eviction_of_lanes():
    """Servers listen on their socket alone, write no data, and evict only what has a lifetime."""
    arguments = server_arguments("/run/x", 1, Settings(2, 64, "7.0.15"))
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert options["--port"] == "0"
    assert options["--unixsocket"] == "/run/x/1.sock"
    assert options["--unixsocketperm"] == "700"
    assert options["--save"] == ""
    assert options["--appendonly"] == "no"
    assert options["--maxmemory"] == "64mb"
    assert options["--maxmemory-policy"] == "volatile-lru"
