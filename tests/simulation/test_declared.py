"""Scripts touch the keys that they declare and no others: Redis Cluster needs it, Dragonfly refuses anything else."""

from __future__ import annotations

from typing import Any, Final

import pytest

from nearcache.l2 import load_script
from nearcache.l2.scripts import NAMES
from simulation.runs import Plan, simulate
from simulation.scripting import Engine

#: Commands all of whose arguments are keys; of the others it is the first one.
MANY: Final = {b"UNLINK", b"MGET", b"EXISTS", b"RENAME"}


def test_scripts_touch_declared_keys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a workload that runs nearly all of them, with the channel named after the last key."""
    real, ran = Engine.run, set()

    def run(self: Engine, execute: Any, source: bytes, count: int, words: tuple[bytes, ...]) -> Any:
        declared = words[:count]

        def watched(name: bytes, arguments: list[bytes]) -> Any:
            assert not name.startswith(b"X"), "say here which of the arguments are keys"
            if name in (b"PUBLISH", b"SPUBLISH"):
                assert arguments[0] == declared[-1][:-1] + b"i"
            else:
                touched = arguments if name in MANY else arguments[:1]
                assert set(touched) <= set(declared), (name, touched, declared)
            return execute(name, arguments)

        ran.add(source)
        return real(self, watched, source, count, words)

    monkeypatch.setattr(Engine, "run", run)
    for seed in (3, 9, 18):
        outcome = simulate(Plan.of(seed))
        assert not outcome.failed, outcome.crash or outcome.violation
    unseen = {name for name in NAMES if load_script(name).source not in ran}
    assert not unseen & {"set", "invalidate", "clear", "lease", "fill", "abort", "adopt", "heartbeat"}
