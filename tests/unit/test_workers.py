"""Where threads may be begun, and where not."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from nearcache._reads import Event
from nearcache.workers import is_to_fork, start_thread, warn_of_pauses
from support.threads import PATIENCE

MASTER: dict[str, Any] = {"worker_id": lambda: 0, "mule_id": lambda: 0, "i_am_the_spooler": lambda: None}


def uwsgi_that_says(**said: Any) -> Any:
    """Return a module as uWSGI puts it into its interpreters."""
    module = ModuleType("uwsgi")
    vars(module).update(said)
    return module


@pytest.mark.parametrize(
    ("uwsgi", "expected"),
    [
        (uwsgi_that_says(**MASTER), True),
        (uwsgi_that_says(worker_id=lambda: 0), True),
        (uwsgi_that_says(**MASTER | {"worker_id": lambda: 2}), False),
        (uwsgi_that_says(**MASTER | {"mule_id": lambda: 1}), False),
        (uwsgi_that_says(**MASTER | {"i_am_the_spooler": lambda: True}), False),
        (uwsgi_that_says(), False),
        (None, False),
    ],
    ids=["master", "old master", "worker", "mule", "spooler", "something else", "import forbidden"],
)
def test_thread_begins_in_no_process_that_uwsgi_is_to_fork(
    uwsgi: Any, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child would wait for ever for the interpreter's lock, if the thread has it just then."""
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    assert is_to_fork() is expected
    begun = Event()
    thread = start_thread("nearcache-test", begun.set)
    assert (thread is None) is expected
    if thread is not None:
        assert begun.wait(PATIENCE)
        thread.join(PATIENCE)


@pytest.mark.parametrize(("has_threads", "lines"), [(0, 1), (1, 0), (None, 0)])
def test_uwsgi_whose_threads_pause_between_requests_is_warned_of(
    has_threads: int | None, lines: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """L1 is of little use there, and what is written behind the cache waits. One that does not say is believed."""
    said = {} if has_threads is None else {"has_threads": has_threads}
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(**MASTER, **said))
    warn_of_pauses("shop")
    assert [record.levelname for record in caplog.records] == ["WARNING"] * lines
    assert caplog.text.count("namespace shop: ") == caplog.text.count("--enable-threads") == lines
