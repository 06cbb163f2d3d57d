"""What the `fastrunner` command shows people: other people's words as they are, one line each, and what to do next."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrunner.base.printable import escaped_json, printable
from tests.integration import commands
from tests.integration.runner_process import ROOT, RunnerProcess, running, until
from tests.integration.test_cli import GREETING, LONG

COMMAND = (sys.executable, "-m", "fastrunner")
WORDS = "first\nsecond [/red] \x1b[2J\x9b and so on and so on and so on and so on and so on and so on"
FAILING = f"""\
document: {{dsl: 1.0.3, namespace: bold, name: failing, version: 1.0.0}}
do:
- "[/x]": {{raise: {{error: {{type: 'https://e/x', status: 400, title: {json.dumps(WORDS)}}}}}}}
"""
LISTING = """\
document: {dsl: 1.0.3, namespace: test, name: listing, version: 1.0.0}
do:
- all: {set: {a: 1}, output: {as: '${ [true, false] }'}}
"""
LONG_ID = "an-id-of-many-letters-" * 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("documents")
    for name, text in (("failing", FAILING), ("listing", LISTING), ("long", LONG), ("greeting", GREETING)):
        (path / f"{name}.yaml").write_text(text)
    return path


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[RunnerProcess]:
    """A tree with four executions: one failed, two completed, one that waits."""
    with running(tmp_path_factory.mktemp("shown") / "data", ["-m", "fastrunner", "serve"]) as started:
        started.wait_ready()
        until(started.ready)
        for name, execution_id, code, *flags in (
            ("failing", "[/x]", 1, "--follow"),
            ("listing", "[red]", 0, "--follow"),
            ("listing", LONG_ID, 0, "--follow"),
            ("long", "waits", 0),
        ):
            file = str(folder / f"{name}.yaml")
            assert fastrunner(started, "submit", file, "--id", str(execution_id), *flags).returncode == code
        yield started


def fastrunner(runner: RunnerProcess, *arguments: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """The command, told of the runner by the environment."""
    return commands.fastrunner(*arguments, text=text, environment={**os.environ, "FASTRUNNER_TARGET": runner.target})


def on_terminal(runner: RunnerProcess, columns: int, *arguments: str, code: int = 0) -> list[str]:
    """What the command leaves on a terminal of so many columns, as lines without colours."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "FASTRUNNER_TARGET": runner.target, "NO_COLOR": "1"}
    environment.pop("COLUMNS", None)
    with subprocess.Popen(
        [*COMMAND, *arguments], cwd=ROOT, env=environment, stdout=its, stderr=its, stdin=its
    ) as process:
        os.close(its)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            shown += part
            if not part:
                break
    os.close(ours)
    assert process.returncode == code
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()


def test_escapes_are_those_of_python_and_of_json() -> None:
    assert printable("a\n\x1b[31m\u202eé 👍 \ud800") == r"a\n\x1b[31m\u202eé 👍 \ud800"
    text = json.dumps("\x1b\x9b\u2028é 👍", ensure_ascii=False)
    assert escaped_json(text).isprintable()
    assert json.loads(escaped_json(text)) == "\x1b\x9b\u2028é 👍"


def test_ids_and_outputs_are_no_markup(runner: RunnerProcess) -> None:
    """`[true,false]` is an output, `[/x]` an id, and an error text is on one line."""
    got = fastrunner(runner, "get", "[red]").stdout
    assert "[true,false]" in got
    assert "[red]" in got
    listed = fastrunner(runner, "list")
    assert (listed.returncode, listed.stderr) == (0, "")
    lines = listed.stdout.splitlines()
    assert len(lines) == 5
    [failed] = [line for line in lines if line.startswith("[/x]")]
    assert "bold/failing:1.0.0" in failed
    assert failed.endswith("first")
    events = fastrunner(runner, "events", "[/x]").stdout
    assert r"first\nsecond [/red] \x1b[2J\x9b and so on" in events
    assert "/do/0/[~1x]" in events
    assert [line for line in fastrunner(runner, "get", "[/x]").stdout.splitlines() if r"second [/red] \x1b[2J" in line]


