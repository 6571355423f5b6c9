"""The caches as asyncio sees them. Imported when ``cache.aio`` is first asked for, and not before."""

from .base import AsyncCache, AsyncHold, Loader
from .views import AsyncView

__all__ = ["AsyncCache", "AsyncHold", "AsyncView", "Loader"]
