"""The console in a real browser, before a real service and a real runner: what it shows, does, and how it goes on."""

import contextlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from fastrunner._pb.ai.stigmer.workflow.runner.v1.messages_pb2 import ReportProgressBatchRequest
from fastrunner.access.callers import line_of
from fastrunner.stigmer.reports import SERVICE
from tests.integration.runner_process import ROOT, SERVE, running
from tests.integration.stigmer import TOKEN, ServiceProcess, event, service_process
from tests.mongodb import MongoServer
from tests.outside import require_tool
from tests.ports import free_port
from tests.redis import redis_server

WAIT_MS = 30_000
AGAIN_MS = 90_000
"""For what is to be there again."""
LOST_MS = 3_000
"""After this nothing comes of a key or a click any more."""
WRONG = """\
document: {dsl: '1.0.3', namespace: tests, name: greet, version: 1.0.0}
do:
  - hello:
      sett: {text: hello}
  - rest:
      wait: {milliseconds: 300}
"""
STEPS = """\
document: {dsl: '1.0.3', namespace: tests, name: steps, version: 1.0.0}
do:
  - each:
      for: {in: '${ [range(40)] }'}
      do:
        - rest:
            wait: {milliseconds: 80}
"""
PICTURED = """\
document: {dsl: '1.0.3', namespace: tests, name: pictured, version: 1.0.0}
do:
  - each:
      for: {in: '${ [range(3)] }'}
      do:
        - rest:
            wait: {milliseconds: 80}
        - count:
            set: {a: 1}
  - odd:
      switch: [{yes: {when: .b, then: never}}, {no: {then: both}}]
  - never:
      set: {c: 1}
  - both:
      fork:
        branches:
          - left: {set: {l: 1}}
          - right: {raise: {error: {type: https://example.com/odd, status: 400, title: Odd}}}
"""
LONG = """\
document: {dsl: '1.0.3', namespace: tests, name: long, version: 1.0.0}
do:
  - nap:
      wait: {hours: 1}
  - after:
      set: {a: 1}
"""
LISTENS = """\
document: {dsl: '1.0.3', namespace: tests, name: listens, version: 1.0.0}
do:
  - hear:
      listen: {to: {one: {with: {type: tests.heard}}}}
"""


@dataclass
class Place:
    """A service before a runner."""

    service: ServiceProcess

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.service.http_port}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("console")
    grpc_port = free_port()
    address = f"127.0.0.1:{grpc_port}"
    with (
        service_process(folder / "service", address) as service,
        running(
            folder / "runner",
            SERVE,
            GRPC_PORT=str(grpc_port),
            FASTRUNNER_WORKERS="1",
            STIGMER_SERVICE_ENDPOINT=f"127.0.0.1:{service.grpc_port}",
            STIGMER_SERVICE_USE_TLS="false",
            STIGMER_SERVICE_API_KEY=TOKEN,
        ) as runner,
    ):
        runner.wait_ready()
        yield Place(service)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = require_tool("chromium")
    with sync_playwright() as playwright:
        # As root, as in containers, there is no sandbox; what is shown is our own.
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser, place: Place) -> Iterator[Page]:
    with opened(browser, place.address) as shown:
        yield shown


@contextlib.contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """A page; nothing that it runs may go wrong, and nothing may be asked of others."""
    # Nothing moves: colours that are between two are neither.
    context = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=address, reduced_motion="reduce")
    context.set_default_timeout(WAIT_MS)
    expect.set_options(timeout=WAIT_MS)
    shown = context.new_page()
    faults: list[str] = []
    asked: set[str] = set()

    def hear(message: ConsoleMessage) -> None:
        # The browser itself tells of answers that refuse, and of services that are away.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            faults.append(message.text)

    shown.on("console", hear)
    shown.on("pageerror", lambda error: faults.append(str(error)))
    shown.on("request", lambda request: asked.add("/".join(request.url.split("/")[:3])))
    yield shown
    context.close()
    assert faults == []
    assert asked <= {address}


