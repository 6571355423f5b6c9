"""Every example in docs/decorators.md runs, but for those with other packages, which the integration tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "decorators.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_page_has_its_examples() -> None:
    """The pattern finds them; a page without any would pass for the wrong reason."""
    assert len(EXAMPLES) >= 5
    assert all("assert" in example for example in EXAMPLES)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_by_itself_runs(number: int) -> None:
    """What it asserts holds, in a module of its own."""
    exec(compile(EXAMPLES[number], f"{PAGE.name}:{number}", "exec"), {"__name__": "example"})
