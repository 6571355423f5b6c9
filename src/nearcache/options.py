"""Options and URLs, checked at the door.

``parse(url, **keywords)`` is the only way in. It returns a :class:`Settings`, frozen, in which every value has been
validated; whatever is unknown, contradictory or out of range is a :class:`~nearcache.errors.ConfigError` that names
the option, the value and what is allowed. An option may stand in the URL's query or be given as a keyword; given in
both places with different values, it is an error, because nobody can know which one was meant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qsl

from . import choices
from .choices import MAX_TTL_S, Compression, Consistency, Idle, Isolation, Secrets, Strategy, one_of
from .choices import integer as _integer
from .choices import number as _number
from .choices import seconds as _seconds
from .coroutines import carried
from .endpoints import MOST_SHARDS, NAME, SCHEMES, Endpoint, read_endpoints, redact, redact_value, scheme_of
from .errors import ConfigError
from .writers import Writer, writer_of

__all__ = [
    "DEFAULT_POLICY",
    "DEFAULT_URL",
    "ENVIRONMENT",
    "MOST_TAGS",
    "SCHEMES",
    "Ack",
    "Endpoint",
    "OnError",
    "Policy",
    "RemovalCause",
    "Settings",
    "check_tags",
    "chosen_url",
    "memory_options",
    "parse",
]

#: Where to look when no URL is given.
ENVIRONMENT: Final = "NEARCACHE_URL"
DEFAULT_URL: Final = "embedded://default"

#: What decides which L1 entry makes room: ``lru`` (the one used least recently), or ``adaptive`` (of a few, the one
#: that will hardly be used again, by what has become of others that were used as often and as long ago).
Policy = Literal["lru", "adaptive"]
DEFAULT_POLICY: Final[Policy] = "adaptive"
#: What a change does when its shard does not answer.
OnError = Literal["raise", "queue"]
#: When a change has been made: when the primary has it, or when a replica has it too.
Ack = Literal["primary", "replica"]
#: Why an entry went from L1, as ``on_removal`` is told: see :class:`Settings`.
RemovalCause = Literal["evicted", "expired", "replaced", "invalidated", "dropped"]

#: Most tags of one value.
MOST_TAGS: Final = 16

_Class = type  # Settings has an attribute of that name


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be chosen about one cache. Sizes in entries or bytes, times in seconds; a
    ``timedelta`` is taken for one too.

    Attributes:
        scheme: One of :data:`SCHEMES`.
        endpoints: The shards; empty for ``memory`` and ``embedded`` (whose servers are not running yet).
        namespace: Name of the logical cache. Caches of one namespace on the same shards are one cache.
        maxsize: Most entries L1 holds; ``None``: no bound; 0: it keeps none, so that all there is is L2, if any.
        maxbytes: Most bytes (encoded sizes of values, not of keys, nor the up to 80 that an entry takes beside them) L1
            holds; ``None``: no bound. Old values of a ``memory://`` cache have as much beside it.
        policy: Which L1 entry makes room for a new one: ``lru`` or ``adaptive``.
        ttl: Lifetime of an entry; ``None``: as long as the tier allows (L2: 49 days); :class:`nearcache.Idle`: so long
            after it was last read; or a function that returns one of these for key and value.
        jitter: Lifetimes are shortened at random, so that what was stored together does not end together: by at most
            this fraction of them, if below 1, or so many seconds, though not by more than half.
        soft_ttl: From then on a value is old: it is still served, while it is loaded anew in the background. A fraction
            of the lifetime, if below 1, else seconds; ``None``: values do not grow old.
        beta: How eagerly values are loaded anew before their (soft) end, by chance, the dearer ones the earlier; 0: not
            at all, 1: as XFetch has it.
        negative_ttl: How long it is kept that a loader raised KeyError or returned :data:`nearcache.ABSENT`; ``None``:
            not at all.
        error_ttl: How long it is kept that a loader raised an exception, by its class: ``{NotFound: 5.0}``. Classes
            below those that are given count too, the nearest first.
        loader_timeout: Longest that anybody waits for a load. It goes on all the same, and fills the cache. ``None``:
            as long as it takes.
        l1_ttl: Longest an L1 copy may live; ``None``: as long as its L2 entry.
        max_staleness: The bound B: an L1 hit is never older than this.
        consistency: What a hit is never older than: ``key``: what this process has read or written of the same key;
            ``lane``: of any key on the same shard (in Redis Cluster: in the same of 64 parts). Docs: docs/coherence.md.
        max_value: Largest encoded value accepted, written or read.
        timeout: One deadline for all network steps of one call.
        connect_timeout: Longest that making one connection may take.
        pool_size: Most connections to one shard; further callers wait, up to ``timeout``.
        loader: Called with the key on a miss of ``cache[key]``.
        load_many: Called with a list of keys for all misses of one ``get_many``; returns a mapping of those that have a
            value. Without ``loader`` it is called with single keys too.
        ages: Whether a ``memory://`` cache keeps how old values are, for ``max_age``.
        key: Function from the user's key to an encodable one.
        getsizeof: Size of a value, for ``maxbytes`` of a ``memory://`` cache.
        on_removal: Called with key, value and cause (:data:`RemovalCause`) of each entry that has gone from L1. The key
            is the one held, after ``key=``. It runs after the change, in the thread that caused it (for a message from
            another process: the listener's), never during a hit, and must not block. An Exception that it raises
            goes to ``sys.unraisablehook``. Causes: docs/tiers.md.
        tags: Names that ``invalidate_tag`` invalidates loaded values by, or a function that returns them for a key and
            a loaded value.
        lease: How long a loader's claim on a key outlives its process. Claims of running loaders are renewed.
        on_error: What a write or an invalidation does when its shard does not answer: ``raise``, or ``queue`` the
            invalidation and return. Either way the invalidation is made up for when the shard is back.
        ack: When a write or an invalidation returns: when the ``primary`` has it, or when a ``replica`` has confirmed
            it too, for which it waits up to a quarter of ``timeout``.
        require_coherence: Refuse to open where invalidations do not arrive on every shard, instead of serving what can
            be vouched for.
        sample_rate: How many keys a second to compare with L2, as a check in production; 0: none.
        stale_if_error: While a shard is out, its L1 copies may be served for so long after they were last vouched for,
            though no longer than their own lifetime; ``None``: never.
        classes: Classes that the ``safe`` codec may write and read.
        codec: How values become bytes: ``safe``, ``json``, ``raw`` (bytes), ``msgspec``, ``pickle`` (with keys only),
            or an object with ``codec_id`` (128 to 255), ``encode(value)`` and ``decode(payload, schema)``.
        type: What values are, for ``codec="msgspec"``; ``None``: plain data.
        compress: ``zlib``, ``lz4`` or ``zstd``; ``None``: not at all.
        compress_above: Longer values are compressed, in bytes; ``None``: 1024.
        signing_keys: Values are signed with the first of these keys, and only signed ones are read. Bytes, text in
            hex or base64, a sequence of them, or a function that returns them: docs/security.md.
        encryption_keys: The same; values are encrypted, and only encrypted ones are read.
        isolation: ``shared``: all readers of an L1 entry get the same object; ``copy``: each gets its own.
        placement: How keys are given to shards: ``rendezvous``, ``ring``, ``modulo`` or ``round_robin``.
        shards: Number of servers of the embedded default.
        maxmemory_mb: Memory limit of each embedded server, in MiB.
        embedded_name: Which set of embedded servers; processes that say the same name share them.
        writer: What writes the data behind the cache: a function of key and value, or a :class:`nearcache.Writer`. It
            is called before a change is made in the cache.
        write_delay: Have it called in the background instead, for all changes of a key within so many seconds once:
            docs/writing.md. ``None``: before each change.
        write_batch: Most keys of one call of ``write_many``.
        write_attempts: How often a change is tried before it becomes a dead letter; ``None``: without an end.
        max_backlog: How many changes may wait on one shard; who makes another one waits, up to ``timeout``.
    """

    scheme: str
    endpoints: tuple[Endpoint, ...]
    namespace: str = "default"
    maxsize: int | None = 100_000
    maxbytes: int | None = None
    policy: Policy = DEFAULT_POLICY
    ttl: float | Idle | Callable[[Any, Any], float | Idle | None] | None = 3600.0
    jitter: float = 0.0
    soft_ttl: float | None = None
    beta: float = 0.0
    negative_ttl: float | None = None
    error_ttl: Mapping[Any, float] | None = None
    loader_timeout: float | None = None
    l1_ttl: float | None = None
    max_staleness: float = 2.0
    consistency: Consistency = "key"
    max_value: int = 8 * 1024 * 1024
    timeout: float = 1.0
    connect_timeout: float = 1.0
    pool_size: int = 16
    loader: Callable[[Any], Any] | None = None
    load_many: Callable[[list[Any]], Any] | None = None
    ages: bool = False
    key: Callable[[Any], Any] | None = None
    getsizeof: Callable[[Any], int] | None = None
    on_removal: Callable[[Any, Any, RemovalCause], object] | None = None
    tags: tuple[str, ...] | Callable[[Any, Any], Any] = ()
    lease: float = 2.0
    on_error: OnError = "raise"
    ack: Ack = "primary"
    require_coherence: bool = False
    sample_rate: float = 0.0
    stale_if_error: float | None = None
    classes: tuple[_Class, ...] = ()
    codec: Any = "safe"
    type: Any = None
    compress: Compression | None = None
    compress_above: int | None = None
    signing_keys: Secrets | None = field(default=None, repr=False)
    encryption_keys: Secrets | None = field(default=None, repr=False)
    isolation: Isolation = "shared"
    placement: Strategy = "rendezvous"
    shards: int = 1
    maxmemory_mb: int = 256
    embedded_name: str = "default"
    writer: Writer | None = None
    write_delay: float | None = None
    write_batch: int = 100
    write_attempts: int | None = 10
    max_backlog: int = 10_000


