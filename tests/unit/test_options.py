"""Options and URLs: what is accepted, and that everything else is a ConfigError which says what to do."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nearcache import choices, options
from nearcache.endpoints import MAX_SOCKET_PATH, redact
from nearcache.errors import ConfigError
from nearcache.options import Endpoint, Settings, parse

REDIS = "redis://a:6379"
LONGEST = "/" + "a" * (MAX_SOCKET_PATH - 1)

#: Options with values that no cache can have, for a scheme that knows the option.
BAD_VALUES: list[tuple[str, str, Any]] = [
    ("memory://", "maxsize", -1),
    ("memory://", "maxsize", True),
    ("memory://", "maxsize", False),
    ("memory://", "maxsize", 1.5),
    ("memory://", "maxsize", "many"),
    ("memory://", "maxsize", "1_000"),
    ("memory://", "maxsize", "9" * 5000),
    ("memory://", "maxsize", 2**31),
    ("memory://", "maxbytes", 0),
    ("memory://", "maxbytes", 2**50 + 1),
    ("memory://", "ttl", math.nan),
    ("memory://", "ttl", math.inf),
    ("memory://", "ttl", -math.inf),
    ("memory://", "ttl", -1),
    ("memory://", "ttl", 0),
    ("memory://", "ttl", True),
    ("memory://", "ttl", "soon"),
    ("memory://", "ttl", "nan"),
    ("memory://", "ttl", "inf"),
    ("memory://", "ttl", 10**400),
    ("memory://", "ttl", [60]),
    ("memory://", "loader", "load"),
    ("memory://", "key", 3),
    ("memory://", "getsizeof", 3),
    ("memory://", "on_removal", "log"),
    ("memory://", "policy", "fifo"),
    ("memory://", "policy", None),
    ("memory://", "policy", ["lru"]),
    (REDIS, "policy", "LRU"),
    (REDIS, "on_removal", 3),
    (REDIS, "ttl", 4_294_968),
    (REDIS, "l1_ttl", 0),
    (REDIS, "max_staleness", 0.05),
    (REDIS, "max_staleness", None),
    (REDIS, "max_staleness", 61),
    (REDIS, "namespace", ""),
    (REDIS, "namespace", "a b"),
    (REDIS, "namespace", "shop\n"),
    (REDIS, "namespace", "{shop}"),
    (REDIS, "namespace", "x" * 65),
    (REDIS, "namespace", "ä"),
    (REDIS, "namespace", None),
    (REDIS, "max_value", 0),
    (REDIS, "timeout", 0),
    (REDIS, "timeout", None),
    (REDIS, "connect_timeout", math.nan),
    (REDIS, "pool_size", 0),
    (REDIS, "classes", int),
    (REDIS, "classes", ["int"]),
    (REDIS, "classes", 3),
    (REDIS, "db", -1),
    (REDIS, "db", True),
    (REDIS, "username", 3),
    (REDIS, "shard_names", 3),
    (REDIS, "shard_names", ["a b"]),
    (REDIS, "shard_names", [3]),
    (REDIS, "shard_names", ["a", "b"]),
    ("redis://a,b", "shard_names", ["one", "one"]),
    ("rediss://a:1", "ssl_check_hostname", "perhaps"),
    ("rediss://a:1", "ssl_ca_certs", 3),
    ("embedded://", "shards", 0),
    ("embedded://", "shards", 65),
    ("embedded://", "shards", "two"),
    ("embedded://", "maxmemory_mb", 3),
]

BAD_URLS = [
    "",
    "redis",
    "redis:",
    "redis:/a",
    "redis://",
    "redis:///0",
    "REDIS://a",
    "http://a",
    "redis+carrier-pigeon://a",
    "redis://a:b",
    "redis://a:99999",
    "redis://a:0",
    "redis://a:-1",
    "redis://a,",
    "redis://,a",
    "redis://a b",
    "redis://a\n",
    "redis://[::1",
    "redis://::1",
    "redis://a,a",
    "redis://a:6379,a",
    "redis://" + ",".join(f"h{i}" for i in range(65)),
    "redis://a/x",
    "redis://a/-1",
    "redis://a/0/1",
    "redis://a?ttl",
    "redis://a?=5",
    "redis://a?ttl=5&ttl=6",
    "redis://a?ttl=5&&",
    "redis://a#fragment",
    "redis://a?ttl=5#fragment",
    "unix://",
    "unix://run/redis.sock",
    "unix:///run/a.sock,run/b.sock",
    "unix:///run/a.sock,/run/a.sock",
    "unix:///run/a%0A.sock",
    "redis://a\0b",
    "redis://a\u202eb",
    "unix:///run/a.sock,/run/" + "b" * MAX_SOCKET_PATH,
    "memory://name",
    "memory://a/b",
    "embedded://a/b",
    "embedded://a b",
    "embedded://user@name",
]


def message_of(*args: Any, **keywords: Any) -> str:
    """Return what the ConfigError says that parsing these arguments raises."""
    with pytest.raises(ConfigError) as caught:
        parse(*args, **keywords)
    return str(caught.value)


# -- what is accepted --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["username", "password", "shard_names", "shard_weights", "loader", "writer"])
def test_parse_none_where_that_is_the_default_is_as_if_it_were_not_given(option: str) -> None:
    """Who hands on what he was given himself need not leave out what is None."""
    assert parse(REDIS, **{option: None}) == parse(REDIS)


def test_parse_without_url_is_the_embedded_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL and without NEARCACHE_URL, the embedded servers named ``default`` are meant."""
    monkeypatch.delenv(options.ENVIRONMENT, raising=False)
    assert parse() == Settings(scheme="embedded", endpoints=())


