"""Stage 5, tasks: an agent's card: where the agent is, which version of the protocol it speaks there, how callers prove
who they are.

Rules: no I/O. Of the agent's interfaces those by JSON-RPC count, of these one of version 0.3 before others, because
that is the DSL's. The policy of the card is for the card: the agent gets it only where the card is from. What the card
demands and the task has not is said before anything is sent.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import orjson
from a2a.client.card_resolver import parse_agent_card
from a2a.types.a2a_pb2 import AgentCard, SecurityScheme
from google.protobuf.json_format import ParseError
from packaging.version import InvalidVersion, Version

from fastrunner.base.redaction import hide
from fastrunner.tasks.call_a2a.arguments import A2aCall
from fastrunner.tasks.descriptions import Description
from fastrunner.tasks.rpc import refused, text_of

__all__ = ["Agent", "agent_of"]

_BINDING = "JSONRPC"
_MODERN = Version("1.0")
_FITTING: Mapping[str, frozenset[str]] = {
    "basic": frozenset({"http basic"}),
    "digest": frozenset({"http digest"}),
    "bearer": frozenset({"http bearer", "oauth2", "openIdConnect", "apiKey"}),
    "oauth2": frozenset({"http bearer", "oauth2", "openIdConnect"}),
    "oidc": frozenset({"http bearer", "oauth2", "openIdConnect"}),
}
"""What of a card's schemes a policy of the DSL answers."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Where and how one agent is asked."""

    url: str
    """Of its endpoint."""
    is_modern: bool
    """Whether it speaks version 1.0 there, and not 0.3."""
    policy: Mapping[str, Any] | None
    """How callers prove who they are; None if by headers alone, or not at all."""
    headers: Mapping[str, str]
    """What proves it in place of a policy."""
    card: AgentCard | None
    """What it says about itself, if the document names it."""


def agent_of(call: A2aCall, description: Description | None) -> Agent:
    """Who is asked; `description` is the card's text, of a call that has one. Raises CallProblem."""
    if description is None:
        return Agent(call.server or "", False, call.policy, {}, None)
    card = _card(description)
    # The JSON-RPC of 0.3 has no list of tasks.
    url, is_modern = _interface(card, description.url, prefers_modern=call.method == "tasks/list")
    policy = call.policy
    # Where the document says that the card is, wherever that has led to.
    if policy is None and call.card is not None and _origin(url) == _origin(call.card["uri"]):
        policy = call.card.get("authentication")
    key = _api_key(card, policy)
    if key is None or policy is None:
        return Agent(url, is_modern, policy, {}, card)
    token = text_of(policy["bearer"].get("token"), "token")
    hide(token)
    return Agent(url, is_modern, None, _key_headers(key, token), card)


def _card(description: Description) -> AgentCard:
    try:
        return parse_agent_card(orjson.loads(description.text))
    except (ParseError, ValueError, RecursionError):
        raise refused("configuration", "what agentCard leads to is no card of an agent") from None


def _interface(card: AgentCard, base: str, *, prefers_modern: bool) -> tuple[str, bool]:
    """URL and whether it is one of version 1.0. Raises CallProblem."""
    found = [(urljoin(base, each.url), _is_modern(each.protocol_version)) for each in _by_rpc(card)]
    if not found:
        raise refused("configuration", f"the agent's card names no interface by {_BINDING}, and calls use no other")
    return min(found, key=lambda each: each[1] != prefers_modern)


def _by_rpc(card: AgentCard) -> Iterator[Any]:
    return (each for each in card.supported_interfaces if each.protocol_binding.upper() == _BINDING)


def _is_modern(version: str) -> bool:
    try:
        return Version(version or "1.0") >= _MODERN
    except InvalidVersion:
        raise refused(
            "configuration", f"the agent's card has a protocol version that is none: {version[:50]!r}"
        ) from None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


# --- how callers prove who they are ---


def _api_key(card: AgentCard, policy: Mapping[str, Any] | None) -> SecurityScheme | None:
    """The key that a token is sent as; None if the policy is sent as it is. Raises CallProblem."""
    if not card.security_requirements:
        return None
    kind = next(iter(policy)) if policy else None
    wanted = []
    keys = []
    for requirement in card.security_requirements:
        names = list(requirement.schemes)
        schemes = [_kind_of(card, name) for name in names]
        fits = [scheme in _FITTING.get(kind or "", ()) for scheme in schemes]
        if not names or (len(names) == 1 and all(fits) and schemes != ["apiKey"]):
            return None
        if len(names) == 1 and all(fits):
            keys.append(card.security_schemes[names[0]])
        wanted.append(" and ".join(schemes))
    if keys:
        return keys[0]
    raise refused("configuration", _unproven(kind, wanted))


def _unproven(kind: str | None, wanted: Iterable[str]) -> str:
    asked = " or ".join(wanted)
    if kind is None:
        return f"the agent's card demands {asked}: give `server`, beside `agentCard`, an `authentication`"
    return f"the agent's card demands {asked}, and `authentication: {kind}` is not that"


def _kind_of(card: AgentCard, name: str) -> str:
    scheme = card.security_schemes[name] if name in card.security_schemes else SecurityScheme()
    match scheme.WhichOneof("scheme"):
        case "http_auth_security_scheme":
            return f"http {scheme.http_auth_security_scheme.scheme.lower()}"
        case "api_key_security_scheme":
            return "apiKey"
        case "oauth2_security_scheme":
            return "oauth2"
        case "open_id_connect_security_scheme":
            return "openIdConnect"
        case "mtls_security_scheme":
            return "mutualTLS"
        case _:
            return "a scheme that it does not describe"


def _key_headers(scheme: SecurityScheme, token: str) -> Mapping[str, str]:
    key = scheme.api_key_security_scheme
    match key.location.lower():
        case "header":
            return {key.name: token}
        case "cookie":
            return {"Cookie": f"{key.name}={token}"}
        case _:
            raise refused("configuration", "the agent's card demands a key in the query, where logs would have it")
