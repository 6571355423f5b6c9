"""URLs of a Redis Cluster."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.errors import ConfigError
from nearcache.options import parse
from nearcache.placement import CLUSTER_LANES, ClusterPlacement, cluster_prefixes, slot_of_lane


def test_url_names_some_nodes() -> None:
    """With the usual port where there is none; user and password hold for all of them."""
    first, second = parse("redis+cluster://app:s%40cret@n1:7000,n2?namespace=shop").endpoints
    assert (first.host, first.port, second.host, second.port) == ("n1", 7000, "n2", 6379)
    assert (second.username, second.password, second.clustered, second.tls) == ("app", "s@cret", True, False)


def test_url_tls_takes_certificates() -> None:
    """They hold for all nodes."""
    (node,) = parse("rediss+cluster://n1", ssl_ca_certs="/ca.pem", ssl_check_hostname=False).endpoints
    assert (node.tls, node.clustered, node.ssl_ca_certs, node.ssl_check_hostname) == (True, True, "/ca.pem", False)


@pytest.mark.parametrize("url", ["redis+cluster://n1/", "redis+cluster://n1/0", "redis+cluster://n1?db=0"])
def test_url_database_0_may_be_named(url: str) -> None:
    """It is the one there is."""
    assert parse(url).endpoints[0].db == 0


@pytest.mark.parametrize(
    ("url", "options", "option"),
    [
        ("redis+cluster://n1/1", {}, "url"),
        ("redis+cluster://n1/master", {}, "url"),
        ("redis+cluster://n1?db=1", {}, "db"),
        ("redis+cluster://n1", {"db": 7}, "db"),
        ("redis+cluster://n1", {"shard_names": ["a"]}, "shard_names"),
        ("redis+cluster://n1", {"sentinel_username": "a"}, "sentinel_username"),
        ("redis+cluster://n1", {"ssl_ca_certs": "/ca.pem"}, "ssl_ca_certs"),
        ("redis+cluster://n1,n1", {}, "url"),
        ("redis+cluster://", {}, "url"),
    ],
)
def test_url_what_makes_no_sense_is_refused(url: str, options: dict[str, Any], option: str) -> None:
    """By the name of the option that is wrong."""
    with pytest.raises(ConfigError) as caught:
        parse(url, **options)
    assert caught.value.option == option


def test_secrets_are_not_in_errors() -> None:
    """Nor in the settings' repr."""
    with pytest.raises(ConfigError) as caught:
        parse("redis+cluster://app:s3cret@n1/5")
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(parse("redis+cluster://app:s3cret@n1"))


def test_prefixes_are_those_of_the_documentation() -> None:
    """Fixed for ever: other programs compute the same."""
    prefixes = cluster_prefixes("shop")
    assert [prefixes[lane] for lane in (0, 1, 2, 63)] == [
        b"nc:{shop:0-40561}:", b"nc:{shop:1-13258}:", b"nc:{shop:2-1142}:", b"nc:{shop:63-17084}:",
    ]  # fmt: skip


@pytest.mark.parametrize("namespace", ["a", "x" * 64, "A.b_c-9"])
def test_prefixes_put_each_lane_in_its_slot(namespace: str) -> None:
    """The hash tag is what stands between the braces, and no smaller number would do."""
    import binascii

    for lane, prefix in enumerate(cluster_prefixes(namespace)):
        tag = prefix[prefix.index(b"{") + 1 : prefix.index(b"}")]
        assert binascii.crc_hqx(tag, 0) % 16_384 == slot_of_lane(lane)
        stem, _, number = tag.rpartition(b"-")
        smaller = (binascii.crc_hqx(b"%s-%d" % (stem, other), 0) % 16_384 for other in range(int(number)))
        assert lane > 3 or slot_of_lane(lane) not in smaller


def test_placement_spreads_keys_over_all_lanes() -> None:
    """As many slots for each."""
    table = ClusterPlacement().table
    assert {table.count(lane) for lane in range(CLUSTER_LANES)} == {16_384 // CLUSTER_LANES}
    assert [table[slot] for slot in (0, 63, 64, 16_383)] == [0, 63, 0, 63]