def check_accessible(page: Page) -> None:
    """What axe finds wrong, as lines."""
    violations = Axe().run(page).response["violations"]
    found = [f"{each['id']}: {node['html'][:160]}" for each in violations for node in each["nodes"]]
    assert found == []


def event_numbers(page: Page) -> list[int]:
    """The numbers of the events in sight."""
    return [int(text) for text in page.locator(".event-number").all_inner_texts()]


def create(page: Page, document: str) -> None:
    page.goto("/workflows/new")
    page.get_by_label("Document, YAML or JSON").fill(document)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("region", name="Document")).to_be_visible()


def start(page: Page, execution_id: str, input_json: str = "") -> None:
    """From a workflow's page."""
    page.get_by_role("button", name="Start…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Input (JSON)").fill(input_json)
    dialog.get_by_label("Id", exact=True).fill(execution_id)
    button = dialog.get_by_role("button", name="Start", exact=True)
    surely(lambda: button.click(timeout=LOST_MS), page.get_by_role("heading", name=execution_id))


def surely(act: Callable[[], None], shows: Locator) -> None:
    """Acts again where nothing comes of it: a browser on a busy machine loses a key or a click now and then, as it does
    to people."""
    for _ in range(5):
        with contextlib.suppress(PlaywrightTimeout):
            act()
        with contextlib.suppress(AssertionError):
            expect(shows).to_be_visible(timeout=LOST_MS)
            return
    expect(shows).to_be_visible()


def press(page: Page, key: str) -> Locator:
    """Presses a key that opens a dialog, and gives that."""
    dialog = page.get_by_role("dialog")
    surely(lambda: page.keyboard.press(key), dialog)
    return dialog


def expect_closed(dialog: Locator) -> None:
    """The event of what was told may come before the answer; until that one, keys go into the dialog."""
    expect(dialog).to_have_count(0)


def status(page: Page) -> Locator:
    return page.locator(".execution-head .state")


def test_a_workflow_from_its_document_to_its_end(place: Place, page: Page) -> None:
    page.goto("/")
    expect(page.get_by_text("Nothing has been started yet.")).to_be_visible()
    check_accessible(page)
    page.goto("/workflows/new")
    page.get_by_label("Document, YAML or JSON").fill(WRONG)
    page.get_by_role("button", name="Create").click()
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("did you mean 'set'?")
    expect(problem.get_by_role("button")).to_have_text("3:5")
    check_accessible(page)
    page.get_by_label("Document, YAML or JSON").fill(WRONG.replace("sett", "set"))
    page.get_by_role("button", name="Create").click()
    expect(page).to_have_url(f"{place.address}/workflows/tests/greet?version=1.0.0")
    check_accessible(page)

    dialog = press(page, "s")
    dialog.get_by_label("Input (JSON)").fill('{"a": 1,}')
    expect(dialog.get_by_role("button", name="Start", exact=True)).to_be_disabled()
    dialog.get_by_label("Input (JSON)").fill('{"a": 1}')
    dialog.get_by_label("Labels").fill("tenant=acme")
    dialog.get_by_label("Id", exact=True).fill("greet-1")
    dialog.get_by_text("The same from a terminal").click()
    expect(dialog.locator("pre")).to_contain_text('"input":{"a": 1}')
    check_accessible(page)
    dialog.get_by_role("button", name="Start", exact=True).click()

    expect(page).to_have_url(f"{place.address}/x/greet-1")
    expect(status(page)).to_have_text("completed")
    expect(page.locator(".connection")).to_have_text("all 8 events")
    assert event_numbers(page) == list(range(1, 9))
    # A click on a task shows its last event, and the other way round.
    page.locator(".lines .line", has_text="hello:").click()
    expect(page).to_have_url(f"{place.address}/x/greet-1@5?task=%2Fdo%2F0%2Fhello")
    expect(page.locator(".value .json")).to_contain_text('"hello"')
    page.locator("#event-6").click()
    expect(page.locator(".lines .chosen").first).to_contain_text("rest:")
    check_accessible(page)

    page.goto("/x/greet-1@5")
    expect(page.get_by_role("region", name="Event 5")).to_be_visible()
    page.goto("/?status=completed")
    expect(page.get_by_role("row").filter(has_text="greet-1")).to_contain_text("tenant=acme")
    expect(page.get_by_role("button", name="completed 1")).to_have_attribute("aria-pressed", "true")
    page.emulate_media(color_scheme="dark")
    check_accessible(page)
    for pane, shows in (("diagram", ".diagram"), ("timeline", ".timeline")):
        page.goto(f"/x/greet-1@5?pane={pane}")
        expect(page.locator(shows).first).to_contain_text("hello")
        check_accessible(page)


