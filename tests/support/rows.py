"""What is behind a cache in tests of ``writer=``: rows that it loads, writes and deletes, and all that can go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from nearcache import ABSENT
from support.caches import Opener, opening


class Database:
    """A loader and a writer.

    Attributes:
        rows: What it holds.
        calls: What it was asked to do, in order; deletions with ABSENT as value.
        before_commit, after_commit: Called at these points of every change.
        fails: What to raise instead of a commit.
        poison: Keys that it refuses.
        gate: Cleared, it keeps every change waiting.
    """

    def __init__(self) -> None:
        self.rows: dict[Any, Any] = {}
        self.calls: list[tuple[str, Any]] = []
        self.before_commit: Callable[[], object] = lambda: None
        self.after_commit: Callable[[], object] = lambda: None
        self.fails: Exception | None = None
        self.poison: set[Any] = set()
        self.gate = threading.Event()
        self.gate.set()

    def load(self, key: Any) -> Any:
        """Return a row, or raise KeyError."""
        return self.rows[key]

    def write(self, key: Any, value: Any) -> None:
        """Change a row."""
        self._commit("write", {key: value})

    def write_many(self, values: Mapping[Any, Any]) -> None:
        """Change rows, all or none."""
        self._commit("write_many", values)

    def delete(self, key: Any) -> None:
        """Delete a row."""
        self._commit("delete", {key: ABSENT})

    def _commit(self, call: str, values: Mapping[Any, Any]) -> None:
        self.calls.append((call, dict(values)))
        self.before_commit()
        assert self.gate.wait(30)
        if self.fails is not None:
            raise self.fails
        if bad := self.poison & set(values):
            raise ValueError(f"refused: {sorted(bad)}")
        for key, value in values.items():
            if value is ABSENT:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        self.after_commit()


@contextmanager
def writing_behind(url: str, database: Database) -> Iterator[Opener]:
    """Give a function that opens caches which write behind; at the end the writers may go on, and all are closed."""
    with opening(url, writer=database, loader=database.load, write_delay=0.02) as opener:
        yield opener
        database.gate.set()


@pytest.fixture
def database() -> Iterator[Database]:
    """What is behind the caches of a test; at the end nobody waits for it any more."""
    database = Database()
    yield database
    database.gate.set()
