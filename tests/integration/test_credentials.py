"""Stage 5, tasks: calls prove who calls, to services and authorities that check it strictly."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

import pytest
from aiohttp import web
from multidict import CIMultiDict

from fastrunner._core import EffectFailure, EffectResult
from fastrunner.base import limits, redaction
from fastrunner.tasks.call_http.perform import CallHttp
from fastrunner.tasks.credentials import tokens
from fastrunner.tasks.credentials.oidc import freshness_s
from tests.integration.http_calls import Remote, arguments_of, call_http, effect, failure_of, serve, value_of

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
CLIENT = {"id": "client:ä", "secret": "client+secret/1"}


@pytest.fixture
async def http() -> AsyncIterator[CallHttp]:
    performer = call_http()
    yield performer
    await performer.close()


class Authority:
    """An authority that refuses what is not to the letter, and a service that takes its tokens."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.lifetime_s: int | None = 3600
        self.refreshes = False
        self.valid: set[str] = set()
        self.refresh_tokens: set[str] = {"refresh-0"}
        self.control: dict[str, str] = {}
        self.issuer = ""
        self.answer: web.Response | None = None
        self.delay: asyncio.Event | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.counts[path] += 1
        if path.endswith("/.well-known/openid-configuration"):
            return self.discovery(request)
        if path == "/api":
            return self.service(request)
        body = await request.read()
        if self.delay is not None:
            await self.delay.wait()
        return self.answer or self.token(request, body)

    def discovery(self, request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == '"1"':
            self.counts["304"] += 1
            return web.Response(status=304, headers=self.control)
        document = {"issuer": self.issuer or self.url, "token_endpoint": f"{self.url}/deep/token"}
        return web.json_response(document, headers={"ETag": '"1"', **self.control})

    def service(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.valid:
            raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
        return web.json_response({"token": hashlib.sha256(token.encode()).hexdigest()})

    def token(self, request: web.Request, body: bytes) -> web.Response:
        if request.content_type == "application/json":
            said = json.loads(body)
        else:
            assert request.content_type == "application/x-www-form-urlencoded"
            pairs = parse_qsl(body.decode(), strict_parsing=True)
            said = {name: [v for n, v in pairs if n == name] for name, _ in pairs}
            said = {name: values[0] if len(values) == 1 else values for name, values in said.items()}
        said["method"] = self.client(request, said)
        self.requests.append(said)
        if not said["method"]:
            return web.json_response({"error": "invalid_client", "error_description": f"no: {said}"}, status=401)
        if said["grant_type"] == "refresh_token" and said["refresh_token"] not in self.refresh_tokens:
            return web.json_response({"error": "invalid_grant"}, status=400)
        number = len(self.requests)
        token = f"access-token-{number}"
        self.valid.add(token)
        answer: dict[str, Any] = {"access_token": token, "token_type": "bearer"}
        if self.lifetime_s is not None:
            answer["expires_in"] = self.lifetime_s
        if self.refreshes:
            self.refresh_tokens = {f"refresh-{number}"}
            answer["refresh_token"] = f"refresh-{number}"
        return web.json_response(answer)

    def client(self, request: web.Request, said: dict[str, Any]) -> str:
        """The method by which the client has proved itself; empty if it has not."""
        basic = re.fullmatch("Basic (.+)", request.headers.get("Authorization", ""))
        if basic:
            name, _, secret = base64.b64decode(basic[1]).decode("ascii").partition(":")
            return "basic" if (unquote_plus(name), unquote_plus(secret)) == tuple(CLIENT.values()) else ""
        if "client_assertion" in said:
            assert said["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
            return self.assertion(request, said["client_assertion"])
        if "client_secret" in said:
            return "post" if (said["client_id"], said["client_secret"]) == tuple(CLIENT.values()) else ""
        return "none"

    def assertion(self, request: web.Request, assertion: str) -> str:
        if assertion == "signed.by.author":
            return "private_key_jwt"
        head, claims, signature = assertion.split(".")
        wanted = hmac.digest(CLIENT["secret"].encode(), f"{head}.{claims}".encode(), hashlib.sha256)
        said = json.loads(base64.urlsafe_b64decode(claims + "=="))
        assert said["iss"] == said["sub"] == CLIENT["id"]
        assert said["aud"] == str(request.url)
        assert said["jti"]
        assert said["iat"] <= time.time() < said["exp"] <= time.time() + 120
        return "client_secret_jwt" if base64.urlsafe_b64decode(signature + "==") == wanted else ""


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    made, remote = Authority(), Remote()
    remote.answer = made.handle
    runner = await serve(remote)
    made.url = remote.url
    yield made
    await runner.cleanup()


def policy(of: Authority, scheme: str = "oauth2", **fields: Any) -> dict[str, Any]:
    base = {"authority": of.url, "grant": "client_credentials", "client": CLIENT}
    return {scheme: {**base, **fields}}


async def call(http: CallHttp, authority: Authority, authentication: dict[str, Any]) -> Any:
    return await value_of(http, f"{authority.url}/api", authentication=authentication)


# --- basic, bearer, digest ---


@pytest.mark.parametrize(
    ("authentication", "sent"),
    [
        ({"basic": {"username": "ada", "password": "s:ü"}}, "Basic " + base64.b64encode("ada:s:ü".encode()).decode()),
        ({"bearer": {"token": "abc.def"}}, "Bearer abc.def"),
    ],
)
async def test_credentials_that_are_sent_as_they_are(http: CallHttp, authentication: Any, sent: str) -> None:
    remote = Remote()
    runner = await serve(remote)
    try:
        await value_of(http, remote.url, authentication=authentication)
        assert remote.last.headers["Authorization"] == sent
        response = await value_of(http, remote.url, authentication=authentication, output="response")
        assert response["request"]["headers"]["authorization"] == "***"
        outcome = await http.perform(effect(), arguments_of(remote.url, authentication=authentication))
        assert isinstance(outcome, EffectResult)
        scheme, _, parameter = sent.partition(" ")
        assert outcome.authorization == {"scheme": scheme, "parameter": parameter}
        assert await http.authorize(effect(), authentication) == {"scheme": scheme, "parameter": parameter}
        # Calls without a policy get nothing of it.
        await value_of(http, remote.url)
        assert "Authorization" not in remote.last.headers
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "authentication",
    [
        {"basic": {"username": "a:b", "password": "p"}},
        {"basic": {"username": "", "password": "p"}},
        {"basic": {"username": ["a"], "password": "p"}},
        {"basic": {"password": "p"}},
        {"basic": "text"},
        {"bearer": {"token": "two words"}},
        {"bearer": {"token": "a\r\nX-Evil: 1"}},
        {"digest": {"username": "a:b", "password": "p"}},
        {"oauth2": {"authority": "ftp://x", "grant": "client_credentials"}},
        {"oauth2": {"authority": "http://127.0.0.1:1", "grant": "password", "username": "u"}},
        {"oauth2": {"authority": "http://127.0.0.1:1", "grant": EXCHANGE}},
        {"oauth2": {"authority": "http://127.0.0.1:1", "grant": "authorization_code"}},
        {"oauth2": {"authority": "http://127.0.0.1:1", "grant": "client_credentials", "client": {"id": "a"}}},
    ],
)
async def test_policies_that_say_too_little(http: CallHttp, authentication: Any) -> None:
    failure = await failure_of(http, "http://127.0.0.1:1/", authentication=authentication)
    assert (failure.type, failure.status, failure.title) == ("configuration", 400, "Invalid Authentication")


async def test_a_policy_beside_a_header_of_the_author(http: CallHttp) -> None:
    failure = await failure_of(
        http,
        "http://127.0.0.1:1/",
        authentication={"bearer": {"token": "t"}},
        headers={"authorization": "mine"},
    )
    assert failure.type == "configuration"
    assert "Authorization" in failure.detail


class DigestService(Remote):
    """Checks RFC 7616 by hand; each nonce is good once."""

    def __init__(self, algorithm: str, qop: str) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.qop = qop
        self.nonces: set[str] = set()
        self.answer = self.check

    async def check(self, request: web.Request) -> web.StreamResponse:
        given = dict(re.findall(r'(\w+)="?([^",]*)"?', request.headers.get("Authorization", "")))
        if given and self.is_right(request, given):
            return web.json_response({"user": given["username"]})
        nonce = f"nonce-{len(self.requests)}"
        self.nonces.add(nonce)
        quality = f', qop="{self.qop}"' if self.qop else ""
        challenge = f'Digest realm="r", nonce="{nonce}", algorithm={self.algorithm}{quality}'
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": challenge})

    def is_right(self, request: web.Request, given: dict[str, str]) -> bool:
        if given["nonce"] not in self.nonces or given["uri"] != request.path_qs:
            return False
        self.nonces.remove(given["nonce"])
        name = "sha256" if self.algorithm.startswith("SHA-256") else "md5"

        def digest(*parts: str) -> str:
            return hashlib.new(name, ":".join(parts).encode()).hexdigest()

        first = digest("ada", "r", "pass-word-1")
        if self.algorithm.endswith("-sess"):
            first = digest(first, given["nonce"], given["cnonce"])
        second = digest(request.method, given["uri"])
        if given.get("qop") == "auth-int":
            body = hashlib.new(name, self.bodies[-1]).hexdigest()
            second = digest(request.method, given["uri"], body)
        middle = [given["nonce"], given["nc"], given["cnonce"], given["qop"]] if self.qop else [given["nonce"]]
        return given["response"] == digest(first, *middle, second)


@pytest.mark.parametrize(
    ("algorithm", "qop"), [("MD5", ""), ("MD5", "auth"), ("SHA-256", "auth"), ("SHA-256-sess", "auth,auth-int")]
)
async def test_digest(http: CallHttp, algorithm: str, qop: str) -> None:
    service = DigestService(algorithm, qop)
    runner = await serve(service)
    right = {"digest": {"username": "ada", "password": "pass-word-1"}}
    try:
        for body in ("small", "x" * 2_000_000):
            value = await value_of(http, f"{service.url}/a%2Fb?c=d", "post", body=body, authentication=right)
            assert value == {"user": "ada"}
            assert service.bodies[-1] == body.encode()
        assert len(service.requests) == 4
        failure = await failure_of(
            http, service.url, authentication={"digest": {"username": "ada", "password": "wrong-word"}}
        )
        assert (failure.type, failure.status) == ("communication", 401)
        assert len(service.requests) == 6
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("scheme", ["basic", "digest"])
async def test_credentials_stay_with_their_origin(http: CallHttp, scheme: str) -> None:
    """Neither sent to where a redirect leads, nor used to answer what is asked there."""
    first, other = Remote(), DigestService("MD5", "auth")
    runners = [await serve(first), await serve(other)]

    async def elsewhere(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(f"{other.url}/stolen")

    first.answer = elsewhere
    try:
        failure = await failure_of(
            http,
            first.url,
            redirect=True,
            authentication={scheme: {"username": "ada", "password": "pass-word-1"}},
        )
        assert failure.status == 401
        assert [request.headers.get("Authorization") for request in other.requests] == [None]
    finally:
        for runner in runners:
            await runner.cleanup()


# --- oauth2 ---


@pytest.mark.parametrize(
    ("client", "method"),
    [
        (CLIENT, "post"),
        ({**CLIENT, "authentication": "client_secret_post"}, "post"),
        ({**CLIENT, "authentication": "client_secret_basic"}, "basic"),
        ({**CLIENT, "authentication": "client_secret_jwt"}, "client_secret_jwt"),
        ({"id": "a", "authentication": "private_key_jwt", "assertion": "signed.by.author"}, "private_key_jwt"),
        ({"id": "a", "authentication": "none"}, "none"),
        ({"authentication": "none"}, "none"),
    ],
)
async def test_methods_of_clients(http: CallHttp, authority: Authority, client: Any, method: str) -> None:
    await call(http, authority, policy(authority, client=client, scopes=["a", "b"], audiences=["x", "y"]))
    [said] = authority.requests
    assert said["method"] == method
    assert (said["grant_type"], said["scope"], said["audience"]) == ("client_credentials", "a b", ["x", "y"])
    assert ("client_id" in said) == ("id" in client and method != "basic")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"grant": "password", "username": "ada", "password": "p&w"}, {"username": "ada", "password": "p&w"}),
        ({"grant": "refresh_token", "subject": {"token": "refresh-0", "type": "t"}}, {"refresh_token": "refresh-0"}),
        (
            {
                "grant": EXCHANGE,
                "subject": {"token": "s-t", "type": "urn:s"},
                "actor": {"token": "a-t", "type": "urn:a"},
            },
            {"subject_token": "s-t", "subject_token_type": "urn:s", "actor_token": "a-t", "actor_token_type": "urn:a"},
        ),
    ],
)
@pytest.mark.parametrize("encoding", ["application/x-www-form-urlencoded", "application/json"])
async def test_grants(http: CallHttp, authority: Authority, fields: Any, said: Any, encoding: str) -> None:
    await call(http, authority, policy(authority, **fields, request={"encoding": encoding}))
    assert authority.requests[0]["grant_type"] == fields["grant"]
    assert said.items() <= authority.requests[0].items()


