"""The demo's pages: pydoc's, sealed with version and key."""

from __future__ import annotations

from demo import pages
from demo.workload import Loader, Plan, seal, tag_of, version_of


def test_seal_can_be_checked_by_reader() -> None:
    """A page says which version it was made from and which key it belongs to."""
    page = seal(17, "json.decoder", b"<html>")
    assert version_of(page) == 17
    assert page.startswith(tag_of("json.decoder"), 8)
    assert not page.startswith(tag_of("json"), 8)


def test_version_of_something_else_is_zero() -> None:
    """What is not a page has no version."""
    assert [version_of(thing) for thing in (None, b"", b"no version", 7)] == [0, 0, 0, 0]


def test_render_makes_the_documentation_of_a_module() -> None:
    """A page is the HTML that pydoc makes."""
    page = pages.render("json")
    assert page.startswith(b"<!DOCTYPE html")
    assert b"JSONDecoder" in page


def test_import_quietly_of_what_is_missing_is_none() -> None:
    """A module that this Python does not have is left out."""
    assert pages.import_quietly("winreg_of_another_planet") is None


def test_excluded_modules_are_those_with_side_effects() -> None:
    """Nothing that prints, opens a window or takes the terminal is imported."""
    assert {"antigravity", "this", "idlelib", "tkinter", "turtledemo", "readline"} <= pages.EXCLUDED


def test_loader_reads_the_version_before_it_renders() -> None:
    """A page that changes while it is rendered carries the version from before, and calls are counted."""

    class Workload(pages.PydocPages):
        def body(self, page: int) -> bytes:
            versions[page] += 1
            return b"body"

    versions = memoryview(bytearray(16)).cast("Q")
    loader = Loader(Workload(["json", "csv"], 1), versions)
    versions[1] = 5
    assert loader("csv") == seal(5, "csv", b"body")
    assert loader.calls == 1


def test_plan_builds_the_same_workload_everywhere() -> None:
    """Two processes with the same plan have the same keys and the same requests."""
    plan = Plan(["csv", "json", "re"], None, 3, 1.0)
    one, other = plan.build(), plan.build()
    assert one.keys == other.keys == ["csv", "json", "re"]
    assert one.requests(1, 4)[:100] == other.requests(1, 4)[:100]
    assert one.requests(1, 4)[:100] != other.requests(2, 4)[:100]
