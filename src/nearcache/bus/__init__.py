"""The bus: receives invalidations and proves, by heartbeats, that none was missed."""

from .follower import Followed, Follower
from .listener import Listener, suspended_ns

__all__ = ["Followed", "Follower", "Listener", "suspended_ns"]
