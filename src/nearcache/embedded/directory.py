"""The private directory in which the servers of one name live."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator

from nearcache.embedded.locks import MAX_SHARDS, socket_path
from nearcache.endpoints import MAX_SOCKET_PATH
from nearcache.errors import ConfigError, EmbeddedError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_name(name: str) -> str:
    """Return ``name`` if it can be the name of a set of servers; ConfigError otherwise."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in {".", ".."}:
        remedy = "the name of embedded servers is 1 to 64 of A-Z a-z 0-9 _ . - (and not . or ..)"
        raise ConfigError("name", name, remedy)
    return name


def locate(name: str) -> str:
    """Return the path of the directory for ``name``; nothing is made.

    The first of these in which a socket's path is short enough: ``$XDG_RUNTIME_DIR/nearcache``, if that
    directory is ours alone; ``nearcache-<uid>`` in ``$TMPDIR``, ``$TEMP`` or ``$TMP``, ``/tmp`` or ``/var/tmp``, if
    that is a directory in which we may write; the same in ``/tmp``.
    """
    for root in _roots():
        directory = os.path.join(root, name)
        if len(os.fsencode(socket_path(directory, MAX_SHARDS - 1))) <= MAX_SOCKET_PATH:
            return directory
    raise AssertionError("the path below /tmp is always short enough")


def _roots() -> Iterator[str]:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and _is_ours_alone(runtime):
        yield os.path.join(runtime, "nearcache")
    own = f"nearcache-{os.geteuid()}"
    # Not tempfile.gettempdir(): it passes over a directory whose disk is full at this moment, and processes that came
    # before or come after would be elsewhere.
    named = (os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP"))
    for shared in (*named, "/tmp", "/var/tmp"):  # noqa: S108 - make() refuses what is not ours alone
        if os.path.isdir(shared) and os.access(shared, os.W_OK | os.X_OK):
            yield os.path.join(os.path.abspath(shared), own)
    yield os.path.join("/tmp", own)  # noqa: S108 - make() refuses it unless it is ours alone


def _is_ours_alone(path: str) -> bool:
    try:
        status = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def make(directory: str) -> None:
    """Make ``directory`` and the one above it, if need be, for this user alone.

    Raises:
        EmbeddedError: One of them cannot be made, or is a symbolic link, not a directory, somebody else's, or
            open to writing by others, so that what is in it cannot be trusted. Or whoever likes can put others in
            their place.
        FileNotFoundError: The upper one was removed at this moment; try again.
    """
    root = os.path.dirname(os.path.dirname(directory))
    if os.path.isdir(root) and os.stat(root).st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
        raise EmbeddedError(
            f"{root} lets everybody rename what is in it: set its sticky bit (chmod +t), or set XDG_RUNTIME_DIR or "
            "TMPDIR to a directory of your own"
        )
    for path in (os.path.dirname(directory), directory):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass
        except FileNotFoundError:
            if os.path.isdir(os.path.dirname(os.path.dirname(directory))):
                raise
            raise EmbeddedError(f"{os.path.dirname(path)} does not exist") from None
        except OSError as error:
            raise EmbeddedError(f"the directory of the embedded servers cannot be made: {error}") from error
        _check(path)


def _check(path: str) -> None:
    status = os.lstat(path)
    remedy = "remove it, or set XDG_RUNTIME_DIR or TMPDIR to a directory of your own"
    if stat.S_ISLNK(status.st_mode):
        raise EmbeddedError(f"{path} is a symbolic link, which is not safe: {remedy}")
    if not stat.S_ISDIR(status.st_mode):
        raise EmbeddedError(f"{path} is not a directory: {remedy}")
    if status.st_uid != os.geteuid():
        raise EmbeddedError(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}: {remedy}")
    if status.st_mode & 0o022:
        raise EmbeddedError(f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}): {remedy}")
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)
