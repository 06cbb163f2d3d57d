"""Stage 5, tasks: NATS. Where a stream of JetStream has the subject, it stores and acknowledges; elsewhere core NATS
does what it can: a message that was published has reached the server, and whoever listens has it at most once.

Theory of operation: the library never connects: it is given a connected socket, and does not reconnect, so the servers
that a server names are never gone to. JetStream's messages are pulled one at a time, by a task that goes on when the
waiting for it is given up. Their acknowledgement is due in ASYNCAPI_ACK_WAIT_S, and is put off while a workflow works
on them; so what a runner that was killed had, comes again soon.
"""

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import Awaitable
from typing import Any, TypeVar

import nats.aio.client
import nats.errors
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_asyncapi.clients.fields import BindingProblem, consumer_name, word
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

_CONTENT_TYPE = "Content-Type"
_FIRST = asyncio.FIRST_COMPLETED
_OUTSIDE_OF_STREAM = 10093
"""JetStream's code for a filter that leads beyond its stream's subjects."""

Result = TypeVar("Result")


async def publish(target: Target, message: Message, key: str) -> None:
    """See `clients`. A stream that remembers the key stores the message once."""
    _check_subject(target.address, has_wildcards=False)
    headers = dict(message.headers)
    if message.content_type:
        headers.setdefault(_CONTENT_TYPE, message.content_type)
    headers.setdefault(api.Header.MSG_ID.value, key)
    link = await _Link.open(target)
    try:
        if link.payload_size_bytes_max and len(message.body) > link.payload_size_bytes_max:
            raise too_large(len(message.body), link.payload_size_bytes_max)
        stream = await link.stream_of(target.address)
        if stream is None:
            await link.guarded(link.client.publish(target.address, message.body, headers=headers))
            await link.flush()
        else:
            await link.guarded(
                link.streams.publish(target.address, message.body, headers=headers, timeout=link.timeout_s)
            )
    finally:
        await link.close()


async def subscribe(target: Target, consumer: str) -> Subscription:
    """See `clients`."""
    _check_subject(target.address, has_wildcards=True)
    group = word(target.bindings["operation"], "queue")

    async def open_() -> Subscription:
        link = await _Link.open(target)
        try:
            stream = await link.stream_of(target.address)
            durable = None if stream is None else await link.pull(stream, consumer_name(group or consumer))
            if durable is not None:
                return _Durable(link, durable)
            return await _Plain.open(link, group)
        except BaseException:
            await link.close()
            raise

    return await Resuming(open_, timeout_s=target.around.config.http_timeout_s).start()


