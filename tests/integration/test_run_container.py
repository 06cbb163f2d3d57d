"""Containers: real ones of podman, what they are given, how they end, what the workflow hears, what is left of them."""

import asyncio
import contextlib
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastrunner._core import Compilation, InvalidWorkflow
from fastrunner.base import clock, limits
from fastrunner.config import load_config
from tests.driver import Execution, run
from tests.integration.containers import IMAGE, IMAGE_WITH_COMMAND, Podman, podman_with_image
from tests.integration.runner_process import ROOT
from tests.integration.runs import Performers, document, running
from tests.ports import free_port


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    with podman_with_image(tmp_path_factory.mktemp("podman")) as podman:
        yield podman


@pytest.fixture
def podman(engine: Podman, monkeypatch: pytest.MonkeyPatch) -> Iterator[Podman]:
    """An engine without containers; what the test leaves is removed."""
    for name, value in engine.variables.items():
        monkeypatch.setenv(name, value)
    yield engine
    engine.remove_all()


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Of a worker that runs containers."""
    (tmp_path / "volumes").mkdir()
    return {"run_allowed": "container", "data_dir": tmp_path / "data", "run_volumes": tmp_path / "volumes"}


@pytest.fixture
async def performers(podman: Podman, settings: dict[str, Any]) -> AsyncIterator[Performers]:
    async with running(**settings) as built:
        yield built


def process(command: str | None, form: str = "stdout", image: str = IMAGE, **fields: Any) -> dict[str, Any]:
    given = {} if command is None else {"command": command}
    return {"return": form, "container": {"image": image, **given, **fields}}


async def container(performers: Performers, command: str | None, form: str = "stdout", **fields: Any) -> Execution:
    return await run(document(process(command, form, **fields)), {"a": "q"}, performers)


async def detail(performers: Performers, command: str | None, **fields: Any) -> str:
    error = (await container(performers, command, **fields)).error
    assert error is not None
    return str(error["detail"])


async def until(condition: Callable[[], Any], what: str) -> None:
    """Not often: most conditions ask podman, in a thread."""
    deadline_s = clock.monotonic_s() + 60
    while not await asyncio.to_thread(condition):
        assert clock.monotonic_s() < deadline_s, f"waited 60 s for: {what}"
        await asyncio.sleep(0.05)


async def test_the_example(performers: Performers) -> None:
    text = (ROOT / "examples" / "tasks" / "image.yaml").read_text(encoding="utf-8")
    assert (await run(text, {"image": IMAGE, "name": "Ann"}, performers)).output == "Hello Ann\n"


# --- what it gets ---


async def test_a_container_gets_what_the_document_gives(performers: Performers) -> None:
    execution = await container(
        performers,
        'echo "$1-$2-$A-$B-$C"; cat',
        arguments=["${ .a }", "two words"],
        stdin="${ . }",
        environment={"A": "${ .a }", "B": "'\"\\ #", "C": None},
    )
    assert execution.output == 'q-two words-q-\'"\\ #-\n{"a":"q"}', execution.error


async def test_a_container_gets_nothing_of_the_runner(performers: Performers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_RUNNER", "1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    variables = await container(performers, "env | cut -d= -f1")
    of_engines = {"HOME", "HOSTNAME", "PATH", "PWD", "SHLVL", "TERM", "container"}
    assert set(variables.output.split()) - of_engines == {"FASTRUNNER_IDEMPOTENCY_KEY"}
    assert (await container(performers, "ls /sys/class/net")).output == "lo\n"
    privileges = (await container(performers, "cat /proc/self/status")).output
    facts = dict(line.split(":\t", 1) for line in privileges.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"] == "1"
    # Neither devices (27) nor raw sockets (13) nor another root (18).
    assert not int(facts["CapBnd"], 16) & (1 << 27 | 1 << 13 | 1 << 18)


async def test_what_an_image_runs_by_itself(performers: Performers) -> None:
    assert (await container(performers, None, image=IMAGE_WITH_COMMAND)).output == "own\n"
    more = await container(performers, None, image=IMAGE_WITH_COMMAND, arguments=["${ .a }"])
    assert more.output == "own q\n"
    assert "no command or entrypoint" in await detail(performers, None)


@pytest.mark.parametrize(
    ("form", "output"),
    [("code", 3), ("stderr", "b\n"), ("all", {"code": 3, "stdout": "a\n", "stderr": "b\n"})],
)
async def test_forms_that_tell_of_a_failure(performers: Performers, form: str, output: Any) -> None:
    assert (await container(performers, "echo a; echo b >&2; exit 3", form)).output == output


@pytest.mark.parametrize("form", ["stdout", "none"])
async def test_an_exit_code_is_an_error_elsewhere(performers: Performers, form: str) -> None:
    error = (await container(performers, "echo b >&2; exit 126", form)).error
    assert error is not None
    assert error["detail"] == 'run: container: the process ended with code 126; stderr ends with "b"'


async def test_an_outcome_of_nothing(performers: Performers) -> None:
    execution = await container(performers, "echo a", "none")
    assert (execution.status, execution.output) == ("completed", None)


# --- what becomes of it ---


async def test_how_long_a_container_stays(performers: Performers, podman: Podman) -> None:
    """As the document says, `never` removed unless it does; whatever it ends with."""
    for code in (0, 3):
        await container(performers, f"exit {code}", "code")
        [name] = podman.names()
        # Of workflow, namespace and task, as the DSL recommends.
        assert name.startswith("b-")
        assert name.endswith(".a-x")
        assert podman.look(name)["State"]["Status"] == "exited"
        podman.remove_all()
        await container(performers, f"exit {code}", "code", lifetime={"cleanup": "always"})
        await until(lambda: not podman.names(), "it is removed")
    await container(performers, "true", lifetime={"cleanup": "eventually", "after": {"milliseconds": 1}})
    await until(lambda: not podman.names(), "it is removed")
    await container(performers, "true", lifetime={"cleanup": "eventually", "after": {"hours": 1}})
    assert len(podman.names()) == 1


async def test_what_is_to_be_removed_later_is_by_the_next_worker(
    podman: Podman, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what ran when its worker died, with those who would have removed it; but nothing of others."""
    lifetimes = {
        "later": {"cleanup": "eventually", "after": {"hours": 1}},
        "now": {"cleanup": "eventually", "after": {"milliseconds": 500}},
        "kept": {"cleanup": "never"},
    }
    with monkeypatch.context() as patched:
        patched.setattr("fastrunner.tasks.run.containers._worker_of", lambda pid: "1-1")
        async with running(**settings) as performers:
            for name, lifetime in lifetimes.items():
                execution_id = f"with-{name}"
                text = document(process("true", name=name, lifetime=lifetime))
                await run(text, None, performers, execution_id=execution_id)
    running_labels = [f"--label={name}={value}" for name, value in podman.look("kept")["Config"]["Labels"].items()]
    podman.call(
        "run",
        "--detach",
        "--network",
        "none",
        *podman.plain,
        *running_labels,
        "--name",
        "ran",
        IMAGE,
        "/bin/sleep",
        "600",
    )
    podman.call("run", "--detach", "--network", "none", *podman.plain, "--name", "others", IMAGE, "/bin/sleep", "600")
    async with running(**settings) as performers:
        performers["run_container"].begin()  # type: ignore[attr-defined]
        await until(lambda: set(podman.names()) == {"later", "kept", "others"}, "the sweep is through")


