"""What the operating system says about processes: alive, whose child, which command line.

Reads ``/proc`` where there is one, and asks ``ps`` elsewhere. Zombies count as dead, except in
:func:`children_of`: a child that nobody waited for is a leak.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Process(NamedTuple):
    """One row of the process table."""

    pid: int
    parent: int
    zombie: bool
    command: str


def table() -> list[Process]:
    """Return all processes that can be seen."""
    if not (PROC / "self/stat").exists():
        return _ask_ps()
    found = (_read_proc(entry) for entry in PROC.iterdir() if entry.name.isdigit())
    return [process for process in found if process is not None]


def is_alive(pid: int) -> bool:
    """Return whether ``pid`` runs; False for a zombie."""
    if (PROC / "self/stat").exists():
        process = _read_proc(PROC / str(pid))
    else:
        process = next((each for each in _ask_ps() if each.pid == pid), None)
    return process is not None and not process.zombie


def children_of(pid: int) -> dict[int, str]:
    """Return the children of ``pid``, zombies included: pid -> command line."""
    return {each.pid: each.command or "(zombie)" for each in table() if each.parent == pid}


def mentioning(text: str) -> dict[int, str]:
    """Return the other live processes that have ``text`` in their command line: pid -> command line."""
    return {
        each.pid: each.command
        for each in table()
        if text in each.command and not each.zombie and each.pid != os.getpid()
    }


def _read_proc(entry: Path) -> Process | None:
    try:
        stat = (entry / "stat").read_text("utf-8", "replace")
        command = (entry / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name, in parentheses, may itself hold blanks and parentheses.
    state, parent = stat.rpartition(")")[2].split()[:2]
    text = command.replace(b"\0", b" ").decode("utf-8", "replace").strip()
    return Process(int(entry.name), int(parent), state in {"Z", "X"}, text)


def _ask_ps() -> list[Process]:
    command = ["ps", "-axww", "-o", "pid=,ppid=,state=,command="]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ps:
        lines = ps.communicate()[0].splitlines()
    rows = (line.split(None, 3) for line in lines)
    found = (Process(int(row[0]), int(row[1]), row[2].startswith("Z"), "".join(row[3:])) for row in rows)
    return [each for each in found if each.pid != ps.pid]
