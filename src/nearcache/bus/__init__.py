"""The bus: receives invalidations and proves, by heartbeats, that none was missed."""

from .follower import Followed, Follower
from .listener import Listener
from .roaming import RoamingListener

__all__ = ["Followed", "Follower", "Listener", "RoamingListener"]
