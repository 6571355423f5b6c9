"""The server's scripts with a rule taken out. See ``mutants``."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha1

import pytest

from nearcache.l2 import Script, load_script


def edited(script: Script, part: bytes, other: bytes) -> Script:
    """Return a script that has something else in the place of a part of it."""
    assert part in script.source
    source = script.source.replace(part, other)
    return replace(script, source=source, sha=sha1(source).hexdigest().encode())


def edit(patch: pytest.MonkeyPatch, name: str, part: bytes, other: bytes) -> None:
    """Let caches use one of their scripts edited."""

    def load(wanted: str) -> Script:
        script = load_script(wanted)
        return edited(script, part, other) if wanted == name else script

    patch.setattr("nearcache.loading.tier.load_script", load)