def test_parse_without_url_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """NEARCACHE_URL stands in for a missing URL, and only for a missing one."""
    monkeypatch.setenv(options.ENVIRONMENT, "memory://?maxsize=7")
    assert (parse().scheme, parse().maxsize) == ("memory", 7)
    assert parse("embedded://x").scheme == "embedded"


def test_parse_bad_environment_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad URL in the environment is refused as one in the call is."""
    for url in ("nonsense", "", "memory://name", "redis://a:port", "redis://a#b", "redis://a?b"):
        monkeypatch.setenv(options.ENVIRONMENT, url)
        assert f"option NEARCACHE_URL={url!r}" in message_of()
        assert "NEARCACHE_URL" not in message_of(None, url="redis://a")


@pytest.mark.parametrize(
    ("url", "endpoints"),
    [
        ("redis://a", [Endpoint("a:6379", "a", 6379)]),
        ("redis://a:1,b:2/3", [Endpoint("a:1", "a", 1, db=3), Endpoint("b:2", "b", 2, db=3)]),
        ("redis://a/", [Endpoint("a:6379", "a", 6379)]),
        ("redis://127.0.0.1:1", [Endpoint("127.0.0.1:1", "127.0.0.1", 1)]),
        ("redis://[::1]:1", [Endpoint("::1:1", "::1", 1)]),
        ("redis://[fe80::1%25eth0]:1", [Endpoint("fe80::1%eth0:1", "fe80::1%eth0", 1)]),
        ("rediss://a:1", [Endpoint("a:1", "a", 1, tls=True)]),
        ("redis://u:p@a:1", [Endpoint("a:1", "a", 1, username="u", password="p")]),
        ("redis://:p%40%2F%3A@a:1", [Endpoint("a:1", "a", 1, password="p@/:")]),
        ("redis://a:1?password=p", [Endpoint("a:1", "a", 1, password="p")]),
        ("redis://a:1,b:1?shard_names=x,y", [Endpoint("x", "a", 1), Endpoint("y", "b", 1)]),
        ("unix:///run/r.sock", [Endpoint("/run/r.sock", path="/run/r.sock")]),
        ("unix:///run/a%2Cb?db=2", [Endpoint("/run/a,b", path="/run/a,b", db=2)]),
        (f"unix://{LONGEST}", [Endpoint(LONGEST, path=LONGEST)]),
        ("unix:///a,/b", [Endpoint("/a", path="/a"), Endpoint("/b", path="/b")]),
        ("memory://", []),
        ("embedded://", []),
    ],
)
def test_parse_good_url_yields_its_endpoints(url: str, endpoints: list[Endpoint]) -> None:
    """Hosts, ports, paths, database and credentials end up where they belong, once for each shard."""
    assert list(parse(url).endpoints) == endpoints


@pytest.mark.parametrize("name", ["redis", "rediss"])
@pytest.mark.parametrize("rest", ["://u:p@a:1,b/2", "+sentinel://s,t/m?db=3", "+cluster://n1,n2"])
def test_parse_url_of_valkey_is_one_of_redis(name: str, rest: str) -> None:
    """Under the names that its own tools give; everything behind them means the same."""
    assert parse(name.replace("redis", "valkey") + rest) == parse(name + rest)


@pytest.mark.parametrize("url", ["valkey+tls://a", "valkeyss://a", "valkey:a", "valkey"])
def test_parse_url_of_valkey_in_another_spelling_is_refused(url: str) -> None:
    """As of Redis."""
    assert "redis, rediss, unix" in message_of(url).replace("://", "")


def test_redact_knows_the_schemes_of_valkey() -> None:
    """What is no secret stays legible."""
    assert redact("valkeys://user:secret@a:1,b/2") == redact("rediss://user:secret@a:1,b/2").replace("redis", "valkey")


def test_parse_embedded_name_and_options_are_kept() -> None:
    """The name of an embedded set stands where a host would stand."""
    settings = parse("embedded://build-7?shards=2", maxmemory_mb=64)
    assert (settings.embedded_name, settings.shards, settings.maxmemory_mb) == ("build-7", 2, 64)
    assert parse("embedded://").embedded_name == "default"


def test_parse_options_in_url_and_as_keywords_mean_the_same() -> None:
    """Every option that a text can say may stand in the URL."""
    in_url = parse("redis://a?maxsize=10&ttl=1.5&namespace=shop&max_staleness=1&maxbytes=none&pool_size=3&db=2")
    assert in_url == parse(
        "redis://a", maxsize=10, ttl=1.5, namespace="shop", max_staleness=1, maxbytes=None, pool_size=3, db=2
    )


def test_parse_same_option_twice_with_one_value_is_accepted() -> None:
    """Repeating in a keyword what the URL says is no contradiction."""
    assert parse("redis://a/2?ttl=5", ttl=5, db=2).endpoints[0].db == 2


@pytest.mark.parametrize("option", ["maxsize", "maxbytes", "ttl", "l1_ttl"])
def test_parse_none_means_no_bound(option: str) -> None:
    """``None``, and ``none`` in a URL, take a bound away."""
    assert getattr(parse(REDIS, **{option: None}), option) is None
    assert getattr(parse(f"{REDIS}?{option}=None"), option) is None


def test_parse_memory_without_ttl_never_expires() -> None:
    """A plain ``memory://`` cache expires nothing; with L2 an entry lives an hour."""
    assert parse("memory://").ttl is None
    assert parse(REDIS).ttl == 3600.0


