"""Stage 5, tasks: what an MCP server that the runner has started says and is told: a message is a line of JSON.

Rules: it is read as it comes, up to what a process may write. Lines that are no JSON objects are passed over, because
servers print greetings where they should not; their bytes count.
"""

import contextlib
from types import TracebackType
from typing import Self

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from fastrunner.base import limits
from fastrunner.tasks.rpc import RpcProblem
from fastrunner.tasks.run.process import Process

__all__ = ["Heard", "Told"]


class Heard:
    """The messages of a server; see `Listener`."""

    def __init__(self) -> None:
        # A message has a byte at least.
        self._to_session, self.messages = anyio.create_memory_object_stream[SessionMessage | Exception](
            limits.RUN_OUTPUT_SIZE_BYTES_MAX
        )
        """What the session reads."""
        self.problem: RpcProblem | None = None
        """Why nothing more is heard, if that is the server's fault."""
        self._rest = bytearray()

    def heard(self, chunk: bytes) -> None:
        """See `Listener`."""
        if not chunk:
            self._to_session.close()
            return
        first, *others = chunk.split(b"\n")
        self._rest += first
        for line in others:
            self._take(bytes(self._rest))
            self._rest = bytearray(line)

    def _take(self, line: bytes) -> None:
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValidationError:
            if line.lstrip().startswith(b"{"):
                self.problem = RpcProblem("Malformed Response", "the server wrote an object that is no message")
                self._to_session.close()
            return
        # Once the session is over nobody reads.
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._to_session.send_nowait(SessionMessage(message))


class Told:
    """Where the session writes messages for a server."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def send(self, item: SessionMessage, /) -> None:
        """Hands on a message; it is written as the server reads."""
        text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
        self._process.say(f"{text}\n".encode())
        await anyio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Ends what the server is told."""
        self._process.hang_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
