"""Schemas, descriptions and catalogs by real servers: what an execution was accepted with stays with it."""

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from fastrunner._core import EffectFailure, EffectResult, PerformEffect, ResourcesMissing
from fastrunner._core import compile as compile_document
from fastrunner.base import limits
from fastrunner.counts.definitions import Metrics
from fastrunner.engine.embedded.admit.plans import PlanCache
from fastrunner.errors import DocumentRefused, ResourceUnavailable
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks.descriptions import NoDescription
from tests.integration.engines import document, engine_on, folder, submission, until, until_status
from tests.integration.http_calls import Remote, serve
from tests.integration.test_placement_runner import connections, ready, start, stop
from tests.integration.test_resources import calling, output, remote_server, resolver
from tests.integration.test_subflows_runner import ended

SCHEMA = '{"type": "object", "required": ["%s"]}'


def checked(url: str, rest: str = "") -> str:
    return document(
        f"{rest}  - one:\n      set: {{a: 1}}\n      output: {{schema: {{resource: {{endpoint: '{url}'}}}}}}\n"
    )


WAIT = "  - hold:\n      call: openapi\n      with: {document: {endpoint: 'file:///none'}, operationId: wait}\n"


class Describing:
    """Performs calls of protocols: what each gives is the description that it is made with."""

    def __init__(self, resources: Resolver) -> None:
        self._resources = resources
        self.gate = asyncio.Event()
        self.held: list[str] = []

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        if arguments["operationId"] == "wait":
            self.held.append(effect.idempotency_key)
            await self.gate.wait()
            return EffectResult(effect.effect_id, {})
        try:
            found = await self._resources.get(arguments["document"])
        except NoDescription as why:
            return EffectFailure(effect.effect_id, why.type, why.status or 500, "No Description", str(why))
        return EffectResult(effect.effect_id, {"text": found.text, "url": found.url})

    async def close(self) -> None:
        pass


def described(endpoint: str, hold: bool = True) -> str:
    call = f"  - call:\n      call: openapi\n      with: {{document: {{endpoint: {endpoint}}}, operationId: get}}\n"
    return document((WAIT if hold else "") + call)


# --- schemas ---


async def test_an_execution_keeps_the_schema_it_was_accepted_with() -> None:
    path = folder()
    async with remote_server() as remote:
        hold = "  - hold: {wait: {seconds: 1}}\n"
        text = checked(f"{remote.url}/order.json", hold)
        async with engine_on(path, resources=resolver(path)) as engine:
            for name, member in {"fits": "a", "fails": "b"}.items():
                remote.answers(text=SCHEMA % member)
                await engine.submit(submission(name, text))
    async with engine_on(path) as engine:
        assert await output(engine, "fits") == {"a": 1}
        failed = await until_status(engine, "fails", "failed")
        assert "does not match its schema" in str(failed.error)


async def test_schemas_that_cannot_be_had_refuse_the_document() -> None:
    path = folder()
    async with remote_server() as remote, engine_on(path, resources=resolver(path)) as engine:
        url = f"{remote.url}/order.json"
        for answer, code in {(404, ""): "unresolved-resource", (200, "<html>"): "invalid-schema"}.items():
            remote.answers(status=answer[0], text=answer[1])
            with pytest.raises(DocumentRefused, match=url) as raised:
                await engine.submit(submission("one", checked(url)))
            [problem] = raised.value.problems
            assert (problem.code, problem.pointer) == (code, "/do/0/one/output/schema/resource/endpoint")
        remote.answers(status=503)
        with pytest.raises(ResourceUnavailable):
            await engine.submit(submission("one", checked(url)))
        remote.answers(text=SCHEMA % "a")
        await engine.submit(submission("one", checked(url)))
        assert await output(engine, "one") == {"a": 1}


async def test_a_schema_is_fetched_with_its_policy() -> None:
    path = folder()
    async with remote_server() as remote:
        asked = []

        async def answer(request: web.Request) -> web.Response:
            asked.append(request.headers.get("Authorization", ""))
            return web.Response(text=SCHEMA % "a")

        remote.answer = answer
        endpoint = f"{{uri: '{remote.url}/s', authentication: {{bearer: {{use: cat}}}}}}"
        text = checked("").replace("''", endpoint).replace("do:\n", "use: {secrets: [cat]}\ndo:\n")
        resources = resolver(path, secrets={"CAT": '{"token": "schemas"}'})
        async with engine_on(path, resources=resources) as engine:
            await engine.submit(submission("one", text))
            assert await output(engine, "one") == {"a": 1}
        assert asked == ["Bearer schemas"]


# --- descriptions ---


