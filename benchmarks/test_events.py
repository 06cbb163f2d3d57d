"""CloudEvents at a real runner with one worker: taken, waited for, emitted; each durable before it counts."""

import itertools
from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest

from benchmarks.loads import STREAM
from benchmarks.servers import runner
from benchmarks.workflows import approval, emitter
from fastrunner._pb.ai.stigmer.workflow.runner.v1.events_pb2 import CloudEvent, SendEventsRequest
from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import WorkflowExecuteInput, WorkflowProgressEvent
from tests.integration.wire import path

SENT = 100
LISTENERS = 50
EMITTED = 20
_numbers = itertools.count()


@pytest.fixture(scope="module")
def channel() -> Iterator[grpc.Channel]:
    with runner(1) as tree, grpc.insecure_channel(tree.target) as channel:
        yield channel


def send(channel: grpc.Channel, orders: list[str]) -> None:
    """An approval for each order, in one call."""
    events = [
        CloudEvent(id=f"e{next(_numbers)}", source="/bench", spec_version="1.0", type="order.approved",
                   text_data=f'{{"order": "{order}"}}')
        for order in orders
    ]  # fmt: skip
    channel.unary_unary(path("SendEvents"), None, None)(
        SendEventsRequest(events=events).SerializeToString(), timeout=30
    )


def executing(channel: grpc.Channel, execution_id: str, document: str, input_json: str = "") -> Iterator[bytes]:
    """The stream of a new execution's events."""
    request = WorkflowExecuteInput(
        workflow_execution_id=execution_id, workflow_yaml=document, input_json=input_json
    )  # fmt: skip
    stream: Any = channel.unary_stream(STREAM, None, None)(request.SerializeToString(), timeout=120)
    return cast(Iterator[bytes], stream)


def waiting(channel: grpc.Channel, orders: list[str], tasks: int = 0) -> list[Iterator[bytes]]:
    """Executions that wait, each for the approval of the order that it is called by, and then execute so many tasks."""
    document = approval(tasks)
    streams = [executing(channel, order, document, f'{{"order": "{order}"}}') for order in orders]
    for stream in streams:
        while WorkflowProgressEvent.FromString(next(stream)).event_type != "task_started":
            pass
    return streams


def new_orders(count: int) -> list[str]:
    return [f"o{next(_numbers)}" for _ in range(count)]


def ended(streams: list[Iterator[bytes]]) -> None:
    """Reads every stream to its end, which is a completed execution's."""
    for stream in streams:
        assert WorkflowProgressEvent.FromString(list(stream)[-1]).event_type == "workflow_completed"


def test_send_100_that_nobody_waits_for(benchmark: Any, channel: grpc.Channel) -> None:
    benchmark.extra_info["events"] = SENT
    benchmark(lambda: send(channel, [f"nobody-{number}" for number in range(SENT)]))


def heard(channel: grpc.Channel, orders: list[str], streams: list[Iterator[bytes]]) -> None:
    """Approves them all, and waits for their ends."""
    send(channel, orders)
    ended(streams)


def test_50_listeners_hear_theirs_and_end(benchmark: Any, channel: grpc.Channel) -> None:
    benchmark.extra_info["executions"] = LISTENERS

    def listening() -> tuple[tuple[Any, ...], dict[str, Any]]:
        orders = new_orders(LISTENERS)
        return (channel, orders, waiting(channel, orders)), {}

    benchmark.pedantic(heard, setup=listening, rounds=10, warmup_rounds=1)


def test_a_listener_of_1000_hears_its_own_and_ends(benchmark: Any, channel: grpc.Channel) -> None:
    """All others wait for orders of their own."""
    orders = new_orders(1_000)
    streams = waiting(channel, orders)

    def one() -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (channel, [orders.pop()], [streams.pop()]), {}

    benchmark.pedantic(heard, setup=one, rounds=50, warmup_rounds=1)
    heard(channel, orders, streams)


def test_emit_20_in_a_row(benchmark: Any, channel: grpc.Channel) -> None:
    benchmark.extra_info["events"] = EMITTED
    document = emitter(EMITTED)
    benchmark(lambda: ended([executing(channel, new_orders(1)[0], document)]))
