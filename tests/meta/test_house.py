"""The rules of the house that can be checked by reading its files; and that the checks themselves can see."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from support import house

FILES = house.tracked()


def assert_none(complaints: Iterable[str]) -> None:
    """Fail with one complaint a line."""
    text = "\n".join(complaints)
    assert not text, f"\n{text}"


def found(check: Callable[[Path], Iterable[str]]) -> list[str]:
    """Return what a check has to say about all files of the repository."""
    return [complaint for path in FILES for complaint in check(path)]


def test_house_tracked_files_are_found() -> None:
    """The checks below look at something."""
    assert {"setup.py", "src/nearcache/errors.py", "tests/meta/test_house.py"} <= {house.name_of(p) for p in FILES}


def test_files_any_code_is_at_most_500_lines() -> None:
    """A file past 500 lines wants splitting."""
    assert_none(house.long_files(FILES))


def test_functions_any_code_are_at_most_50_lines() -> None:
    """A function past 50 lines wants a name for each of its parts."""
    assert_none(found(house.long_functions))


def test_code_outside_integration_never_sleeps() -> None:
    """One waits for events, never for time; only integration tests and benchmarks live in real time."""
    assert_none(found(house.sleeping))


def test_tests_none_is_skipped_or_expected_to_fail() -> None:
    """What the suite does not run, nobody knows."""
    assert_none(found(house.skipping))


def test_checkers_silenced_say_what_and_why() -> None:
    """``type: ignore`` carries a reason behind it, ``noqa`` the rule."""
    assert_none(found(house.silencing))


def test_files_any_text_names_no_place_of_one_machine() -> None:
    """Nothing in the repository depends on, or tells about, the machine it was written on."""
    assert_none(found(house.machine_paths))


def test_tests_every_one_states_its_rule() -> None:
    """A test is named subject, condition, outcome, and its docstring is the rule that it checks."""
    assert_none(found(house.undescribed_tests))


# -- importing ---------------------------------------------------------------------------------------------------

QUIET_IMPORT = """
import os, sys, threading
threads = threading.active_count()
files = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
import nearcache
heavy = {"redis", "hiredis", "numpy", "asyncio", "multiprocessing", "ssl", "sqlite3"} & set(sys.modules)
assert not heavy, f"imports {sorted(heavy)}"
assert threading.active_count() == threads, "starts a thread"
if files:
    assert set(os.listdir("/proc/self/fd")) == files, "opens files"
missing = [name for name in nearcache.__all__ if not hasattr(nearcache, name)]
assert not missing, f"__all__ names {missing}"
"""


def test_import_nearcache_is_light_and_starts_nothing() -> None:
    """Importing loads neither redis-py nor hiredis nor numpy, starts no thread, opens no file."""
    result = subprocess.run([sys.executable, "-I", "-c", QUIET_IMPORT], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# -- the checks themselves ---------------------------------------------------------------------------------------

LONG_BODY = "    pass\n" * 51


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (house.long_functions, "a.py", f"def f():\n{LONG_BODY}"),
        (house.long_functions, "a.py", f"class C:\n    async def f(self):\n{LONG_BODY.replace('    ', '        ')}"),
        (house.long_functions, "a.pyx", f"cdef int f(int a) except -1:\n{LONG_BODY}\ndef g():\n    pass\n"),
        (house.long_functions, "a.pyx", f"def f(\n    a,\n    b,\n):\n{LONG_BODY}"),
        (house.long_functions, "a.h", "static inline int f(void)\n{\n" + "    ;\n" * 50 + "}\n"),
        (house.long_functions, "a.h", "static inline int f(void) {\n" + "    ;\n" * 50 + "}\n"),
        (house.sleeping, "a.py", "import time\ntime.sleep(1)\n"),
        (house.sleeping, "a.py", "from time import sleep\nsleep(0.1)\n"),
        (house.sleeping, "a.py", "async def f():\n    await asyncio.sleep(1)\n"),
        (house.skipping, "a.py", "@pytest.mark.{}if(True)\n".format("skip")),
        (house.skipping, "a.py", "pytest.{}()\n".format("skip")),
        (house.silencing, "a.py", "x = 1  # type: {}\n".format("ignore")),
        (house.silencing, "a.py", "x = 1  # type: {}[misc]\n".format("ignore")),
        (house.silencing, "a.py", "x = 1  # {}\n".format("noqa")),
        (house.machine_paths, "a.md", "see {}/someone/notes\n".format("/home")),
        (house.undescribed_tests, "test_a.py", "def test_a_b_c():\n    pass\n"),
        (house.undescribed_tests, "test_a.py", 'def test_a():\n    """A rule."""\n'),
    ],
)
def test_check_planted_offence_is_found(
    tmp_path: Path, check: Callable[[Path], Iterable[str]], name: str, text: str
) -> None:
    """Each check sees what it is there for."""
    path = tmp_path / name
    path.write_text(text)
    assert len(list(check(path))) == 1


@pytest.mark.parametrize(
    ("check", "name", "text"),
    [
        (house.long_functions, "a.py", 'def f():\n    """' + "Long.\n" * 60 + f'    """\n{LONG_BODY[:-18]}'),
        (house.long_functions, "a.pyx", 'def f():\n    """' + "Long.\n" * 60 + '    """\n    pass\n'),
        (house.long_functions, "a.h", "struct s {\n    int a;\n};\nint g(void);\n"),
        (house.sleeping, "a.py", "async def f():\n    await asyncio.sleep(0)\n"),
        (house.silencing, "a.py", "x = 1  # type: ignore[misc]  # the stub lies\n"),
        (house.machine_paths, "a.md", "redis://host/0 unix:///run/redis.sock $(HOME)/optional/x src/work/thing\n"),
        (house.undescribed_tests, "test_a.py", 'def test_a_b_c():\n    """A rule."""\n'),
    ],
)
def test_check_innocent_text_passes(
    tmp_path: Path, check: Callable[[Path], Iterable[str]], name: str, text: str
) -> None:
    """No check complains about what is allowed."""
    path = tmp_path / name
    path.write_text(text)
    assert list(check(path)) == []


def test_check_long_file_is_found(tmp_path: Path) -> None:
    """501 lines of code are too many; 501 lines of prose are not."""
    for name in ("a.py", "a.md"):
        (tmp_path / name).write_text("\n" * 501)
    assert len(list(house.long_files([tmp_path / "a.py", tmp_path / "a.md"]))) == 1