def test_paused_resumed_and_cancelled_from_the_page(place: Place, page: Page) -> None:
    create(page, LONG)
    start(page, "long-1")
    expect(page.locator(".why")).to_have_text(re.compile(r"^Waits until .* \(in .*\) in task 'nap'\.$"))
    expect(page.locator(".lines .lit")).to_contain_text("nap:")
    steps = {"Pause": "paused", "Resume": "running", "Cancel execution": "cancelled"}
    for name, after in steps.items():
        dialog = press(page, name[0].lower())
        dialog.get_by_label("Reason").fill(f"{after} by a test")
        if after == "paused":
            check_accessible(page)
        dialog.get_by_role("button", name=name).click()
        expect_closed(dialog)
        expect(status(page)).to_have_text(after)
        if after == "paused":
            expect(page.locator(".why")).to_contain_text("paused by a test")
    expect(page.locator(".event-message").last).to_contain_text("cancelled by a test")
    expect(page.get_by_role("button", name="Pause…")).to_have_count(0)


def test_an_event_from_the_page_reaches_who_listens(place: Place, page: Page) -> None:
    create(page, LISTENS)
    start(page, "listens-1")
    expect(page.locator(".why")).to_have_text("Listens for events of type 'tests.heard' in task 'hear'.")
    page.get_by_role("button", name="Send event…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Type")).to_have_value("tests.heard")
    dialog.get_by_label("Data (JSON)").fill('{"text": ')
    dialog.get_by_label("Subject").press("Enter")
    expect(dialog.get_by_label("Data (JSON)")).to_have_attribute("aria-invalid", "true")
    dialog.get_by_label("Data (JSON)").fill('{"text": "psst ***"}')
    check_accessible(page)
    dialog.get_by_role("button", name="Send", exact=True).click()
    expect(status(page)).to_have_text("completed")
    expect(page.locator(".value .json")).to_contain_text('"psst ***" hidden')


def test_the_diagram_answers_to_clicks_and_keys(place: Place, page: Page) -> None:
    create(page, PICTURED)
    start(page, "pictured-1")
    expect(status(page)).to_have_text("failed")
    page.get_by_role("button", name="Diagram").click()

    def task(name: str) -> Locator:
        return page.locator(f'.diagram [role="treeitem"][data-reference$="/{name}"]')

    expect(task("count")).to_have_accessible_name("count done ×3 set")
    expect(task("right")).to_have_accessible_name(re.compile("right failed raise odd 400 .*Odd"))
    expect(task("never")).to_have_accessible_name("never set not begun")
    task("count").click()
    expect(page).to_have_url(re.compile(r"/x/pictured-1@\d+\?.*task=%2Fdo%2F0%2Feach%2Fdo%2F1%2Fcount"))
    expect(task("count")).to_have_attribute("aria-selected", "true")
    task("each").focus()
    page.keyboard.press("ArrowLeft")
    expect(task("each")).to_have_attribute("aria-expanded", "false")
    expect(task("count")).to_have_count(0)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(task("rest")).to_be_focused()
    page.keyboard.press("Enter")
    expect(task("rest")).to_have_attribute("aria-selected", "true")
    picture = page.locator(".diagram > svg > g")
    before = picture.get_attribute("transform") or ""
    page.keyboard.press("+")
    expect(picture).not_to_have_attribute("transform", before)
    check_accessible(page)


