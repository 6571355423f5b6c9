"""Settings shared by all tests: the fixtures of ``support`` and the report header."""

from __future__ import annotations

from support.fixtures import (
    BINARIES,
    make_redis,
    make_worker,
    newest_binary,
    no_leaks,
    redis_server,
    runtime_dir,
    server_binary,
    two_shards,
)
from support.redis import NO_SERVER

__all__ = [
    "make_redis",
    "make_worker",
    "newest_binary",
    "no_leaks",
    "redis_server",
    "runtime_dir",
    "server_binary",
    "two_shards",
]


def pytest_report_header() -> list[str]:
    """Say which servers the integration tests run against."""
    return [f"server {binary.label}: {binary.path}" for binary in BINARIES] or [f"server: {NO_SERVER}"]
