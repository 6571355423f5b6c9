"""The caches as asyncio sees them. Imported when ``cache.aio`` is first asked for, and not before."""

from .base import AsyncCache, AsyncHold
from .readthrough import BulkLoader, Loader

__all__ = ["AsyncCache", "AsyncHold", "BulkLoader", "Loader"]
