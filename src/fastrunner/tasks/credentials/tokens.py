"""Stage 5, tasks: what oauth2 and oidc obtain: tokens and discovery documents, once for all calls of a worker.

Theory of operation: a token is known by a hash of the whole policy it was asked for with, so nobody has another's, and
a rotated secret means another token. Whoever needs one that is not there starts the one request for it; all others wait
for that. A token is obtained anew a while before it ends; one that a service has refused is dropped.

Rules: tokens lie in memory alone and are hidden from texts as soon as they are known. A request that nobody waits for
any more still ends, within its time: the next call has its token.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import orjson
from multidict import CIMultiDictProxy
from yarl import URL

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s, wall_ms
from fastrunner.base.redaction import hide
from fastrunner.tasks.call_http.arguments import RequestProblem, parse_uri
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.failures import CallProblem, DestinationRefused, connection_problem
from fastrunner.tasks.call_http.patience import retry_after_ms
from fastrunner.tasks.credentials.oauth2 import Token, base_of, endpoint_of, token_of, token_request
from fastrunner.tasks.credentials.oidc import Discovery, discovery_of, freshness_s
from fastrunner.tasks.credentials.policy import CredentialsProblem, malformed, names

__all__ = ["Grant", "Tokens"]

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Grant:
    """A token as a call uses it."""

    key: bytes
    """What it is known by."""
    token: Token
    """What the authority gave."""


@dataclass(slots=True)
class _Kept:
    token: Token
    until_s: float
    """When it is obtained anew, on the monotonic clock."""


class Tokens:
    """The tokens of one worker."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._discovered: OrderedDict[str, Discovery] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[Any]] = {}

    async def get(self, scheme: str, fields: Mapping[str, Any]) -> Grant:
        """A valid token for a policy. Raises CallProblem."""
        key = hashlib.sha256(orjson.dumps([scheme, fields], option=orjson.OPT_SORT_KEYS)).digest()
        kept = self._kept.get(key)
        if kept is not None and monotonic_s() < kept.until_s:
            self._kept.move_to_end(key)
            return Grant(key, kept.token)
        refresh = kept.token.refresh if kept is not None else ""
        return Grant(key, await self._once(key, lambda: self._obtain(key, scheme, fields, refresh)))

    def drop(self, grant: Grant) -> None:
        """A service has refused the token: the next call obtains another one."""
        kept = self._kept.get(grant.key)
        if kept is not None and kept.token.text == grant.token.text:
            kept.until_s = 0.0

    async def close(self) -> None:
        """Ends what is under way."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _once(self, key: bytes, make: Callable[[], Coroutine[Any, Any, _Made]]) -> _Made:
        """What one request gives to all who ask for it meanwhile."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(make())
            flight.add_done_callback(lambda done: self._landed(key, done))
        result: _Made = await asyncio.shield(flight)
        return result

    def _landed(self, key: bytes, flight: "asyncio.Task[Any]") -> None:
        del self._flights[key]
        if not flight.cancelled():
            # Whoever waited has it; if nobody does any more, nobody has to be told.
            flight.exception()

    async def _obtain(self, key: bytes, scheme: str, fields: Mapping[str, Any], refresh: str) -> Token:
        token = None
        if refresh:
            try:
                token = await self._ask(scheme, fields, refresh)
            except CredentialsProblem as problem:
                # It may have ended; what the policy says is good for another one.
                if problem.type != "authentication":
                    raise
        if token is None:
            token = await self._ask(scheme, fields, "")
        hide([token.text, token.refresh])
        lasts_s = limits.TOKEN_UNDATED_S if token.expires_s is None else token.expires_s
        margin_s = min(limits.TOKEN_MARGIN_S_MAX, lasts_s / 5)
        self._kept[key] = _Kept(token, monotonic_s() + lasts_s - margin_s)
        self._kept.move_to_end(key)
        while len(self._kept) > limits.TOKENS_KEPT_MAX:
            self._kept.popitem(last=False)
        return token

    async def _ask(self, scheme: str, fields: Mapping[str, Any], refresh: str) -> Token:
        issuers = names(scheme, fields, "issuers")
        if scheme == "oidc":
            endpoint = (await self._discover(base_of(scheme, fields), issuers)).token_endpoint
        else:
            endpoint = endpoint_of(fields)
        request = token_request(scheme, fields, endpoint, refresh)
        url = _url(scheme, endpoint)
        status, given, body = await self._send("POST", url, request.headers, request.body)
        with _as_asked(given):
            return token_of(url.host_port_subcomponent or "", status, body, issuers)

    # --- discovery ---

    async def _discover(self, authority: str, issuers: list[str]) -> Discovery:
        """The discovery document of an authority, as long as its headers let it be kept."""
        known = self._discovered.get(authority)
        if known is not None and monotonic_s() < known.until_s:
            self._discovered.move_to_end(authority)
        else:
            known = await self._once(authority.encode(), lambda: self._fetch(authority, known))
        if known.issuer.rstrip("/") != authority and known.issuer not in issuers:
            sentence = "oidc: the discovery document names another issuer than the authority"
            raise CredentialsProblem("authentication", 401, "Authority Unusable", sentence)
        return known

    async def _fetch(self, authority: str, known: Discovery | None) -> Discovery:
        url = _url("oidc", f"{authority}/.well-known/openid-configuration")
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if known is not None and known.tag:
            headers["If-None-Match"] = known.tag
        status, given, body = await self._send("GET", url, headers, None)
        until_s = monotonic_s() + freshness_s(given)
        if status == 304 and known is not None:
            found = Discovery(known.issuer, known.token_endpoint, known.tag, until_s)
        else:
            with _as_asked(given):
                found = discovery_of(url, status, body, given.get("ETag", ""), until_s)
        self._discovered[authority] = found
        self._discovered.move_to_end(authority)
        while len(self._discovered) > limits.TOKENS_KEPT_MAX:
            self._discovered.popitem(last=False)
        return found

    # --- the wire ---

    async def _send(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, CIMultiDictProxy[str], bytes]:
        """Status, headers and body of a response. Raises CallProblem."""
        host = url.host_port_subcomponent or ""
        try:
            async with (
                asyncio.timeout(limits.TOKEN_TIMEOUT_S),
                self._client.request(method, url, headers=headers, data=body) as response,
            ):
                text = await _bounded(response, host)
                return response.status, response.headers, text
        except DestinationRefused as refused:
            raise DestinationRefused(f"the authority: {refused.sentence}") from None
        except (aiohttp.ClientError, ValueError) as error:
            raise _at(host, connection_problem(error)) from None
        except TimeoutError:
            late = CallProblem("No Response In Time", f"no complete response within {limits.TOKEN_TIMEOUT_S:g} s")
            raise _at(host, late) from None
        except OSError as error:
            raise _at(host, connection_problem(error)) from None


async def _bounded(response: aiohttp.ClientResponse, host: str) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limits.TOKEN_RESPONSE_SIZE_BYTES_MAX:
            response.close()
            sentence = f"{host} answered with more than {limits.TOKEN_RESPONSE_SIZE_BYTES_MAX} bytes"
            raise CredentialsProblem("authentication", 401, "Token Unusable", sentence)
    return bytes(body)


@contextmanager
def _as_asked(headers: CIMultiDictProxy[str]) -> Iterator[None]:
    """A problem that a response means says how long the authority asks to be left alone."""
    try:
        yield
    except CallProblem as problem:
        problem.retry_after_ms = retry_after_ms(headers, wall_ms())
        raise


def _at(host: str, problem: CallProblem) -> CallProblem:
    """The same, told of the authority and not of the service that was to be called."""
    return CallProblem(problem.title, f"the authority at {host}: {problem.sentence}", problem.status)


def _url(scheme: str, uri: str) -> URL:
    try:
        return parse_uri(uri)[0]
    except (RequestProblem, UnicodeEncodeError):
        raise malformed(scheme, "authority and its endpoints make no http or https URI") from None
