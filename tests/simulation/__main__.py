"""``python tests/simulation run|soak|replay|explain``: see README.md beside this file."""

from __future__ import annotations

import sys
from pathlib import Path


def start() -> int:
    """Import the package by its name, whatever directory this was started by."""
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from simulation.commands import main

    return main()


if __name__ == "__main__":
    sys.exit(start())
