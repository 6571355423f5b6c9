"""Options of ``memory://``: those of Redis are taken, so that tests of a program need another URL and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

import nearcache
from nearcache.endpoints import Endpoint
from nearcache.errors import ConfigError
from nearcache.options import parse


def message_of(**chosen: Any) -> str:
    """What is said of a refused option."""
    with pytest.raises(ConfigError) as caught:
        parse("memory://", **chosen)
    return str(caught.value)


REDIS_ONLY = {
    "namespace": "shop", "max_staleness": 1, "timeout": 0.5, "pool_size": 4, "codec": "json", "compress": "zlib",
    "signing_keys": "00" * 32, "on_error": "queue", "stale_if_error": 60, "require_coherence": True, "lease": 5,
    "l1_ttl": 10, "classes": [Endpoint], "placement": "ring", "shard_names": "a,b", "password": "p", "db": 3,
    "ssl_ca_certs": "ca.pem", "sentinel_password": "p", "shards": 2, "isolation": "shared", "ack": "primary",
}  # fmt: skip


@pytest.mark.parametrize("option", REDIS_ONLY)
def test_memory_takes_options_of_redis_and_checks_them(option: str) -> None:
    """A program is tested by giving it another URL; what Redis would refuse is refused here as well."""
    settings = parse("memory://", **{option: REDIS_ONLY[option]})
    assert (settings.scheme, settings.endpoints, settings.ttl) == ("memory", (), None)
    if option not in ("codec", "signing_keys"):
        assert f"option {option}=" in message_of(**{option: -1})


@pytest.mark.parametrize(("option", "value"), [("ack", "replica"), ("isolation", "copy"), ("writer", print)])
def test_memory_refuses_promises_it_does_not_keep(option: str, value: Any) -> None:
    """And says who does."""
    assert "embedded:// and Redis do" in message_of(**{option: value})


@pytest.mark.parametrize("chosen", [{"soft_ttl": 60}, {"beta": 1}])
def test_memory_gives_what_grows_old_the_end_that_it_has_on_redis(chosen: dict[str, Any]) -> None:
    """Else nothing would ever be loaded anew. That only some values have an end, of their own, is said by ttl=None."""
    assert parse("memory://", **chosen).ttl == parse("redis://a", **chosen).ttl == 3600
    assert parse("memory://?" + "&".join(f"{option}={value}" for option, value in chosen.items())).ttl == 3600
    assert parse("memory://", ttl=None, **chosen).ttl is None
    assert parse("memory://?ttl=none", **chosen).ttl is None
    assert parse("memory://", soft_ttl=None, beta=0).ttl is None


def test_memory_without_bytes_ignores_what_is_about_them() -> None:
    """It stores objects, whatever a codec would make of them."""
    value = {object()}
    with nearcache.open("memory://", codec="json", compress="zlib", signing_keys="00" * 32, type=int) as cache:
        cache["key"] = value
        assert cache["key"] is value


def test_readme_example_opens_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment alone."""
    monkeypatch.setenv("NEARCACHE_URL", "memory://")
    with nearcache.open(namespace="shop", loader=str.upper, ttl=300, timeout=0.2, on_error="queue") as cache:
        assert cache["a"] == "A"
        assert "'shop'" in repr(cache)
