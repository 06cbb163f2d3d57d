"""`fastrunner cancel|pause|resume --where`: counted first, done at a rate, for those that are meant and no others."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.commands import fastrunner
from tests.integration.runner_process import SERVE, RunnerProcess, running, until

WAIT = "document: {{dsl: 1.0.3, namespace: n, name: {name}, version: 1.0.0}}\ndo:\n- pause: {{wait: {{hours: 1}}}}\n"


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunnerProcess]:
    with running(tmp_path_factory.mktemp("runner") / "data", SERVE) as runner:
        runner.wait_ready()
        until(runner.ready, 60)
        yield runner
        assert runner.stop()[0] == 0


def submit(runner: RunnerProcess, folder: Path, execution_id: str, name: str, tenant: str) -> None:
    file = folder / f"{name}.yaml"
    file.write_text(WAIT.format(name=name))
    flags = ("--target", runner.target, "--id", execution_id, "--label", f"tenant={tenant}")
    done = fastrunner("submit", str(file), *flags)
    assert done.returncode == 0, done.stderr


def statuses(runner: RunnerProcess, name: str) -> Counter[tuple[str, str]]:
    """How many there are by tenant and status."""
    done = fastrunner("list", "--name", name, "--target", runner.target, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return Counter((row["labels"]["tenant"], row["status"]) for row in rows)


def test_those_that_are_meant_and_no_others(runner: RunnerProcess, tmp_path: Path) -> None:
    for number in range(6):
        submit(runner, tmp_path, f"many-{number}", "many", "ab"[number % 2])
    submit(runner, tmp_path, "other", "other", "a")
    where = ("--where", "name=many", "--where", "label=tenant=a", "--target", runner.target)

    def told(command: str, *more: str) -> str:
        done = fastrunner(command, *where, *more)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert told("pause").startswith("3 executions would be paused: ")
    assert statuses(runner, "many") == {("a", "running"): 3, ("b", "running"): 3}
    assert "3 executions paused, 0 had ended or were not to be, 0 refused" in told(
        "pause", "--yes", "--reason", "night"
    )
    assert statuses(runner, "many") == {("a", "paused"): 3, ("b", "running"): 3}
    # Those that are paused are not meant once more.
    assert told("pause", "--yes") == "no execution is meant\n"
    assert "3 executions resumed" in told("resume", "--yes", "--rate", "1000")
    assert "3 executions cancelled" in told("cancel", "--yes", "--where", "since=1h")
    until(lambda: statuses(runner, "many") == {("a", "cancelled"): 3, ("b", "running"): 3})
    assert statuses(runner, "other") == {("a", "running"): 1}
    # Asked for by their status they are there, and are none that is refused.
    assert "0 executions paused, 3 had ended or were not to be, 0 refused" in told(
        "pause", "--yes", "--where", "status=cancelled"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "give the id of an execution, or --where"),
        (("x", "--where", "name=a"), "give the id of an execution, or --where"),
        (("x", "--yes"), "--yes belongs to --where"),
        (("--where", "color=red"), "expected KEY=VALUE with one of status, name, namespace, label"),
        (("--where", "name"), "expected KEY=VALUE"),
        (("--where", "name="), "expected KEY=VALUE"),
        (("--where", "status=ended"), "'ended' is no status: pending, running"),
        (("--where", "label=tenant"), "expected label=NAME=VALUE"),
        (("--where", "since=tomorrow"), "is neither a time ago"),
        (("--where", "until=-5m"), "is neither a time ago"),
        (("--where", "name=a", "--where", "name=b"), "two conditions for name, which has one value"),
        (("--where", "label=a=b", "--where", "label=a=c"), "two conditions for label=a, which has one value"),
        (("--where", "since=1h", "--where", "since=2h"), "two conditions for since, which has one value"),
        (("--where", "name=a", "--rate", "nan"), "'nan' is not in the range 0.1<=x<=10000"),
        (("--where", "name=a", "--deadline-s", "nan"), "'nan' is not in the range 0<x<=31536000"),
        (("--where", "name=\udcff"), "is not UTF-8 text"),
        (("--where", "name=a", "--rate", "0"), "'--rate'"),
    ],
)
def test_what_is_not_meant_is_refused(runner: RunnerProcess, arguments: tuple[str, ...], sentence: str) -> None:
    done = fastrunner("cancel", *arguments, "--target", runner.target)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in " ".join(done.stderr.split())
