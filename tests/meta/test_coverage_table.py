"""The table of what shows what (tests/simulation/COVERAGE.md) names tests and mutants that there are."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
TABLE = (TESTS / "simulation" / "COVERAGE.md").read_text("utf-8")
SOURCES = {path: path.read_text("utf-8") for path in TESTS.rglob("*.py")}


def test_named_tests_exist() -> None:
    """A test that is renamed is renamed there."""
    functions = {name for text in SOURCES.values() for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.M)}
    named = set(re.findall(r"`(test_\w+)`", TABLE))
    assert len(named) > 100
    assert sorted(named - functions - {path.stem for path in SOURCES}) == []


def test_named_faults_and_mutants_exist() -> None:
    """What stands in italics is the name of a kind of fault or of a mutant, to the letter."""
    simulation = "".join(text for path, text in SOURCES.items() if path.parent.name == "simulation")
    named = set(re.findall(r"(?<!\*)\*([a-z][^*\n]+)\*(?!\*)", TABLE))
    assert len(named) > 50
    assert [name for name in sorted(named) if f'"{name}"' not in simulation] == []


def test_every_mutant_and_row_is_listed() -> None:
    """No rule is switched off for nothing, and no race is left out."""
    mutants = re.findall(r'Mutant\(\s*"([^"]+)"', (TESTS / "simulation" / "mutants.py").read_text("utf-8"))
    assert [name for name in mutants if f"*{name}*" not in TABLE] == []
    rows = {int(number) for row in re.findall(r"^\| ([\d, ]+) \|", TABLE, re.M) for number in row.split(",")}
    assert rows == set(range(1, 57))
