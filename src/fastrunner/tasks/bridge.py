"""Stage 5, tasks: how SDKs that bring an HTTP client of their own reach servers: by way of the worker's.

    SDK -> httpx, httpx2 -> Bridge -> Client -> permitted addresses, proxies, pooled connections

Theory of operation: such a client hands each request to a transport, and this one has the worker's client send it. So
where it may go, by which proxy, whom TLS trusts and how it proves who calls are what they are for `call: http`, and
the SDK never opens a connection. `httpx2` is a `httpx` of another name, so which of them it is does not matter here.

Rules: redirects are not followed here, and cookies are not kept. Bodies come as they are, in no coding, up to a bound.
What went wrong on the wire is kept for whoever called the SDK, because SDKs replace it by words of their own.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
from yarl import URL

from fastrunner import __version__
from fastrunner.base import clock
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.failures import CallProblem, connection_problem
from fastrunner.tasks.call_http.patience import retry_after_ms
from fastrunner.tasks.call_http.room import Share
from fastrunner.tasks.credentials.keyring import Keyring, Proof

__all__ = ["Bridge"]

_OF_THE_CONNECTION = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding"})


class Bridge:
    """The requests of one call."""

    def __init__(
        self, client: Client, keyring: Keyring, policy: Mapping[str, Any] | None, share: Share, *, size_bytes_max: int
    ) -> None:
        """`policy` as rendered is for the service that is called; `share` is what bodies take of the memory for all, to
        be closed by who gives it; `size_bytes_max` bounds each response's body."""
        self.problem: CallProblem | None = None
        """What went wrong with a request or its response; of several the last one."""
        self.status = 0
        """What a server has refused a request with; 0 if none was."""
        self.retry_after_ms = 0
        """How long it then asks to be left alone."""
        self.response_headers: Mapping[str, str] = {}
        """Of the latest response."""
        self._client = client
        self._keyring = keyring
        self._policy = policy
        self._share = share
        self._size_bytes_max = size_bytes_max
        self._proof: Proof | None = None

    @property
    def authorization(self) -> Mapping[str, str | None] | None:
        """`$authorization` of the task; None without a policy."""
        if self._proof is None:
            return None
        return {"scheme": self._proof.authorization.scheme, "parameter": self._proof.authorization.parameter}

    def http_client(
        self, library: Any, headers: Mapping[str, str], *, holds_back: Callable[[Any], bool] = lambda _: False
    ) -> Any:
        """An `AsyncClient` of `httpx` or `httpx2`, whichever module is given; `headers` go with each request unless the
        SDK sets others. Requests that `holds_back` says true of are not sent, but answered with status 405."""
        return library.AsyncClient(
            transport=_transport(library, self, holds_back),
            headers={"User-Agent": f"fastrunner/{__version__}", **headers},
            timeout=None,
            trust_env=False,
        )

    async def send(self, method: str, uri: str, headers: Iterable[tuple[str, str]], body: bytes) -> "_Answer":
        """Sends a request; the answer has to be closed. Raises CallProblem."""
        try:
            return await self._proven(method, URL(uri, encoded=True), dict(headers), body)
        except CallProblem as problem:
            self.problem = problem
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self.problem = connection_problem(error)
            raise self.problem from None

    async def _proven(self, method: str, url: URL, headers: dict[str, str], body: bytes) -> "_Answer":
        if self._policy is not None and self._proof is None:
            self._proof = await self._keyring.proof(self._policy)
        answer = await self._sent(method, url, headers, body)
        # A token may have been revoked.
        if answer.response.status == 401 and self._proof is not None and self._keyring.refused(self._proof):
            assert self._policy is not None
            await answer.close()
            self._proof = await self._keyring.proof(self._policy)
            answer = await self._sent(method, url, headers, body)
        response = answer.response
        self.status = response.status if response.status >= 400 else 0
        self.retry_after_ms = retry_after_ms(response.headers, clock.wall_ms()) if self.status else 0
        self.response_headers = response.headers
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            await answer.close()
            raise CallProblem("Malformed Response", "the response is in a content coding that was not asked for")
        return answer

    async def _sent(self, method: str, url: URL, headers: dict[str, str], body: bytes) -> "_Answer":
        sent = {name: value for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION}
        sent["Accept-Encoding"] = "identity"
        middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = ()
        if self._proof is not None:
            middlewares = self._proof.middlewares
            if self._proof.authorization.parameter is not None:
                sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
                sent["Authorization"] = self._proof.authorization.header
        async with AsyncExitStack() as stack:
            response = await stack.enter_async_context(
                self._client.request(method, url, headers=sent, data=body or None, middlewares=middlewares)
            )
            return _Answer(self, response, stack.pop_all(), self._share, self._size_bytes_max)


class _Answer:
    """A response that is being read."""

    def __init__(
        self,
        bridge: Bridge,
        response: aiohttp.ClientResponse,
        stack: AsyncExitStack,
        share: Share,
        size_bytes_max: int,
    ) -> None:
        self.response = response
        self._bridge = bridge
        self._stack = stack
        self._share = share
        self._size_bytes_max = size_bytes_max

    async def body(self) -> AsyncIterator[bytes]:
        """Its parts. Raises CallProblem."""
        size_bytes = 0
        try:
            async for chunk in self.response.content.iter_any():
                size_bytes += len(chunk)
                if size_bytes > self._size_bytes_max:
                    raise CallProblem("Response Too Large", f"the response has more than {self._size_bytes_max} bytes")
                await self._share.grow(len(chunk))
                yield chunk
        except CallProblem as problem:
            self._bridge.problem = problem
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._bridge.problem = connection_problem(error)
            raise self._bridge.problem from None

    async def close(self) -> None:
        """Gives the connection back, or ends it if there is more to come."""
        await self._stack.aclose()


def _transport(library: Any, bridge: Bridge, holds_back: Callable[[Any], bool]) -> Any:
    """A transport of the library's. Its classes are made here because no library is loaded before it is needed."""

    class Stream(library.AsyncByteStream):  # type: ignore[misc]
        """The body of a response."""

        def __init__(self, answer: _Answer) -> None:
            self._answer = answer

        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in self._answer.body():
                yield chunk

        async def aclose(self) -> None:
            await self._answer.close()

    class Transport(library.AsyncBaseTransport):  # type: ignore[misc]
        """Has requests sent."""

        async def handle_async_request(self, request: Any) -> Any:
            if holds_back(request):
                return library.Response(405)
            body = await request.aread()
            headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
            answer = await bridge.send(request.method, str(request.url), headers, body)
            return library.Response(
                answer.response.status, headers=list(answer.response.raw_headers), stream=Stream(answer)
            )

    return Transport()
