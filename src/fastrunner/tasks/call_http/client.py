"""Stage 5, tasks: the worker's HTTP client: where requests go, by way of which proxy, over which pooled connections.

Theory of operation: requests that go straight and requests through a proxy have a session each, with connections of its
own. Of the one, every address is judged before it is connected to. Of the other the proxy looks names up, so the target
is judged by what the workflow wrote, and the proxy, which the operator named, may lie anywhere.

Rules: whatever performs HTTP for a workflow does it through here: calls, what is asked of authorities, documents.
"""

import ssl
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict
from yarl import URL

from fastrunner.access.egress import Egress, is_loopback
from fastrunner.base import limits
from fastrunner.base.destinations import Destinations, plain_name
from fastrunner.base.redaction import hide
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks.call_http.connector import Connector
from fastrunner.tracing.context import TRACEPARENT, current_headers

__all__ = ["Client", "Proxies"]


class Proxies:
    """The proxies of the environment's variables."""

    def __init__(self, config: Config) -> None:
        given = {"http": config.http_proxy, "https": config.https_proxy}
        self._proxies = {scheme: URL(uri.get_secret_value()) for scheme, uri in given.items() if uri is not None}
        for proxy in self._proxies.values():
            hide([proxy.password, proxy.raw_password, f"{proxy.user}:{proxy.password}"])
        self._direct = Destinations.parse(config.no_proxy, are_domains=True)

    def of(self, url: URL) -> URL | None:
        """The proxy for a request; None if it goes straight."""
        proxy = self._proxies.get(url.scheme)
        host, port = url.raw_host or "", url.port or 0
        # To a proxy, loopback is another machine than to the workflow.
        if proxy is None or is_loopback(host):
            return None
        return None if self._direct.has_host(plain_name(host), port) else proxy


class Client:
    """The HTTP client of one worker. Its sessions are made on first use, because they belong to the running loop."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        egress: Egress,
        *,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`resolver` and `ssl_context` replace how names are looked up and whom TLS trusts."""
        self._egress = egress
        self._refused = metrics.egress_refused
        self._proxies = Proxies(config)
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._connect_timeout_s = min(config.http_timeout_s, limits.HTTP_CONNECT_TIMEOUT_S_MAX)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    def request(
        self,
        method: str,
        url: URL,
        *,
        headers: Mapping[str, str],
        data: Any,
        middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Sends one request and follows no redirect. Raises DestinationRefused, and what the library raises."""
        proxy = self._proxies.of(url)
        return self._session(proxy is not None).request(
            method,
            url,
            headers=_traced(headers),
            data=data,
            proxy=proxy,
            allow_redirects=False,
            middlewares=middlewares,
        )

    async def websocket(
        self, url: URL, *, headers: Mapping[str, str], size_bytes_max: int, heartbeat_s: float
    ) -> aiohttp.ClientWebSocketResponse:
        """Opens a WebSocket; a peer that answers no ping for a heartbeat is gone. Raises as `request` does."""
        proxy = self._proxies.of(url.with_scheme("https" if url.scheme == "wss" else "http"))
        return await self._session(proxy is not None).ws_connect(
            url, headers=_traced(headers), proxy=proxy, max_msg_size=size_bytes_max, heartbeat=heartbeat_s
        )

    async def close(self) -> None:
        """Closes the pooled connections; requests still in flight fail."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    def _session(self, is_proxied: bool) -> aiohttp.ClientSession:
        if is_proxied not in self._sessions:
            connector = Connector(
                self._egress,
                self._refused,
                is_proxied=is_proxied,
                resolver=self._resolver,
                limit=limits.EFFECTS_IN_FLIGHT_PER_WORKER_MAX,
                limit_per_host=limits.HTTP_CONNECTIONS_PER_HOST_MAX,
                ssl=self._ssl_context or True,
            )
            self._sessions[is_proxied] = aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                # A call without a body has no type, and sends none.
                skip_auto_headers=("Content-Type",),
                max_line_size=limits.HTTP_HEADERS_SIZE_BYTES_MAX,
                max_field_size=limits.HTTP_HEADERS_SIZE_BYTES_MAX,
                max_headers=limits.HTTP_HEADERS_COUNT_MAX,
            )
        return self._sessions[is_proxied]


def _traced(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Headers with the place in a trace of who sends them; those of a workflow that says so itself stay as they are."""
    more = current_headers()
    if not more or any(name.lower() == TRACEPARENT for name in headers):
        return headers
    found = CIMultiDict(headers)
    found.update(more)
    return found