def test_the_timeline_answers_to_clicks_and_keys(place: Place, page: Page) -> None:
    create(page, PICTURED.replace("name: pictured", "name: timed"))
    start(page, "timed-1")
    expect(status(page)).to_have_text("failed")
    page.get_by_role("button", name="Timeline").click()
    row = page.locator('.timeline [role="treeitem"]')
    expect(row).to_have_count(7)
    expect(row.nth(1)).to_contain_text("rest ×3")
    axis = page.locator(".timeline-axis")
    whole = axis.text_content() or ""
    row.nth(1).focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"/x/timed-1@5\b"))
    expect(page.locator(".timeline-told")).to_contain_text("iteration 0")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".timeline-told")).to_contain_text("iteration 1")
    plot = page.locator(".timeline-plot")
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 60, steps=4)
    page.mouse.up()
    expect(axis).not_to_have_text(whole)
    expect(page).to_have_url(re.compile(r"[?&]range=[\d.]+-[\d.]+"))
    part = axis.text_content() or ""
    page.reload()
    expect(axis).to_have_text(part)
    page.get_by_role("button", name="fit").click()
    expect(axis).to_have_text(whole)
    expect(page).not_to_have_url(re.compile("range="))
    check_accessible(page)


def test_the_list_is_live_and_answers_to_keys(place: Place, page: Page) -> None:
    create(page, STEPS.replace("name: steps", "name: live").replace("range(40)", "range(2)"))
    page.goto("/?name=live")
    expect(page.get_by_text("Nothing is like this.")).to_be_visible()
    for number in range(3):
        body = {"id": f"live-{number}", "workflow": {"namespace": "tests", "name": "live"}}
        reply = page.request.post("/api/v1/executions", data=body, headers={"X-Requested-By": "tests"})
        assert reply.status == 201
    # Nobody asks for the page again: rows and counts come by themselves.
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.get_by_role("button", name="completed 3")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator('tr[aria-selected="true"]')).to_have_attribute("data-id", "live-1")
    page.keyboard.press("o")
    expect(page).to_have_url(f"{place.address}/x/live-1")
    page.go_back()
    expect(page).to_have_url(f"{place.address}/?name=live")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox").fill("go to workflows")
    check_accessible(page)
    page.get_by_role("combobox").press("Enter")
    expect(page.get_by_role("heading", name="Workflows")).to_be_visible()
    check_accessible(page)


