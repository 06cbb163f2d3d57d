"""Stage 5, tasks: performers of effects, one module per kind, and the registry engines reach them through.

A performer does I/O and nothing else: arguments arrive rendered, outcomes go back to the walk. It knows no engine. The
libraries that performers need are loaded when the first effect of their kind comes.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.access.egress import Egress
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import Authorizer, EffectPerformer
from fastrunner.tasks.emit.perform import Emit, EventSink
from fastrunner.tasks.run.perform import RunPerformer, Runs

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

__all__ = ["build_performers"]


def build_performers(
    config: Config,
    metrics: Metrics,
    egress: Egress | None = None,
    *,
    resolver: "AbstractResolver | None" = None,
    ssl_context: ssl.SSLContext | None = None,
    event_sink: EventSink | None = None,
) -> dict[str, EffectPerformer]:
    """One performer per kind of effect, for one worker. Close each when its engine has drained.

    `egress` says where they may go; default: as the configuration does, for a process that serves nothing.
    `resolver` and `ssl_context` replace how host names are looked up and whom TLS trusts; default: as the system does.
    `event_sink` is where events are published; without one there is no performer of `emit`.
    """
    http = _HttpOnDemand(config, metrics, egress or Egress.of(config), resolver, ssl_context)
    runs = Runs(config, http)
    kinds = ("run_shell", "run_script", "run_container")
    # HTTP last: what runs may still fetch something.
    emitting: dict[str, EffectPerformer] = {} if event_sink is None else {"emit": Emit(event_sink, metrics)}
    return {**emitting, **{kind: RunPerformer(kind, runs, metrics) for kind in kinds}, "call_http": http}


_log = logging.getLogger(__name__)

_CALL_HTTP = "fastrunner.tasks.call_http.perform"


def _not_loaded(effect: PerformEffect, error: Exception) -> EffectFailure:
    """The workflow may try again: mostly the machine is short of something for a while."""
    _log.warning("the HTTP client could not be loaded: %s", error)
    return EffectFailure(
        effect.effect_id,
        "communication",
        503,
        "Runner Out Of Resources",
        f"{effect.kind}: the HTTP client could not be loaded",
    )


class _HttpOnDemand:
    """Performs `call: http`. The HTTP client takes ten megabytes, which a worker that calls nobody does without."""

    def __init__(
        self,
        config: Config,
        metrics: Metrics,
        egress: Egress,
        resolver: "AbstractResolver | None",
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._egress = egress
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._loading: asyncio.Task[ModuleType] | None = None
        self._performer: Authorizer | None = None

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """See `EffectPerformer`."""
        performer = await self._performer_for(effect)
        return performer if isinstance(performer, EffectFailure) else await performer.perform(effect, arguments)

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `EffectPerformer`."""
        performer = await self._performer_for(effect)
        return performer if isinstance(performer, EffectFailure) else await performer.authorize(effect, policy)

    async def _performer_for(self, effect: PerformEffect) -> Authorizer | EffectFailure:
        if self._performer is None:
            try:
                await self._load()
            except (ImportError, OSError, RuntimeError) as error:
                return _not_loaded(effect, error)
            self._performer = self._performer or self._made()
        return self._performer

    async def _load(self) -> None:
        # What failed for want of descriptors, threads or memory may succeed the next time.
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            # In a thread: the loop serves others meanwhile.
            self._loading = asyncio.create_task(asyncio.to_thread(import_module, _CALL_HTTP))
        # One of the effects that wait for it may be interrupted; the others go on waiting.
        await asyncio.shield(self._loading)

    def _made(self) -> Authorizer:
        from fastrunner.tasks.call_http.client import Client
        from fastrunner.tasks.call_http.perform import CallHttp

        client = Client(
            self._config, self._metrics, self._egress, resolver=self._resolver, ssl_context=self._ssl_context
        )
        return CallHttp(client, timeout_s=self._config.http_timeout_s, metrics=self._metrics)

    async def close(self) -> None:
        """See `EffectPerformer`."""
        if self._performer is not None:
            await self._performer.close()
