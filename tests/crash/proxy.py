"""Support: a TCP proxy between the runner and its receiver that delays, cuts and refuses."""

import asyncio
from contextlib import suppress

__all__ = ["Proxy"]

_CHUNK_SIZE_BYTES = 65_536


class Proxy:
    """Passes connections on to a port of this machine; faults apply to connections there are and those to come."""

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        """How long every chunk of bytes is held, either way."""
        self.refusing = False
        """Whether connections are closed as soon as they are made."""
        self.port = 0
        self.target_port = target_port
        """Where connections to come lead."""
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def start(self) -> None:
        """Listens on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Resets every connection there is, whatever is under way on it."""
        for writers in self._open.values():
            for writer in writers:
                writer.transport.abort()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = [writer]
        try:
            if not self.refusing:
                await self._pass_on(reader, writer, self._open[task])
        except OSError:
            pass
        finally:
            for each in self._open.pop(task):
                each.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, writers: list[asyncio.StreamWriter]
    ) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        writers.append(back)
        ways = [asyncio.create_task(self._copy(reader, back)), asyncio.create_task(self._copy(there, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK_SIZE_BYTES):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(chunk)
                await writer.drain()
