"""Stage 1, router: the asking side of a process that owns no executions: any worker answers it, as it would a client.

Theory of operation: links are opened when something is asked, to all workers, and kept; requests take turns among those
that are there. Which worker owns an execution is not known here: the one that is asked passes on what is another's.

Rules: nothing waits for a certain worker. What one that went away had, and may be repeated, is asked of another, once.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from fastrunner.errors import RunnerError, Unavailable, code_of
from fastrunner.routing.calls import REPEATABLE, Call, StreamCall, UnaryCall
from fastrunner.routing.facts import CallFacts
from fastrunner.routing.peers import Peer, messages_of

__all__ = ["Asking"]


class Asking:
    """The links of one process; made and used on one loop."""

    def __init__(self, workers: int, socket_of: Callable[[int], Path]) -> None:
        """`socket_of`: where the worker of a number listens for the others."""
        self._peers = [Peer(worker, str(socket_of(worker)), _is_nobodys) for worker in range(workers)]
        self._turn = 0

    async def call(self, method: str, payload: bytes, facts: CallFacts) -> bytes:
        """The reply of a unary method by its canonical name. Raises RunnerError."""
        try:
            return await self._call(method, payload, facts)
        except RunnerError as error:
            if method not in REPEATABLE or code_of(error) != Unavailable.grpc_code:
                raise
        return await self._call(method, payload, facts)

    async def _call(self, method: str, payload: bytes, facts: CallFacts) -> bytes:
        call = UnaryCall(method, payload, facts)
        peer = await self._submit(call)
        try:
            return await call.future
        except asyncio.CancelledError:
            peer.tell(call, credit=0)
            raise

    async def stream(self, method: str, payload: bytes, facts: CallFacts) -> AsyncGenerator[bytes, None]:
        """The messages of a streaming method. Raises RunnerError; closing it ends the stream."""
        call = StreamCall(method, payload, facts)
        call.request.is_from_client = True
        async with aclosing(messages_of(await self._linked(), call)) as messages:
            async for message in messages:
                yield message

    async def _submit(self, call: Call) -> Peer:
        call.request.is_from_client = True
        peer = await self._linked()
        peer.submit(call)
        return peer

    async def _linked(self) -> Peer:
        """A worker that is there, in turn. Raises Unavailable if none comes."""
        give_up_s = monotonic_s() + limits.ROUTER_OWNER_WAIT_S_MAX
        while True:
            for peer in self._peers:
                if not peer.is_linked:
                    peer.link()
            for step in range(len(self._peers)):
                peer = self._peers[(self._turn + step) % len(self._peers)]
                if peer.is_linked:
                    self._turn += step + 1
                    return peer
            if monotonic_s() >= give_up_s:
                raise Unavailable("no worker of this runner answers now: try again")
            await asyncio.sleep(limits.ROUTER_RECONNECT_INTERVAL_S / 2)

    def close(self) -> None:
        """Closes all links; what has no answer fails."""
        for peer in self._peers:
            peer.close()


def _is_nobodys(_worker: int, _call: Call) -> bool:
    """Whether only one worker can answer a call: any can."""
    return False
