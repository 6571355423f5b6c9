"""Where the real inputs lie that are not part of the project (see the README beside them)."""

from __future__ import annotations

import lzma
import os
import sys
from pathlib import Path

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "traces"


def traces_folder() -> Path | None:
    """Return ``NEARCACHE_TRACES``, or ``../shared/traces`` of the checkout, or None if there is no such
    folder."""
    folder = Path(os.environ.get("NEARCACHE_TRACES", _BESIDE))
    return folder if folder.is_dir() else None


def read_trace(name: str) -> bytes | None:
    """Return the bytes of ``<name>.xz``, or None, with the reason on standard error, without such a file."""
    folder = traces_folder()
    path = None if folder is None else folder / f"{name}.xz"
    if path is None or not path.is_file():
        print(
            f"tests on {name} are left out: set NEARCACHE_TRACES to the folder that holds it",
            file=sys.__stderr__,
        )
        return None
    return lzma.decompress(path.read_bytes())
