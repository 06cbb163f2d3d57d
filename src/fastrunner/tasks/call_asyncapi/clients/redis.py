"""Stage 5, tasks: Redis: channels of publish and subscribe, or streams if the channel's binding says `x-type: stream`.

Rules: a channel of Redis keeps nothing: what comes while nobody is subscribed is lost, at most once. A stream keeps
entries: what a consumer of the binding's `x-group` has read and not acknowledged it reads again, at least once; what it
leaves lying others take over after ASYNCAPI_CLAIM_S. An entry has the fields `body`, `content-type`, `correlation-id`
and `key`, and headers with `h:` before their names; of entries without `body` the fields are the message, as JSON.
"""

import asyncio
import logging
import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson
from redis import exceptions
from redis.asyncio import Connection, ConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_asyncapi.document import ConfigurationProblem
from fastrunner.tasks.call_http.failures import CallProblem, connection_problem
from fastrunner.tasks.dialing import permitted_addresses

__all__ = ["publish", "subscribe"]

_log = logging.getLogger(__name__)

_LOST = "Connection Lost"
_BLOCK_MS = 5_000
"""How long a stream is asked to wait for an entry before it is asked again."""


async def publish(target: Target, message: Message, key: str) -> None:
    """See `clients`. A stream has the entry once it answers; of a channel it is not known whether anybody listens."""
    client = await _connected(target)
    try:
        if _is_stream(target):
            await client.xadd(target.address, _fields(message, key))
        else:
            await client.publish(target.address, message.body)
    except (exceptions.RedisError, OSError) as error:
        raise _problem(error) from None
    finally:
        await client.aclose()


async def subscribe(target: Target, consumer: str) -> Subscription:
    """See `clients`."""
    client = await _connected(target)
    try:
        if _is_stream(target):
            stream = _Stream(client, target.address, _group(target), consumer)
            await stream.begin()
            return stream
        channel = client.pubsub()
        await channel.subscribe(target.address)
        # What is published from here on is received.
        await channel.get_message(timeout=target.connect_timeout_s)
        return _Channel(client, channel)
    except (exceptions.RedisError, OSError) as error:
        await client.aclose()
        raise _problem(error) from None
    except BaseException:
        await client.aclose()
        raise


class _Channel:
    """What is published while somebody listens."""

    def __init__(self, client: Redis, channel: PubSub) -> None:
        self._client = client
        self._channel = channel

    async def next(self) -> Message:
        while True:
            try:
                told = await self._channel.get_message(ignore_subscribe_messages=True, timeout=None)
            except (exceptions.RedisError, OSError) as error:
                raise _problem(error) from None
            if told is not None and told["type"] == "message":
                return Message(_sized(told["data"]))

    async def taken(self, count: int) -> None:
        """Nobody waits for it."""

    async def close(self) -> None:
        await _closed(self._channel, self._client)


class _Stream:
    """Entries of a stream, for one consumer of a group. One is read at a time: nobody else gets what one has read."""

    def __init__(self, client: Redis, name: str, group: str, consumer: str) -> None:
        self._client = client
        self._name = name
        self._group = group
        self._consumer = consumer
        self._given: deque[bytes] = deque()
        self._after: str | bytes = "0"
        """From where the consumer's own unacknowledged entries are read; `>` once there are none left."""

    async def begin(self) -> None:
        """A group begins where it is first asked for; what others have left lying for long is taken over. Raises
        RedisError."""
        try:
            await self._client.xgroup_create(self._name, self._group, id="$", mkstream=True)
        except exceptions.ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        idle_ms = int(limits.ASYNCAPI_CLAIM_S * 1000)
        await self._client.xautoclaim(
            self._name, self._group, self._consumer, idle_ms, count=limits.ASYNCAPI_MESSAGES_AHEAD_MAX
        )

    async def next(self) -> Message:
        while True:
            try:
                answer: Any = await self._client.xreadgroup(
                    self._group, self._consumer, {self._name: self._after}, count=1, block=_BLOCK_MS
                )
            except (exceptions.RedisError, OSError) as error:
                raise _problem(error) from None
            entries = [entry for _, entries in answer or () for entry in entries]
            if self._after != ">":
                self._after = entries[0][0] if entries else ">"
            # Of an entry that was deleted since it was read nothing is left.
            if entries and entries[0][1]:
                self._given.append(entries[0][0])
                return replace(_message(entries[0][1]), id=entries[0][0].decode())

    async def taken(self, count: int) -> None:
        await self._acknowledge([self._given.popleft() for _ in range(min(count, len(self._given)))])

    async def settle(self, ids: Sequence[str]) -> None:
        await self._acknowledge(ids)

    async def _acknowledge(self, entries: Sequence[bytes | str]) -> None:
        try:
            if entries:
                await self._client.xack(self._name, self._group, *entries)
        except (exceptions.RedisError, OSError) as error:
            raise _problem(error) from None

    async def close(self) -> None:
        try:
            pending = await self._client.xpending_range(self._name, self._group, "-", "+", 1, self._consumer)
            if not pending:
                await self._client.xgroup_delconsumer(self._name, self._group, self._consumer)
        except (exceptions.RedisError, OSError) as error:
            _log.debug("a consumer is left in its group: %s", type(error).__name__)
        await _closed(self._client)


