"""The models of the protocol hold within small bounds, and no rule can be done without."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from simulation.model.catalogue import MODELS
from simulation.model.engine import Mutant, Report, explore, replay

CASES = [(name, number) for name, model in MODELS.items() for number in range(len(model.CASES))]
MUTANTS = [(name, mutant) for name, model in MODELS.items() for mutant in model.MUTANTS]


@cache
def searched(name: str, number: int) -> Report:
    """Search a case of a model to its end, once."""
    return explore(MODELS[name](MODELS[name].CASES[number].bounds))


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{n}-{MODELS[n].CASES[c].title}" for n, c in CASES])
def test_model_all_rules_hold_in_every_state(name: str, number: int) -> None:
    """Within small bounds no interleaving breaks a property."""
    report = searched(name, number)
    assert report.found is None, str(report.found)
    assert report.complete, str(report)


@pytest.mark.parametrize("name", MODELS)
def test_model_every_kind_of_event_happens(name: str) -> None:
    """What a model speaks of and never happens would prove nothing."""
    kinds = {kind for number in range(len(MODELS[name].CASES)) for kind in searched(name, number).kinds}
    assert kinds == MODELS[name].EVENTS


@pytest.mark.parametrize(("name", "mutant"), MUTANTS, ids=[f"{name}-{mutant.rule}" for name, mutant in MUTANTS])
def test_model_one_rule_switched_off_is_found_out(name: str, mutant: Mutant) -> None:
    """Each rule is needed: without it a property breaks, and the trace shows how, step by step."""
    model = MODELS[name](mutant.bounds, [mutant.rule])
    report = explore(model)
    assert report.found is not None, f"{mutant.rule} was not missed in {report}"
    assert replay(model, report.found.trace) == (report.found.trace, report.found.reason)


@pytest.mark.parametrize("name", MODELS)
def test_rules_every_one_has_a_mutant(name: str) -> None:
    """A rule that nothing is known to need does not belong in a model."""
    assert Counter(mutant.rule for mutant in MODELS[name].MUTANTS) == Counter(iter(MODELS[name].RULES))


@pytest.mark.parametrize("name", MODELS)
def test_rules_unknown_name_is_refused(name: str) -> None:
    """A mutant with a misspelt rule would be no mutant."""
    with pytest.raises(ValueError, match="no such rules"):
        MODELS[name](MODELS[name].CASES[0].bounds, ["no such rule"])
