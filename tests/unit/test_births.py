"""When values were stored, as far as it is known."""

from __future__ import annotations

import pytest

from nearcache.loading import births as module
from nearcache.loading.births import Births


def test_birth_counts_for_the_write_that_it_was_noted_for() -> None:
    """Another write of the key has another age, and nobody's age is that of no write."""
    births = Births()
    births.note("k", 7, 1000, 1000)
    assert births.is_young("k", 7, 1000)
    assert not births.is_young("k", 7, 1001)
    assert not births.is_young("k", 8, 1000)
    assert not births.is_young("j", 0, 0)


def test_birth_is_forgotten_when_the_machine_has_slept() -> None:
    """The clock stood still: the value is older than it says. So it is if the answer comes after the sleep."""
    births = Births()
    births.note("k", 7, 1000, 1100)
    births.slept(1200)
    assert not births.is_young("k", 7, 0)
    births.note("k", 7, 1000, 1199)
    assert not births.is_young("k", 7, 0)
    births.note("k", 7, 1000, 1200)
    assert births.is_young("k", 7, 1000)


def test_births_are_remembered_of_so_many_keys_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of L2, of which there may be more than a process has room for."""
    monkeypatch.setattr(module, "KEPT", 10)
    births = Births()
    for number in range(30):
        births.note(number, 7, 1000, 1000)
    assert sum(births.is_young(number, 7, 1000) for number in range(30)) == 10
