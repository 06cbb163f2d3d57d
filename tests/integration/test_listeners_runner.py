"""Workflows that talk to each other through events in a real runner, over kills of workers and of the tree: no event is
lost, none is taken twice."""

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.empty_pb2 import Empty

from fastrunner._pb.ai.stigmer.workflow.runner.v1 import messages_pb2 as m
from fastrunner._pb.ai.stigmer.workflow.runner.v1 import query_pb2 as q
from tests.integration.runner_process import RunnerProcess, until
from tests.integration.test_cloud_events import message, send, stored
from tests.integration.test_placement_runner import Connection, connections, ready, start, stop

FINAL = {"completed", "failed", "cancelled"}
TAKEN = "workflow_runner_listener_events_taken_total"
ROUNDS = 120
"""So many that games go on over all kills of a test, though some are played while one looks how far they are."""
HEAD = "document: {dsl: '1.0.0', namespace: tests, name: %s, version: '1.0.0'}\ndo:\n"
FILTER = "{type: %s, data: '${ .game == $workflow.input.game }'}"

PING = HEAD % "ping" + (
    f"- rounds:\n    for: {{each: n, in: '${{ [range({ROUNDS})] }}'}}\n    do:\n"
    "    - call:\n        emit:\n          event:\n            with:\n              type: ping\n"
    "              data: {game: '${ $workflow.input.game }', n: '${ $n }'}\n"
    f"    - hear:\n        listen: {{to: {{one: {{with: {FILTER % 'pong'}}}}}}}\n"
    "        export: {as: '${ ($context // []) + [.[0].n] }'}\n"
    "- told:\n    set: {heard: '${ $context }'}\n"
)
PONG = HEAD % "pong" + (
    f"- rounds:\n    for: {{each: n, in: '${{ [range({ROUNDS})] }}'}}\n    do:\n"
    f"    - hear:\n        listen: {{to: {{one: {{with: {FILTER % 'ping'}}}}}}}\n"
    "        export: {as: '${ ($context // []) + [.[0].n] }'}\n"
    "    - answer:\n        emit:\n          event:\n            with:\n              type: pong\n"
    "              data: {game: '${ $workflow.input.game }', n: '${ $context[-1] }'}\n"
    "- told:\n    set: {heard: '${ $context }'}\n"
)
APPROVAL = HEAD % "approval" + (
    "- approved:\n    listen:\n      to:\n        one:\n          with: {type: approved}\n"
    "          correlate: {order: {from: .order, expect: '${ $workflow.input.order }'}}\n"
)


async def view_of(connection: Connection, execution_id: str) -> Any:
    request = q.GetExecutionRequest(execution_id=execution_id)
    return (await connection.call("GetExecution", request, q.GetExecutionResponse)).execution


async def outputs(runner: RunnerProcess, ids: Sequence[str], timeout_s: float = 120.0) -> dict[str, Any]:
    """Of executions, once all have ended, whichever workers die meanwhile."""
    found: dict[str, Any] = {}
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    while len(found) < len(ids):
        assert asyncio.get_running_loop().time() < deadline_s, f"only {sorted(found)} have ended"
        connection = Connection(runner.target)
        try:
            for each in ids:
                if each not in found:
                    view = await view_of(connection, each)
                    if view.status in FINAL:
                        assert view.status == "completed", view
                        found[each] = json.loads(view.output_json)
        except grpc.aio.AioRpcError as error:
            # The worker that was asked is the one that was killed.
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        finally:
            await connection.channel.close()
        await asyncio.sleep(0.05)
    return found


async def taken(runner: RunnerProcess, count: int, ending: "asyncio.Task[Any] | None" = None) -> None:
    """Until executions have taken so many events more, or have ended."""
    before = runner.metric(TAKEN)
    await asyncio.to_thread(
        until, lambda: runner.metric(TAKEN) >= before + count or (ending is not None and ending.done()), 60
    )