# -- checks of single values -------------------------------------------------------------------------------------


def _callable(option: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ConfigError(option, value, "give a function, or None")
    return value


def _name(option: str, value: Any) -> Any:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ConfigError(option, value, "give 1 to 64 characters out of A-Z a-z 0-9 _ . -")
    return value


def _classes(option: str, value: Any) -> Any:
    if isinstance(value, type) or not hasattr(value, "__iter__") or not all(isinstance(c, type) for c in value):
        raise ConfigError(option, value, "give a sequence of classes")
    return tuple(value)


def check_tags(value: Any) -> tuple[str, ...]:
    """Return tags as a tuple.

    Raises:
        ConfigError: They are not texts, or more than an envelope takes.
    """
    if type(value) is tuple and not value:  # as nearly always, and asked of each load
        return ()
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        tags = tuple(value)
        if len(tags) <= MOST_TAGS and all(isinstance(tag, str) for tag in tags):
            return tags
    raise ConfigError("tags", value, f"give at most {MOST_TAGS} texts, as in tags=('catalogue',)")


def tags_told(tags: Any, key: Any, value: Any) -> tuple[str, ...]:
    """Return what a function given as ``tags`` says of a value; nothing if it is none. Raises as :func:`check_tags`."""
    return check_tags(carried(tags, key, value)) if callable(tags) else ()


def _tags(_option: str, value: Any) -> Any:
    return value if callable(value) else check_tags(value)


def _names(option: str, value: Any) -> Any:
    names = value.split(",") if isinstance(value, str) else value
    if names is None:
        return None
    if not hasattr(names, "__iter__"):
        raise ConfigError(option, value, "give one name per shard")
    names = tuple(_name(option, name) for name in names)
    if len(set(names)) != len(names):
        raise ConfigError(option, value, "give every shard a name of its own")
    return names


def _text(option: str, value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise ConfigError(option, redact_value(option, value), "give a text, or None")
    return value


_SETTINGS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "namespace": _name,
    "maxsize": _integer(0, 2_000_000_000, none=True),
    "maxbytes": _integer(1, 2**50, none=True),
    "policy": one_of(get_args(Policy)),
    "l1_ttl": _seconds(0.001, MAX_TTL_S, none="the lifetime in L2"),
    "max_staleness": _seconds(0.1, 60.0),
    "max_value": _integer(1, 512 * 1024 * 1024),
    "timeout": _seconds(0.001, 600.0),
    "connect_timeout": _seconds(0.001, 600.0),
    "pool_size": _integer(1, 10_000),
    "loader": _callable,
    "load_many": _callable,
    "ages": choices.boolean,
    "key": _callable,
    "getsizeof": _callable,
    "on_removal": _callable,
    "tags": _tags,
    "lease": _seconds(0.1, 60.0),
    "on_error": one_of(get_args(OnError)),
    "ack": one_of(get_args(Ack)),
    "require_coherence": choices.boolean,
    "sample_rate": _number(0.0, 1000.0),
    "stale_if_error": _seconds(0.001, MAX_TTL_S, none="never"),
    "classes": _classes,
    "compress_above": _integer(0, 512 * 1024 * 1024),
    "writer": writer_of,
    "write_delay": _seconds(0.0, 86_400.0, none="writing at once"),
    "write_batch": _integer(1, 10_000),
    "write_attempts": _integer(1, 1_000_000, none=True),
    "max_backlog": _integer(1, 1_000_000_000),
    **choices.CHECKS,
}
_EMBEDDED: Final[dict[str, Callable[[str, Any], Any]]] = {
    "shards": _integer(1, MOST_SHARDS),
    "maxmemory_mb": _integer(8, 1_048_576),
}
_ENDPOINT: Final[dict[str, Callable[[str, Any], Any]]] = {
    "db": _integer(0, 1_000_000),
    "username": _text,
    "password": choices.password,
    "shard_names": _names,
    "shard_weights": choices.weights,
    "ssl_ca_certs": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "ssl_check_hostname": choices.boolean,
    "sentinel_username": _text,
    "sentinel_password": choices.password,
}
#: Options that concern L2. ``memory://`` takes them, so that tests of a program need another URL and nothing else,
#: and they have no effect there: without L2 what they promise is so anyway.
_L2_ONLY: Final = frozenset({
    "l1_ttl", "max_staleness", "max_value", "timeout", "connect_timeout", "pool_size", "classes", "on_error", "ack",
    "require_coherence", "sample_rate", "stale_if_error", "codec", "type", "compress", "compress_above",
    "signing_keys", "encryption_keys", "isolation", "placement", "writer", "write_delay", "write_batch",
    "write_attempts", "max_backlog",
})  # fmt: skip
#: But for these promises, which ``memory://`` does not keep: it takes no other value.
_UNKEPT: Final = {"ack": "primary", "isolation": "shared", "writer": None}
#: Options of writing behind the cache, which need ``write_delay``.
_BEHIND: Final = ("write_batch", "write_attempts", "max_backlog")
#: Options that are Python objects, which no URL can hold.
_OBJECTS: Final = frozenset({
    "loader", "load_many", "key", "getsizeof", "on_removal", "classes", "tags", "type", "error_ttl", "writer",
})  # fmt: skip
#: Options that a URL should not hold, because URLs end in logs.
_SECRETS: Final = frozenset({"signing_keys", "encryption_keys"})


# -- URLs --------------------------------------------------------------------------------------------------------


def chosen_url(url: str | None) -> str:
    """Return the URL that ``None`` stands for."""
    return os.environ.get(ENVIRONMENT, DEFAULT_URL) if url is None else url


def parse(url: str | None = None, /, **keywords: Any) -> Settings:
    """Return the settings that a URL and keywords describe.

    Args:
        url: ``embedded://NAME``, ``memory://``, ``redis://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...][/DB]``,
            ``rediss://`` (the same over TLS), ``unix:///PATH[,/PATH...]``, or
            ``redis+sentinel://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]/MASTER[,MASTER...]`` (``rediss+sentinel://``
            over TLS; user and password are the masters'), or
            ``redis+cluster://[USER:PASSWORD@]HOST:PORT[,HOST:PORT...]`` (``rediss+cluster://`` over TLS; some nodes,
            from which the others are found), each with ``?option=value&...``; ``valkey`` and ``valkeys`` mean the same
            as ``redis`` and ``rediss``.
            ``None``: the environment variable ``NEARCACHE_URL``, or else ``embedded://default``.
        keywords: Options, as the attributes of :class:`Settings`, and those of connections:
        db: Number of the database on every server.
        username, password: The servers' own, the same on all. The password may be a function without arguments that
            returns it, or a pair of both, for each connection that is made; it runs in threads.
        shard_names: A name for each shard, in the order of the URL, which keeps its place when its address changes.
        shard_weights: A whole number for each shard, for its part of the keys.
        ssl_ca_certs: File with the authorities that may have signed the servers' certificates; without, the system's.
        ssl_certfile, ssl_keyfile: This client's own certificate and its key.
        ssl_check_hostname: Whether the certificate has to name the host; true unless it is said otherwise.
        sentinel_username, sentinel_password: The sentinels' own, likewise.
    Raises:
        ConfigError: As the module says.
    """
    try:
        return _parse(chosen_url(url), keywords)
    except ConfigError as error:
        if url is None and error.option == "url" and "url" not in keywords:
            raise ConfigError(ENVIRONMENT, error.value, error.remedy) from None
        raise


def _parse(text: str, keywords: Mapping[str, Any]) -> Settings:
    if not isinstance(text, str):
        raise ConfigError(
            "url", redact(repr(text)), f"give a text that begins with one of {', '.join(SCHEMES)}, then ://"
        )
    name, marker, rest = text.partition("://")
    scheme = scheme_of(name)
    if not marker or scheme not in SCHEMES:
        raise ConfigError("url", redact(text), f"begin with one of {', '.join(s + '://' for s in SCHEMES)}")
    location, _, query = rest.partition("?")
    if "#" in rest or "@" in query:
        raise ConfigError(
            "url", redact(text), "write # as %23, and in a user name or password @ as %40, / as %2F, ? as %3F"
        )
    allowed = _allowed(scheme)
    in_url = _check(scheme, allowed, _query(text, query))
    checked = _check(scheme, allowed, keywords)
    for option in in_url.keys() & checked.keys():
        if in_url[option] != checked[option]:
            value = redact_value(option, keywords[option])
            raise ConfigError(option, value, "the URL gives it another value; give it once")
    return _build(scheme, text, location, {**in_url, **checked})


def memory_options(settings: Settings) -> dict[str, Any]:
    """Return the options with which ``parse("memory://", ...)`` gives the same settings, as far as they concern L1."""
    return {option: getattr(settings, option) for option in _SETTINGS if option not in _L2_ONLY}


def _check(scheme: str, allowed: Mapping[str, Callable[[str, Any], Any]], chosen: Mapping[str, Any]) -> dict[str, Any]:
    for option in chosen:
        if option not in allowed:  # and nobody knows whether its value is secret
            raise ConfigError(option, "***", _unknown(option, scheme, allowed))
    return {option: allowed[option](option, value) for option, value in chosen.items()}


def _build(scheme: str, text: str, location: str, checked: dict[str, Any]) -> Settings:
    connection = {option: checked.pop(option) for option in list(checked) if option in _ENDPOINT}
    endpoints: tuple[Endpoint, ...] = ()
    if scheme == "memory":
        if location.strip("/"):
            raise ConfigError("url", redact(text), "memory:// takes no name; write memory://")
        if not checked.get("soft_ttl") and not checked.get("beta"):  # what grows old has an end, as it has on Redis
            checked.setdefault("ttl", None)
    elif scheme == "embedded":
        if location and not NAME.fullmatch(location):
            raise ConfigError(
                "url", redact(text), "name embedded servers with 1 to 64 characters out of A-Z a-z 0-9 _ . -"
            )
        checked["embedded_name"] = location or "default"
    else:
        endpoints = read_endpoints(scheme, text, location, connection, _ENDPOINT["db"])
    settings = Settings(scheme=scheme, endpoints=endpoints, **checked)
    _refuse_contradictions(settings, checked)
    return settings


def _refuse_contradictions(settings: Settings, checked: Mapping[str, Any]) -> None:
    """Check what options say together. ``checked``: those that were given."""
    for option, kept in _UNKEPT.items() if settings.scheme == "memory" else ():
        if getattr(settings, option) != kept:
            remedy = f"memory:// takes {kept!r} alone, for it keeps no such promise; embedded:// and Redis do"
            raise ConfigError(option, checked[option], remedy)
    if settings.getsizeof is not None and settings.maxbytes is None:
        raise ConfigError("getsizeof", settings.getsizeof, "it needs maxbytes= to bound")
    if settings.scheme == "memory" and settings.maxbytes is not None and settings.getsizeof is None:
        raise ConfigError(
            "maxbytes", settings.maxbytes, "memory:// encodes nothing: say by getsizeof= how many bytes a value has"
        )
    weights = tuple(endpoint.weight for endpoint in settings.endpoints)
    if settings.placement == "modulo" and max(weights, default=1) > 1:
        raise ConfigError("shard_weights", weights, 'placement="modulo" has none; "round_robin" has')
    if settings.write_delay is not None and settings.writer is None:
        raise ConfigError("write_delay", settings.write_delay, "it needs writer=, which is to be called then")
    for option in _BEHIND:
        if option in checked and settings.write_delay is None:
            raise ConfigError(option, checked[option], "it concerns writing in the background: give write_delay= too")
    soft, ttl = settings.soft_ttl, settings.ttl
    if soft is not None and isinstance(ttl, (int, float)) and ttl <= soft >= 1:
        raise ConfigError(
            "soft_ttl", soft, f"values grow old before their end: give less than ttl={ttl:g}, or a fraction"
        )


def _allowed(scheme: str) -> Mapping[str, Callable[[str, Any], Any]]:
    if scheme == "memory":
        return _SETTINGS | _EMBEDDED | _ENDPOINT
    common = {option: check for option, check in _SETTINGS.items() if option != "getsizeof"}  # L2 knows sizes
    if scheme == "embedded":
        return common | _EMBEDDED
    return common | {option: check for option, check in _ENDPOINT.items() if _concerns(option, scheme)}


def _concerns(option: str, scheme: str) -> bool:
    """Return whether an option of connections makes sense for a scheme that has some."""
    if option.startswith("ssl_"):
        return scheme.startswith("rediss")
    if option.startswith("sentinel_"):
        return scheme.endswith("+sentinel")
    return option != "shard_names" or "+" not in scheme  # sentinels have named the shards, a cluster has none


def _unknown(option: str, scheme: str, allowed: Mapping[str, Any]) -> str:
    if option == "url":
        return "the URL is the first argument, without a name"
    if option == "ssl_cert_reqs":  # redis-py's: hosting services that sign certificates themselves advise `none`
        return "certificates are always checked: leave it out, and give by ssl_ca_certs= who has signed the server's"
    if option in _SETTINGS or option in _EMBEDDED or option in _ENDPOINT:
        return f"{scheme}:// has no such option; it takes {', '.join(sorted(allowed))}"
    meant = "".join(f", did you mean {name}=?" for name in get_close_matches(option, allowed, 1))
    return f"there is no such option{meant}; {scheme}:// takes {', '.join(sorted(allowed))}"


def _query(text: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ConfigError("url", redact(text), "write options as ?name=value&name=value") from None
    found: dict[str, str] = {}
    for option, value in pairs:
        if option in found:
            raise ConfigError(option, "***", "it stands twice in the URL")
        if option in _OBJECTS:
            raise ConfigError(option, value, "give it as a keyword: a URL can hold no Python object")
        if option in _SECRETS:
            raise ConfigError(option, "***", "give it as a keyword: URLs end in logs, and keys must not")
        found[option] = value
    return found
