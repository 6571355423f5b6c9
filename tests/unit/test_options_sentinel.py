"""URLs of shards behind Sentinel."""

from __future__ import annotations

import pytest

from nearcache.errors import ConfigError
from nearcache.options import Endpoint, parse

SECRET = "s3cr3t"


def test_each_master_is_a_shard_of_its_name() -> None:
    """Names decide placement; where the masters are is not known yet. User and password are the masters'."""
    url = "redis+sentinel://u:p@s1,[::1]:5/m1,m%2D2?db=3"
    sentinels = (("s1", 26379), ("::1", 5))
    assert list(parse(url).endpoints) == [
        Endpoint(name, master=name, sentinels=sentinels, db=3, username="u", password="p") for name in ("m1", "m-2")
    ]


def test_tls_and_credentials_of_sentinels_are_taken() -> None:
    """TLS is for sentinels and servers alike."""
    url = "rediss+sentinel://s/m?sentinel_username=w&sentinel_password=x&ssl_ca_certs=ca"
    assert parse(url).endpoints == (
        Endpoint(
            "m", master="m", sentinels=(("s", 26379),), tls=True, ssl_ca_certs="ca",
            sentinel_username="w", sentinel_password="x",
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    "location", ["s1,s2", "s1,s2/", "/m1", "s1/m1,m1", "s1/m1,", "s1/m1/0", "s1:0x/m1", "s1/m 1", "s1,,s2/m1"]
)
def test_url_without_sentinels_or_masters_is_refused(location: str) -> None:
    """Half a URL is never half understood."""
    with pytest.raises(ConfigError, match=r"^option url="):
        parse(f"redis+sentinel://{location}")


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("redis+sentinel://s/m", "ssl_certfile"),
        ("redis+sentinel://s/m", "shard_names"),
        ("redis://s", "sentinel_password"),
        ("unix:///a", "sentinel_username"),
    ],
)
def test_option_of_another_scheme_is_refused(url: str, option: str) -> None:
    """Masters have names already, and only sentinels have passwords of sentinels."""
    with pytest.raises(ConfigError, match="has no such option"):
        parse(url, **{option: "x"})


def test_secrets_are_never_shown() -> None:
    """Neither in the repr nor in an error."""
    endpoint = parse(f"redis+sentinel://:{SECRET}@s/m?sentinel_password={SECRET}").endpoints[0]
    assert SECRET not in repr(endpoint) + endpoint.address
    with pytest.raises(ConfigError) as caught:
        parse(f"redis+sentinel://s/m?sentinel_password={SECRET}", sentinel_password=SECRET + "x")
    assert SECRET not in str(caught.value)


def test_address_names_the_master_until_it_is_known() -> None:
    """Messages to people say what was asked of whom."""
    assert parse("redis+sentinel://s1,s2:5/m").endpoints[0].address == "master m of s1:26379,s2:5"
