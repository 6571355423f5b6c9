"""The floors of the house, and a reader of imports that finds those which do not go downward.

A file may import from lower floors only. Modules inside one package (``l2/``, ``codecs/``...) may import each other;
so may the few pairs of :data:`ALLOWED`, each with its reason.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "nearcache"

#: Floor of each module or sub-package of the package. Compiled modules (floor 1) begin with ``_`` and need no entry,
#: unless they use another one.
FLOORS = {
    "_hearing": 2, "_reads": 2, "_by_parts": 2, "_asking": 2, "_watching": 3, "_results": 3, "_parts": 3, "_shares": 3,
    "_putting": 3, "_getting": 3,
    "coroutines": 1, "absence": 2, "errors": 2, "choices": 2, "endpoints": 2, "options": 2, "clocks": 2, "logs": 2,
    "writers": 2,
    "keys": 3, "forks": 3, "codecs": 3, "placement": 3, "coherence": 3, "flights": 3, "loops": 3,
    "changes": 3, "events": 3, "freshness": 3, "workers": 3, "backlog": 3, "answers": 3,
    "keywords": 3,
    "l2": 4, "rings": 4, "bus": 4, "embedded": 4, "awaiting": 4,
    "loading": 5,
    "cache": 6, "decorators": 6,
    "aio": 7, "prometheus": 7, "wire": 7, "__init__": 7,
}  # fmt: skip

#: Imports that do not go downward and are allowed all the same: (importer, imported) -> why. They form no circle.
ALLOWED = {
    ("options", "errors"): "exceptions are the vocabulary of everything, options included",
    ("endpoints", "errors"): "as options",
    ("options", "endpoints"): "options has no room for reading URLs",
    ("options", "writers"): "what a writer is, as choices",
    ("writers", "errors"): "as for options",
    ("options", "choices"): "what can be chosen about values, set apart to keep the tables in sight",
    ("choices", "errors"): "as for options",
    ("_local", "errors"): "a value over maxbytes is refused in the middle of the store's work; imported when raised",
}

#: Declarations that are a part of one compiled module, set apart only to keep its file in sight.
PARTS = {"_keyed": "_store", "_entrances": "_store"}

_COMPILED_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<origin>\.*[\w.]*)[ \t]+c?import[ \t]+(?P<names>\([^)]*\)|[^\n#]+)"
    r"|c?import[ \t]+(?P<modules>[^\n#]+)"
    r"|cdef[ \t]+extern[ \t]+from[ \t]+[\"'](?P<header>[^\"']+)[\"'])",
    re.MULTILINE,
)
_C_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+[<"](?P<header>[^>"]+)[>"]', re.MULTILINE)


@dataclass(frozen=True)
class Import:
    """One import: the importing file, its line, and the full name of what is imported (``nearcache.l2.pool``)."""

    path: str
    line: int
    importer: str
    target: str


def unit_of(module: str) -> str:
    """Return the part of the house that a module belongs to: ``nearcache.l2.pool`` -> ``l2``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def floor_of(unit: str) -> int | None:
    """Return the floor of a part, or ``None`` if nobody has given it one."""
    if unit in FLOORS:
        return FLOORS[unit]
    return 1 if unit.startswith("_") else None


def module_of(path: Path, root: Path) -> str:
    """Return the dotted name of the module in ``path``; packages end in ``.__init__``."""
    return ".".join((PACKAGE, *path.relative_to(root).with_suffix("").parts))


def modules_under(root: Path) -> set[str]:
    """Return the names of all modules and packages below the package directory ``root``."""
    names = set()
    for path in [*root.rglob("*.py"), *root.rglob("*.pyi")]:
        name = module_of(path, root)
        names |= {name, name.removesuffix(".__init__")}
    return names


