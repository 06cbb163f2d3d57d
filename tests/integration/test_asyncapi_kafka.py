"""Support: the client of Kafka against librdkafka's mock cluster: what docs/tasks.md promises.

The mock knows no users, so logging in is tried at a server that does nothing else.
"""

import asyncio
import dataclasses
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from fastrunner.base import limits
from fastrunner.config import Environment
from fastrunner.tasks.call_asyncapi.clients import Message, kafka
from tests.integration import brokers
from tests.integration.brokers import KEY, problem_of, soon, take, target_of


class Mock:
    """A broker, in a process of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.kafka_mock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock has those who join wait for those who have left, for as long as a member may be silent."""
    monkeypatch.setattr(limits, "ASYNCAPI_ACK_WAIT_S", 5.0)


@pytest.fixture
def server() -> Iterator[Mock]:
    mock = Mock()
    yield mock
    mock.kill()


async def test_publish_and_subscribe(server: Mock) -> None:
    bindings: dict[str, Any] = {
        "channel": {"topic": "orders.created"},
        "message": {"key": {"type": "string", "enum": ["till-1"]}},
        "operation": {"clientId": "till", "groupId": {"type": "string", "const": "tills"}},
    }
    target = target_of("kafka", server.port, "a channel", **bindings)
    subscription = await kafka.subscribe(target, "order-1/do~1hear")
    for number in range(3):
        await kafka.publish(target, Message(b"%d" % number, {"trace": "ä"}, "text/plain"), KEY)
    # Messages of one key come in their order.
    messages = await take(subscription, 3)
    assert [message.body for message in messages] == [b"0", b"1", b"2"]
    headers = {"idempotency-key": KEY, "content-type": "text/plain", "trace": "ä"}
    assert (messages[0].headers, messages[0].content_type) == (headers, "text/plain")
    await subscription.close()


async def test_what_was_not_taken_comes_again(server: Mock) -> None:
    target = target_of("kafka", server.port, "orders", message={"key": "one"})
    await kafka.publish(target, Message(b"before"), KEY)
    # Whoever has taken nothing yet misses nothing either.
    await (await kafka.subscribe(target, "order-1/do~1hear")).close()
    for number in range(3):
        await kafka.publish(target, Message(b"%d" % number), KEY)
    subscription = await kafka.subscribe(target, "order-1/do~1hear")
    assert [(await soon(subscription.next())).body for _ in range(3)] == [b"0", b"1", b"2"]
    await subscription.taken(1)
    await subscription.close()
    await kafka.publish(target, Message(b"3"), KEY)
    again = await kafka.subscribe(target, "order-1/do~1hear")
    assert [message.body for message in await take(again, 3)] == [b"1", b"2", b"3"]
    await again.close()


async def test_waiting_that_is_given_up_and_connections_that_break(server: Mock) -> None:
    target = target_of("kafka", server.port, "orders", message={"key": "one"})
    subscription = await kafka.subscribe(target, "consumer")
    for number in range(3):
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for connection in list(subscription._cluster._conns.values()):  # type: ignore[attr-defined]
            if connection._writer is not None:
                connection._writer.transport.abort()
        await kafka.publish(target, Message(b"%d" % number), KEY)
        assert [message.body for message in await take(subscription, 1)] == [b"%d" % number]
    await subscription.close()


