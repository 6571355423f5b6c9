"""TLS in front of a server that was built without it, as many managed services have it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from types import TracebackType

from support.redis import SERVER_TLS


class Terminator:
    """Speaks TLS on a port of 127.0.0.1 and passes on what is said to a unix socket. Use it as a context manager.

    It has the certificate of ``tests/data/tls`` and wants one from its clients, as servers with TLS of their own do.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=SERVER_TLS["tls-ca-cert-file"])
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(SERVER_TLS["tls-cert-file"], SERVER_TLS["tls-key-file"])
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="terminator")
        self._ready, self._end = threading.Event(), asyncio.Event()
        self.port = 0

    def __enter__(self) -> Terminator:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            back, forth = await asyncio.open_unix_connection(self._path)
            try:
                ways = [asyncio.create_task(_copy(reader, forth)), asyncio.create_task(_copy(back, writer))]
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                forth.close()
                writer.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