def test_no_gap_and_no_double_over_deaths_of_all_that_there_is(browser: Browser, tmp_path: Path) -> None:
    """Runner, service, Redis and store: each is there again after a while, Redis with nothing of what it had."""
    grpc_port = free_port()
    runner_address = f"127.0.0.1:{grpc_port}"
    with contextlib.ExitStack() as stack:
        store = MongoServer(tmp_path / "store").start()
        stack.callback(store.kill)
        redis = stack.enter_context(redis_server())
        urls = {
            "FASTRUNNER_STIGMER_MONGODB_URL": f"{store.url}/console",
            "FASTRUNNER_STIGMER_REDIS_URL": redis.url,
            "FASTRUNNER_STIGMER_LOG_LEVEL": "error",
        }
        service = stack.enter_context(service_process(tmp_path / "unused", runner_address, **urls))
        reports_to = {
            "GRPC_PORT": str(grpc_port),
            "FASTRUNNER_WORKERS": "1",
            "STIGMER_SERVICE_ENDPOINT": f"127.0.0.1:{service.grpc_port}",
            "STIGMER_SERVICE_USE_TLS": "false",
            "STIGMER_SERVICE_API_KEY": TOKEN,
        }
        runner = stack.enter_context(running(tmp_path / "runner", SERVE, **reports_to)).wait_ready()
        page = stack.enter_context(opened(browser, f"http://127.0.0.1:{service.http_port}"))
        page.set_viewport_size({"width": 1280, "height": 6000})
        create(page, STEPS.replace("range(40)", "range(60)"))
        start(page, "steps-1")
        expect(page.locator("#event-10")).to_be_attached(timeout=AGAIN_MS)
        runner.process.kill()
        runner.end()
        runner = stack.enter_context(running(tmp_path / "runner", SERVE, **reports_to)).wait_ready()
        expect(page.locator("#event-30")).to_be_attached(timeout=AGAIN_MS)
        redis.kill()
        redis.start()
        expect(page.locator("#event-45")).to_be_attached(timeout=AGAIN_MS)
        store.kill()
        store.start()
        expect(page.locator("#event-60")).to_be_attached(timeout=AGAIN_MS)
        # Last, because the runner goes on without it.
        service.kill()
        ports = {"grpc_port": service.grpc_port, "http_port": service.http_port}
        stack.enter_context(service_process(tmp_path / "unused", runner_address, **urls, **ports))
        expect(status(page)).to_have_text("completed", timeout=AGAIN_MS)
        expect(page.locator(".connection")).to_have_text("all 126 events")
        assert event_numbers(page) == list(range(1, 127))
        reply = page.request.get("/api/v1/executions/steps-1/events?count=500")
        assert [each["sequence_number"] for each in reply.json()["events"]] == list(range(1, 127))


def test_a_runner_by_itself_shows_all_of_it_also_over_its_death(browser: Browser, tmp_path: Path) -> None:
    """Its counts, its documents, what an execution waits for; its schedules; and its successor goes on where it was."""
    with contextlib.ExitStack() as stack:
        ports = {"FASTRUNNER_HTTP_PORT": str(free_port()), "FASTRUNNER_WORKERS": "1"}
        runner = stack.enter_context(running(tmp_path, SERVE, **ports)).wait_ready()
        page = stack.enter_context(opened(browser, f"http://127.0.0.1:{ports['FASTRUNNER_HTTP_PORT']}"))
        create(page, LONG)
        scheduled(page)
        page.goto("/workflows/tests/long")
        start(page, "long-1")
        expect(page.locator(".why")).to_have_text(re.compile(r"^Waits until .* \(in .*\) in task 'nap'\.$"))
        expect(page.locator(".lines .lit")).to_contain_text("nap:")
        runner.process.kill()
        runner.end()
        expect(page.locator(".connection")).to_contain_text("reconnecting")
        stack.enter_context(running(tmp_path, SERVE, **ports)).wait_ready()
        expect(page.locator(".connection")).to_have_text("live", timeout=AGAIN_MS)
        press(page, "c").get_by_role("button", name="Cancel execution").click()
        expect(status(page)).to_have_text("cancelled")
        expect(page.locator(".connection")).to_have_text("all 5 events")
        assert event_numbers(page) == list(range(1, 6))
        page.goto("/?version=1.0.0")
        expect(page.get_by_role("button", name="cancelled 1")).to_be_visible()
        expect(page.get_by_role("button", name="running 1")).to_be_visible()
        expect(page.locator("tbody tr")).to_have_count(2)


