"""The examples of docs/freshness.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[2] / "docs" / "freshness.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_examples_run_in_order() -> None:
    """What they assert holds, in one module."""
    assert len(EXAMPLES) >= 3
    assert all("assert" in example for example in EXAMPLES)
    module: dict[str, Any] = {"__name__": "example"}
    for number, example in enumerate(EXAMPLES):
        exec(compile(example, f"{PAGE.name}:{number}", "exec"), module)
