"""Stage 5, tasks: OAuth 2: the request for a token that a policy means, and the token a response holds.

Rules: pure, no I/O. Every grant and every way for a client to prove itself that needs no browser: RFC 6749, 7523, 8693.
Of what an endpoint says when it refuses, only the registered code is told: its description may repeat what it was sent.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode
from uuid import uuid4

import orjson

from fastrunner.base import clock
from fastrunner.tasks.credentials.policy import CredentialsProblem, malformed, names, section, text

__all__ = ["Token", "TokenRequest", "base_of", "endpoint_of", "token_of", "token_request"]

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_DISCOVERY = "/.well-known/openid-configuration"
_ENCODINGS = ("application/x-www-form-urlencoded", "application/json")
_CODE = re.compile(r"[a-z_]{1,40}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_ASSERTION_S = 60
"""How long an assertion of ours is valid: it is made for one request."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a token, ready to be sent."""

    headers: dict[str, str]
    """All but those the connection decides."""
    body: bytes
    """In the encoding they name."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token endpoint has given."""

    text: str
    """The access token."""
    expires_s: float | None
    """Seconds it is valid; None if nobody says."""
    refresh: str
    """The token to obtain the next one with; empty if there is none."""


def base_of(scheme: str, fields: Mapping[str, Any]) -> str:
    """The authority without a slash at its end, and without the path of its discovery document, which some write."""
    return text(scheme, fields, "authority").rstrip("/").removesuffix(_DISCOVERY).rstrip("/")


def endpoint_of(fields: Mapping[str, Any]) -> str:
    """The token endpoint of an oauth2 policy: a path below the authority, whatever path that has."""
    path = text("oauth2", section("oauth2", fields, "endpoints"), "token", is_required=False) or "/oauth2/token"
    return f"{base_of('oauth2', fields)}/{path.lstrip('/')}"


def token_request(scheme: str, fields: Mapping[str, Any], endpoint: str, refresh: str = "") -> TokenRequest:
    """The request at an endpoint; with a refresh token the one that renews. Raises CredentialsProblem."""
    parameters: list[tuple[str, str]] = []
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    parameters += [("grant_type", "refresh_token"), ("refresh_token", refresh)] if refresh else _grant(scheme, fields)
    scopes = names(scheme, fields, "scopes")
    if scopes:
        parameters.append(("scope", " ".join(scopes)))
    parameters += [("audience", each) for each in names(scheme, fields, "audiences")]
    parameters += _client(scheme, section(scheme, fields, "client"), endpoint, headers)
    encoding = text(scheme, section(scheme, fields, "request"), "encoding", is_required=False) or _ENCODINGS[0]
    if encoding not in _ENCODINGS:
        raise malformed(scheme, f"request.encoding is none of {', '.join(_ENCODINGS)}")
    headers["Content-Type"] = encoding
    try:
        return TokenRequest(headers, urlencode(parameters).encode() if encoding == _ENCODINGS[0] else _json(parameters))
    except (UnicodeEncodeError, TypeError):
        raise malformed(scheme, "a field has an unpaired surrogate: it is no text") from None


def _json(parameters: list[tuple[str, str]]) -> bytes:
    """An object; what is given several times is a list."""
    found: dict[str, Any] = {}
    for name, value in parameters:
        if name in found:
            found[name] = [*(found[name] if isinstance(found[name], list) else [found[name]]), value]
        else:
            found[name] = value
    return orjson.dumps(found)