async def start_games(opened: Sequence[Connection], count: int) -> list[str]:
    """Pings on one worker, pongs on another."""
    first = opened[0]
    second = next(each for each in opened if each.pid != first.pid)
    ids = []
    for number in range(count):
        given = json.dumps({"game": number})
        await first.execute(f"ping-{number}", PING, input_json=given)
        await second.execute(f"pong-{number}", PONG, input_json=given)
        ids += [f"ping-{number}", f"pong-{number}"]
    return ids


async def check_games(runner_dir: Path, found: dict[str, Any]) -> None:
    assert all(each == {"heard": list(range(ROUNDS))} for each in found.values()), found
    published = sorted(
        (each.event["type"], each.event["data"]["game"], each.event["data"]["n"])
        for each in (await asyncio.to_thread(stored, runner_dir)).values()
    )
    games = len(found) // 2
    assert published == [(kind, game, n) for kind in ("ping", "pong") for game in range(games) for n in range(ROUNDS)]


async def test_two_workflows_talk_over_kills_of_either_worker(tmp_path: Path) -> None:
    with start(tmp_path / "data") as runner:
        ready(runner)
        async with connections(runner, 2) as opened:
            ids = await start_games(opened, 4)
        ending = asyncio.create_task(outputs(runner, ids))
        kills = 0
        while kills < 6 and not ending.done():
            await taken(runner, 5, ending)
            pid = runner.workers()[kills % 2]["pid"]
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(until, lambda pid=pid: runner.replaced(pid), 60)
            kills += 1
        assert kills > 1
        await check_games(tmp_path / "data", await ending)
        assert runner.stop()[0] == 0


async def test_two_workflows_talk_over_kills_of_the_tree(tmp_path: Path) -> None:
    ids: list[str] = []
    for _ in range(3):
        with start(tmp_path / "data") as runner:
            ready(runner)
            if not ids:
                async with connections(runner, 2) as opened:
                    ids = await start_games(opened, 3)
            # A new tree counts from zero, and plays on before it is ready.
            await asyncio.to_thread(until, lambda runner=runner: runner.metric(TAKEN) >= 20, 60)
    with start(tmp_path / "data") as runner:
        ready(runner)
        await check_games(tmp_path / "data", await outputs(runner, ids))
        stop(runner)


async def test_approver_that_is_faster_than_the_workflow_and_one_that_is_not(tmp_path: Path) -> None:
    with start(tmp_path / "data") as runner:
        ready(runner)
        send(runner.target, [approved("1", "early", "yes")])
        async with connections(runner, 2) as opened:
            pair = [*{each.pid: each for each in opened}.values()]
            for connection in pair:
                for order in ("early", "late"):
                    await connection.execute(
                        f"{order}-{connection.pid}", APPROVAL, input_json=json.dumps({"order": order})
                    )
            early = [f"early-{connection.pid}" for connection in pair]
            assert await outputs(runner, early) == {each: ["yes"] for each in early}
            await asyncio.to_thread(until, lambda: runner.metric("workflow_runner_listeners") == 2)
            late = [f"late-{connection.pid}" for connection in pair]
            await pair[0].call("PauseExecution", m.PauseExecutionRequest(execution_id=late[0]), Empty)
            send(
                runner.target,
                [approved("2", "other", "no"), approved("3", "late", "yes"), approved("3", "late", "twice")],
            )
            assert await outputs(runner, late[1:]) == {late[1]: ["yes"]}
            assert (await view_of(pair[0], late[0])).status == "paused"
            await pair[0].call("ResumeExecution", m.ResumeExecutionRequest(execution_id=late[0]), Empty)
            assert await outputs(runner, late[:1]) == {late[0]: ["yes"]}
        stop(runner)


def approved(event_id: str, order: str, data: str) -> Any:
    event = message(event_id, text_data=json.dumps(data))
    event.type = "approved"
    event.attributes["order"].ce_string = order
    event.attributes["datacontenttype"].ce_string = "application/json"
    return event
