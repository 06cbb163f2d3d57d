"""The commands of the documentation's pages, executed as they stand.

`test_newcomer.py` executes README.md, the tutorial and a load test, `test_clients.py` the clients, `test_deployment.py`
what is for a cluster; here are the others. `tests/unit/test_docs_claimed.py` has the table of who executes which.
"""

import json
import re
import shutil
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastrunner.base.clock import monotonic_s
from fastrunner.cli import main as fastrunner
from tests.integration.otlp import collecting
from tests.integration.runner_process import ROOT, until
from tests.integration.temporal_server import TemporalServer
from tests.integration.test_newcomer import BLOCK, SERVING, Terminals, commands, serve
from tests.integration.test_newcomer import terminals as terminals
from tests.outside import require_tool
from tests.ports import free_port
from tests.unit.test_docs import blocks, called

pytestmark = pytest.mark.timeout(400)


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

    execute(terminals, block("cloudevents.md", "fastrunner send-event"))
    [program] = blocks(ROOT / "docs" / "cloudevents.md", "python")
    (terminals.folder / "send.py").write_text(terminals.here(program))
    terminals.run("python send.py")
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


def test_calls_of_the_api(terminals: Terminals) -> None:
    """By grpcurl, in the order of the page; a registered workflow; an answer is the one that the page shows."""
    require_tool("grpcurl")
    serve(terminals, "fastrunner serve")
    (terminals.folder / "order.yaml").write_text(
        "document: {dsl: 1.0.3, namespace: shop, name: order, version: 1.2.0}\ndo:\n- pay: {set: {paid: true}}\n"
    )
    page = ROOT / "docs" / "api.md"
    printed: dict[str, str] = {}
    for text in blocks(page, "sh"):
        # What is over cannot be cancelled: the one to be cancelled is another one that waits.
        if "CancelExecution" in text:
            (terminals.folder / "wait.yaml").write_text(
                "document: {dsl: 1.0.3, namespace: shop, name: w, version: 1.0.0}\ndo:\n- rest: {wait: {days: 1}}\n"
            )
            call(terminals, "fastrunner submit wait.yaml --id test-124")
            text = text.replace("test-123", "test-124")
        for command, output in execute(terminals, text).items():
            printed[re.sub(r"\\\n\s*", "", command)] = output
    [shown] = blocks(page, "json")
    [submitted] = [output for command, output in printed.items() if "/ExecuteAsync" in command]
    assert json.loads(submitted) == json.loads(shown)
    [events] = [output for command, output in printed.items() if "/Subscribe" in command]
    assert "workflow_completed" in events
    [verdict] = [output for command, output in printed.items() if "/ValidateWorkflow" in command]
    assert '"pointer"' in verdict
    [followed] = [output for command, output in printed.items() if "submit --workflow" in command]
    assert json.loads(followed) == {"paid": True}


def test_a_copy_elsewhere(terminals: Terminals, tmp_path: Path) -> None:
    """A folder stands for the bucket: written beside a runner, restored when that is gone."""
    copy = tmp_path / "copy"
    terminals.places |= {"s3://bucket/prefix": copy.as_uri(), "DIRECTORY": str(tmp_path / "restored")}
    shown = commands(block("operations.md", "FASTRUNNER_REPLICA_URL"))
    exported, doctor, served, restore, check = (each.split(" #")[0].strip() for each in shown)
    name, _, url = exported.removeprefix("export ").partition("=")
    terminals.environment[name] = terminals.here(url)
    assert "copy elsewhere" in terminals.run(doctor)
    serve(terminals, served)
    (terminals.folder / "kept.yaml").write_text(
        "document: {dsl: 1.0.3, namespace: shop, name: kept, version: 1.0.0}\ndo:\n- a: {set: {kept: true}}\n"
    )
    call(terminals, "fastrunner submit kept.yaml --id kept-1 --follow")
    until(lambda: list(copy.rglob("begun")))
    terminals.stop("serve")
    del terminals.environment[name]
    call(terminals, restore)
    call(terminals, check)
    assert "kept-1" in call(terminals, f"fastrunner data export --data-dir {tmp_path / 'restored'}")


def test_sealed_data_and_traces(terminals: Terminals, tmp_path: Path) -> None:
    """A key is made and used; a runner with the extra traces to where a collector would be."""
    (tmp_path / "keys").mkdir()
    terminals.places |= {"/etc/fastrunner": str(tmp_path / "keys")}
    made, served = commands(block("security.md", "data key"))
    call(terminals, made.split("#")[0].strip())
    assert (tmp_path / "keys" / "data-keys").stat().st_mode & 0o777 == 0o600
    serve(terminals, served)
    terminals.stop("serve")
    terminals.environment["FASTRUNNER_DATA_DIR"] = str(tmp_path / "traced")
    with collecting() as collector:
        terminals.places |= {"http://localhost:4317": collector.endpoint}
        _, served = commands(block("tracing.md", "pip install"))
        serve(terminals, served)
        (terminals.folder / "t.yaml").write_text(
            "document: {dsl: 1.0.3, namespace: shop, name: t, version: 1.0.0}\ndo:\n- a: {set: {n: 1}}\n"
        )
        call(terminals, "fastrunner submit t.yaml --id traced-1 --follow")
        terminals.stop("serve")
        assert set(collector.of("traced-1")) == {"execute", "accept"}


def answers(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def test_an_example_by_hand(terminals: Terminals) -> None:
    """The service and the order of examples/README.md, then the one that needs a secret."""
    shutil.copytree(ROOT / "examples", terminals.folder / "examples")
    terminals.ports["7070"] = free_port()
    first, second = blocks(ROOT / "examples" / "README.md", "sh")
    service, run = commands(first)
    terminals.start("orders", service)
    until(lambda: answers(terminals.ports["7070"]))
    assert json.loads(terminals.run(run).splitlines()[-1])["orderId"] == "o-1"
    [secret] = commands(second)
    payout = run.replace("order.yaml", "payout.yaml")
    assert terminals.run(f"{secret}\n{payout}")


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