async def test_an_execution_keeps_the_description_it_was_accepted_with() -> None:
    path = folder()
    async with remote_server() as remote:
        text = described(f"'{remote.url}/openapi.yaml'")
        resources = resolver(path)
        performer = Describing(resources)
        async with engine_on(path, performers={"call_openapi": performer}, resources=resources) as engine:
            for version in ("one", "two"):
                remote.answers(text=version, headers={"Cache-Control": "no-cache"})
                await engine.submit(submission(version, text))
            # The same text of both is stored once, the same plan serves them.
            await engine.submit(submission("again", text))
            await until(lambda: len(performer.held) == 3, "the calls that hold")
    # Nobody serves it any more.
    resources = resolver(path)
    performer = Describing(resources)
    performer.gate.set()
    async with engine_on(path, performers={"call_openapi": performer}, resources=resources) as engine:
        url = f"{remote.url}/openapi.yaml"
        assert await output(engine, "one") == {"text": "one", "url": url}
        assert await output(engine, "two") == {"text": "two", "url": url}
        assert await output(engine, "again") == {"text": "two", "url": url}


async def test_where_a_description_was_found_is_kept() -> None:
    path = folder()
    async with remote_server() as remote:

        async def answer(request: web.Request) -> web.Response:
            if request.path == "/latest":
                raise web.HTTPFound("/v2/openapi.yaml")
            return web.Response(text="two")

        remote.answer = answer
        resources = resolver(path)
        performers = {"call_openapi": Describing(resources)}
        async with engine_on(path, performers=performers, resources=resources) as engine:
            await engine.submit(submission("one", described(f"'{remote.url}/latest'", hold=False)))
            assert await output(engine, "one") == {"text": "two", "url": f"{remote.url}/v2/openapi.yaml"}
        assert len(remote.requests) == 2


async def test_a_description_that_cannot_be_had_is_asked_for_by_the_call() -> None:
    path = folder()
    async with remote_server() as remote:
        resources = resolver(path)
        performers = {"call_openapi": Describing(resources)}
        async with engine_on(path, performers=performers, resources=resources) as engine:
            text = described(f"'{remote.url}/openapi.yaml'", hold=False)
            remote.answers(status=404)
            await engine.submit(submission("missing", text))
            failed = await until_status(engine, "missing", "failed")
            assert "answers with status 404" in str(failed.error)
            assert "communication" in str(failed.error)
            remote.answers(text="one", headers={"Cache-Control": "no-cache"})
            await engine.submit(submission("there", text))
            assert (await output(engine, "there"))["text"] == "one"
            # Only the acceptance asked: the failure before is not kept.
            assert len(remote.requests) == 3


async def test_a_slow_description_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DESCRIPTIONS_PIN_S_MAX", 0.2)
    path = folder()
    async with remote_server() as remote:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            if not gate.is_set():
                await gate.wait()
            return web.Response(text="late")

        remote.answer = answer
        resources = resolver(path)
        performers = {"call_openapi": Describing(resources)}
        async with engine_on(path, performers=performers, resources=resources) as engine:
            await engine.submit(submission("one", described(f"'{remote.url}/openapi.yaml'", hold=False)))
            gate.set()
            assert (await output(engine, "one"))["text"] == "late"


async def test_descriptions_are_kept_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DESCRIPTIONS_PINNED_SIZE_BYTES_MAX", 1_000)
    path = folder()
    async with remote_server() as remote:
        resources = resolver(path)
        performers = {"call_openapi": Describing(resources)}
        async with engine_on(path, performers=performers, resources=resources) as engine:
            for size, requests in {1_000: 1, 1_001: 3}.items():
                remote.answers(text="x" * size, headers={"Cache-Control": "no-store"})
                text = described(f"'{remote.url}/{size}'", hold=False)
                await engine.submit(submission(f"of-{size}", text))
                assert len((await output(engine, f"of-{size}"))["text"]) == size
                # One that is too large is asked for by the call as well.
                assert len(remote.requests) == requests


async def test_a_fresh_description_costs_a_submission_no_request() -> None:
    path = folder()
    async with remote_server() as remote:
        resources = resolver(path)
        performers = {"call_openapi": Describing(resources)}
        async with engine_on(path, performers=performers, resources=resources) as engine:
            remote.answers(text="one")
            text = described(f"'{remote.url}/openapi.yaml'", hold=False)
            for number in range(5):
                await engine.submit(submission(f"e{number}", text))
                assert (await output(engine, f"e{number}"))["text"] == "one"
        assert len(remote.requests) == 1


# --- submissions again ---


async def test_what_a_function_needs_is_found_out_anew_each_time() -> None:
    path = folder()
    async with remote_server() as remote, engine_on(path, resources=resolver(path)) as engine:
        texts = {"/f": "call: ./inner.yaml", "/inner.yaml": "set: {from: inner}"}

        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=texts.get(request.path), status=200 if request.path in texts else 404)

        remote.answer = answer
        await engine.submit(submission("one", calling(f"{remote.url}/f")))
        assert await output(engine, "one") == {"from": "inner"}
        del texts["/inner.yaml"]
        texts["/f"] = "set: {from: f}"
        await engine.submit(submission("two", calling(f"{remote.url}/f")))
        assert await output(engine, "two") == {"from": "f"}
        assert [request.path for request in remote.requests] == ["/f", "/inner.yaml", "/f"]
        texts["/f"] = "call: ./other.yaml"
        with pytest.raises(DocumentRefused, match=r"other\.yaml cannot be fetched"):
            await engine.submit(submission("three", calling(f"{remote.url}/f")))


