"""Support: the codec server: shows Temporal's UI and command line what is sealed, or lies elsewhere.

    UI -> POST /decode {"payloads": [...]} -> opened, blobs fetched -> the same with readable payloads
    UI -> POST /encode                     -> sealed

Rules: with the settings of the replicas: their keys and blob store, and who may call. Pages of the UI's origins alone
may ask, which a browser sees to by CORS; another page's requests are refused as well. What is decoded may be of any
namespace of documents, so callers who are kept to some are refused.
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any, Final

import orjson
from aiohttp import web
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from fastrunner.access.certificates import RotatingContext
from fastrunner.access.principal import Principal, Role
from fastrunner.access.sealing import DataKeys, KeyFileRefused, Sealer
from fastrunner.base import descriptors, limits
from fastrunner.base.checks import is_loopback
from fastrunner.blobs import open_store
from fastrunner.config import Config, ConfigurationError
from fastrunner.engine.temporal.codec import Codec
from fastrunner.errors import PermissionDenied
from fastrunner.processes.credentials import Looks, web_credentials
from fastrunner.processes.link import StartError
from fastrunner.web.api.app import guarded
from fastrunner.web.api.guard import Guard, HostList, add_headers
from fastrunner.web.api.problems import Refused
from fastrunner.web.api.sessions import Sessions
from fastrunner.web.connections import CONNECTIONS, Connections, mark_busy

__all__ = ["CodecOptions", "serve_codec"]

_ALLOWED_HEADERS: Final = "authorization, authorization-extras, caller-type, content-type, x-namespace"
"""What the UI sends."""


@dataclass(frozen=True, slots=True)
class CodecOptions:
    """Where a codec server is, and for whom."""

    ui_origins: tuple[str, ...]
    """Origins of the UI, such as http://localhost:8233."""
    host: str
    """Address it binds to."""
    port: int
    """0: a free one."""
    allow_hosts: tuple[str, ...] = ()
    """Further names it is called by."""


class _Pages:
    """The paths."""

    def __init__(self, codec: Codec, guard: Guard, origins: frozenset[str]) -> None:
        self._codec = codec
        self._guard = guard
        self._origins = origins

    async def add_cors(self, request: web.Request, response: web.StreamResponse) -> None:
        """For `on_response_prepare`: an answer says which page may read it."""
        origin = request.headers.get("Origin", "")
        if origin.lower() in self._origins:
            response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"

    async def allow(self, _request: web.Request) -> web.Response:
        """What a browser asks before it sends; the guard has looked at the origin."""
        headers = {
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
            # A page from a network may ask on this machine.
            "Access-Control-Allow-Private-Network": "true",
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers=headers)

    async def decode(self, request: web.Request) -> web.Response:
        """Readable payloads. Raises Refused, RunnerError."""
        await self._admit(request, Role.READ)
        return _answer(await self._codec.decode(await _payloads_of(request)))

    async def encode(self, request: web.Request) -> web.Response:
        """Payloads as histories have them. Raises Refused, RunnerError."""
        await self._admit(request, Role.SUBMIT)
        return _answer(await self._codec.encode(await _payloads_of(request)))

    async def _admit(self, request: web.Request, role: Role) -> None:
        principal: Principal | None = (await self._guard.admit(request, role)).principal
        if principal is not None and principal.namespaces is not None:
            raise PermissionDenied(
                f"{principal.name} may see documents of some namespaces only, and payloads do not say whose they are"
            )


async def _payloads_of(request: web.Request) -> list[Payload]:
    try:
        body = orjson.loads(await request.read())
        if not isinstance(body, dict):
            raise json_format.ParseError("it is no object")
        return list(json_format.ParseDict(body, Payloads()).payloads)
    except (orjson.JSONDecodeError, json_format.ParseError):
        raise Refused(400, "the body is none of Temporal's: send JSON, an object with a list `payloads`") from None
    except web.HTTPRequestEntityTooLarge:
        raise Refused(413, f"the body has more than {limits.CODEC_BODY_SIZE_BYTES_MAX} bytes") from None


def _answer(payloads: list[Payload]) -> web.Response:
    body: dict[str, Any] = json_format.MessageToDict(Payloads(payloads=payloads))
    return web.Response(body=orjson.dumps({"payloads": [], **body}), content_type="application/json")


def _codec_of(config: Config) -> Codec:
    """The replicas' codec. Raises ConfigurationError."""
    try:
        file = config.temporal_key_file
        keys = None if file is None else DataKeys.read(file, "FASTRUNNER_TEMPORAL_KEY_FILE")
    except KeyFileRefused as error:
        raise ConfigurationError(str(error)) from None
    blobs = None if config.blob_url is None else open_store(config.blob_url)
    return Codec(None if keys is None else Sealer(keys), blobs)


async def serve_codec(config: Config, options: CodecOptions) -> None:
    """Serves until SIGINT or SIGTERM; says on stdout, as a line of JSON, where. Raises ConfigurationError."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    descriptors.allow()
    try:
        credentials = web_credentials(config)
        hosts = HostList.of(options.host, options.allow_hosts, options.ui_origins)
    except (StartError, ValueError) as error:
        raise ConfigurationError(str(error)) from None
    if credentials.gate is None and not is_loopback(options.host):
        raise ConfigurationError(
            f"--host {options.host} lets others than this machine read what is sealed, and nothing tells them apart: "
            "set FASTRUNNER_CALLERS_FILE or FASTRUNNER_JWT_ISSUER"
        )
    # Nobody has its key: there are no sessions here.
    guard = Guard(hosts, credentials.gate, Sessions(os.urandom(32)))
    app = _app(_Pages(_codec_of(config), guard, hosts.origins), guard)
    tls = RotatingContext(credentials.certificates) if credentials.certificates is not None else None
    looks = Looks()
    looks.begin(credentials.looks)
    try:
        await _serve(app, options, tls, stop)
    finally:
        looks.close()
        await credentials.close()


def _app(pages: _Pages, guard: Guard) -> web.Application:
    app = web.Application(middlewares=[mark_busy, guarded(guard, ())], client_max_size=limits.CODEC_BODY_SIZE_BYTES_MAX)
    app[CONNECTIONS] = Connections(descriptors.for_strangers(limits.HTTP_CONNECTIONS_MAX))
    app.on_response_prepare.append(add_headers)
    app.on_response_prepare.append(pages.add_cors)
    for path, answer in (("/decode", pages.decode), ("/encode", pages.encode)):
        app.router.add_post(path, answer)
        app.router.add_route("OPTIONS", path, pages.allow)
    return app


async def _serve(app: web.Application, options: CodecOptions, tls: RotatingContext | None, stop: asyncio.Event) -> None:
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, shutdown_timeout=1.0, auto_decompress=False, lingering_time=1.0
    )
    await runner.setup()
    assert runner.server is not None
    try:
        try:
            server = await asyncio.get_running_loop().create_server(
                app[CONNECTIONS].serve(runner.server), options.host, options.port, ssl=tls
            )
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {options.host}:{options.port}: {error.strerror}") from None
        port = server.sockets[0].getsockname()[1]
        sys.stdout.buffer.write(orjson.dumps({"serving": {"http_port": port}}) + b"\n")
        sys.stdout.buffer.flush()
        await stop.wait()
        server.close()
    finally:
        app[CONNECTIONS].close()
        await runner.cleanup()
