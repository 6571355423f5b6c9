"""The demo's command line, and its search for what was left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo import job, leftovers, options


def test_options_without_arguments_are_those_of_the_readme() -> None:
    """Four workers, two shards, a shard killed, a minute of measurements."""
    chosen = options.parse([])
    assert (chosen.workers, chosen.shards, chosen.seconds, chosen.max_staleness) == (4, 2, 60.0, 2.0)
    assert chosen.faults
    assert chosen.invalidating
    assert chosen.trace is None


@pytest.mark.parametrize("arguments", [[], ["--quick"], ["--seconds", "17.5"]])
def test_lengths_of_the_phases_add_up(arguments: list[str]) -> None:
    """The three phases together take the time that was asked for."""
    chosen = options.parse(arguments)
    assert list(chosen.lengths()) == list(job.PHASES)
    assert sum(chosen.lengths().values()) == pytest.approx(chosen.seconds)


@pytest.mark.parametrize(
    "arguments",
    [["--seconds", "1"], ["--seconds", "nan"], ["--seconds", "100"], ["--workers", "0"], ["--workers", "two"],
     ["--shards", "1.5"], ["--max-staleness", "0.01"], ["--changes", "0"], ["--unknown"], ["file"]],
)  # fmt: skip
def test_options_out_of_range_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What makes no sense ends with status 2 and names the option."""
    with pytest.raises(SystemExit) as refused:
        options.parse(arguments)
    assert refused.value.code == 2
    assert arguments[0].lstrip("-") in capsys.readouterr().err


def test_find_of_a_living_process_and_a_file_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left is named: processes with the mark or a known id, and files."""
    monkeypatch.setattr(leftovers, "_PATIENCE_S", 0.0)
    mark = f"test-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, leftovers.MARK: mark},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        found = leftovers.find(mark, [process.pid], [tmp_path, tmp_path / "nothing"])
        process.communicate(b"\n")
    assert len(found) == 2
    assert found[0].startswith(f"process {process.pid} (")
    assert found[1] == f"file {tmp_path}"


def test_find_of_nothing_is_empty(tmp_path: Path) -> None:
    """When all has gone there is nothing to say."""
    assert leftovers.find("no such mark", [], [tmp_path / "nothing"]) == []
