"""The callback pipeline against a real receiver: order, batches, the fallback, refusals, lost data, drain, TLS."""

import asyncio
import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import (
    ProgressAcknowledgement,
    ProgressAckResponse,
    ReportProgressBatchRequest,
    ReportProgressBatchResponse,
)
from fastrunner.base import clock
from fastrunner.base.limits import CALLBACK_IN_FLIGHT_MAX, OUTBOX_AGE_S_MAX
from fastrunner.callback import CallbackPipeline
from fastrunner.config import ConfigurationError, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import UnacknowledgedEvents
from fastrunner.stigmer.receiver import Receiver, ReceiverOptions
from tests.integration.callbacks import (
    TOKEN,
    ScriptedReceiver,
    SqliteOutbox,
    pipeline_to,
    receiving,
    row,
    rows_of,
    until,
    value,
)
from tests.outside import require_tool
from tests.ports import free_port

CERTIFICATES = Path(__file__).parent.parent / "certificates"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[SqliteOutbox]:
    box = SqliteOutbox(tmp_path / "outbox.db")
    yield box
    box.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def assert_clean(receiver: Receiver, executions: int, events: int) -> None:
    """Everything arrived, whole and in order."""
    assert receiver.ledger.violations == []
    summary = receiver.ledger.summary()
    assert (summary.executions, summary.finished, summary.events) == (executions, executions, executions * events)


async def test_events_arrive_in_order_as_stored_and_in_batches(outbox: SqliteOutbox, metrics: Metrics) -> None:
    rows = [rows_of(f"e-{number}", 4, 5) for number in range(300)]
    async with receiving() as (receiver, port), pipeline_to(port, outbox, metrics):
        for commit in zip(*rows, strict=True):
            outbox.commit(list(commit))
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert_clean(receiver, 300, 20)
    sent = b"".join(part.messages for part in rows[7])
    assert receiver.ledger.encoded("e-7") == [
        event.SerializeToString() for event in ReportProgressBatchRequest.FromString(sent).events
    ]
    assert receiver.ledger.summary().duplicates == 0
    assert receiver.calls["ReportProgressBatch"] <= 40
    assert receiver.calls["ReportProgress"] == 0
    assert value(metrics, "callback_events", outcome="acknowledged") == 6000
    assert value(metrics, "callback_queue_events") == 0


async def test_an_execution_is_acknowledged_once_per_batch(outbox: SqliteOutbox) -> None:
    async with receiving() as (_, port), pipeline_to(port, outbox):
        outbox.commit(rows_of("one", 10, 3))
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert outbox.acknowledgements == [("one", 30)]


async def test_a_row_beyond_a_batch_travels_in_parts(outbox: SqliteOutbox) -> None:
    rows = [row("many", 1, 1800, ends=True), row("large", 1, 40, ends=True, filler="x" * 65_000)]
    async with receiving() as (receiver, port), pipeline_to(port, outbox):
        outbox.commit(rows)
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert receiver.ledger.violations == []
    assert (receiver.ledger.highest("many"), receiver.ledger.highest("large")) == (1800, 40)


async def test_rows_from_before_the_start_are_delivered_before_new_ones_of_the_same_execution(
    outbox: SqliteOutbox,
) -> None:
    outbox.announcing = False
    outbox.commit([part for number in range(50) for part in rows_of(f"e-{number}", 4, 5)[:3]])
    outbox.announcing = True
    async with receiving() as (receiver, port), pipeline_to(port, outbox):
        outbox.commit([rows_of(f"e-{number}", 4, 5)[3] for number in range(50)])
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert_clean(receiver, 50, 20)


async def test_an_execution_acknowledged_before_the_start_goes_on(outbox: SqliteOutbox) -> None:
    parts = rows_of("e", 4, 5)
    outbox.announcing = False
    outbox.commit(parts[:2])
    outbox.announcing = True
    async with receiving() as (receiver, port):
        async with pipeline_to(port, outbox):
            await until(lambda: outbox.unacknowledged_count == 0, "the first half")
        async with pipeline_to(port, outbox):
            outbox.commit(parts[2:])
            await until(lambda: outbox.unacknowledged_count == 0, "the second half")
    assert_clean(receiver, 1, 20)
    assert receiver.ledger.summary().duplicates == 0


