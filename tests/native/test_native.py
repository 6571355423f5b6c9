"""The C core's own tests, built and run without Python in between."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def test_core_without_python_passes_its_tests() -> None:
    """``make sanitize`` runs the same under AddressSanitizer and UBSan."""
    script = Path(__file__).with_name("run.sh")
    done = subprocess.run(
        ["sh", str(script)],
        env=os.environ | {"SANITIZE": ""}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all passed" in done.stdout