def python_imports(path: Path, root: Path, modules: set[str]) -> Iterator[Import]:
    """Yield the imports of a ``.py`` or ``.pyi`` file that concern the package, at any depth of the code.

    Imports under ``TYPE_CHECKING`` count: what a file names, it knows.
    """
    importer = module_of(path, root)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            targets = _origins(importer, node.level, node.module, [alias.name for alias in node.names], modules)
        else:
            continue
        for target in targets:
            if target.split(".")[0] == PACKAGE:
                yield Import(str(path), node.lineno, importer, target)


def compiled_imports(path: Path, root: Path, modules: set[str]) -> Iterator[Import]:
    """Yield what a ``.pyx`` or ``.pxd`` file imports or cimports from the package."""
    importer = module_of(path, root)
    text = path.read_text(encoding="utf-8")
    for match in _COMPILED_IMPORT.finditer(text):
        if match["header"]:
            continue
        if match["modules"]:
            targets = [name.split()[0] for name in match["modules"].split(",")]
        else:
            dots = len(match["origin"]) - len(match["origin"].lstrip("."))
            names = [name.split()[0] for name in match["names"].strip("() \n").split(",") if name.strip()]
            targets = _origins(importer, dots, match["origin"][dots:] or None, names, modules)
        line = text.count("\n", 0, match.start()) + 1
        for target in targets:
            if target.split(".")[0] == PACKAGE:
                yield Import(str(path), line, importer, target)


def _origins(importer: str, level: int, module: str | None, names: list[str], modules: set[str]) -> list[str]:
    """Resolve ``from <level dots><module> import <names>``: a name is a submodule where there is one of that name."""
    base = importer.split(".")[:-level] if level else []
    origin = ".".join(base + (module.split(".") if module else []))
    origins = {f"{origin}.{name}" if f"{origin}.{name}" in modules else origin for name in names}
    return sorted(origins)


def violations(imports: Iterable[Import]) -> list[str]:
    """Return a sentence for each import that does not go downward."""
    found = []
    for item in imports:
        importer, target = (PARTS.get(unit, unit) for unit in (unit_of(item.importer), unit_of(item.target)))
        upper, lower = floor_of(importer), floor_of(target)
        place = f"{item.path}:{item.line}: {item.importer} imports {item.target}"
        if upper is None or lower is None:
            found.append(f"{place}: {importer if upper is None else target} has no floor; give it one in FLOORS")
        elif importer != target and lower >= upper and (importer, target) not in ALLOWED:
            found.append(f"{place}: floor {upper} may not import from floor {lower}")
    return found


def package_violations(package: Path) -> list[str]:
    """Check every Python file and stub below the package directory."""
    modules = modules_under(package)
    files = sorted([*package.rglob("*.py"), *package.rglob("*.pyi")])
    return violations(item for path in files for item in python_imports(path, package, modules))


def compiled_violations(directory: Path, package: Path) -> list[str]:
    """Check every Cython file of ``directory`` (which mirrors ``package``).

    A ``.pxd`` without a ``.pyx`` is no module: it declares headers and inline functions, and any module may use it.
    """
    modules = modules_under(package)
    files = sorted([*directory.rglob("*.pyx"), *directory.rglob("*.pxd")])
    compiled = {path.stem for path in files if path.suffix == ".pyx"}
    declarations = {path.stem for path in files} - compiled
    imports = (item for path in files for item in compiled_imports(path, directory, modules))
    return violations(item for item in imports if unit_of(item.target) not in declarations)


def header_violations(directory: Path) -> list[str]:
    """Check that the headers of floor 0 include each other and the C library, never Python."""
    found = []
    for path in sorted(directory.rglob("*.h")):
        text = path.read_text(encoding="utf-8")
        for match in _C_INCLUDE.finditer(text):
            header = match["header"]
            known = header.startswith(f"{PACKAGE}/") or (path.parent / header).exists() or _is_libc(header)
            if not known:
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path}:{line}: floor 0 may not include {header}")
    return found


def _is_libc(header: str) -> bool:
    return header.startswith(("sys/", "linux/")) or (
        re.fullmatch(r"[a-z]+\.h", header) is not None and not header.startswith("python")
    )
