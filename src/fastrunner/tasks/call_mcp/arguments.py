"""Stage 5, tasks: the evaluated arguments of `call: mcp` as what a session is opened and asked with.

Rules: pure, no I/O; what cannot be asked is refused before anything is connected to or started; no problem's text holds
a value but a version's and an option's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS

from fastrunner import __version__
from fastrunner.tasks.rpc import map_of, refused, text_of

__all__ = ["McpCall", "call_of"]

_VERSION = "2025-06-18"
_SHOWN_SIZE_CHARS_MAX = 100


@dataclass(frozen=True, slots=True)
class McpCall:
    """One method of one server."""

    version: str
    """Of the protocol, that is offered."""
    client: Mapping[str, str]
    """Name and version of who calls."""
    method: str
    """Of the protocol, such as `tools/call`."""
    parameters: Mapping[str, Any] | None
    """The method's, as they are sent."""
    timeout_s: float | None
    """The document's."""
    http: Mapping[str, Any] | None
    """`headers`, if there are any; None for a server over stdio."""
    stdio: Mapping[str, Any] | None
    """`command`, and perhaps `arguments` and `environment`; None for a server over HTTP."""


def call_of(arguments: Mapping[str, Any]) -> McpCall:
    """What rendered arguments (see `Plan.render`) ask for. Raises CallProblem."""
    transport = map_of(arguments.get("transport"), "transport")
    options = map_of(transport.get("options") or {}, "transport.options")
    for name in options:
        shown = name[:_SHOWN_SIZE_CHARS_MAX]
        raise refused("configuration", f"transport.options has {shown!r}, and no transport has options: leave it out")
    parameters = arguments.get("parameters")
    return McpCall(
        _version(arguments.get("protocolVersion", _VERSION)),
        _client(arguments.get("client")),
        arguments["method"],
        None if parameters is None else map_of(parameters, "parameters"),
        arguments["timeout_ms"] / 1000 if "timeout_ms" in arguments else None,
        map_of(transport["http"], "transport.http") if "http" in transport else None,
        map_of(transport["stdio"], "transport.stdio") if "stdio" in transport else None,
    )


def _version(given: Any) -> str:
    text = text_of(given, "protocolVersion")
    if text not in HANDSHAKE_PROTOCOL_VERSIONS:
        known = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
        raise refused(
            "configuration",
            f"protocolVersion {text[:_SHOWN_SIZE_CHARS_MAX]!r} is none that can be offered: use {known}",
        )
    return text


def _client(given: Any) -> Mapping[str, str]:
    if given is None:
        return {"name": "fastrunner", "version": __version__}
    client = map_of(given, "client")
    return {name: text_of(client.get(name), f"client.{name}") for name in ("name", "version")}
