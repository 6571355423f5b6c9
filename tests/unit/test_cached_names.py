"""What functions and methods are called: in keys, in errors, and by those who ask for a signature."""

from __future__ import annotations

import inspect
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nearcache
from nearcache import Cache
from nearcache.cache.functions.calls import Identities, name_of


@pytest.fixture
def cache() -> Cache[Any, Any]:
    """A cache of this process."""
    return nearcache.open("memory://")


def load(key: str) -> str:
    """Of a script, in the tests below."""
    return key


class Thing:
    """Likewise."""

    def __cache_key__(self) -> int:
        return 7


@pytest.mark.parametrize("module", ["__main__", "__mp_main__"])
@pytest.mark.parametrize(
    ("spec", "file", "name"),
    [
        (ModuleSpec("app.shop", None), "/somewhere/app/shop.py", "app.shop"),
        (None, "/somewhere/shop.py", "shop"),
        (ModuleSpec("__main__", None), "/somewhere/shop/__main__.py", "shop.__main__"),
        (ModuleSpec("__main__", None), "/somewhere/shop.pyz/__main__.pyc", "shop.pyz.__main__"),
        (ModuleSpec("__main__", None), "__main__.py", f"{Path.cwd().name}.__main__"),
        (None, "/somewhere/shop/__main__.py", "shop.__main__"),
        (None, None, "__main__"),
    ],
    ids=["python -m", "script", "directory", "archive", "here", "its script", "prompt"],
)
def test_script_has_the_name_that_it_is_imported_by(
    monkeypatch: pytest.MonkeyPatch, module: str, spec: ModuleSpec | None, file: str | None, name: str
) -> None:
    """Two scripts do not share their functions' results; a script and who imports it do, and what it spawns."""
    main = ModuleType(module)
    main.__spec__ = spec
    if file is not None:
        main.__file__ = file
    monkeypatch.setitem(sys.modules, module, main)
    for each in (load, Thing):
        monkeypatch.setattr(each, "__module__", module)
    assert name_of(load, None, is_shared=True) == f"{name}.load"
    assert name_of(load, 2, is_shared=True) == f"{name}.load@2"
    identities = Identities("load", is_shared=True)
    assert identities.of(Thing()) == (f"{name}.Thing", 7)
    assert identities.of(Thing) == f"{name}.Thing"


def test_bound_methods_have_the_signature_of_a_call(cache: Cache[Any, Any]) -> None:
    """Without the instance or class, as functools' have: what injects arguments goes by it."""

    class Service:
        @cache.cached
        def find(self, name: str, limit: int = 1) -> list[str]:
            return [name] * limit

        @cache.cached
        async def find_later(self, name: str) -> str:
            return name

        @classmethod
        @cache.cached
        def named(cls, name: str) -> str:
            return name

        @cache.cached
        def anything(*args: Any) -> Any:
            return args

    service = Service()
    assert [*inspect.signature(service.find).parameters] == ["name", "limit"]
    assert [*inspect.signature(service.find_later).parameters] == ["name"]
    assert [*inspect.signature(service.named).parameters] == ["name"]  # type: ignore[arg-type]  # see docs/decorators.md
    assert [*inspect.signature(service.anything).parameters] == ["args"]
    assert [*inspect.signature(Service.find).parameters] == ["self", "name", "limit"]


def test_wrong_arguments_are_told_of_the_function(cache: Cache[Any, Any]) -> None:
    """As the interpreter would say it."""

    @cache.cached
    def price(sku: str) -> str:
        return sku

    with pytest.raises(TypeError, match=r"^price\(\) missing 1 required positional argument: 'sku'$"):
        price()  # type: ignore[call-arg]  # it is what this is about
