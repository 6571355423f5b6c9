"""Rules about ages and the loading of many keys at a time, switched off one at a time. See ``mutants``."""

from __future__ import annotations

from typing import Any, Final

import pytest

from nearcache.loading import ages, filling, gathering, tagging
from nearcache.loading.births import Births
from nearcache.loading.tier import Tier

_AWAIT_OTHERS: Final = gathering._await_others


def ages_kept_asleep(patch: pytest.MonkeyPatch) -> None:
    """An age that is known is good whatever the clock has missed."""
    patch.setattr(Births, "slept", lambda self, now_ns: None)


def young_for_ever(patch: pytest.MonkeyPatch) -> None:
    """What has once been young enough for somebody is young enough for all."""

    def is_young(self: Births, name: Any, wid: int, since_ns: int) -> bool:
        return wid != 0 and wid == self._known.l1_hit(name, (0,))[0]  # type: ignore[arg-type]  # never one of three

    patch.setattr(Births, "is_young", is_young)


def touched_is_younger(patch: pytest.MonkeyPatch) -> None:
    """A longer life is a younger age."""
    patch.setattr(ages, "peek_touched", lambda data: False)


def joined_to_the_end(patch: pytest.MonkeyPatch) -> None:
    """Who asks for a greatest age waits for a load that asks for the same, however far it has got."""
    real = filling._fill

    def fill(*arguments: Any) -> Any:
        return real(*arguments[:-1], arguments[-1]._replace(limit_ns=None))

    patch.setattr(filling, "_fill", fill)


def read_for_the_first(patch: pytest.MonkeyPatch) -> None:
    """What is young enough for who has begun to read is young enough for all who wait for it."""
    patch.setattr(ages, "_suits_all", lambda *_: True)


def others_not_asked_again(patch: pytest.MonkeyPatch) -> None:
    """Who has waited for another process' load takes it that there is no value."""

    def await_others(*arguments: Any) -> Any:
        yield from _AWAIT_OTHERS(*arguments)
        return []

    patch.setattr(gathering, "_await_others", await_others)


def tags_after_loading_many(patch: pytest.MonkeyPatch) -> None:
    """The generations that envelopes state are those after the load."""
    real = gathering.outcome_of

    def outcome_of(tier: Tier, store: Any, *arguments: Any) -> Any:
        found = yield from real(tier, store, *arguments)
        if found.tags:
            tags = [tagging.tag_of(tier, hashed) for hashed, _ in found.tags]
            found = found._replace(tags=(yield from tagging.generations(tier, store, tags)))
        return found

    patch.setattr(gathering, "outcome_of", outcome_of)
