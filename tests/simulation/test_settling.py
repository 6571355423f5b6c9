"""A run that does not come to an end is ended, and says which it was."""

from __future__ import annotations

import pytest

from simulation import shrink, world
from simulation.runs import Plan, simulate
from simulation.shrink import Shrunk, kind_of


def test_run_that_does_not_settle_fails_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After so many events it is over, whatever it would go on with, so that it takes bounded memory and time."""
    monkeypatch.setattr(world, "MOST_EVENTS", 500)
    outcome = simulate(Plan.of(9))
    assert kind_of(outcome) == "DoesNotSettle"
    assert outcome.events == 500
    assert str(outcome.crash).startswith("seed 9 does not settle")


def test_shrinking_of_runs_that_do_not_settle_takes_fewer_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be spent on shrinking is events rather than runs, where these are long."""
    runs: list[int] = []
    monkeypatch.setattr(world, "MOST_EVENTS", 500)
    monkeypatch.setattr(shrink, "_EVENTS", 50)
    monkeypatch.setattr(shrink, "simulate", lambda plan, **more: runs.append(1) or simulate(plan, **more))
    plan = Plan.of(9)
    shrunk = Shrunk(plan, simulate(plan), budget=50)
    assert kind_of(shrunk.outcome) == "DoesNotSettle"
    assert len(runs) < 20
