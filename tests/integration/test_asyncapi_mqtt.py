"""Support: the client of MQTT against a real broker, 3.1.1 and 5: what docs/tasks.md promises."""

import asyncio
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, mqtt
from tests.integration import brokers
from tests.integration.brokers import KEY, Broker, problem_of, soon, take, target_of

Starts = Callable[..., Broker]
VERSIONS = pytest.mark.parametrize("protocol", ["mqtt", "mqtt5"])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starts]:
    """Starts brokers, with lines of configuration, and remembers sessions when they end."""
    started: list[Broker] = []

    def start(config: str = "allow_anonymous true", listener: str = "") -> Broker:
        folder = tmp_path / f"mosquitto-{len(started)}"
        folder.mkdir()

        def command(port: int) -> list[str]:
            lines = [f"listener {port} 127.0.0.1", listener, config, "user root", "persistence true"]
            (folder / "config").write_text("\n".join([*lines, f"persistence_location {folder}/", ""]))
            return ["mosquitto", "-c", str(folder / "config")]

        started.append(Broker(folder, command).start())
        return started[-1]

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture
def server(start: Starts) -> Broker:
    return start()


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_publish_and_subscribe(server: Broker, protocol: str, qos: int) -> None:
    subscription = await mqtt.subscribe(
        target_of(protocol, server.port, "orders/+", operation={"qos": qos}), "consumer"
    )
    target = target_of(protocol, server.port, "orders/created", operation={"qos": qos})
    for number in range(3):
        await mqtt.publish(target, Message(b"%d" % number, {"trace": "ab"}, "text/plain", "c-1"), KEY)
    messages = await take(subscription, 3)
    assert [message.body for message in messages] == [b"0", b"1", b"2"]
    if protocol == "mqtt5":
        assert messages[0] == Message(b"0", {"idempotency-key": KEY, "trace": "ab"}, "text/plain", "c-1")
    else:
        assert messages[0] == Message(b"0")
    await subscription.close()


@VERSIONS
async def test_what_was_not_taken_comes_again(server: Broker, protocol: str) -> None:
    target = target_of(protocol, server.port, "orders/created")
    subscription = await mqtt.subscribe(target, "order-1/do~1hear")
    for number in range(3):
        await mqtt.publish(target, Message(b"%d" % number), KEY)
    assert [(await soon(subscription.next())).body for _ in range(3)] == [b"0", b"1", b"2"]
    await subscription.taken(1)
    await subscription.close()
    await mqtt.publish(target, Message(b"3"), KEY)
    again = await mqtt.subscribe(target, "order-1/do~1hear")
    assert [message.body for message in await take(again, 3)] == [b"1", b"2", b"3"]
    await again.close()


@VERSIONS
async def test_a_session_that_is_not_kept(server: Broker, protocol: str) -> None:
    target = target_of(protocol, server.port, "orders/created", server={"cleanSession": True, "clientId": "till-1"})
    subscription = await mqtt.subscribe(target, "consumer")
    await subscription.close()
    await mqtt.publish(target, Message(b"1"), KEY)
    again = await mqtt.subscribe(target, "consumer")
    await mqtt.publish(target_of(protocol, server.port, "orders/created"), Message(b"2"), KEY)
    assert (await soon(again.next())).body == b"2"
    await again.close()


