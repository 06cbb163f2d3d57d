"""Extras: what needs a library that is not installed is refused by name, and nothing else is."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from fastrunner.base.extras import EXTRAS

ROOT = Path(__file__).parents[2]

CALLS = {
    "mcp": {"method": "tools/list", "transport": {"http": {"endpoint": "http://127.0.0.1:9/mcp"}}},
    "a2a": {"method": "tasks/get", "server": "http://127.0.0.1:9", "parameters": {"id": "1"}},
    **{
        f"asyncapi:{protocol}": {
            "document": {"endpoint": "http://127.0.0.1:9/a.yaml"},
            "operation": "o",
            "protocol": protocol,
            "message": {"payload": {"a": 1}},
        }
        for protocol in ("kafka", "amqp", "mqtt", "mqtt5", "nats", "redis", "http", "ws")
    },
}

CODE = """
import asyncio, json, sys
from fastrunner._core import Compilation, InvalidWorkflow
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.tasks import build_performers
from prometheus_client import CollectorRegistry

class Effect:
    effect_id, kind = 1, "call_mcp"

async def performed(kind):
    performers = build_performers(load_config(), Metrics(CollectorRegistry()), descriptions=object())
    try:
        failure = await performers[kind].perform(Effect(), {})
        return [failure.type, failure.detail]
    finally:
        for performer in performers.values():
            await performer.close()

found = {}
for name, document in json.load(sys.stdin).items():
    compilation = Compilation(document, refuse=load_config().refusal)
    try:
        while compilation.step(1000) is None:
            pass
        found[name] = []
    except InvalidWorkflow as invalid:
        found[name] = [[problem.code, problem.pointer, problem.message] for problem in invalid.problems]
told = [asyncio.run(performed(kind)) for kind in ("call_mcp", "call_a2a")]
json.dump({"found": found, "performed": told}, sys.stdout)
"""


OF_SETTINGS = {"otel", "s3", "stigmer", "temporal"}
"""Extras that no document needs, but a setting."""


def documents(**tasks: object) -> dict[str, str]:
    header = {"dsl": "1.0.3", "namespace": "a", "name": "b", "version": "1.0.0"}
    return {name: json.dumps({"document": header, "do": [{"x": task}]}) for name, task in tasks.items()}


@pytest.fixture(scope="module")
def bare_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed here, but for what extras bring."""
    folder = tmp_path_factory.mktemp("packages")
    hidden = {extra.module for extra in EXTRAS.values()}
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if entry.name not in hidden and entry.suffix != ".pth":
            (folder / entry.name).symlink_to(entry)
    return folder


def test_what_is_not_installed_is_refused_with_the_extra_to_install(bare_packages: Path) -> None:
    calls = {name: {"call": name.partition(":")[0], "with": with_} for name, with_ in CALLS.items()}
    in_function = json.loads(documents(x={"call": "f"})["x"])
    in_function["use"] = {"functions": {"f": calls["mcp"]}}
    given = {**documents(**calls), "function": json.dumps(in_function)}
    environment = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{bare_packages}", "PATH": os.environ["PATH"]}
    completed = subprocess.run(
        [sys.executable, "-S", "-c", CODE],
        input=json.dumps(given),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    told = json.loads(completed.stdout)
    for name in given:
        key = "mcp" if name == "function" else name
        if key not in EXTRAS:
            assert told["found"][name] == []
            continue
        [[code, pointer, message]] = told["found"][name]
        assert code == "not-installed"
        assert f"pip install 'fastrunner[{EXTRAS[key].name}]'" in message
        assert pointer.endswith("/with/protocol" if ":" in key else "/call")
    # A document that was accepted before fails where it needs them.
    assert [type_ for type_, _ in told["performed"]] == ["configuration", "configuration"]
    assert ["'fastrunner[mcp]'" in told["performed"][0][1], "'fastrunner[a2a]'" in told["performed"][1][1]] == [
        True
    ] * 2


def test_every_extra_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {extra.name for extra in EXTRAS.values()}
    assert {*declared} == {*names, *OF_SETTINGS, "all"}
    assert declared["all"] == [f"fastrunner[{','.join(name for name in declared if name != 'all')}]"]
