"""The files of a TLS connection, looked at when a cache is opened.

Later a file that cannot be used is an outage like any other: it may be about to be replaced.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from ..errors import ConfigError
from ..options import Endpoint


def check_certificates(endpoint: Endpoint) -> None:
    """Raise ConfigError if a file that is named for TLS cannot be used, with the option that names it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _check(endpoint, "ssl_ca_certs", lambda path: context.load_verify_locations(cafile=path))
    # The two belong together. A key that stands in the file of its certificate is checked with that.
    certificate, key = endpoint.ssl_certfile, endpoint.ssl_keyfile
    if key and not certificate:
        raise ConfigError("ssl_keyfile", key, "give ssl_certfile as well, whose key it is")
    _check(endpoint, "ssl_keyfile", _read)
    _check(endpoint, "ssl_certfile", _read)
    _check(endpoint, "ssl_certfile", lambda path: context.load_cert_chain(path, key or None, _no_password))


def _check(endpoint: Endpoint, option: str, use: Callable[[str], Any]) -> None:
    path = getattr(endpoint, option)
    try:
        if path:
            use(path)
    except OSError as error:  # ssl.SSLError is one
        why = error.strerror or str(error)
        raise ConfigError(option, path, f"give a PEM file that holds what is needed and can be read: {why}") from error


def _read(path: str) -> None:
    with open(path, "rb"):
        pass


def _no_password() -> str:
    return ""  # else OpenSSL asks for one on the terminal
