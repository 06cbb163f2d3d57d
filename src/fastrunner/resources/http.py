"""Stage 2, compile: texts over HTTP, by the client that performs calls: judged, bounded, and without cookies.

Rules: redirects are followed a few times, to where calls may go, and from https to https alone. What proves who asks
goes to the origin that it is for; validators go to the URL that they came from. Texts of the library are passed on by
nobody.
"""

import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDict, CIMultiDictProxy

from fastrunner import __version__
from fastrunner.access.egress import Egress
from fastrunner.base import limits
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.resources.addresses import raw_url
from fastrunner.resources.kept import Kept
from fastrunner.resources.refusals import Answer, Unresolved
from fastrunner.tasks.call_http.arguments import HttpRequest, RequestProblem, parse_uri
from fastrunner.tasks.call_http.client import Client
from fastrunner.tasks.call_http.codings import ACCEPTED, BodyTooLarge, Decoding, MalformedCoding, UnknownCoding
from fastrunner.tasks.call_http.failures import CallProblem, DestinationRefused, connection_problem
from fastrunner.tasks.call_http.redirects import redirected
from fastrunner.tasks.credentials.keyring import Keyring, Proof
from fastrunner.tasks.credentials.policy import CredentialsProblem

__all__ = ["HttpTexts"]

_TRANSIENT: Final = frozenset({408, 425, 429})
"""Statuses of a request that may be repeated; so are all from 500 on."""
_ACCEPT: Final = "application/yaml, application/json, text/yaml, text/plain;q=0.9, */*;q=0.1"


class HttpTexts:
    """Gets texts over HTTP."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        egress: Egress,
        *,
        resolver: AbstractResolver | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._client = Client(config, metrics, egress, resolver=resolver, ssl_context=ssl_context)
        self._keyring = Keyring(self._client)

    async def close(self) -> None:
        """Closes the connections."""
        await self._keyring.close()
        await self._client.close()

    async def get(
        self, url: str, policy: Mapping[str, Any] | None, *, size_bytes_max: int, kept: Kept | None = None
    ) -> Answer:
        """What a URL leads to, of so many bytes at most; without a body if `kept` is still the same. Raises
        Unresolved."""
        try:
            return await self._proven(raw_url(url), policy, size_bytes_max, kept)
        except (DestinationRefused, CredentialsProblem) as refused:
            raise Unresolved(refused.sentence, status=refused.status, type_=refused.type) from None
        except CallProblem as problem:
            raise Unresolved(problem.sentence, is_transient=True) from None
        except (aiohttp.ClientError, ValueError, OSError) as error:
            raise Unresolved(connection_problem(error).sentence, is_transient=True) from None

    async def _proven(
        self, url: str, policy: Mapping[str, Any] | None, size_bytes_max: int, kept: Kept | None
    ) -> Answer:
        """As the policy has it; once more if the server refuses a token, which may be revoked."""
        if policy is None:
            return await self._get(url, None, size_bytes_max, kept)
        proof = await self._keyring.proof(policy)
        try:
            return await self._get(url, proof, size_bytes_max, kept)
        except Unresolved as refused:
            if refused.status != 401 or not self._keyring.refused(proof):
                raise
        return await self._get(url, await self._keyring.proof(policy), size_bytes_max, kept)

    async def _get(self, url: str, proof: Proof | None, size_bytes_max: int, kept: Kept | None) -> Answer:
        request = _first_request(url, proof)
        origin = request.url.origin()
        for _ in range(limits.RESOURCE_REDIRECTS_MAX + 1):
            is_kept = kept is not None and kept.description.url == str(request.url)
            conditions = kept.freshness.conditions if kept is not None and is_kept else {}
            async with self._client.request(
                "GET",
                request.url,
                headers={**request.headers, **conditions},
                data=None,
                middlewares=proof.middlewares if proof is not None and request.url.origin() == origin else (),
            ) as response:
                if conditions and response.status == 304:
                    return Answer(str(request.url), None, _joined(response.headers))
                following = _following(request, response)
                if following is None:
                    return Answer(str(request.url), await _body(response, size_bytes_max), _joined(response.headers))
            request = following
        raise Unresolved(f"it leads to more than {limits.RESOURCE_REDIRECTS_MAX} redirects")


def _first_request(url: str, proof: Proof | None) -> HttpRequest:
    """Raises Unresolved."""
    headers = CIMultiDict({"Accept": _ACCEPT, "Accept-Encoding": ACCEPTED, "User-Agent": f"fastrunner/{__version__}"})
    if proof is not None and proof.authorization.parameter is not None:
        headers["Authorization"] = proof.authorization.header
    try:
        return HttpRequest("GET", parse_uri(url)[0], headers, None)
    except (RequestProblem, UnicodeError):
        raise Unresolved("it names no host that can be asked", type_="configuration") from None


def _joined(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    joined: CIMultiDict[str] = CIMultiDict()
    for name, value in headers.items():
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def _following(request: HttpRequest, response: aiohttp.ClientResponse) -> HttpRequest | None:
    """The request that a redirect leads to; None if there is a body to read. Raises Unresolved."""
    try:
        following = redirected(request, response.status, response.headers)
    except CallProblem as problem:
        raise Unresolved(problem.sentence) from None
    if following is not None and request.url.scheme == "https" != following.url.scheme:
        raise Unresolved("a redirect leads from https to http, where anybody could change the text")
    if following is None and response.status != 200:
        is_transient = response.status in _TRANSIENT or response.status >= 500
        raise Unresolved(
            f"{response.url.host} answers with status {response.status}",
            is_transient=is_transient,
            status=response.status,
        )
    return following


async def _body(response: aiohttp.ClientResponse, size_bytes_max: int) -> bytes:
    body = bytearray()
    try:
        decoding = Decoding(response.headers.getall("Content-Encoding", ()))
        async for received in response.content.iter_any():
            for piece in decoding.feed(received):
                body += piece
                if len(body) > size_bytes_max:
                    response.close()
                    raise Unresolved(f"it has more than {size_bytes_max} bytes")
        decoding.end()
    except (UnknownCoding, MalformedCoding, BodyTooLarge):
        raise Unresolved("its Content-Encoding is not what it says, or is not spoken here") from None
    return bytes(body)
