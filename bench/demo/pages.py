"""The default workload: documentation of Python's standard library, rendered as HTML by pydoc."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import pydoc
import sys
import warnings
from types import ModuleType
from typing import Final

from . import popularity
from .workload import Key

PAGES: Final = 120
#: The modules with most to document of all are left out: one page of theirs takes a second, not tens of milliseconds.
LEFT_OUT: Final = 30

#: Not imported: they print, open windows or browsers, touch the terminal, or are no library at all.
EXCLUDED: Final = frozenset(
    {
        "__main__", "antigravity", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3", "pip", "pydoc_data",
        "readline", "rlcompleter", "test", "this", "tkinter", "turtle", "turtledemo", "venv",
    }
)  # fmt: skip


def candidates() -> list[str]:
    """Return the names of public standard modules and, for packages, of their public submodules."""
    found = []
    for name in sorted(sys.stdlib_module_names - EXCLUDED):
        if name.startswith("_"):
            continue
        found.append(name)
        module = import_quietly(name)
        for entry in pkgutil.iter_modules(getattr(module, "__path__", ())):
            if not entry.name.startswith("_") and entry.name not in ("test", "tests"):
                found.append(f"{name}.{entry.name}")
    return found


def import_quietly(name: str) -> ModuleType | None:
    """Return a module, or None where this Python does not have it (other platforms, missing libraries)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name)
        except Exception:  # a module of another platform may fail in any way
            return None


def weight(module: ModuleType) -> int:
    """Return roughly how much there is to document: public functions, and members of public classes."""
    names = getattr(module, "__all__", None) or [name for name in dir(module) if not name.startswith("_")]
    members = [getattr(module, name, None) for name in names]
    return sum(len(dir(member)) if inspect.isclass(member) else 2 for member in members if callable(member))


def survey(pages: int = PAGES) -> list[str]:
    """Return the names of modules with much to document, in alphabetical order. Imports all of them.

    Fewer pages than usual are spread evenly over the same modules, so that a page costs the same on average.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        modules = {name: module for name in candidates() if (module := import_quietly(name)) is not None}
        weights = {name: weight(module) for name, module in modules.items()}
    heavy = sorted(weights, key=lambda name: (-weights[name], name))[LEFT_OUT : LEFT_OUT + PAGES]
    return sorted(heavy[:: max(len(heavy) // pages, 1)][:pages])


def render(name: str) -> bytes:
    """Return the HTML page that ``pydoc -b`` serves for a module."""
    module = importlib.import_module(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        contents = pydoc.html.document(module, name)
        return pydoc.html.page(pydoc.describe(module), contents).encode("utf-8", "xmlcharrefreplace")


class PydocPages:
    """Pages of the standard library's documentation, asked for by Zipf's law."""

    def __init__(self, modules: list[str], seed: int) -> None:
        self.keys: list[Key] = list(modules)
        self._modules = modules
        self._seed = seed

    def requests(self, worker: int, workers: int) -> list[int]:
        """Return this worker's own sequence of requests."""
        return popularity.requests(len(self.keys), self._seed, f"worker {worker}")

    def popular(self) -> list[int]:
        """Return page numbers, most wanted first."""
        return popularity.ranking(len(self._modules), self._seed)

    def prepare(self) -> None:
        """Import the modules, so that rendering a page is all that a request may have to wait for."""
        for name in self._modules:
            import_quietly(name)

    def body(self, page: int) -> bytes:
        """Render a page."""
        return render(self._modules[page])

    def describe(self) -> list[str]:
        """Say what is served."""
        return [
            f"pages      {len(self.keys)} pages of Python's own documentation, rendered by pydoc",
            f"requests   skewed: the n-th most popular page is asked for 1/n as often as the first (seed {self._seed})",
        ]