@pytest.mark.parametrize(("kept_s", "expected"), [(0, b"2"), (60, b"1")])
async def test_a_session_of_mqtt_5_is_kept_for_a_while(
    server: Broker, kept_s: int, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_CONSUMER_KEPT_S", kept_s)
    target = target_of("mqtt5", server.port, "orders/created")
    await (await mqtt.subscribe(target, "consumer")).close()
    await mqtt.publish(target, Message(b"1"), KEY)
    again = await mqtt.subscribe(target, "consumer")
    await mqtt.publish(target, Message(b"2"), KEY)
    assert (await soon(again.next())).body == expected
    await again.close()


@VERSIONS
async def test_waiting_may_be_given_up(server: Broker, protocol: str) -> None:
    target = target_of(protocol, server.port, "orders/created")
    subscription = await mqtt.subscribe(target, "consumer")
    for number in range(5):
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await mqtt.publish(target, Message(b"%d" % number), KEY)
        assert [message.body for message in await take(subscription, 1)] == [b"%d" % number]
    await subscription.close()


@VERSIONS
async def test_retained_messages(server: Broker, protocol: str) -> None:
    target = target_of(protocol, server.port, "prices/tea", operation={"retain": True})
    await mqtt.publish(target, Message(b"7"), KEY)
    subscription = await mqtt.subscribe(target, "consumer")
    assert [message.body for message in await take(subscription, 1)] == [b"7"]
    await subscription.close()


@VERSIONS
async def test_a_broker_that_starts_again(server: Broker, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_INTERVAL_S", 0.05)
    target = target_of(protocol, server.port, "orders/created")
    subscription = await mqtt.subscribe(target, "consumer")
    await mqtt.publish(target, Message(b"1"), KEY)
    assert (await soon(subscription.next())).body == b"1"
    waiting = asyncio.create_task(subscription.next())
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    await mqtt.publish(target, Message(b"2"), KEY)
    # The first was not acknowledged, so it comes once more.
    bodies = [(await soon(waiting)).body, (await soon(subscription.next())).body]
    assert bodies == [b"1", b"2"]
    await subscription.taken(3)
    await subscription.close()


async def test_a_broker_that_stays_away(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_S_MAX", 0.2)
    subscription = await mqtt.subscribe(target_of("mqtt", server.port, "orders/created"), "consumer")
    server.kill()
    problem = await problem_of(subscription.next())
    assert (problem.type, problem.title) == ("communication", "Connection Failed")
    await subscription.close()


@VERSIONS
async def test_large_messages(server: Broker, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(protocol, server.port, "orders/created")
    subscription = await mqtt.subscribe(target, "consumer")
    for body in (b"x" * limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX, b"y" * 2_000):
        await mqtt.publish(target, Message(body), KEY)
        [message] = await take(subscription, 1)
        assert message.body == body
    await subscription.close()


async def test_messages_that_are_too_large(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of("mqtt", server.port, "orders/created")
    for size_bytes in (1_500, 10_000):
        subscription = await mqtt.subscribe(target, "consumer")
        monkeypatch.setattr(limits, "ASYNCAPI_MESSAGE_SIZE_BYTES_MAX", 1_000)
        await mqtt.publish(target, Message(b"x" * size_bytes), KEY)
        problem = await problem_of(subscription.next())
        assert (problem.type, problem.title) == ("communication", "Message Too Large")
        await subscription.close()
        forgetting = target_of("mqtt", server.port, "orders/created", server={"cleanSession": True})
        await (await mqtt.subscribe(forgetting, "consumer")).close()


async def test_more_than_waits_for_a_workflow(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGES_WAITING_SIZE_BYTES_MAX", 4_096)
    target = target_of("mqtt", server.port, "prices", operation={"qos": 0})
    subscription = await mqtt.subscribe(target, "consumer")
    for number in range(6):
        await mqtt.publish(target, Message(b"%d" % number), KEY)
    await brokers.overflown(subscription)
    assert [(await soon(subscription.next())).body for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    problem = await problem_of(subscription.next())
    assert (problem.type, problem.title) == ("communication", "Messages Lost")
    await subscription.close()


@pytest.fixture
def guarded(start: Starts, tmp_path: Path) -> Broker:
    """A broker that knows ann, who may use what is below `open`."""
    # Of "correct horse", as mosquitto_passwd -b writes it: PBKDF2 is its default, SHA-512 with salt is shorter.
    import base64
    import hashlib

    salt = b"0123456789ab"
    digest = hashlib.pbkdf2_hmac("sha512", b"correct horse", salt, 101)
    line = f"ann:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
    (tmp_path / "passwords").write_text(line)
    (tmp_path / "access").write_text("user ann\ntopic readwrite open/#\n")
    for name in ("passwords", "access"):
        (tmp_path / name).chmod(0o600)
    return start(f"allow_anonymous false\npassword_file {tmp_path}/passwords\nacl_file {tmp_path}/access")


@VERSIONS
async def test_credentials(guarded: Broker, protocol: str) -> None:
    ann = {"basic": {"username": "ann", "password": "correct horse"}}
    wrong = {"basic": {"username": "ann", "password": "battery staple"}}
    subscription = await mqtt.subscribe(target_of(protocol, guarded.port, "open/a", policy=ann), "consumer")
    await mqtt.publish(target_of(protocol, guarded.port, "open/a", policy=ann), Message(b"1"), KEY)
    assert (await soon(subscription.next())).body == b"1"
    await subscription.close()
    for policy in (wrong, None, {"bearer": {"token": "t"}}):
        target = target_of(protocol, guarded.port, "open/a", policy=policy)
        for work in (mqtt.publish(target, Message(b"1"), KEY), mqtt.subscribe(target, "consumer")):
            problem = await problem_of(work)
            assert (problem.type, problem.status, problem.title) == ("communication", 401, "Login Refused")
            assert "staple" not in problem.sentence


async def test_what_a_user_may_not_do(guarded: Broker) -> None:
    ann = {"basic": {"username": "ann", "password": "correct horse"}}
    target = target_of("mqtt5", guarded.port, "closed/a", policy=ann)
    problem = await problem_of(mqtt.publish(target, Message(b"1"), KEY))
    assert (problem.type, problem.status, problem.title) == ("communication", 403, "Permission Denied")


@VERSIONS
async def test_tls_by_name(start: Starts, protocol: str) -> None:
    pem = brokers.CERTIFICATES / "server.pem"
    port = start(listener=f"certfile {pem}\nkeyfile {pem}").port
    target = target_of(protocol, port, "a", host="localhost", is_tls=True)
    subscription = await mqtt.subscribe(target, "consumer")
    body = b"x" * 1_000_000
    await mqtt.publish(target, Message(body), KEY)
    assert (await soon(subscription.next())).body == body
    await subscription.close()
    untrusted = brokers.around(ssl_context=ssl.create_default_context())
    for refused in (
        target_of(protocol, port, "a", host="broker.test", is_tls=True),
        target_of(protocol, port, "a", host="localhost", is_tls=True, surroundings=untrusted),
    ):
        problem = await problem_of(mqtt.publish(refused, Message(b"1"), KEY))
        assert (problem.type, problem.title) == ("communication", "TLS Failed")


@pytest.mark.parametrize("address", ["", "a\0b", "a\nb", "orders/#/a", "orders+"])
async def test_addresses_that_are_no_topics(server: Broker, address: str) -> None:
    target = target_of("mqtt", server.port, address)
    assert (await problem_of(mqtt.publish(target, Message(b"1"), KEY))).type == "configuration"
    assert (await problem_of(mqtt.subscribe(target, "consumer"))).type == "configuration"


@pytest.mark.parametrize(
    ("place", "binding", "named"),
    [
        ("operation", {"qos": 3}, "qos"),
        ("operation", {"qos": True}, "qos"),
        ("server", {"keepAlive": "60"}, "keepAlive"),
        ("server", {"clientId": 7}, "clientId"),
    ],
)
async def test_bindings_that_are_none(server: Broker, place: str, binding: dict[str, Any], named: str) -> None:
    bindings: dict[str, Any] = {place: binding}
    target = target_of("mqtt", server.port, "orders", **bindings)
    problem = await problem_of(mqtt.publish(target, Message(b"1"), KEY))
    assert problem.type == "configuration"
    assert f"the binding {named} is" in problem.sentence


LONG = "x" * 65_536


@pytest.mark.parametrize(
    "message",
    [
        Message(b"", {"X": LONG}),
        Message(b"", {LONG: "x"}),
        Message(b"", {"X": "a\nb"}),
        Message(b"", {"X\0": "a"}),
        Message(b"", {"X": "\x7f"}),
        Message(b"", {}, "", LONG),
    ],
)
async def test_texts_that_are_none(server: Broker, message: Message) -> None:
    """Brokers hang up at control characters, and there is no place for more than 65535 bytes."""
    problem = await problem_of(mqtt.publish(target_of("mqtt5", server.port, "orders"), message, KEY))
    assert (problem.type, problem.status, problem.title) == ("configuration", 400, "Invalid Binding")


@VERSIONS
async def test_credentials_that_are_too_long(server: Broker, protocol: str) -> None:
    for policy in ({"basic": {"username": LONG, "password": "p"}}, {"bearer": {"token": LONG}}):
        target = target_of(protocol, server.port, "orders", policy=policy)
        problem = await problem_of(mqtt.publish(target, Message(b""), KEY))
        assert (problem.type, problem.title) == ("configuration", "Invalid Binding")


async def test_a_broker_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes a connection and answers nothing any more: its pings show it."""
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_S_MAX", 0.0)
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_INTERVAL_S", 0.01)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(2 + (await reader.readexactly(2))[1] - 2)
        writer.write(b"\x20\x02\x00\x00")
        _, length = struct.unpack("BB", await reader.readexactly(2))
        packet = await reader.readexactly(length)
        writer.write(b"\x90\x03" + packet[:2] + b"\x01")
        silent.close()
        while await reader.read(100):
            pass
        writer.close()

    silent = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    subscription: Subscription = await mqtt.subscribe(target_of("mqtt", port, "a", server={"keepAlive": 1}), "consumer")
    problem = await problem_of(subscription.next())
    assert problem.title == "Connection Failed"
    await subscription.close()


async def test_unreachable() -> None:
    await brokers.check_unreachable(mqtt, "mqtt")


async def test_refused_destinations(server: Broker) -> None:
    await brokers.check_destinations(mqtt, "mqtt", server.port)


async def test_cancel_in_flight() -> None:
    await brokers.check_cancel_in_flight(mqtt, "mqtt")
