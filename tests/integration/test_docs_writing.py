"""The examples of docs/writing.md run, each by itself on a server of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nearcache.options import ENVIRONMENT
from support.redis import Binary, RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "writing.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def server_binary(newest_binary: Binary) -> Binary:
    """The newest server only: what differs between versions, ``test_write_behind`` shows."""
    return newest_binary


def test_page_has_its_examples() -> None:
    """The pattern finds them; a page without any would pass for the wrong reason."""
    assert len(EXAMPLES) == 3
    assert all("assert" in example for example in EXAMPLES)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_by_itself_runs(number: int, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it asserts holds."""
    monkeypatch.setenv(ENVIRONMENT, redis_server.url)
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(EXAMPLES[number], f"{PAGE.name}:{number}", "exec"), names)
    names["cache"].close()
