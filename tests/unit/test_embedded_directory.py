"""Names and places of embedded servers' directories, and what is refused as unsafe."""

from __future__ import annotations

import errno
import os
import stat
import tempfile

import pytest

from nearcache.embedded import directory
from nearcache.embedded.directory import check_name, locate, make
from nearcache.embedded.locks import MAX_SHARDS, socket_path
from nearcache.endpoints import MAX_SOCKET_PATH
from nearcache.errors import ConfigError, EmbeddedError


@pytest.fixture
def short_dir(monkeypatch):
    """A directory with a short path, which is also the system's temporary directory; no runtime directory."""
    with tempfile.TemporaryDirectory(prefix="nc-", dir="/tmp") as name:
        path = os.path.realpath(name)
        monkeypatch.setenv("TMPDIR", path)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield path


def own(root: str, name: str = "shop") -> str:
    """Return the directory of ``name`` below a shared temporary directory."""
    return os.path.join(root, f"nearcache-{os.geteuid()}", name)


@pytest.mark.parametrize("name", ["default", "a", "A-b_c.9", "x" * 64, "..."])
def test_check_name_plain_is_taken(name):
    """Letters, digits, and _ . - make a name, up to 64 of them."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a b", "é", "x" * 65, "a\n", "a\0", None, 7])
def test_check_name_other_is_refused(name):
    """Whatever could leave the directory, or be no file name, is a ConfigError that shows it."""
    with pytest.raises(ConfigError) as caught:
        check_name(name)
    assert caught.value.option == "name"
    assert caught.value.value == name


def test_locate_runtime_dir_of_ours_is_taken(short_dir, monkeypatch):
    """The runtime directory comes first when it is ours alone."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", short_dir)
    assert locate("shop") == os.path.join(short_dir, "nearcache", "shop")


@pytest.mark.parametrize("fault", ["unset", "empty", "relative", "missing", "file", "open", "foreign"])
def test_locate_runtime_dir_unfit_gives_way_to_temporary_dir(short_dir, monkeypatch, fault):
    """A runtime directory that is absent, somebody else's, or writable by others is not used."""
    runtime = os.path.join(short_dir, "run")
    os.mkdir(runtime, 0o700)
    value = {"empty": "", "relative": "run", "missing": runtime + "x", "file": runtime + ".txt"}.get(fault, runtime)
    if fault == "file":
        open(value, "w").close()
    if fault == "open":
        os.chmod(runtime, 0o777)
    if fault != "unset":
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    if fault == "foreign":
        real = os.geteuid()
        monkeypatch.setattr(directory.os, "geteuid", lambda: real + 1)
    monkeypatch.chdir(short_dir)
    assert locate("shop") == own(short_dir)


def test_locate_path_too_long_for_sockets_gives_way(short_dir, monkeypatch):
    """A place in which a socket's path would be too long is passed over; /tmp always fits."""
    deep = os.path.join(short_dir, "d" * 80)
    os.mkdir(deep, 0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", deep)
    assert locate("shop") == own(short_dir)
    monkeypatch.setenv("TMPDIR", deep)
    assert locate("shop") == own("/tmp")
    longest = socket_path(locate("x" * 64), MAX_SHARDS - 1)
    assert len(os.fsencode(longest)) <= MAX_SOCKET_PATH


def test_locate_temporary_dir_on_a_full_disk_stays_the_place(short_dir, monkeypatch):
    """To pass over it would part this process, in silence, from those that came before the disk was full."""

    def full(path, flags, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    with monkeypatch.context() as while_full:
        while_full.setattr(tempfile, "tempdir", None)
        while_full.setattr(os, "open", full)
        place = locate("shop")
    assert place == own(short_dir)


@pytest.mark.parametrize("fault", ["empty", "missing", "file"])
def test_locate_temporary_dir_unfit_gives_way_to_the_next(short_dir, monkeypatch, fault):
    """As everywhere: TMPDIR, TEMP, TMP, and then what the system has."""
    path = os.path.join(short_dir, "x")
    if fault == "file":
        open(path, "w").close()
    monkeypatch.setenv("TMPDIR", "" if fault == "empty" else path)
    monkeypatch.setenv("TEMP", short_dir)
    assert locate("shop") == own(short_dir)
    monkeypatch.setenv("TEMP", path)
    monkeypatch.setenv("TMP", path)
    assert locate("shop") == own("/tmp")


def test_make_fresh_is_private(short_dir):
    """Both levels are made for the owner alone, and making them again changes nothing."""
    path = own(short_dir)
    for _ in range(2):
        make(path)
        for level in (path, os.path.dirname(path)):
            assert stat.S_IMODE(os.stat(level).st_mode) == 0o700


def test_make_readable_by_others_is_narrowed(short_dir):
    """Our own directory that others can only read is closed to them."""
    path = own(short_dir)
    make(path)
    os.chmod(path, 0o755)
    make(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


@pytest.mark.parametrize("level", ["upper", "lower"])
@pytest.mark.parametrize(
    ("kind", "complaint"),
    [("link", "is a symbolic link"), ("file", "is not a directory"), ("open", "can be written by others")],
)
def test_make_unsafe_place_is_refused(short_dir, level, kind, complaint):
    """A symbolic link, a file, or a directory open to others is refused, with its path and a remedy."""
    lower = own(short_dir)
    upper = os.path.dirname(lower)
    victim = upper if level == "upper" else lower
    if level == "lower":
        os.mkdir(upper, 0o700)
    target = os.path.join(short_dir, "target")
    os.mkdir(target, 0o700)
    if kind == "link":
        os.symlink(target, victim)
    elif kind == "file":
        open(victim, "w").close()
    else:
        os.mkdir(victim)
        os.chmod(victim, 0o777)
    with pytest.raises(EmbeddedError, match=complaint) as caught:
        make(lower)
    assert victim in str(caught.value)
    assert "XDG_RUNTIME_DIR" in str(caught.value)
    assert os.listdir(target) == []


def test_make_below_what_everybody_may_change_is_refused(short_dir):
    """Whoever likes could rename ours and put his own in its place. With a sticky bit, as /tmp has it, nobody can."""
    os.chmod(short_dir, 0o777)
    with pytest.raises(EmbeddedError, match="everybody rename what is in it: set its sticky bit"):
        make(own(short_dir))
    os.chmod(short_dir, 0o1777)
    make(own(short_dir))


def test_make_of_another_user_is_refused(short_dir, monkeypatch):
    """A directory that belongs to somebody else is refused, whatever its mode."""
    path = own(short_dir)
    make(path)
    real = os.geteuid()
    monkeypatch.setattr(directory.os, "geteuid", lambda: real + 1)
    with pytest.raises(EmbeddedError, match=f"belongs to user {real}"):
        make(path)


def test_make_below_nothing_is_embedded_error(short_dir):
    """A place that does not exist at all is an error, not an endless attempt."""
    with pytest.raises(EmbeddedError, match="does not exist"):
        make(os.path.join(short_dir, "absent", "nearcache-1", "shop"))


def test_make_upper_level_removed_meanwhile_is_file_not_found(short_dir, monkeypatch):
    """The upper level may be removed by a supervisor that ends; the caller then tries again."""
    real = os.mkdir

    def mkdir(path, mode=0o777):
        real(path, mode)
        os.rmdir(path)

    monkeypatch.setattr(directory.os, "mkdir", mkdir)
    with pytest.raises(FileNotFoundError):
        make(own(short_dir))
