"""Stage 5, tasks: what the performers of one worker share."""

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastrunner.access.egress import Egress
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Authorizer
from fastrunner.tasks.descriptions import Descriptions

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

    from fastrunner.tasks.run.perform import Runs

__all__ = ["Surroundings"]


@dataclass(slots=True, eq=False)
class Surroundings:
    """What is around a performer."""

    config: Config
    """The worker's."""
    metrics: Metrics
    """The worker's."""
    egress: Egress
    """Where effects may go: every connection is judged by it."""
    resolver: "AbstractResolver | None"
    """How host names are looked up; None: as the system does."""
    ssl_context: ssl.SSLContext | None
    """Whom TLS trusts; None: whom the system does."""
    descriptions: Descriptions | None
    """Where descriptions of services come from."""
    http: Authorizer = field(init=False)
    """Performs `call_http`, and resolves policies: for kinds that speak HTTP underneath."""
    runs: "Runs" = field(init=False)
    """Starts processes: for kinds that speak to one."""
