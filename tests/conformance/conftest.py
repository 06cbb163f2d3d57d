"""Support: performers whose world are stand-ins for the hosts that the conformance kit calls (see `hosts`)."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from fastrunner.access.secrets import Secrets
from fastrunner.config import load_config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.resources.resolver import Resolver
from fastrunner.tasks import build_performers
from tests.conformance.hosts import standing_in
from tests.conformance.sites import SITES


class _Everybody:
    """Takes what is published."""

    async def emit(self, event: Mapping[str, object]) -> Mapping[str, object]:
        return event


@pytest.fixture
async def performers(tmp_path: Path) -> AsyncIterator[Mapping[str, EffectPerformer]]:
    """Performers for which the kit's hosts are local."""
    config, metrics = load_config(), Metrics()
    async with standing_in(SITES, tmp_path) as hosts:
        descriptions = Resolver(config, metrics, Secrets(), resolver=hosts, ssl_context=hosts.trust)
        performers = build_performers(
            config,
            metrics,
            resolver=hosts,
            ssl_context=hosts.trust,
            event_sink=_Everybody(),
            descriptions=descriptions,
        )
        yield performers
        for performer in performers.values():
            await performer.close()
        await descriptions.close()
