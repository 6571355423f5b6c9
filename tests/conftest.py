"""Settings shared by all tests: the fixtures of ``support`` and the report header."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from support.fixtures import (
    EVERY,
    binaries_for,
    clock,
    lane,
    make_redis,
    make_worker,
    newest_binary,
    no_leaks,
    open_cache,
    open_sharded,
    proxy,
    redis_cluster,
    redis_server,
    runtime_dir,
    server_binary,
    two_shards,
)
from support.redis import NO_SERVER
from support.resharding import open_at, servers
from support.rows import database

__all__ = [
    "clock",
    "database",
    "lane",
    "make_redis",
    "make_worker",
    "newest_binary",
    "no_leaks",
    "open_at",
    "open_cache",
    "open_sharded",
    "proxy",
    "redis_cluster",
    "redis_server",
    "runtime_dir",
    "server_binary",
    "servers",
    "two_shards",
]

# The same examples in every run, so that a failure can be repeated; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeat", derandomize=True, deadline=None, print_blob=True, database=None)
settings.register_profile("brief", derandomize=True, deadline=None, print_blob=True, database=None, max_examples=25)
settings.register_profile("explore", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))


def pytest_report_header() -> list[str]:
    """Say which servers the integration tests run against."""
    return [f"server {binary.label}: {binary.path}" for binary in EVERY] or [f"server: {NO_SERVER}"]


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let the collector look at what tests make, and not, hundreds of times, at all that pytest knows of them."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what names a server program, by whatever fixtures, with each that concerns it."""
    if "server_binary" in metafunc.fixturenames:
        found = binaries_for(metafunc.definition)
        labels = [binary.label for binary in found] or ["no-server"]
        metafunc.parametrize("server_binary", found or [None], indirect=True, scope="session", ids=labels)
