"""How scripts are put together: what they call is there before it is called, and nothing is sent that no one calls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nearcache.l2 import load_script, scripts
from nearcache.l2.scripts import NAMES

FILES = {path.stem: path.read_text(encoding="utf-8") for path in Path(scripts.__file__).parent.glob("*.lua")}
PARTS = FILES.keys() - {*NAMES, "cli_invalidate", "lane"}


def code_of(name: str) -> str:
    """A script as it is sent, without its comments."""
    source = load_script(name).source.decode()
    assert "-- include" not in source
    return re.sub(r"--.*", "", source)


def functions_of(part: str) -> list[str]:
    """The functions that a part is included for."""
    return re.findall(r"^local function (\w+)\(", FILES[part], re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_script_includes_what_it_calls_before_it_does(name: str) -> None:
    """What is not there would only fail in the call that comes to it."""
    code = code_of(name)
    for function in (function for part in PARTS for function in functions_of(part)):
        called = re.search(rf"(?<!function )\b{function}\(", code)
        made = code.find(f"local function {function}(")
        assert not called or 0 <= made < called.start(), function


@pytest.mark.parametrize("name", NAMES)
def test_script_calls_what_it_includes(name: str) -> None:
    """Making a function takes its time in every call."""
    code = code_of(name)
    included = re.findall(r"^ *-- include (\w+)\.lua$", FILES[name] + FILES["lane"], re.MULTILINE)
    made = re.findall(r"local function (\w+)\(", code)
    assert len(made) == len(set(made))
    for part in set(included) - {"lane"}:
        for function in functions_of(part):
            assert function not in made or len(re.findall(rf"\b{function}\(", code)) > 1, function


def test_every_file_is_used() -> None:
    """Each is a script, or part of one."""
    included = {part for text in FILES.values() for part in re.findall(r"-- include (\w+)\.lua\n", text)}
    assert included == {*PARTS, "lane"}
    assert all(functions_of(part) for part in PARTS)
