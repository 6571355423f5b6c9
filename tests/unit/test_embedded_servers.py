"""Small decisions of a user process that need no server."""

from __future__ import annotations

import os
import sys

import pytest

from nearcache.embedded import servers
from nearcache.embedded.locks import Settings
from nearcache.embedded.supervisor import FRESHEN_SECONDS, Supervisor
from nearcache.errors import EmbeddedError


def test_python_ordinary_interpreter_is_taken(monkeypatch):
    """The running interpreter runs the supervisor too."""
    monkeypatch.setattr(sys, "executable", "/opt/x/bin/python3.12")
    assert servers.find_python() == "/opt/x/bin/python3.12"


def test_python_embedded_in_a_program_is_looked_for_beside_its_library(monkeypatch, tmp_path):
    """In a program that embeds Python, sys.executable is that program: it must not be run instead."""
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python.touch(0o755)
    monkeypatch.setattr(sys, "executable", "/usr/sbin/uwsgi")
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    assert servers.find_python() == str(python)


@pytest.mark.parametrize("executable", ["", None, "/usr/sbin/uwsgi"])
def test_python_nowhere_is_embedded_error(monkeypatch, tmp_path, executable):
    """Without an interpreter the error says where it was looked for."""
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path))
    with pytest.raises(EmbeddedError, match=str(tmp_path)):
        servers.find_python()


def test_daemon_file_stands_beside_the_package():
    """The file that runs the supervisor is where the user process looks for it."""
    assert os.path.isfile(servers.DAEMON)


def test_supervisor_keeps_what_lies_in_its_directory_young(monkeypatch, tmp_path):
    """Once an hour: cleaners of temporary directories would take the files that hold servers in use for forgotten."""
    users = tmp_path / "users"
    users.touch()
    os.utime(users, (0, 0))
    supervisor = Supervisor(str(tmp_path), Settings(shards=0, maxmemory_mb=1, version="1"), "")
    supervisor.users = os.open(users, os.O_RDONLY)
    monkeypatch.setattr(supervisor, "_sleep", lambda _seconds: None)
    monkeypatch.setattr(supervisor, "_reap", lambda: None)
    try:
        supervisor._tend()
        assert users.stat().st_mtime == 0
        supervisor.freshened -= FRESHEN_SECONDS
        supervisor._tend()
        assert users.stat().st_mtime > 0
        os.utime(users, (0, 0))
        supervisor._tend()
        assert users.stat().st_mtime == 0
    finally:
        for descriptor in (supervisor.users, supervisor.wake, supervisor._waker):
            os.close(descriptor)
