"""Addresses of servers: how they are written in URLs, and how they are shown."""

from __future__ import annotations

import pytest

import nearcache
from nearcache.errors import ConfigError
from nearcache.options import Endpoint, parse


@pytest.mark.parametrize("scheme", ["redis", "rediss+sentinel", "redis+cluster"])
@pytest.mark.parametrize("address", ["::1", "2001:db8::1:6379", "::ffff:10.0.0.1", "fe80::1%25eth0"])
def test_parse_ipv6_address_without_brackets_says_how_to_write_it(scheme: str, address: str) -> None:
    """Nobody can tell where it ends and a port begins; the remedy can be copied."""
    with pytest.raises(ConfigError) as caught:
        parse(f"{scheme}://user:secret@a,{address}/0")
    assert f"in brackets: [{address}]" in str(caught.value)
    assert "secret" not in str(caught.value)
    parse(f"{scheme}://a,[{address}]:7000" + ("/m" if "sentinel" in scheme else ""))


def test_address_of_an_ipv6_endpoint_is_what_a_url_takes() -> None:
    """Who copies it from an error or from ``health()`` can use it."""
    (endpoint,) = parse("redis://[::1]:7000").endpoints
    assert endpoint.address == "[::1]:7000"
    assert parse(f"redis://{endpoint.address}").endpoints == (endpoint,)
    assert Endpoint("a", "10.0.0.1", 1).address == "10.0.0.1:1"


@pytest.mark.parametrize("scheme", ["redis", "rediss+sentinel", "redis+cluster"])
def test_parse_user_and_password_before_each_host_says_where_they_stand(scheme: str) -> None:
    """Else all but the last host would be part of the password."""
    with pytest.raises(ConfigError, match="once, before all hosts") as caught:
        parse(f"{scheme}://user:secret@a,user:secret@b/0")
    assert "secret" not in str(caught.value)
    (endpoint,) = parse("redis://user:s,e@cret@a").endpoints
    assert endpoint.password == "s,e@cret"


def test_url_as_a_keyword_is_told_where_it_goes() -> None:
    """Clients of Redis take it so."""
    with pytest.raises(ConfigError, match="the URL is the first argument"):
        parse(url="redis://a")


@pytest.mark.parametrize("url", ["", "memory://name", "redis://a:port"])
def test_url_of_the_environment_is_named_when_a_cache_is_opened(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It is not the caller's, who gave none."""
    monkeypatch.setenv("NEARCACHE_URL", url)
    with pytest.raises(ConfigError, match="option NEARCACHE_URL="):
        nearcache.open()
