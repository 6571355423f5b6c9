"""What the demo serves: pages with keys, the order in which they are asked for, and the slow way to make one.

A page as it is served begins with the version of the source it was made from and its own key, so that every read can
be checked:

    00000017 json.decoder\\n<body>
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

Key = str | int

VERSION_DIGITS = 8


class Workload(Protocol):
    """Pages, by number.

    Attributes:
        keys: The key of each page.
    """

    keys: list[Key]

    def requests(self, worker: int, workers: int) -> list[int]:
        """Return the page numbers that one of the workers asks for, in order; it starts over at the end."""

    def popular(self) -> list[int]:
        """Return page numbers, most wanted first."""

    def prepare(self) -> None:
        """Do what a serving process does once, before its first request."""

    def body(self, page: int) -> bytes:
        """Make a page, slowly."""

    def describe(self) -> list[str]:
        """Return what the pages are and who asks for them, in lines for the reader."""


@dataclass(frozen=True)
class Plan:
    """What the parent tells every child about the workload; travels as JSON.

    Attributes:
        modules: Names of the modules to document, when there is no trace.
        trace: Path of a trace, or None.
        seed: Of the requests and the changes.
        load_ms: How long the trace's synthetic loader takes.
    """

    modules: list[str]
    trace: str | None
    seed: int
    load_ms: float

    def build(self) -> Workload:
        """Return the workload."""
        from . import pages, traces

        if self.trace is None:
            return pages.PydocPages(self.modules, self.seed)
        return traces.TraceReplay(traces.read(self.trace), self.load_ms)


def tag_of(key: Key) -> bytes:
    """Return what follows the version in a page with this key."""
    return b" %s\n" % str(key).encode()


def seal(version: int, key: Key, body: bytes) -> bytes:
    """Return a page as it is served."""
    return b"%0*d%s%s" % (VERSION_DIGITS, version, tag_of(key), body)


def version_of(page: Any) -> int:
    """Return the version that a page was made from; 0 for anything that is not a page."""
    try:
        return int(page[:VERSION_DIGITS])
    except (TypeError, ValueError):
        return 0


class Loader:
    """The slow source: reads a page's version, makes the page, and counts how often it was asked.

    Attributes:
        calls: Number of pages made.
    """

    def __init__(self, workload: Workload, versions: memoryview) -> None:
        self._workload = workload
        self._versions = versions
        self._numbers = {key: page for page, key in enumerate(workload.keys)}
        self.calls = 0

    def __call__(self, key: Key) -> bytes:
        """Return the page with this key, made from the version its source has now."""
        self.calls += 1
        page = self._numbers[key]
        version = self._versions[page]
        return seal(version, key, self._workload.body(page))
