"""CPython's own tests come from the Python that runs these. Docker's images are without them, and Debian's packages."""

from __future__ import annotations

from importlib import import_module

import pytest

#: The files here, and what they take of CPython's tests.
TAKEN = {"test_lru.py": "test.test_functools", "test_mapping.py": "test.mapping_tests"}


def is_there(name: str) -> bool:
    """Whether this Python has a module."""
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True


collect_ignore = [file for file, module in TAKEN.items() if not is_there(module)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out, and what would bring it."""
    for file in collect_ignore:
        terminalreporter.write_line(f"left out {file}: this Python has no {TAKEN[file]} (Debian: libpython3-testsuite)")