async def test_endpoints_lie_below_the_authority(http: CallHttp, authority: Authority) -> None:
    deep = f"{authority.url}/realms/one/"
    await call(http, authority, policy(authority, authority=deep))
    await call(http, authority, policy(authority, authority=deep, endpoints={"token": "protocol/token"}))
    await call(http, authority, policy(authority, authority=f"{authority.url}/.well-known/openid-configuration"))
    assert [path for path in authority.counts if path != "/api"] == [
        "/realms/one/oauth2/token",
        "/realms/one/protocol/token",
        "/oauth2/token",
    ]


async def test_one_flight_for_a_token(http: CallHttp, authority: Authority) -> None:
    authority.delay = asyncio.Event()
    calls = [asyncio.create_task(call(http, authority, policy(authority))) for _ in range(20)]
    while not authority.counts["/oauth2/token"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    # Who started the request gives up; the others have their token all the same.
    calls[0].cancel()
    authority.delay.set()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert len({json.dumps(answer) for answer in answers[1:]}) == 1
    await call(http, authority, policy(authority))
    assert len(authority.requests) == 1
    # Another secret, another scope: another token.
    await call(http, authority, policy(authority, scopes=["b"]))
    assert len(authority.requests) == 2


async def test_tokens_are_obtained_anew_before_they_end(
    http: CallHttp, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(tokens, "monotonic_s", lambda: now_s[0])
    for lifetime_s, lasts_s in (
        (3600, 3600 - limits.TOKEN_MARGIN_S_MAX),
        (10, 8.0),
        (None, limits.TOKEN_UNDATED_S - limits.TOKEN_MARGIN_S_MAX),
    ):
        authority.lifetime_s = lifetime_s
        mine = policy(authority, scopes=[str(lifetime_s)])
        before = len(authority.requests)
        await call(http, authority, mine)
        now_s[0] += lasts_s - 0.5
        await call(http, authority, mine)
        assert len(authority.requests) == before + 1
        now_s[0] += 1.0
        await call(http, authority, mine)
        assert len(authority.requests) == before + 2


async def test_a_refused_token_is_dropped_and_the_call_tried_once_more(http: CallHttp, authority: Authority) -> None:
    await call(http, authority, policy(authority))
    authority.valid.clear()
    assert await call(http, authority, policy(authority))
    assert len(authority.requests) == 2
    assert authority.counts["/api"] == 3
    authority.service = lambda request: web.Response(status=401)  # type: ignore[method-assign]
    failure = await failure_of(http, f"{authority.url}/api", authentication=policy(authority))
    assert (failure.type, failure.status) == ("communication", 401)
    assert authority.counts["/api"] == 5


async def test_refresh_tokens_are_used_and_followed(http: CallHttp, authority: Authority) -> None:
    """An authority that gives a new one each time takes no old one."""
    authority.refreshes = True
    mine = policy(authority, grant="refresh_token", subject={"token": "refresh-0", "type": "t"})
    for _ in range(3):
        await call(http, authority, mine)
        authority.valid.clear()
    assert [said["refresh_token"] for said in authority.requests] == ["refresh-0", "refresh-1", "refresh-2"]
    password = policy(authority, grant="password", username="ada", password="p")
    await call(http, authority, password)
    authority.valid.clear()
    authority.refresh_tokens.clear()
    await call(http, authority, password)
    assert [said["grant_type"] for said in authority.requests[3:]] == ["password", "refresh_token", "password"]


async def test_refused_clients(http: CallHttp, authority: Authority) -> None:
    wrong = policy(authority, client={**CLIENT, "secret": "wrong-secret-1"})
    failure = await failure_of(http, f"{authority.url}/api", authentication=wrong)
    assert (failure.type, failure.status, failure.title) == ("authentication", 401, "Token Refused")
    assert "invalid_client" in failure.detail
    assert "wrong-secret" not in failure.detail
    assert authority.counts["/api"] == 0
    refused = await http.authorize(effect(), wrong)
    assert isinstance(refused, EffectFailure)
    assert refused.type == "authentication"


@pytest.mark.parametrize(
    ("answer", "type_", "status"),
    [
        (web.Response(status=503), "communication", 503),
        (web.Response(text="no json"), "authentication", 401),
        (web.json_response({"token": "x"}), "authentication", 401),
        (web.json_response({"access_token": "a b"}), "authentication", 401),
        (web.json_response({"access_token": "a", "token_type": "mac"}), "authentication", 401),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "authentication", 401),
        (web.Response(body=b" " * (limits.TOKEN_RESPONSE_SIZE_BYTES_MAX + 1)), "authentication", 401),
    ],
)
async def test_answers_that_hold_no_token(
    http: CallHttp, authority: Authority, answer: web.Response, type_: str, status: int
) -> None:
    body = answer.body if isinstance(answer.body, bytes) else b""
    authority.answer = web.Response(status=answer.status, body=body, headers=CIMultiDict(answer.headers))
    failure = await failure_of(http, f"{authority.url}/api", authentication=policy(authority))
    assert (failure.type, failure.status) == (type_, status)


@pytest.mark.parametrize("scheme", ["oauth2", "oidc"])
async def test_an_authority_that_asks_to_be_left_alone(http: CallHttp, scheme: str) -> None:
    remote = Remote()
    runner = await serve(remote)
    remote.answers(status=503, headers={"Retry-After": "9"})
    fields = {"authority": remote.url, "grant": "client_credentials", "client": {"id": "a", "secret": "bcdefghi"}}
    failure = await failure_of(http, remote.url, authentication={scheme: fields})
    assert (failure.type, failure.status, failure.retry_after_ms) == ("communication", 503, 9_000)
    outcome = await http.authorize(effect(), {scheme: fields})
    assert isinstance(outcome, EffectFailure)
    assert outcome.retry_after_ms == 9_000
    await runner.cleanup()


async def test_an_authority_that_is_not_there(http: CallHttp) -> None:
    away = {"oauth2": {"authority": "http://127.0.0.1:1", "grant": "client_credentials", "client": CLIENT}}
    failure = await failure_of(http, "http://127.0.0.1:2/", authentication=away)
    assert (failure.type, failure.title) == ("communication", "Connection Failed")
    assert "the authority at 127.0.0.1:1" in failure.detail


async def test_an_authority_that_says_nothing(
    http: CallHttp, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TOKEN_TIMEOUT_S", 0.2)
    authority.delay = asyncio.Event()
    failure = await failure_of(http, f"{authority.url}/api", authentication=policy(authority))
    assert (failure.type, failure.title) == ("communication", "No Response In Time")


async def test_issuers_of_tokens(http: CallHttp, authority: Authority) -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"iss": "https://mine"}).encode()).rstrip(b"=").decode()
    authority.valid.add(f"h.{claims}.s")
    authority.answer = web.json_response({"access_token": f"h.{claims}.s"})
    assert await call(http, authority, policy(authority, issuers=["https://mine", "https://other"]))
    authority.answer = web.json_response({"access_token": f"h.{claims}.s"})
    failure = await failure_of(
        http, f"{authority.url}/api", authentication=policy(authority, issuers=["https://other"])
    )
    assert (failure.type, failure.title) == ("authentication", "Token Unusable")


