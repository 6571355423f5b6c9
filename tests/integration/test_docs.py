"""Every Python example of the README and of docs/ runs as it stands there, on a real server where it names one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nearcache
from nearcache import MemoryCache
from nearcache.aio import AsyncCache
from nearcache.options import parse
from support.redis import Binary, RedisServer

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OPEN = nearcache.open
#: Options that say how to reach servers which are not here.
ELSEWHERE = re.compile(r"password|username|db|ssl_\w+|sentinel_\w+|shard_names|shards|maxmemory_mb")
#: What examples speak of without defining it.
STAND_INS: dict[str, Any] = {
    "load_product": lambda key: {"sku": key},
    "load": lambda key: key.upper(),
    "changed": {"sku": "sku:1", "price": 2},
    "shirt": {"size": "M"},
}


def examples(page: Path) -> list[tuple[int, str]]:
    """Return the Python examples of a page, each with the line it begins at."""
    text = page.read_text("utf-8")
    found = [(text.count("\n", 0, match.start(2)), match) for match in FENCE.finditer(text)]
    return [(line, match[2]) for line, match in found if match[1] == "python"]


@pytest.fixture(scope="module")
def server(newest_binary: Binary) -> Iterator[RedisServer]:
    """One server for all pages."""
    made = RedisServer(newest_binary)
    yield made.start()
    made.close()


@pytest.fixture
def scope(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A module in which ``nearcache.open`` checks what it is given, and then opens a cache on our server instead."""
    server.client().flushall()
    caches: list[Any] = []

    def opener(url: str | None = None, /, **options: Any) -> Any:
        if parse(url, **options).scheme != "memory":
            options = {name: value for name, value in options.items() if not ELSEWHERE.fullmatch(name)}
            url = server.url
        caches.append(OPEN(url, **options))
        return caches[-1]

    monkeypatch.setattr(nearcache, "open", opener)
    yield {"__name__": "example", "nearcache": nearcache, "cache": opener("redis://a"), **STAND_INS}
    for cache in caches:
        cache.close()


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.stem)
def test_examples_of_the_page_run_one_after_the_other(page: Path, scope: dict[str, Any]) -> None:
    """What they assert holds."""
    for line, code in examples(page):
        exec(compile("\n" * line + code, str(page), "exec", dont_inherit=True), scope)


def test_stand_ins_are_needed_and_fences_say_their_language() -> None:
    """No list here outlives what it is for, and no example hides in a fence of another kind."""
    everything = "\n".join(code for page in PAGES for _, code in examples(page))
    assert [name for name in STAND_INS if not re.search(rf"\b{name}\b", everything)] == []
    languages = {match[1] for page in PAGES for match in FENCE.finditer(page.read_text("utf-8"))}
    assert languages <= {"", "python", "console", "text"}
    bare = [m[2] for page in PAGES for m in FENCE.finditer(page.read_text("utf-8")) if not m[1]]
    assert not [code for code in bare if re.search(r"^(import |from .* import |cache\W)", code, re.MULTILINE)]


def test_names_that_others_are_mapped_to_exist() -> None:
    """Whatever the right column of docs/coming-from.md calls or takes from the module."""
    text = (ROOT / "docs" / "coming-from.md").read_text("utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    ours = " ".join(row[1] for row in rows if len(row) == 2)
    names = set(re.findall(r"(\w+)\(", ours)) | set(re.findall(r"\bnearcache\.(\w+)", ours))
    places = [MemoryCache, AsyncCache, nearcache, nearcache.lru_cache(len), MemoryCache().cached(key=len)(len)]
    assert len(names) >= 20
    assert [name for name in names if not any(hasattr(place, name) for place in places)] == []
