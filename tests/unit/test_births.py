"""When values were stored, as far as it is known."""

from __future__ import annotations

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
