"""Functions from elsewhere, by real servers and files: fetched before an execution is accepted, pinned for its life."""

import asyncio
import gzip
import json
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from aiohttp import web

from fastrunner.access.egress import Egress
from fastrunner.access.principal import Principal, Role
from fastrunner.access.secrets import Secrets
from fastrunner.base import limits
from fastrunner.config import Environment, load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import DefinitionRef
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import DocumentRefused, PermissionDenied, ResourceUnavailable, Unavailable
from fastrunner.registry.registry import Registry
from fastrunner.resources.addresses import raw_url
from fastrunner.resources.resolver import Resolver
from tests.integration.engines import Performer, document, engine_on, folder, submission, until, until_status
from tests.integration.http_calls import Remote, serve

CERTIFICATES = Path(__file__).parent.parent / "certificates"


@asynccontextmanager
async def remote_server() -> AsyncIterator[Remote]:
    remote = Remote()
    server = await serve(remote)
    try:
        yield remote
    finally:
        await server.cleanup()


def resolver(path: Path, *, secrets: dict[str, str] | None = None, env: str = "local", **settings: Any) -> Resolver:
    config = load_config(data_dir=path, **settings)
    return Resolver(config, Metrics(), Secrets(None, secrets), Egress(environment=Environment(env)))


@asynccontextmanager
async def engine_with(
    path: Path, performer: Performer | None = None, *, definitions: Registry | None = None, **options: Any
) -> AsyncIterator[EmbeddedEngine]:
    async with engine_on(path, performer, resources=resolver(path, **options), definitions=definitions) as engine:
        yield engine


def calling(url: str, rest: str = "") -> str:
    return document(f"  - one:\n      call: '{url}'\n      with: {{n: 1}}\n{rest}")


HOLD = (
    "  - hold:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
    "      output: {as: '{}'}\n"
)


def setting(value: int) -> str:
    return f"set: {{a: {value}, n: '${{ .n }}'}}\n"


async def output(engine: EmbeddedEngine, execution_id: str) -> Any:
    return json.loads((await until_status(engine, execution_id, "completed")).output_json)


async def refusal(engine: EmbeddedEngine, text: str) -> tuple[str, str]:
    """Pointer and message of the one problem that a document is refused for."""
    with pytest.raises(DocumentRefused) as raised:
        await engine.submit(submission("refused", text))
    [problem] = raised.value.problems
    assert problem.code in ("unresolved-resource", "invalid-function")
    return problem.pointer, problem.message


# --- what is there ---


async def test_each_execution_keeps_the_text_it_was_accepted_with() -> None:
    path, performer = folder(), Performer()
    async with remote_server() as remote:
        text = document(HOLD + f"  - one:\n      call: '{remote.url}/function.yaml'\n      with: {{n: 7}}\n")
        async with engine_with(path, performer) as engine:
            for value in (1, 2):
                remote.answers(text=setting(value))
                await engine.submit(submission(f"e{value}", text))
            # A repeated request is the same one, whatever is there by now.
            remote.answers(text=setting(3))
            assert await engine.submit(submission("e2", text)) == "running"
            await until(lambda: len(performer.performed) == 2, "both calls")
    assert [request.path for request in remote.requests] == ["/function.yaml"] * 2
    after = Performer()
    after.gate.set()
    # Nobody serves it any more, and nothing can be fetched.
    async with engine_on(path, after) as engine:
        assert await output(engine, "e1") == {"a": 1, "n": 7}
        assert await output(engine, "e2") == {"a": 2, "n": 7}
        assert await engine.submit(submission("e1", text)) == "running"


