"""Support: the client of NATS against a real server, with JetStream and without: what docs/tasks.md promises."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import nats as library
import pytest

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, nats
from tests.integration import brokers
from tests.integration.brokers import KEY, Broker, problem_of, soon, take, target_of

Starts = Callable[..., Broker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starts]:
    """Starts servers, with lines of configuration."""
    started: list[Broker] = []

    def start(config: str = "") -> Broker:
        file = tmp_path / f"nats-{len(started)}.conf"
        file.write_text(config)
        data = tmp_path / f"data-{len(started)}"

        def command(port: int) -> list[str]:
            return ["nats-server", "-c", str(file), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(data)]

        started.append(Broker(tmp_path, command).start())
        return started[-1]

    yield start
    for broker in started:
        broker.stop()


@pytest.fixture
async def server(start: Starts) -> Broker:
    """A server with a stream of what is below `orders`."""
    broker = start()
    async with await library.connect(f"nats://127.0.0.1:{broker.port}") as connection:
        await connection.jetstream().add_stream(name="ORDERS", subjects=["orders.>"])
    return broker


async def stored(server: Broker) -> int:
    """Messages in the stream."""
    async with await library.connect(f"nats://127.0.0.1:{server.port}") as connection:
        return (await connection.jetstream().stream_info("ORDERS")).state.messages


async def test_a_stream_stores_and_acknowledges(server: Broker) -> None:
    target = target_of("nats", server.port, "orders.created")
    subscription = await nats.subscribe(target, "consumer")
    await nats.publish(target, Message(b'{"id":1}', {"Trace": "a b"}, "application/json"), KEY)
    [message] = await take(subscription, 1)
    assert (message.body, message.content_type) == (b'{"id":1}', "application/json")
    assert message.headers == {"Trace": "a b", "Content-Type": "application/json", "Nats-Msg-Id": KEY}
    await subscription.close()


async def test_what_is_published_again_with_the_same_key_is_stored_once(server: Broker) -> None:
    target = target_of("nats", server.port, "orders.created")
    for _ in range(2):
        await nats.publish(target, Message(b"1"), KEY)
    await nats.publish(target, Message(b"2"), "another")
    assert await stored(server) == 2


async def test_what_was_not_taken_comes_again(server: Broker) -> None:
    target = target_of("nats", server.port, "orders.*")
    subscription = await nats.subscribe(target, "order-1/do~1hear")
    for number in range(3):
        await nats.publish(target_of("nats", server.port, "orders.created"), Message(b"%d" % number), str(number))
    assert [(await soon(subscription.next())).body for _ in range(3)] == [b"0", b"1", b"2"]
    await subscription.taken(1)
    await subscription.close()
    again = await nats.subscribe(target, "order-1/do~1hear")
    assert sorted(message.body for message in await take(again, 2)) == [b"1", b"2"]
    await again.close()


async def test_waiting_may_be_given_up(server: Broker) -> None:
    target = target_of("nats", server.port, "orders.created")
    subscription = await nats.subscribe(target, "consumer")
    for number in range(5):
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await nats.publish(target, Message(b"%d" % number), str(number))
        assert [message.body for message in await take(subscription, 1)] == [b"%d" % number]
    await subscription.close()


async def test_a_group_shares_the_work(server: Broker) -> None:
    target = target_of("nats", server.port, "orders.created", operation={"queue": "workers"})
    first, second = await nats.subscribe(target, "one"), await nats.subscribe(target, "two")
    for number in range(4):
        await nats.publish(target, Message(b"%d" % number), str(number))
    bodies: set[bytes] = set()
    while len(bodies) < 4:
        for subscription in (first, second):
            try:
                message = await asyncio.wait_for(subscription.next(), 0.2)
            except TimeoutError:
                continue
            assert message.body not in bodies
            bodies.add(message.body)
            await subscription.taken(1)
    await first.close()
    await second.close()


async def test_messages_a_workflow_works_on_are_not_given_to_others(
    server: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_ACK_WAIT_S", 0.6)
    target = target_of("nats", server.port, "orders.created", operation={"queue": "workers"})
    subscription = await nats.subscribe(target, "one")
    await nats.publish(target, Message(b"1"), KEY)
    await soon(subscription.next())
    other = await nats.subscribe(target, "two")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.next(), 2.0)
    # Whoever is gone without a word holds nothing back.
    subscription._session._holding.cancel()  # type: ignore[attr-defined]
    assert (await soon(other.next())).body == b"1"
    await other.close()
    await subscription.close()


async def test_a_consumer_that_is_away_is_kept_for_a_while(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_CONSUMER_KEPT_S", 0.3)
    target = target_of("nats", server.port, "orders.created")
    await (await nats.subscribe(target, "order-1/do~1hear")).close()
    async with await library.connect(f"nats://127.0.0.1:{server.port}") as connection:
        streams = connection.jetstream()
        async with asyncio.timeout(brokers.ANSWER_S):
            while (await streams.stream_info("ORDERS")).state.consumer_count:  # noqa: ASYNC110 - the server's
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_a_server_that_starts_again(server: Broker, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_INTERVAL_S", 0.05)
    target = target_of("nats", server.port, "orders.created")
    subscription = await nats.subscribe(target, "consumer")
    await nats.publish(target, Message(b"1"), "1")
    assert (await soon(subscription.next())).body == b"1"
    waiting = asyncio.create_task(subscription.next())
    await asyncio.to_thread(getattr(server, end))
    await asyncio.to_thread(server.start)
    await nats.publish(target, Message(b"2"), "2")
    # The first was not acknowledged in time, so it may come once more.
    bodies = [(await soon(waiting)).body]
    await subscription.taken(1)
    while b"2" not in bodies:
        bodies.append((await soon(subscription.next())).body)
    await subscription.taken(len(bodies))
    assert set(bodies) <= {b"1", b"2"}
    await subscription.close()


async def test_a_server_that_stays_away(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_INTERVAL_S", 0.05)
    monkeypatch.setattr(limits, "ASYNCAPI_RECONNECT_S_MAX", 0.2)
    subscription = await nats.subscribe(target_of("nats", server.port, "orders.created"), "consumer")
    server.stop()
    problem = await problem_of(subscription.next())
    assert (problem.type, problem.title) == ("communication", "Connection Failed")
    await subscription.close()


async def test_without_a_stream(server: Broker) -> None:
    target = target_of("nats", server.port, "prices")
    first, second = await nats.subscribe(target, "one"), await nats.subscribe(target, "two")
    await nats.publish(target, Message(b"1", {"a": "b"}), KEY)
    for subscription in (first, second):
        [message] = await take(subscription, 1)
        assert (message.body, message.headers["a"]) == (b"1", "b")
    await first.close()
    await nats.publish(target, Message(b"2"), KEY)
    again = await nats.subscribe(target, "one")
    await nats.publish(target, Message(b"3"), KEY)
    assert (await soon(again.next())).body == b"3"
    await again.close()
    await second.close()


async def test_more_than_waits_for_a_workflow(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGES_WAITING_SIZE_BYTES_MAX", 4_096)
    target = target_of("nats", server.port, "prices")
    subscription = await nats.subscribe(target, "consumer")
    for number in range(6):
        await nats.publish(target, Message(b"%d" % number), KEY)
    await brokers.overflown(subscription)
    assert [(await soon(subscription.next())).body for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    problem = await problem_of(subscription.next())
    assert (problem.type, problem.title) == ("communication", "Messages Lost")
    await subscription.close()


async def test_messages_that_are_too_large(server: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of("nats", server.port, "orders.created")
    problem = await problem_of(nats.publish(target, Message(b"x" * 1_100_000), KEY))
    assert (problem.type, problem.title) == ("communication", "Message Too Large")
    subscription = await nats.subscribe(target, "consumer")
    await nats.publish(target, Message(b"x" * 2_000), KEY)
    monkeypatch.setattr(limits, "ASYNCAPI_MESSAGE_SIZE_BYTES_MAX", 1_000)
    problem = await problem_of(subscription.next())
    assert problem.title == "Message Too Large"
    assert "2000 bytes exceeds 1000 bytes" in problem.sentence
    await subscription.close()


async def test_credentials(start: Starts) -> None:
    users = 'users = [{user: ann, password: "correct horse", permissions: {publish: "open.>", subscribe: "open.>"}}]'
    port = start(f"authorization {{ {users} }}").port
    ann = {"basic": {"username": "ann", "password": "correct horse"}}
    wrong = {"basic": {"username": "ann", "password": "battery staple"}}
    await nats.publish(target_of("nats", port, "open.a", policy=ann), Message(b"1"), KEY)
    subscription = await nats.subscribe(target_of("nats", port, "open.a", policy=ann), "consumer")
    await nats.publish(target_of("nats", port, "open.a", policy=ann), Message(b"2"), KEY)
    assert (await soon(subscription.next())).body == b"2"
    await subscription.close()
    for policy in (wrong, None, {"bearer": {"token": "t"}}):
        problem = await problem_of(nats.publish(target_of("nats", port, "open.a", policy=policy), Message(b"1"), KEY))
        assert (problem.type, problem.status, problem.title) == ("communication", 401, "Login Refused")
        assert "staple" not in problem.sentence
    closed = target_of("nats", port, "closed.a", policy=ann)
    for work in (nats.publish(closed, Message(b"1"), KEY), nats.subscribe(closed, "consumer")):
        problem = await problem_of(work)
        assert (problem.type, problem.status, problem.title) == ("communication", 403, "Permission Denied")


async def test_tokens(start: Starts) -> None:
    port = start("authorization { token: sesame-street }").port
    target = target_of("nats", port, "a", policy={"bearer": {"token": "sesame-street"}})
    await nats.publish(target, Message(b"1"), KEY)
    wrong = target_of("nats", port, "a", policy={"bearer": {"token": "elm-street"}})
    assert (await problem_of(nats.publish(wrong, Message(b"1"), KEY))).status == 401


PEM = brokers.CERTIFICATES / "server.pem"
TLS = f'tls {{ cert_file: "{PEM}", key_file: "{PEM}" }}'


async def test_a_server_that_does_not_say_goodbye(start: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ASYNCAPI_CLOSE_S_MAX", 0.1)
    server = start(TLS)
    subscription = await nats.subscribe(target_of("nats", server.port, "a", host="localhost", is_tls=True), "consumer")
    with server.stopped():
        # TLS itself would wait for half a minute.
        await asyncio.wait_for(subscription.close(), 15.0)


async def test_tls_by_name(start: Starts, server: Broker) -> None:
    port = start(TLS).port
    await nats.publish(target_of("nats", port, "a", host="localhost", is_tls=True), Message(b"1"), KEY)
    foreign = target_of("nats", port, "a", host="broker.test", is_tls=True)
    untrusted = target_of(
        "nats",
        port,
        "a",
        host="localhost",
        is_tls=True,
        surroundings=brokers.around(ssl_context=ssl.create_default_context()),
    )
    # A server that has no TLS gets no credentials.
    plain = target_of("nats", server.port, "a", host="localhost", is_tls=True, policy={"bearer": {"token": "t"}})
    for target in (foreign, untrusted, plain):
        problem = await problem_of(nats.publish(target, Message(b"1"), KEY))
        assert (problem.type, problem.title) == ("communication", "TLS Failed")


@pytest.mark.parametrize("address", ["", "orders created", "orders..created", "orders*"])
async def test_addresses_that_are_no_subjects(server: Broker, address: str) -> None:
    target = target_of("nats", server.port, address)
    assert (await problem_of(nats.publish(target, Message(b"1"), KEY))).type == "configuration"
    assert (await problem_of(nats.subscribe(target, "consumer"))).type == "configuration"


async def test_bindings_that_are_none(server: Broker) -> None:
    target = target_of("nats", server.port, "orders.created", operation={"queue": 1})
    problem = await problem_of(nats.subscribe(target, "consumer"))
    assert (problem.type, problem.sentence) == ("configuration", "the binding queue is no string")


async def test_unreachable() -> None:
    await brokers.check_unreachable(nats, "nats")


async def test_refused_destinations(server: Broker) -> None:
    await brokers.check_destinations(nats, "nats", server.port)


async def test_cancel_in_flight() -> None:
    await brokers.check_cancel_in_flight(nats, "nats")
