"""Stage 5, tasks: the evaluated arguments of `call: grpc` as what is to be called.

Rules: pure, no I/O; what cannot be called is refused before a socket opens; no problem's text holds a value of
`arguments`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from fastrunner.base.destinations import Destinations, plain_name
from fastrunner.base.printable import printable
from fastrunner.tasks.call_grpc.outcome import invalid_call
from fastrunner.tasks.call_http.arguments import RequestProblem, origin_of
from fastrunner.tasks.scalars import json_kind

__all__ = ["Call", "Target", "prepare"]

_TLS_PORT: Final = 443
_SCHEMES: Final = ("grpc", "grpcs")
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.\-]{0,251}[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]{2,45}\]")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_NAME_SIZE_CHARS_MAX: Final = 512
_SHOWN_SIZE_CHARS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Target:
    """Where a connection goes."""

    host: str
    """A name or an address, without brackets."""
    port: int
    """From 1."""
    is_tls: bool
    """Whether it speaks TLS."""

    @property
    def authority(self) -> str:
        """Host and port, as a server is told."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Call:
    """What is to be called."""

    target: Target
    """Where the service is."""
    service: str
    """Its name as the document has it: whole, or the end of it."""
    method: str
    """Its name in the service."""
    arguments: Any
    """JSON, as the document's `arguments`."""
    proto: Mapping[str, Any]
    """The resource that describes it."""
    reflection: Target | None
    """The server that describes it instead."""

    @property
    def shown(self) -> str:
        """Which call, for people."""
        return f"{self.service}/{self.method} at {self.target.authority}"


def prepare(arguments: Mapping[str, Any], tls: Destinations) -> Call:
    """The call for rendered arguments (see `Plan.render`); `tls` are destinations that take nothing else.

    Raises GrpcProblem.
    """
    service = arguments["service"]
    if not isinstance(service, dict):
        raise invalid_call("expression", f"service is {json_kind(service)}, an object is needed")
    name, method = _name(service.get("name"), "service.name"), _name(arguments["method"], "method")
    host, port = service.get("host"), service.get("port", _TLS_PORT)
    if not isinstance(host, str) or not _is_host(host):
        raise invalid_call("configuration", "service.host is neither the name of a host nor an address")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536:
        raise invalid_call("configuration", f"service.port is {printable(str(port))[:20]}: a port is 1 to 65535")
    host = host.strip("[]")
    proto = arguments["proto"]
    uri = proto.get("uri")
    if not isinstance(uri, str):
        raise invalid_call("expression", f"proto.endpoint is {json_kind(uri)}, a string is needed")
    reflection = _reflection(uri.strip(), port, tls)
    is_same = reflection is not None and (plain_name(reflection.host), reflection.port) == (plain_name(host), port)
    is_tls = reflection.is_tls if reflection is not None and is_same else _is_tls(host, port, tls)
    return Call(Target(host, port, is_tls), name, method, arguments.get("arguments"), proto, reflection)


def _name(given: Any, argument: str) -> str:
    if not isinstance(given, str):
        raise invalid_call("expression", f"{argument} is {json_kind(given)}, a string is needed")
    name = given.strip().removeprefix(".")
    if len(name) > _NAME_SIZE_CHARS_MAX or not _NAME.fullmatch(name):
        shown = printable(name)[:_SHOWN_SIZE_CHARS_MAX]
        raise invalid_call("configuration", f"{argument} {shown!r} is no name that a .proto file can have")
    return name


def _is_host(text: str) -> bool:
    """Whether it is one that can be looked up, or an address."""
    try:
        return bool(_HOST.fullmatch(text) and origin_of("http", text))
    except RequestProblem:
        return False


def _is_tls(host: str, port: int, tls: Destinations) -> bool:
    return port == _TLS_PORT or tls.has_host(plain_name(host), port)


def _reflection(uri: str, service_port: int, tls: Destinations) -> Target | None:
    """The server that a `grpc` or `grpcs` URI names; None for a URI of a file."""
    scheme = uri.partition(":")[0].lower()
    if scheme not in _SCHEMES:
        return None
    try:
        parts = urlsplit(uri)
        port = parts.port if parts.port is not None else service_port
    except ValueError:
        raise invalid_call("configuration", "proto.endpoint names no valid host and port") from None
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise invalid_call(
            "configuration", "proto.endpoint is to be asked by reflection, and takes a host and a port alone"
        )
    host = parts.hostname or ""
    if not _is_host(f"[{host}]" if ":" in host else host) or port == 0:
        raise invalid_call("configuration", "proto.endpoint names no valid host and port")
    return Target(host, port, scheme == "grpcs" or _is_tls(host, port, tls))
