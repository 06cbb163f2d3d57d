"""The reference receiver: what it checks, what it keeps, how it answers in every spelling, how it ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import orjson
import pytest
from google.protobuf.json_format import MessageToDict

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ErrorDetails,
    ProgressAckResponse,
    ReportProgressBatchRequest,
    ReportProgressBatchResponse,
    WorkflowProgressEvent,
)
from fastrunner.stigmer.ledger import Ledger, event_fields
from fastrunner.stigmer.receiver import ReceiverOptions, run_receiver
from tests.integration.callbacks import TOKEN, receiving

ROOT = Path(__file__).parent.parent.parent
SERVICE = "/ai.stigmer.workflow.runner.v1.WorkflowRunnerCommandController/"


def event(execution_id: str, sequence: int, event_type: str = "task_completed", **more: Any) -> WorkflowProgressEvent:
    return WorkflowProgressEvent(
        workflow_execution_id=execution_id, sequence_number=sequence, event_type=event_type, **more
    )


class Caller:
    """A sender that does as it likes."""

    def __init__(self, channel: grpc.aio.Channel, token: str | None = TOKEN) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def one(self, message: WorkflowProgressEvent, method: str = "ReportProgress") -> ProgressAckResponse:
        call = self._channel.unary_unary(SERVICE + method, None, None)
        return ProgressAckResponse.FromString(await call(message.SerializeToString(), metadata=self._metadata))

    async def batch(self, *messages: WorkflowProgressEvent, method: str = "ReportProgressBatch") -> dict[str, int]:
        call = self._channel.unary_unary(SERVICE + method, None, None)
        request = ReportProgressBatchRequest(events=messages).SerializeToString()
        reply = ReportProgressBatchResponse.FromString(await call(request, metadata=self._metadata))
        return {ack.workflow_execution_id: ack.sequence_number for ack in reply.acknowledgements}


@contextlib.asynccontextmanager
async def caller(port: int, token: str | None = TOKEN):  # type: ignore[no-untyped-def]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Caller(channel, token)


async def test_every_spelling_answers() -> None:
    async with receiving() as (receiver, port), caller(port) as sender:
        for sequence, method in enumerate(("ReportProgress", "report_progress", "reportProgress"), 1):
            assert (await sender.one(event("e", sequence), method)).success
        for sequence, method in enumerate(("ReportProgressBatch", "report_progress_batch", "reportProgressBatch"), 4):
            assert await sender.batch(event("e", sequence), method=method) == {"e": sequence}
    assert receiver.ledger.highest("e") == 6
    assert receiver.ledger.violations == []


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_the_token_is_checked(token: str | None) -> None:
    async with receiving() as (receiver, port), caller(port, token) as sender:
        for call in (sender.one(event("e", 1)), sender.batch(event("e", 1))):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert receiver.ledger.executions() == []


async def test_a_gap_is_acknowledged_up_to_it_and_noted_once() -> None:
    async with receiving() as (receiver, port), caller(port) as sender:
        events = [event("e", 1), event("f", 1), event("e", 3), event("e", 4), event("f", 2)]
        assert await sender.batch(*events) == {"e": 1, "f": 2}
        answer = await sender.one(event("e", 9))
    assert not answer.success
    assert "send 2 first" in answer.message
    assert [(one.kind, one.sequence) for one in receiver.ledger.violations] == [("gap", 3), ("gap", 9)]


async def test_duplicates_must_be_the_same_bytes() -> None:
    async with receiving() as (receiver, port), caller(port) as sender:
        assert await sender.batch(event("e", 1, message="a"), event("e", 2)) == {"e": 2}
        assert await sender.batch(event("e", 1, message="a")) == {"e": 2}
        assert receiver.ledger.violations == []
        assert receiver.ledger.summary().duplicates == 1
        assert (await sender.one(event("e", 1, message="b"))).success
    assert [one.kind for one in receiver.ledger.violations] == ["changed"]


async def test_an_execution_ends_once() -> None:
    async with receiving() as (receiver, port), caller(port) as sender:
        await sender.batch(event("e", 1, "workflow_failed"), event("e", 2), event("e", 3, "workflow_completed"))
    assert [one.kind for one in receiver.ledger.violations] == ["after-end", "second-end"]
    assert receiver.ledger.terminal("e") == "workflow_failed"
    assert receiver.ledger.summary().finished == 1


async def test_events_without_id_or_number_and_broken_bytes_are_refused() -> None:
    async with receiving() as (_, port), grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        nameless = event("", 1).SerializeToString()
        unnumbered = event("e", 0).SerializeToString()
        for method, request in (
            ("ReportProgress", nameless),
            ("ReportProgress", unnumbered),
            ("ReportProgress", b"\xff\xff"),
            ("ReportProgressBatch", b"\x0a\x7f"),
            ("ReportProgressBatch", b"\x12\x00"),
            ("ReportProgressBatch", b"\x0a\xff\xff\xff\xff\xff\xff"),
            ("ReportProgressBatch", b"\x0a\x02\xff\xff"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await channel.unary_unary(SERVICE + method, None, None)(
                    request, metadata=(("authorization", f"Bearer {TOKEN}"),)
                )
            assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT, (method, request)


async def test_the_store_is_read_again_without_its_torn_last_line(tmp_path: Path) -> None:
    store = tmp_path / "received.jsonl"
    async with receiving(store=store) as (_, port), caller(port) as sender:
        await sender.batch(event("e", 1), event("e", 2), event("f", 1, "workflow_completed"), event("f", 3))
    with store.open("ab") as file:
        file.write(b'{"workflowExecutionId": "e", "sequ')
    async with receiving(store=store) as (receiver, port), caller(port) as sender:
        assert receiver.ledger.summary().events == 3
        assert [one.kind for one in receiver.ledger.violations] == ["gap"]
        assert receiver.ledger.terminal("f") == "workflow_completed"
        assert await sender.batch(event("e", 2), event("e", 3)) == {"e": 3}
        assert receiver.ledger.summary().duplicates == 1
    again = Ledger(store)
    again.close()
    assert again.highest("e") == 3
    assert WorkflowProgressEvent.FromString(again.encoded("e")[2]).sequence_number == 3


async def test_listeners_hear_each_event_once() -> None:
    heard: list[int] = []
    async with receiving() as (receiver, port), caller(port) as sender:
        receiver._listener = lambda one: heard.append(one.sequence_number)
        await sender.batch(event("e", 1), event("e", 2))
        await sender.batch(event("e", 2), event("e", 3))
    assert heard == [1, 2, 3]


def test_events_print_in_the_json_form_of_protobuf() -> None:
    failed = event("e", 7, "task_failed", task_name="t")
    failed.timestamp_ms = 1_700_000_000_000
    failed.error.CopyFrom(ErrorDetails(code="EXECUTION_ERROR", status=404))
    assert event_fields(failed) == {
        "workflowExecutionId": "e",
        "eventType": "task_failed",
        "taskName": "t",
        "timestampMs": "1700000000000",
        "error": {"code": "EXECUTION_ERROR", "status": 404},
        "sequenceNumber": "7",
    }


def test_every_field_of_an_event_prints_as_protobuf_would() -> None:
    """A field that is new must be among them: what cannot be written, a receiver refuses for ever."""
    whole = WorkflowProgressEvent()
    for field in WorkflowProgressEvent.DESCRIPTOR.fields:
        if field.message_type is not None:
            getattr(whole, field.name).CopyFrom(ErrorDetails(code="c", message="m", status=-1, title="t"))
        elif field.is_repeated:
            getattr(whole, field.name).extend([2, 0, 300])
        else:
            setattr(whole, field.name, "text" if field.cpp_type == field.CPPTYPE_STRING else 7)
    assert len(whole.ListFields()) == len(WorkflowProgressEvent.DESCRIPTOR.fields)
    assert orjson.loads(orjson.dumps(event_fields(whole))) == MessageToDict(whole)


@contextlib.contextmanager
def command(*flags: str) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """`fastrunner receiver`, and the first line it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fastrunner", "receiver", "--port", "0", *flags],
        cwd=ROOT,
        env={**os.environ, "FASTRUNNER_RECEIVER_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().decode()
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("second", "code"), [(2, 0), (5, 1)])
async def test_the_command_prints_events_and_a_verdict(second: int, code: int) -> None:
    with command("--json") as (process, line):
        async with caller(int(orjson.loads(line)["listening"].rpartition(":")[2])) as sender:
            await sender.batch(event("e", 1), event("e", second, "workflow_completed"))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    lines = [orjson.loads(line) for line in out.splitlines()]
    assert process.returncode == code
    assert lines[0]["sequenceNumber"] == "1"
    assert lines[-1]["summary"]["violations"] == code
    assert [one["kind"] for one in lines[-1]["violations"]] == ["gap"] * code


async def test_the_command_shows_words_from_outside_as_they_are() -> None:
    """On one line, with escapes, and no brackets taken for markup."""
    with command() as (process, line):
        async with caller(int(line.partition(";")[0].rpartition(":")[2])) as sender:
            await sender.batch(event("[/x]", 1, "workflow\nstarted\x1b[2J"), event("[/x]", 3))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=10)
    lines = out.decode().splitlines()
    assert lines[0].endswith(r"[/x]    1  workflow\nstarted\x1b[2J")
    assert any(line.startswith("[/x]: gap: ") for line in lines)
    assert process.returncode == 1


def test_a_taken_port_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run_receiver(ReceiverOptions(port=taken.getsockname()[1])) == 2
    assert "cannot listen on" in capsys.readouterr().err
