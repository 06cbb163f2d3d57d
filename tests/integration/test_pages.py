"""The commands of the documentation's pages, executed as they stand; a table says who executes which, or why nobody.

`test_newcomer.py` executes README.md, the tutorial and a load test, `test_clients.py` the clients; here are the others.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastrunner.base.clock import monotonic_s
from fastrunner.cli import main as fastrunner
from tests.crash.test_tree_kill import free_port
from tests.integration.runner_process import ROOT, until
from tests.integration.temporal_server import TemporalServer
from tests.integration.test_newcomer import BLOCK, SERVING, Terminals, commands, serve
from tests.integration.test_newcomer import terminals as terminals
from tests.unit.test_docs import blocks, called
from tests.unit.test_links import PAGES

pytestmark = pytest.mark.timeout(400)
ELSEWHERE = {
    "README.md": "test_newcomer.py, but for `make`, which CI calls",
    "docs/tutorial.md": "test_newcomer.py",
    "docs/performance.md": "test_newcomer.py",
    "docs/clients.md": "test_clients.py; `make languages` has Java, Go and TypeScript",
}
"""Pages whose commands other tests execute."""
HERE = {
    "docs/quickstart.md": "test_the_quickstart",
    "docs/testing.md": "test_scenarios",
    "docs/schedules.md": "test_pages_on_one_runner",
    "docs/tasks.md": "test_pages_on_one_runner",
    "docs/operations.md": "test_pages_on_one_runner",
    "docs/callbacks.md": "test_pages_on_one_runner; its receiver is test_clients.py's",
    "docs/stigmer.md": "test_a_stigmer_service; several with MongoDB and Redis are test_stigmer_shared.py's",
    "docs/temporal.md": "test_replicas_on_temporal; its server is the tests' own, the package is there",
}
"""Pages whose commands this file executes."""
NOT_EXECUTED = {
    "docs/deployment.md": "containers, a cluster: `make image-check` runs the image, test_deploy.py validates others",
}
"""Pages whose commands are parsed only (`tests/unit/test_docs.py`), and why."""


def test_every_page_with_commands_is_in_the_table() -> None:
    shown = {str(page.relative_to(ROOT)) for page in PAGES if blocks(page, "sh")}
    named = [*ELSEWHERE, *HERE, *NOT_EXECUTED]
    assert shown <= set(named)
    assert len(named) == len(set(named))


def text_of(page: str) -> str:
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def block(page: str, part: str) -> str:
    """The commands of a page among which is one like this."""
    [found] = [text for text in blocks(ROOT / "docs" / page, "sh") if part in text]
    return found


def files_of(page: str, terminals: Terminals) -> None:
    """Writes the documents of a page whose first line is a comment with their name."""
    for text in blocks(ROOT / "docs" / page, "yaml"):
        if named := re.match(r"# ([\w.]+)\n", text):
            (terminals.folder / named[1]).write_text(terminals.here(text))


def execute(terminals: Terminals, text: str) -> dict[str, str]:
    """The commands of a block in their order; what each has printed. Plain ones of ours get no process of their own."""
    printed = {}
    for command in commands(text):
        if SERVING.search(command):
            serve(terminals, command)
        else:
            is_plain = command.startswith("fastrunner ")
            printed[command] = call(terminals, command) if is_plain else terminals.run(command)
    return printed


def call(terminals: Terminals, command: str) -> str:
    """Runs a command of ours in this process, whose folder is the terminals'; gives what it writes to stdout."""
    [arguments] = called(terminals.here(command))
    done = CliRunner().invoke(fastrunner, arguments, env=terminals.environment)
    assert done.exit_code == 0, (command, done.output, done.exception)
    return done.stdout


