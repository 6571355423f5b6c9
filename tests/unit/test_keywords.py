"""The options that type checkers know are those that there are."""

from __future__ import annotations

import re
from typing import get_type_hints

import pytest

import nearcache
from nearcache.errors import ConfigError
from nearcache.options import SCHEMES, Settings, parse

LOCATIONS = {"memory": "", "redis+sentinel": "a/m", "rediss+sentinel": "a/m", "unix": "/a"}


def allowed(scheme: str) -> set[str]:
    """What a scheme says it takes."""
    with pytest.raises(ConfigError) as caught:
        parse(f"{scheme}://{LOCATIONS.get(scheme, 'a')}", no_option=1)
    return set(re.split(", ", str(caught.value).partition(" takes ")[2]))


def test_keywords_are_the_options_of_all_schemes() -> None:
    """None is missing, and none is left over; the hints can be looked at by programs."""
    assert set(get_type_hints(nearcache.Options)) == set().union(*map(allowed, SCHEMES))


def test_settings_explain_each_option() -> None:
    """By an attribute, or among those of connections in ``parse``."""
    text = (Settings.__doc__ or "") + (parse.__doc__ or "")
    assert [name for name in get_type_hints(nearcache.Options) if not re.search(rf"\b{name}\b", text)] == []
