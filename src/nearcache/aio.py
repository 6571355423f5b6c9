"""asyncio: the types of ``cache.aio`` and its views, for annotations. Who does not ask for it does not import asyncio.

>>> import asyncio, nearcache
>>> cache = nearcache.open("memory://")
>>> async def main() -> int | None:
...     await cache.aio.set("answer", 42)
...     return await cache.aio.get("answer")
>>> asyncio.run(main())
42
"""

from .cache.aio import AsyncCache, AsyncView

__all__ = ["AsyncCache", "AsyncView"]