@pytest.mark.parametrize("name", [{}, {"name": '${ "given-" + .a }'}])
async def test_an_effect_that_is_performed_again(performers: Performers, podman: Podman, name: dict[str, str]) -> None:
    """The container of before makes way: it may run still."""
    await container(performers, "true", **name)
    [before] = podman.names()
    assert not name or before == "given-q"
    first = podman.look(before)["Id"]
    execution = await container(performers, "echo again", **name)
    assert execution.output == "again\n", execution.error
    assert podman.names() == [before]
    assert podman.look(before)["Id"] != first


async def test_a_name_that_somebody_else_has(performers: Performers, podman: Podman) -> None:
    podman.call("create", *podman.plain, "--name", "taken", IMAGE, "/bin/true")
    theirs = podman.look("taken")["Id"]
    assert "name is that of another container" in await detail(performers, "true", name="taken")
    assert podman.look("taken")["Id"] == theirs
    assert podman.names() == ["taken"]


STUBBORN = "trap '' TERM; while :; do sleep 1; done"


async def test_a_timeout_removes_it(performers: Performers, podman: Podman) -> None:
    started = asyncio.create_task(until(podman.running, "it runs"))
    execution = await run(document(process(STUBBORN), timeout={"after": "PT5S"}), None, performers)
    assert execution.error is not None
    assert execution.error["status"] == 408
    await started
    await until(lambda: not podman.names(), "it is removed")


async def test_a_run_that_takes_too_long(podman: Podman, settings: dict[str, Any]) -> None:
    async with running(**settings, run_timeout_s=2) as performers:
        assert "has not ended within 2 s" in await detail(performers, STUBBORN)
        await until(lambda: not podman.names(), "it is removed")


