"""`call: asyncapi` by the brokers that keep messages: whole workflows publish and consume over each of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.integration.asyncapi_calls import Calls, asyncapi_3, calls, publishing, soon, subscribing
from tests.integration.brokers import Broker
from tests.integration.test_asyncapi_kafka import Mock


@pytest.fixture
async def called() -> AsyncIterator[Calls]:
    async with calls() as made:
        yield made


@pytest.fixture
def jetstream(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(
        tmp_path, lambda port: ["nats-server", "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(tmp_path / "data")]
    )
    yield broker.start()
    broker.stop()


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Broker]:
    def command(port: int) -> list[str]:
        (tmp_path / "config").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\n")
        return ["mosquitto", "-c", str(tmp_path / "config")]

    broker = Broker(tmp_path, command)
    yield broker.start()
    broker.stop()


@pytest.fixture
def kafka() -> Iterator[Mock]:
    mock = Mock()
    yield mock
    mock.kill()


async def consumed(called: Calls, protocol: str, port: int, **bindings: Any) -> None:
    """A workflow that consumes gets what others publish, in their order, and passes over what is not meant."""
    document = asyncapi_3(protocol, f"127.0.0.1:{port}", **bindings)
    arguments = subscribing({"amount": 3}, filter="${ .payload.n % 2 == 0 }")
    listening = asyncio.create_task(called.output(document, arguments))
    async with calls() as publisher:
        number = 0
        # It gets what comes from its beginning on, which nobody sees from here.
        while not listening.done():
            sent = await publisher.output(document, publishing({"n": number}, headers={"trace": "t"}))
            assert sent["payload"] == {"n": number}
            number += 1
    messages = await soon(listening)
    numbers = [message["payload"]["n"] for message in messages]
    assert numbers == sorted(set(numbers))
    assert [number % 2 for number in numbers] == [0, 0, 0]
    if protocol != "mqtt":
        assert messages[0]["headers"]["trace"] == "t"


async def test_jetstream(called: Calls, jetstream: Broker) -> None:
    async with await nats.connect(f"nats://127.0.0.1:{jetstream.port}") as connection:
        streams = connection.jetstream()
        # Each execution of the test's publishes under one key, which a stream would store once.
        await streams.add_stream(name="ORDERS", subjects=["orders"], duplicate_window=0.1)
        await consumed(called, "nats", jetstream.port)
        # All that was given is acknowledged.
        [consumer] = await streams.consumers_info("ORDERS")
        assert consumer.num_ack_pending == 0


@pytest.mark.parametrize("protocol", ["mqtt", "mqtt5"])
async def test_mqtt(called: Calls, mosquitto: Broker, protocol: str) -> None:
    await consumed(called, protocol, mosquitto.port)


async def test_kafka(called: Calls, kafka: Mock) -> None:
    await consumed(called, "kafka", kafka.port, message={"bindings": {"kafka": {"key": {"const": "one"}}}})
