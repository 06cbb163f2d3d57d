"""Support: the console in Chromium before a runner by itself: how soon a page shows something, and what all look like.

    python -m benchmarks.console --rounds 9 --pictures /tmp/pictures

Times are from the beginning of a navigation, in milliseconds, as the page itself sees them: `paint` is the browser's
first contentful paint, `head` when the execution's state stands in a painted page, `pane` and `event` the same of what
the pane shows and of the first events, `all` when the last of its 20,000 events is there. They are of one machine with
everything on it, so beside them stand those of a page of the same server that is one word (`empty`), and of a short
execution (`small`), in turns with the others; `head_per_empty` and `head_per_small` are what to compare.
Pictures are of every view, light and dark, for desks and for phones.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import APIRequestContext, Browser, Page, sync_playwright

from tests.integration.runner_process import SERVE, running, until
from tests.outside import require_tool

ORDER = """\
document: {dsl: '1.0.3', namespace: shop, name: order, version: 1.2.0, title: Takes an order from payment to parcel}
do:
  - check:
      set: {order: '${ .id }', total: '${ [.lines[] | .price * .amount] | add }'}
  - reserve:
      for: {each: line, in: '${ [range(3)] }'}
      do:
        - take: {wait: {milliseconds: 120}}
        - note: {set: {taken: '${ $index }'}}
  - route:
      switch:
        - dear: {when: .total > 1000, then: approve}
        - cheap: {then: pay}
  - approve:
      listen: {to: {one: {with: {type: shop.approved}}}}
  - pay:
      try:
        - charge: {raise: {error: {type: https://example.com/declined, status: 402, title: The card was declined}}}
      catch:
        retry: {delay: {milliseconds: 300}, backoff: {constant: {}}, limit: {attempt: {count: 3}}}
        do:
          - fallback: {set: {paid: later}}
  - both:
      fork:
        branches:
          - pack:
              do:
                - box: {wait: {milliseconds: 200}}
                - seal: {set: {sealed: true}}
          - invoice: {set: {invoice: R-1}}
  - deliver: {wait: {hours: 1}}
"""
BIG = """\
document: {dsl: '1.0.3', namespace: shop, name: big, version: 1.0.0}
do:
  - each:
      for: {in: '${ [range(10000)] }'}
      do:
        - count: {set: {at: '${ $index }'}}
"""
STOCK = """\
document: {dsl: '1.0.3', namespace: shop, name: stock, version: 2.0.1}
do:
  - look: {set: {a: 1}}
  - fail: {raise: {error: {type: https://example.com/empty, status: 409, title: There is no A-7 in stock}}}
"""
SCHEDULES: tuple[dict[str, Any], ...] = (
    {
        "id": "nightly",
        "trigger": {"cron": "30 2 * * mon-fri"},
        "options": {"timezone": "Europe/Berlin", "misfire": "skip"},
    },
    {"id": "poll-suppliers", "trigger": {"every": "PT1M"}, "options": {"overlap": "skip"}},
    {"id": "clean-up", "trigger": {"after": "PT1H"}, "options": {"overlap": "queue"}},
)
VIEWS = {
    "list": "/",
    "list-failed": "/?status=failed",
    "list-empty": "/?name=none",
    "workflows": "/workflows",
    "workflow": "/workflows/shop/order",
    "workflow-new": "/workflows/new",
    "schedules": "/schedules",
    "document": "/x/order-1",
    "event": "/x/order-1@12",
    "diagram": "/x/order-1?pane=diagram",
    "timeline": "/x/order-1?pane=timeline",
    "events": "/x/order-1?pane=events",
    "value": "/x/order-1@12?pane=value",
    "failed": "/x/stock-1",
    "big": "/x/big?pane=timeline",
}
DIALOGS = {
    "start": ("/", "s"),
    "commands": ("/", "Control+k"),
    "keyboard": ("/", "?"),
    "schedule-add": ("/schedules", "a"),
}
SIZES = {"desk": (1280, 800), "phone": (390, 844)}
SETTLE_MS = 1_000
REST_MS = 300
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
LOOK = """
    window.seen_ms = {};
    const places = {head: ".execution-head .state", pane: ".main-pane .pane", event: ".event"};
    for (const [name, place] of Object.entries(places)) {
      const look = () => requestAnimationFrame(() => {
        // A frame that has it is painted before the timer comes.
        if (document.querySelector(place)) setTimeout(() => { window.seen_ms[name] = performance.now(); });
        else look();
      });
      look();
    }
"""
"""Notes when something is painted, in the page, so that nobody has to ask."""


class _Api:
    """The API that the console calls."""

    def __init__(self, requests: APIRequestContext, base: str) -> None:
        self._requests = requests
        self._base = f"{base}/api/v1"

    def post(self, path: str, body: Any) -> None:
        reply = self._requests.post(self._base + path, data=body, headers={"X-Requested-By": "benchmarks"})
        assert reply.ok, reply.text()

    def has_ended(self, execution_id: str) -> bool:
        found = self._requests.get(f"{self._base}/executions/{execution_id}").json()
        return bool(found["ended_ms"])


def fill(api: _Api) -> None:
    """Something of everything, and one execution of 20,000 events."""
    for document in (ORDER, BIG, STOCK):
        api.post("/workflows", {"document": document})
    lines = [{"price": 12.5, "amount": 2}, {"price": 99, "amount": 1}]
    for number in range(9):
        order = {"workflow": {"namespace": "shop", "name": "order"}, "input": {"id": f"A-{number}", "lines": lines}}
        api.post(
            "/executions", {**order, "id": f"order-{number}", "labels": {"tenant": ("acme", "globex")[number % 2]}}
        )
        stock = {"workflow": {"namespace": "shop", "name": "stock"}, "id": f"stock-{number}"}
        api.post("/executions", stock)
    for schedule in SCHEDULES:
        api.post("/schedules", {"workflow": {"namespace": "shop", "name": "stock"}, **schedule})
    api.post("/schedules/clean-up/pause", {"reason": "stock-taking until Monday"})
    api.post("/executions/order-3/pause", {"reason": "waits for the customer"})
    api.post("/executions/order-4/cancel", {"reason": "changed their mind"})
    api.post("/executions", {"workflow": {"namespace": "shop", "name": "big"}, "id": "big"})
    until(lambda: api.has_ended("big"), timeout_s=120)


@contextmanager
def filled() -> Iterator[tuple[Browser, str]]:
    """A browser, and the address of a runner that has something to show."""
    with (
        tempfile.TemporaryDirectory(prefix="console-bench-") as folder,
        running(Path(folder), SERVE, FASTRUNNER_WORKERS="1") as runner,
        sync_playwright() as playwright,
    ):
        runner.wait_ready()
        base = f"http://127.0.0.1:{runner.ports['http_port']}"
        requests = playwright.request.new_context()
        fill(_Api(requests, base))
        browser = playwright.chromium.launch(
            executable_path=require_tool("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser, base
        browser.close()


def first_paint(page: Page, address: str) -> dict[str, float]:
    """Of one navigation; files are in the browser's cache, as on any but the first visit."""
    page.goto("about:blank")
    # What the page before has left is not to be measured.
    page.wait_for_timeout(REST_MS)
    page.goto(address, wait_until="commit")
    page.locator(".connection", has_text="all ").wait_for()
    whole: float = page.evaluate("() => performance.now()")
    seen: dict[str, float] = page.evaluate("() => window.seen_ms")
    return {"paint": page.evaluate(PAINTED), **seen, "all": whole}


def empty_paint(page: Page, base: str) -> float:
    """When a page of the same server is there that has next to nothing."""
    page.goto("about:blank")
    page.wait_for_timeout(REST_MS)
    page.goto(f"{base}/healthz")
    page.wait_for_timeout(REST_MS)
    painted: float = page.evaluate(PAINTED)
    return painted


def measured(browser: Browser, base: str, rounds: int) -> dict[str, dict[str, float]]:
    """Medians by what is shown. The first round fills the browser's cache, and does not count."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.add_init_script(LOOK)
    shown = {"document": "/x/big?pane=document", "timeline": "/x/big?pane=timeline", "small": "/x/stock-1"}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in (*shown, "empty")}
    for _ in range(rounds + 1):
        times["empty"].append({"paint": empty_paint(page, base)})
        for name, path in shown.items():
            times[name].append(first_paint(page, base + path))
    page.close()
    found: dict[str, dict[str, float]] = {}
    for name, each in times.items():
        found[name] = {what: round(median(one[what] for one in each[1:])) for what in each[1]}
    for name in ("document", "timeline"):
        found[name]["head_per_empty"] = round(found[name]["head"] / found["empty"]["paint"], 1)
        found[name]["head_per_small"] = round(found[name]["head"] / found["small"]["head"], 2)
    return found


def take_pictures(browser: Browser, base: str, folder: Path) -> int:
    """How many there are."""
    count = 0
    for size, (width, height) in SIZES.items():
        for colours in ("light", "dark"):
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if colours == "dark" else "light",
                reduced_motion="reduce",
                base_url=base,
            )
            page = context.new_page()
            for name, address in VIEWS.items():
                page.goto(address)
                page.wait_for_timeout(SETTLE_MS)
                page.screenshot(path=folder / f"{name}-{size}-{colours}.png")
                count += 1
            for name, (address, key) in DIALOGS.items():
                page.goto(address)
                page.wait_for_timeout(SETTLE_MS)
                page.keyboard.press(key)
                page.wait_for_timeout(SETTLE_MS / 2)
                page.screenshot(path=folder / f"{name}-{size}-{colours}.png")
                count += 1
            context.close()
    return count


def main() -> None:
    """Measures, takes pictures if it is told where they go, and prints both as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="navigations for each median")
    parser.add_argument("--pictures", type=Path, default=None, metavar="FOLDER", help="where pictures go")
    arguments = parser.parse_args()
    with filled() as (browser, base):
        report: dict[str, Any] = {"first_paint_ms": measured(browser, base, arguments.rounds)}
        if arguments.pictures is not None:
            arguments.pictures.mkdir(parents=True, exist_ok=True)
            report["pictures"] = take_pictures(browser, base, arguments.pictures)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
