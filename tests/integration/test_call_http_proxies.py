"""Support: calls through proxies: which go through one, what it is sent and what not, whose connections are used."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from fastrunner.access.egress import Egress
from fastrunner.base.redaction import redact
from fastrunner.config import Environment, load_config
from fastrunner.tasks.call_http.client import Proxies
from fastrunner.tasks.call_http.perform import CallHttp
from tests.integration.http_calls import Remote, call_http, failure_of, serve, value_of
from tests.integration.runner_process import running
from tests.integration.test_egress import SERVE, Resolver, document, end_of

CERTIFICATES = Path(__file__).parent.parent / "certificates"
PASSWORD = "hush/hush@proxy"


class Proxy:
    """Answers by itself what is http, and opens a tunnel to one server for whatever else it is asked."""

    def __init__(self) -> None:
        self.heads: list[str] = []
        self.connections_count = 0
        self.refusal = b""
        self.port = 0
        self.behind = 0

    def uri(self, user_information: str = "") -> str:
        return f"http://{user_information}127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_count += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                if self.refusal:
                    writer.write(self.refusal)
                    return
                if head.startswith("CONNECT "):
                    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await self._tunnel(reader, writer)
                    return
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nproxy")
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _tunnel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.behind)
        try:
            await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


@asynccontextmanager
async def proxy_server() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.handle, "127.0.0.1", 0) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with proxy_server() as proxy:
        yield proxy


@pytest.fixture
async def secure() -> AsyncIterator[Remote]:
    """A service with a certificate for `localhost` and the hosts of the kit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATES / "server.pem")
    remote = Remote()
    runner = await serve(remote, context)
    yield remote
    await runner.cleanup()


def trusting(**settings: Any) -> CallHttp:
    return call_http(ssl_context=ssl.create_default_context(cafile=CERTIFICATES / "ca.pem"), **settings)


async def test_http_goes_through_its_proxy(proxy: Proxy) -> None:
    """In absolute form, with the proxy's credentials; the proxy looks the name up, and nobody else does."""
    resolver = Resolver([])
    http = call_http(resolver=resolver, http_proxy=proxy.uri("runner:hush%2Fhush%40proxy@"))
    shown = await value_of(http, "http://service.example/a%2Fb?c=d", output="response")
    assert shown["content"] == "proxy"
    assert PASSWORD not in str(shown)
    assert redact(f"{PASSWORD} {base64.b64encode(f'runner:{PASSWORD}'.encode()).decode()} hush%2Fhush%40proxy") == (
        "*** *** ***"
    )
    [head] = proxy.heads
    assert head.startswith("GET http://service.example/a%2Fb?c=d HTTP/1.1\r\n")
    assert "\r\nHost: service.example\r\n" in head
    credentials = base64.b64encode(f"runner:{PASSWORD}".encode()).decode()
    assert f"\r\nProxy-Authorization: Basic {credentials}\r\n" in head
    assert resolver.asked == []
    await http.close()


