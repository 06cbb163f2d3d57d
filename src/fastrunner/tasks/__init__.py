"""Stage 5, tasks: performers of effects, one module or folder per kind, and the registry engines reach them through.

A performer does I/O and nothing else: arguments arrive rendered, outcomes go back to the walk. It knows no engine. The
libraries that performers need are loaded when the first effect of their kind comes (see `demand`).
"""

import ssl
from typing import TYPE_CHECKING

from fastrunner.access.egress import Egress
from fastrunner.config import Config
from fastrunner.counts.definitions import Metrics
from fastrunner.engine import EffectPerformer
from fastrunner.tasks.demand import OnDemand
from fastrunner.tasks.descriptions import Descriptions
from fastrunner.tasks.emit.perform import Emit, EventSink
from fastrunner.tasks.registry import EFFECTS
from fastrunner.tasks.run.perform import RunPerformer, Runs
from fastrunner.tasks.surroundings import Surroundings

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

__all__ = ["build_performers"]

_RUNS = ("run_shell", "run_script", "run_container")
_DESCRIBED = tuple(kind for kind, effect in EFFECTS.items() if effect.needs_descriptions)


def build_performers(
    config: Config,
    metrics: Metrics,
    egress: Egress | None = None,
    *,
    resolver: "AbstractResolver | None" = None,
    ssl_context: ssl.SSLContext | None = None,
    event_sink: EventSink | None = None,
    descriptions: Descriptions | None = None,
) -> dict[str, EffectPerformer]:
    """One performer per kind of effect, for one worker. Close each when its engine has drained.

    `egress` says where they may go; default: as the configuration does, for a process that serves nothing.
    `resolver` and `ssl_context` replace how host names are looked up and whom TLS trusts; default: as the system does.
    `event_sink` is where events are published; without one there is no performer of `emit`. `descriptions` is where
    descriptions of services come from; without it there are no performers of the kinds that need one.
    """
    around = Surroundings(config, metrics, egress or Egress.of(config), resolver, ssl_context, descriptions)
    http = around.http = OnDemand("call_http", around)
    runs = around.runs = Runs(config, http)
    performers: dict[str, EffectPerformer] = {} if event_sink is None else {"emit": Emit(event_sink, metrics)}
    performers |= {kind: RunPerformer(kind, runs, metrics) for kind in _RUNS}
    if descriptions is not None:
        performers |= {kind: OnDemand(kind, around) for kind in _DESCRIBED}
    # HTTP is closed last: others may still fetch something.
    return {**performers, "call_http": http}
