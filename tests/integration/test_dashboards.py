"""Grafana's dashboards: what they ask for is there, and every query has data of a real runner and Stigmer Service."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from fastrunner.counts.definitions import Definition, Metrics, StigmerMetrics
from tests.integration.open_loop import channel
from tests.integration.prometheus import RULES, Prometheus, prometheus
from tests.integration.runner_process import ROOT, SERVE, running
from tests.integration.stigmer import TOKEN, service_process
from tests.integration.test_prometheus import submit
from tests.integration.wire import path

FOLDER = ROOT / "deploy" / "grafana"
FILES = sorted(file.stem for file in FOLDER.glob("*.json"))
QUIET = {"Caught up in"}
"""Panels that say nothing unless something is wrong."""
METRIC = re.compile(r"\b((?:workflow_runner|stigmer|grpc_server)_[a-z_]+)(?:\{([^}]*)\})?")
GROUPED = re.compile(r"\bby \(([^)]*)\)")
OF_SCRAPES = {"job", "instance", "le"}
"""Labels that Prometheus adds."""


def queries(name: str) -> Iterator[tuple[str, str]]:
    """Titles of panels and expressions."""
    for panel in json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def lost(given: Any, kept: Any, where: str = "") -> list[str]:
    """What is in one JSON value and not in another one."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [each for name, part in given.items() for each in lost(part, kept.get(name), f"{where}/{name}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [each for at, part in enumerate(given) for each in lost(part, kept[at], f"{where}/{at}")]
    return [] if given == kept else [where]


def read_by_grafana(written: Any) -> Any:
    """A dashboard as Grafana's own types have read it: of what they do not know nothing is left."""
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(written)))


@pytest.mark.parametrize("name", FILES)
def test_grafana_knows_every_field(name: str) -> None:
    """Of panels, queries and options, too; something does look: a field that there is not is missed."""
    written = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert lost(written, read_by_grafana(written)) == []
    panel = next(each for each in written["panels"] if each.get("targets") and each.get("options"))
    for place in (written, panel, panel["targets"][0], panel["options"], panel["fieldConfig"]["defaults"]):
        place["nobodys"] = 1
        assert len(lost(written, read_by_grafana(written))) == 1
        del place["nobodys"]


def definition(name: str) -> Definition:
    """That of a metric, or of a histogram's part."""
    known = {**Metrics().definitions, **StigmerMetrics().definitions}
    found = known.get(name) or known.get(re.sub("_(bucket|sum|count)$", "", name))
    assert found is not None, f"{name} is not counted"
    assert (found.kind == "histogram") == (found.name != name), name
    return found


def check_names(expression: str) -> None:
    """Metrics, the labels that are asked for, and those that are kept, are there; so are values where all are known."""
    asked = METRIC.findall(expression)
    assert asked, expression
    for name, matchers in asked:
        labels = definition(name).labels
        for label, how, value in re.findall(r'([a-z_]+)(=~|=)"([^"]*)"', matchers):
            assert label in labels or label in OF_SCRAPES, f"{name} has no label {label}"
            if labels.get(label):
                assert any(re.fullmatch(value if how == "=~" else re.escape(value), each) for each in labels[label]), (
                    value
                )
    kept = {label.strip() for group in GROUPED.findall(expression) for label in group.split(",")}
    everywhere = OF_SCRAPES.union(*(definition(name).labels for name, _ in asked))
    assert kept <= everywhere, expression


@pytest.mark.parametrize("name", FILES)
def test_a_dashboard_asks_for_what_is_counted(name: str) -> None:
    expressions = [expression for _, expression in queries(name)]
    assert len(expressions) > 10
    for expression in expressions:
        check_names(expression)


@pytest.mark.parametrize("name", ["recording.yml", "alerts.yml"])
def test_rules_ask_for_what_is_counted(name: str) -> None:
    text = (RULES / name).read_text(encoding="utf-8")
    asked = [(found, labels) for found, labels in METRIC.findall(text) if not found.startswith("stigmer_service")]
    assert len(asked) > 8
    for found, labels in asked:
        # A recorded rule has a colon before it and after it.
        if f":{found}:" not in text:
            check_names(f"{found}{{{labels}}}")


def test_dashboards_are_generated() -> None:
    command = [sys.executable, "tools/gen_dashboards.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def unanswered(server: Prometheus, name: str) -> list[tuple[str, str]]:
    """Queries of a dashboard without data now; a query that Prometheus refuses is an error."""
    job = "stigmer" if name == "stigmer" else "fastrunner"
    found = []
    for title, expression in queries(name):
        asked = expression.replace("$job", job).replace("$instance", ".*").replace("$__rate_interval", "30s")
        if not server.get("query", query=asked)["result"] and title not in QUIET:
            found.append((title, asked))
    return found


async def test_every_query_has_data_of_real_processes(tmp_path: Path) -> None:
    with service_process(tmp_path / "service", "127.0.0.1:1") as service:
        told = {"STIGMER_SERVICE_USE_TLS": "false", "STIGMER_SERVICE_API_KEY": TOKEN}
        endpoint = f"127.0.0.1:{service.grpc_port}"
        with running(tmp_path / "runner", SERVE, STIGMER_SERVICE_ENDPOINT=endpoint, **told) as runner:
            ports = {"fastrunner": runner.wait_ready().ports["http_port"], "stigmer": service.http_port}
            with prometheus(tmp_path / "prometheus", **ports) as server:
                await submit(runner, 60, asyncio.Event())
                async with channel(runner.target) as caller:
                    with pytest.raises(grpc.aio.AioRpcError):
                        await caller.unary_unary(path("ExecuteAsync"))(b"", timeout=30)
                left = {name: unanswered(server, name) for name in FILES}
                deadline_s = asyncio.get_running_loop().time() + 60
                while any(left.values()) and asyncio.get_running_loop().time() < deadline_s:
                    await asyncio.sleep(0.5)
                    left = {name: unanswered(server, name) for name in FILES}
                assert not any(left.values()), left
