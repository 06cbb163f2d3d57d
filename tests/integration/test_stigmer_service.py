"""The Stigmer Service: what it acknowledges, what it starts, who follows, how it begins and ends."""

import asyncio
import contextlib
import fcntl
import json
import socket
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from google.rpc import error_details_pb2

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    CancelExecutionRequest,
    ExecuteAsyncBatchResult,
    ProgressAckResponse,
    Refusal,
    WorkflowExecuteInput,
    WorkflowExecuteResponse,
)
from fastrunner.base import limits
from fastrunner.counts.definitions import StigmerMetrics
from fastrunner.errors import StorageFailed, UnknownExecution
from fastrunner.stigmer.reading import SharedReads
from fastrunner.stigmer.server import CannotServe, ServiceOptions, StigmerService
from fastrunner.stigmer.store import EventsPage, Execution, Told
from fastrunner.stigmer.verify import FINDINGS
from fastrunner.web.api import stream
from tests.integration.callbacks import until
from tests.integration.runner_process import ROOT
from tests.integration.stigmer import SMALL, TOKEN, Reporter, ScriptedRunner, event, service, verified
from tests.integration.stigmer import until as until_async

START = {"workflow": {"namespace": "tests", "name": "small"}, "input": {"order": 7}}


def events_of(execution_id: str, tasks: int = 1) -> list[Any]:
    types = ["workflow_started", *(["task_started", "task_completed"] * tasks), "workflow_completed"]
    return [event(execution_id, number, name) for number, name in enumerate(types, 1)]


def refused(code: int, words: str, *, later: bool = False) -> Any:
    """An answer that refuses every execution."""
    refusal = Refusal(code=code, message=words)
    if later:
        refusal.details.add().Pack(error_details_pb2.RetryInfo())
    return lambda _: ExecuteAsyncBatchResult(refused=refusal)


# --- reports ---


async def test_reports_are_acknowledged_in_every_spelling(tmp_path: Path) -> None:
    async with service(tmp_path) as (served, reporter, _):
        for sequence, method in enumerate(("ReportProgress", "report_progress", "reportProgress"), 1):
            reply = await reporter.raw(method, event("e", sequence).SerializeToString())
            assert ProgressAckResponse.FromString(reply).success
        for sequence, method in enumerate(("ReportProgressBatch", "report_progress_batch", "reportProgressBatch"), 4):
            assert await reporter.send(event("e", sequence), method=method) == {"e": sequence}
        assert await reporter.send(event("e", 9), event("other", 1)) == {"e": 6, "other": 1}
        assert await reporter.send() == {}
        assert served.metrics.events_stored.value == 8


