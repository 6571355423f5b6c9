"""The options of a cache as keywords, for type checkers and editors; ``options.Settings`` explains each of them.

What may be given is checked in ``options``, and what comes of it is in ``Settings``. A test holds the three together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypedDict

from .choices import CodecName, Compression, Consistency, Idle, Isolation, Seconds, Strategy
from .endpoints import Password
from .options import Ack, OnError, Policy, RemovalCause
from .writers import Writer

__all__ = ["Options"]


class Options(TypedDict, total=False):
    """What ``nearcache.open()`` takes beside the URL, as in ``def mine(**options: Unpack[nearcache.Options])``."""

    # The cache and its memory.
    namespace: str
    maxsize: int | None
    maxbytes: int | None
    policy: Policy
    getsizeof: Callable[[Any], int] | None
    key: Callable[[Any], Any] | None
    on_removal: Callable[[Any, Any, RemovalCause], object] | None
    ages: bool

    # How long values live.
    ttl: Seconds | Idle | Callable[[Any, Any], Seconds | Idle | None] | None
    jitter: Seconds
    soft_ttl: Seconds | None
    beta: float
    negative_ttl: Seconds | None
    error_ttl: Mapping[Any, Seconds] | None
    l1_ttl: Seconds | None

    # What stands behind it.
    loader: Callable[[Any], Any] | None
    load_many: Callable[[list[Any]], Any] | None
    loader_timeout: Seconds | None
    tags: Sequence[str] | Callable[[Any, Any], Sequence[str]]
    writer: Writer | object | None
    write_delay: Seconds | None
    write_batch: int
    write_attempts: int | None
    max_backlog: int

    # What is promised.
    max_staleness: Seconds
    consistency: Consistency
    stale_if_error: Seconds | None
    lease: Seconds
    on_error: OnError
    ack: Ack
    require_coherence: bool
    sample_rate: float

    # Values as bytes.
    codec: CodecName | object
    classes: Iterable[type]
    type: Any
    max_value: int
    compress: Compression | None
    compress_above: int
    signing_keys: Any
    encryption_keys: Any
    isolation: Isolation

    # Servers.
    timeout: Seconds
    connect_timeout: Seconds
    pool_size: int
    db: int
    username: str | None
    password: Password | None
    ssl_ca_certs: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_check_hostname: bool
    sentinel_username: str | None
    sentinel_password: Password | None
    placement: Strategy
    shard_names: Sequence[str] | str | None
    shard_weights: Sequence[int] | str | None
    shards: int
    maxmemory_mb: int