async def test_a_receiver_without_batches_gets_one_event_per_call(outbox: SqliteOutbox, metrics: Metrics) -> None:
    receiver = ScriptedReceiver([], no_batch=True, delay_ms=2)
    rows = [rows_of(f"e-{number}", 2, 3) for number in range(200)]
    async with receiving(receiver) as (_, port), pipeline_to(port, outbox, metrics):
        for commit in zip(*rows, strict=True):
            outbox.commit(list(commit))
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert_clean(receiver, 200, 6)
    assert receiver.ledger.summary().duplicates == 0
    assert 1 < receiver.at_once_max <= CALLBACK_IN_FLIGHT_MAX
    assert value(metrics, "callback_attempts", method="ReportProgressBatch", code="UNIMPLEMENTED") <= 4
    assert value(metrics, "callback_attempts", method="ReportProgress", code="OK") == 1200


async def test_batches_are_tried_again_after_a_reconnect(outbox: SqliteOutbox) -> None:
    async with AsyncExitStack() as stack:
        async with receiving(no_batch=True) as (_, port):
            pipeline = await stack.enter_async_context(pipeline_to(port, outbox))
            outbox.commit(rows_of("first", 1, 3))
            await until(lambda: outbox.unacknowledged_count == 0, "the first, one by one")
        outbox.commit(rows_of("second", 1, 3))
        await until(lambda: pipeline.suspended, "the receiver is gone")
        async with receiving(port=port) as (receiver, _):
            await until(lambda: outbox.unacknowledged_count == 0, "the second, in a batch")
    assert receiver.calls == {"ReportProgress": 0, "ReportProgressBatch": 1}


@pytest.mark.parametrize("no_batch", [False, True])
async def test_lost_calls_and_lost_answers_lose_no_event(outbox: SqliteOutbox, no_batch: bool) -> None:
    count = 20 if no_batch else 150
    rows = [rows_of(f"e-{number}", 2, 3) for number in range(count)]
    async with receiving(fail_rate=0.2, no_batch=no_batch) as (receiver, port), pipeline_to(port, outbox):
        for commit in zip(*rows, strict=True):
            outbox.commit(list(commit))
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged", 40)
    assert_clean(receiver, count, 6)


class SmallBites(Receiver):
    """Takes at most two events of each execution from a batch."""

    async def report_batch(self, request: bytes, context: Any) -> bytes:
        seen: dict[str, int] = {}
        answer = {}
        for event in ReportProgressBatchRequest.FromString(request).events:
            name = event.workflow_execution_id
            seen[name] = seen.get(name, 0) + 1
            if seen[name] <= 2:
                assert self.ledger.take(event, event.SerializeToString())
            answer[name] = self.ledger.highest(name)
        acknowledgements = [
            ProgressAcknowledgement(workflow_execution_id=name, sequence_number=sequence)
            for name, sequence in answer.items()
        ]
        return ReportProgressBatchResponse(acknowledgements=acknowledgements).SerializeToString()


async def test_what_was_not_acknowledged_is_sent_again_from_there(outbox: SqliteOutbox) -> None:
    async with receiving(SmallBites(ReceiverOptions())) as (receiver, port), pipeline_to(port, outbox):
        outbox.commit([part for number in range(5) for part in rows_of(f"e-{number}", 2, 5)])
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert_clean(receiver, 5, 10)
    assert receiver.ledger.summary().duplicates == 0


async def test_a_receiver_that_lost_its_data_gets_everything_again(outbox: SqliteOutbox) -> None:
    parts = rows_of("e", 4, 5)
    async with AsyncExitStack() as stack:
        async with receiving() as (_, port):
            await stack.enter_async_context(pipeline_to(port, outbox))
            outbox.commit(parts[:2])
            await until(lambda: outbox.unacknowledged_count == 0, "the first half")
        async with receiving(port=port) as (receiver, _):
            outbox.commit(parts[2:])
            await until(lambda: receiver.ledger.highest("e") == 20, "all events, the old ones too")
    assert receiver.ledger.encoded("e") == [
        event.SerializeToString()
        for part in parts
        for event in ReportProgressBatchRequest.FromString(part.messages).events
    ]


