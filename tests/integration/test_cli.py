"""The `fastrunner` command as people and scripts use it: real processes, exit codes, what goes to which stream."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import fastrunner
from tests.integration.runner_process import ROOT, RunnerProcess, running, until

GREETING = """\
document: {dsl: 1.0.3, namespace: test, name: greeting, version: 1.0.0}
do:
- greet: {set: {text: '${ "Hello " + .name }'}}
"""
REFUSAL = """\
document: {dsl: 1.0.3, namespace: test, name: refusal, version: 1.0.0}
do:
- refuse: {raise: {error: {type: https://example.com/no, status: 400, title: No}}}
"""
LONG = """\
document: {dsl: 1.0.3, namespace: test, name: long, version: 1.0.0}
do:
- rest: {wait: {hours: 1}}
"""
BROKEN = """\
document: {dsl: 1.0.3, namespace: test, name: broken, version: 1.0.0}
do:
- first: {set: {a: 1}, then: nowhere}
- second: {unknown: true}
"""
DOUBTFUL = """\
document: {dsl: 1.0.3, namespace: test, name: doubtful, version: 1.0.0}
do:
- first:
    set:
      name: .name
      "\u4e2d\u6587": [a, "Hello ${ .name }"]
"""
UNQUOTED = """\
document: {dsl: 1.0.3, namespace: test, name: unquoted, version: 1.0.0}
do:
- first: {set: {amount: ${ .amount }}}
"""


def test_a_document_that_is_run_hears_what_it_emits(tmp_path: Path) -> None:
    (tmp_path / "talk.yaml").write_text(
        "document: {dsl: 1.0.3, namespace: n, name: talk, version: 1.0.0}\ndo:\n- both:\n    fork:\n      branches:\n"
        "      - hear: {listen: {to: {one: {with: {type: a.b}}}}}\n"
        "      - say: {emit: {event: {with: {type: a.b, data: {n: 1}}}}}\n"
        "- kept: {set: {heard: '${ .[0] }'}}\n"
    )
    done = fastrunner("run", str(tmp_path / "talk.yaml"), "--quiet")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"heard": [{"n": 1}]}), done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("greeting", GREETING), ("refusal", REFUSAL), ("long", LONG), ("broken", BROKEN)):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "doubtful.yaml").write_text(DOUBTFUL, encoding="utf-8")
    (tmp_path / "unquoted.yaml").write_text(UNQUOTED)
    return tmp_path


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("cli") / "data", ["-m", "fastrunner", "serve"]) as started:
        started.wait_ready()
        until(started.ready)
        yield started


def test_help_names_every_command() -> None:
    done = fastrunner("--help")
    assert done.returncode == 0
    commands = (
        "serve run dev validate graph submit get list events status cancel pause resume delete receiver protos data "
        "bench"
    )
    for command in commands.split():
        assert f"\n  {command} " in done.stdout
    assert "FASTRUNNER_DATA_DIR" in fastrunner("serve", "--help").stdout


def test_validate_prints_every_problem_with_its_place(folder: Path) -> None:
    done = fastrunner("validate", str(folder / "greeting.yaml"), str(folder / "broken.yaml"))
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "broken.yaml:" in line]
    assert any(":3:" in line and "nowhere" in line for line in lines)
    assert any(":4:" in line for line in lines)
    assert not any("greeting.yaml:" in line for line in done.stderr.splitlines())


def test_validate_as_json(folder: Path) -> None:
    done = fastrunner("validate", "--json", str(folder / "broken.yaml"))
    assert done.returncode == 1
    problems = [json.loads(line) for line in done.stdout.splitlines()]
    assert {problem["line"] for problem in problems} == {3, 4}
    assert all(problem["code"] and problem["pointer"].startswith("/do/") for problem in problems)
    assert fastrunner("validate", str(folder / "greeting.yaml")).returncode == 0


def test_problems_come_with_their_line_and_a_caret(folder: Path) -> None:
    done = fastrunner("validate", str(folder / "unquoted.yaml"))
    assert done.returncode == 1
    place, line, caret, _ = done.stderr.splitlines()
    assert place.startswith(f"{folder / 'unquoted.yaml'}:3:25: syntax-error: ")
    assert "quote `${ ... }`" in place
    assert line == "    - first: {set: {amount: ${ .amount }}}"
    assert line[caret.index("^")] == "$"


def test_a_line_moves_no_terminal_and_is_cut(tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text("a: '\x1b[2J" + "x" * 500 + "': b\n", encoding="utf-8")
    done = fastrunner("validate", str(file))
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert all(len(line) <= 104 for line in done.stderr.splitlines() if line.startswith("    "))


def test_warnings_are_shown_and_refuse_only_if_asked(folder: Path) -> None:
    file = folder / "doubtful.yaml"
    done = fastrunner("validate", str(file))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "1 valid")
    lines = done.stderr.splitlines()
    assert f"{file}:5:13: warning: text-like-expression: " in lines[0]
    assert lines[1:3] == ["          name: .name", " " * 16 + "^"]
    # A character that is two cells wide counts as two.
    assert lines[5] == " " * 22 + "^"
    strict = fastrunner("validate", "--strict", str(file))
    assert (strict.returncode, strict.stderr.splitlines()[-1]) == (1, "1 of 1 documents have problems")
    rows = [json.loads(row) for row in fastrunner("validate", "--json", str(file)).stdout.splitlines()]
    assert [(row["severity"], row["code"], row["line"]) for row in rows] == [
        ("warning", "text-like-expression", 5),
        ("warning", "text-around-expression", 6),
    ]


def test_run_warns_and_is_strict_if_asked(folder: Path) -> None:
    file = str(folder / "doubtful.yaml")
    done = fastrunner("run", file)
    assert done.returncode == 0
    assert json.loads(done.stdout)["name"] == ".name"
    assert "warning: text-like-expression" in done.stderr
    assert fastrunner("run", "--quiet", file).stderr == ""
    rows = [json.loads(row) for row in fastrunner("run", "--json", file).stderr.splitlines()]
    assert rows[0]["severity"] == "warning"
    refused = fastrunner("run", "--strict", file)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "warning: text-like-expression" in refused.stderr


def test_submit_warns_and_is_strict_if_asked(runner: RunnerProcess, folder: Path) -> None:
    flags = ("--target", runner.target)
    file = str(folder / "doubtful.yaml")
    for _ in range(2):
        # The second time the runner knows the execution.
        done = fastrunner("submit", file, "--id", "doubtful", *flags)
        assert done.stdout == "doubtful\n"
        assert f"{file}:5:13: text-like-expression: " in done.stderr
    refused = fastrunner("submit", "--strict", file, "--id", "strict", *flags)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "warning: text-like-expression" in refused.stderr
    assert fastrunner("get", "strict", *flags).returncode != 0
    assert fastrunner("submit", "--strict", str(folder / "greeting.yaml"), *flags).returncode == 0


def test_run_gives_the_output_and_shows_progress_elsewhere(folder: Path) -> None:
    done = fastrunner("run", str(folder / "greeting.yaml"), "--input", '{"name": "Ada"}')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"text": "Hello Ada"}
    assert [line.split()[2:4] for line in done.stderr.splitlines()] == [
        ["started", "greeting"],
        ["completed", "/do/0/greet"],
        ["completed", "greeting"],
    ]


def test_run_reads_the_document_and_the_input_from_elsewhere(folder: Path) -> None:
    (folder / "input.json").write_text('{"name": "Grace"}')
    done = fastrunner("run", "-", "--quiet", "--input", f"@{folder / 'input.json'}", text=GREETING)
    assert json.loads(done.stdout) == {"text": "Hello Grace"}
    assert done.stderr == ""


def test_run_exits_by_outcome(folder: Path) -> None:
    failed = fastrunner("run", "--quiet", str(folder / "refusal.yaml"))
    assert failed.returncode == 1
    assert json.loads(failed.stdout) == {
        "type": "https://example.com/no",
        "status": 400,
        "title": "No",
        "instance": "/do/0/refuse",
    }
    invalid = fastrunner("run", str(folder / "broken.yaml"))
    assert invalid.returncode == 2
    assert "broken.yaml:3:" in invalid.stderr
    assert invalid.stdout == ""
    bad_input = fastrunner("run", str(folder / "greeting.yaml"), "--input", "{name: Ada}")
    assert bad_input.returncode == 2
    assert "not JSON" in bad_input.stderr


def test_interrupted_run_cancels(folder: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "fastrunner", "run", "--json", str(folder / "long.yaml")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if json.loads(line)["eventType"] == "task_started":
            break
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 3, err
    assert json.loads(err.splitlines()[-1])["eventType"] == "workflow_cancelled"


def test_submit_follow_and_look_back(runner: RunnerProcess, folder: Path) -> None:
    target = ("--target", runner.target)
    done = fastrunner(
        "submit", str(folder / "greeting.yaml"), "--id", "cli-1", "--input", '{"name": "Ada"}', "--follow", *target
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"text": "Hello Ada"}
    assert "  completed    greeting" in done.stderr
    got = json.loads(fastrunner("get", "cli-1", "--json", *target).stdout)
    assert got["status"] == "completed"
    assert json.loads(got["outputJson"]) == {"text": "Hello Ada"}
    events = [json.loads(line) for line in fastrunner("events", "cli-1", "--json", *target).stdout.splitlines()]
    assert [int(event["sequenceNumber"]) for event in events] == list(range(1, len(events) + 1))
    assert "greeting" in fastrunner("list", *target).stdout
    assert fastrunner("submit", str(folder / "refusal.yaml"), "--follow", *target).returncode == 1


def test_control_commands(runner: RunnerProcess, folder: Path) -> None:
    target = ("--target", runner.target)
    submitted = fastrunner("submit", str(folder / "long.yaml"), *target)
    execution_id = submitted.stdout.strip()
    assert execution_id
    for command, status in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert fastrunner(command, execution_id, "--reason", "test", *target).returncode == 0
        assert json.loads(fastrunner("get", execution_id, "--json", *target).stdout)["status"] == status
    refused = fastrunner("pause", execution_id, *target)
    assert refused.returncode == 4
    assert "FAILED_PRECONDITION" in refused.stderr


def test_refusals_are_sentences(runner: RunnerProcess, folder: Path) -> None:
    broken = fastrunner("submit", str(folder / "broken.yaml"), "--target", runner.target)
    assert broken.returncode == 4
    assert "INVALID_ARGUMENT" in broken.stderr
    assert broken.stderr.count("workflow_yaml") >= 2
    unknown = fastrunner("get", "never-seen", "--target", runner.target)
    assert unknown.returncode == 4
    assert "NOT_FOUND" in unknown.stderr
    nobody = fastrunner("list", "--target", "127.0.0.1:1")
    assert nobody.returncode == 4
    assert "is the runner up there?" in nobody.stderr


def test_serve_refuses_bad_settings_with_a_line() -> None:
    done = fastrunner("serve", "--grpc-port", "many")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr == "fastrunner: --grpc-port=many: expected a valid integer\n"
    prod = fastrunner("serve", "--env", "prod", "--grpc-port", "0")
    assert prod.returncode == 2
    assert prod.stderr.count("\n") == 1
    assert "STIGMER_SERVICE_ENDPOINT" in prod.stderr


def test_protos_gives_out_the_published_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "protos"
    done = fastrunner("protos", str(folder))
    assert done.returncode == 0
    written = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.proto")}
    published = ROOT / "protos"
    assert written == {path.relative_to(published): path.read_bytes() for path in published.rglob("*.proto")}
    assert done.stdout.splitlines() == sorted(str(folder / name) for name in written)


def test_protos_overwrites_nothing_unasked(tmp_path: Path) -> None:
    assert fastrunner("protos", str(tmp_path)).returncode == 0
    assert fastrunner("protos", str(tmp_path)).returncode == 0, "the same files may be there"
    mine, *others = sorted(tmp_path.rglob("*.proto"))
    mine.write_text("mine")
    others[0].unlink()
    refused = fastrunner("protos", str(tmp_path))
    assert refused.returncode == 2
    assert f"{mine} is there and differs" in refused.stderr
    assert "--force" in refused.stderr
    assert (mine.read_text(), others[0].exists()) == ("mine", False)
    assert fastrunner("protos", "--force", str(tmp_path)).returncode == 0
    assert mine.read_text() != "mine"
    (tmp_path / "file").write_text("")
    assert fastrunner("protos", str(tmp_path / "file" / "below")).returncode == 2