def test_a_list_has_a_line_for_each_and_cuts_no_id(runner: RunnerProcess) -> None:
    """Through a pipe everything is whole; on a terminal only the last column ends at the edge."""
    [header, *lines] = fastrunner(runner, "list").stdout.splitlines()
    assert header.split() == ["id", "workflow", "status", "age", "took", "events", "what"]
    assert [line for line in lines if line.startswith(LONG_ID + " ")]
    [waiting] = [line for line in lines if line.startswith("waits ")]
    assert "s ago" in waiting
    assert "+  " in waiting
    assert "task_started /do/0/rest " in waiting
    shown = on_terminal(runner, 80, "list", "--failed", "--columns", "id,what", "--name", "failing")
    assert shown[1].split() == ["[/x]", "first"]
    shown = on_terminal(runner, 30, "list", "--status", "running", "--columns", "id,what")
    assert shown[1].startswith("waits  task_started")
    assert shown[1].endswith("…")
    assert len(shown[1]) == 30


def test_a_list_is_filtered_and_has_chosen_columns(runner: RunnerProcess) -> None:
    only = fastrunner(runner, "list", "--failed", "--columns", "id,status,acknowledged").stdout.splitlines()
    assert [line.split() for line in only] == [["id", "status", "acknowledged"], ["[/x]", "failed", only[1].split()[2]]]
    assert len(fastrunner(runner, "list", "--since", "1h").stdout.splitlines()) == 5
    assert len(fastrunner(runner, "list", "--since", "2100-01-01").stdout.splitlines()) == 1
    for flags in (("--since", "yesterday"), ("--columns", "id,colour")):
        refused = fastrunner(runner, "list", *flags)
        assert refused.returncode == 2
        assert flags[1].rpartition(",")[2] in refused.stderr


def test_get_says_how_long_and_at_what(runner: RunnerProcess) -> None:
    got = dict(line.split(maxsplit=1) for line in fastrunner(runner, "get", "waits").stdout.splitlines())
    events = json.loads(fastrunner(runner, "get", "waits", "--json").stdout)["lastSequenceNumber"]
    assert got["events"] == f"{events} (0 acknowledged, {events} given up: no receiver took them, or there was none)"
    assert got["took"].endswith("+")
    assert got["at"].startswith("task_started /do/0/rest ")
    assert got["accepted"].endswith(" ago)")


def test_events_from_a_number_keep_the_clock(runner: RunnerProcess) -> None:
    """Seconds count from the execution's first event, whichever is shown first; the output comes last."""
    *whole, output = fastrunner(runner, "events", "[red]").stdout.splitlines()
    assert output == "[true,false]"
    later = [line for line in whole if int(line.split()[0]) >= 6]
    assert len(later) == 1
    assert fastrunner(runner, "events", "[red]", "--from", "6").stdout.splitlines() == [*later, output]
    assert fastrunner(runner, "events", "[red]", "--from", "6", "--follow").stdout.splitlines() == [*later, output]


def test_commands_say_what_happened_and_what_to_type(runner: RunnerProcess, folder: Path) -> None:
    """Hints have the target that was given."""
    given = ("--target", runner.target)
    submitted = fastrunner(runner, "submit", "-", "--id", "of me", *given, text=LONG)
    assert submitted.stdout == "of me\n"
    assert submitted.stderr == f"to watch it: fastrunner events 'of me' --follow --target {runner.target}\n"
    for command, status in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert fastrunner(runner, command, "of me").stderr == f"of me: {status}\n"


def test_input_comes_from_stdin_and_documents_are_text(folder: Path, tmp_path: Path) -> None:
    def run(*arguments: str, text: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [*COMMAND, *arguments], cwd=ROOT, input=text, capture_output=True, timeout=60, check=False
        )

    greeting = str(folder / "greeting.yaml")
    done = run("run", "--quiet", greeting, "--input", "@-", text=b'{"name": "Ada"}')
    assert json.loads(done.stdout) == {"text": "Hello Ada"}
    twice = run("run", "--quiet", "-", "--input", "@-", text=GREETING.encode())
    assert (twice.returncode, b"stdin holds the document" in twice.stderr) == (2, True)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(GREETING.encode() + "# é".encode("latin-1"))
    refused = run("submit", str(latin), "--target", "127.0.0.1:1")
    assert (refused.returncode, b"is not UTF-8" in refused.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_ended_run_leaves_no_folder(folder: Path, tmp_path: Path, number: int) -> None:
    child = subprocess.Popen(
        [*COMMAND, "run", "--json", str(folder / "long.yaml")],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if json.loads(line)["eventType"] == "task_started":
            break
    assert list(tmp_path.iterdir())
    child.send_signal(number)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 3, said
    assert list(tmp_path.iterdir()) == []
