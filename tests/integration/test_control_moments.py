"""Commands that reach a tree while it drains, while a worker is replaced, and while one recovers with a long backlog.

Whatever was acknowledged holds after the restart; everything else was refused with UNAVAILABLE and a sentence, or its
connection was cut before an answer.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base.clock import monotonic_s
from tests.crash.tree import Tree, until
from tests.integration.engines import document
from tests.integration.open_loop import RETRYING
from tests.integration.wire import path

WAIT: Final = document("  - rest: {wait: {hours: 1}}\n  - keep: {set: {kept: true}}\n")
CALL: Final = document(
    "  - ask:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:%d/'}\n"
    "  - keep: {set: {kept: true}}\n"
)
SHORT: Final = document("  - rest: {wait: {milliseconds: 400}}\n  - keep: {set: {kept: true}}\n")
PLANS: Final[dict[str, tuple[str, ...]]] = {
    "cancel": ("cancel",),
    "cancel-twice": ("cancel", "cancel"),
    "force": ("force",),
    "pause": ("pause",),
    "pause-twice": ("pause", "pause"),
    "pause-resume": ("pause", "resume"),
    "pause-cancel": ("pause", "cancel"),
}
"""Commands that follow each other, each sent when the one before is answered."""
REQUESTS: Final[dict[str, tuple[str, Any, dict[str, Any]]]] = {
    "cancel": ("CancelExecution", m.CancelExecutionRequest, {}),
    "force": ("CancelExecution", m.CancelExecutionRequest, {"force": True}),
    "pause": ("PauseExecution", m.PauseExecutionRequest, {}),
    "resume": ("ResumeExecution", m.ResumeExecutionRequest, {}),
}
STATUS_AFTER: Final = {"cancel": "cancelled", "force": "cancelled", "pause": "paused", "resume": "running"}
TERMINAL: Final = {"workflow_completed", "workflow_failed", "workflow_cancelled"}
UNAVAILABLE, OK, WRONG_STATE = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION


@dataclass
class Asked:
    """What was sent to one execution, and what became of it."""

    execution_id: str
    answers: list[tuple[str, grpc.StatusCode]] = field(default_factory=list)

    def possible(self, ends: bool) -> set[str]:
        """Statuses it may have in the end: each acknowledged command has happened, each refused one may have.

        With `ends` it ends by itself, unless a command keeps it from that.
        """
        statuses = {"running"}
        for command, code in self.answers:
            after = {status if status == "cancelled" else STATUS_AFTER[command] for status in statuses}
            if code is WRONG_STATE:
                statuses = {"completed"}
            elif code is OK:
                statuses = after
            else:
                statuses |= after
        return {"completed" if ends and status == "running" else status for status in statuses}


class Client:
    """Connections of their own, which the kernel spreads over the workers, and what it was told over them."""

    def __init__(self, target: str, connections: int = 12, **options: Any) -> None:
        given = [("grpc.use_local_subchannel_pool", 1), *((f"grpc.{name}", value) for name, value in options.items())]
        self._channels: list[Any] = [grpc.aio.insecure_channel(target, given) for _ in range(connections)]
        self._sent = 0
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.refusals: Counter[str] = Counter()
        """What came with UNAVAILABLE."""

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self._channels))

    async def ask(self, method: str, request: Any) -> bytes:
        self._sent += 1
        call = self._channels[self._sent % len(self._channels)].unary_unary(path(method))
        return bytes(await call(request.SerializeToString(), timeout=30))

    async def submit(self, ids: Iterable[str], text: str) -> None:
        """Accepts all of them, a batch at a time."""
        waiting = list(ids)
        for first in range(0, len(waiting), 200):
            inputs = [
                m.WorkflowExecuteInput(workflow_execution_id=each, workflow_yaml=text)
                for each in waiting[first : first + 200]
            ]
            reply = await self.ask("ExecuteAsyncBatch", m.ExecuteAsyncBatchRequest(executions=inputs))
            assert all(each.HasField("accepted") for each in m.ExecuteAsyncBatchResponse.FromString(reply).results)

    async def command(self, asked: Asked, command: str) -> grpc.StatusCode:
        method, request, fields = REQUESTS[command]
        code = OK
        try:
            await self.ask(method, request(execution_id=asked.execution_id, reason="as asked", **fields))
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if code is UNAVAILABLE:
                self.refusals[error.details() or ""] += 1
        asked.answers.append((command, code))
        self.codes[code] += 1
        return code

    async def follow(self, asked: Asked, plan: Sequence[str]) -> None:
        """Sends a plan's commands; gives the rest up once one is refused."""
        for command in plan:
            if await self.command(asked, command) is not OK:
                return

    async def insist(self, asked: Asked, command: str) -> None:
        """Sends a command until it is not refused as unavailable."""
        give_up_s = monotonic_s() + 30
        while await self.command(asked, command) is UNAVAILABLE:
            assert monotonic_s() < give_up_s, self.refusals
            await asyncio.sleep(0.01)

    async def status(self, execution_id: str) -> str:
        reply = await self.ask("GetExecution", q.GetExecutionRequest(execution_id=execution_id))
        return str(q.GetExecutionResponse.FromString(reply).execution.status)

    async def events(self, execution_id: str) -> list[m.WorkflowProgressEvent]:
        reply = await self.ask("GetEvents", q.GetEventsRequest(execution_id=execution_id))
        return list(q.GetEventsResponse.FromString(reply).events)


