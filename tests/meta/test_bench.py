"""The programs of ``make bench`` still run: each of them, with as little work as it can be told to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted((ROOT / "bench").glob("bench_*.py"))
#: What makes a program short that would be long with one round as well.
SHORTER = {
    "bench_l1.py": ["--entries=100", "--most=100", "--growth=1000", "--peers=nearcache"],
    "bench_invalidation.py": ["-k=1000 or batches or stream"],  # all it does, each once
    "bench_memo.py": ["--entries=100"],
    "bench_threads.py": ["--keys=100", "--reads=1000"],
}


def command(program: Path) -> list[str]:
    """As in the Makefile: by itself if it can be run by itself, else with pytest."""
    alone = "\nif __name__" in program.read_text()
    how = [] if alone else ["-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return [sys.executable, *how, str(program), "--rounds=1", *SHORTER.get(program.name, [])]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.stem)
def test_bench_one_round_ends_well_and_shows_figures(program: Path) -> None:
    """Figures of a program that dies are nobody's: a change that it depends on has to take it along."""
    done = subprocess.run(command(program), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(character.isdigit() for character in done.stdout)


def test_bench_programs_are_found() -> None:
    """The test above looks at something, and what it knows of programs is of ones that are there."""
    assert {"bench_l1.py", "bench_l2.py", *SHORTER} <= {program.name for program in PROGRAMS}