async def test_https_goes_through_a_tunnel(proxy: Proxy, secure: Remote) -> None:
    """The proxy sees where to, and its own credentials; neither the request nor the service's credentials."""
    proxy.behind = secure.port
    http = trusting(https_proxy=proxy.uri(f"runner:{URL.build(host='h', password=PASSWORD).raw_password}@"))
    policy = {"bearer": {"token": "for-the-service"}}
    uri = "https://petstore.swagger.io/secret-path"
    assert await value_of(http, uri, authentication=policy) == {"ok": True}
    [head] = proxy.heads
    assert head.startswith("CONNECT petstore.swagger.io:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " in head
    assert "for-the-service" not in head
    assert "secret-path" not in head
    assert "Proxy-Authorization" not in secure.last.headers
    assert secure.last.headers["Authorization"] == "Bearer for-the-service"
    # The certificate is the service's own: the proxy cannot be somebody else.
    failure = await failure_of(http, "https://other.example/")
    assert failure.title == "TLS Failed"
    await http.close()


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden", "502 Bad Gateway"])
async def test_a_proxy_that_opens_no_tunnel(proxy: Proxy, status: str) -> None:
    proxy.refusal = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    http = call_http(https_proxy=proxy.uri("runner:hush-hush-hush@"))
    failure = await failure_of(http, "https://service.example/")
    assert (failure.type, failure.status, failure.title) == ("communication", 500, "Proxy Refused")
    assert failure.detail.endswith(f"it answers with status {status[:3]}")
    assert "hush" not in failure.detail
    await http.close()


async def test_a_proxy_that_is_not_there(unused_tcp_port: int) -> None:
    proxy = f"http://runner:hush-hush-hush@127.0.0.1:{unused_tcp_port}"
    http = call_http(http_proxy=proxy, https_proxy=proxy)
    for scheme in ("http", "https"):
        failure = await failure_of(http, f"{scheme}://service.example/")
        assert (failure.type, failure.status, failure.title) == ("communication", 500, "Connection Failed")
        assert "the proxy" in failure.detail
        assert "hush" not in failure.detail
    await http.close()


async def test_a_proxy_whose_name_is_not_found() -> None:
    http = call_http(http_proxy="http://proxy.invalid:1")
    failure = await failure_of(http, "http://service.example/")
    assert (failure.title, failure.detail) == (
        "Host Not Found",
        "GET service.example: the name of the proxy could not be resolved",
    )
    await http.close()


async def test_where_a_proxy_goes_is_judged_by_name(proxy: Proxy) -> None:
    """The proxy itself may lie anywhere; addresses are judged in every spelling, names by themselves."""
    egress = Egress(environment=Environment.PROD, deny="*.bad.example")
    http = call_http(egress=egress, resolver=Resolver(["127.0.0.1"]), http_proxy=f"http://proxy.example:{proxy.port}")
    assert await value_of(http, "http://service.example/") == "proxy"
    for host in ("10.0.0.1", "[::ffff:10.0.0.1]", "167772161", "169.254.169.254", "metadata.google.internal"):
        assert (await failure_of(http, f"http://{host}/")).title == "Destination Refused"
    assert (await failure_of(http, "http://x.bad.example/")).title == "Destination Refused"
    assert (await failure_of(http, "http://localhost/")).title == "Destination Refused"
    assert len(proxy.heads) == 1
    await http.close()


async def test_connections_are_reused_and_never_mixed_up(proxy: Proxy, secure: Remote) -> None:
    """Of each way there is one, for ten calls one after the other."""
    async with proxy_server() as tunnels:
        tunnels.behind = secure.port
        straight = Remote()
        server = await serve(straight)
        http = trusting(http_proxy=proxy.uri(), https_proxy=tunnels.uri())
        for _ in range(10):
            assert await value_of(http, "http://petstore.swagger.io/") == "proxy"
            assert await value_of(http, "https://petstore.swagger.io/") == {"ok": True}
            assert await value_of(http, straight.url) == {"ok": True}
        ports = {request.transport.get_extra_info("peername")[1] for request in straight.requests if request.transport}
        assert (proxy.connections_count, tunnels.connections_count, len(ports)) == (1, 1, 1)
        assert (len(proxy.heads), len(tunnels.heads), len(secure.requests), len(straight.requests)) == (10, 1, 10, 10)
        await http.close()
        await server.cleanup()


async def test_credentials_of_calls_do_not_stay_with_a_connection() -> None:
    """Ten calls over one connection, each with its own credentials or with none."""
    remote = Remote()
    server = await serve(remote)
    http = call_http()
    sent: list[str | None] = []
    for number in range(10):
        policy = {"bearer": {"token": f"token-{number}"}} if number % 2 else None
        sent.append(f"Bearer token-{number}" if number % 2 else None)
        await value_of(http, remote.url, authentication=policy)
    assert [request.headers.get("Authorization") for request in remote.requests] == sent
    assert len({request.transport.get_extra_info("peername") for request in remote.requests if request.transport}) == 1
    await http.close()
    await server.cleanup()


async def test_every_redirect_chooses_its_proxy(proxy: Proxy) -> None:
    remote = Remote()

    async def onward(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://service.example/next")

    remote.answer = onward
    server = await serve(remote)
    http = call_http(http_proxy=proxy.uri())
    assert await value_of(http, remote.url, redirect=True) == "proxy"
    assert len(remote.requests) == len(proxy.heads) == 1
    await http.close()
    await server.cleanup()


@pytest.mark.parametrize(
    ("uri", "is_direct"),
    [
        ("http://service.example/", False),
        ("http://a.corp.example/", True),
        ("http://corp.example/", True),
        ("http://xcorp.example/", False),
        ("http://Inner.:8080/", True),
        ("http://10.1.2.3/", True),
        ("http://11.1.2.3/", False),
        ("http://[fd00::1]/", True),
        ("http://port.example:81/", True),
        ("http://port.example/", False),
        ("http://localhost:9/", True),
        ("http://127.0.0.1/", True),
        ("http://[::1]/", True),
        ("https://service.example/", True),
    ],
)
def test_which_calls_go_straight(uri: str, is_direct: bool) -> None:
    """A variable for https alone: there is none here, so https goes straight."""
    listed = ".corp.example, inner ,10.0.0.0/8,fd00::/8,port.example:81"
    proxies = Proxies(load_config(http_proxy="proxy.example:3128", no_proxy=listed))
    assert proxies.of(URL(uri)) == (None if is_direct else URL("http://proxy.example:3128"))
    assert Proxies(load_config(http_proxy="p:1", no_proxy="*")).of(URL(uri)) is None


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_the_usual_variables_are_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "http://proxy.example/")
    assert Proxies(load_config()).of(URL("http://service.example/")) == URL("http://proxy.example:80")


async def test_the_proxys_password_is_shown_nowhere(tmp_path: Path, unused_tcp_port: int) -> None:
    settings = {"http_proxy": f"http://runner:{(word := 'canary-of-proxy')}@127.0.0.1:{unused_tcp_port}"}
    with running(tmp_path / "data", SERVE, LOG_LEVEL="debug", **settings) as runner:
        runner.wait_ready()
        status, said = await asyncio.to_thread(end_of, runner, "one", document("http://service.example/"))
        metrics = runner.get("/metrics")[1]
        code, out, err = runner.stop()
    assert (status, code) == ("failed", 0)
    assert "no connection to the proxy could be made" in said
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    credentials = base64.b64encode(f"runner:{word}".encode())
    shown = json.dumps([said, metrics, out, err]).encode() + stored
    assert word.encode() not in shown
    assert credentials not in shown
