"""Support: the workflows of examples/calls/ that call tools and agents, each against a server of its kind."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from fastrunner.access.egress import Egress
from fastrunner.access.secrets import Secrets
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks import build_performers
from tests.driver import run
from tests.integration.agents import serving_agent, serving_mcp

FOLDER = Path(__file__).parents[2] / "examples" / "calls"


@pytest.fixture
async def performers(tmp_path: Path) -> AsyncIterator[Any]:
    config, metrics = load_config(data_dir=tmp_path), Metrics(CollectorRegistry())
    resolver = Resolver(config, metrics, Secrets(None, None), Egress.of(config))
    built = build_performers(config, metrics, descriptions=resolver)
    yield built
    for performer in built.values():
        await performer.close()
    await resolver.close()


async def output(performers: Any, name: str, input_: Any) -> Any:
    """What an example comes to; the walk is restored from its snapshot after every turn."""
    execution = await run((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), input_, performers, restoring=True)
    assert execution.status == "completed", execution.error
    return execution.output


async def test_ask_tools(performers: Any) -> None:
    with serving_mcp() as served:
        given = {"endpoint": f"{served.url}/mcp", "goods": 40, "shipping": 2}
        assert await output(performers, "ask_tools", given) == {"total": 42, "note": "the first"}


@pytest.mark.parametrize("version", ["0.3", "1.0"])
async def test_ask_agent(performers: Any, version: str) -> None:
    with serving_agent(version) as (served, _):
        given = {"card": f"{served.url}/.well-known/agent-card.json", "wish": "a chair"}
        assert await output(performers, "ask_agent", given) == {"made": "it is made", "state": "completed"}
