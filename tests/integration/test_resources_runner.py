"""Functions by URL in a real runner, whose workers and tree are killed, and from the command."""

import asyncio
import json
import os
import signal
from pathlib import Path

import grpc
import pytest
from aiohttp import web

from tests.integration.commands import fastrunner
from tests.integration.engines import until as until_true
from tests.integration.http_calls import Remote, serve
from tests.integration.runner_process import until
from tests.integration.test_placement_runner import code_of, connections, ready, start, stop
from tests.integration.test_subflows_runner import ended


def document(url: str) -> str:
    return (
        "document: {dsl: 1.0.3, namespace: shop, name: far, version: 1.0.0}\ndo:\n- hold: {wait: {seconds: 2}}\n"
        f"- one: {{call: '{url}', with: {{n: 1}}}}\n"
    )


async def test_a_killed_tree_goes_on_with_what_was_fetched(tmp_path: Path) -> None:
    remote = Remote()
    server = await serve(remote)
    text = document(f"{remote.url}/f")
    with start(tmp_path / "data", 2) as runner:
        ready(runner)
        async with connections(runner, 2) as opened:
            for value in (1, 2):
                remote.answers(text=f"set: {{a: {value}}}")
                await opened[value - 1].execute(f"e{value}", text)
        # The server is gone before the first task has ended, and so is every process.
        await server.cleanup()
        os.killpg(runner.process.pid, signal.SIGKILL)
        runner.process.communicate()
    with start(tmp_path / "data", 2) as runner:
        ready(runner)
        for value in (1, 2):
            found = await ended(runner, f"e{value}")
            assert (found.status, found.output_json) == ("completed", f'{{"a":{value}}}')
        stop(runner)


async def test_a_worker_that_dies_while_it_fetches_leaves_nothing(tmp_path: Path) -> None:
    remote, gate = Remote(), asyncio.Event()
    server = await serve(remote)

    async def answer(request: web.Request) -> web.Response:
        await gate.wait()
        return web.Response(text="set: {a: 1}")

    remote.answer = answer
    text = document(f"{remote.url}/f")
    try:
        with start(tmp_path / "data", 2) as runner:
            ready(runner)
            async with connections(runner, 1) as opened:
                asked = asyncio.create_task(code_of(opened[0].execute("one", text)))
                await until_true(lambda: remote.requests, "the request")
                os.kill(opened[0].pid, signal.SIGKILL)
                assert await asked == "UNAVAILABLE"
                await asyncio.to_thread(until, lambda: runner.replaced(opened[0].pid), 60)
            gate.set()
            async with connections(runner, 1) as opened:
                await opened[0].execute("one", text)
            found = await ended(runner, "one")
            assert (found.status, found.output_json) == ("completed", '{"a":1}')
    finally:
        await server.cleanup()


async def test_statuses_of_refusals(tmp_path: Path) -> None:
    remote = Remote()
    server = await serve(remote)
    try:
        with start(tmp_path / "data", 1) as runner:
            ready(runner)
            async with connections(runner, 1) as opened:
                for status, code in {404: grpc.StatusCode.INVALID_ARGUMENT, 503: grpc.StatusCode.UNAVAILABLE}.items():
                    remote.answers(status=status)
                    with pytest.raises(grpc.aio.AioRpcError, match=f"{remote.url}/f") as raised:
                        await opened[0].execute("one", document(f"{remote.url}/f"))
                    assert raised.value.code() is code
            stop(runner)
    finally:
        await server.cleanup()


async def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` fetches nothing and says so; `run` fetches, from files too if it may."""
    remote = Remote()
    server = await serve(remote)
    remote.answers(text="set: {a: 1}")
    file, function = tmp_path / "w.yaml", tmp_path / "function.yaml"
    function.write_text("set: {a: 2}")
    monkeypatch.setenv("FASTRUNNER_RESOURCES_DIR", str(tmp_path))
    try:
        for url, value in {f"{remote.url}/f": 1, f"file://{function}": 2}.items():
            file.write_text(document(url).replace("seconds: 2", "milliseconds: 1"))
            checked = await asyncio.to_thread(fastrunner, "validate", "--strict", str(file))
            assert checked.returncode == 0, checked.stderr
            assert "validation fetches nothing" in checked.stderr
            ran = await asyncio.to_thread(fastrunner, "run", str(file))
            assert (ran.returncode, "fetches nothing" in ran.stderr) == (0, False), ran.stderr
            assert json.loads(ran.stdout) == {"a": value}
        remote.answers(status=404)
        file.write_text(document(f"{remote.url}/f"))
        ran = await asyncio.to_thread(fastrunner, "run", str(file))
        assert ran.returncode == 2
        assert f"{remote.url}/f cannot be fetched: 127.0.0.1 answers with status 404" in ran.stderr
        remote.answers(status=503)
        ran = await asyncio.to_thread(fastrunner, "run", str(file))
        assert ran.returncode == 2
        assert "cannot be fetched for the moment" in ran.stderr
        assert "Traceback" not in ran.stderr
    finally:
        await server.cleanup()
