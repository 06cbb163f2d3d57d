"""Stage 5, tasks: from `with` and the document to where a call goes: server, address, credentials.

Rules: pure. The DSL has no place for parameters of channels: they come from the message where the document says so,
else from `server.variables` of the same name, else they are the document's default. A parameter is one part of its
address, whatever it holds: it chooses no other one, and not several.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from fastrunner.tasks.call_asyncapi.document import Application, ConfigurationProblem, Operation, Section, Server
from fastrunner.tasks.call_asyncapi.protocols import PROTOCOLS, Protocol, protocol_of
from fastrunner.tasks.call_http.arguments import origin_of
from fastrunner.tasks.call_http.failures import CallProblem
from fastrunner.tasks.scalars import json_kind, scalar_text

__all__ = ["Route", "operation_of", "route_to", "value_at"]

_VARIABLE = re.compile(r"\{([^{}]+)\}")
_DOTS = re.compile(r"(?:\.|%2E){1,2}", re.IGNORECASE)
_LOCATION = re.compile(r"\$message\.(header|payload)#(/.*)?")


class ArgumentProblem(CallProblem):
    """An argument that is not there, or not of use."""

    type = "validation"

    def __init__(self, sentence: str) -> None:
        super().__init__("Invalid Arguments", sentence, 400)


class Route(NamedTuple):
    """Where a call goes."""

    server: Server
    protocol: Protocol
    host: str
    port: int
    path: str
    address: str
    operation: Operation


def operation_of(application: Application, arguments: Mapping[str, Any]) -> Operation:
    """What is called. Raises ConfigurationProblem."""
    if "operation" in arguments:
        return application.operation(_name(arguments["operation"], "operation"))
    verb = "publish" if "message" in arguments else "subscribe"
    return application.channel(_name(arguments.get("channel"), "channel"), verb)


def route_to(application: Application, operation: Operation, arguments: Mapping[str, Any]) -> Route:
    """Where it is called. Raises CallProblem."""
    chosen = arguments.get("server")
    server = _server(application, operation, chosen, arguments.get("protocol"))
    given = (chosen or {}).get("variables") or {}
    if not isinstance(given, dict):
        raise ArgumentProblem("`server.variables` is no object")
    protocol = protocol_of(server.protocol)
    variables = application.members(server.section, "variables", f"servers/{server.name}")
    location = _filled(server.location, lambda name: _variable(variables.get(name), given, name))
    host, port, path = _split(application, location, server, protocol)
    parameters = application.members(operation.sections["channel"], "parameters", f"channels/{operation.channel}")
    message = arguments.get("message")

    def part(name: str) -> str:
        return _part(protocol, name, _parameter(parameters.get(name), given, name, message))

    address = _filled(operation.address, part)
    _check_address(protocol, operation.address, address)
    return Route(server, protocol, host, port, path, address, operation)


def value_at(location: Any, message: Mapping[str, Any]) -> Any:
    """What a runtime expression like `$message.header#/id` finds in payload and headers; None if it finds nothing."""
    found = _LOCATION.fullmatch(location) if isinstance(location, str) else None
    if found is None:
        return None
    value: Any = message.get("headers" if found[1] == "header" else "payload")
    for part in (found[2] or "").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _name(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ArgumentProblem(f"`{what}` is {json_kind(value)}, not a name")
    return value


def _server(application: Application, operation: Operation, chosen: Any, protocol: Any) -> Server:
    servers = application.servers()
    if chosen is not None:
        name = _name(chosen.get("name") if isinstance(chosen, dict) else None, "server.name")
        if name not in servers:
            known = ", ".join(servers) or "none"
            raise application.problem("", f"has no server {name!r:.100}; it has {known}")
        return servers[name]
    fitting = [servers[name] for name in operation.servers if name in servers]
    if protocol is not None:
        fitting = [server for server in fitting if _is_of(server, protocol)]
    if not fitting:
        what = f"no server of protocol {protocol!r:.40}" if protocol is not None else "no server"
        has = ", ".join(f"{name} ({servers[name].protocol})" for name in operation.servers if name in servers) or "none"
        raise application.problem("", f"has {what} for the channel {operation.channel!r:.100}; of servers it has {has}")
    return fitting[0]


def _is_of(server: Server, protocol: Any) -> bool:
    known = PROTOCOLS.get(server.protocol)
    return server.protocol == protocol or (known is not None and protocol in known.names)


def _filled(template: str, value_of: Any) -> str:
    return _VARIABLE.sub(lambda found: value_of(found[1]), template)


def _variable(section: Section | None, given: Mapping[str, Any], name: str) -> str:
    text = _text(given.get(name, (section or {}).get("default")), name)
    if text is None:
        raise ArgumentProblem(f"the server's variable {name!r:.100} has no value: give it in `server.variables`")
    return _allowed(section or {}, name, text)


def _parameter(section: Section | None, given: Mapping[str, Any], name: str, message: Any) -> str:
    section = section or {}
    value = value_at(section.get("location"), message) if isinstance(message, dict) else None
    schema = section.get("schema")
    default = section.get("default", schema.get("default") if isinstance(schema, dict) else None)
    text = _text(value if value is not None else given.get(name, default), name)
    if text is None:
        raise ArgumentProblem(
            f"the channel's parameter {name!r:.100} has no value: the message has none where the document says, so "
            "give it in `server.variables`"
        )
    return _allowed(section, name, text)


def _part(protocol: Protocol, name: str, text: str) -> str:
    """A parameter's text as one part of an address. Raises ArgumentProblem."""
    what = f"the channel's parameter {name!r:.100}"
    if not text and (protocol.is_path or protocol.dividers):
        raise ArgumentProblem(f"{what} is empty, where a part of the channel's address goes")
    if set(protocol.dividers).intersection(text):
        raise ArgumentProblem(
            f"{what} holds one of {' '.join(protocol.dividers)}, which would lead to another address of "
            f"{protocol.names[0]}, or to several"
        )
    return quote(text, safe="", errors="surrogatepass") if protocol.is_path else text


