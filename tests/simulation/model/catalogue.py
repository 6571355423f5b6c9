"""The models by name."""

from __future__ import annotations

from .clear import Clear
from .engine import Model
from .fork import Fork
from .hold import Hold
from .horizon import Horizon
from .lane import Lane
from .lease import Lease
from .ring import Ring
from .tags import Tags

MODELS: dict[str, type[Model]] = {
    "lane": Lane,
    "horizon": Horizon,
    "clear": Clear,
    "lease": Lease,
    "hold": Hold,
    "fork": Fork,
    "ring": Ring,
    "tags": Tags,
}
