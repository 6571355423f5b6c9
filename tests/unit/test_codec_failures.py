"""Remembered errors that another process has written, or damaged: each is a miss, none runs code of a class."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.codecs.failures import FailureCodec
from nearcache.codecs.safe import SafeCodec
from nearcache.errors import DecodeError


class GoneError(Exception):
    """What is listed."""


NAME = f"{__name__}.GoneError"


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([NAME, (), {}], "not class, arguments and attributes"),
        ((NAME, ()), "not class, arguments and attributes"),
        ((NAME, [], {}), "not class, arguments and attributes"),
        ((b"name", (), {}), "not class, arguments and attributes"),
        ((NAME, (), None), "not class, arguments and attributes"),
        (("builtins.OSError", (), {}), "not in error_ttl= here"),
        (("builtins.SystemExit", (), {}), "not in error_ttl= here"),
        (("builtins.UnicodeDecodeError", (), {}), "cannot be made again"),
    ],
)
def test_error_that_is_not_as_it_was_written_is_refused(parts: Any, reason: str) -> None:
    """Whatever stands in its place, in shape, class or attributes."""
    payload, schema = SafeCodec().encode(parts)
    with pytest.raises(DecodeError, match=reason):
        FailureCodec([GoneError, UnicodeError]).decode(payload, schema)
