"""Support: every scenario of the DSL's conformance kit, on the core alone and on the durable engine."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fastrunner.engine import EffectPerformer
from tests import durable
from tests.conformance.ctk import FEATURES, Scenario, check, scenarios
from tests.driver import Execution, run

if not FEATURES.is_dir():
    pytest.skip(f"the conformance kit is not at {FEATURES}", allow_module_level=True)

Execute = Callable[[str, Any], Awaitable[Execution]]

SCENARIOS = scenarios()


def test_the_whole_kit_is_read() -> None:
    assert len(SCENARIOS) == 21
    assert len({scenario.feature for scenario in SCENARIOS}) == 11
    assert all(scenario.document and scenario.expectations for scenario in SCENARIOS)


@pytest.fixture(params=["core", "restored", "engine"])
async def execute(
    request: pytest.FixtureRequest, performers: Mapping[str, EffectPerformer], tmp_path: Path
) -> AsyncIterator[Execute]:
    """The ways to run a document: the core alone, the same restored after every turn, the durable engine."""
    if request.param == "engine":
        async with durable.open_engine(performers, tmp_path) as engine:
            yield partial(durable.execute, engine)
    else:
        yield partial(run, performers=performers, restoring=request.param == "restored")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: f"{scenario.feature}: {scenario.name}")
async def test_scenario(scenario: Scenario, execute: Execute) -> None:
    execution = await execute(scenario.document, scenario.input)
    for step in scenario.expectations:
        check(step, execution)
