"""Stage 5, tasks: performers of effects, one module per kind, and the registry engines reach them through.

A performer does I/O and nothing else: arguments arrive evaluated, outcomes go back to the walk. It knows no engine.
"""

import ssl

from aiohttp.abc import AbstractResolver

from fastrunner.config import Config
from fastrunner.engine import EffectPerformer
from fastrunner.metrics import Metrics
from fastrunner.tasks.call_http import CallHttp

__all__ = ["build_performers"]


def build_performers(
    config: Config,
    metrics: Metrics,
    *,
    resolver: AbstractResolver | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> dict[str, EffectPerformer]:
    """One performer per kind of effect, for one worker. Close each when its engine has drained.

    `resolver` and `ssl_context` replace how host names are looked up and whom TLS trusts; default: as the system does.
    """
    return {
        "call_http": CallHttp(
            timeout_s=config.http_timeout_s, metrics=metrics, resolver=resolver, ssl_context=ssl_context
        ),
    }
