"""What is shipped: the installed package that these tests run against, and the sdist and wheel that make built."""

from __future__ import annotations

import re
import sys
import tarfile
import zipfile
from importlib import machinery, metadata
from pathlib import Path, PurePosixPath

import pytest

import nearcache

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "nearcache"
EXTENSIONS = sorted(path.stem for path in (ROOT / "ext" / "nearcache").glob("*.pyx"))
SUFFIX = machinery.EXTENSION_SUFFIXES[0]
METADATA = {"METADATA", "WHEEL", "RECORD", "top_level.txt", "licenses/LICENSE"}
#: What pip adds when it installs.
INSTALLATION = {"INSTALLER", "REQUESTED", "direct_url.json"}


def names_under(directory: Path, *suffixes: str) -> set[str]:
    """Return the files with these suffixes below a directory, as seen from its parent."""
    paths = (path for path in directory.rglob("*") if path.suffix in suffixes or path.name in suffixes)
    return {path.relative_to(directory.parent).as_posix() for path in paths}


def expected_package() -> set[str]:
    """Return every file that an installed package consists of."""
    compiled = {f"nearcache/{name}{SUFFIX}" for name in EXTENSIONS}
    return names_under(SOURCE, ".py", ".pyi", ".lua", "py.typed") | compiled


@pytest.fixture(scope="module")
def installed() -> set[str]:
    """The files that the installed distribution lists, byte code and scripts left out."""
    files = metadata.files("nearcache") or []
    return {f.as_posix() for f in files if "__pycache__" not in f.parts and not f.as_posix().startswith("../")}


@pytest.fixture(scope="module")
def sdist() -> dict[str, bytes]:
    """The files of the sdist, without the name of its directory."""
    (archive,) = (ROOT / "dist").glob("nearcache-*.tar.gz")
    with tarfile.open(archive) as tar:
        found = {member.name.partition("/")[2]: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: file.read() for name, file in found.items() if file is not None}


@pytest.fixture(scope="module")
def wheel() -> dict[str, bytes]:
    """The files of the wheel that was built for the main Python."""
    (archive,) = (ROOT / "dist").glob("nearcache-*.whl")
    with zipfile.ZipFile(archive) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist() if not name.endswith("/")}


def test_tests_imported_package_is_the_installed_one() -> None:
    """The tests see what a user gets, never the tree."""
    place = Path(nearcache.__file__ or "").resolve()
    assert "site-packages" in place.parts
    assert SOURCE not in place.parents
    assert not [entry for entry in sys.path if Path(entry).resolve() == SOURCE.parent]


def test_installed_files_are_exactly_the_package(installed: set[str]) -> None:
    """Modules, stubs, compiled modules, Lua scripts and py.typed are installed, and nothing besides."""
    assert {name for name in installed if ".dist-info/" not in name} == expected_package()


def test_installed_metadata_is_exactly_the_usual(installed: set[str]) -> None:
    """The licence is installed; no stray file of the build is."""
    own = {name.partition(".dist-info/")[2] for name in installed if ".dist-info/" in name}
    assert "licenses/LICENSE" in own
    assert own <= METADATA | INSTALLATION


def test_installed_every_compiled_module_has_a_stub_and_loads_from_a_binary(installed: set[str]) -> None:
    """Each extension has a .so and a .pyi, and the .so is what is imported."""
    assert EXTENSIONS
    for name in EXTENSIONS:
        assert f"nearcache/{name}.pyi" in installed
        module = __import__(f"nearcache.{name}", fromlist=["x"])
        assert Path(str(module.__file__)).name == f"{name}{SUFFIX}"


def test_installed_lua_scripts_are_all_there(installed: set[str]) -> None:
    """A wheel without its scripts would only fail in production."""
    scripts = {PurePosixPath(name).stem for name in installed if name.endswith(".lua")}
    assert {"set", "invalidate", "clear", "lease", "fill", "abort", "renew", "adopt", "heartbeat"} <= scripts
    assert {
        "lane",
        "record",
        "announce",
        "announce_keys",
        "store",
        "envelope",
        "touched",
        "waiting",
        "changing",
    } <= scripts
    assert {"cli_invalidate", "touch", "take"} <= scripts
    assert {"dequeue", "written", "buried", "requeue", "rebury"} <= scripts


def test_installed_version_is_the_packages_own() -> None:
    """The version in pyproject.toml and that in the package do not drift apart."""
    assert metadata.version("nearcache") == nearcache.__version__


def test_wheel_files_are_exactly_the_package(wheel: dict[str, bytes]) -> None:
    """The wheel that make built holds the same files as the installed package."""
    shipped = {name for name in wheel if ".dist-info/" not in name}
    plain = {re.sub(r"\.[^.]+(\.so)$", r"\1", name) for name in shipped}
    assert plain == {re.sub(r"\.[^.]+(\.so)$", r"\1", name) for name in expected_package()}


def test_sdist_files_are_the_sources_and_nothing_else(sdist: dict[str, bytes]) -> None:
    """What is needed to build is there, the documentation and the vectors that it sends implementers to; tests, traces,
    benchmarks and generated C are not.
    """
    sources = names_under(SOURCE, ".py", ".pyi", ".lua", "py.typed")
    needed = {f"src/{name}" for name in sources}
    needed |= names_under(ROOT / "ext", ".pyx", ".pxd", ".h")
    needed |= {"pyproject.toml", "setup.py", "setup.cfg", "README.md", "LICENSE", "PKG-INFO"}
    needed |= {"CHANGELOG.md", "MANIFEST.in", *names_under(ROOT / "docs", ".md")}
    needed |= {f"tests/{name}" for name in names_under(ROOT / "tests" / "data", ".json")}
    shipped = {name for name in sdist if not name.startswith("src/nearcache.egg-info/")}
    assert shipped == needed


def test_sdist_sources_are_those_of_the_tree(sdist: dict[str, bytes]) -> None:
    """The sdist is not an older state than the tree: what is tested is what is there."""
    other = [name for name, data in sdist.items() if (ROOT / name).is_file() and (ROOT / name).read_bytes() != data]
    assert [name for name in other if not name.startswith("src/nearcache.egg-info/")] == []


def test_shipped_text_names_no_place_of_one_machine(sdist: dict[str, bytes], wheel: dict[str, bytes]) -> None:
    """Neither archive knows where it was built, not even in compiled code."""
    here = str(ROOT).encode()
    assert [name for name, data in {**sdist, **wheel}.items() if here in data] == []