async def test_a_cluster_that_stays_away(server: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_S_MAX", 0.3)
    subscription = await kafka.subscribe(target_of("kafka", server.port, "orders"), "consumer")
    server.kill()
    problem = await problem_of(subscription.next())
    assert (problem.type, problem.title) == ("communication", "Connection Failed")
    await subscription.close()


async def test_messages_that_are_too_large(server: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of("kafka", server.port, "orders")
    subscription = await kafka.subscribe(target, "consumer")
    await kafka.publish(target, Message(b"x" * 500_000), KEY)
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGE_SIZE_BYTES_MAX", 100_000)
    problem = await problem_of(subscription.next())
    assert (problem.type, problem.title) == ("communication", "Message Too Large")
    await subscription.close()


async def test_brokers_that_are_named_are_judged(server: Mock) -> None:
    """The first broker may be reached by its name; the address it gives for itself is none that may be."""
    surroundings = brokers.around(environment=Environment.PROD, allow=f"broker.test:{server.port}")
    target = target_of("kafka", server.port, "orders", surroundings=surroundings)
    for work in (kafka.publish(target, Message(b"1"), KEY), kafka.subscribe(target, "consumer")):
        problem = await problem_of(work)
        assert (problem.type, problem.status, problem.title) == ("configuration", 403, "Destination Refused")
        assert "127.0.0.1" in problem.sentence


class Login:
    """A broker that does nothing but log clients in."""

    def __init__(self, accepted: bytes) -> None:
        self.accepted = accepted
        self.shown: list[bytes] = []
        self.mechanism = ""
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                request = await reader.readexactly(size)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()
                return
            kind, _, number, name_size = struct.unpack(">hhih", request[:10])
            rest = request[10 + name_size :]
            if kind == 18:
                versions = [(3, 0, 1), (17, 0, 1), (18, 0, 0), (36, 0, 0)]
                answer = struct.pack(">hi", 0, len(versions)) + b"".join(
                    struct.pack(">hhh", *each) for each in versions
                )
            elif kind == 17:
                self.mechanism = rest[2:].decode()
                answer = struct.pack(">hi", 0, 1) + rest
            elif kind == 36:
                self.shown.append(rest[4:])
                refused = self.accepted not in rest
                answer = struct.pack(">h", 58 if refused else 0) + struct.pack(">h", -1) + struct.pack(">i", 0)
            else:
                # What comes after the login is not for it.
                writer.close()
                return
            answer = struct.pack(">i", number) + answer
            writer.write(struct.pack(">i", len(answer)) + answer)


LogIn = Callable[..., Awaitable[Login]]


@pytest.fixture
async def log_in() -> AsyncIterator[LogIn]:
    """Starts brokers that take what shows some bytes."""
    servers: list[asyncio.Server] = []

    async def start(accepted: bytes, **options: Any) -> Login:
        login = Login(accepted)
        servers.append(await asyncio.start_server(login.serve, "127.0.0.1", 0, **options))
        login.port = servers[-1].sockets[0].getsockname()[1]
        return login

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


BASIC = {"basic": {"username": "ann", "password": "correct horse"}}
BEARER = {"bearer": {"token": "sesame-street"}}


@pytest.mark.parametrize(
    ("policy", "mechanism", "shown"),
    [(BASIC, "PLAIN", b"\0ann\0correct horse"), (BEARER, "OAUTHBEARER", b"auth=Bearer sesame-street")],
)
async def test_credentials(log_in: LogIn, policy: Any, mechanism: str, shown: bytes) -> None:
    login = await log_in(shown)
    target = target_of("kafka", login.port, "orders", policy=policy)
    assert (await problem_of(kafka.publish(target, Message(b"1"), KEY))).title == "Connection Lost"
    assert login.mechanism == mechanism
    assert shown in login.shown[0]
    login.accepted = b"something else"
    for work in (kafka.publish(target, Message(b"1"), KEY), kafka.subscribe(target, "consumer")):
        problem = await problem_of(work)
        assert (problem.type, problem.status, problem.title) == ("communication", 401, "Login Refused")
        assert "horse" not in problem.sentence
        assert "sesame" not in problem.sentence


@pytest.mark.parametrize(
    ("schemes", "mechanism"),
    [
        (["scramSha256"], "SCRAM-SHA-256"),
        (["scramSha256", "scramSha512"], "SCRAM-SHA-512"),
        (["scramSha256", "plain"], "PLAIN"),
        (["X509"], "PLAIN"),
    ],
)
async def test_ways_to_show_a_password(log_in: LogIn, schemes: list[str], mechanism: str) -> None:
    login = await log_in(b"nothing")
    target = target_of("kafka", login.port, "orders", policy=BASIC)
    target = dataclasses.replace(target, security=tuple({"type": scheme} for scheme in schemes))
    assert (await problem_of(kafka.publish(target, Message(b"1"), KEY))).status == 401
    assert login.mechanism == mechanism


async def test_tls_by_name(log_in: LogIn) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(brokers.CERTIFICATES / "server.pem")
    login = await log_in(b"ann", ssl=context)

    def target(host: str) -> Any:
        return target_of("kafka-secure", login.port, "orders", host=host, is_tls=True, policy=BASIC)

    problem = await problem_of(kafka.publish(target("broker.test"), Message(b"1"), KEY))
    assert (problem.type, problem.title) == ("communication", "TLS Failed")
    assert login.shown == []
    assert (await problem_of(kafka.publish(target("localhost"), Message(b"1"), KEY))).title == "Connection Lost"
    assert len(login.shown) == 1


@pytest.mark.parametrize("address", ["", "orders/created", "a b", ".", "x" * 250])
async def test_addresses_that_are_no_topics(server: Mock, address: str) -> None:
    target = target_of("kafka", server.port, address)
    assert (await problem_of(kafka.publish(target, Message(b"1"), KEY))).type == "configuration"
    assert (await problem_of(kafka.subscribe(target, "consumer"))).type == "configuration"


async def test_bindings_that_are_none(server: Mock) -> None:
    target = target_of("kafka", server.port, "orders", operation={"groupId": 7})
    problem = await problem_of(kafka.subscribe(target, "consumer"))
    assert (problem.type, problem.sentence) == (
        "configuration",
        "the binding groupId is neither a string nor a schema of one",
    )


async def test_unreachable() -> None:
    await brokers.check_unreachable(kafka, "kafka")


async def test_refused_destinations(server: Mock) -> None:
    await brokers.check_destinations(kafka, "kafka", server.port)


async def test_cancel_in_flight() -> None:
    await brokers.check_cancel_in_flight(kafka, "kafka")