class _Wire(TcpTransport):
    """The library's transport, over a connection that exists. Holds back what must not be sent in the clear."""

    def __init__(self, sock: socket.socket, *, must_be_tls: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sock = sock
        self._must_be_tls = must_be_tls
        self.parser: Any = None
        """The library's: knows how large the message is that comes."""
        self.problem: CallProblem | None = None
        """Why nothing more is read."""

    def __bool__(self) -> bool:
        # The library makes another one of what is not connected yet.
        return True

    async def connect(self, *_: Any, **options: Any) -> None:
        """See Transport."""
        limit = options["buffer_size"]
        self._bare_io_reader, self._bare_io_writer = await asyncio.open_connection(sock=self._sock, limit=limit)
        self._io_reader, self._io_writer = self._bare_io_reader, self._bare_io_writer

    async def connect_tls(self, *arguments: Any, **options: Any) -> None:
        """See Transport."""
        await super().connect_tls(*arguments, **options)
        self._must_be_tls = False

    def write(self, payload: bytes) -> None:
        """See Transport. Raises CallProblem before credentials go to a server that was to have TLS and has none."""
        if self._must_be_tls:
            raise tls_problem()
        super().write(payload)  # type: ignore[no-untyped-call]

    async def read(self, *arguments: Any) -> bytes:
        """See Transport."""
        size_bytes = 0 if self.parser is None else self.parser.needed
        if size_bytes > 2 * limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            self.problem = too_large(size_bytes, limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX)
            raise ConnectionError
        data: bytes = await super().read(*arguments)
        return data

    def abort(self) -> None:
        """Ends the connection at once."""
        for writer in (self._io_writer, self._bare_io_writer):
            if writer is not None:
                writer.transport.abort()
        if self._bare_io_writer is None:
            self._sock.close()


class _Link:
    """One connection."""

    def __init__(self, target: Target, wire: _Wire) -> None:
        self.target = target
        self.timeout_s = target.around.config.http_timeout_s
        self.inbox: Inbox[Msg] = Inbox()
        """What has come, and how the connection ended."""
        self.client = nats.aio.client.Client()
        self._wire = self.client._transport = wire
        self._refusal: CallProblem | None = None
        self._ended = asyncio.Event()
        self._has_no_streams = asyncio.Event()

    @classmethod
    async def open(cls, target: Target) -> "_Link":
        """Raises CallProblem."""
        trusted = await tls_context(target.around)
        link = cls(target, _Wire(await dial(target), must_be_tls=target.is_tls))
        try:
            await link._log_in(trusted)
        except BaseException:
            link._wire.abort()
            raise
        return link

    async def _log_in(self, trusted: ssl.SSLContext) -> None:
        policy = self.target.policy or {}
        basic, bearer = policy.get("basic", {}), policy.get("bearer", {})
        try:
            async with asyncio.timeout(self.target.connect_timeout_s):
                await self.client.connect(
                    # For texts alone: the connection exists.
                    "nats://broker",
                    user=basic.get("username"),
                    password=basic.get("password"),
                    token=bearer.get("token"),
                    tls=trusted,
                    tls_hostname=self.target.host,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=int(self.target.connect_timeout_s) + 1,
                    name="fastrunner",
                )
        except CallProblem:
            raise
        except ssl.SSLError:
            raise tls_problem() from None
        except TimeoutError:
            raise Unreachable("No Response In Time", "the broker does not answer in time") from None
        except (nats.errors.Error, OSError, ValueError) as error:
            raise _problem_of(error) from None
        self._wire.parser = self.client._ps

    @property
    def streams(self) -> JetStreamContext:
        """JetStream."""
        return self.client.jetstream(timeout=self.timeout_s)

    @property
    def payload_size_bytes_max(self) -> int:
        """What the server takes; 0 if it does not say."""
        return self.client.max_payload

    async def stream_of(self, subject: str) -> str | None:
        """The stream that has a subject; None if there is none, or none that this user may ask for."""
        try:
            return await self.guarded(self.streams.find_stream_name_by_subject(subject))
        except _NoStream:
            return None

    async def pull(self, stream: str, durable: str) -> JetStreamContext.PullSubscription | None:
        """A consumer that the server remembers, made if there is none; None if the subject leads beyond the stream."""
        config = api.ConsumerConfig(
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=limits.ASYNCAPI_ACK_WAIT_S,
            deliver_policy=api.DeliverPolicy.NEW,
            inactive_threshold=limits.ASYNCAPI_CONSUMER_KEPT_S,
        )
        try:
            return await self.guarded(
                self.streams.pull_subscribe(self.target.address, durable=durable, stream=stream, config=config)
            )
        except _NoStream:
            return None

    async def guarded(self, work: Awaitable[Result]) -> Result:
        """What the library does, until the connection ends, or the server refuses something. Raises CallProblem."""
        doing = asyncio.ensure_future(work)
        ends = [asyncio.ensure_future(event.wait()) for event in (self._ended, self._has_no_streams)]
        try:
            await asyncio.wait(
                {doing, ends[0]} if self._has_no_streams.is_set() else {doing, *ends}, return_when=_FIRST
            )
            if doing.done():
                return doing.result()
        except (nats.errors.Error, OSError, ValueError) as error:
            raise self._refusal or _problem_of(error) from None
        finally:
            await _stopped(doing, *ends)
        if self._ended.is_set():
            raise self._refusal or lost()
        raise _NoStream

    async def flush(self) -> None:
        """The server has read all that was sent, and refused none of it. Raises CallProblem."""
        await self.guarded(self.client.flush(timeout=math.ceil(self.timeout_s)))
        if self._refusal is not None:
            raise self._refusal

    async def _on_error(self, error: Exception) -> None:
        text = str(error).lower()
        if "permissions violation" in text:
            # Of JetStream's own subjects, too; who may not use those has core NATS.
            if f'"{self.target.address.lower()}"' not in text:
                self._has_no_streams.set()
                return
            self._refusal = CallProblem("Permission Denied", "the broker does not let this user do that", 403)
        elif _is_about_login(text):
            self._refusal = refused_login()
        else:
            return
        self._ended.set()

    async def _on_closed(self) -> None:
        self._refusal = self._refusal or self._wire.problem
        self.inbox.fail(self._refusal or lost())
        self._ended.set()

    async def close(self) -> None:
        """Never raises."""
        try:
            async with asyncio.timeout(limits.ASYNCAPI_CLOSE_S_MAX):
                await self.client.close()
        except (nats.errors.Error, OSError, TimeoutError):
            pass
        finally:
            self._wire.abort()


class _NoStream(CallProblem):
    """There is no JetStream, or not for this."""

    def __init__(self) -> None:
        super().__init__("No Stream", "no stream of the broker has the subject")


class _Durable:
    """See `Subscription`: a consumer that JetStream remembers."""

    def __init__(self, link: _Link, pulling: JetStreamContext.PullSubscription) -> None:
        self._link = link
        self._pulling = pulling
        self._given: list[Msg] = []
        self._fetching: asyncio.Task[Msg] | None = None
        self._holding = asyncio.create_task(self._hold())

    async def next(self) -> Message:
        """See `Subscription`."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.wait({self._fetching})
        fetched, self._fetching = self._fetching, None
        message = fetched.result()
        self._given.append(message)
        return _message_of(message)

    async def taken(self, count: int) -> None:
        """See `Subscription`."""
        for message in self._given[:count]:
            await self._link.guarded(message.ack())
        await self._link.flush()
        del self._given[:count]

    async def close(self) -> None:
        """See `Subscription`: what was given comes again at once."""
        await _stopped(self._holding, *([] if self._fetching is None else [self._fetching]))
        if self._link.client.is_connected:
            with contextlib.suppress(CallProblem, TimeoutError):
                async with asyncio.timeout(limits.ASYNCAPI_CLOSE_S_MAX):
                    for message in self._unacknowledged():
                        await self._link.guarded(message.nak())
        await self._link.close()

    def _unacknowledged(self) -> list[Msg]:
        fetched = self._fetching
        is_fetched = fetched is not None and not fetched.cancelled() and fetched.exception() is None
        return [*self._given, *([fetched.result()] if fetched is not None and is_fetched else [])]

    async def _fetch(self) -> Msg:
        while True:
            try:
                # The server forgets a request whose time is up.
                [message] = await self._link.guarded(self._pulling.fetch(1, timeout=limits.ASYNCAPI_ACK_WAIT_S / 3))
            except _NothingYet:
                continue
            return message

    async def _hold(self) -> None:
        """Puts off when what was given has to be acknowledged."""
        while True:
            await asyncio.sleep(limits.ASYNCAPI_ACK_WAIT_S / 3)
            for message in list(self._given):
                try:
                    await self._link.guarded(message.in_progress())
                except CallProblem:
                    return


class _Plain:
    """See `Subscription`: core NATS, where nothing is acknowledged."""

    def __init__(self, link: _Link) -> None:
        self._link = link

    @classmethod
    async def open(cls, link: _Link, group: str) -> "_Plain":
        """Raises CallProblem."""

        async def receive(message: Msg) -> None:
            link.inbox.put(message, len(message.data))

        await link.guarded(link.client.subscribe(link.target.address, queue=group, cb=receive))
        await link.flush()
        return cls(link)

    async def next(self) -> Message:
        """See `Subscription`."""
        return _message_of(await self._link.inbox.get())

    async def taken(self, count: int) -> None:
        """See `Subscription`."""

    async def close(self) -> None:
        """See `Subscription`."""
        await self._link.close()


class _NothingYet(CallProblem):
    """A request for a message whose time is up."""

    def __init__(self) -> None:
        super().__init__("No Response In Time", "the broker does not answer in time")


async def _stopped(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _problem_of(error: Exception) -> CallProblem:
    match error:
        case nats.errors.AuthorizationError():
            return refused_login()
        case (
            nats.errors.ConnectionClosedError()
            | nats.errors.StaleConnectionError()
            | nats.errors.UnexpectedEOF()
            | nats.errors.ConnectionDrainingError()
        ):
            return lost()
        case nats.errors.TimeoutError():
            return _NothingYet()
        case NotFoundError() | ServiceUnavailableError() | nats.errors.NoRespondersError():
            return _NoStream()
        case APIError():
            if error.err_code == _OUTSIDE_OF_STREAM:
                return _NoStream()
            return CallProblem("Broker Refused", f"JetStream refuses with code {error.err_code or error.code}")
        case nats.errors.BadSubjectError() | nats.errors.BadHeaderError() | ValueError():
            return BindingProblem("a header's name or value, or the binding queue, is none that NATS takes")
        case nats.errors.Error():
            if _is_about_login(str(error).lower()):
                return refused_login()
            return Unreachable("Broker Failed", f"the broker's answer is none ({type(error).__name__})")
        case _:
            return lost()


def _is_about_login(text: str) -> bool:
    return "authorization" in text or "authentication" in text


def _check_subject(subject: str, *, has_wildcards: bool) -> None:
    tokens = subject.split(".")
    wildcards = {"*", ">"}.intersection(tokens) if has_wildcards else set()
    is_subject = all(token and token.isprintable() and " " not in token for token in tokens)
    if not is_subject or any(set("*>").intersection(token) for token in tokens if token not in wildcards):
        raise BindingProblem(f"the channel's address {subject!r} is no subject of NATS: words with dots between them")


def _message_of(message: Msg) -> Message:
    if len(message.data) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
        raise too_large(len(message.data), limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX)
    headers = dict(message.headers or {})
    content_type = next((value for name, value in headers.items() if name.lower() == _CONTENT_TYPE.lower()), "")
    return Message(message.data, headers, content_type)
