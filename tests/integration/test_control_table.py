"""Every command reaches every kind of task that can be in flight, through a real tree and from the wrong worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from tests.crash.tree import Journal, Tree
from tests.integration.control_model import KINDS
from tests.integration.wire import path

COMMANDS: Final = {
    "cancel": ("CancelExecution", m.CancelExecutionRequest, {}),
    "force": ("CancelExecution", m.CancelExecutionRequest, {"force": True}),
    "pause": ("PauseExecution", m.PauseExecutionRequest, {}),
    "resume": ("ResumeExecution", m.ResumeExecutionRequest, {}),
}
AFTERWARDS: Final = {"cancel": "cancelled", "force": "cancelled", "pause": "paused", "resume": "running"}
TERMINAL: Final = {"workflow_completed", "workflow_failed", "workflow_cancelled"}


class Table:
    """A tree, connections to it, and a server its calls never hear of."""

    def __init__(self, tree: Tree, channels: list[Any], port: int) -> None:
        self.tree, self.port = tree, port
        self._channels = channels
        self._asked = 0

    async def ask(self, method: str, request: Any) -> bytes:
        """Over one connection after the other: with two workers every other one is the wrong one, or so."""
        self._asked += 1
        call = self._channels[self._asked % len(self._channels)].unary_unary(path(method))
        return bytes(await call(request.SerializeToString(), timeout=30))

    async def command(self, execution_id: str, command: str) -> grpc.StatusCode:
        method, request, fields = COMMANDS[command]
        try:
            await self.ask(method, request(execution_id=execution_id, reason="as asked", **fields))
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    async def execution(self, execution_id: str) -> q.Execution:
        reply = await self.ask("GetExecution", q.GetExecutionRequest(execution_id=execution_id))
        return q.GetExecutionResponse.FromString(reply).execution

    async def until_status(self, execution_id: str, status: str) -> None:
        async with asyncio.timeout(20):
            while True:
                if (await self.execution(execution_id)).status == status:
                    return
                await asyncio.sleep(0.01)

    async def events(self, execution_id: str) -> list[m.WorkflowProgressEvent]:
        found: list[m.WorkflowProgressEvent] = []
        while True:
            request = q.GetEventsRequest(execution_id=execution_id, from_sequence_number=len(found) + 1)
            page = q.GetEventsResponse.FromString(await self.ask("GetEvents", request)).events
            if not page:
                return found
            found.extend(page)


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Table]:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    over = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    tree = Tree(
        folder / "data", folder / "log", FASTRUNNER_WORKERS="2", FASTRUNNER_DRAIN_TIMEOUT_S="1",
        FASTRUNNER_CANCEL_GRACE_S="0.3",
    )  # fmt: skip
    try:
        await tree.start()
        # A connection of its own each: the kernel spreads them over the workers.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels: list[Any] = [grpc.aio.insecure_channel(tree.target, options) for _ in range(16)]
        yield Table(tree, channels, server.sockets[0].getsockname()[1])
        for each in channels:
            await each.close()
    finally:
        await tree.kill()
        over.set()
        server.close()
        await server.wait_closed()


async def row(table: Table, kind: str, command: str, number: int) -> None:
    """One cell of the table."""
    execution_id = f"{kind}-{command}-{number}"
    text = KINDS[kind][0].replace("http://127.0.0.1:1/", f"http://127.0.0.1:{table.port}/")
    await table.ask("ExecuteAsync", m.WorkflowExecuteInput(workflow_execution_id=execution_id, workflow_yaml=text))
    for _ in range(2):
        assert await table.command(execution_id, command) is grpc.StatusCode.OK
    await table.until_status(execution_id, AFTERWARDS[command])
    if command in ("cancel", "force"):
        for other in ("pause", "resume"):
            assert await table.command(execution_id, other) is grpc.StatusCode.FAILED_PRECONDITION
    elif command == "pause":
        last = (await table.execution(execution_id)).last_sequence_number
        assert await table.command(execution_id, "resume") is grpc.StatusCode.OK
        await table.until_status(execution_id, "running")
        assert (await table.execution(execution_id)).last_sequence_number > last
    assert await table.command(execution_id, "force") is grpc.StatusCode.OK
    await table.until_status(execution_id, "cancelled")
    events = await table.events(execution_id)
    assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
    types = [event.event_type for event in events]
    assert [each for each in types if each in TERMINAL] == ["workflow_cancelled"]
    assert types.count("workflow_paused") == types.count("workflow_resumed") == (command == "pause")


@pytest.mark.timeout(120)
async def test_every_command_on_every_kind_from_every_worker(tmp_path: Path) -> None:
    async with opened(tmp_path) as table:
        cells = [row(table, kind, command, number) for kind in KINDS for command in COMMANDS for number in (0, 1)]
        await asyncio.gather(*cells)
        # On every worker's executions, that is: each call goes over the next connection.
        journal = Journal(table.tree.data_dir)
        journal.read(whole=True)
        assert {shard for found in journal.shards.values() for shard in found} == {0, 1}
        assert journal.problems() == []