async def test_a_function_that_needs_others_and_is_needed_by_many_at_once() -> None:
    async with remote_server() as remote, engine_with(folder()) as engine:
        other = f"call: {remote.url}/inner\nwith: {{n: '${{ .n + 1 }}'}}\n"
        texts = {"/outer": f"\ufeff{other}".encode(), "/inner": gzip.compress(setting(5).encode())}

        async def answer(request: web.Request) -> web.Response:
            coding = {"Content-Encoding": "gzip"} if request.path == "/inner" else {}
            return web.Response(body=texts[request.path], headers=coding)

        remote.answer = answer
        text = calling(f"{remote.url}/outer")
        await asyncio.gather(*[engine.submit(submission(f"e{n}", text)) for n in range(20)])
        assert [await output(engine, f"e{n}") for n in range(20)] == [{"a": 5, "n": 2}] * 20
        assert sorted(request.path for request in remote.requests) == ["/inner", "/outer"]
        assert (await engine.validate(text, "client"), len(remote.requests)) == ((), 4)


async def test_functions_of_catalogs_with_what_proves_who_asks() -> None:
    async with remote_server() as remote, engine_with(folder(), secrets={"CAT": '{"token": "catalogue"}'}) as engine:
        asked: list[tuple[str, str]] = []

        async def answer(request: web.Request) -> web.Response:
            asked.append((request.path, request.headers.get("Authorization", "")))
            return web.Response(text=setting(1))

        remote.answer = answer
        text = calling("add:1.0.0@team").replace(
            "do:\n",
            f"use:\n  secrets: [cat]\n  catalogs:\n    team: {{endpoint: {{uri: '{remote.url}/root/', "
            "authentication: {bearer: {use: cat}}}}\ndo:\n",
        )
        await engine.submit(submission("one", text))
        assert await output(engine, "one") == {"a": 1, "n": 1}
        assert asked == [("/root/functions/add/1.0.0/function.yaml", "Bearer catalogue")]
        _, message = await refusal(engine, text.replace("[cat]", "[dog]").replace("use: cat", "use: dog"))
        assert "bearer authentication takes its fields from secret 'dog'" in message


@pytest.mark.parametrize(("shown", "raw"), [
    ("https://github.com/o/r/tree/main/cat/functions/f/1.0.0/function.yaml",
     "https://raw.githubusercontent.com/o/r/main/cat/functions/f/1.0.0/function.yaml"),
    ("https://github.com/o/r/blob/v1/f.yaml", "https://raw.githubusercontent.com/o/r/v1/f.yaml"),
    ("https://github.com/o/r/functions/f/1.0.0/function.yaml",
     "https://raw.githubusercontent.com/o/r/HEAD/functions/f/1.0.0/function.yaml"),
    ("https://github.com/o/r/releases/download/v1/f.yaml", "https://github.com/o/r/releases/download/v1/f.yaml"),
    ("https://gitlab.com/g/s/r/-/tree/main/f.yaml", "https://gitlab.com/g/s/r/-/raw/main/f.yaml"),
    ("https://gitlab.com/g/r/functions/f/1.0.0/function.yaml",
     "https://gitlab.com/g/r/-/raw/HEAD/functions/f/1.0.0/function.yaml"),
    ("https://host.test/o/r/blob/main/f.yaml", "https://host.test/o/r/blob/main/f.yaml"),
])  # fmt: skip
def test_pages_of_code_hosts_stand_for_files(shown: str, raw: str) -> None:
    assert raw_url(shown) == raw