async def assert_kept(client: Client, all_asked: Iterable[Asked], *, ends: bool = False) -> None:
    """Every execution is as its acknowledged commands left it, and its events say so."""

    async def one(asked: Asked) -> None:
        possible = asked.possible(ends)
        # A cancel that came after a pause is still under way while its grace lasts, and shows as paused until then.
        between = {"running", "pending"} | ({"paused"} if ("pause", OK) in asked.answers else set())
        async with asyncio.timeout(20):
            while (status := await client.status(asked.execution_id)) not in possible:
                assert status in between, (asked, status)
                await asyncio.sleep(0.02)
        events = await client.events(asked.execution_id)
        assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
        types = [event.event_type for event in events]
        ended = [each for each in types if each in TERMINAL]
        assert ended == ([f"workflow_{status}"] if status in ("cancelled", "completed") else [])
        assert not ended or types[-1] == ended[0]
        if any(code is UNAVAILABLE for _, code in asked.answers):
            return
        for command, event in (("pause", "workflow_paused"), ("resume", "workflow_resumed")):
            assert types.count(event) == ((command, OK) in asked.answers), (asked, types)

    await asyncio.gather(*(one(asked) for asked in all_asked))


@asynccontextmanager
async def started(folder: Path, **environment: str) -> AsyncIterator[tuple[Tree, int]]:
    """A tree of two workers, and the port of a service that never answers."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    over = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    settings = {"FASTRUNNER_WORKERS": "2", "FASTRUNNER_DRAIN_TIMEOUT_S": "3", "FASTRUNNER_CANCEL_GRACE_S": "0.3"}
    tree = Tree(folder / "data", folder / "log", **settings | environment)
    try:
        await tree.start()
        yield tree, server.sockets[0].getsockname()[1]
    finally:
        await tree.kill()
        over.set()
        server.close()
        await server.wait_closed()


def plans(prefix: str, count: int) -> list[tuple[Asked, tuple[str, ...]]]:
    """So many executions for each plan."""
    return [(Asked(f"{prefix}-{name}-{number}"), plan) for name, plan in PLANS.items() for number in range(count)]


async def stream(client: Client, rows: list[tuple[Asked, tuple[str, ...]]], until_over: Callable[[], bool]) -> None:
    """Keeps 20 plans under way until the moment is over or every plan has been."""
    left = iter(rows)

    async def sender() -> None:
        for asked, plan in left:
            await client.follow(asked, plan)
            if until_over():
                return

    await asyncio.gather(*(sender() for _ in range(20)))


@pytest.mark.timeout(90)
async def test_commands_while_the_tree_drains(tmp_path: Path) -> None:
    async with started(tmp_path) as (tree, port):
        client = Client(tree.target)
        rows = [*plans("wait", 60), *plans("call", 20), *plans("short", 20)]
        texts = {"wait": WAIT, "call": CALL % port, "short": SHORT}
        for kind, text in texts.items():
            await client.submit([asked.execution_id for asked, _ in rows if asked.execution_id.startswith(kind)], text)
        rows.sort(key=lambda row: row[0].execution_id[::-1])
        stopping: list[asyncio.Task[int]] = []

        async def stop_when_commands_are_under_way() -> None:
            await until(lambda: client.codes[OK] > 40, "the first commands")
            stopping.append(asyncio.ensure_future(tree.stop()))

        await asyncio.gather(stop_when_commands_are_under_way(), stream(client, rows, lambda: False))
        assert await stopping[0] == 0
        await client.close()
        assert client.codes[UNAVAILABLE] > 0
        assert set(client.codes) <= {OK, UNAVAILABLE, WRONG_STATE}
        assert "" not in client.refusals
        await tree.start()
        again = Client(tree.target)
        long = [asked for asked, _ in rows if not asked.execution_id.startswith("short")]
        await assert_kept(again, long)
        await assert_kept(again, [asked for asked, _ in rows if asked not in long], ends=True)
        await again.close()
        assert all("did not end in time and will be performed again" in line for line in tree.defects())


@pytest.mark.timeout(90)
async def test_commands_while_workers_are_replaced(tmp_path: Path) -> None:
    async with started(tmp_path) as (tree, port):
        client = Client(tree.target, service_config=RETRYING, enable_retries=1)
        rows = [*plans("wait", 200), *plans("call", 20)]
        await client.submit([asked.execution_id for asked, _ in rows if asked.execution_id.startswith("wait")], WAIT)
        await client.submit(
            [asked.execution_id for asked, _ in rows if asked.execution_id.startswith("call")], CALL % port
        )
        rows.sort(key=lambda row: row[0].execution_id[::-1])
        tree.signal(signal.SIGHUP)
        replaced = "its successor takes over"
        # The workers come first, the web process last.
        await stream(client, rows, lambda: tree.said().count(replaced) >= 2)
        await until(lambda: tree.said().count(replaced) >= 2, "both workers to be replaced")
        sent = [asked for asked, _ in rows if asked.answers]
        assert set(client.codes) == {OK}, client.refusals
        await assert_kept(client, sent)
        await client.close()


@pytest.mark.timeout(90)
async def test_commands_while_a_worker_recovers_thousands(tmp_path: Path) -> None:
    async with started(tmp_path) as (tree, port):
        client = Client(tree.target)
        backlog = [f"backlog-{number}" for number in range(3_000)]
        rows = [*plans("wait", 12), *plans("call", 12)]
        await client.submit(backlog, CALL % port)
        await client.submit([asked.execution_id for asked, _ in rows if asked.execution_id.startswith("wait")], WAIT)
        await client.submit(
            [asked.execution_id for asked, _ in rows if asked.execution_id.startswith("call")], CALL % port
        )
        for victim in tree.children()[:2]:
            os.kill(victim, signal.SIGKILL)
        # What meets no worker is refused, and sent again as long as it is.
        for asked, plan in rows:
            asked.answers.clear()
            for command in plan:
                await client.insist(asked, command)
        assert set(client.codes) <= {OK, UNAVAILABLE}
        # And whatever was acknowledged outlives the whole tree.
        await tree.kill()
        await tree.start()
        again = Client(tree.target)
        await assert_kept(again, [asked for asked, _ in rows])
        assert {await again.status(each) for each in backlog[::300]} == {"running"}
        await client.close()
        await again.close()
