"""Descriptions of services, by real servers and files: kept while they are good, fetched once for many, bounded."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDict

from fastrunner.access.egress import Egress
from fastrunner.access.secrets import Secrets
from fastrunner.base import limits
from fastrunner.config import Environment, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.resources.freshness import Freshness
from fastrunner.resources.kept import Kept, KeptDescriptions
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks.descriptions import Description, NoDescription
from tests.integration.engines import folder, until
from tests.integration.http_calls import Remote, serve


class Described:
    """A resolver beside a server, and what it has counted."""

    def __init__(self, env: str = "local", **settings: Any) -> None:
        self.remote = Remote()
        self.metrics = Metrics()
        config = load_config(data_dir=folder(), **settings)
        self.resolver = Resolver(config, self.metrics, Secrets(None, None), Egress(environment=Environment(env)))

    async def get(self, path: str = "/openapi.yaml", **more: Any) -> Description:
        return await self.resolver.get({"uri": f"{self.remote.url}{path}", **more})

    async def failure(self, path: str = "/openapi.yaml", **more: Any) -> NoDescription:
        with pytest.raises(NoDescription) as raised:
            await self.get(path, **more)
        return raised.value

    def count(self, outcome: str) -> float:
        return self.metrics.descriptions.labels(outcome).value

    @property
    def asked(self) -> int:
        return len(self.remote.requests)


@asynccontextmanager
async def beside_server(env: str = "local", **settings: Any) -> AsyncIterator[Described]:
    described = Described(env, **settings)
    server = await serve(described.remote)
    try:
        yield described
    finally:
        await described.resolver.close()
        await server.cleanup()


def bearer(token: str) -> dict[str, Any]:
    return {"bearer": {"token": token}}


# --- kept ---


async def test_a_text_is_good_for_as_long_as_its_server_says() -> None:
    async with beside_server() as described:
        described.remote.answers(text="one", headers={"Cache-Control": "max-age=60"})
        first = await described.get()
        described.remote.answers(text="two")
        assert (await described.get(), described.asked) == (first, 1)
        assert (first.url, first.text) == (f"{described.remote.url}/openapi.yaml", "one")
        assert (described.count("fetched"), described.count("kept")) == (1, 1)


@pytest.mark.parametrize("header", ["no-cache", "max-age=0", "no-store", 'private, max-age="0"'])
async def test_a_text_that_is_good_once_is_asked_for_again(header: str) -> None:
    async with beside_server() as described:
        for text in ("one", "two"):
            described.remote.answers(text=text, headers={"Cache-Control": header})
            assert (await described.get()).text == text
        assert described.asked == 2


async def test_the_default_is_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    async with beside_server() as described:
        for text in ("one", "two"):
            described.remote.answers(text=text)
            assert (await described.get()).text == "one"
        assert described.asked == 1
        monkeypatch.setattr(limits, "DESCRIPTION_FRESH_S", 0.0)
        assert (await described.get("/other")).text == "two"
        described.remote.answers(text="three")
        assert (await described.get("/other")).text == "three"


async def test_a_validator_saves_the_body() -> None:
    async with beside_server() as described:
        conditions = []

        async def answer(request: web.Request) -> web.Response:
            if request.path == "/moved":
                conditions.append(request.headers.get("If-None-Match"))
                raise web.HTTPFound("/here")
            conditions.append(request.headers.get("If-None-Match"))
            headers = {"ETag": '"a"', "Cache-Control": "no-cache"}
            if conditions[-1] == '"a"':
                return web.Response(status=304, headers=headers)
            return web.Response(text="one", headers=headers)

        described.remote.answer = answer
        first = await described.get("/moved")
        assert first.url == f"{described.remote.url}/here"
        again = await described.get("/moved")
        assert again is not None
        assert (again, again.text is first.text) == (first, True)
        # A validator is for the URL that gave it, and for no other on the way there.
        assert conditions == [None, None, None, '"a"']
        assert (described.count("fetched"), described.count("unchanged")) == (1, 1)

        async def changed(request: web.Request) -> web.Response:
            return web.Response(text="two", headers={"ETag": '"b"'})

        described.remote.answer = changed
        assert (await described.get("/moved")).text == "two"


async def test_a_date_is_a_validator_and_what_has_not_changed_is_good_again() -> None:
    async with beside_server() as described:
        moment = "Sat, 29 Oct 2022 19:43:31 GMT"
        described.remote.answers(text="one", headers={"Last-Modified": moment, "Cache-Control": "no-cache"})
        await described.get()
        described.remote.answers(status=304, headers={"Cache-Control": "max-age=60"})
        assert (await described.get()).text == "one"
        assert described.remote.last.headers["If-Modified-Since"] == moment
        assert ((await described.get()).text, described.asked) == ("one", 2)


async def test_an_answer_is_for_nobody_else() -> None:
    async with beside_server() as described:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=f"for {request.headers.get('Authorization')}", headers={"ETag": '"a"'})

        described.remote.answer = answer
        for _ in range(2):
            assert (await described.get()).text == "for None"
            assert (await described.get(authentication=bearer("one"))).text == "for Bearer one"
            assert (await described.get(authentication=bearer("two"))).text == "for Bearer two"
        assert described.asked == 3
        assert not any("If-None-Match" in request.headers for request in described.remote.requests)


# --- one request for many ---


async def test_many_who_ask_at_once_make_one_request() -> None:
    async with beside_server() as described:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            await gate.wait()
            return web.Response(text="one")

        described.remote.answer = answer
        asking = [asyncio.create_task(described.get()) for _ in range(50)]
        await until(lambda: described.asked, "the request")
        # Who stops waiting, the first one too, takes it from nobody.
        for task in asking[:10]:
            task.cancel()
        await asyncio.wait(asking[:10])
        gate.set()
        assert {(await task).text for task in asking[10:]} == {"one"}
        assert all(task.cancelled() for task in asking[:10])
        assert (described.asked, described.count("shared")) == (1, 49)


async def test_a_request_that_nobody_waits_for_ends_on_the_wire() -> None:
    async with beside_server() as described:
        ended = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return web.Response()

        described.remote.answer = answer
        asking = [asyncio.create_task(described.get()) for _ in range(3)]
        await until(lambda: described.asked, "the request")
        for task in asking:
            task.cancel()
        async with asyncio.timeout(20):
            await ended.wait()
        described.remote.answers(text="again")
        assert (await described.get()).text == "again"


async def test_a_failure_is_told_to_all_and_not_kept() -> None:
    async with beside_server() as described:
        described.remote.answers(status=503)
        failures = await asyncio.gather(*[described.failure() for _ in range(5)])
        assert {(str(failure), failure.is_transient, failure.status, failure.type) for failure in failures} == {
            (f"{described.remote.url}/openapi.yaml cannot be fetched: 127.0.0.1 answers with status 503", True, 503,
             "communication"),
        }  # fmt: skip
        described.remote.answers(text="one")
        assert ((await described.get()).text, described.asked) == ("one", 2)


async def test_who_waits_when_the_worker_stops_is_told() -> None:
    async with beside_server() as described:

        async def answer(request: web.Request) -> web.Response:
            await asyncio.sleep(60)
            return web.Response()

        described.remote.answer = answer
        asking = asyncio.create_task(described.failure())
        await until(lambda: described.asked, "the request")
        await described.resolver.close()
        assert (await asking).is_transient


# --- what cannot be had ---


async def test_why_there_is_none() -> None:
    async with beside_server(env="prod") as described:
        refused = await described.failure()
        assert (refused.type, refused.status, refused.is_transient) == ("configuration", 403, False)
        assert "a loopback address" in str(refused)
    async with beside_server() as described:
        described.remote.answers(status=404)
        missing = await described.failure()
        assert (missing.type, missing.status, missing.is_transient) == ("communication", 404, False)
        malformed = await described.failure(authentication={"bearer": {}})
        assert (malformed.type, malformed.status) == ("configuration", 400)
        described.remote.answers(status=304)
        assert (await described.failure()).status == 304
        described.remote.answers(body=b"\xff\xfe")
        assert "no text in UTF-8" in str(await described.failure())
        described.remote.port = 1
        away = await described.failure()
        assert (away.is_transient, away.status, "no connection" in str(away)) == (True, 0, True)


async def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RESOURCES_FETCH_S_MAX", 0.2)
    async with beside_server() as described:

        async def answer(request: web.Request) -> web.Response:
            await asyncio.sleep(60)
            return web.Response()

        described.remote.answer = answer
        late = await described.failure()
        assert late.is_transient
        assert "no complete answer within 0.2 s" in str(late)


async def test_a_text_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DESCRIPTION_SIZE_BYTES_MAX", 1_000)
    async with beside_server() as described:
        described.remote.answers(text="#" * 1_000)
        assert len((await described.get("/most")).text) == 1_000
        described.remote.answers(text="#" * 1_001)
        assert "more than 1000 bytes" in str(await described.failure())


async def test_a_token_that_the_server_refuses_is_renewed_once() -> None:
    async with beside_server() as described:
        tokens = 0

        async def answer(request: web.Request) -> web.Response:
            nonlocal tokens
            if request.path == "/oauth2/token":
                tokens += 1
                return web.json_response({"access_token": f"t{tokens}", "token_type": "Bearer", "expires_in": 600})
            is_good = request.headers["Authorization"] == "Bearer t2"
            return web.Response(status=200 if is_good else 401, text="one", headers={"Cache-Control": "no-store"})

        described.remote.answer = answer
        policy = {"oauth2": {
            "authority": described.remote.url, "grant": "client_credentials", "client": {"id": "a", "secret": "b"},
        }}  # fmt: skip
        assert (await described.get(authentication=policy)).text == "one"
        assert (await described.get(authentication=policy)).text == "one"
        assert tokens == 2


async def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "service.proto"
    described = Described(resources_dir=tmp_path)
    for text in ("one", "two"):
        file.write_text(text)
        found = await described.resolver.get({"uri": f"file://{file}"})
        assert (found.url, found.text) == (f"file://{file}", text)
    with pytest.raises(NoDescription, match="no such file"):
        await described.resolver.get({"uri": f"file://{tmp_path}/other"})


# --- bounds ---


def kept(text: str, digest: bytes) -> Kept:
    return Kept(Description("https://x.test/", text, digest), Freshness(), 0.0)


def test_descriptions_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DESCRIPTIONS_KEPT_MAX", 3)
    descriptions = KeptDescriptions()
    for name in (b"a", b"b", b"c"):
        descriptions.keep(name, kept(name.decode(), name))
    assert descriptions.find(b"a") is not None
    descriptions.keep(b"d", kept("d", b"d"))
    # The one that nobody has used for the longest time goes.
    assert [descriptions.find(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_descriptions_are_bounded_in_bytes_and_equal_ones_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DESCRIPTIONS_KEPT_SIZE_BYTES_MAX", 10_000)
    descriptions = KeptDescriptions()
    for number in range(20):
        descriptions.keep(b"%d" % number, kept("x" * 4_000, b"same"))
    first, last = descriptions.find(b"0"), descriptions.find(b"19")
    assert first is not None
    assert last is not None
    assert first.description.text is last.description.text
    assert 4_000 <= descriptions.size_bytes < 5_000
    for number in range(3):
        descriptions.keep(b"other %d" % number, kept("y" * 4_000, b"y%d" % number))
    assert (len(descriptions), descriptions.find(b"0")) == (2, None)
    assert 8_000 <= descriptions.size_bytes < 10_000
    descriptions.keep(b"large", kept("z" * 20_000, b"z"))
    assert (len(descriptions), descriptions.size_bytes) == (0, 0)


def test_policies_are_told_apart_by_all_they_have() -> None:
    descriptions = KeptDescriptions()
    key = descriptions.key_of("https://x.test", bearer("one"))
    assert b"one" not in key
    assert key == descriptions.key_of("https://x.test", bearer("one"))
    others = [
        descriptions.key_of("https://x.test", None),
        descriptions.key_of("https://y.test", bearer("one")),
        descriptions.key_of("https://x.test", bearer("two")),
        KeptDescriptions().key_of("https://x.test", bearer("one")),
    ]
    assert len({key, *others}) == 5
    swapped = [{"basic": {"username": "u", "password": "p"}}, {"basic": {"password": "p", "username": "u"}}]
    assert len({descriptions.key_of("https://x.test", policy) for policy in swapped}) == 1


NOW_MS = 1_669_000_000_000
"""Mon, 21 Nov 2022 03:06:40 GMT"""


@pytest.mark.parametrize(("headers", "fresh_s"), [
    ({}, 60),
    ({"Cache-Control": "max-age=120"}, 120),
    ({"cache-control": "Private, MAX-AGE = 120, must-revalidate"}, 120),
    ({"Cache-Control": 'max-age="120"'}, 120),
    ({"Cache-Control": "max-age=120, max-age=5"}, 120),
    ({"Cache-Control": "max-age=120", "Age": "100"}, 20),
    ({"Cache-Control": "max-age=120", "Age": "500"}, 0),
    ({"Cache-Control": "max-age=120", "Age": "never"}, 120),
    ({"Cache-Control": "max-age=soon"}, 0),
    ({"Cache-Control": "max-age=-1"}, 0),
    ({"Cache-Control": "max-age=31536000"}, 3600),
    ({"Cache-Control": "max-age=99999999999999999999999999"}, 3600),
    ({"Cache-Control": "public, s-maxage=5"}, 60),
    ({"Cache-Control": "no-cache, max-age=120"}, 0),
    ({"Cache-Control": 'no-cache="Set-Cookie, x", max-age=120'}, 0),
    ({"Cache-Control": "max-age=120", "Vary": "*"}, 0),
    ({"Cache-Control": "max-age=120", "Vary": "Accept"}, 120),
    ({"Expires": "Mon, 21 Nov 2022 03:08:40 GMT"}, 120),
    ({"Expires": "Mon, 21 Nov 2022 03:08:40 GMT", "Date": "Mon, 21 Nov 2022 03:08:10 GMT"}, 30),
    ({"Expires": "0"}, 0),
    ({"Expires": "Mon, 21 Nov 2022 03:08:40 GMT", "Cache-Control": "max-age=7"}, 7),
])  # fmt: skip
def test_how_long_a_text_is_good(headers: dict[str, str], fresh_s: float) -> None:
    freshness = Freshness.of(CIMultiDict(headers))
    assert (freshness.fresh_s(NOW_MS), freshness.is_storable) == (fresh_s, True)


def test_what_has_not_changed_is_good_as_the_new_answer_says() -> None:
    first = Freshness.of(CIMultiDict({"Cache-Control": "max-age=120", "ETag": '"a"', "Age": "120"}))
    assert first.fresh_s(NOW_MS) == 0
    renewed = first.renewed(CIMultiDict())
    assert (renewed.fresh_s(NOW_MS), renewed.conditions) == (120, {"If-None-Match": '"a"'})
    renewed = first.renewed(CIMultiDict({"Cache-Control": "no-store", "ETag": '"b"'}))
    assert (renewed.is_storable, renewed.conditions) == (False, {"If-None-Match": '"b"'})
