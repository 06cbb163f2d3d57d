"""Support: .proto files of `call: grpc`: where imports are found, what is compiled and how often, and texts that are
hostile or no .proto files at all."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fastrunner.access.secrets import Secrets
from fastrunner.base import limits
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks.call_grpc.sources import imports_of
from fastrunner.tasks.descriptions import NoDescription
from tests.integration.grpc_calls import GREETER, KINDS, Greeter, Texts, calling, described, serving
from tests.integration.http_calls import Remote, serve
from tests.integration.test_call_grpc import until

HEAD = 'syntax = "proto3";\npackage app.greet;\n'
SERVICE = "service Greeter { rpc SayHello(Hello) returns (Hello); }\n"
HELLO = "message Hello { string name = 1; }\n"
PLAIN = HEAD + HELLO + SERVICE


@pytest.fixture
async def greeter() -> AsyncIterator[Greeter]:
    async with serving(Greeter()) as served:
        yield served


def plain(**texts: str) -> Texts:
    return Texts(**{"file://app/greet.proto": PLAIN, **texts})


async def failure_of(text: str, texts: dict[str, str] | None = None) -> Any:
    async with calling(plain(**{"file://app/greet.proto": text, **(texts or {})})) as calls:
        return await calls.failure(1)


# --- imports ---


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('import "a.proto";', ["a.proto"]),
        ("import public 'a/b.proto' ;\nimport weak\n\"c.proto\";", ["a/b.proto", "c.proto"]),
        ('import"a.proto";import public"b.proto";', ["a.proto", "b.proto"]),
        ('// import "a.proto";\n/* import "b.proto"; */ import "c.proto";', ["c.proto"]),
        ("option x = \"import 'a.proto';\"; option y = 'a\\' import \"b.proto\"';", []),
        ('message reimport { string import_ = 1; } /* import "a.proto";', []),
        ("/*" * 200_000, []),
        ('"\\' * 200_000, []),
        ("import " * 100_000, []),
    ],
)
def test_what_a_text_imports(text: str, names: list[str]) -> None:
    assert imports_of(text) == names


@pytest.mark.parametrize(
    ("uri", "name", "place"),
    [
        ("file://app/greet.proto", "hello.proto", "file://app/hello.proto"),
        ("https://host.example/protos/greet.proto", "sub/hello.proto", "https://host.example/protos/sub/hello.proto"),
        ("https://host.example/protos/app/v1/greet.proto", "app/v1/hello.proto", "{0}/protos/app/v1/hello.proto"),
        ("https://host.example/protos/app/v1/greet.proto", "app/hello.proto", "{0}/protos/app/hello.proto"),
        ("https://host.example/a%20b/greet.proto?ref=main", "hello.proto", "{0}/a%20b/hello.proto?ref=main"),
        ("https://host.example/view/4711", "hello.proto", "{0}/view/hello.proto"),
    ],
)
async def test_where_imports_are_found(greeter: Greeter, uri: str, name: str, place: str) -> None:
    place = place.format("https://host.example")
    texts = Texts(**{uri: f'{HEAD}import "{name}";\n{SERVICE}', place: HEAD + HELLO})
    async with calling(texts) as calls:
        assert await calls.value(greeter.port, proto={"uri": uri}, arguments={"name": "Ada"}) == {"name": "Ada"}
        policy = {"bearer": {"token": "t"}}
        await calls.value(greeter.port, proto={"uri": uri, "authentication": policy})
        assert [each.get("authentication") for each in texts.asked[-2:]] == [policy, policy]


async def test_imports_of_imports_start_from_the_same_place(greeter: Greeter) -> None:
    """Each is fetched once, and what comes with protobuf or is Google's is at hand."""
    texts = plain(
        **{
            "file://app/greet.proto": f'{HEAD}import "a/one.proto";\nimport "b/two.proto";\n{SERVICE}',
            "file://app/a/one.proto": f'{HEAD}import public "b/two.proto";\n',
            "file://app/b/two.proto": f'{HEAD}import "google/api/annotations.proto";\n'
            f'import "google/rpc/status.proto";\nimport "google/protobuf/any.proto";\n{HELLO}'
            "message More { google.protobuf.Any any = 1; google.rpc.Status status = 2; }",
        }
    )
    async with calling(texts) as calls:
        assert await calls.value(greeter.port, arguments={"name": "Ada"}) == {"name": "Ada"}
    assert [each["uri"] for each in texts.asked] == [
        "file://app/greet.proto",
        "file://app/a/one.proto",
        "file://app/b/two.proto",
    ]