@pytest.mark.parametrize(("value", "seconds"), [(1, 1.0), (0.001, 0.001), (4_294_967, 4_294_967.0), (None, None)])
def test_ttl_seconds_good_value_is_seconds(value: Any, seconds: float | None) -> None:
    """A lifetime given with one call is checked as the option is."""
    assert choices.ttl_seconds("ttl", value) == seconds


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 0, True, "x", 4_294_968])
def test_ttl_seconds_bad_value_is_refused(value: Any) -> None:
    """A lifetime given with one call cannot be what the option cannot be."""
    with pytest.raises(ConfigError):
        choices.ttl_seconds("ttl", value)


def test_settings_assignment_is_refused() -> None:
    """Settings cannot change under a running cache."""
    settings = parse("memory://")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.maxsize = 5  # type: ignore[misc]  # that is what is tested


@pytest.mark.parametrize("url", ["memory://", "embedded://", REDIS, "rediss://a", "unix:///a"])
def test_parse_policy_and_on_removal_go_with_every_scheme(url: str) -> None:
    """They concern L1, which all have."""
    settings = parse(f"{url}?policy=adaptive", on_removal=print)
    assert (settings.policy, settings.on_removal) == ("adaptive", print)
    assert (parse(url).policy, parse(url).on_removal) == (options.DEFAULT_POLICY, None)