async def test_tokens_that_are_kept(http: CallHttp, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TOKENS_KEPT_MAX", 2)
    for scope in ("a", "b", "c", "c", "b", "a"):
        await call(http, authority, policy(authority, scopes=[scope]))
    assert [said["scope"] for said in authority.requests] == ["a", "b", "c", "a"]


async def test_tokens_are_hidden(http: CallHttp, authority: Authority) -> None:
    authority.refreshes = True
    await call(http, authority, policy(authority))
    assert redaction.redact("access-token-1 refresh-1 client+secret/1") == "*** *** ***"


# --- oidc ---


async def test_oidc_discovers_once(http: CallHttp, authority: Authority) -> None:
    authority.control = {"Cache-Control": "public, max-age=600"}
    for scope in ("a", "b"):
        await call(http, authority, policy(authority, "oidc", scopes=[scope]))
    written = f"{authority.url}/.well-known/openid-configuration"
    await call(http, authority, policy(authority, "oidc", authority=written, scopes=["c"]))
    assert authority.counts["/.well-known/openid-configuration"] == 1
    assert authority.counts["/deep/token"] == 3


async def test_oidc_asks_again_as_the_headers_say(http: CallHttp, authority: Authority) -> None:
    authority.control = {"Cache-Control": "no-cache"}
    for scope in ("a", "b"):
        await call(http, authority, policy(authority, "oidc", scopes=[scope]))
    assert authority.counts["/.well-known/openid-configuration"] == 2
    assert authority.counts["304"] == 1


async def test_oidc_of_another_issuer(http: CallHttp, authority: Authority) -> None:
    authority.issuer = "https://evil.test"
    failure = await failure_of(http, f"{authority.url}/api", authentication=policy(authority, "oidc"))
    assert (failure.type, failure.title) == ("authentication", "Authority Unusable")
    assert authority.counts["/deep/token"] == 0


@pytest.mark.parametrize(
    ("headers", "lasts_s"),
    [
        ({}, limits.DISCOVERY_UNDATED_S),
        ({"Cache-Control": "max-age=60"}, 60.0),
        ({"Cache-Control": "max-age=60", "Age": "20"}, 40.0),
        ({"Cache-Control": "max-age=999999999"}, limits.DISCOVERY_S_MAX),
        ({"Cache-Control": "no-store, max-age=60"}, 0.0),
        ({"Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Expires": "Mon, 01 Jan 2024 00:01:00 GMT"}, 60.0),
        ({"Expires": "0"}, 0.0),
    ],
)
def test_how_long_discovery_is_kept(headers: dict[str, str], lasts_s: float) -> None:
    assert freshness_s(CIMultiDict(headers)) == lasts_s
