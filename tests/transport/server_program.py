"""Support: a server in a process of its own, so that its memory and its life can be watched from outside.

    python -m tests.transport.server_program

Prints its port, drains on SIGTERM. Documents say what their executions do: `hold` is never accepted, `flood` has events
without end; any other is accepted at once, has one event and stays open.
"""

import asyncio
import signal
from collections.abc import AsyncGenerator
from dataclasses import replace

import uvloop
from prometheus_client import CollectorRegistry

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowProgressEvent
from fastrunner.base import descriptors
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import ExecutionView, Submission
from fastrunner.service.handlers import Service
from fastrunner.service.transport.server import serve
from tests.integration.memory_engine import MemoryEngine, MemoryExecution
from tests.local_router import LocalRouter

EVENT_SIZE_BYTES = 64 * 1024


class ScriptedEngine(MemoryEngine):
    """Executions that wait for ever, or never end."""

    def __init__(self) -> None:
        super().__init__()
        self.open = 0

    async def _submit(self, submission: Submission) -> str:
        if submission.document == "hold":
            self.open += 1
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.open -= 1
        return await super()._submit(submission)

    async def get(self, execution_id: str) -> ExecutionView:
        """Of the execution `open`, the last sequence number is how many submissions and subscriptions are open."""
        if execution_id != "open":
            return await super().get(execution_id)
        shown = MemoryExecution(Submission(execution_id, "open", b"null", None, {}, b"", 0, False), 0).view()
        return replace(shown, last_sequence=self.open)

    async def subscribe(self, execution_id: str, from_sequence: int) -> AsyncGenerator[bytes, None]:
        """Follows, or floods."""
        self.open += 1
        try:
            if self.known(execution_id).submission.document != "flood":
                async for event in super().subscribe(execution_id, from_sequence):
                    yield event
                return
            sequence = from_sequence
            # Ends when the transport closes it, or when a client has had more than any should.
            while True:
                yield WorkflowProgressEvent(
                    workflow_execution_id=execution_id, sequence_number=sequence, message="x" * EVENT_SIZE_BYTES
                ).SerializeToString()
                sequence += 1
        finally:
            self.open -= 1


async def main() -> None:
    """Serves until SIGTERM."""
    descriptors.allow()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    metrics = Metrics(CollectorRegistry())
    server = await serve(Service(ScriptedEngine(), LocalRouter(), metrics), metrics, "127.0.0.1:0")
    print(server.port, flush=True)
    await stop.wait()
    await server.stop(2)


if __name__ == "__main__":
    uvloop.run(main())
