"""Stage 5, tasks: HTTP, over the worker's client. A message is published by a request. One is received by a stream of
server-sent events or by asking again and again, if the operation's binding says so (`x-subscribe: sse` or `poll`): the
protocol itself has no subscriptions.

Rules: nobody keeps events, so what comes while no connection is open is lost: at most once. A long poll takes a message
from the server when it answers, so one that is lost with a crash is lost, too.
"""

import asyncio
import base64
from collections.abc import Mapping
from typing import NamedTuple

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from fastrunner.base import limits
from fastrunner.tasks.call_asyncapi.clients import Message, Subscription, Target
from fastrunner.tasks.call_asyncapi.document import ConfigurationProblem
from fastrunner.tasks.call_http.arguments import RequestProblem, check_head, parse_uri
from fastrunner.tasks.call_http.arguments import headers_of as request_headers
from fastrunner.tasks.call_http.content import decode_header
from fastrunner.tasks.call_http.failures import CallProblem, connection_problem

__all__ = ["headers_of", "proven", "publish", "subscribe", "url_of"]

_HEADERS_LEFT_OUT = frozenset({"connection", "content-length", "content-type", "date", "server", "transfer-encoding"})
"""Of a response: they are the connection's or the server's, not the message's."""


_PLAIN = {"Accept-Encoding": "identity"}
"""Asked for with messages: a stream of them cannot wait for a coding's next block."""


class Proven(NamedTuple):
    """A request with what proves who calls."""

    url: URL
    headers: dict[str, str]


def url_of(target: Target, scheme: str) -> URL:
    """Where a channel is. Raises CallProblem."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    path = f"{target.path}/{target.address.lstrip('/')}" if target.address.strip("/") else target.path or "/"
    try:
        url, _ = parse_uri(f"http{'s' if target.is_tls else ''}://{host}:{target.port}{path}")
    except (RequestProblem, UnicodeEncodeError):
        raise ConfigurationProblem("server and channel make no URL together") from None
    return url.with_scheme(f"{scheme}{'s' if target.is_tls else ''}")


def proven(target: Target, url: URL) -> Proven:
    """As the policy and the document's security scheme have it: a key goes where the scheme says, all else into
    `Authorization`."""
    if target.policy is None:
        return Proven(url, {})
    if "basic" in target.policy:
        basic = target.policy["basic"]
        pair = f"{basic['username']}:{basic['password']}".encode()
        return Proven(url, {"Authorization": f"Basic {base64.b64encode(pair).decode()}"})
    token = target.policy["bearer"]["token"]
    for scheme in target.security:
        name = scheme.get("name")
        if scheme.get("type") != "httpApiKey" or not isinstance(name, str):
            continue
        match scheme.get("in"):
            case "header":
                return Proven(url, {name: token})
            case "query":
                return Proven(url.update_query({name: token}), {})
            case "cookie":
                return Proven(url, {"Cookie": f"{name}={token}"})
    return Proven(url, {"Authorization": f"Bearer {token}"})


def headers_of(message: Message, url: URL) -> CIMultiDict[str]:
    """A message's headers as a request may have them. Raises CallProblem."""
    try:
        headers = request_headers(message.headers)
        check_head(url, headers)
    except RequestProblem as problem:
        raise ConfigurationProblem(f"the message cannot be sent by HTTP: {problem.detail}") from None
    except UnicodeEncodeError:
        raise ConfigurationProblem("the message's headers hold characters that no header can carry") from None
    return headers


async def publish(target: Target, message: Message, key: str) -> None:
    """See `clients`."""
    url, proof = proven(target, url_of(target, "http"))
    headers = headers_of(message, url)
    headers.setdefault("Content-Type", message.content_type)
    headers.setdefault("Idempotency-Key", key)
    headers.update(proof)
    assert target.client is not None
    try:
        async with target.client.request(_method(target, "POST"), url, headers=headers, data=message.body) as response:
            _check(response)
    except (aiohttp.ClientError, OSError) as error:
        raise connection_problem(error) from None


