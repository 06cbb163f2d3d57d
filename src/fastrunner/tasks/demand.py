"""Stage 5, tasks: a performer that is loaded with the first effect of its kind.

Rules: a worker that performs no effect of a kind does without the memory and the time that its libraries take. Each
kind has a folder of its name, whose `perform` has `build`: from what is around to the performer.
"""

import asyncio
import logging
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.base.extras import extra_refusal
from fastrunner.engine import Authorizer, KeepingPerformer

if TYPE_CHECKING:
    from fastrunner.tasks.surroundings import Surroundings

__all__ = ["OnDemand"]

_log = logging.getLogger(__name__)


class OnDemand:
    """Performs effects of one kind."""

    def __init__(self, kind: str, around: "Surroundings") -> None:
        self._kind = kind
        self._around = around
        self._loading: asyncio.Task[ModuleType] | None = None
        self._performer: Authorizer | None = None
        self._keeper: KeepingPerformer | None = None
        """The performer, if it is one."""

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        """See `EffectPerformer`."""
        performer = await self._performer_for(effect)
        return performer if isinstance(performer, EffectFailure) else await performer.perform(effect, arguments)

    async def authorize(self, effect: PerformEffect, policy: Mapping[str, Any]) -> Mapping[str, Any] | EffectFailure:
        """See `Authorizer`."""
        performer = await self._performer_for(effect)
        return performer if isinstance(performer, EffectFailure) else await performer.authorize(effect, policy)

    def keeps(self, outcome: EffectResult) -> bool:
        """See `KeepingPerformer`."""
        return self._keeper is not None and self._keeper.keeps(outcome)

    async def _performer_for(self, effect: PerformEffect) -> Authorizer | EffectFailure:
        if self._performer is None:
            refusal = extra_refusal(self._kind.removeprefix("call_"))
            if refusal:
                return EffectFailure(effect.effect_id, "configuration", 400, "Not Installed", refusal)
            try:
                module = await self._load()
            except (ImportError, OSError, RuntimeError) as error:
                return self._not_loaded(effect, error)
            if self._performer is None:
                self._performer = module.build(self._around)
                self._keeper = self._performer if isinstance(self._performer, KeepingPerformer) else None
        return self._performer

    async def _load(self) -> ModuleType:
        # What failed for want of descriptors, threads or memory may succeed the next time.
        if self._loading is None or (self._loading.done() and self._loading.exception()):
            # In a thread: the loop serves others meanwhile.
            name = f"fastrunner.tasks.{self._kind}.perform"
            self._loading = asyncio.create_task(asyncio.to_thread(import_module, name))
        # One of the effects that wait for it may be interrupted; the others go on waiting.
        return await asyncio.shield(self._loading)

    def _not_loaded(self, effect: PerformEffect, error: Exception) -> EffectFailure:
        """The workflow may try again: mostly the machine is short of something for a while."""
        _log.warning("the libraries of %s could not be loaded: %s", self._kind, error)
        return EffectFailure(
            effect.effect_id,
            "communication",
            503,
            "Runner Out Of Resources",
            f"{effect.kind}: its libraries could not be loaded",
        )

    async def close(self) -> None:
        """See `EffectPerformer`."""
        if self._performer is not None:
            await self._performer.close()
