"""The connection to Temporal: TLS with certificates on both sides, keys, what changes while it is used, what is wrong.

A frontend of the test's own is in front of a real server: it terminates TLS, wants a key, and forwards every call.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from prometheus_client import CollectorRegistry

from fastrunner.base.clock import monotonic_s
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from tests.integration.engines import SET, submission, until, until_status
from tests.integration.temporal_engines import Registered, opened, serving_temporal
from tests.outside import require, require_tool

require(find_spec("temporalio"), "temporalio", module=True)

CERTIFICATES = Path(__file__).parent.parent / "certificates"
SERVER, AUTHORITY = CERTIFICATES / "server.pem", CERTIFICATES / "ca.pem"
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving_temporal() as address:
        yield address


def own_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}-key.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    names = ("-nodes", "-subj", f"/CN={name}", "-days", "1", "-keyout", key, "-out", certificate)
    subprocess.run([require_tool("openssl"), "req", "-x509", *curve, *names], check=True, capture_output=True)
    return certificate, key


class Frontend(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Forwards what comes with one of its keys."""

    def __init__(self, server: Any, keys: set[str]) -> None:
        self.keys = keys
        self.port = 0
        self.taken: list[tuple[str, str]] = []
        """The key and the name in the certificate of each call."""
        self._server = server

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = details.method

        async def forward(request: bytes, context: Any) -> bytes:
            metadata = dict(context.invocation_metadata() or ())
            key = str(metadata.get("authorization", "")).removeprefix("Bearer ")
            if self.keys and key not in self.keys:
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no such key")
            name = dict(context.auth_context()).get("x509_common_name", [b""])[0].decode()
            self.taken.append((key, name))
            try:
                reply: bytes = await self._server.unary_unary(method)(request, timeout=context.time_remaining())
                return reply
            except grpc.aio.AioRpcError as error:
                context.set_trailing_metadata(error.trailing_metadata())
                await context.abort(error.code(), error.details() or "")
                raise AssertionError from error

        return grpc.unary_unary_rpc_method_handler(forward)


@asynccontextmanager
async def frontend(address: str, keys: set[str], authorities: bytes | None = None) -> AsyncIterator[Frontend]:
    """A frontend that has a certificate; with `authorities` clients have to show one, too."""
    chain = SERVER.read_bytes()
    async with grpc.aio.insecure_channel(address) as channel:
        await channel.channel_ready()
        handler = Frontend(channel, keys)
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handler,))
        credentials = grpc.ssl_server_credentials([(chain, chain)], authorities, authorities is not None)
        handler.port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        try:
            yield handler
        finally:
            await server.stop(0)


def settings(port: int, **given: Any) -> Config:
    return Config(
        temporal_service_address=f"127.0.0.1:{port}",
        drain_timeout_s=1.0,
        **{"temporal_tls_server_ca_cert_path": AUTHORITY, "temporal_tls_server_name": "localhost", **given},
    )


@asynccontextmanager
async def connected(config: Config) -> AsyncIterator[Any]:
    """An engine, without a queue that others use, and what it says of the server."""
    from fastrunner.engine.temporal.engine import TemporalEngine

    metrics = Metrics(CollectorRegistry())
    queue = f"tls-{config.temporal_service_address}"
    engine = TemporalEngine(config, metrics, {"call_http": opened()}, definitions=Registered(), task_queue=queue)
    opening = asyncio.create_task(engine.start())
    try:
        yield engine, opening
    finally:
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        await engine.drain(1.0)


async def asking(engine: Any, condition: Callable[[], bool]) -> None:
    """Asks until something holds: what the worker waits for at Temporal takes a minute to be asked again."""
    deadline_s = monotonic_s() + TIMEOUT_S
    while not condition():
        assert monotonic_s() < deadline_s
        await engine.get("tls-1")
        await asyncio.sleep(0.05)


async def test_certificates_and_keys_that_change_while_it_works(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What the files hold is used from then on; one that is no good changes nothing."""
    first, second = own_certificate(tmp_path, "first"), own_certificate(tmp_path, "second")
    certificate, private, key = tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "key"
    certificate.write_bytes(first[0].read_bytes()), private.write_bytes(first[1].read_bytes())
    key.write_text("sesame\n")
    authorities = first[0].read_bytes() + second[0].read_bytes()
    async with frontend(address, {"sesame", "simsim"}, authorities) as front:
        config = settings(
            front.port,
            temporal_api_key_file=key,
            temporal_tls_client_cert_path=certificate,
            temporal_tls_client_key_path=private,
        )
        async with connected(config) as (engine, opening):
            await asyncio.wait_for(opening, TIMEOUT_S)
            await engine.submit(submission("tls-1", SET))
            await until_status(engine, "tls-1", "completed", timeout_s=TIMEOUT_S)
            assert set(front.taken) == {("sesame", "first")}
            key.write_text("")
            await until(lambda: "the key of before stays" in caplog.text, "the sentence", TIMEOUT_S)
            key.write_text("simsim\n")
            await asking(engine, lambda: ("simsim", "first") in front.taken)
            certificate.write_bytes(second[0].read_bytes())
            await engine.submit(submission("tls-2", SET))
            await until(lambda: "the certificates of before stay" in caplog.text, "the sentence", TIMEOUT_S)
            private.write_bytes(second[1].read_bytes())
            await asking(engine, lambda: ("simsim", "second") in front.taken)
            await engine.submit(submission("tls-3", SET))
            await until_status(engine, "tls-3", "completed", timeout_s=TIMEOUT_S)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"temporal_tls_server_ca_cert_path": None}, "none of the authorities has signed that the system trusts"),
        ({"temporal_tls_server_name": "elsewhere.example"}, "set TEMPORAL_TLS_SERVER_NAME"),
        ({"temporal_api_key": "open"}, "refuses the key in TEMPORAL_API_KEY"),
        (
            {"temporal_tls": False, "temporal_tls_server_ca_cert_path": None, "temporal_tls_server_name": None},
            "it may want TLS, see TEMPORAL_TLS",
        ),
    ],
)
async def test_what_keeps_it_from_connecting_is_said(
    address: str, given: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And nothing is taken meanwhile; the key is not shown."""
    async with frontend(address, {"sesame"}) as front, connected(settings(front.port, **given)) as (_, opening):
        await until(lambda: why in caplog.text, why, TIMEOUT_S)
        assert not opening.done()
    assert "open" not in caplog.text
    assert front.taken == []


async def test_frontends_that_want_a_certificate_or_no_tls(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authorities = own_certificate(tmp_path, "client")[0].read_bytes()
    async with frontend(address, set(), authorities) as front, connected(settings(front.port)):
        await until(lambda: "see TEMPORAL_TLS_CLIENT_CERT_PATH" in caplog.text, "the sentence", TIMEOUT_S)
    async with connected(settings(int(address.rpartition(":")[2]))):
        await until(lambda: "does not speak TLS" in caplog.text, "the sentence", TIMEOUT_S)


async def test_a_namespace_that_is_not_there(address: str, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(Config(temporal_service_address=address, temporal_namespace="nowhere")):
        await until(lambda: "no namespace 'nowhere' (TEMPORAL_NAMESPACE)" in caplog.text, "the sentence", TIMEOUT_S)