async def subscribe(target: Target, _consumer: str) -> Subscription:
    """See `clients`."""
    form = target.bindings["operation"].get("x-subscribe")
    if form == "poll":
        return _Poll(target)
    if form == "sse":
        stream = _Stream(target)
        await stream.open()
        return stream
    raise ConfigurationProblem(
        "HTTP has no subscriptions: the operation's binding says how messages are received, with `x-subscribe: sse` "
        "for server-sent events or `x-subscribe: poll` for requests that wait for a message",
        "Protocol Not Supported",
    )


class _Poll:
    """One request after the other; each is answered with a message, or with 204 or 304."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def next(self) -> Message:
        target = self._target
        url, proof = proven(target, url_of(target, "http"))
        assert target.client is not None
        while True:
            try:
                headers = {**_PLAIN, **proof}
                async with target.client.request(_method(target, "GET"), url, headers=headers, data=None) as response:
                    if response.status not in (204, 304):
                        _check(response)
                        return Message(await _body(response), _told(response), response.headers.get("Content-Type", ""))
            except (aiohttp.ClientError, OSError) as error:
                raise connection_problem(error) from None
            await asyncio.sleep(limits.ASYNCAPI_POLL_INTERVAL_S)

    async def taken(self, count: int) -> None:
        """Nobody waits for it."""

    async def close(self) -> None:
        """Nothing is open."""


class _Stream:
    """Server-sent events: the lines of a response without an end."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._response: aiohttp.ClientResponse | None = None
        self._buffer = b""
        self._fields: dict[str, str] = {}
        self._data: list[bytes] = []
        self._size_bytes = 0

    async def open(self) -> None:
        """Raises CallProblem."""
        target = self._target
        url, proof = proven(target, url_of(target, "http"))
        assert target.client is not None
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache", **_PLAIN, **proof}
        request = target.client.request(_method(target, "GET"), url, headers=headers, data=None)
        try:
            self._response = await request.__aenter__()
            _check(self._response)
        except (aiohttp.ClientError, OSError) as error:
            raise connection_problem(error) from None
        except CallProblem:
            await self.close()
            raise

    async def next(self) -> Message:
        while True:
            line, is_whole, rest = self._buffer.partition(b"\n")
            if not is_whole:
                await self._read()
                continue
            self._buffer = rest
            message = self._event(line.rstrip(b"\r"))
            if message is not None:
                return message

    async def _read(self) -> None:
        assert self._response is not None
        try:
            piece = await self._response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise connection_problem(error) from None
        if not piece:
            raise CallProblem("Connection Lost", "the server has ended the stream of events")
        self._buffer += piece
        if len(self._buffer) + self._size_bytes > 2 * limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            raise _too_large()

    def _event(self, line: bytes) -> Message | None:
        """Takes one line; an event once it is whole, with its `event` and `id` as headers."""
        if line:
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
                self._size_bytes += len(value)
            elif name in (b"event", b"id"):
                self._fields[name.decode()] = value.decode("utf-8", "replace")
            if self._size_bytes > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
                raise _too_large()
            return None
        data, fields = self._data, self._fields
        self._data, self._fields, self._size_bytes = [], {}, 0
        return Message(b"\n".join(data), fields) if data else None

    async def taken(self, count: int) -> None:
        """Nobody waits for it."""

    async def close(self) -> None:
        if self._response is not None:
            self._response.close()


def _method(target: Target, default: str) -> str:
    method = target.bindings["operation"].get("method", default)
    if not isinstance(method, str) or not method.isalpha():
        raise ConfigurationProblem("the operation's binding has a `method` that is none")
    return method.upper()


def _check(response: aiohttp.ClientResponse) -> None:
    if not 200 <= response.status < 300:
        raise CallProblem("Error Response", f"the server answered with status {response.status}", response.status)
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise CallProblem("Malformed Response", "the response is in a content coding that was not asked for")


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX:
            raise _too_large()
    return bytes(body)


def _told(response: aiohttp.ClientResponse) -> Mapping[str, str]:
    return {
        name.lower(): decode_header(value)
        for name, value in response.headers.items()
        if name.lower() not in _HEADERS_LEFT_OUT
    }


def _too_large() -> CallProblem:
    return CallProblem("Message Too Large", f"a message exceeds {limits.ASYNCAPI_MESSAGE_SIZE_BYTES_MAX} bytes")
