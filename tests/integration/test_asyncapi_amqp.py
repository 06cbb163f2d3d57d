"""Support: the client of AMQP: what docs/tasks.md promises. RabbitMQ takes seconds to start and is no part of
`make tools`: what needs it is run by `make rabbitmq`.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, amqp
from tests.integration import brokers
from tests.integration.brokers import KEY, Broker, problem_of, soon, take, target_of
from tests.ports import free_port

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
rabbitmq = pytest.mark.rabbitmq
EXCHANGE = {"is": "routingKey", "exchange": {"name": "shop", "type": "topic"}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker, with TLS on the port after its own."""
    if not os.path.exists(RABBITMQ):
        pytest.skip("RabbitMQ is absent: apt-get install rabbitmq-server")
    folder = tmp_path_factory.mktemp("rabbitmq")
    names = free_port()
    environment = {
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names),
        "RABBITMQ_NODENAME": f"fastrunner{names}@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
    }
    pem = brokers.CERTIFICATES / "server.pem"
    secure = free_port()

    def command(port: int) -> list[str]:
        lines = [
            f"listeners.tcp.1 = 127.0.0.1:{port}",
            f"listeners.ssl.1 = 127.0.0.1:{secure}",
            f"ssl_options.certfile = {pem}",
            f"ssl_options.keyfile = {pem}",
            "ssl_options.verify = verify_none",
        ]
        (folder / "rabbitmq.conf").write_text("\n".join([*lines, ""]))
        return ["env", *(f"{name}={value}" for name, value in environment.items()), RABBITMQ]

    broker = Broker(folder, command, ready_s=90.0)
    broker.secure_port = secure  # type: ignore[attr-defined]
    broker.start()
    yield broker
    broker.stop()
    subprocess.run(["epmd", "-port", str(names), "-kill"], capture_output=True, timeout=30, check=False)


@rabbitmq
async def test_an_exchange_and_a_queue_of_ones_own(server: Broker) -> None:
    subscription = await amqp.subscribe(
        target_of("amqp", server.port, "orders.*", channel=EXCHANGE), "order-1/do~1hear"
    )
    target = target_of("amqp", server.port, "orders.created", channel=EXCHANGE)
    for number in range(3):
        await amqp.publish(target, Message(b"%d" % number, {"trace": "ä"}, "text/plain", "c-1"), KEY)
    messages = await take(subscription, 3)
    assert [message.body for message in messages] == [b"0", b"1", b"2"]
    assert messages[0] == Message(b"0", {"trace": "ä"}, "text/plain", "c-1")
    await subscription.close()


@rabbitmq
async def test_what_was_not_taken_comes_again(server: Broker) -> None:
    target = target_of("amqp", server.port, "again", channel=EXCHANGE)
    subscription = await amqp.subscribe(target, "again")
    for number in range(3):
        await amqp.publish(target, Message(b"%d" % number), KEY)
    assert [(await soon(subscription.next())).body for _ in range(3)] == [b"0", b"1", b"2"]
    await subscription.taken(1)
    await subscription.close()
    await amqp.publish(target, Message(b"3"), KEY)
    again = await amqp.subscribe(target, "again")
    assert [message.body for message in await take(again, 3)] == [b"1", b"2", b"3"]
    await again.close()


@rabbitmq
async def test_a_queue_is_shared(server: Broker) -> None:
    bindings = {"is": "queue", "queue": {"name": "work", "durable": True}}
    target = target_of("amqp", server.port, "a channel", channel=bindings)
    await amqp.publish(target, Message(b"1"), KEY)
    first = await amqp.subscribe(target, "one")
    assert (await soon(first.next())).body == b"1"
    second = await amqp.subscribe(target, "two")
    await amqp.publish(target, Message(b"2"), KEY)
    await first.close()
    assert sorted(message.body for message in await take(second, 2)) == [b"1", b"2"]
    await second.close()


@rabbitmq
async def test_without_bindings_the_address_is_a_queue(server: Broker) -> None:
    target = target_of("amqp", server.port, "plain")
    await amqp.publish(target, Message(b"1"), KEY)
    subscription = await amqp.subscribe(target, "consumer")
    assert (await soon(subscription.next())).body == b"1"
    await subscription.close()


@rabbitmq
async def test_waiting_may_be_given_up(server: Broker) -> None:
    target = target_of("amqp", server.port, "given-up")
    subscription = await amqp.subscribe(target, "consumer")
    for number in range(3):
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await amqp.publish(target, Message(b"%d" % number), KEY)
        assert [message.body for message in await take(subscription, 1)] == [b"%d" % number]
    await subscription.close()


@rabbitmq
async def test_what_nobody_takes(server: Broker) -> None:
    bindings: dict[str, Any] = {"channel": EXCHANGE, "operation": {"mandatory": True}}
    problem = await problem_of(amqp.publish(target_of("amqp", server.port, "nobody", **bindings), Message(b"1"), KEY))
    assert (problem.type, problem.title) == ("communication", "Not Routed")
    # Without it an exchange may have no listener.
    await amqp.publish(target_of("amqp", server.port, "nobody", channel=EXCHANGE), Message(b"1"), KEY)