async def test_a_cancel_in_flight_asks_it_to_end_and_removes_it(
    performers: Performers, podman: Podman, settings: dict[str, Any]
) -> None:
    folder = settings["run_volumes"]
    command = "trap 'touch /v/asked; exit 0' TERM; touch /v/up; while :; do sleep 0.1; done"
    going = asyncio.create_task(container(performers, command, volumes={str(folder): "/v"}))
    await until((folder / "up").exists, "it runs")
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    await until(lambda: not podman.names(), "it is removed")
    assert (folder / "asked").exists()


async def test_the_loser_of_a_race_is_removed(performers: Performers, podman: Podman, settings: dict[str, Any]) -> None:
    folder = settings["run_volumes"]
    volumes = {str(folder): "/v"}
    loser = process(f"touch /v/up; {STUBBORN}", volumes=volumes)
    winner = process(
        "while [ ! -e /v/up ]; do sleep 0.1; done; echo won", volumes=volumes, lifetime={"cleanup": "always"}
    )
    race = {"compete": True, "branches": [{"loses": {"run": loser}}, {"wins": {"run": winner}}]}
    assert (await run(document(None, fork=race), None, performers)).output == "won\n"
    await until(lambda: not podman.names(), "both are removed")


async def test_what_nobody_awaits(performers: Performers, podman: Podman, settings: dict[str, Any]) -> None:
    """It goes on when the task has ended, and what keeps it from running is the task's fault."""
    folder = settings["run_volumes"]
    command = "while [ ! -e /v/gate ]; do sleep 0.1; done; echo done > /v/done"
    detached = {**process(command, volumes={str(folder): "/v"}), "await": False}
    assert (await run(document(detached), {"a": 1}, performers)).output == {"a": 1}
    assert len(podman.running()) == 1
    (folder / "gate").touch()
    await until((folder / "done").exists, "it has ended")
    missing = {**process(None, image="localhost/none:1", pullPolicy="never"), "await": False}
    assert (await run(document(missing), {"a": 1}, performers)).status == "failed"
    broken = {**process(None, image=IMAGE_WITH_COMMAND, volumes={str(folder): "/bin"}), "await": False}
    assert (await run(document(broken), {"a": 1}, performers)).status == "failed"


def before_podman(podman: Podman, folder: Path, command: str) -> Path:
    """An engine that does something, then what podman does."""
    engine = folder / "engine"
    engine.write_text(f'#!/bin/sh\n{command}\nexec {podman.program} "$@"\n')
    engine.chmod(0o755)
    return engine


async def test_how_often_it_is_tried_to_remove_a_container(
    podman: Podman, settings: dict[str, Any], tmp_path: Path
) -> None:
    tried = tmp_path / "tried"
    tried.write_text("")
    for failing, left in ((limits.CONTAINER_REMOVALS_MAX - 1, 0), (limits.CONTAINER_REMOVALS_MAX, 1)):
        count = f"[ $1 = rm ] && echo >> {tried} && [ $(wc -l < {tried}) -le {failing} ] && echo busy >&2 && exit 1"
        async with running(**settings, run_engine=before_podman(podman, tmp_path, count)) as performers:
            await container(performers, "true", lifetime={"cleanup": "always"})
        assert len(podman.names()) == left
        assert tried.read_text().count("\n") == limits.CONTAINER_REMOVALS_MAX
        tried.write_text("")


