"""Stage 5, tasks: MQTT 3.1.1, and 5 where the document says `mqtt5`. A message with QoS 1 or 2 is published once the
broker has acknowledged it; one that was received is acknowledged when the workflow has it for good.

Theory of operation: a subscription is a session that the broker keeps, by the consumer's name as client id: what comes
while the runner is away waits there. The library does the protocol and no I/O of its own: it is given a connected
socket, and told when to read and to write.
"""

import asyncio
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_asyncapi.clients.fields import BindingProblem, consumer_name, flag, named, number, word
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

_KEY = "idempotency-key"
"""The name of the effect's key among the properties of a message; before MQTT 5 messages have none."""
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_LOGIN = (134, 135, 140)
"""Reasons not to connect: wrong name or password, not authorized, wrong way to authenticate."""


async def publish(target: Target, message: Message, key: str) -> None:
    """See `clients`. With QoS 0 the message has been sent, and nobody says whether it came."""
    _check_topic(target.address, has_wildcards=False)
    operation = target.bindings["operation"]
    qos, is_retained = _qos(operation), flag(operation, "retain", default=False)
    properties = _properties_of(target, message, key) if _is_5(target) else None
    link = await _Link.open(target, named(target.bindings["server"], "clientId"), is_kept=False)
    try:
        await link.publish(target.address, message.body, qos, is_retained, properties)
    finally:
        await link.close()


async def subscribe(target: Target, consumer: str) -> Subscription:
    """See `clients`."""
    _check_topic(target.address, has_wildcards=True)
    server = target.bindings["server"]
    name = named(server, "clientId") or consumer_name(consumer)
    is_kept = not flag(server, "cleanSession", default=False)
    qos = _qos(target.bindings["operation"])

    async def open_() -> Subscription:
        link = await _Link.open(target, name, is_kept=is_kept)
        try:
            await link.subscribe(target.address, qos)
        except BaseException:
            await link.close()
            raise
        return _Session(link)

    return await Resuming(open_, timeout_s=target.around.config.http_timeout_s).start()