def test_memory_options_give_the_same_settings_again() -> None:
    """What concerns L1 of any cache, as options of a ``memory://`` one."""
    chosen = {"maxsize": 7, "maxbytes": 9, "policy": "lru", "ttl": 3.0, "key": str, "getsizeof": len, "loader": str}
    settings = parse("memory://", **chosen, on_removal=print)
    assert parse("memory://", **options.memory_options(settings)) == settings
    assert parse("memory://", **options.memory_options(parse(REDIS, maxsize=7))).maxsize == 7


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("url", "option", "value"), BAD_VALUES, ids=lambda part: f"{part!r:.30}")
def test_parse_bad_value_names_option_value_and_remedy(url: str, option: str, value: Any) -> None:
    """A value that no cache can have is refused with the option, the value, and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        parse(url, **{option: value})
    error = caught.value
    head, _, remedy = str(error).partition(": ")
    assert error.option == option
    assert head.startswith(f"option {option}=")
    assert remedy.startswith("give ")
    assert len(str(error)) < 400


def test_parse_value_that_cannot_be_shown_is_refused_all_the_same() -> None:
    """Python refuses to print whole numbers of over 4,300 digits; the error about one must still be made."""
    assert message_of("memory://", maxsize=10**5000).startswith("option maxsize=<int ")
    assert message_of("memory://?ttl=5", ttl=10**5000).startswith("option ttl=<int ")


@pytest.mark.parametrize("url", BAD_URLS)
def test_parse_bad_url_is_refused_with_the_remedy(url: str) -> None:
    """A URL that cannot be understood in full is refused, never half understood."""
    assert message_of(url).startswith("option ")


@pytest.mark.parametrize("url", [3, b"redis://a", ["redis://a"], object()])
def test_parse_url_of_another_type_is_refused(url: Any) -> None:
    """A URL is a text."""
    assert "redis, rediss, unix" in message_of(url)


def test_parse_unknown_option_lists_those_there_are() -> None:
    """A misspelt option is refused, and before the list of all stands the one that was meant, if any is near."""
    message = message_of("memory://", max_size=10)
    assert message.startswith(
        "option max_size='***': there is no such option, did you mean maxsize=?; memory:// takes ack, "
    )
    assert "there is no such option; memory:// takes ack, " in message_of("memory://", xyzzy=10)


@pytest.mark.parametrize("url", ["rediss://a?ssl_cert_reqs=none", "rediss://a?ssl_cert_reqs=CERT_NONE"])
def test_parse_switching_off_the_check_of_certificates_names_what_there_is_instead(url: str) -> None:
    """Not another option that happens to have a name like it."""
    message = message_of(url)
    assert "always checked" in message
    assert "ssl_ca_certs=" in message
    assert "did you mean" not in message


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("redis://a", "shards"),
        ("redis://a", "getsizeof"),
        ("redis://a", "ssl_ca_certs"),
        ("embedded://", "db"),
        ("unix:///a", "ssl_certfile"),
    ],
)
def test_parse_option_of_another_scheme_is_refused(url: str, option: str) -> None:
    """An option that would do nothing with this scheme is not swallowed."""
    assert f"{url.partition(':')[0]}:// has no such option" in message_of(url, **{option: "x"})


@pytest.mark.parametrize("option", ["loader", "key", "getsizeof", "on_removal", "classes"])
def test_parse_python_object_in_url_is_refused(option: str) -> None:
    """Functions and classes can only be keywords."""
    assert "give it as a keyword" in message_of(f"memory://?{option}=os.system")


@pytest.mark.parametrize(
    ("url", "keywords"),
    [
        ("redis://a?ttl=5", {"ttl": 6}),
        ("redis://a?ttl=5", {"ttl": None}),
        ("redis://a/1", {"db": 2}),
        ("redis://a/1?db=2", {}),
        ("redis://u:p@a", {"username": "v"}),
        ("redis://u:p@a", {"password": "q"}),
        ("redis://u:p@a?password=q", {}),
    ],
)
def test_parse_contradiction_is_refused(url: str, keywords: dict[str, Any]) -> None:
    """Two values for one option are an error: nobody can know which one was meant."""
    assert any(part in message_of(url, **keywords) for part in ("give it once", "given twice"))


def test_parse_getsizeof_without_maxbytes_is_refused() -> None:
    """A size function without a bound on the size would never be called."""
    assert "maxbytes" in message_of("memory://", getsizeof=len)
    assert parse("memory://", getsizeof=len, maxbytes=10).getsizeof is len


def test_parse_maxbytes_of_memory_without_getsizeof_is_refused() -> None:
    """Nobody would count; on Redis the encoded size is known."""
    assert "getsizeof" in message_of("memory://", maxbytes=10)
    assert parse("redis://a", maxbytes=10).maxbytes == 10


# -- no other exception ------------------------------------------------------------------------------------------

_PIECES = (
    st.sampled_from(options.SCHEMES)
    | st.sampled_from(["://", ":", "/", "//", ",", "@", "?", "&", "=", "%", "%00", "%ff", "[", "]", "[::1]", "#", " "])
    | st.sampled_from(["a", "b.example", "127.0.0.1", "6379", "host:6379", "user:pw@", "[v1.a]", "[fe80::1%eth0]"])
    | st.sampled_from(["ttl", "maxsize", "db", "password", "shard_names", "none", "nan", "1e999", "0", "-1", "x,y"])
    | st.sampled_from(["\0", "\n", "é", "９", "²", "\udcff"])
)


def parses_or_refuses(url: str, **keywords: Any) -> None:
    """Parse; the only exception that may come out is ConfigError."""
    try:
        settings = parse(url, **keywords)
    except ConfigError:
        return
    assert settings.scheme in options.SCHEMES
    assert (settings.endpoints == ()) == (settings.scheme in ("memory", "embedded"))


@given(st.lists(_PIECES, max_size=12).map("".join))
@example("redis://[::1]a:1")
@example("redis://a:²")
@example("redis://a:９")
@example("redis://[v1.a]")
@example("redis://\u2100")
def test_parse_url_of_any_pieces_raises_only_config_error(url: str) -> None:
    """Pieces of URLs in any order are understood or refused, never anything else."""
    parses_or_refuses(url)


@given(st.sampled_from(options.SCHEMES), st.text())
def test_parse_any_text_after_a_scheme_raises_only_config_error(scheme: str, rest: str) -> None:
    """Any text at all behind a good scheme is understood or refused."""
    parses_or_refuses(f"{scheme}://{rest}")


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text(max_size=8)
_VALUES = _SCALARS | st.lists(_SCALARS, max_size=3) | st.sampled_from([len, [int, str], b"x", 10**5000, ConfigError])
_OPTIONS = sorted(
    {"shard_names", "nonsense", *(f.name for cls in (Settings, Endpoint) for f in dataclasses.fields(cls))}
)


@given(
    st.sampled_from(["redis://a:1,b:2", "rediss://a", "unix:///a", "memory://", "embedded://x", "redis://a?ttl=5"]),
    st.dictionaries(st.sampled_from(_OPTIONS), _VALUES, max_size=3),
)
def test_parse_any_keywords_raise_only_config_error(url: str, keywords: dict[str, Any]) -> None:
    """Values of any type for any option are accepted or refused with ConfigError."""
    parses_or_refuses(url, **keywords)
