"""Support: the workflows of examples/, on the core alone and on the durable engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from examples.catalog import EXAMPLES, Example, secrets_for
from examples.orders_service import FAILED_PAYMENTS, OrdersService
from fastrunner.access.secrets import Secrets
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks import build_performers
from tests import durable
from tests.driver import Execution, run

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture
async def service() -> AsyncIterator[OrdersService]:
    async with OrdersService(pace=0.1) as service:
        yield service


def test_every_example_is_in_the_catalog() -> None:
    assert sorted(example.file for example in EXAMPLES) == sorted(path.name for path in FOLDER.glob("*.yaml"))
    assert all(example.document().count("\n") < 60 for example in EXAMPLES)


@asynccontextmanager
async def _performing() -> AsyncIterator[Mapping[str, EffectPerformer]]:
    """The performers of a worker, closed at the end."""
    config, metrics = load_config(), Metrics(CollectorRegistry())
    descriptions = Resolver(config, metrics, Secrets(None, {}))
    performers = build_performers(config, metrics, descriptions=descriptions)
    try:
        yield performers
    finally:
        for performer in performers.values():
            await performer.close()
        await descriptions.close()


async def _run(
    example: Example, number: int, service: OrdersService, *, restoring: bool = False, given: Any = None
) -> Execution:
    async with _performing() as performers:
        return await run(
            example.document(),
            given or example.input(number, service.url),
            performers,
            execution_id=f"{example.name}-{number}",
            restoring=restoring,
            secrets=secrets_for(service.url),
        )


@pytest.mark.parametrize("restoring", [False, True], ids=["in memory", "restored after every turn"])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_example_ends_as_the_catalog_says(example: Example, restoring: bool, service: OrdersService) -> None:
    for number in range(5):
        execution = await _run(example, number, service, restoring=restoring)
        assert execution.status == example.status, execution.error
        result = execution.output if example.status == "completed" else execution.error
        assert example.check(number, result), result


async def test_examples_end_so_on_the_durable_engine(service: OrdersService, tmp_path: Path) -> None:
    values = {name: json.dumps(value) for name, value in secrets_for(service.url).items()}
    async with (
        _performing() as performers,
        durable.open_engine(performers, tmp_path, secrets=Secrets(None, values)) as engine,
    ):

        async def judge(example: Example, number: int) -> str | None:
            name = f"{example.name}-{number}"
            execution = await durable.execute(engine, example.document(), example.input(number, service.url), name)
            result = execution.output if example.status == "completed" else execution.error
            is_right = execution.status == example.status and example.check(number, result)
            return None if is_right else f"{name}: {execution.status} {result} {execution.error}"

        verdicts = await asyncio.gather(*(judge(example, number) for example in EXAMPLES for number in range(3)))
    assert [verdict for verdict in verdicts if verdict] == []
    assert service.charges == {f"{name}-{number}": 1 for name in ("order", "described") for number in range(3)}


async def test_the_log_has_each_call_before_and_after(service: OrdersService) -> None:
    example = next(example for example in EXAMPLES if example.name == "call_log")
    await _run(example, 1, service, restoring=True)
    entries = [(entry["task"], entry["is"]) for entry in service.notified]
    assert entries == [("price", "begun"), ("price", "done"), ("reserve", "begun"), ("reserve", "done")]
    assert service.notified[1]["output"]["item"] == "item-1"
    assert service.notified[3]["output"] == {"done": "reservation"}


async def test_a_rehearsal_charges_nothing_and_the_real_thing_does(service: OrdersService) -> None:
    example = next(example for example in EXAMPLES if example.name == "rehearsal")
    await _run(example, 1, service)
    assert (service.requests, service.charges) == (1, {})
    given = {**example.input(1, service.url), "isRehearsal": False}
    # The service refuses the first payments of an order.
    executions = [await _run(example, number, service, given=given) for number in range(FAILED_PAYMENTS + 1)]
    assert [execution.status for execution in executions] == ["failed"] * FAILED_PAYMENTS + ["completed"]
    assert service.charges == {"rehearsal-1": 1}


async def test_an_order_is_charged_once(service: OrdersService) -> None:
    order = next(example for example in EXAMPLES if example.name == "order")
    await _run(order, 1, service)
    assert service.charges == {"order-1": 1}
    assert (service.requests, service.replays) == (3, 0)
    # The same execution again is what a runner does that crashed before it could write anything down.
    await _run(order, 1, service)
    assert service.charges == {"order-1": 1}
    assert (service.requests, service.replays) == (6, 3)
