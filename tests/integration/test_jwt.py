"""Support: callers with JSON Web Tokens, against an issuer that serves its keys over HTTP."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from fastrunner.access import jwt as ours
from fastrunner.access.callers import digest_of
from fastrunner.access.jwt import JwtVerifier
from fastrunner.access.principal import ALL_ROLES, Principal, Role
from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.errors import AtCapacity, Unauthenticated, Unavailable

AUDIENCE = "fastrunner"


def key(kid: str, kind: str = "EC") -> Any:
    made: Any = ECKey.generate_key("P-256", {"kid": kid}) if kind == "EC" else RSAKey.generate_key(2048, {"kid": kid})
    return made


class Issuer:
    """Serves its configuration and keys, and signs tokens."""

    def __init__(self) -> None:
        self.keys = [key("one")]
        self.asked = 0
        self.status = 200
        self.url = ""

    async def configuration(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"}, status=self.status)

    async def jwks(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.public())

    def public(self) -> dict[str, Any]:
        return {"keys": [each.as_dict(private=False) for each in self.keys]}

    def token(self, signed_by: Any = None, algorithm: str = "ES256", **claims: Any) -> str:
        now = int(time.time())
        given = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": now + 600, "roles": ["read"]} | claims
        by = signed_by or self.keys[0]
        header = {"alg": algorithm} | ({"kid": by.kid} if by.kid else {})
        return jwt.encode(header, {name: value for name, value in given.items() if value is not None}, by)


@asynccontextmanager
async def serving_issuer() -> AsyncIterator[Issuer]:
    served = Issuer()
    app = web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", served.configuration), web.get("/keys", served.jwks)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with serving_issuer() as served:
        yield served


@pytest.fixture
async def verifier(issuer: Issuer) -> AsyncIterator[JwtVerifier]:
    made = verifier_of(issuer)
    yield made
    await made.close()


def verifier_of(issuer: Issuer, **settings: Any) -> JwtVerifier:
    return JwtVerifier(load_config(jwt_issuer=issuer.url, jwt_audience=AUDIENCE, **settings))


async def principal_of(verifier: JwtVerifier, token: str) -> Principal:
    found = verifier.principal_of(digest_of(token), token)
    return found if isinstance(found, Principal) else await found


async def test_tokens_of_the_issuer(issuer: Issuer, verifier: JwtVerifier) -> None:
    """The keys are asked for once, by whoever comes first, and a token is verified once."""
    tokens = [issuer.token(sub=f"caller-{number}") for number in range(5)]
    found = await asyncio.gather(*(principal_of(verifier, token) for token in tokens))
    assert [principal.name for principal in found] == [f"jwt:caller-{number}" for number in range(5)]
    assert found[0].roles == {Role.READ}
    assert found[0].namespaces is None
    assert issuer.asked == 1
    assert verifier.principal_of(digest_of(tokens[0]), tokens[0]) is found[0]


async def test_roles_and_namespaces(issuer: Issuer) -> None:
    settings = {"jwt_roles_claim": "realm_access.roles", "jwt_namespaces_claim": "https://example/namespaces"}
    verifier = verifier_of(issuer, **settings)
    claims: dict[str, Any] = {"realm_access": {"roles": ["admin", "offline_access"]}}
    admin = await principal_of(verifier, issuer.token(**claims))
    assert admin == Principal("jwt:alice", ALL_ROLES, frozenset())
    claims = {"realm_access": {"roles": "read submit"}, "https://example/namespaces": ["shop"]}
    shop = await principal_of(verifier, issuer.token(**claims))
    assert shop == Principal("jwt:alice", frozenset({Role.READ, Role.SUBMIT}), frozenset({"shop"}))
    nobody = await principal_of(verifier, issuer.token(realm_access="admin"))
    assert nobody.roles == frozenset()
    await verifier.close()


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://elsewhere"}, "its iss"),
        ({"iss": None}, "its iss"),
        ({"aud": "another"}, "its aud"),
        ({"aud": None}, "its aud"),
        ({"exp": lambda: int(time.time()) - limits.JWT_CLOCK_SKEW_S_MAX - 5}, "its exp"),
        ({"exp": None}, "its exp"),
        ({"nbf": lambda: int(time.time()) + 600}, "its nbf"),
        ({"sub": None}, "its sub"),
        ({"sub": ""}, "its sub"),
        ({"sub": "a\nb"}, "its sub"),
    ],
)
async def test_tokens_that_are_no_good(issuer: Issuer, verifier: JwtVerifier, claims: dict[str, Any], why: str) -> None:
    # Moments are those of the test, which may run long after it was collected.
    token = issuer.token(**{name: value() if callable(value) else value for name, value in claims.items()})
    with pytest.raises(Unauthenticated, match=why) as refused:
        await principal_of(verifier, token)
    assert token not in str(refused.value)
    # Clocks differ a little.
    assert await principal_of(verifier, issuer.token(exp=int(time.time()) - 1))


async def test_forged_tokens(issuer: Issuer, verifier: JwtVerifier) -> None:
    """Others' keys, one that is said to be the issuer's, its public key as a shared secret, and no signature at all."""
    public = json.dumps(issuer.keys[0].as_dict(private=False))
    shared = OctKey.import_key(public, {"kid": "one"})
    head, _, rest = issuer.token().partition(".")
    unsigned = jwt.encode({"alg": "ES256", "kid": "one"}, {"sub": "x"}, issuer.keys[0]).split(".")
    for token in (
        issuer.token(signed_by=key("stranger")),
        issuer.token(signed_by=key("one")),
        issuer.token(signed_by=shared, algorithm="HS256"),
        f"{head}.{rest.partition('.')[0]}.",
        ".".join((unsigned[0], rest.partition(".")[0], unsigned[2])),
        "a.b.c",
        "..",
    ):
        with pytest.raises(Unauthenticated):
            await principal_of(verifier, token)


async def test_keys_are_asked_for_again(issuer: Issuer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key counts at its first token; an old one no more once its age has come."""
    now_s = [1000.0]
    monkeypatch.setattr(ours, "monotonic_s", lambda: now_s[0])
    old, new = issuer.keys[0], key("two", "RSA")
    kept = issuer.token()
    assert await principal_of(verifier, kept)
    issuer.keys = [new]
    now_s[0] += limits.JWT_KEYS_ASK_INTERVAL_S + 1
    assert await principal_of(verifier, issuer.token(algorithm="RS256"))
    with pytest.raises(Unauthenticated, match="not the issuer's"):
        await principal_of(verifier, kept)
    issuer.keys = [old]
    now_s[0] += limits.JWT_KEYS_AGE_S_MAX + 1
    with pytest.raises(Unauthenticated, match="not the issuer's"):
        await principal_of(verifier, issuer.token(signed_by=new, algorithm="RS256"))
    assert await principal_of(verifier, kept)