def _grant(scheme: str, fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    grant = text(scheme, fields, "grant")
    parameters = [("grant_type", grant)]
    match grant:
        case "client_credentials":
            pass
        case "password":
            parameters += [(name, text(scheme, fields, name)) for name in ("username", "password")]
        case "refresh_token":
            # The DSL has no other place for it.
            parameters.append(("refresh_token", text(scheme, section(scheme, fields, "subject"), "token")))
        case _ if grant == EXCHANGE:
            for party in ("subject", "actor"):
                token = section(scheme, fields, party)
                if token or party == "subject":
                    parameters.append((f"{party}_token", text(f"{scheme} {party}", token, "token")))
                    parameters.append((f"{party}_token_type", text(f"{scheme} {party}", token, "type")))
        case _:
            grants = f"client_credentials, password, refresh_token, {EXCHANGE}"
            raise malformed(scheme, f"grant is none that works without a browser: {grants}")
    return parameters


def _client(scheme: str, client: Mapping[str, Any], endpoint: str, headers: dict[str, str]) -> list[tuple[str, str]]:
    """What proves the client: parameters, or a header."""
    where = f"{scheme} client"
    method = text(where, client, "authentication", is_required=False) or "client_secret_post"
    client_id = text(where, client, "id", is_required=bool(client) and method != "none")
    if not client_id or method == "none":
        return [("client_id", client_id)] if client_id else []
    match method:
        case "client_secret_post":
            return [("client_id", client_id), ("client_secret", text(where, client, "secret"))]
        case "client_secret_basic":
            # RFC 6749, 2.3.1: both are form-encoded first.
            pair = f"{quote_plus(client_id)}:{quote_plus(text(where, client, 'secret'))}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
            return []
        case "client_secret_jwt":
            assertion = text(where, client, "assertion", is_required=False)
            assertion = assertion or _signed(client_id, text(where, client, "secret"), endpoint)
        case "private_key_jwt":
            # The document gives it signed: no field holds a key.
            assertion = text(where, client, "assertion")
        case _:
            raise malformed(where, "authentication is no method there is")
    return [("client_id", client_id), ("client_assertion_type", _ASSERTION), ("client_assertion", assertion)]


def _signed(client_id: str, secret: str, endpoint: str) -> str:
    """A JWT that says who the client is, signed with its secret (RFC 7523, HS256)."""
    now_s = clock.wall_ms() // 1000
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": endpoint,
        "jti": uuid4().hex,
        "iat": now_s,
        "exp": now_s + _ASSERTION_S,
    }
    signed = b".".join(_base64url(orjson.dumps(part)) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    signature = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return f"{signed.decode()}.{_base64url(signature).decode()}"


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


# --- responses ---


def token_of(host: str, status: int, body: bytes, issuers: list[str]) -> Token:
    """The token in a response of an endpoint at a host. Raises CredentialsProblem."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    said = answer if isinstance(answer, dict) else {}
    if status != 200:
        code = said.get("error")
        reason = f": {code}" if isinstance(code, str) and _CODE.fullmatch(code) else ""
        sentence = f"the token endpoint at {host} answered with status {status}{reason}"
        if status >= 500 or status == 429:
            raise CredentialsProblem("communication", status, "Token Endpoint Unavailable", sentence)
        raise CredentialsProblem("authentication", 401, "Token Refused", sentence)
    access, kind = said.get("access_token"), said.get("token_type", "Bearer")
    if not isinstance(access, str) or not _TOKEN.fullmatch(access):
        raise _unusable(f"the token endpoint at {host} gave no access token")
    if not isinstance(kind, str) or kind.lower() not in ("bearer", "n_a"):
        raise _unusable(f"the token endpoint at {host} gave a token of another type than Bearer")
    if issuers and _issuer_of(access) not in issuers:
        raise _unusable(f"the token of {host} names no issuer of `issuers`")
    refresh = said.get("refresh_token")
    return Token(access, _seconds(said.get("expires_in")), refresh if isinstance(refresh, str) else "")


def _unusable(sentence: str) -> CredentialsProblem:
    return CredentialsProblem("authentication", 401, "Token Unusable", sentence)


def _seconds(value: Any) -> float | None:
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        return None


def _issuer_of(token: str) -> Any:
    """The issuer a JWT names; None of anything else. The endpoint itself sent it, so nobody has to vouch for it."""
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return None
    return claims.get("iss") if isinstance(claims, dict) else None