async def test_nothing_is_acknowledged_and_nobody_told_before_it_is_kept(tmp_path: Path) -> None:
    async with service(tmp_path) as (served, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        following = asyncio.create_task(client.follow("e"))
        await until(lambda: served._followers.count == 1, "one follows")
        with (tmp_path / "stigmer.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            reporting = asyncio.create_task(reporter.send(event("e", 2), event("e", 3, "workflow_completed")))
            await until(lambda: served.store.waiting_events == 2, "they are about to be written")
            # Others are answered meanwhile.
            for _ in range(5):
                assert (await client.get("/executions/e"))[1]["last_sequence"] == 1
            assert not reporting.done()
            assert not following.done()
        assert await reporting == {"e": 3}
        assert [each.get("id") for each in await following] == ["1", "2", "3", None]


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_whoever_reports_proves_itself(tmp_path: Path, token: str | None) -> None:
    async with (
        service(tmp_path) as (served, _, client),
        grpc.aio.insecure_channel(f"127.0.0.1:{served.grpc_port}") as channel,
    ):
        stranger = Reporter(channel, token)
        for method in ("ReportProgress", "ReportProgressBatch"):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await stranger.raw(method, b"\xff")
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert TOKEN not in str(refusal.value)
        assert (await client.get("/executions"))[1]["executions"] == []


@pytest.mark.parametrize(
    ("method", "request_bytes"),
    [
        ("ReportProgress", b"\xff"),
        ("ReportProgressBatch", b"\xff"),
        ("ReportProgressBatch", b"\x0a\x01\xff"),
        ("ReportProgress", event("", 1).SerializeToString()),
        ("ReportProgress", event("e", 0).SerializeToString()),
        ("ReportProgress", event("e\n", 1).SerializeToString()),
        ("ReportProgress", event("e" * 256, 1).SerializeToString()),
    ],
)
async def test_what_is_no_report_is_refused(tmp_path: Path, method: str, request_bytes: bytes) -> None:
    async with service(tmp_path) as (_, reporter, client):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await reporter.raw(method, request_bytes)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await client.get("/executions"))[1]["executions"] == []


async def test_overload_is_told_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_WAITING_EVENTS_MAX", 4)
    async with service(tmp_path) as (served, reporter, _):
        codes: list[grpc.StatusCode] = []

        async def report(execution_id: str) -> None:
            """Again and again until it is acknowledged, as a runner does."""
            while True:
                try:
                    await reporter.send(*events_of(execution_id))
                except grpc.aio.AioRpcError as error:
                    codes.append(error.code())
                else:
                    return

        await asyncio.gather(*(report(f"e{number}") for number in range(20)))
        assert set(codes) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert served.metrics.executions_ended.labels("completed").value == 20
    assert verified(tmp_path)[:2] == (0, {"executions": 20, "events": 80, "unfinished": 0, "findings": 0})


# --- starting ---


async def test_the_record_comes_first_and_the_same_again_is_one(tmp_path: Path) -> None:
    runner = ScriptedRunner()
    mine = {**START, "id": "mine", "labels": {"a": "b"}, "timeout_s": 9}
    async with runner.serving(), service(tmp_path, runner.port) as (_, _, client):
        assert (await client.post("/workflows", {"document": SMALL}))[0] == 201
        status, execution = await client.post("/executions", mine)
        assert (status, execution["status"], execution["launch"]) == (201, "pending", "accepted")
        assert (execution["namespace"], execution["name"], execution["version"]) == ("tests", "small", "1.0.0")
        [[asked]] = runner.calls
        assert (asked.workflow_yaml, asked.input_json, dict(asked.labels)) == (SMALL, '{"order":7}', {"a": "b"})
        assert asked.config.max_timeout_seconds == 9
        status, again = await client.post("/executions", mine)
        assert (status, again) == (200, execution)
        status, problem = await client.post("/executions", {**START, "id": "mine"})
        assert (status, problem["title"]) == (409, "Conflict")
        status, made = await client.post("/executions", START)
        assert (status, len(made["id"])) == (201, 36)
        assert runner.ids == ["mine", made["id"]]


async def test_what_the_runner_refuses_has_failed(tmp_path: Path) -> None:
    runner = ScriptedRunner()
    runner.answers = [refused(6, "the id is taken"), refused(8, "too large")]
    async with runner.serving(), service(tmp_path, runner.port) as (_, _, client):
        await client.post("/workflows", {"document": SMALL})
        status, problem = await client.post("/executions", {**START, "id": "e"})
        assert (status, problem["status"]) == (409, 409)
        assert "the id is taken" in problem["detail"]
        _, execution = await client.get("/executions/e")
        assert (execution["status"], execution["launch"]) == ("failed", "refused")
        assert execution["error"] == {"code": "REFUSED", "message": "the id is taken"}
        assert (await client.post("/executions", {**START, "id": "large"}))[0] == 429
        assert (await client.get("/executions/large"))[1]["status"] == "failed"
        # The stream of one without events ends at once.
        assert await client.follow("e") == [{"status": 204}]
    assert verified(tmp_path)[0] == 0


async def test_what_the_runner_cannot_take_now_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_START_WAIT_S_MAX", 0.1)
    monkeypatch.setattr(limits, "STIGMER_LAUNCH_PAUSE_S_MIN", 0.3)
    monkeypatch.setattr(limits, "STIGMER_LAUNCH_PAUSE_S_MAX", 0.4)
    runner = ScriptedRunner()
    runner.answers = [refused(8, "busy", later=True), grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED]
    async with runner.serving(), service(tmp_path, runner.port) as (_, _, client):
        await client.post("/workflows", {"document": SMALL})
        status, execution = await client.post("/executions", {**START, "id": "e"})
        assert (status, execution["launch"]) == (202, "recorded")
        # Asked again, the service waits for the same answer.
        assert (await client.post("/executions", {**START, "id": "e"}))[0] in (200, 202)

        await until(lambda: len(runner.calls) == 4, "it is asked again")
        assert (await client.post("/executions", {**START, "id": "e"}))[1]["launch"] == "accepted"
        assert runner.ids == ["e"] * 4
        assert len({each.SerializeToString(deterministic=True) for call in runner.calls for each in call}) == 1


async def test_what_nobody_has_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner is asked, twice; one that has it, or cannot say, changes nothing; and events count as ever."""
    monkeypatch.setattr(limits, "STIGMER_SILENT_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "STIGMER_SILENT_AFTER_S", 0.0)
    monkeypatch.setattr(limits, "STIGMER_SILENT_BATCH_MAX", 2)
    runner = ScriptedRunner()
    runner.known = {"kept": ""}
    runner.refusals["GetExecution"] = grpc.StatusCode.UNAVAILABLE
    async with runner.serving(), service(tmp_path, runner.port) as (served, reporter, client):
        await client.post("/workflows", {"document": SMALL})
        for execution_id in ("kept", "lost", "late", "begun"):
            assert (await client.post("/executions", {**START, "id": execution_id}))[0] == 201
        await reporter.send(event("begun", 1, "workflow_started"))
        following = asyncio.create_task(client.follow("lost"))
        assert [each["status"] for each in (await client.get("/executions"))[1]["executions"]][1:] == ["pending"] * 3
        del runner.refusals["GetExecution"]

        async def are_given_up() -> bool:
            return bool((await client.get("/counts?status=failed"))[1]["total"] == 2)

        await until_async(are_given_up, "what the runner does not have has failed")
        _, lost = await client.get("/executions/lost")
        assert (lost["status"], lost["launch"], lost["error"]["code"]) == ("failed", "refused", "LOST")
        assert "does not have it" in lost["error"]["message"]
        assert lost["ended_ms"] > 0
        assert [each["event"] for each in await following] == ["end"]
        assert (await client.get("/executions/kept"))[1]["status"] == "pending"
        assert (await client.get("/executions/begun"))[1]["status"] == "running"
        await reporter.send(event("late", 1, "workflow_started"), event("late", 2, "workflow_completed"))
        _, late = await client.get("/executions/late")
        assert (late["status"], late["error"]) == ("completed", None)
        assert served.metrics.executions_lost.value == 2
    assert verified(tmp_path)[0] == 0


async def test_the_runner_says_what_an_execution_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_WAITING_S_MAX", 5.0)
    runner = ScriptedRunner()
    runner.known = {"e": "waits at nap until noon"}
    async with runner.serving(), service(tmp_path, runner.port) as (_, reporter, client):
        for execution_id in ("e", "other", "over"):
            await reporter.send(event(execution_id, 1, "workflow_started"))
        await reporter.send(event("over", 2, "workflow_completed"))
        assert (await client.get("/executions/e"))[1]["waiting"] == "waits at nap until noon"
        assert "does not have it" in (await client.get("/executions/other"))[1]["waiting"]
        assert (await client.get("/executions/over"))[1]["waiting"] == ""
        assert {each["waiting"] for each in (await client.get("/executions"))[1]["executions"]} == {""}
        runner.refusals["GetExecution"] = grpc.StatusCode.PERMISSION_DENIED
        assert (await client.get("/executions/e"))[1]["waiting"] == ""
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        monkeypatch.setattr(limits, "STIGMER_WAITING_S_MAX", 0.05)
        async with service(tmp_path, hangs.getsockname()[1]) as (_, _, client):
            status, execution = await client.get("/executions/e")
            assert (status, execution["status"], execution["waiting"]) == (200, "running", "")


async def test_many_are_started_in_few_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is refused takes none of the others with it; of a call that is refused each is asked alone."""
    monkeypatch.setattr(limits, "STIGMER_LAUNCH_BATCH_MAX", 10)
    runner = ScriptedRunner()

    def answer(asked: WorkflowExecuteInput) -> ExecuteAsyncBatchResult:
        refusal = Refusal(code=3, message="no")
        wrong = asked.workflow_execution_id == "e13"
        return (
            ExecuteAsyncBatchResult(refused=refusal)
            if wrong
            else ExecuteAsyncBatchResult(accepted=WorkflowExecuteResponse())
        )

    runner.answers = [answer, answer, grpc.StatusCode.RESOURCE_EXHAUSTED, *[answer] * 60]
    async with runner.serving(), service(tmp_path, runner.port) as (_, _, client):
        await client.post("/workflows", {"document": SMALL})
        replies = await asyncio.gather(*(client.post("/executions", {**START, "id": f"e{n}"}) for n in range(40)))
        assert sorted(status for status, _ in replies) == [201] * 39 + [400]
        assert max(map(len, runner.calls)) <= 10
        assert len(runner.calls) < 30
        assert set(runner.ids) == {f"e{n}" for n in range(40)}


async def test_a_call_to_the_runner_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_LAUNCH_BATCH_SIZE_BYTES_MAX", 1_000)
    runner = ScriptedRunner()
    async with runner.serving(), service(tmp_path, runner.port) as (_, _, client):
        await client.post("/workflows", {"document": SMALL})
        large = {**START, "input": "x" * 700}
        replies = await asyncio.gather(*(client.post("/executions", large) for _ in range(6)))
        assert {status for status, _ in replies} == {201}
        assert [len(call) for call in runner.calls] == [1] * 6


async def test_a_runner_that_hangs_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_RUNNER_CALL_S_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with service(tmp_path, silent.getsockname()[1]) as (_, reporter, client):
            await reporter.send(event("e", 1, "workflow_started"))
            status, problem = await client.post("/executions/e/pause")
            assert (status, problem["status"]) == (503, 503)
            assert "does not answer" in problem["detail"]


async def test_only_so_many_wait_for_the_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_START_WAIT_S_MAX", 0.05)
    monkeypatch.setattr(limits, "STIGMER_LAUNCHES_WAITING_MAX", 3)
    async with service(tmp_path) as (_, _, client):
        await client.post("/workflows", {"document": SMALL})
        statuses = [(await client.post("/executions", {**START, "id": f"e{n}"}))[0] for n in range(4)]
        assert statuses == [202, 202, 202, 429]
        assert (await client.get("/executions/e3"))[0] == 404
    runner = ScriptedRunner()
    # A successor takes up what is recorded, although it may hold fewer at a time.
    monkeypatch.setattr(limits, "STIGMER_LAUNCHES_WAITING_MAX", 1)
    async with runner.serving(), service(tmp_path, runner.port):
        await until(lambda: sorted(runner.ids) == ["e0", "e1", "e2"], "all are launched")


# --- control ---


async def test_commands_go_to_the_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_START_WAIT_S_MAX", 0.05)
    runner = ScriptedRunner()
    async with runner.serving(), service(tmp_path, runner.port) as (_, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        assert await client.post("/executions/e/cancel", {"reason": "enough", "force": True}) == (204, "")
        assert (await client.post("/executions/e/pause"))[0] == 204
        assert (await client.post("/executions/e/resume", {}))[0] == 204
        assert [name for name, _ in runner.commands] == ["Cancel", "Pause", "Resume"]
        cancel = CancelExecutionRequest.FromString(runner.commands[0][1])
        assert (cancel.execution_id, cancel.reason, cancel.force) == ("e", "enough", True)
        assert (await client.post("/executions/other/cancel"))[0] == 404
        runner.refusals["Pause"] = grpc.StatusCode.FAILED_PRECONDITION
        status, problem = await client.post("/executions/e/pause")
        assert (status, problem["detail"]) == (409, "Pause: as scripted")
        # One that the runner does not have yet.
        runner.answers = [grpc.StatusCode.UNAVAILABLE] * 100
        runner.refusals["Cancel"] = grpc.StatusCode.NOT_FOUND
        await client.post("/workflows", {"document": SMALL})
        await client.post("/executions", {**START, "id": "recorded"})
        status, problem = await client.post("/executions/recorded/cancel")
        assert (status, "on its way to the runner" in problem["detail"]) == (503, True)


# --- following ---


async def test_who_follows_gets_all_that_is_there_and_all_that_comes(tmp_path: Path) -> None:
    async with service(tmp_path) as (served, reporter, client):
        events = events_of("e", 3)
        await reporter.send(*events[:2])
        following = [asyncio.create_task(client.follow("e", after)) for after in (0, 0, 1, 2)]
        await until(lambda: served._followers.count == 4, "all follow")
        # Behind a gap nothing is shown.
        await reporter.send(*events[3:])
        await reporter.send(events[2])
        for task, after in zip(following, (0, 0, 1, 2), strict=True):
            found = await task
            assert [int(each["id"]) for each in found[:-1]] == list(range(after + 1, 9))
            assert [each["data"]["sequence_number"] for each in found[:-1]] == list(range(after + 1, 9))
            assert found[-1] == {"event": "end", "data": {"has_ended": True}}
        assert (await client.follow("e", 3, last_id="6"))[0]["id"] == "7"
        assert await client.follow("e", 8) == [{"status": 204}]
        assert await client.follow("unknown") == [{"status": 404}]
        await until(lambda: served._followers.count == 0, "nobody follows any more")


async def test_a_cursor_that_is_not_there_is_reset(tmp_path: Path) -> None:
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(*events_of("e"))
        found = await client.follow("e", 99)
        assert (found[0]["event"], found[0]["data"]["last_sequence"], "id" in found[0]) == ("reset", 4, False)
        assert [each.get("id") for each in found[1:]] == ["1", "2", "3", "4", None]
        assert await client.follow("e", last_id="x") == [{"status": 400}]


async def test_pages_of_a_stream_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_EVENTS_SIZE_BYTES_MAX", 300)
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(*events_of("e", 20))
        status, page = await client.get("/executions/e/events?count=500")
        assert (status, 1 <= len(page["events"]) <= 6, page["last_sequence"]) == (200, True, 42)
        found = await client.follow("e")
        assert [int(each["id"]) for each in found[:-1]] == list(range(1, 43))


async def test_something_is_sent_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "API_STREAM_PING_S", 0.05)
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        async with client.session.get(f"{client.base}/api/v1/executions/e/events/stream") as reply:
            lines = [await reply.content.readline() for _ in range(8)]
        assert b": nothing new\n" in lines


async def test_a_client_that_does_not_read_is_cut_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "API_STREAM_STALL_S_MAX", 0.3)
    async with service(tmp_path) as (served, reporter, client):
        large = [event("e", number, output_json="x" * 60_000) for number in range(1, 301)]
        for at in range(0, 300, 50):
            await reporter.send(*large[at : at + 50])
        with socket.create_connection(("127.0.0.1", served.http_port)) as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.sendall(b"GET /api/v1/executions/e/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await until(lambda: served.metrics.followers_cut.value == 1, "it is cut")
        await until(lambda: served._followers.count == 0, "it follows no more")
        # Others are served meanwhile, and it goes on where it was.
        assert [each["id"] for each in await client.follow("e", 100, count=3)] == ["101", "102", "103"]


async def test_only_so_many_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_FOLLOWERS_MAX", 1)
    async with service(tmp_path) as (served, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        first = asyncio.create_task(client.follow("e"))
        await until(lambda: served._followers.count == 1, "one follows")
        assert await client.follow("e") == [{"status": 429}]
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first


# --- beginning and ending ---


async def test_what_is_over_is_forgotten_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STIGMER_SWEEP_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "STIGMER_EXPIRE_BATCH_MAX", 2)
    async with service(tmp_path, retention_s=0.001) as (served, reporter, client):
        for number in range(7):
            await reporter.send(*events_of(f"e{number}"))
        await reporter.send(event("running", 1, "workflow_started"), event("running", 3))
        await until(lambda: served.metrics.executions_expired.value == 7, "they are forgotten")
        assert [each["id"] for each in (await client.get("/executions"))[1]["executions"]] == ["running"]
        await until(lambda: served.metrics.gap_age.value > 0, "the gap is told")


async def test_a_stopping_service_sends_everybody_to_its_successor(tmp_path: Path) -> None:
    async with service(tmp_path) as (served, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        following = asyncio.create_task(client.follow("e"))
        await until(lambda: served._followers.count == 1, "one follows")
        await served._stop_taking()
        assert [each["id"] for each in await following] == ["1"]
        async with client.session.get(f"{client.base}/readyz") as reply:
            assert (reply.status, (await reply.json())["reason"]) == (503, "draining")
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await reporter.send(event("e", 2))
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    async with service(tmp_path) as (_, reporter, client):
        assert await reporter.send(event("e", 2)) == {"e": 2}
        assert (await client.follow("e", 1, count=1))[0]["id"] == "2"


async def test_health_and_metrics(tmp_path: Path) -> None:
    async with service(tmp_path) as (_, reporter, client):
        await reporter.send(*events_of("e"))
        for path in ("/healthz", "/readyz"):
            async with client.session.get(client.base + path, headers={"Host": "10.0.0.7"}) as reply:
                assert reply.status == 200
        async with client.session.get(f"{client.base}/metrics") as reply:
            text = await reply.text()
        assert "stigmer_events_stored_total 4.0" in text
        assert 'stigmer_executions_ended_total{status="completed"} 1.0' in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grpc_host": "0.0.0.0", "report_token": None}, "--report-token-file"),
        ({"http_host": "0.0.0.0"}, "--callers-file"),
        ({"http_tls": True}, "--tls-certificate"),
        ({"tls_key": Path("key.pem")}, "belong together"),
        ({"allow_origins": ("https://console.example/",)}, "is no origin"),
        ({"allow_hosts": ("https://console.example",)}, "is no host"),
    ],
)
def test_options_that_do_not_fit_are_told(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    options = {"data_dir": tmp_path, "runner": "localhost:1", "report_token": TOKEN, **changes}
    with pytest.raises(CannotServe, match=words):
        StigmerService(ServiceOptions(**options))


async def test_one_service_has_a_folder(tmp_path: Path) -> None:
    async with service(tmp_path):
        with pytest.raises(CannotServe, match="in use by another service"):
            StigmerService(ServiceOptions(data_dir=tmp_path, runner="localhost:1"))


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for changes in ({"grpc_port": port}, {"http_port": port}):
            with pytest.raises(CannotServe, match=f"cannot listen on 127.0.0.1:{port}"):
                async with service(tmp_path, **changes):
                    pass


def test_what_is_counted_and_found_is_documented() -> None:
    page = (ROOT / "docs" / "stigmer.md").read_text(encoding="utf-8")
    found = {line.split("`")[1].partition("{")[0] for line in page.splitlines() if line.startswith("| `stigmer_")}
    assert found == set(StigmerMetrics().definitions)
    assert all(f"| `{kind}` |" in page for kind in FINDINGS)


async def test_many_who_follow_cost_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who are told of an event together read it together, and it is made JSON once, unless it is long."""
    remembered = stream._remembered_fields
    remembered.cache_clear()
    assert remembered.cache_parameters()["maxsize"] == limits.API_EVENTS_REMEMBERED_MAX
    async with service(tmp_path) as (served, reporter, client):
        await reporter.send(event("e", 1, "workflow_started"))
        reads = SharedReads(served.store, served._followers)
        read, count = served.store.events_after, 0

        async def counting(*which: Any) -> EventsPage:
            nonlocal count
            count += 1
            return await read(*which)

        monkeypatch.setattr(served.store, "events_after", counting)
        with served._followers.follow("e"):
            pages = await asyncio.gather(*(reads.events_after("e", 0, 10) for _ in range(40)))
            assert (count, [page.last_sequence for page in pages]) == (1, [1] * 40)
            early = asyncio.create_task(reads.events_after("e", 0, 10))
            await asyncio.sleep(0)
            # Who is told now may not get what was read before.
            served._followers.hear([Told("e", 1)])
            await asyncio.gather(early, reads.events_after("e", 0, 10))
            assert count == 3
        with pytest.raises(UnknownExecution):
            await reads.events_after("unknown", 0, 10)
        following = [asyncio.create_task(client.follow("e", count=3)) for _ in range(20)]
        await reporter.send(event("e", 2))
        await reporter.send(event("e", 3, message="x" * limits.API_EVENT_REMEMBERED_SIZE_BYTES_MAX))
        for found in await asyncio.gather(*following):
            assert [int(each["id"]) for each in found] == [1, 2, 3]
        assert remembered.cache_info().currsize == 2


async def test_many_who_follow_all_cost_one_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each execution that has changed; what is long, or could not be read, is read again."""
    monkeypatch.setattr(limits, "API_FEED_REMEMBERED_MAX", 2)
    async with service(tmp_path) as (served, reporter, client):
        reads = SharedReads(served.store, served._followers)
        find, found = served.store.find, []

        async def counting(execution_id: str) -> Execution:
            found.append(execution_id)
            if served.store.waiting_events < 0:
                raise StorageFailed("as told")
            return await find(execution_id)

        await reporter.send(event("e", 1, "workflow_started"), event("f", 1), event("g", 1))
        monkeypatch.setattr(served.store, "find", counting)
        stands = await asyncio.gather(*(reads.after_change(number, "e") for number in (5, 3, 5, 4)))
        assert found == ["e"]
        assert {orjson.loads(each.json)["status"] for each in stands if each is not None} == {"running"}
        # A change that was told since is not in what was read before.
        await reads.after_change(6, "e")
        assert await reads.after_change(1, "unknown") is None
        assert found == ["e", "e", "unknown"]
        for execution_id in ("f", "g", "e"):
            await reads.after_change(7, execution_id)
        assert found[3:] == ["f", "g", "e"]
        monkeypatch.setattr(limits, "API_FEED_REMEMBERED_SIZE_BYTES_MAX", 10)
        for number in (8, 8):
            await reads.after_change(number, "e")
        assert found[6:] == ["e", "e"]
        monkeypatch.setattr(type(served.store), "waiting_events", -1)
        for _ in range(2):
            with pytest.raises(StorageFailed):
                await reads.after_change(9, "g")
        assert found[8:] == ["g", "g"]
        monkeypatch.undo()
        async with contextlib.AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(client.feed()) for _ in range(5)]
            for feed in feeds:
                assert (await anext(feed))["event"] == "begin"
            await reporter.send(event("e", 2, "workflow_completed", status="completed"))
            changes = [await anext(feed) for feed in feeds]
            assert len({json.dumps(each) for each in changes}) == 1
            assert changes[0]["data"]["execution"] == (await client.get("/executions/e"))[1]