async def test_how_often_a_container_is_looked_at(
    podman: Podman, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that nobody awaits, until it runs."""
    looks = tmp_path / "looks"
    engine = before_podman(podman, tmp_path, f"case $1 in inspect) echo >> {looks};; start) sleep 3;; esac")
    counts = []
    async with running(**settings, run_engine=engine) as performers:
        for interval_s in (0.05, 600.0):
            monkeypatch.setattr(limits, "CONTAINER_LOOK_INTERVAL_S", interval_s)
            looks.write_text("")
            execution = await run(document({**process("true"), "await": False}), None, performers)
            assert execution.status == "completed"
            counts.append(looks.read_text().count("\n"))
    often, seldom = counts
    assert seldom == 1 < often


# --- bounds ---


@pytest.mark.parametrize("stream", ["", ">&2"])
async def test_endless_output_ends_it(performers: Performers, podman: Podman, stream: str) -> None:
    error = (await container(performers, f"cat /dev/zero {stream}", "all")).error
    assert error is not None
    assert error["title"] == "Output Too Large"
    await until(lambda: not podman.names(), "it is removed")


async def test_memory_is_bounded(podman: Podman, settings: dict[str, Any]) -> None:
    async with running(**settings, run_memory_mib=32) as performers:
        said = await detail(performers, "head -c 400000000 /dev/zero | tail -c 300000000 >/dev/null || exit 9")
    assert "the process ended with code" in said


@pytest.mark.parametrize(
    ("info", "memory_size_bytes"),
    [
        ('{"MemoryLimit": true, "SwapLimit": true, "PidsLimit": false}', 64 << 20),
        ('{"host": {"cgroupControllers": []}}', 0),
    ],
)
async def test_engines_that_bound_less(
    podman: Podman, settings: dict[str, Any], tmp_path: Path, info: str, memory_size_bytes: int
) -> None:
    """What they say they cannot is not asked of them."""
    engine = before_podman(podman, tmp_path, f"[ $1 != info ] || exec echo '{info}'")
    async with running(**settings, run_engine=engine, run_memory_mib=64, run_processes_max=16) as performers:
        assert (await container(performers, "echo ran")).output == "ran\n"
    [name] = podman.names()
    bounds = podman.look(name)["HostConfig"]
    assert bounds["Memory"] == memory_size_bytes
    assert bounds["PidsLimit"] != 16


def command_lines() -> bytes:
    """Those of all processes."""
    lines = b""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines += file.read_bytes()
    return lines


def files_of_runs() -> list[Path]:
    """What lies in the folders of this process's runs."""
    return list(Path(tempfile.gettempdir()).glob(f"fastrunner-run-{os.getpid()}-*/*"))


async def test_no_secret_stands_on_a_command_line(
    performers: Performers, podman: Podman, settings: dict[str, Any]
) -> None:
    """Nor in a file, nor in an error: what the environment and the input hold."""
    folder = settings["run_volumes"]
    secret = f"canary-{uuid.uuid4().hex}"
    command = 'echo "$KEY" > /v/seen; while [ ! -e /v/gate ]; do sleep 0.1; done; exit 1'
    going = asyncio.create_task(
        container(performers, command, volumes={str(folder): "/v"}, environment={"KEY": secret}, stdin=secret)
    )
    await until((folder / "seen").exists, "it runs")
    lines = command_lines()
    assert podman.program.encode() in lines
    assert secret.encode() not in lines
    assert not files_of_runs()
    (folder / "gate").touch()
    assert secret not in str(await going)
    assert (folder / "seen").read_text() == secret + "\n"


async def test_processes_are_bounded(podman: Podman, settings: dict[str, Any]) -> None:
    async with running(**settings, run_processes_max=16) as performers:
        said = await detail(
            performers, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do sleep 600 & done; exit 9"
        )
    assert "can't fork" in said


async def test_values_that_no_container_can_be_given(performers: Performers, podman: Podman) -> None:
    within = "v" * (limits.CONTAINER_VARIABLE_SIZE_BYTES_MAX - 1)
    execution = await container(performers, 'echo "${#A}"', environment={"A": within})
    assert execution.output == f"{len(within)}\n"
    for environment in ({"A": within + "v"}, {"A": "two\nlines"}, {"A B": "1"}, {"#A": "1"}):
        assert "environment variable" in await detail(performers, "true", environment=environment)
    longest = "n" * limits.CONTAINER_NAME_SIZE_CHARS_MAX
    assert (await container(performers, "true", name=longest)).status == "completed"
    for name in (longest + "n", "-v", "a/b", ""):
        assert "no name of a container" in await detail(performers, "true", name=name)
    for image in ("--privileged", "oci:/etc", "docker://a/b", "a b", "../a", "/etc", ""):
        assert "no reference of an image" in await detail(performers, "true", image=image)
    for port in ({"80": "x"}, {"0": 80}, {"80": 65536}, {"0.0.0.0:80": 80}):
        assert "ports has something else" in await detail(performers, "true", ports=port)


async def test_long_names_are_cut(performers: Performers, podman: Podman) -> None:
    task = "t" * 500
    text = document(process("true")).replace('"x"', f'"{task}"')
    assert (await run(text, None, performers)).status == "completed"
    [name] = podman.names()
    assert name.endswith(f".a-{'t' * limits.CONTAINER_NAME_PART_SIZE_CHARS}")


async def test_volumes(performers: Performers, podman: Podman, settings: dict[str, Any], tmp_path: Path) -> None:
    """None but below the folder that is allowed, wherever links lead."""
    root = settings["run_volumes"]
    inner, outer = root / "inner", tmp_path / "outer"
    inner.mkdir()
    outer.mkdir()
    (root / "link").symlink_to(outer)
    written = await container(performers, "echo hi > /v/file; cat /v/file", volumes={str(inner): "/v"})
    assert written.output == "hi\n"
    refused = await container(performers, "echo no > /v/file", "code", volumes={str(inner): "/v:ro"})
    assert refused.output == 1
    assert (inner / "file").read_text() == "hi\n"
    for path in (outer, root / "link", root / ".." / "outer", tmp_path, Path("/")):
        assert "does not lie below" in await detail(performers, "true", volumes={str(path): "/v"})
    assert "does not exist" in await detail(performers, "true", volumes={str(root / "none"): "/v"})
    for outside, inside in (("named", "/v"), (str(inner), "v"), (str(inner), "/v,/w"), (f"{inner}:/etc", "/v")):
        assert "absolute path" in await detail(performers, "true", volumes={outside: inside})
    del settings["run_volumes"]
    async with running(**settings) as others:
        assert "FASTRUNNER_RUN_VOLUMES" in await detail(others, "true", volumes={str(inner): "/v"})


async def test_ports_are_on_loopback(performers: Performers, podman: Podman, settings: dict[str, Any]) -> None:
    port = free_port()
    assert "FASTRUNNER_RUN_NETWORK" in await detail(performers, "true", ports={port: 80})
    if not podman.has_network():
        pytest.skip("podman has no network here but none and the machine's")
    command = "mkdir /w; echo served > /w/index.html; httpd -f -p 80 -h /w"
    async with running(**settings, run_network=True) as open_to_network:
        going = asyncio.create_task(container(open_to_network, command, ports={port: 80}))
        served = await until_served(port)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        [name] = podman.names()
        bindings = podman.look(name)["HostConfig"]["PortBindings"]
    assert b"served" in served
    assert bindings == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}


