"""Fixtures of the measurements: real servers of their own, and a place for the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

_lines: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """As the programs beside have it."""
    parser.addoption("--rounds", type=int, help="how often the sides take turns; by default what each needs")


@pytest.fixture(scope="session")
def rounds_of(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """What the command line says instead of the usual number of rounds."""
    asked = pytestconfig.getoption("--rounds")
    return lambda usual: usual if asked is None else asked


@pytest.fixture(scope="session")
def shard_url() -> Iterator[str]:
    """Two embedded servers that nobody else uses, as a URL of client-side shards."""
    from nearcache.embedded import EmbeddedServers

    with EmbeddedServers.join(f"bench-{uuid4().hex[:12]}", 2) as servers:
        yield "unix://" + ",".join(servers.sockets)


@pytest.fixture(scope="session")
def one_socket() -> Iterator[str]:
    """One embedded server that nobody else uses: the path of its socket."""
    from nearcache.embedded import EmbeddedServers

    with EmbeddedServers.join(f"bench-{uuid4().hex[:12]}", 1) as servers:
        yield servers.sockets[0]


@pytest.fixture
def report() -> Callable[[str], None]:
    """Take a line for the summary at the end."""
    return _lines.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures, whatever pytest-benchmark's table shows."""
    terminalreporter.section("nearcache")
    for line in _lines:
        terminalreporter.write_line(line)
