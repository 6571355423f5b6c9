"""Find the Pythons of this machine that nearcache supports: on PATH (python3.10 to python3.15) and in pyenv.

Free-threaded builds (``3.13t``) count as versions of their own. Besides on PATH one is looked for where the variable
FREETHREADED says, and where freethreaded.sh builds it.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SUPPORTED = tuple((3, minor) for minor in range(10, 16))
FREE_THREADED = ((3, 13), (3, 14))
BUILT = Path(__file__).resolve().parent.parent / ".freethreaded" / "python" / "bin" / "python3.13t"

# Runs in the candidate. A name on PATH proves nothing: pyenv's shims exist for versions that are not switched on.
PROBE = """
import ensurepip, json, os, sys, sysconfig, venv
print(json.dumps({
    "version": sys.version_info[:2],
    "implementation": sys.implementation.name,
    "gil": not sysconfig.get_config_var("Py_GIL_DISABLED"),
    "headers": os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python that can build and test nearcache; ``version`` as in ``3.12``, or ``3.13t`` without a GIL."""

    path: str
    version: str

    @property
    def free_threaded(self) -> bool:
        return self.version.endswith("t")


def find(exclude: tuple[int, int]) -> tuple[list[Interpreter], list[str]]:
    """Return one interpreter for each supported version but ``exclude``, and why others were left out.

    A free-threaded build of the excluded version is not excluded.
    """
    found: dict[tuple[int, int, str], Interpreter] = {}
    left_out: list[str] = []
    for path in candidates():
        facts = probe(path)
        if isinstance(facts, str):
            left_out.append(f"{path}: {facts}")
            continue
        major, minor = facts["version"]
        wanted = (
            (major, minor) in SUPPORTED and (major, minor) != exclude
            if facts["gil"]
            else (major, minor) in FREE_THREADED
        )
        if wanted:
            letter = "" if facts["gil"] else "t"
            found.setdefault((major, minor, letter), Interpreter(path, f"{major}.{minor}{letter}"))
    return [found[version] for version in sorted(found)], left_out


def candidates() -> list[str]:
    """Return paths that may be Pythons, those on PATH first."""
    names = [f"python{major}.{minor}" for major, minor in SUPPORTED]
    names += [f"python{major}.{minor}t" for major, minor in FREE_THREADED]
    directories = [Path(part) for part in os.environ.get("PATH", "").split(os.pathsep) if part]
    paths = [directory / name for directory in directories for name in names]
    pyenv = shutil.which("pyenv")
    if pyenv:
        for root in dict.fromkeys((Path(pyenv).parent.parent, Path(pyenv).resolve().parent.parent)):
            paths += sorted(root.glob("versions/*/bin/python3"))
    if os.environ.get("FREETHREADED"):
        paths.insert(0, Path(os.environ["FREETHREADED"]))
    paths.append(BUILT)
    return list(dict.fromkeys(str(path) for path in paths if os.access(path, os.X_OK)))


def probe(path: str) -> dict[str, object] | str:
    """Return the facts about the Python at ``path``, or why it is of no use."""
    try:
        result = subprocess.run(
            [path, "-I", "-c", PROBE], capture_output=True, text=True, timeout=30, check=True, stdin=subprocess.DEVNULL
        )
        facts = json.loads(result.stdout)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or ["does not run"]
        return lines[-1] if lines[0].startswith("Traceback") else lines[0]
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)
    if facts["implementation"] != "cpython":
        return f"{facts['implementation']}, not CPython"
    if not facts["headers"]:
        return "no Python.h"
    return facts


if __name__ == "__main__":
    interpreters, reasons = find(sys.version_info[:2])
    for interpreter in interpreters:
        print(interpreter.version, interpreter.path)
    for reason in reasons:
        print("left out:", reason)
