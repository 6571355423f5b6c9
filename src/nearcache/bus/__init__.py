"""The bus: receives invalidations and proves, by heartbeats, that none was missed."""

from .listener import Listener

__all__ = ["Listener"]