def scheduled(page: Page) -> None:
    """Added, paused, resumed, fired and deleted, from the page of schedules."""
    page.goto("/schedules")
    expect(page.get_by_text("Nothing is started by itself yet.")).to_be_visible()
    check_accessible(page)
    dialog = press(page, "a")
    dialog.get_by_label("Every").fill("P1D")
    dialog.get_by_label("While one is going on").select_option("skip")
    dialog.get_by_label("Id").fill("daily")
    dialog.get_by_text("The same from a terminal").click()
    expect(dialog.locator("pre")).to_contain_text('"trigger":{"every":"P1D"}')
    check_accessible(page)
    dialog.get_by_role("button", name="Add", exact=True).click()
    expect_closed(dialog)
    row = page.get_by_role("row").filter(has_text="daily")
    expect(row).to_contain_text("every 1 d")
    expect(row).to_contain_text("One at a time")
    page.keyboard.press("j")
    expect(row).to_have_attribute("aria-selected", "true")
    for key, button, shows in (("p", "Pause", "Paused: rest"), ("r", "Resume", "active")):
        press(page, key)
        if key == "p":
            dialog.get_by_label("Reason").fill("rest")
        dialog.get_by_role("button", name=button, exact=True).click()
        expect_closed(dialog)
        expect(row).to_contain_text(shows)
    press(page, "f")
    dialog.get_by_role("button", name="Fire now").click()
    expect(page.get_by_role("heading", name=re.compile("^daily~fire-"))).to_be_visible()
    expect(page.locator(".lines .lit")).to_contain_text("nap:")
    page.goto("/schedules")
    expect(row).to_contain_text("every 1 d")
    page.keyboard.press("j")
    expect(row).to_have_attribute("aria-selected", "true")
    check_accessible(page)
    press(page, "d")
    dialog.get_by_role("button", name="Delete schedule").click()
    expect(row).to_have_count(0)


def test_callers_sign_in_and_see_what_they_may(browser: Browser, tmp_path: Path) -> None:
    callers = tmp_path / "callers"
    callers.write_text(line_of("eye", "read", "", "token-eye") + "\n")
    flags = ("--callers-file", str(callers))
    with contextlib.ExitStack() as stack:
        service = stack.enter_context(service_process(tmp_path / "service", "127.0.0.1:1", *flags))
        page = stack.enter_context(opened(browser, f"http://127.0.0.1:{service.http_port}"))
        page.goto("/workflows")
        page.get_by_label("Token").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        check_accessible(page)
        page.get_by_label("Token").fill("token-eye")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("heading", name="Workflows")).to_be_visible()
        # Only readers: what they may not do is not offered.
        expect(page.get_by_role("link", name="Create…")).to_have_count(0)
        assert page.evaluate("document.cookie") == ""
        page.reload()
        expect(page.get_by_role("heading", name="Workflows")).to_be_visible()
        page.keyboard.press("Control+k")
        page.get_by_role("combobox").fill("sign out")
        page.get_by_role("combobox").press("Enter")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_the_files_are_those_of_the_sources(tmp_path: Path) -> None:
    """What is shipped is what the sources give, to the byte; and the logic's own tests pass."""
    npm = require_tool("npm")
    shutil.copytree(ROOT / "console", tmp_path / "console", ignore=shutil.ignore_patterns("node_modules"))
    for command in (["ci", "--prefer-offline"], ["test"], ["run", "build"]):
        done = subprocess.run([npm, *command], cwd=tmp_path / "console", capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    built, kept = (contents(root / "src/fastrunner/web/console") for root in (tmp_path, ROOT))
    assert sorted(built) == sorted(kept), "make console"
    assert built == kept, "make console"


def test_a_page_asks_for_each_thing_once_and_together_with_its_files(place: Place, page: Page) -> None:
    create(page, LONG)
    start(page, "asked-1")
    expect(page.locator(".why")).to_contain_text("in task 'nap'")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.removeprefix(place.address)))
    page.goto("/x/asked-1")
    expect(status(page)).to_have_text("running")
    expect(page.locator(".document-pane")).to_be_visible()
    expect(page.locator(".why")).to_contain_text("in task 'nap'")
    first = [f"/api/v1{path}" for path in ("/info", "/executions/asked-1/document")]
    assert [asked.count(path) for path in first] == [1, 1]
    started = page.evaluate(
        "() => Object.fromEntries(performance.getEntriesByType('resource').map((each) => [new URL(each.name).pathname, "
        "each.startTime]))"
    )
    [script] = [path for path in started if path.endswith(".js")]
    ended = page.evaluate("(path) => performance.getEntriesByName(location.origin + path)[0].responseEnd", script)
    assert all(started[path] <= ended for path in first), "the page is not run yet"


