"""The demo as a newcomer runs it: it passes, its check can fail, and whatever ends it, nothing is left."""

from __future__ import annotations

import lzma
import os
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.leftovers import marked_processes
from support import processes
from support.waiting import wait_until

DEMO = Path(__file__).resolve().parents[2] / "bench" / "demo"

#: Every process that a demo starts inherits it: the parent is found by it too.
MARK = "NEARCACHE_DEMO_TEST"

pytestmark = pytest.mark.slow


class Run:
    """A demo in a process group of its own, as a terminal's foreground job is."""

    def __init__(self, output: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self._output = output
        with output.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, str(DEMO), *arguments],
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, MARK: self.mark},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """The parent's process id, which is the group's too."""
        return self._process.pid

    @property
    def text(self) -> str:
        """Everything that was printed so far."""
        return self._output.read_text("utf-8")

    def wait_for(self, words: str) -> None:
        """Wait until the demo has printed something."""
        wait_until(lambda: words in self.text or self._process.poll() is not None, 60, what=words)
        assert words in self.text, self.text

    def end(self) -> int:
        """Wait for the end and return the exit status."""
        return self._process.wait(90)

    def close(self) -> None:
        """Kill whatever is left."""
        for pid in marked_processes(self.mark, MARK):
            os.kill(pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def start(tmp_path: Path, runtime_dir: Path) -> Iterator[Callable[..., Run]]:
    """A function that starts a demo; at the end none of its processes may be left (nor files: see runtime_dir)."""
    started: list[Run] = []

    def run(*arguments: str) -> Run:
        started.append(Run(tmp_path / f"{len(started)}.txt", *arguments))
        return started[-1]

    yield run
    left = [pid for each in started for pid in marked_processes(each.mark, MARK)]
    for each in started:
        each.close()
    assert not left


def gone(run: Run) -> bool:
    """Return whether nothing that the demo started lives any more."""
    return not marked_processes(run.mark, MARK)


def test_quick_demo_passes_and_compares(start: Callable[..., Run]) -> None:
    """The demo ends well: every read within the bound, a shard killed and back, three phases compared, nothing left."""
    run = start("--quick")
    assert run.end() == 0, run.text
    for words in ("is back", "requests per second", "Redis alone", "PASSED: all", "Left behind: nothing"):
        assert words in run.text
    assert "Traceback" not in run.text
    assert "TROUBLE" not in run.text


def test_demo_without_invalidations_fails_and_says_what(start: Callable[..., Run]) -> None:
    """When invalidations are only claimed, the check finds reads beyond the bound and names key, versions and times."""
    run = start("--quick", "--no-invalidation", "--no-faults", "--max-staleness", "0.5", "--seconds", "4")
    assert run.end() == 1, run.text
    assert "FAILED: " in run.text
    assert "that version was superseded" in run.text
    assert "Left behind: nothing" in run.text


@pytest.mark.parametrize("format_", ["keys", "tsv"])
def test_demo_replays_a_trace(start: Callable[..., Run], tmp_path: Path, format_: str) -> None:
    """An access trace takes the place of the pages."""
    if format_ == "keys":
        words = [number * number % 97 for number in range(2_000)]
        path = tmp_path / "t.keys.u64.xz"
        path.write_bytes(lzma.compress(struct.pack("<2000Q", *words)))
    else:
        path = tmp_path / "t.tsv.xz"
        path.write_bytes(lzma.compress(b"".join(b"1\tGET\t/%d\t200\t1\t0\n" % (n * n % 97) for n in range(2_000))))
    run = start("--trace", str(path), "--seconds", "3", "--workers", "2")
    assert run.end() == 0, run.text
    assert "2,000 requests" in run.text
    assert "PASSED" in run.text


def test_demo_of_a_missing_trace_says_so(start: Callable[..., Run]) -> None:
    """What cannot be read is named, and nothing has been started for it."""
    run = start("--trace", "nowhere")
    assert run.end() == 3
    assert "there is no trace 'nowhere'" in run.text
    assert "Traceback" not in run.text


def interrupted(run: Run, number: signal.Signals) -> None:
    """Wait for a demo to end as interrupted, with nothing left."""
    status = run.end()
    if status == 1 and ("Could not import runpy module" in run.text or "Fatal Python error: init_" in run.text):
        status = -number  # Python's way to say that it was struck before it had started
    assert status in (128 + number, -number), run.text
    if status < 0:
        # Python itself was still starting, or had just begun with our code: nothing had been done.
        assert "nearcache demo" not in run.text
    else:
        assert "Traceback" not in run.text
        assert f"Interrupted ({number.name})" in run.text
        assert "Left behind: nothing" in run.text
    wait_until(lambda: gone(run), what="the demo's processes have ended")


@pytest.mark.parametrize("words", ["", "Choosing", "Starting", "Phase 1", "Phase 3"])
def test_demo_after_ctrl_c_leaves_nothing(start: Callable[..., Run], words: str) -> None:
    """Ctrl-C, which every process of the terminal's foreground job gets, ends the demo cleanly at any stage."""
    run = start("--quick", "--seconds", "3", "--workers", "2")
    run.wait_for(words)
    os.killpg(run.pid, signal.SIGINT)
    interrupted(run, signal.SIGINT)


@pytest.mark.parametrize("delay", [0.02, 0.15, 0.4])
def test_demo_after_ctrl_c_during_start_leaves_nothing(start: Callable[..., Run], delay: float) -> None:
    """While processes are being started there is no instant at which Ctrl-C loses one; a second Ctrl-C does no harm."""
    run = start("--quick", "--seconds", "3", "--workers", "2")
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGINT)
    os.killpg(run.pid, signal.SIGINT)
    interrupted(run, signal.SIGINT)


@pytest.mark.parametrize("whole_group", [False, True])
def test_demo_after_sigterm_leaves_nothing(start: Callable[..., Run], whole_group: bool) -> None:
    """SIGTERM to the parent, or to all of its group, ends the demo cleanly."""
    run = start("--quick", "--seconds", "3", "--workers", "2")
    run.wait_for("Phase 2")
    (os.killpg if whole_group else os.kill)(run.pid, signal.SIGTERM)
    interrupted(run, signal.SIGTERM)


def test_demo_with_a_killed_worker_goes_on_and_says_so(start: Callable[..., Run]) -> None:
    """The others go on without a worker that was killed; the exit status tells that something was wrong."""
    run = start("--quick", "--seconds", "4", "--workers", "3")
    run.wait_for("Phase 2")
    victim = next(pid for pid, command in processes.children_of(run.pid).items() if "--role worker" in command)
    os.kill(victim, signal.SIGKILL)
    assert run.end() == 3, run.text
    assert "was killed by SIGKILL" in run.text
    assert "PASSED" in run.text
    assert "Left behind: nothing" in run.text


def test_demo_whose_parent_is_killed_leaves_nothing(start: Callable[..., Run]) -> None:
    """Even SIGKILL of the parent leaves no process and no file: children and servers notice."""
    run = start("--quick", "--seconds", "3", "--workers", "2")
    run.wait_for("Phase 3")
    os.kill(run.pid, signal.SIGKILL)
    run.end()
    wait_until(lambda: gone(run), 15, what="children and servers have ended")


def test_demo_whose_reader_leaves_ends(runtime_dir: Path) -> None:
    """A pipe that nobody reads any more ends the demo, quietly."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, str(DEMO), "--quick"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, MARK: mark},
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""
    wait_until(lambda: not marked_processes(mark, MARK), what="the demo's processes have ended")
