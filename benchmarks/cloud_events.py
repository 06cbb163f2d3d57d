"""Support: how many CloudEvents a runner takes in a second, durably, and for how much processor time.

    python -m benchmarks.cloud_events [--workers 2] [--seconds 10] [--clients 4] [--batch 500] [--way grpc|http]

Clients are processes that send batches of new events one after the other over one connection each. Their requests are
made beforehand, so what they take of the processor is little, but it is of the same machine. What counts is what was
answered; at the end the file is read and has exactly that.
"""

import argparse
import asyncio
import http.client
import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from benchmarks.servers import children, processor_s, runner
from fastrunner._pb.ai.stigmer.workflow.runner.v1.events_pb2 import (
    CloudEvent,
    CloudEventAttributeValue,
    SendEventsRequest,
)
from fastrunner.engine.embedded.store.seals import Seals
from fastrunner.events.bus import EventBus
from fastrunner.service.methods import COMMAND_SERVICE
from tests.integration.runner_process import RunnerProcess

_PATH = f"/{COMMAND_SERVICE}/SendEvents"
_DATA = {"order": 7, "customer": "c-1029", "total": 129.5, "lines": ["sku-1", "sku-2"]}


def _events(client: int, batch: int, count: int) -> list[dict[str, object]]:
    """New events of some 230 bytes."""
    return [
        {
            "specversion": "1.0",
            "id": f"{client}-{batch}-{number}",
            "source": "/shop/orders",
            "type": "order.placed",
            "time": "2026-01-31T12:00:00Z",
            "subject": f"order-{number}",
            "data": _DATA,
        }
        for number in range(count)
    ]


def _message(event: dict[str, object]) -> CloudEvent:
    attributes = {name: CloudEventAttributeValue(ce_string=str(event[name])) for name in ("time", "subject")}
    return CloudEvent(
        id=str(event["id"]),
        source=str(event["source"]),
        spec_version="1.0",
        type=str(event["type"]),
        attributes=attributes,
        text_data=json.dumps(event["data"]),
    )


def _request(way: str, events: list[dict[str, object]]) -> bytes:
    if way == "http":
        return json.dumps(events).encode()
    return SendEventsRequest(events=[_message(event) for event in events]).SerializeToString()


def _sender(way: str, port: int) -> Callable[[bytes], None]:
    """What sends a request over one connection, and waits for its answer."""
    if way == "http":
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "application/cloudevents-batch+json"}

        def post(body: bytes) -> None:
            connection.request("POST", "/events", body, headers)
            answer = connection.getresponse()
            text = answer.read()
            assert answer.status == 202, text

        return post
    options = (("grpc.use_local_subchannel_pool", 1),)
    invoke = grpc.insecure_channel(f"127.0.0.1:{port}", options=options).unary_unary(_PATH, bytes, bytes)

    def call(body: bytes) -> None:
        invoke(body, timeout=60)

    return call


def _client(
    number: int, way: str, port: int, size: int, seconds: float, made: object, results: "multiprocessing.Queue[int]"
) -> None:
    requests = [_request(way, _events(number, batch, size)) for batch in range(int(seconds * 40_000 / size) + 1)]
    send = _sender(way, port)
    made.wait()  # type: ignore[attr-defined]
    until_s = time.monotonic() + seconds
    sent = 0
    for request in requests:
        if time.monotonic() >= until_s:
            break
        send(request)
        sent += size
    results.put(sent)


def _kept(folder: Path) -> int:
    bus = EventBus(folder, lambda: None, Seals(), 600.0)
    count = after = 0
    while page := bus.after(after, 10_000):
        count += len(page)
        after = page[-1].key
    asyncio.run(bus.close())
    return count


def _measure(tree: RunnerProcess, options: argparse.Namespace) -> tuple[int, float, float]:
    """Events taken, seconds, and seconds of the processor."""
    context = multiprocessing.get_context("spawn")
    made, results = context.Barrier(options.clients + 1), context.Queue(options.clients)
    port = tree.ports["http_port" if options.way == "http" else "grpc_port"]
    clients = [
        context.Process(target=_client, args=(number, options.way, port, options.batch, options.seconds, made, results))
        for number in range(options.clients)
    ]
    for client in clients:
        client.start()
    made.wait()
    began_s, busy_s = time.monotonic(), sum(map(processor_s, children(tree.process.pid)))
    sent = sum(results.get() for _ in clients)
    took_s = time.monotonic() - began_s
    busy_s = sum(map(processor_s, children(tree.process.pid))) - busy_s
    for client in clients:
        client.join()
    return sent, took_s, busy_s


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--way", choices=("grpc", "http"), default="grpc")
    options = parser.parse_args()
    with runner(options.workers) as tree:
        sent, took_s, busy_s = _measure(tree, options)
        kept = _kept(tree.data_dir)
    assert kept == sent, f"{sent} were answered, and {kept} are there"
    print(
        f"{options.way}, {options.workers} workers, batches of {options.batch}: {sent / took_s:,.0f} events/s, "
        f"{busy_s / sent * 1e6:.1f} us of the runner's processor time per event; all {kept:,} are there"
    )


if __name__ == "__main__":
    main()
