"""Real Redis servers on this machine, started on demand and shared by the processes of one user."""

from nearcache.embedded.binary import find_server
from nearcache.embedded.servers import EmbeddedServers

__all__ = ["EmbeddedServers", "find_server"]