async def until_served(port: int) -> bytes:
    deadline_s = clock.monotonic_s() + 60
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
        except OSError:
            answer = b""
        if answer:
            return answer
        assert clock.monotonic_s() < deadline_s, "nobody answers"
        await asyncio.sleep(0.05)


# --- what is missing, and what is not allowed ---


async def test_an_image_that_is_not_there(performers: Performers, podman: Podman) -> None:
    for fields in ({"command": "true"}, {"command": None, "arguments": ["a"]}):
        said = await detail(performers, image="localhost/none:1", pullPolicy="never", **fields)
        assert "localhost/none:1" in said
    assert not podman.names()


async def test_a_program_that_the_image_has_not(performers: Performers, podman: Podman) -> None:
    image = podman.without_programs()
    assert "/bin/sh" in await detail(performers, "true", image=image)
    await until(lambda: not podman.names(), "it is removed")


async def test_no_engine(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    async with running(**settings) as performers:
        assert "FASTRUNNER_RUN_ENGINE" in await detail(performers, "true")


async def test_an_engine_that_does_not_answer(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "engine"
    engine.write_text("#!/bin/sh\necho nobody there >&2\nexit 1\n")
    engine.chmod(0o755)
    async with running(**settings, run_engine=engine) as performers:
        assert "does not answer: nobody there" in await detail(performers, "true")
        monkeypatch.setattr(limits, "RUN_COMMAND_S_MAX", 0.2)
        engine.write_text("#!/bin/sh\nexec sleep 600\n")
        assert "no answer within 0.2 s" in await detail(performers, "true")


def compiled(compilation: Compilation) -> None:
    while compilation.step(1000) is None:
        pass


async def test_what_is_not_allowed_is_refused(podman: Podman, settings: dict[str, Any]) -> None:
    """When the document is validated, or, of an image that an expression makes, when it is to be run."""
    settings["run_allowed"] = "shell,container:ghcr.io/acme/*"
    for allowed in (settings, {}):
        compilation = Compilation(document(process("true")), refuse=load_config(**allowed).runs.refusal)
        with pytest.raises(InvalidWorkflow) as refused:
            compiled(compilation)
        [problem] = refused.value.problems
        assert (problem.code, problem.pointer) == ("not-allowed", "/do/0/x/run/container")
        assert "FASTRUNNER_RUN_ALLOWED" in problem.message
    async with running(**settings) as performers:
        for image in (IMAGE, "ghcr.io/acme", "docker.io/ghcr.io/acme/tool"):
            said = await detail(performers, "true", image=f'${{ "{image}" }}')
            assert "FASTRUNNER_RUN_ALLOWED" in said
    assert not podman.names()