async def test_files_are_read_below_one_folder_only(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (allowed / "f 1.yaml").write_text(setting(4))
    (tmp_path / "secret.yaml").write_text(setting(5))
    (allowed / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (allowed / "large.yaml").write_text("#" * (limits.RESOURCE_SIZE_BYTES_MAX + 1))
    os.mkfifo(allowed / "pipe.yaml")
    async with engine_with(folder(), resources_dir=allowed) as engine:
        await engine.submit(submission("one", calling(f"file://{allowed}/f%201.yaml")))
        assert await output(engine, "one") == {"a": 4, "n": 1}
        for name, why in {
            "../secret.yaml": "outside of FASTRUNNER_RESOURCES_DIR",
            "link.yaml": "outside of FASTRUNNER_RESOURCES_DIR",
            "none.yaml": "there is no such file",
            "f%201.yaml/x": "there is no such file",
            "large.yaml": "more than",
            "pipe.yaml": "it is no file",
            "%00": "cannot be read",
            "": "it cannot be read",
        }.items():
            assert why in (await refusal(engine, calling(f"file://{allowed}/{name}")))[1], name
        (allowed / "shop").mkdir()
        (allowed / "shop" / "f.yaml").write_text(setting(6))
        # Where a host would stand is a folder of the one that is open.
        await engine.submit(submission("two", calling("file://shop/f.yaml")))
        assert await output(engine, "two") == {"a": 6, "n": 1}
        assert "no such file" in (await refusal(engine, calling("file://elsewhere/f.yaml")))[1]
        assert "outside" in (await refusal(engine, calling("file://../secret.yaml")))[1]
        assert "outside" in (await refusal(engine, calling("file://shop/../../secret.yaml")))[1]
    async with engine_with(folder()) as engine:
        assert "reads no files" in (await refusal(engine, calling(f"file://{allowed}/f%201.yaml")))[1]


# --- what is not ---


async def test_what_cannot_be_had_refuses_the_document() -> None:
    async with remote_server() as remote, engine_with(folder()) as engine:
        url = f"{remote.url}/function.yaml"
        for status in (404, 401, 410, 204):
            remote.answers(status=status)
            pointer, message = await refusal(engine, calling(url))
            assert (pointer, message) == (
                "/do/0/one/call", f"{url} cannot be fetched: 127.0.0.1 answers with status {status}",
            )  # fmt: skip
        remote.answers(body=b"\xff\xfe")
        assert "is no text in UTF-8" in (await refusal(engine, calling(url)))[1]
        remote.answers(text="<!doctype html>\n<title>Not here</title>")
        assert "the function at" in (await refusal(engine, calling(url)))[1]
        # Nothing of it is remembered.
        remote.answers(text=setting(1))
        await engine.submit(submission("refused", calling(url)))
        assert await output(engine, "refused") == {"a": 1, "n": 1}


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_what_may_be_had_later_says_so(status: int) -> None:
    async with remote_server() as remote, engine_with(folder()) as engine:
        url = f"{remote.url}/function.yaml"
        remote.answers(status=status)
        with pytest.raises(ResourceUnavailable, match=f"{url} cannot be fetched for the moment: .* {status}") as raised:
            await engine.submit(submission("one", calling(url)))
        assert raised.value.retry_after_s > 0
        remote.answers(text=setting(1))
        await engine.submit(submission("one", calling(url)))
        assert await output(engine, "one") == {"a": 1, "n": 1}


async def test_a_server_that_is_not_there() -> None:
    async with engine_with(folder()) as engine:
        with pytest.raises(ResourceUnavailable, match="cannot be fetched for the moment: no connection"):
            await engine.submit(submission("one", calling("http://127.0.0.1:1/f")))
        # Other problems come first, without a request.
        with pytest.raises(DocumentRefused, match="thn"):
            await engine.submit(
                submission("one", calling("http://127.0.0.1:1/f", "  - two: {set: {a: 1}, thn: end}\n"))
            )


async def test_a_slow_server_holds_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RESOURCES_FETCH_S_MAX", 1.0)
    async with remote_server() as remote, engine_with(folder()) as engine:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            await gate.wait()
            return web.Response(text=setting(1))

        remote.answer = answer
        slow = engine.submit(submission("slow", calling(f"{remote.url}/f")))
        await until(lambda: remote.requests, "the request")
        await engine.submit(submission("other"))
        await until_status(engine, "other", "completed")
        with pytest.raises(ResourceUnavailable, match=f"is not there within 1 s: {remote.url}/f"):
            await slow
        gate.set()
        await engine.submit(submission("slow", calling(f"{remote.url}/f")))
        assert await output(engine, "slow") == {"a": 1, "n": 1}


async def test_a_body_without_an_end_is_given_up() -> None:
    async with remote_server() as remote, engine_with(folder()) as engine:
        sent = 0

        async def answer(request: web.Request) -> web.StreamResponse:
            nonlocal sent
            response = web.StreamResponse()
            await response.prepare(request)
            while sent < 50 * limits.RESOURCE_SIZE_BYTES_MAX:
                await response.write(b"# more\n" * 1_000)
                sent += 7_000
            return response

        remote.answer = answer
        assert (
            f"more than {limits.RESOURCE_SIZE_BYTES_MAX} bytes"
            in (await refusal(engine, calling(f"{remote.url}/f")))[1]
        )
        assert sent < 50 * limits.RESOURCE_SIZE_BYTES_MAX
        bomb = gzip.compress(b"#" * 100 * limits.RESOURCE_SIZE_BYTES_MAX)
        remote.answers(body=bomb, headers={"Content-Encoding": "gzip"})
        assert "bytes" in (await refusal(engine, calling(f"{remote.url}/f")))[1]


async def test_redirects_lead_where_calls_may_go_and_a_few_times() -> None:
    async with remote_server() as remote, engine_with(folder()) as engine:

        async def answer(request: web.Request) -> web.Response:
            if request.path == "/text":
                return web.Response(text=setting(1))
            place, _, count = request.path.strip("/").partition("/")
            if place == "refused":
                return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data"})
            left = int(count)
            return web.Response(status=307, headers={"Location": f"/again/{left - 1}" if left > 1 else "/text"})

        remote.answer = answer
        most = limits.RESOURCE_REDIRECTS_MAX
        await engine.submit(submission("one", calling(f"{remote.url}/again/{most}")))
        assert await output(engine, "one") == {"a": 1, "n": 1}
        assert f"more than {most} redirects" in (await refusal(engine, calling(f"{remote.url}/again/{most + 1}")))[1]
        assert "metadata service" in (await refusal(engine, calling(f"{remote.url}/refused")))[1]
    async with remote_server() as remote, engine_with(folder(), env="prod") as engine:
        assert "a loopback address" in (await refusal(engine, calling(f"{remote.url}/text")))[1]
        assert remote.requests == []


async def test_a_redirect_from_https_to_http_is_refused() -> None:
    remote, secure = Remote(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(CERTIFICATES / "server.pem")
    server = await serve(remote, secure)
    try:
        remote.answers(status=302, headers={"Location": "http://127.0.0.1:1/f"})
        path, trust = folder(), ssl.create_default_context(cafile=CERTIFICATES / "ca.pem")
        trusting = Resolver(load_config(data_dir=path), Metrics(), Secrets(), ssl_context=trust)
        async with engine_on(path, resources=trusting) as engine:
            url = f"https://127.0.0.1:{remote.port}/f"
            assert "from https to http" in (await refusal(engine, calling(url)))[1]
    finally:
        await server.cleanup()


async def test_requests_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RESOURCES_FETCHED_AT_ONCE_MAX", 3)
    async with remote_server() as remote, engine_with(folder()) as engine:
        now = most = 0

        async def answer(request: web.Request) -> web.Response:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1
            return web.Response(text=setting(1))

        remote.answer = answer
        await asyncio.gather(*[engine.submit(submission(f"e{n}", calling(f"{remote.url}/{n}"))) for n in range(12)])
        assert (most, len(remote.requests)) == (3, 12)


async def test_an_engine_that_stops_waits_for_no_text() -> None:
    async with remote_server() as remote:

        async def answer(request: web.Request) -> web.Response:
            await asyncio.Event().wait()
            raise AssertionError

        remote.answer = answer
        async with engine_with(folder()) as engine:
            waiting = engine.submit(submission("one", calling(f"{remote.url}/f")))
            await until(lambda: remote.requests, "the request")
        with pytest.raises(Unavailable, match="stopping"):
            await waiting


# --- who may, and what is registered ---


async def test_namespaces_hold_for_what_comes_from_elsewhere() -> None:
    """Judged by the text that is executed, not by one fetched before."""
    async with remote_server() as remote, engine_with(folder()) as engine:
        principal = Principal("caller", frozenset(Role), frozenset({"tests"}))
        remote.answers(text="run: {workflow: {namespace: others, name: x, version: 1.0.0}}\n")
        asking = submission("one", calling(f"{remote.url}/f"))
        asking.principal = principal
        with pytest.raises(PermissionDenied, match="others"):
            await engine.submit(asking)
        remote.answers(text=setting(1))
        asking = submission("one", calling(f"{remote.url}/f"))
        asking.principal = principal
        await engine.submit(asking)
        assert await output(engine, "one") == {"a": 1, "n": 1}
        assert len(remote.requests) == 2


async def test_who_may_only_look_has_nothing_fetched() -> None:
    """Nor do those who may share in what was fetched for others meanwhile."""
    async with remote_server() as remote, engine_with(folder()) as engine:
        gate = asyncio.Event()

        async def answer(request: web.Request) -> web.Response:
            await gate.wait()
            return web.Response(text=setting(1))

        remote.answer = answer
        text = calling(f"{remote.url}/f")

        async def looked_at(document: str) -> list[tuple[str, str]]:
            found = await engine.validate(document, "reader", fetches=False)
            return [(problem.code, problem.severity) for problem in found]

        assert await looked_at(text) == [("not-fetched", "warning")]
        assert remote.requests == []
        submitted = engine.submit(submission("one", text))
        await until(lambda: remote.requests, "the request")
        assert await looked_at(text) == [("not-fetched", "warning")]
        gate.set()
        await submitted
        assert await looked_at(text) == [("not-fetched", "warning")]
        assert await looked_at(text.replace("with:", "wiht:")) == [("unknown-key", "error")]
        assert await looked_at(document("  - one: {set: {a: 1}}\n")) == []
        assert len(remote.requests) == 1


async def test_a_registered_workflow_keeps_the_text_it_was_registered_with(tmp_path: Path) -> None:
    path = folder()
    registry = Registry(path)
    async with remote_server() as remote:
        remote.answers(text=setting(1))
        text = calling(f"{remote.url}/f")
        (tmp_path / "workflow.yaml").write_text(text)
        async with engine_with(path, definitions=registry) as engine:
            await registry.register(await engine.plan_of(text, ""), text)
            remote.answers(text=setting(2))
            _, created = await registry.register(await engine.plan_of(text, ""), text)
            assert not created
            await registry.load(tmp_path, lambda document: engine.plan_of(document, ""))
            assert len(remote.requests) == 2
    async with engine_with(path, definitions=registry) as engine:
        asking = submission("one", "")
        asking.ref = DefinitionRef("tests", "test", "")
        await engine.submit(asking)
        assert await output(engine, "one") == {"a": 1, "n": 1}
    registry.close()
    damaged = apsw.Connection(str(path / "registry.db"))
    damaged.execute("update definitions set resources_json = replace(resources_json, 'a: 1', 'a: 9')")
    damaged.close()
    registry = Registry(path)
    with pytest.raises(Exception, match="is damaged: register it again"):
        registry.find(DefinitionRef("tests", "test", ""))
    registry.close()


async def test_a_damaged_text_is_told_and_never_executed() -> None:
    path, performer = folder(), Performer()
    async with remote_server() as remote, engine_with(path, performer) as engine:
        remote.answers(text=setting(1))
        await engine.submit(
            submission("one", document(HOLD + f"  - one: {{call: '{remote.url}/f', with: {{n: 1}}}}\n"))
        )
        await until(lambda: performer.performed, "the call")
    db = apsw.Connection(str(path / "shard-0000.db"))
    db.execute("update plans set resources_json = replace(resources_json, 'a: 1', 'a: 9')")
    db.close()
    async with engine_on(path) as engine:
        view = await until_status(engine, "one", "failed")
        assert "its document does not match its hash" in json.dumps(dict(view.error or {}))


async def test_what_documents_may_not_run_no_function_may() -> None:
    async with remote_server() as remote:
        path = folder()
        remote.answers(text="run: {shell: {command: ls}}\n")
        async with engine_on(path, resources=resolver(path), run_allowed="none") as engine:
            assert "[not-allowed]" in (await refusal(engine, calling(f"{remote.url}/f")))[1]