HTML = "<img src=x onerror=alert(1)>\"'`${1}</script>"
DEEP = "[" * 200 + "]" * 200
HOSTILE = (
    {"event_type": "workflow_started", "message": HTML, "workflow_name": HTML},
    {"task_name": HTML, "task_reference": f"/do/0/{HTML}"},
    {
        "event_type": "task_completed",
        "task_name": HTML,
        "task_reference": f"/do/0/{HTML}",
        "output_json": json.dumps({"__proto__": {"a": HTML}, "constructor": 1, HTML: HTML, "": None}),
    },
    {"task_name": "toString", "task_reference": "__proto__"},
    {"event_type": "task_completed", "task_name": "toString", "task_reference": "__proto__", "output_json": DEEP},
    {"event_type": "constructor", "task_name": "x", "task_reference": "constructor"},
    {"event_type": "task_retry", "task_reference": "/do/1/a", "message": f"is retried in {'9' * 400} h after x"},
    {"event_type": "task_completed", "task_reference": "/do/2/bad", "output_json": "{no JSON"},
    {"task_name": "deep", "task_reference": "/do/3/x", "iteration": [2**31 - 1, 0, 5]},
    {
        "event_type": "task_failed",
        "task_name": "deep",
        "task_reference": "/do/3/x",
        "iteration": [2**31 - 1, 0, 5],
        "error": {"message": HTML, "code": HTML, "type": "javascript:alert(1)"},
    },
    # Nanoseconds, and times before there were any.
    {"task_name": "late", "task_reference": "/do/4/late", "timestamp_ms": 1_796_004_150_730_000_000},
    {"task_name": "n" * 5000, "task_reference": "/do/5/" + "n" * 5000, "timestamp_ms": -5},
    {"event_type": "workflow_paused", "message": HTML},
)
"""Events that senders may send."""


def report(place: Place, execution_id: str, events: Sequence[Mapping[str, Any]]) -> None:
    """As a runner does."""
    sent = [event(execution_id, number, **fields) for number, fields in enumerate(events, 1)]
    with grpc.insecure_channel(f"127.0.0.1:{place.service.grpc_port}") as channel:
        call = channel.unary_unary(f"/{SERVICE}/ReportProgressBatch", None, None)
        request = ReportProgressBatchRequest(events=sent).SerializeToString()
        call(request, metadata=(("authorization", f"Bearer {TOKEN}"),), timeout=30)


def test_what_senders_say_is_text_whatever_it_is(place: Place, page: Page) -> None:
    """It is shown, runs nothing and breaks nothing, in every pane and at every event."""
    said: list[str] = []
    page.on("dialog", lambda dialog: said.append(dialog.message))
    report(place, HTML, HOSTILE)
    at = f"/x/{quote(HTML, safe='')}"
    for pane in ("diagram", "timeline", "events", "value", "none", "__proto__"):
        page.goto(f"{at}?pane={pane}&range=0-1e309&task=__proto__")
        expect(page.get_by_role("heading", name=HTML)).to_be_visible()
        expect(page.locator(".connection")).to_have_text("live")
    for number in (*range(len(HOSTILE) + 2), 10**14):
        page.goto(f"{at}@{number}")
        expect(page.locator(".connection")).to_have_text("live")
        for key in ("3", "j", "k", "2", "1"):
            page.keyboard.press(key)
        expect(page.locator(".why")).to_contain_text(HTML)
    page.goto(f"{at}@3")
    expect(page.locator(".value .json")).to_contain_text(HTML)
    page.goto("/")
    expect(page.get_by_role("link", name=HTML).first).to_be_visible()
    assert said == []


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