@rabbitmq
async def test_an_exchange_that_is_not_there(server: Broker) -> None:
    target = target_of("amqp", server.port, "a", channel={"exchange": {"name": "unknown"}})
    for work in (amqp.publish(target, Message(b"1"), KEY), amqp.subscribe(target, "consumer")):
        problem = await problem_of(work)
        assert (problem.type, problem.sentence) == ("communication", "the broker has no such exchange or queue")


@rabbitmq
async def test_credentials(server: Broker) -> None:
    guest = {"basic": {"username": "guest", "password": "guest"}}
    await amqp.publish(target_of("amqp", server.port, "plain", policy=guest), Message(b"1"), KEY)
    wrong = {"basic": {"username": "guest", "password": "battery staple"}}
    for policy in (wrong, {"bearer": {"token": "t"}}):
        target = target_of("amqp", server.port, "plain", policy=policy)
        for work in (amqp.publish(target, Message(b"1"), KEY), amqp.subscribe(target, "consumer")):
            problem = await problem_of(work)
            assert (problem.type, problem.status, problem.title) == ("communication", 401, "Login Refused")
            assert "staple" not in problem.sentence
    problem = await problem_of(
        amqp.publish(target_of("amqp", server.port, "plain", path="/elsewhere"), Message(b"1"), KEY)
    )
    assert (problem.status, problem.title) == (403, "Permission Denied")


@rabbitmq
async def test_messages_that_are_too_large(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of("amqp", server.port, "large")
    subscription = await amqp.subscribe(target, "consumer")
    await amqp.publish(target, Message(b"x" * limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX), KEY)
    assert len((await take(subscription, 1))[0].body) == limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX
    await amqp.publish(target, Message(b"x" * 2_000), KEY)
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGE_SIZE_BYTES_MAX", 1_000)
    assert (await problem_of(subscription.next())).title == "Message Too Large"
    await subscription.close()


@rabbitmq
async def test_tls_by_name(server: Broker) -> None:
    port = server.secure_port  # type: ignore[attr-defined]
    await amqp.publish(target_of("amqps", port, "plain", host="localhost", is_tls=True), Message(b"1"), KEY)
    foreign = target_of("amqps", port, "plain", host="broker.test", is_tls=True)
    problem = await problem_of(amqp.publish(foreign, Message(b"1"), KEY))
    assert (problem.type, problem.title) == ("communication", "TLS Failed")


@rabbitmq
@pytest.mark.timeout(180)
async def test_a_broker_that_starts_again(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_INTERVAL_S", 0.2)
    target = target_of("amqp", server.port, "restart", channel=EXCHANGE)
    subscription = await amqp.subscribe(target, "restart")
    await amqp.publish(target, Message(b"1"), KEY)
    assert (await soon(subscription.next())).body == b"1"
    waiting = asyncio.create_task(subscription.next())
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await amqp.publish(target, Message(b"2"), KEY)
    # The first was not acknowledged, so it comes once more.
    assert [(await soon(waiting)).body, (await soon(subscription.next())).body] == [b"1", b"2"]
    await subscription.taken(3)
    await subscription.close()


@pytest.mark.parametrize(
    ("binding", "sentence"),
    [
        ({"is": "topic"}, "neither routingKey nor queue"),
        ({"exchange": {"name": "x" * 256}}, "exceeds 255 bytes"),
        ({"exchange": {"name": 7}}, "the binding name is no string"),
        ({"queue": "orders"}, "the binding queue is no object"),
    ],
)
async def test_bindings_that_are_none(binding: dict[str, Any], sentence: str) -> None:
    target = target_of("amqp", 1, "orders", channel=binding)
    for work in (amqp.publish(target, Message(b"1"), KEY), amqp.subscribe(target, "consumer")):
        problem = await problem_of(work)
        assert problem.type == "configuration"
        assert sentence in problem.sentence


@pytest.mark.parametrize(
    "message",
    [
        Message(b"", {"x" * 129: "y"}),
        Message(b"", {"é" * 65: "y"}),
        Message(b"", {}, "", "x" * 256),
        Message(b"", {}, "x" * 256),
    ],
)
async def test_texts_that_are_too_long(message: Message) -> None:
    """None of them is cut without a word."""
    problem = await problem_of(amqp.publish(target_of("amqp", free_port(), "orders"), message, KEY))
    assert (problem.type, problem.status, problem.title) == ("configuration", 400, "Invalid Binding")


async def test_unreachable() -> None:
    await brokers.check_unreachable(amqp, "amqp")


async def test_refused_destinations() -> None:
    await brokers.check_destinations(amqp, "amqp", 1)


async def test_cancel_in_flight() -> None:
    await brokers.check_cancel_in_flight(amqp, "amqp")
