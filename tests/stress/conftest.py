"""Tests that need the access traces beside the checkout are deselected, with a word about it, where there
are none."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

TRACES = Path(os.environ.get("NEARCACHE_TRACES", Path(__file__).parents[2].parent / "shared" / "traces"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "traces: needs the access traces (NEARCACHE_TRACES or ../shared/traces)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if TRACES.is_dir():
        return
    missing = [item for item in items if item.get_closest_marker("traces")]
    if missing:
        items[:] = [item for item in items if item not in missing]
        config.hook.pytest_deselected(items=missing)
        config.stash[REASON] = f"{len(missing)} tests deselected: no traces at {TRACES} (set NEARCACHE_TRACES)"


REASON = pytest.StashKey[str]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if REASON in config.stash:
        terminalreporter.write_line(config.stash[REASON], yellow=True)


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder of the traces."""
    return TRACES


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let the threads alternate as often as can be where there is a GIL."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
