"""Stage 5, tasks: AMQP 0-9-1, as RabbitMQ speaks it. A message is published once the broker confirms it; one that was
received is acknowledged when the workflow has it for good.

Theory of operation: bindings say what is there: an exchange with a routing key, or a queue. Without an exchange the
channel's address is a queue's name. A subscription to an exchange has a durable queue of its own, by the consumer's
name, which the broker drops when nobody has asked for long. What bindings describe and the broker does not have is
made as they describe it; what it has is taken as it is. The library connects through a factory, which is ours.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import unquote

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelClosed,
    ChannelNotFoundEntity,
    ConnectionNotAllowed,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    PublishError,
)
from pamqp.commands import Basic
from yarl import URL

from fastrunner.base import clock, limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_asyncapi.clients.fields import (
    BindingProblem,
    consumer_name,
    flag,
    header_text,
    number,
    section,
    word,
)
from fastrunner.tasks.call_asyncapi.clients.resuming import Inbox, Resuming
from fastrunner.tasks.call_asyncapi.clients.sockets import (
    Unreachable,
    dial,
    lost,
    refused_login,
    tls_context,
    tls_problem,
    too_large,
)
from fastrunner.tasks.call_http.failures import CallProblem

__all__ = ["publish", "subscribe"]

_HEARTBEAT_S = 30
_NAME_SIZE_BYTES_MAX = 255
_HEADER_NAME_SIZE_BYTES_MAX = 128
"""As the protocol has it: the library would cut longer ones."""

Result = TypeVar("Result")


async def publish(target: Target, message: Message, key: str) -> None:
    """See `clients`. The key is the message's id."""
    place = _place(target)
    is_mandatory = flag(target.bindings["operation"], "mandatory", default=not place.exchange)
    properties = _properties(target, message, key)
    link = await _Link.open(target, place.vhost)
    try:
        channel = await link.prepared(place)
        await link.guarded(
            channel.basic_publish(
                message.body,
                exchange=place.exchange,
                routing_key=place.queue or target.address,
                mandatory=is_mandatory,
                properties=properties,
            )
        )
    finally:
        await link.close()


async def subscribe(target: Target, consumer: str) -> Subscription:
    """See `clients`."""
    place = _place(target)
    acknowledges = flag(target.bindings["operation"], "ack", default=True)

    async def open_() -> Subscription:
        link = await _Link.open(target, place.vhost)
        try:
            channel = await link.prepared(place)
            queue = place.queue or await link.own_queue(channel, place, consumer_name(consumer))
            session = _Session(link, channel, acknowledges=acknowledges)
            await session.start(queue)
        except BaseException:
            await link.close()
            raise
        return session

    return await Resuming(open_, timeout_s=target.around.config.http_timeout_s).start()


@dataclass(frozen=True, slots=True)
class _Place:
    """What a channel is at a broker."""

    vhost: str
    exchange: str
    """Empty: the default one, which leads to the queue that the routing key names."""
    queue: str
    """Empty: whoever subscribes has one of its own."""
    made: Mapping[str, Any]
    """The binding that describes the exchange or the queue."""


def _place(target: Target) -> _Place:
    channel = target.bindings["channel"]
    kind = word(channel, "is", "routingKey")
    if kind not in ("routingKey", "queue"):
        raise BindingProblem("the binding is, of a channel, is neither routingKey nor queue")
    exchange, queue = section(channel, "exchange"), section(channel, "queue")
    name = "" if word(exchange, "type") == "default" else word(exchange, "name")
    made = queue if kind == "queue" or not name else exchange
    vhost = word(made, "vhost") or unquote(target.path.removeprefix("/")) or "/"
    place = _Place(
        vhost,
        name if kind == "routingKey" else "",
        (word(queue, "name") or target.address) if kind == "queue" or not name else "",
        made,
    )
    for text in (place.exchange, place.queue, target.address):
        if _size_bytes(text) > _NAME_SIZE_BYTES_MAX:
            raise BindingProblem(
                f"the channel's address or a name in its bindings exceeds {_NAME_SIZE_BYTES_MAX} bytes"
            )
    if not place.exchange and not place.queue:
        raise BindingProblem("the channel has neither an address nor bindings that name a queue or an exchange")
    return place