class Picky(Receiver):
    """Refuses any call that holds a certain event, in one of the ways receivers do."""

    code: grpc.StatusCode | None = grpc.StatusCode.INVALID_ARGUMENT
    angry = True

    async def report_batch(self, request: bytes, context: Any) -> bytes:
        events = ReportProgressBatchRequest.FromString(request).events
        if self.angry and any(e.workflow_execution_id == "e-3" and e.sequence_number == 4 for e in events):
            if self.code is None:
                raise RuntimeError("a bug of the receiver")
            await context.abort(self.code, "I do not like event 4")
        return await super().report_batch(request, context)


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL])
async def test_a_refused_event_holds_up_its_own_execution_only(
    outbox: SqliteOutbox, caplog: pytest.LogCaptureFixture, code: grpc.StatusCode
) -> None:
    receiver = Picky(ReceiverOptions(token=TOKEN))
    receiver.code = code
    async with receiving(receiver) as (_, port), pipeline_to(port, outbox) as pipeline:
        outbox.commit([part for number in range(20) for part in rows_of(f"e-{number}", 2, 5)])
        await until(lambda: outbox.unacknowledged_count == 7, "all but the refused event and those behind it")
        assert receiver.ledger.highest("e-3") == 3
        assert not pipeline.suspended
        outbox.commit(rows_of("later", 1, 10))
        await until(lambda: receiver.ledger.highest("later") == 10, "others go on")
        receiver.angry = False
        await until(lambda: outbox.unacknowledged_count == 0, "the refused one as well")
    assert_clean(receiver, 21, 10)
    assert any(getattr(record, "execution_id", "") == "e-3" for record in caplog.records)


class Unwilling(Receiver):
    """Says no a number of times."""

    noes = 2

    async def report(self, request: bytes, context: Any) -> bytes:
        if self.noes:
            self.noes -= 1
            return b""
        return await super().report(request, context)


async def test_an_event_that_is_not_taken_is_sent_again(outbox: SqliteOutbox, metrics: Metrics) -> None:
    receiver = Unwilling(ReceiverOptions(token=TOKEN, no_batch=True))
    async with receiving(receiver) as (_, port), pipeline_to(port, outbox, metrics) as pipeline:
        outbox.commit(rows_of("e", 1, 3))
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
        assert not pipeline.suspended
    assert_clean(receiver, 1, 3)
    assert value(metrics, "callback_events", outcome="retried") == 2