def _check_address(protocol: Protocol, template: str, address: str) -> None:
    """Raises ArgumentProblem for what parameters have made of it together."""
    if address == template:
        return
    if protocol.is_path and any(map(_DOTS.fullmatch, re.split(r"[/?#]", address))):
        raise ArgumentProblem("a channel's parameter is '.' or '..', which would lead to another path")
    if protocol.has_own_addresses and address.startswith("$") and not template.startswith("$"):
        raise ArgumentProblem(
            "a channel's parameter begins with '$', which would lead to an address of the broker's own"
        )


def _text(value: Any, name: str) -> str | None:
    if value is None:
        return None
    text = scalar_text(value)
    if text is None:
        raise ArgumentProblem(f"{name!r:.100} is {json_kind(value)}, where a text or a number goes")
    return text


def _allowed(section: Section, name: str, text: str) -> str:
    choices = section.get("enum")
    if isinstance(choices, list) and choices and text not in choices:
        raise ArgumentProblem(f"{name!r:.100} is none of those that the document allows: {choices!r:.200}")
    return text


def _split(application: Application, location: str, server: Server, protocol: Protocol) -> tuple[str, int, str]:
    text = location if "://" in location else f"//{location}"
    try:
        parts = urlsplit(text)
        user_information, _, host_and_port = parts.netloc.rpartition("@")
        # Whatever the protocol is, a host is one that a URL may name.
        host = origin_of("http", host_and_port).raw_host or ""
        port = parts.port
    except ValueError:
        raise application.problem(f"servers/{server.name}", "has no host and port that there can be") from None
    if user_information:
        raise ConfigurationProblem(
            f"servers/{server.name} has credentials in its address: they belong into the task's `authentication`"
        )
    return host, port or protocol.port, parts.path.rstrip("/")