async def test_unknown_keys_are_not_asked_for_at_once_again(
    issuer: Issuer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(ours, "monotonic_s", lambda: now_s[0])
    stranger = key("stranger")
    for number in range(5):
        with pytest.raises(Unauthenticated):
            await principal_of(verifier, issuer.token(signed_by=stranger, sub=f"{number}"))
    assert issuer.asked == 1
    now_s[0] += limits.JWT_KEYS_ASK_INTERVAL_S + 1
    with pytest.raises(Unauthenticated):
        await principal_of(verifier, issuer.token(signed_by=stranger))
    assert issuer.asked == 2


async def test_issuer_that_is_away(issuer: Issuer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be said of a token then; keys that were there before go on."""
    now_s = [1000.0]
    monkeypatch.setattr(ours, "monotonic_s", lambda: now_s[0])
    issuer.status = 503
    with pytest.raises(Unavailable):
        await principal_of(verifier, issuer.token())
    issuer.status = 200
    now_s[0] += limits.JWT_KEYS_ASK_INTERVAL_S + 1
    assert await principal_of(verifier, issuer.token())
    issuer.status = 503
    now_s[0] += limits.JWT_KEYS_AGE_S_MAX + 1
    assert await principal_of(verifier, issuer.token(sub="bob"))


async def test_verified_tokens_are_kept(issuer: Issuer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many, and for so long."""
    now_s = [1000.0]
    monkeypatch.setattr(ours, "monotonic_s", lambda: now_s[0])
    monkeypatch.setattr(limits, "JWT_VERIFIED_MAX", 2)
    tokens = [issuer.token(sub=f"{number}") for number in range(3)]
    for token in tokens:
        await principal_of(verifier, token)

    def is_kept(token: str) -> bool:
        found: Principal | Awaitable[Principal] = verifier.principal_of(digest_of(token), token)
        if isinstance(found, Principal):
            return True
        asyncio.ensure_future(found).cancel()
        return False

    assert [is_kept(token) for token in tokens] == [False, True, True]
    now_s[0] += limits.JWT_VERIFIED_S_MAX + 1
    assert not is_kept(tokens[2])


async def test_verifications_are_bounded(
    issuer: Issuer, verifier: JwtVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JWT_VERIFICATIONS_MAX", 2)
    tokens = [issuer.token(sub=f"{number}") for number in range(3)]
    waiting = [asyncio.ensure_future(principal_of(verifier, token)) for token in (*tokens[:2], tokens[0])]
    await asyncio.sleep(0)
    with pytest.raises(AtCapacity):
        await principal_of(verifier, tokens[2])
    assert len(await asyncio.gather(*waiting)) == 3


async def test_keys_in_a_file(issuer: Issuer, tmp_path: Path) -> None:
    """Nobody is asked; a file that has changed is read again, one of no use changes nothing."""
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(issuer.public()))
    verifier = verifier_of(issuer, jwt_jwks_file=file)
    old = issuer.token()
    assert await principal_of(verifier, old)
    file.write_text("{}")
    verifier.look()
    assert await principal_of(verifier, old)
    issuer.keys = [key("two")]
    file.write_text(json.dumps(issuer.public()))
    verifier.look()
    assert await principal_of(verifier, issuer.token())
    with pytest.raises(Unauthenticated):
        await principal_of(verifier, old)
    assert issuer.asked == 0
    file.write_text('{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}')
    with pytest.raises(ValueError, match=r"FASTRUNNER_JWT_JWKS_FILE=.*no public key"):
        verifier_of(issuer, jwt_jwks_file=file)
    await verifier.close()
