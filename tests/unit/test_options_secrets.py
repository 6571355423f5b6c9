"""Secrets in URLs and options: no error shows them, nor do settings."""

from __future__ import annotations

import functools
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.errors import ConfigError
from nearcache.options import parse
from support.errors import everything_said

SECRET = "hunter2-s3cret"


async def a_coroutine(secret: str) -> str:
    """Nobody awaits it where connections are made."""
    return secret


@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@a:b",
        f"redis://user:{SECRET}@a/x",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}/@a:1",
        f"redis://:x/{SECRET}@a:1",
        f"redis://:x?{SECRET}@a:1",
        f"redis://:x#{SECRET}@a:1",
        f"redis://:x@{SECRET}@[a:1",
        f"redis://{SECRET}@[a:1",
        f"redis://user:{SECRET}@a?nonsense",
        f"redis://user:{SECRET}@a,a",
        f"redis://user:{SECRET}@a?password=other",
        f"redis://a:1?password={SECRET}&nonsense",
        f"redis://a:1?PASSWORD={SECRET}",
        f"redis://a:1?pasword={SECRET}",
        f"redis://a:1?pass%77ord={SECRET}&pass%77ord=x",
        f"redis://a:1?password={SECRET}&password=x",
        f"redis://a:b?password={SECRET}",
        f"http://user:{SECRET}@a",
        f"user:{SECRET}@a",
        f"memory://user:{SECRET}@a",
        f"memory://?password={SECRET}&ack=replica",
        f"embedded://user:{SECRET}@a",
        f"embedded://:{SECRET}@",
        f"unix://:{SECRET}@/run/a.sock",
        f"unix:///run/a.sock,run?password={SECRET}",
        f"redis://user:{SECRET}",
        f"redis://user:{SECRET}:6379",
        f"redis://:{SECRET}/0",
        f"redis://a,user:{SECRET},b:1",
        f"redis://[::1]:{SECRET}",
        f"redis://a,[::1:{SECRET}",
        f"redis://a?pw={SECRET}",
        f"redis://a?pw=x&pw={SECRET}",
        f"redis://a?credential={SECRET}",
        [f"redis://user:{SECRET}@a:1", "redis://b"],
        f"redis://user:{SECRET}@a:1".encode(),
    ],
)
def test_parse_bad_url_with_password_never_shows_it(url: Any) -> None:
    """Whatever is wrong with a URL, the error holds no password that stands in it."""
    with pytest.raises(ConfigError) as caught:
        parse(url)
    assert SECRET not in everything_said(caught.value)


@pytest.mark.parametrize(
    ("url", "keywords"),
    [
        ("redis://u:p@a", {"password": SECRET}),
        (f"redis://a?password={SECRET}", {"password": "p"}),
        ("redis://a:b", {"password": SECRET}),
        ("memory://", {"password": SECRET, "ack": "replica"}),
        *[("redis://a", {option: f"redis://u:{SECRET}@a"}) for option in ("url", "namespace", "shard_names", "ttl")],
        ("redis://a", {"password": SECRET.encode()}),
        ("redis://a", {"password": [SECRET]}),
        ("redis://a", {"password": functools.partial(a_coroutine, SECRET)}),
        ("redis+sentinel://a/m", {"sentinel_password": functools.partial(a_coroutine, SECRET)}),
        ("redis://a", {"username": SECRET.encode()}),
        *[("redis://a", {option: SECRET}) for option in ("sign_key", "api_key", "keys", "pswd", "cred")],
        ("redis://a", {"password": SECRET, "maxsize": -1}),
        (f"redis://:{SECRET}@a", {"maxsize": -1}),
    ],
)
def test_parse_bad_keyword_with_password_never_shows_it(url: str, keywords: dict[str, Any]) -> None:
    """A password given as a keyword is no more visible than one in the URL."""
    with pytest.raises(ConfigError) as caught:
        parse(url, **keywords)
    assert SECRET not in everything_said(caught.value)


def test_parse_password_may_be_a_function_but_no_coroutine_function() -> None:
    """It is called in threads, by whoever makes a connection; ``memory://`` makes none."""
    ask = functools.partial(str, SECRET)
    endpoint = parse("redis+sentinel://a/m", password=ask, sentinel_password=ask).endpoints[0]
    assert endpoint.password is endpoint.sentinel_password is ask
    assert SECRET not in repr(endpoint)
    parse("memory://", password=ask)
    with pytest.raises(ConfigError, match="coroutine function: give a plain one"):
        parse("redis://a", password=a_coroutine)


def test_settings_repr_hides_the_password() -> None:
    """Settings and endpoints can be logged."""
    settings = parse(f"redis://user:{SECRET}@a:1")
    assert settings.endpoints[0].password == SECRET
    assert SECRET not in repr(settings)
    assert SECRET not in settings.endpoints[0].address


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_parse_any_password_comes_through_quoted(password: str) -> None:
    """Any password survives in a URL that quotes it, and no part of a longer one is in the repr."""
    settings = parse(f"redis://:{quote(password, safe='')}@a:1")
    assert settings.endpoints[0].password == password
    assert repr(settings) == repr(parse("redis://:x@a:1"))