class _Transport(aiormq.TransportFactory):
    """How the library gets its connection."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.writer: asyncio.StreamWriter | None = None

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ARG002
        """See TransportFactory. Raises CallProblem."""
        target = self._target
        trusted = await tls_context(target.around) if target.is_tls else None
        sock = await dial(target)
        try:
            reader, self.writer = await asyncio.open_connection(
                sock=sock, ssl=trusted, server_hostname=target.host if trusted else None
            )
        except ssl.SSLError:
            raise tls_problem() from None
        except OSError:
            raise (tls_problem() if trusted else lost()) from None
        except BaseException:
            sock.close()
            raise
        return reader, self.writer


class _Link:
    """One connection."""

    def __init__(self, target: Target, vhost: str) -> None:
        policy = target.policy or {}
        basic, bearer = policy.get("basic"), policy.get("bearer")
        # As RabbitMQ has it, for tokens: the name says nothing.
        user, password = (basic["username"], basic["password"]) if basic else ("", bearer["token"] if bearer else "")
        url = URL.build(
            scheme="amqp",
            user=user if policy else None,
            password=password if policy else None,
            host=target.host,
            port=target.port,
            path=f"/{vhost}" if vhost != "/" else "/",
            query={"heartbeat": str(_HEARTBEAT_S), "name": "fastrunner"},
        )
        self.target = target
        self._transport = _Transport(target)
        self.connection = aiormq.Connection(url, transport_factory=self._transport)

    @classmethod
    async def open(cls, target: Target, vhost: str) -> "_Link":
        """Raises CallProblem."""
        link = cls(target, vhost)
        try:
            async with asyncio.timeout(target.connect_timeout_s):
                await link.connection.connect()
        except TimeoutError:
            await link.close()
            raise Unreachable("No Response In Time", "the broker does not answer in time") from None
        except (AMQPError, OSError, RuntimeError) as error:
            await link.close()
            raise _problem_of(error) from None
        except BaseException:
            await link.close()
            raise
        return link

    async def prepared(self, place: _Place) -> AbstractChannel:
        """A channel; what the bindings describe is there. Raises CallProblem."""
        channel = await self.guarded(self.connection.channel())
        if not place.exchange:
            if place.queue and not await self._has(channel.queue_declare(place.queue, passive=True)):
                channel = await self.guarded(self.connection.channel())
                await self.guarded(
                    channel.queue_declare(
                        place.queue,
                        durable=flag(place.made, "durable", default=True),
                        exclusive=flag(place.made, "exclusive", default=False),
                        auto_delete=flag(place.made, "autoDelete", default=False),
                    )
                )
        elif word(place.made, "type") and not await self._has(channel.exchange_declare(place.exchange, passive=True)):
            channel = await self.guarded(self.connection.channel())
            await self.guarded(
                channel.exchange_declare(
                    place.exchange,
                    exchange_type=word(place.made, "type"),
                    durable=flag(place.made, "durable", default=True),
                    auto_delete=flag(place.made, "autoDelete", default=False),
                )
            )
        return channel

    async def _has(self, passive: Awaitable[object]) -> bool:
        try:
            await self.guarded(passive)
        except _NotFound:
            return False
        return True

    async def own_queue(self, channel: AbstractChannel, place: _Place, name: str) -> str:
        """A queue of what the exchange has for the channel's address. Raises CallProblem."""
        expires: dict[str, Any] = {"x-expires": int(limits.ASYNCAPI_CONSUMER_KEPT_S * 1000)}
        await self.guarded(channel.queue_declare(name, durable=True, arguments=expires))
        await self.guarded(channel.queue_bind(name, place.exchange, routing_key=self.target.address))
        return name

    async def guarded(self, work: Awaitable[Result]) -> Result:
        """What the library does, until the connection ends. Raises CallProblem."""
        doing = asyncio.ensure_future(work)
        waited: set[asyncio.Future[Any]] = {doing, self.connection.closing}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise lost()
            return doing.result()
        except (AMQPError, OSError, RuntimeError) as error:
            raise _problem_of(error) from None
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)

    async def close(self) -> None:
        """Never raises."""
        closing = asyncio.ensure_future(self.connection.close())
        try:
            await asyncio.wait({closing}, timeout=limits.ASYNCAPI_CLOSE_S_MAX)
        finally:
            if self._transport.writer is not None:
                self._transport.writer.transport.abort()
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            # An end that nobody asked for is no news here.
            if self.connection.closing.done() and not self.connection.closing.cancelled():
                self.connection.closing.exception()