async def test_only_what_was_taken_counts_as_ok(
    outbox: SqliteOutbox, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    """`success: false` is no success, and the receiver's words start no line."""
    receiver = Refusing(ReceiverOptions(token=TOKEN, no_batch=True))
    async with receiving(receiver) as (_, port), pipeline_to(port, outbox, metrics):
        outbox.commit(rows_of("e", 1, 1))
        await until(lambda: "NOT_TAKEN" in caplog.text, "said why")
    assert value(metrics, "callback_attempts", method="ReportProgress", code="OK") == 0
    assert value(metrics, "callback_attempts", method="ReportProgress", code="NOT_TAKEN") >= 3
    assert r"(NOT_TAKEN: not\nnow \x1b[2J)" in caplog.text


class Refusing(Receiver):
    """Answers with a failure and words nobody wants in a log."""

    async def report(self, request: bytes, context: Any) -> bytes:
        return ProgressAckResponse(success=False, message="not\nnow \x1b[2J").SerializeToString()


async def test_what_grpc_will_not_send_suspends_and_is_said_once(
    outbox: SqliteOutbox, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    """An error on this side comes again at once: it is met with pauses, like an outage."""
    config = load_config(stigmer_service_endpoint=f"127.0.0.1:{free_port()}", stigmer_service_use_tls=False)
    broken = config.model_copy(update={"stigmer_service_api_key": SecretStr("two\nlines")})
    pipeline = CallbackPipeline(broken, outbox, metrics)
    await pipeline.start()
    outbox.commit(rows_of("e", 1, 3))
    await until(
        lambda: value(metrics, "callback_attempts", method="ReportProgressBatch", code="NOT_SENT") >= 3, "tried"
    )
    said = [record for record in caplog.records if "NOT_SENT" in record.getMessage()]
    assert pipeline.suspended
    await pipeline.drain(2.0)
    assert len(said) == 1
    assert "two" not in caplog.text
    assert outbox.unacknowledged_count == 3


class Faulty:
    """A client with a fault of ours in it."""

    calls = 0

    async def report_batch(self, request: bytes, patient: bool) -> dict[str, int]:
        self.calls += 1
        raise KeyError("a fault of ours")

    async def report(self, event: bytes, patient: bool) -> None:
        raise KeyError("a fault of ours")

    async def close(self) -> None:
        pass


async def test_a_fault_of_ours_does_not_spin(
    outbox: SqliteOutbox, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(stigmer_service_endpoint="127.0.0.1:1", stigmer_service_use_tls=False)
    client = Faulty()
    pipeline = CallbackPipeline(config, outbox, metrics, make_client=lambda *_: client)
    await pipeline.start()
    outbox.commit(rows_of("e", 1, 3))
    await until(lambda: client.calls >= 3, "probed")
    assert pipeline.suspended
    await pipeline.drain(2.0)
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_two_failures_are_not_an_outage_and_three_are(outbox: SqliteOutbox, metrics: Metrics) -> None:
    unavailable = grpc.StatusCode.UNAVAILABLE
    receiver = ScriptedReceiver([unavailable, unavailable])
    async with receiving(receiver) as (_, port), pipeline_to(port, outbox, metrics) as pipeline:
        outbox.commit(rows_of("first", 1, 2))
        await until(lambda: outbox.unacknowledged_count == 0, "taken at the third attempt")
        assert value(metrics, "callback_events", outcome="failed") == 0
        receiver.answers, receiver.script = 0, [unavailable] * 3
        outbox.commit(rows_of("second", 1, 2))
        await until(lambda: pipeline.suspended, "suspended after the third attempt")
        assert receiver.answers == 3
        await until(lambda: outbox.unacknowledged_count == 0, "taken by the probe")
        await until(lambda: not pipeline.suspended, "goes on")
    assert value(metrics, "callback_events", outcome="failed") == 2
    assert_clean(receiver, 2, 2)


async def test_a_wrong_token_suspends_at_once_and_is_not_shown(
    outbox: SqliteOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with receiving(token="another") as (receiver, port), pipeline_to(port, outbox) as pipeline:
        outbox.commit(rows_of("e", 1, 3))
        await until(lambda: pipeline.suspended, "suspended")
        assert receiver.calls == {"ReportProgress": 0, "ReportProgressBatch": 0}
        await until(lambda: "UNAUTHENTICATED" in caplog.text, "said why")
    async with receiving() as (receiver, port), pipeline_to(port, outbox):
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged with the right one")
    assert_clean(receiver, 1, 3)
    assert TOKEN not in caplog.text


async def test_a_receiver_that_repeats_the_key_does_not_get_it_into_logs(
    outbox: SqliteOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    receiver = ScriptedReceiver([grpc.StatusCode.PERMISSION_DENIED])
    async with receiving(receiver) as (_, port), pipeline_to(port, outbox):
        outbox.commit(rows_of("e", 1, 3))
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert "your key is ***" in caplog.text
    assert TOKEN not in caplog.text


async def test_events_too_old_are_dropped_counted_and_logged(
    outbox: SqliteOutbox, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    old_ms = time.time_ns() // 1_000_000 - (OUTBOX_AGE_S_MAX + 60) * 1000
    outbox.announcing = False
    outbox.commit([row("old", 1, 3, timestamp_ms=old_ms, ends=True), *rows_of("young", 1, 3)])
    async with receiving() as (receiver, port), pipeline_to(port, outbox, metrics):
        await until(lambda: outbox.unacknowledged_count == 0, "nothing is left")
    assert receiver.ledger.executions() == ["young"]
    assert value(metrics, "callback_events", outcome="dropped") == 3
    assert outbox.given_up == [("old", 3)]
    assert {execution_id for execution_id, _ in outbox.acknowledgements} == {"young"}
    assert any(getattr(record, "execution_id", "") == "old" for record in caplog.records)


async def test_setting_the_clock_makes_no_event_old(
    outbox: SqliteOutbox, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wall clock steps eight days while the receiver is away: nothing is given up."""
    port = free_port()
    outbox.announcing = False
    outbox.commit(rows_of("before", 1, 3))
    outbox.announcing = True
    async with pipeline_to(port, outbox, metrics) as pipeline:
        outbox.commit(rows_of("waiting", 1, 3))
        await until(lambda: pipeline.suspended, "the receiver is away")
        stepped = SimpleNamespace(**vars(time))
        stepped.time_ns = lambda: time.time_ns() + 8 * 24 * 3600 * 1_000_000_000
        monkeypatch.setattr(clock, "time", stepped)
        async with receiving(port=port) as (receiver, _):
            await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert set(receiver.ledger.executions()) == {"before", "waiting"}
    assert value(metrics, "callback_events", outcome="dropped") == 0


async def test_dropped_events_that_the_receiver_asks_for_are_sent_after_all(
    outbox: SqliteOutbox, metrics: Metrics
) -> None:
    old_ms = time.time_ns() // 1_000_000 - (OUTBOX_AGE_S_MAX + 60) * 1000
    outbox.announcing = False
    outbox.commit([row("long", 1, 3, timestamp_ms=old_ms), row("long", 4, 6, timestamp_ms=old_ms)])
    outbox.commit([row("long", 7, 9, ends=True)])
    async with receiving() as (receiver, port), pipeline_to(port, outbox, metrics):
        await until(lambda: receiver.ledger.highest("long") == 9, "the whole execution is there")
        await until(lambda: outbox.unacknowledged_count == 0, "nothing is left")
    assert value(metrics, "callback_events", outcome="dropped") == 6
    # It saw the gap before it asked.
    assert [violation.kind for violation in receiver.ledger.violations] == ["gap"]


async def test_a_lookup_that_finds_no_room_waits_for_a_delivery(
    outbox: SqliteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = 0
    read = outbox.unacknowledged_of

    async def counted(execution_id: str, from_sequence: int, size_bytes_max: int) -> list[UnacknowledgedEvents]:
        nonlocal looked_up
        looked_up += 1
        return await read(execution_id, from_sequence, size_bytes_max)

    monkeypatch.setattr(outbox, "unacknowledged_of", counted)
    # Room for one and a half rows: a lane that is looked up while another one is under way has to wait.
    async with receiving(delay_ms=50) as (receiver, port), pipeline_to(port, outbox, queue_events_max=90) as pipeline:
        for part in range(6):
            outbox.commit([row(f"e-{number}", 1 + part * 30, part * 30 + 30, ends=part == 5) for number in range(4)])
            await asyncio.sleep(0.03)
        await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
        assert pipeline.events_in_memory == 0
    assert_clean(receiver, 4, 180)
    assert looked_up < 200


async def test_drain_flushes_what_is_in_memory(outbox: SqliteOutbox) -> None:
    async with receiving(delay_ms=20) as (receiver, port), pipeline_to(port, outbox) as pipeline:
        outbox.commit([part for number in range(200) for part in rows_of(f"e-{number}", 1, 20)])
        await pipeline.drain(10.0)
        assert outbox.unacknowledged_count == 0
    assert_clean(receiver, 200, 20)


async def test_drain_does_not_wait_for_a_receiver_that_is_away(outbox: SqliteOutbox) -> None:
    async with pipeline_to(free_port(), outbox) as pipeline:
        outbox.commit(rows_of("e", 1, 3))
        await until(lambda: pipeline.suspended, "suspended")
        begin = time.monotonic()
        await pipeline.drain(30.0)
        assert time.monotonic() - begin < 12
    assert outbox.unacknowledged_count == 3


async def test_callbacks_over_tls(outbox: SqliteOutbox) -> None:
    tls: dict[str, Any] = {"tls_certificate": CERTIFICATES / "server.pem", "tls_key": CERTIFICATES / "server.pem"}
    async with receiving(**tls, host="localhost") as (receiver, port):
        secure: dict[str, Any] = {"stigmer_service_endpoint": f"localhost:{port}", "stigmer_service_use_tls": True}
        async with pipeline_to(port, outbox, callback_ca_file=CERTIFICATES / "ca.pem", **secure):
            outbox.commit(rows_of("e", 1, 3))
            await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
        async with pipeline_to(port, outbox, **secure) as distrustful:
            outbox.commit(rows_of("f", 1, 3))
            await until(lambda: distrustful.suspended, "an authority nobody vouches for is refused")
    assert receiver.ledger.executions() == ["e"]


def own_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    names = ("-nodes", "-subj", f"/CN={name}", "-days", "1", "-keyout", key, "-out", certificate)
    subprocess.run([require_tool("openssl"), "req", "-x509", *curve, *names], check=True, capture_output=True)
    return certificate, key


async def test_callbacks_show_a_certificate_that_may_change(outbox: SqliteOutbox, tmp_path: Path) -> None:
    """The receiver knows one certificate: it is not the one that the runner has at first, but its next one."""
    (shown, key), (known, known_key) = own_certificate(tmp_path, "shown"), own_certificate(tmp_path, "known")
    mine = CERTIFICATES / "server.pem"
    tls: dict[str, Any] = {"tls_certificate": mine, "tls_key": mine, "tls_client_ca": known}
    async with receiving(**tls, host="localhost") as (_, port):
        secure: dict[str, Any] = {
            "stigmer_service_endpoint": f"localhost:{port}",
            "stigmer_service_use_tls": True,
            "callback_ca_file": CERTIFICATES / "ca.pem",
            "callback_certificate_file": shown,
            "callback_key_file": key,
        }
        async with pipeline_to(port, outbox, **secure) as pipeline:
            outbox.commit(rows_of("e", 1, 3))
            await until(lambda: pipeline.suspended, "an unknown certificate is refused")
            key.write_bytes(known_key.read_bytes())
            shown.write_bytes(known.read_bytes())
            await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")


async def test_key_file_is_read_again(outbox: SqliteOutbox, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also one that is another at the start of a worker than at that of the runner; keys are not shown."""
    file = tmp_path / "key"
    file.write_text("an-outdated-key")
    async with receiving() as (_, port):
        key_of_file: dict[str, Any] = {"token": None, "stigmer_service_api_key_file": file}
        async with pipeline_to(port, outbox, **key_of_file) as pipeline:
            outbox.commit(rows_of("e", 1, 3))
            await until(lambda: pipeline.suspended, "the outdated key is refused")
            file.write_text("\n")
            await until(lambda: "the key of before stays" in caplog.text, "a file of no use is told")
            file.write_text(f"{TOKEN}\n")
            await until(lambda: outbox.unacknowledged_count == 0, "all acknowledged")
    assert "an-outdated-key" not in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("receiver_tls", [False, True])
async def test_tls_on_one_side_only_is_told_with_its_setting(
    outbox: SqliteOutbox, caplog: pytest.LogCaptureFixture, receiver_tls: bool
) -> None:
    """What gRPC says of it names neither TLS nor what to do."""
    pem = CERTIFICATES / "server.pem"
    files: dict[str, Any] = {"tls_certificate": pem, "tls_key": pem} if receiver_tls else {}
    async with (
        receiving(**files) as (_, port),
        pipeline_to(port, outbox, stigmer_service_use_tls=not receiver_tls) as pipeline,
    ):
        outbox.commit(rows_of("e", 1, 3))
        await until(lambda: pipeline.suspended, "suspended")
    assert f"STIGMER_SERVICE_USE_TLS={str(receiver_tls).lower()}" in caplog.text


def test_settings_that_cannot_work_are_refused(outbox: SqliteOutbox, metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="STIGMER_SERVICE_ENDPOINT"):
        CallbackPipeline(load_config(), outbox, metrics)
    with pytest.raises(ConfigurationError, match="FASTRUNNER_CALLBACK_CA_FILE"):
        load_config(callback_ca_file="/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match=r"FASTRUNNER_CALLBACK_CA_FILE=.*: no certificates there"):
        load_config(callback_ca_file=__file__)
