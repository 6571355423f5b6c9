"""Imports go downward, and the checker that says so can see an import that does not."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from support import layers

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "nearcache"


def plant(root: Path, files: dict[str, str]) -> Path:
    """Write a little package, each file with its text, and return its directory."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_package_imports_any_file_go_downward() -> None:
    """No module or stub of the package imports from its own floor or a higher one."""
    assert layers.package_violations(PACKAGE) == []


def test_compiled_imports_any_file_go_downward() -> None:
    """No Cython file imports Python modules of the package or its siblings."""
    assert layers.compiled_violations(ROOT / "ext" / "nearcache", PACKAGE) == []


def test_header_includes_any_header_know_no_python() -> None:
    """The headers of floor 0 include the C library and each other only."""
    assert layers.header_violations(ROOT / "ext" / "include") == []


def test_floors_every_module_has_one() -> None:
    """Every module and sub-package of the package has a floor."""
    units = {layers.unit_of(name) for name in layers.modules_under(PACKAGE)}
    assert [unit for unit in sorted(units) if layers.floor_of(unit) is None] == []


def test_allowed_imports_name_errors_only_and_form_no_circle() -> None:
    """What is allowed against the rule goes to the exceptions, or to a part of options, and can be put in an order."""
    order = TopologicalSorter[str]()
    for importer, imported in layers.ALLOWED:
        assert imported in {"errors", "choices"} or (importer == "options" and imported in ("endpoints", "writers"))
        order.add(importer, imported)
    order.prepare()


@pytest.mark.parametrize(
    "statement",
    [
        "from .cache import Cache",
        "from . import cache",
        "import nearcache.cache",
        "from nearcache import cache as c",
        "from nearcache.cache import Cache",
        "def f():\n    from .cache import Cache",
        "if TYPE_CHECKING:\n    from .cache import Cache",
        "from nearcache import open",
        "from .keys import encode_key",
    ],
)
def test_checker_planted_upward_import_is_found(tmp_path: Path, statement: str) -> None:
    """An upward or sideways import is found in every form that Python has for it."""
    files = {"__init__.py": "", "cache.py": "", "keys.py": "", "placement.py": statement}
    (found,) = layers.package_violations(plant(tmp_path, files))
    assert "nearcache.placement imports nearcache" in found


def test_checker_planted_import_out_of_a_package_is_found(tmp_path: Path) -> None:
    """Relative imports are resolved from where the file stands."""
    files = {"cache.py": "", "l2/__init__.py": "from ..cache import Cache", "l2/pool.py": "from .. import cache"}
    assert len(layers.package_violations(plant(tmp_path, files))) == 2


def test_checker_downward_and_package_internal_imports_pass(tmp_path: Path) -> None:
    """Imports from below, inside one sub-package, and from elsewhere are no violation."""
    files = {
        "__init__.py": "from .cache import Cache",
        "errors.py": "import os",
        "keys.py": "from ._codec import encode\nfrom .errors import CacheError",
        "l2/__init__.py": "from .pool import Pool\nfrom . import pool",
        "l2/pool.py": "import redis\nfrom ..keys import encode_key\nfrom . import scripts",
        "l2/scripts/__init__.py": "from ... import keys",
        "cache.py": "from . import keys, l2\nfrom ._store import Store",
        "_store.pyi": "from typing import Any",
    }
    assert layers.package_violations(plant(tmp_path, files)) == []


def test_checker_module_without_floor_is_found(tmp_path: Path) -> None:
    """A new module needs a place in the table before anything may import it."""
    (found,) = layers.package_violations(plant(tmp_path, {"cache.py": "from . import novelty", "novelty.py": ""}))
    assert "novelty has no floor" in found


@pytest.mark.parametrize(
    "statement",
    [
        "from nearcache.options import parse",
        "from nearcache._other cimport thing",
        "cimport nearcache._other",
        "from nearcache._other cimport (\n    thing,\n    other,\n)",
        "    import nearcache",
    ],
)
def test_checker_planted_compiled_import_is_found(tmp_path: Path, statement: str) -> None:
    """A compiled module may import neither Python modules of the package nor another compiled module."""
    package = plant(tmp_path / "src", {"__init__.py": "", "options.py": ""})
    ext = plant(tmp_path / "ext", {"_store.pyx": f"cimport cython\n{statement}\nfrom nearcache._store cimport Table\n"})
    (found,) = layers.compiled_violations(ext, package)
    assert "_store.pyx:2: nearcache._store imports nearcache" in found


def test_checker_declarations_without_a_module_may_be_shared(tmp_path: Path) -> None:
    """A ``.pxd`` of its own declares what several compiled modules use; it may use another one, but no module."""
    package = plant(tmp_path / "src", {"__init__.py": ""})
    files = {
        "_store.pyx": "from nearcache._core cimport table_t\n",
        "_core.pxd": "from nearcache._types cimport entry_t\n",
        "_types.pxd": "from nearcache._store cimport Store\n",
    }
    (found,) = layers.compiled_violations(plant(tmp_path / "ext", files), package)
    assert "_types.pxd:1: nearcache._types imports nearcache._store" in found


@pytest.mark.parametrize("header", ["Python.h", "numpy/arrayobject.h"])
def test_checker_planted_python_header_is_found(tmp_path: Path, header: str) -> None:
    """Floor 0 must compile without Python."""
    text = f'#include <stdint.h>\n#include "nearcache/clock.h"\n#  include <{header}>\n'
    (found,) = layers.header_violations(plant(tmp_path, {"table.h": text}))
    assert "table.h:3" in found