@pytest.fixture(autouse=True)
def in_the_folder(terminals: Terminals, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a newcomer would be, with a runner of one worker."""
    monkeypatch.chdir(terminals.folder)
    terminals.environment["FASTRUNNER_WORKERS"] = "1"


def test_the_quickstart(terminals: Terminals) -> None:
    """From an empty folder through a kill to a decision; the output is the one that the page shows."""
    output = ""
    for name, language, text in BLOCK.findall(text_of("quickstart.md")):
        if name:
            (terminals.folder / name).write_text(terminals.here(text))
        elif language == "json":
            assert json.loads(output.splitlines()[-1]) == json.loads(text)
        else:
            for command, printed in execute(terminals, text).items():
                output = printed
                if command == "fastrunner list":
                    assert len(re.findall(r"^order-1[78] ", printed, re.MULTILINE)) == 2


def test_scenarios(terminals: Terminals) -> None:
    shutil.copytree(ROOT / "examples", terminals.folder / "examples")
    for text in blocks(ROOT / "docs" / "testing.md", "sh"):
        assert all("passed" in printed for printed in execute(terminals, text).values())
    assert "<testsuite" in (terminals.folder / "report.xml").read_text()


def test_pages_on_one_runner(terminals: Terminals, tmp_path: Path) -> None:
    """Being called back, schedules, an approval, many at once, backup and restore."""
    terminals.places |= {"https://reports.example.com": "http://127.0.0.1:1", "/backups": str(tmp_path / "backups")}
    files_of("schedules.md", terminals)
    document = (terminals.folder / "nightly.yaml").read_text()
    (terminals.folder / "report.yaml").write_text(document.replace("name: nightly", "name: report"))
    [approval] = [text for text in blocks(ROOT / "docs" / "tasks.md", "yaml") if "name: approval" in text]
    (terminals.folder / "approval.yaml").write_text(approval)
    execute(terminals, block("callbacks.md", "fastrunner receiver"))
    call(terminals, "fastrunner workflow register report.yaml")

    listed = execute(terminals, block("schedules.md", "schedule add"))["fastrunner schedule list"]
    assert "nightly" in listed
    assert "PT15M" in listed

    execute(terminals, block("tasks.md", "shop.order.decided"))
    received = terminals.folder / "received.jsonl"
    until(lambda: re.search(r'"order-17".*"workflow_completed".*shipped', received.read_text()), timeout_s=60)

    order = approval.replace("name: approval", "name: order")
    (terminals.folder / "order.yaml").write_text(order)
    call(terminals, """fastrunner submit order.yaml --id order-18 --label tenant=acme --input '{"id": 18}'""")
    execute(terminals, block("operations.md", "pause --where"))
    (tmp_path / "backups").mkdir()
    kept, checked, restored = commands(block("operations.md", "data backup /backups"))
    call(terminals, kept)
    call(terminals, checked)
    terminals.environment["FASTRUNNER_DATA_DIR"] = str(tmp_path / "restored")
    call(terminals, restored)
    assert call(terminals, "fastrunner data export").count('"order-1') >= 2


def test_a_stigmer_service(terminals: Terminals) -> None:
    """A workflow is created and executed, and its events follow to the last one, by curl."""
    printed = execute(terminals, block("stigmer.md", "events/stream"))
    [followed] = [text for command, text in printed.items() if "events/stream" in command]
    assert "workflow_completed" in followed


def test_replicas_on_temporal(terminals: Terminals, tmp_path: Path) -> None:
    """A replica, its keys and its blobs, what Temporal's command shows of what is sealed, and a named build."""
    server = TemporalServer()
    server.start()
    try:
        keys = tmp_path / "keys"
        keys.mkdir()
        terminals.ports |= {"8233": free_port(), "8234": free_port()}
        terminals.places |= {"localhost:7233": server.address, "/etc/fastrunner": str(keys)}
        _, _, begin = commands(block("temporal.md", "pip install"))
        serve(terminals, begin)
        terminals.environment |= {
            "TEMPORAL_SERVICE_ADDRESS": server.address, "TEMPORAL_ADDRESS": server.address,
            "FASTRUNNER_BLOB_URL": (tmp_path / "blobs").as_uri(),
        }  # fmt: skip
        terminals.stop("serve")
        execute(terminals, block("temporal.md", "data key"))
        shutil.copy(ROOT / "examples" / "routing.yaml", terminals.folder / "order.yaml")
        submit = """fastrunner submit order.yaml --id order-1 --follow --input '{"topic": "api", "severity": 3}'"""
        assert '"engineering"' in call(terminals, submit)

        show_by_codec, show = commands(block("temporal.md", "codec-server"))
        terminals.environment["FASTRUNNER_TEMPORAL_KEY_FILE"] = str(keys / "temporal.keys")
        terminals.start("codec-server", f"{show_by_codec} --port {terminals.ports['8234']}")
        shown = shown_at_last(terminals, show)
        assert '"team":"engineering"' in shown
        for sweep in commands(block("temporal.md", "temporal sweep")):
            # It ends its process, so in one of its own.
            terminals.run(sweep)

        named, current = commands(block("temporal.md", "set-current-version"))
        serve(terminals, named)
        shown_at_last(terminals, f"{current} --yes")
    finally:
        for kind in list(terminals.serving):
            terminals.stop(kind)
        server.stop()


def shown_at_last(terminals: Terminals, command: str) -> str:
    """What a command says once what it asks is there."""
    deadline_s = monotonic_s() + 60
    while True:
        try:
            return terminals.run(command)
        except AssertionError:
            if monotonic_s() > deadline_s:
                raise