def test_what_documents_need_is_known_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DOCUMENTS_WANTING_KNOWN_MAX", 2)
    cache = PlanCache(Metrics())
    with pytest.raises(ResourcesMissing) as missing:
        compile_document(calling("https://host.test/f"))
    for text in ("a", "b"):
        cache.remember(text, missing.value.resources)
    assert cache.wanted_by("a") == missing.value.resources
    cache.remember("c", missing.value.resources)
    # The one that nobody has submitted for the longest time goes.
    assert [bool(cache.wanted_by(text)) for text in ("a", "b", "c", "d")] == [True, False, True, False]


# --- catalogs ---


async def test_the_runners_default_catalog(tmp_path: Path) -> None:
    """Over HTTP and from files; functions name what lies beside them."""
    place = tmp_path / "functions" / "add" / "1.0.0"
    place.mkdir(parents=True)
    (place / "function.yaml").write_text("call: ../../twice/1.0.0/function.yaml\nwith: {n: '${ .n + 1 }'}\n")
    beside = tmp_path / "functions" / "twice" / "1.0.0"
    beside.mkdir(parents=True)
    (beside / "function.yaml").write_text(
        "set: {n: '${ 2 * .n }'}\ninput: {schema: {resource: {endpoint: schema.json}}}\n"
    )
    (beside / "schema.json").write_text(SCHEMA % "n")
    async with remote_server() as remote:

        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=(tmp_path / request.path.removeprefix("/root/")).read_text())

        remote.answer = answer
        for root in (f"{remote.url}/root/", f"file://{tmp_path}"):
            path = folder()
            resources = resolver(path, resources_dir=tmp_path)
            async with engine_on(path, resources=resources, default_catalog=root) as engine:
                await engine.submit(submission("one", calling("add:1.0.0@default")))
                assert await output(engine, "one") == {"n": 4}
    async with engine_on(folder(), resources=resolver(folder())) as engine:
        with pytest.raises(DocumentRefused, match="FASTRUNNER_DEFAULT_CATALOG"):
            await engine.submit(submission("one", calling("add:1.0.0@default")))


# --- whole runners ---


def openapi(service: str) -> str:
    operation = {"operationId": "far", "responses": {"200": {"description": "it"}}}
    head = {"openapi": "3.0.3", "info": {"title": "far", "version": "1"}, "servers": [{"url": service}]}
    return json.dumps({**head, "paths": {"/far": {"get": operation}}})


async def test_a_killed_tree_goes_on_with_what_it_was_given(tmp_path: Path) -> None:
    """A function of the default catalog, what that names, a schema and a description."""
    async with remote_server() as service:
        service.answers(text='{"far": true}', content_type="application/json")
        await goes_on_beside(service, tmp_path)
        assert [request.path for request in service.requests] == ["/far"]


async def goes_on_beside(service: Remote, tmp_path: Path) -> None:
    remote = Remote()
    server = await serve(remote)
    texts = {
        "/schema": SCHEMA % "far",
        "/openapi.json": openapi(service.url),
        "/functions/add/1.0.0/function.yaml": "call: ./inner.yaml",
        "/functions/add/1.0.0/inner.yaml": "set: {near: true}",
    }

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=texts[request.path])

    remote.answer = answer
    text = (
        "document: {dsl: 1.0.3, namespace: shop, name: far, version: 1.0.0}\ndo:\n- hold: {wait: {seconds: 2}}\n"
        "- one: {call: 'add:1.0.0@default', with: {n: 1}}\n"
        f"- two: {{call: openapi, with: {{document: {{endpoint: '{remote.url}/openapi.json'}}, operationId: far}}}}\n"
        f"output: {{schema: {{resource: {{endpoint: '{remote.url}/schema'}}}}}}\n"
    )
    try:
        with start(tmp_path / "data", 1, FASTRUNNER_DEFAULT_CATALOG=remote.url) as runner:
            ready(runner)
            async with connections(runner, 1) as opened:
                await opened[0].execute("one", text)
            os.killpg(runner.process.pid, signal.SIGKILL)
            runner.process.communicate()
    finally:
        await server.cleanup()
    # Neither the server nor the setting is there any more.
    with start(tmp_path / "data", 1) as runner:
        ready(runner)
        found = await ended(runner, "one")
        assert (found.status, json.loads(found.output_json)) == ("completed", {"far": True})
        stop(runner)
    assert sorted({request.path for request in remote.requests}) == sorted(texts)