async def test_editions_and_options_of_ones_own(greeter: Greeter) -> None:
    text = """
edition = "2023";
package app.greet;
import "google/protobuf/descriptor.proto";
extend google.protobuf.MethodOptions { string note = 50000; }
message Hello { string name = 1 [features.field_presence = IMPLICIT]; }
service Greeter { rpc SayHello(Hello) returns (Hello) { option (note) = "kept"; } }
"""
    async with calling(plain(**{"file://app/greet.proto": text})) as calls:
        assert await calls.value(greeter.port, arguments={"name": "Ada"}) == {"name": "Ada"}


async def test_a_policy_does_not_go_where_a_redirect_leads(greeter: Greeter) -> None:
    class Redirected(Texts):
        async def get(self, resource: Any) -> Any:
            found = await super().get(resource)
            return type(found)("https://elsewhere.example/greet.proto", found.text, found.digest)

    texts = Redirected(
        **{
            "https://host.example/greet.proto": f'{HEAD}import "hello.proto";\n{SERVICE}',
            "https://elsewhere.example/hello.proto": HEAD + HELLO,
        }
    )
    async with calling(texts) as calls:
        proto = {"uri": "https://host.example/greet.proto", "authentication": {"bearer": {"token": "t"}}}
        await calls.value(greeter.port, proto=proto)
    assert texts.asked[1] == {"uri": "https://elsewhere.example/hello.proto"}


async def test_texts_come_over_http_and_from_files(greeter: Greeter, tmp_path: Path) -> None:
    """By the runner's own resolver."""
    (tmp_path / "greet.proto").write_text(GREETER)
    (tmp_path / "kinds.proto").write_text(KINDS)
    remote = Remote()

    async def answer(request: Any) -> Any:
        from aiohttp import web

        name = request.path.rpartition("/")[2]
        found = {"greet.proto": GREETER, "kinds.proto": KINDS}.get(name)
        return web.Response(text=found) if found else web.Response(status=404)

    remote.answer = answer
    server = await serve(remote)
    config = load_config(resources_dir=tmp_path)
    resolver = Resolver(config, Metrics(CollectorRegistry()), Secrets(None, {}))
    try:
        async with calling(resolver) as calls:  # type: ignore[arg-type]
            for uri in (f"file://{tmp_path}/greet.proto", f"{remote.url}/protos/greet.proto"):
                assert await calls.value(greeter.port, proto={"uri": uri}, arguments={"name": "a"}) == {"name": "a"}
            missing = await calls.failure(greeter.port, proto={"uri": f"{remote.url}/none.proto"})
            assert (missing.type, missing.title) == ("communication", "Proto Not Available"), described(missing)
            outside = await calls.failure(greeter.port, proto={"uri": "file://app/../../etc/passwd"})
            assert outside.type in ("communication", "configuration"), described(outside)
    finally:
        await resolver.close()
        await server.cleanup()


async def test_a_text_that_cannot_be_had(greeter: Greeter) -> None:
    texts = plain()
    async with calling(texts) as calls:
        texts.problem = NoDescription(
            "https://h/greet.proto cannot be fetched: h answers 502", is_transient=True, status=502
        )
        failure = await calls.failure(greeter.port)
        assert (failure.type, failure.status, failure.title) == ("communication", 502, "Proto Not Available")
        assert "h answers 502" in failure.detail
        texts.problem = None
        assert await calls.value(greeter.port) == {}
        texts.texts["file://app/greet.proto"] = HEAD + 'import "none.proto";'
        failure = await calls.failure(greeter.port)
        assert (failure.type, "file://app/none.proto cannot be fetched" in failure.detail) == ("communication", True)


# --- hostile ---


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("message {", "greet.proto:1:9: Expected message name"),
        ('syntax = "proto9";', 'Unrecognized syntax identifier "proto9"'),
        (f"{HEAD}{SERVICE}", 'greet.proto:3:32: "Hello" is not defined.'),
        (f'{HEAD}import "greet.proto";', "File recursively imports itself: greet.proto -> greet.proto"),
        ("<html><body>not here</body></html>", "greet.proto:1:1: Expected top-level statement"),
        ("", "the proto has no service app.greet.Greeter; it has none"),
        (f"{HEAD}{'message A {' * 2000}", "Reached end of input in message definition"),
    ],
    ids=str,
)
async def test_texts_that_are_no_proto(text: str, told: str) -> None:
    """The compiler's words without a path of the machine's."""
    failure = await failure_of(text)
    assert failure.type == "configuration"
    assert failure.status == 400
    assert told in failure.detail, failure.detail
    assert tempfile.gettempdir() not in failure.detail
    assert len(failure.detail) < 2000


