"""Support: stand-ins for the hosts that the specification's documents call: their names, over TLS and without, here.

Names resolve to servers on loopback, and an authority made for the test signs what they show: documents run as they
are, and none leaves the machine.
"""

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["Hosts", "Site", "standing_in"]

Site = Callable[[web.Request, "Hosts"], Awaitable[web.StreamResponse]]
"""Answers every request to one host."""

_SHUTDOWN_S = 0.1


class Hosts(AbstractResolver):
    """Whom a name leads to, and what was asked."""

    def __init__(self, sites: Mapping[str, Site], authority: str) -> None:
        self.sites = sites
        self.trust = ssl.create_default_context(cadata=authority)
        """Trusts the authority of these hosts alone."""
        self.ports: dict[int, int] = {}
        """Where the servers are that stand for a port."""
        self.others: dict[str, str] = {}
        """Addresses of names whose servers are somebody else's."""
        self.asked: list[str] = []
        """Each request in a line: method, URL, `[Authorization]` if there is one, JSON of the body if there is one."""
        self.moved: dict[str, str] = {}
        """Where else a path is, by path and query."""
        self.busy_count: dict[str, int] = {}
        """How many requests a path still answers with status 503."""
        self.notifications: list[Any] = []
        """What whoever subscribes is sent, in order; what is callable is called instead, and None ends it."""
        self.closing = asyncio.Event()
        """Whoever holds a request back does so until then."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See AbstractResolver; OSError for every name but the hosts'."""
        if host in self.others:
            address, at = self.others[host], port
        elif host in self.sites:
            address, at = "127.0.0.1", self.ports.get(port, port)
        else:
            raise OSError(f"{host} is not among the stand-ins")
        return [ResolveResult(hostname=host, host=address, port=at, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """See AbstractResolver."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the host says whose name the request has."""
        host = request.host.partition(":")[0]
        self.asked.append(await _line(request, host))
        path = request.path_qs
        if path in self.moved:
            raise web.HTTPFound(self.moved[path])
        if self.busy_count.get(path):
            self.busy_count[path] -= 1
            raise web.HTTPServiceUnavailable
        return await self.sites[host](request, self)


async def _line(request: web.Request, host: str) -> str:
    body = await request.read()
    parts = [request.method, f"{request.scheme}://{host}{request.path_qs}"]
    if authorization := request.headers.get("Authorization"):
        parts.append(f"[{authorization}]")
    if body:
        is_json = request.content_type == "application/json"
        parts.append(json.dumps(json.loads(body), separators=(",", ":")) if is_json else body.decode())
    return " ".join(parts)


@asynccontextmanager
async def standing_in(sites: Mapping[str, Site], folder: Path) -> AsyncIterator[Hosts]:
    """Servers for all of `sites`; `folder` takes their certificate."""
    authority, certificate = _certificates(tuple(sites))
    hosts = Hosts(sites, authority)
    (folder / "hosts.pem").write_text(certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "hosts.pem")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hosts.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        for port, context in ((443, tls), (80, None)):
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
            hosts.ports[port] = runner.addresses[-1][1]
        yield hosts
    finally:
        hosts.closing.set()
        await runner.cleanup()


@cache
def _certificates(names: tuple[str, ...]) -> tuple[str, str]:
    """An authority, and a certificate of these names with its key that it has signed; both PEM."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-ins")])
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    authority = _builder(issuer, issuer, authority_key).add_extension(constraints, critical=True)
    alternatives: Iterable[x509.GeneralName] = [
        *map(x509.DNSName, names),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")])
    leaf = _builder(subject, issuer, key).add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    signed = [
        each.sign(authority_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) for each in (authority, leaf)
    ]
    return signed[0].decode(), (private + signed[1]).decode()


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
    )