# --- messages ---


def _fields(message: Message, key: str) -> dict[Any, Any]:
    fields: dict[Any, Any] = {"body": message.body, "content-type": message.content_type, "key": key}
    if message.correlation_id is not None:
        fields["correlation-id"] = message.correlation_id
    return fields | {f"h:{name}": value for name, value in message.headers.items()}


def _message(fields: Mapping[bytes, bytes]) -> Message:
    texts = {name.decode("utf-8", "replace"): value for name, value in fields.items()}
    if "body" not in texts:
        return Message(_sized(orjson.dumps({name: value.decode("utf-8", "replace") for name, value in texts.items()})))
    headers = {name[2:]: value.decode("utf-8", "replace") for name, value in texts.items() if name.startswith("h:")}
    correlation = texts.get("correlation-id")
    return Message(
        _sized(texts["body"]),
        headers,
        texts.get("content-type", b"").decode("utf-8", "replace"),
        None if correlation is None else correlation.decode("utf-8", "replace"),
    )


def _sized(body: bytes) -> bytes:
    if len(body) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
        raise CallProblem("Message Too Large", f"a message exceeds {limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX} bytes")
    return body


# --- connections ---


class _Dialled(Connection):
    """A connection to an address that was judged; TLS is for the name."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, tls_name: str = "", **options: Any) -> None:
        super().__init__(**options)
        self._tls = tls
        self._tls_name = tls_name

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        return arguments if self._tls is None else arguments | {"ssl": self._tls, "server_hostname": self._tls_name}


async def _connected(target: Target) -> Redis:
    """Raises CallProblem."""
    addresses = await permitted_addresses(target.around, target.host, target.port)
    basic = (target.policy or {}).get("basic")
    bearer = (target.policy or {}).get("bearer")
    options: dict[str, Any] = {
        "port": target.port,
        "db": _database(target),
        "socket_connect_timeout": target.connect_timeout_s,
        "username": basic["username"] if basic else None,
        "password": basic["password"] if basic else bearer["token"] if bearer else None,
        "tls": (target.around.ssl_context or ssl.create_default_context()) if target.is_tls else None,
        "tls_name": target.host,
        "connection_class": _Dialled,
        "max_connections": 2,
        "protocol": 2,
        "socket_timeout": None,
        # Who reconnects in silence loses messages in silence.
        "retry": Retry(NoBackoff(), 0),
    }
    problem: CallProblem | None = None
    for address in addresses:
        client = Redis.from_pool(ConnectionPool(host=address, **options))
        try:
            async with asyncio.timeout(target.connect_timeout_s):
                await client.ping()
            return client
        except (exceptions.RedisError, OSError) as error:
            problem = _problem(error)
            if problem.title == _LOST:
                problem = CallProblem("Connection Failed", "no connection could be made")
            await client.aclose()
        except BaseException:
            await client.aclose()
            raise
    raise problem or CallProblem("Connection Failed", "the host has no address")


def _database(target: Target) -> int:
    number = target.path.strip("/") or "0"
    if not number.isdecimal() or len(number) > 5:
        raise ConfigurationProblem("the path of a Redis server is the number of a database")
    return int(number)


def _group(target: Target) -> str:
    group = target.bindings["channel"].get("x-group")
    if not isinstance(group, str) or not group:
        raise ConfigurationProblem("a stream is read by a group: the channel's binding names none in `x-group`")
    return group


def _is_stream(target: Target) -> bool:
    kind = target.bindings["channel"].get("x-type", "channel")
    if kind not in ("channel", "stream"):
        raise ConfigurationProblem("the channel's binding has an `x-type` that is neither `channel` nor `stream`")
    return bool(kind == "stream")


async def _closed(*parts: Any) -> None:
    for part in parts:
        try:
            await part.aclose()
        except (exceptions.RedisError, OSError):
            continue


def _problem(error: Exception) -> CallProblem:
    """The library's texts may quote what was sent, so the server's own code alone is passed on."""
    match error:
        case exceptions.AuthenticationError() | exceptions.NoPermissionError():
            return CallProblem("Not Authorized", "the server refuses who calls", 401)
        case exceptions.ResponseError():
            code = str(error).split(" ", 1)[0]
            return CallProblem("Error Response", f"the server answers with {code if code.isupper() else 'an error'}")
        case exceptions.ConnectionError() | exceptions.TimeoutError():
            cause = error.__cause__ or error.__context__
            if isinstance(cause, (OSError, socket.gaierror)):
                return connection_problem(cause)
            return CallProblem(_LOST, "the connection to the server ended")
    return connection_problem(error)