class _Socket:
    """A connected socket as the library takes it, which says how much it is about to read: a message that is too large
    ends here."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.problem: CallProblem | None = None

    def recv(self, size_bytes: int) -> bytes:
        """See socket. Raises OSError."""
        if size_bytes > 2 * limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            self.problem = too_large(size_bytes, limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX)
            raise ConnectionError
        return self._sock.recv(size_bytes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Library(paho.Client):
    """The library, over a connection that exists."""

    def __init__(self, sock: _Socket, **options: Any) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, reconnect_on_failure=False, manual_ack=True, **options)
        self._given = sock

    def _create_socket(self) -> Any:
        return self._given


class _Link:
    """One connection."""

    def __init__(self, target: Target, sock: _Socket, name: str, *, is_kept: bool) -> None:
        self.target = target
        self.inbox: Inbox[paho.MQTTMessage] = Inbox()
        """What has come, and how the connection ended."""
        self.is_5 = _is_5(target)
        self._is_kept = is_kept
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._answers: dict[str, asyncio.Future[Any]] = {
            each: self._loop.create_future() for each in ("connected", "published", "subscribed", "ended")
        }
        options: dict[str, Any] = {} if self.is_5 else {"clean_session": not is_kept}
        self.library = _Library(sock, client_id=name, protocol=paho.MQTTv5 if self.is_5 else paho.MQTTv311, **options)
        self._attach()
        self._ticking: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, target: Target, name: str, *, is_kept: bool) -> "_Link":
        """Raises CallProblem."""
        trusted = await tls_context(target.around) if target.is_tls else None
        sock = await dial(target)
        try:
            async with asyncio.timeout(target.connect_timeout_s):
                if trusted is not None:
                    sock = await _secured(sock, trusted, target.host)
                link = cls(target, _Socket(sock), name, is_kept=is_kept)
                try:
                    await link._log_in()
                except BaseException:
                    link._cut()
                    raise
                return link
        except TimeoutError:
            sock.close()
            raise Unreachable("No Response In Time", "the broker does not answer in time") from None
        except BaseException:
            sock.close()
            raise

    def _attach(self) -> None:
        library, loop = self.library, self._loop

        def read() -> None:
            # TLS may have more than the kernel tells of.
            library.loop_read()
            while library.socket() is not None and getattr(self._sock, "pending", int)():
                library.loop_read()

        def ignore(*_: object) -> None:
            """Callbacks return nothing."""

        library.on_socket_open = lambda *_: loop.add_reader(self._sock.fileno(), read)
        library.on_socket_close = lambda *_: ignore(loop.remove_reader(self._sock.fileno()))
        library.on_socket_register_write = lambda *_: loop.add_writer(self._sock.fileno(), library.loop_write)
        library.on_socket_unregister_write = lambda *_: ignore(loop.remove_writer(self._sock.fileno()))
        library.on_connect = lambda _1, _2, _3, reason, _4: self._answer("connected", reason)
        library.on_publish = lambda _1, _2, _3, reason, _4: self._answer("published", reason)
        library.on_subscribe = lambda _1, _2, _3, reasons, _4: self._answer("subscribed", reasons[0])
        library.on_message = lambda _1, _2, message: self.inbox.put(message, len(message.payload))
        library.on_disconnect = lambda *_: self._end()

    def _answer(self, name: str, reason: ReasonCode) -> None:
        if not self._answers[name].done():
            self._answers[name].set_result(reason)

    def _end(self) -> None:
        self.inbox.fail(self._sock.problem or lost())
        if not self._answers["ended"].done():
            self._answers["ended"].set_result(None)

    async def _log_in(self) -> None:
        policy, server = self.target.policy or {}, self.target.bindings["server"]
        if "basic" in policy:
            self.library.username_pw_set(policy["basic"]["username"], policy["basic"]["password"])
        elif policy:
            # As brokers that take tokens have it: the name says nothing.
            self.library.username_pw_set("", policy["bearer"]["token"])
        keepalive_s = number(server, "keepAlive", default=60, lowest=1, highest=65_535)
        try:
            if self.is_5:
                self.library.connect(
                    self.target.host,
                    self.target.port,
                    keepalive_s,
                    clean_start=not self._is_kept,
                    properties=self._session_properties(),
                )
            else:
                self.library.connect(self.target.host, self.target.port, keepalive_s)
        except (ValueError, struct.error):
            raise BindingProblem("the broker's credentials or the binding clientId are none that MQTT takes") from None
        self._ticking = asyncio.create_task(self._tick())
        reason = await self._answered("connected")
        if reason.value in _LOGIN:
            raise refused_login()
        if reason.is_failure:
            raise Unreachable("Broker Refused", f"the broker takes no connection: {reason.getName()}")

    def _session_properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        server = self.target.bindings["server"]
        if self._is_kept:
            kept_s = int(limits.ASYNCAPI_CONSUMER_KEPT_S)
            properties.SessionExpiryInterval = number(
                server, "sessionExpiryInterval", default=kept_s, lowest=0, highest=2**32 - 1
            )
        properties.ReceiveMaximum = limits.ASYNCAPI_MESSAGES_AHEAD_MAX
        properties.MaximumPacketSize = 2 * limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX
        return properties

    async def _tick(self) -> None:
        """Says that it is there when nothing else is said, and hears whether the broker is."""
        while self.library.loop_misc() == MQTTErrorCode.MQTT_ERR_SUCCESS:  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(1.0)

    async def _answered(self, name: str) -> ReasonCode:
        """What the broker answers. Raises CallProblem if the connection ends before."""
        answer, ended = self._answers[name], self._answers["ended"]
        await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise self._sock.problem or lost()
        reason: ReasonCode = answer.result()
        return reason

    async def publish(
        self, topic: str, body: bytes, qos: int, is_retained: bool, properties: Properties | None
    ) -> None:
        """The broker has the message. Raises CallProblem."""
        self.library.publish(topic, body, qos, is_retained, properties)
        _check("message", await self._answered("published"))

    async def subscribe(self, topic: str, qos: int) -> None:
        """The broker sends what comes, and keeps it meanwhile. Raises CallProblem."""
        if self.is_5:
            # What is retained comes once, and not each time that the connection is a new one.
            options = SubscribeOptions(qos=qos, retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB)
            self.library.subscribe(topic, options=options)
        else:
            self.library.subscribe(topic, qos)
        _check("subscription", await self._answered("subscribed"))

    async def close(self) -> None:
        """Never raises."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.ASYNCAPI_CLOSE_S_MAX):
                if self.library.disconnect() == MQTTErrorCode.MQTT_ERR_SUCCESS:
                    await self._answers["ended"]
        self._cut()

    def _cut(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self.library._reset_sockets()


class _Session:
    """See `Subscription`."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self._given: deque[paho.MQTTMessage] = deque()

    async def next(self) -> Message:
        """See `Subscription`."""
        message = await self._link.inbox.get()
        if len(message.payload) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            raise too_large(len(message.payload), limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX)
        self._given.append(message)
        return _message_of(message)

    async def taken(self, count: int) -> None:
        """See `Subscription`."""
        for _ in range(count):
            message = self._given.popleft()
            if self._link.library.ack(message.mid, message.qos) != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise lost()

    async def close(self) -> None:
        """See `Subscription`."""
        await self._link.close()


async def _secured(sock: socket.socket, trusted: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """The socket with TLS, verified by the host's name. Raises CallProblem."""
    loop = asyncio.get_running_loop()
    try:
        secured = trusted.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    except (ssl.SSLError, ValueError):
        raise tls_problem() from None
    try:
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                await _ready(loop.add_reader, loop.remove_reader, secured)
            except ssl.SSLWantWriteError:
                await _ready(loop.add_writer, loop.remove_writer, secured)
            else:
                return secured
    except ssl.SSLError:
        secured.close()
        raise tls_problem() from None
    except OSError:
        secured.close()
        raise lost() from None
    except BaseException:
        secured.close()
        raise


async def _ready(add: Callable[..., object], remove: Callable[[int], object], sock: socket.socket) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    descriptor = sock.fileno()
    add(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        remove(descriptor)


def _check(what: str, reason: ReasonCode) -> None:
    """Raises CallProblem if the broker refuses."""
    if reason.is_failure:
        # 128 is all that MQTT 3.1.1 has to say.
        if reason.value in (128, 135):
            raise CallProblem("Permission Denied", f"the broker refuses the {what} of this user", 403)
        raise CallProblem("Broker Refused", f"the broker refuses the {what}: {reason.getName()}")


def _is_5(target: Target) -> bool:
    return target.protocol == "mqtt5"


def _qos(operation: Mapping[str, Any]) -> int:
    return number(operation, "qos", default=1, lowest=0, highest=2)


def _check_topic(topic: str, *, has_wildcards: bool) -> None:
    levels = topic.split("/")
    is_topic = bool(topic) and _is_text(topic)
    if has_wildcards:
        levels = [
            "" if level == "+" or (level == "#" and at == len(levels) - 1) else level for at, level in enumerate(levels)
        ]
    if not is_topic or any(set("+#").intersection(level) for level in levels):
        raise BindingProblem(f"the channel's address {topic!r:.100} is no topic of MQTT")


def _is_text(text: str) -> bool:
    """Whether MQTT has such strings: their size is a number of two bytes, and brokers hang up at control characters."""
    return len(text.encode("utf-8", "surrogatepass")) <= 65_535 and not _UNFIT.search(text)


def _properties_of(target: Target, message: Message, key: str) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    headers = {_KEY: key, **message.headers}
    correlation = (message.correlation_id or "").encode("utf-8", "surrogatepass")
    if not all(map(_is_text, (*headers, *headers.values()))) or len(correlation) > 65_535:
        raise BindingProblem(
            "a header of the message, or its correlationId, is none that MQTT takes: 65535 bytes at most, and no "
            "control characters"
        )
    properties.UserProperty = list(headers.items())
    if message.content_type:
        properties.ContentType = message.content_type
    if message.correlation_id is not None:
        properties.CorrelationData = correlation
    bindings = target.bindings["message"]
    response_topic = named(bindings, "responseTopic")
    if response_topic:
        properties.ResponseTopic = response_topic
    expiry_s = number(target.bindings["operation"], "messageExpiryInterval", default=0, lowest=0, highest=2**32 - 1)
    if expiry_s:
        properties.MessageExpiryInterval = expiry_s
    if word(bindings, "contentType"):
        properties.ContentType = word(bindings, "contentType")
    if number(bindings, "payloadFormatIndicator", default=0, lowest=0, highest=1):
        properties.PayloadFormatIndicator = 1
    return properties


def _message_of(message: paho.MQTTMessage) -> Message:
    properties = message.properties
    headers = dict(getattr(properties, "UserProperty", []))
    correlation = getattr(properties, "CorrelationData", None)
    return Message(
        bytes(message.payload),
        headers,
        getattr(properties, "ContentType", ""),
        None if correlation is None else bytes(correlation).decode("utf-8", "replace"),
    )
