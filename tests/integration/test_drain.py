"""A runner that stops or is restarted under load loses nothing, and tells clients to come again."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from fastrunner.base.clock import monotonic_s
from tests.crash.tree import Tree, until
from tests.integration.open_loop import Load, Tally, channel, work
from tests.integration.wire import path

DRAIN_TIMEOUT_S = 5.0
EFFECT = """\
document: {dsl: 1.0.3, namespace: test, name: slow, version: 1.0.0}
do:
- ask: {call: http, with: {method: get, endpoint: "http://127.0.0.1:%d/"}}
"""


@asynccontextmanager
async def started(folder: Path, workers: int = 2, drain_timeout_s: float = DRAIN_TIMEOUT_S) -> AsyncIterator[Tree]:
    tree = Tree(
        folder / "data",
        folder / "log",
        FASTRUNNER_WORKERS=str(workers),
        FASTRUNNER_DRAIN_TIMEOUT_S=str(drain_timeout_s),
    )
    try:
        await tree.start()
        yield tree
    finally:
        await tree.kill()


async def ended(tree: Tree, tallies: list[Tally]) -> None:
    """Everything that was accepted has completed."""
    target: Any
    async with grpc.aio.insecure_channel(tree.target) as target:
        get = target.unary_unary(path("GetExecution"))
        for execution_id in (each for tally in tallies for each in tally.accepted):
            while True:
                reply = await get(q.GetExecutionRequest(execution_id=execution_id).SerializeToString(), timeout=30)
                status = q.GetExecutionResponse.FromString(reply).execution.status
                if status == "completed":
                    break
                assert status in ("running", "pending")
                await asyncio.sleep(0.01)


@pytest.mark.timeout(120)
async def test_stop_under_load_loses_nothing_and_refuses_what_is_new(tmp_path: Path) -> None:
    async with started(tmp_path) as tree:
        channels = [channel(tree.target) for _ in range(4)]
        load = asyncio.ensure_future(Load(channels, work(10), "stopped").open(100, 2.0))
        await asyncio.sleep(0.7)  # the load has to be under way
        began_s = monotonic_s()
        assert await tree.stop() == 0
        assert monotonic_s() - began_s < DRAIN_TIMEOUT_S
        tally = await load
        # A call that was sent to a server that stops is refused or cut off, and nothing else happens to it.
        assert set(tally.latencies_s) <= {"OK", "UNAVAILABLE"}, tally.messages
        assert tally.count("OK") > 20
        assert tally.count("UNAVAILABLE") > 20
        for each in channels:
            await each.close()
        await tree.start()
        await ended(tree, [tally])


@pytest.mark.timeout(120)
async def test_stop_does_not_wait_for_effects_beyond_its_bound(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        while await reader.read(4096):
            pass  # until the drain gives the call up
        writer.close()

    asked = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with started(tmp_path) as tree:
        connection = channel(tree.target)
        load = Load([connection], EFFECT % port, "slow")
        tally = Tally()
        for _ in range(4):
            await load.submit(tally)
        assert tally.count("OK") == 4
        await asyncio.wait_for(asked.wait(), 10)
        began_s = monotonic_s()
        assert await tree.stop() == 0
        assert monotonic_s() - began_s < DRAIN_TIMEOUT_S + 1
        assert "did not end in time and will be performed again" in tree.said()
        await connection.close()
    server.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("workers", [1, 2])
async def test_rolling_restart_under_load_fails_no_call_of_a_client_that_retries(tmp_path: Path, workers: int) -> None:
    async with started(tmp_path, workers) as tree:
        channels = [channel(tree.target, retrying=True) for _ in range(4)]
        calm = await Load(channels, work(10), "calm").open(100, 0.5)
        before = set(tree.children())
        load = Load(channels, work(10), "restarted")
        tallies = [calm]
        tree.signal(signal.SIGHUP)
        while before & set(tree.children()) or len(tree.children()) < len(before):
            tallies.append(await load.open(100, 0.5))
        tallies.append(await load.open(100, 0.5))
        for tally in tallies:
            assert set(tally.latencies_s) == {"OK"}, tally.messages
        await until(lambda: tree.said().count("its successor takes over") == workers + 1, "all to be replaced")
        await ended(tree, tallies)
        for each in channels:
            await each.close()
        assert await tree.stop() == 0


@pytest.mark.timeout(120)
async def test_restart_of_a_single_worker_does_not_wait_long_for_an_effect(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(True)
        while await reader.read(4096):
            pass  # until the drain gives the call up
        writer.close()
        left.append(True)

    asked: list[bool] = []
    left: list[bool] = []
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with started(tmp_path, workers=1, drain_timeout_s=60.0) as tree:
        connection = channel(tree.target, retrying=True)
        slow, tally = Tally(), Tally()
        await Load([connection], EFFECT % port, "slow").submit(slow)
        await until(lambda: asked, "the effect to begin")
        tree.signal(signal.SIGHUP)
        # New clients come while nobody serves: they wait for the successor.
        number = 0
        while "its successor takes over" not in tree.said():
            number += 1
            fresh = channel(tree.target, retrying=True)
            await Load([fresh], work(1), f"fresh-{number}").submit(tally)
            await fresh.close()
        assert set(tally.latencies_s) == {"OK"}, tally.messages
        await ended(tree, [tally])
        await until(lambda: len(asked) == 2, "the effect to be performed again")
        await connection.close()
    await until(lambda: len(left) == 2, "the effects' connections to end")
    server.close()
