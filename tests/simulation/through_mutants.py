"""Rules about writing through to the source, switched off one at a time. See ``mutants``."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.loading import deciding, through
from nearcache.loading.reading import current_generation
from nearcache.loading.tier import Tier
from nearcache.loading.ways import Way
from simulation.edited_scripts import edit


def changes_under_holds_unmarked(patch: pytest.MonkeyPatch) -> None:
    """What somebody else announces under a hold does not keep its holder from storing."""
    edit(patch, "invalidate", b"mark .. '!'", b"mark")


def shared_holds_stored_under(patch: pytest.MonkeyPatch) -> None:
    """A hold of several is as good as one's own."""
    edit(patch, "set", b"own and (mark ~= own or", b"own and (mark == false or")


def clears_under_holds_ignored(patch: pytest.MonkeyPatch) -> None:
    """The generation that an envelope states is that after the writer's call."""
    real = through.write

    def write(tier: Tier, store: Any, name: Any, *arguments: Any, way: Way, **options: Any) -> Any:
        lane = tier.place(name)[0]
        assert way.known is not None
        now = {lane: (yield from current_generation(tier, lane)) or 0}
        way = way._replace(known=way.known._replace(generations=now))
        return (yield from real(tier, store, name, *arguments, way=way, **options))

    patch.setattr(through, "write", write)


def tags_after_the_writer(patch: pytest.MonkeyPatch) -> None:
    """The generations that an envelope states are those after the writer's call."""

    def held(token: bytes, known: object) -> Way:
        return Way(b"HELD" + token)

    patch.setattr(through, "held", held)


def locks_given_away(patch: pytest.MonkeyPatch) -> None:
    """The server gives a lock to whoever asks."""
    edit(patch, "lock", b"if mark and sub(mark, 2) ~= ARGV[3] then", b"if false then")


def locks_not_asked_for(patch: pytest.MonkeyPatch) -> None:
    """A verb does not wait until it is alone."""
    patch.setattr(deciding, "_alone", lambda tier, name, work: work())