@pytest.mark.parametrize(
    "name",
    [
        *(
            "/etc/passwd",
            "../greet.proto",
            "a/../b.proto",
            "./a.proto",
            "a//b.proto",
            "-I/.proto",
            "a/-b.proto",
            "a\\b.proto",
            "https://h/a.proto",
        ),
        *("a", "a" * 300 + ".proto", "a/" * 20 + "b.proto", ".git/config.proto", "a\n.proto", "é.proto"),
    ],
)
async def test_imports_that_name_no_file(name: str) -> None:
    failure = await failure_of(f'{HEAD}import "{name}";\n')
    assert (failure.type, failure.title) == ("configuration", "Invalid Proto"), described(failure)


async def test_imports_that_are_too_many_or_too_deep(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {f"file://app/{n}.proto": f'{HEAD}import "{n + 1}.proto";\n' for n in range(1000)}
    deep = await failure_of(f'{HEAD}import "0.proto";', chain)
    assert f"more than {limits.GRPC_PROTO_FILES_MAX} files" in deep.detail
    wide = await failure_of(HEAD + "".join(f'import "{n}.proto";\n' for n in range(10_000)), chain)
    assert f"more than {limits.GRPC_PROTO_FILES_MAX} files" in wide.detail
    circle = {"file://app/a.proto": f'{HEAD}import "b.proto";', "file://app/b.proto": f'{HEAD}import "a.proto";'}
    circular = await failure_of(f'{HEAD}import "a.proto";', circle)
    assert "File recursively imports itself" in circular.detail
    folder = {"file://app/a.proto": HEAD, "file://app/a.proto/b.proto": HEAD}
    both = await failure_of(f'{HEAD}import "a.proto"; import "a.proto/b.proto";', folder)
    assert (both.type, "another import is a folder or a file" in both.detail) == ("configuration", True)
    monkeypatch.setattr(limits, "GRPC_PROTO_SIZE_BYTES_MAX", 1000)
    large = await failure_of(f'{HEAD}import "a.proto";', {"file://app/a.proto": f"{HEAD}// {'x' * 1000}"})
    assert "more than 1000 bytes" in large.detail
    alone = await failure_of(f"{PLAIN}// {'x' * 1000}")
    assert "more than 1000 bytes" in alone.detail


def many_messages(size_bytes: int) -> str:
    fields = " ".join(f"int32 f{number} = {number};" for number in range(1, 20))
    return PLAIN + "".join(f"message M{number} {{ {fields} }}\n" for number in range(size_bytes // 350))


async def test_a_large_text_is_compiled_while_others_go_on(greeter: Greeter) -> None:
    texts = plain(**{"file://large/greet.proto": many_messages(1_000_000)})
    async with calling(texts) as calls:
        slow = asyncio.create_task(calls.outcome(greeter.port, proto={"uri": "file://large/greet.proto"}))
        for number in range(20):
            assert await calls.value(greeter.port, arguments={"name": str(number)}) == {"name": str(number)}
        assert (await slow).value == {}


async def test_what_a_compiler_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time, memory and output; and nothing of it is left."""
    large = many_messages(600_000)
    with monkeypatch.context() as changed:
        changed.setattr(limits, "GRPC_COMPILE_S_MAX", 0.05)
        assert "longer than 0.05 s" in (await failure_of(large)).detail
    with monkeypatch.context() as changed:
        changed.setattr(limits, "GRPC_COMPILE_MEMORY_SIZE_BYTES_MAX", 40 << 20)
        late = await failure_of(large)
        assert (late.type, "ended with code" in late.detail) == ("configuration", True), described(late)
    with monkeypatch.context() as changed:
        changed.setattr(limits, "GRPC_COMPILED_SIZE_BYTES_MAX", 1000)
        assert "more than 1000 bytes" in (await failure_of(large)).detail
    assert not folders()


async def test_the_compiler_sees_nothing_of_the_runner(greeter: Greeter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRUNNER_SECRET_KEY", "canary-of-the-runner")
    async with calling(plain(**{"file://app/greet.proto": many_messages(1_000_000)})) as calls:
        compiling = asyncio.create_task(calls.outcome(greeter.port))
        seen: list[bytes] = []

        def look() -> bool:
            seen.extend(each for each in map(environment, compilers()) if each is not None)
            return bool(seen)

        await until(look, "a compiler runs")
        assert not any(b"canary" in each for each in seen)
        await compiling


def folders() -> list[Path]:
    """Of compilers of this process."""
    return list(Path(tempfile.gettempdir()).glob(f"fastrunner-proto-{os.getpid()}-*"))


def environment(pid: int) -> bytes | None:
    """None if it has ended."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None


def compilers() -> dict[int, str]:
    """Compilers that this process has started, directly or not: their folders by process."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            where = os.readlink(folder / "cwd")
        except OSError:
            continue
        if b"grpc_tools.protoc" in command and f"fastrunner-proto-{os.getpid()}-" in where:
            found[int(folder.name)] = where
    return found


async def test_a_compiler_ends_with_the_worker_that_stops(greeter: Greeter) -> None:
    async with calling(plain(**{"file://app/greet.proto": many_messages(1_000_000)})) as calls:
        compiling = asyncio.create_task(calls.outcome(greeter.port))
        await until(lambda: compilers(), "a compiler runs")
        compiling.cancel()
        await asyncio.gather(compiling, return_exceptions=True)
    assert not compilers()


# --- kept ---


async def test_texts_are_compiled_once(greeter: Greeter, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many calls wait for it, wherever they come from, and if they are no .proto files."""
    texts = plain(**{"file://copy/greet.proto": PLAIN, "file://bad/greet.proto": "message {"})
    async with calling(texts) as calls:
        await asyncio.gather(*(calls.value(greeter.port) for _ in range(10)))
        await calls.value(greeter.port, proto={"uri": "file://copy/greet.proto"})
        assert calls.grpc.compiler.compiled_count == 1
        bad = {"uri": "file://bad/greet.proto"}
        for _ in range(3):
            assert (await calls.failure(greeter.port, proto=bad)).title == "Invalid Proto"
        assert calls.grpc.compiler.compiled_count == 2
        texts.texts["file://app/greet.proto"] = PLAIN + "// another text\n"
        await calls.value(greeter.port)
        assert calls.grpc.compiler.compiled_count == 3
        monkeypatch.setattr(limits, "GRPC_COMPILED_COUNT_MAX", 2)
        for number in range(3):
            texts.texts["file://app/greet.proto"] = PLAIN + f"// {number}\n"
            await calls.value(greeter.port)
        assert len(calls.grpc.compiler._kept) == 2
        monkeypatch.setattr(limits, "GRPC_COMPILED_KEPT_SIZE_BYTES_MAX", 200)
        texts.texts["file://app/greet.proto"] = PLAIN + "// last\n"
        await calls.value(greeter.port)
        assert len(calls.grpc.compiler._kept) == 1


async def test_compilers_at_once(greeter: Greeter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GRPC_COMPILERS_MAX", 1)
    texts = plain(**{f"file://{n}/greet.proto": many_messages(200_000) + f"// {n}" for n in range(3)})
    most = 0
    async with calling(texts) as calls:
        asked = [calls.outcome(greeter.port, proto={"uri": f"file://{n}/greet.proto"}) for n in range(3)]
        together = asyncio.gather(*asked)
        while not together.done():
            most = max(most, len(set(compilers().values())))
            await asyncio.sleep(0.01)
        assert all(not hasattr(each, "detail") for each in await together)
    assert most == 1


async def test_one_of_those_that_wait_may_go(greeter: Greeter) -> None:
    async with calling(plain(**{"file://app/greet.proto": many_messages(300_000)})) as calls:
        first = asyncio.create_task(calls.outcome(greeter.port))
        second = asyncio.create_task(calls.value(greeter.port))
        await until(lambda: compilers(), "a compiler runs")
        first.cancel()
        assert await second == {}
        assert calls.grpc.compiler.compiled_count == 1


async def test_folders_of_killed_workers_are_swept(greeter: Greeter) -> None:
    left = Path(tempfile.mkdtemp(prefix="fastrunner-proto-999999999-"))
    (left / "a.proto").write_text("")
    async with calling(plain()) as calls:
        await calls.value(greeter.port)
    assert not os.path.exists(left)  # noqa: ASYNC240