class _Session:
    """See `Subscription`."""

    def __init__(self, link: _Link, channel: AbstractChannel, *, acknowledges: bool) -> None:
        self._link = link
        self._channel = channel
        self._acknowledges = acknowledges
        self._inbox: Inbox[DeliveredMessage] = Inbox()
        self._given: deque[int] = deque()

    async def start(self, queue: str) -> None:
        """Raises CallProblem."""

        def end(*_: object) -> None:
            self._inbox.fail(lost())

        async def receive(message: DeliveredMessage) -> None:
            self._inbox.put(message, len(message.body))

        for closing in (self._link.connection.closing, self._channel.closing):
            closing.add_done_callback(end)
        self._channel.on_consumer_cancel_callbacks.add(end)
        await self._link.guarded(self._channel.basic_qos(prefetch_count=limits.ASYNCAPI_MESSAGES_AHEAD_MAX))
        await self._link.guarded(self._channel.basic_consume(queue, receive, no_ack=not self._acknowledges))

    async def next(self) -> Message:
        """See `Subscription`."""
        message = await self._inbox.get()
        if len(message.body) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            raise too_large(len(message.body), limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX)
        self._given.append(message.delivery_tag or 0)
        properties = message.header.properties
        headers = {name: header_text(value) for name, value in (properties.headers or {}).items()}
        return Message(message.body, headers, properties.content_type or "", properties.correlation_id or None)

    async def taken(self, count: int) -> None:
        """See `Subscription`."""
        tags = [self._given.popleft() for _ in range(count)]
        if tags and self._acknowledges:
            await self._link.guarded(self._channel.basic_ack(tags[-1], multiple=True))

    async def close(self) -> None:
        """See `Subscription`."""
        await self._link.close()


class _NotFound(CallProblem):
    """There is no such exchange or queue."""

    def __init__(self) -> None:
        super().__init__("Broker Refused", "the broker has no such exchange or queue")


def _properties(target: Target, message: Message, key: str) -> Basic.Properties:
    operation, bindings = target.bindings["operation"], target.bindings["message"]
    headers: dict[str, Any] = dict(message.headers)
    if any(_size_bytes(name) > _HEADER_NAME_SIZE_BYTES_MAX for name in headers):
        raise BindingProblem(f"a header's name exceeds {_HEADER_NAME_SIZE_BYTES_MAX} bytes")
    shorts = [message.content_type, message.correlation_id or "", *_short_bindings(operation, bindings)]
    if any(_size_bytes(text) > _NAME_SIZE_BYTES_MAX for text in shorts):
        raise BindingProblem(
            f"the message's contentType or correlationId, or a text of its bindings, exceeds {_NAME_SIZE_BYTES_MAX} "
            "bytes"
        )
    for name in ("cc", "bcc"):
        copies = operation.get(name)
        if copies is not None:
            if not isinstance(copies, list) or not all(isinstance(each, str) for each in copies):
                raise BindingProblem(f"the binding {name} is no list of strings")
            headers[name.upper()] = copies
    expiration = number(operation, "expiration", default=0, lowest=0, highest=2**32 - 1)
    return Basic.Properties(
        content_type=message.content_type or None,
        content_encoding=word(bindings, "contentEncoding") or None,
        headers=headers,
        delivery_mode=number(operation, "deliveryMode", default=2, lowest=1, highest=2),
        priority=number(operation, "priority", default=0, lowest=0, highest=255),
        correlation_id=message.correlation_id,
        reply_to=word(operation, "replyTo") or None,
        expiration=str(expiration) if expiration else None,
        message_id=key,
        timestamp=_now() if flag(operation, "timestamp", default=False) else None,
        message_type=word(bindings, "messageType") or None,
        user_id=word(operation, "userId") or None,
    )


def _short_bindings(operation: Mapping[str, Any], bindings: Mapping[str, Any]) -> list[str]:
    """Texts that are a message's properties. Raises BindingProblem."""
    return [
        *(word(operation, name) for name in ("replyTo", "userId")),
        *(word(bindings, name) for name in ("contentEncoding", "messageType")),
    ]


def _size_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _now() -> datetime:
    return datetime.fromtimestamp(clock.wall_ms() // 1000, UTC)


def _denied() -> CallProblem:
    return CallProblem("Permission Denied", "the broker does not let this user do that there", 403)


def _problem_of(error: Exception) -> CallProblem:
    match error:
        case AuthenticationError() | ProbableAuthenticationError():
            return refused_login()
        case ConnectionNotAllowed() | ChannelAccessRefused():
            return _denied()
        # What the library says of any other answer than that the virtual host is open.
        case InvalidFrameError() if "Connection.OpenOk" in str(error):
            return _denied()
        case ChannelNotFoundEntity():
            return _NotFound()
        case PublishError():
            return CallProblem("Not Routed", "no queue takes the message")
        case DeliveryError():
            return CallProblem("Broker Refused", "the broker does not take the message")
        case ChannelClosed():
            return CallProblem("Broker Refused", f"the broker ends the channel ({type(error).__name__})")
        case AMQPConnectionError() | OSError() | RuntimeError():
            return lost()
        case _:
            return Unreachable("Broker Failed", f"the broker's answer is none ({type(error).__name__})")
