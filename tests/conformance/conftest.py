"""Support: performers whose world is a local stand-in for the hosts that the conformance kit calls.

Names are resolved to the stand-in's port and its certificate is trusted: the documents run as they are, over TLS.
"""

import base64
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import CollectorRegistry

from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.tasks import build_performers

_CERTIFICATES = Path(__file__).parent.parent / "certificates"
_PETSTORE = "petstore.swagger.io"
_HTTPBIN = "httpbin.org"
_PETS = {number: {"id": number, "name": f"Pet {number}", "status": "available"} for number in (1, 2)}


class _StandIn(AbstractResolver):
    """Resolves the kit's hosts to a local port, and nothing else: no test leaves the machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host not in (_PETSTORE, _HTTPBIN):
            raise OSError(f"{host} is not among the stand-ins")
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        pass


async def _find_pets(request: web.Request) -> web.Response:
    return web.json_response([pet for pet in _PETS.values() if pet["status"] == request.query["status"]])


async def _get_pet(request: web.Request) -> web.Response:
    pet = _PETS.get(int(request.match_info["id"]))
    return web.json_response(pet) if pet else web.json_response({"message": "Pet not found"}, status=404)


async def _basic_auth(request: web.Request) -> web.Response:
    pair = f"{request.match_info['user']}:{request.match_info['password']}"
    if request.headers.get("Authorization") != f"Basic {base64.b64encode(pair.encode()).decode()}":
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Basic realm="kit"'})
    return web.json_response({"authenticated": True, "user": request.match_info["user"]})


class _Everybody:
    """Takes what is published."""

    async def emit(self, event: Mapping[str, Any]) -> Mapping[str, Any]:
        return event


@pytest.fixture
async def performers() -> AsyncIterator[Mapping[str, EffectPerformer]]:
    """Performers for which the kit's hosts are local."""
    app = web.Application()
    app.add_routes([web.get("/v2/pet/findByStatus", _find_pets), web.get(r"/v2/pet/{id:\d+}", _get_pet)])
    app.add_routes([web.get("/basic-auth/{user}/{password}", _basic_auth)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_CERTIFICATES / "server.pem")
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    performers = build_performers(
        load_config(),
        Metrics(CollectorRegistry()),
        resolver=_StandIn(runner.addresses[0][1]),
        ssl_context=ssl.create_default_context(cafile=_CERTIFICATES / "ca.pem"),
        event_sink=_Everybody(),
    )
    yield performers
    for performer in performers.values():
        await performer.close()
    await runner.cleanup()
