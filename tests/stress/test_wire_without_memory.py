"""What asks, answers, hears and reads together, when the interpreter has no memory: MemoryError, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support import scarcity


def test_wire_without_memory_at_any_point_raises_and_stays_whole() -> None:
    """No leak, nothing half done, and with memory all goes on. In a process of its own (see ``support.scarcity``)."""
    run = [sys.executable, "-m", scarcity.__name__]
    done = subprocess.run(run, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr == ""
    assert done.stdout.split("\n")[:-1] == [*scarcity.SCENES]
