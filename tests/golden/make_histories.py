"""Support: records histories of Temporal, of executions of every kind; run once for each new SEMANTICS, never again.

    python -m tests.golden.make_histories

`histories-v<SEMANTICS>.json.gz` has them by name; `tests/integration/test_temporal_golden.py` replays those of every
version. Which kinds there are is the tables of the equality tests, `KINDS` below, what commands and outages do, the bus
of events, sinks, the lifecycle, and schedules. A version that is not released yet may be recorded anew.
"""

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING, Any, Final

import orjson

from fastrunner.base import limits
from fastrunner.base.clock import monotonic_s
from tests.golden.make import FOLDER
from tests.integration.engines import CALL, ENDLESS, SET, WAIT, Performer, document, submission, until, until_status
from tests.integration.temporal_engines import Cluster, cluster_on, opened, serving_temporal
from tests.integration.temporal_replays import replayable
from tests.integration.test_event_sinks import receiving
from tests.integration.test_temporal import LONG, REGISTERED, SCENARIOS
from tests.integration.test_temporal_events import SCENARIOS as HEARD
from tests.integration.test_temporal_events import event, listening, typed
from tests.integration.test_temporal_schedules import schedule, scheduling
from tests.ports import free_port
from tests.unit.test_schedule_leader import Runner

if TYPE_CHECKING:
    from fastrunner.engine.temporal.engine import TemporalEngine

__all__ = ["HEARD", "KINDS", "heard", "path_of"]

_ASK: Final = "{call: http, with: {method: get, endpoint: 'http://127.0.0.1:1/'}}"

KINDS: Final = {
    "calls in branches": document(f"  - all: {{fork: {{branches: [{{a: {_ASK}}}, {{b: {_ASK}}}, {{c: {_ASK}}}]}}}}\n"),
    "retried call": document(
        f"  - guard: {{try: [{{ask: {_ASK}}}], catch: {{retry: {{delay: {{milliseconds: 5}}, limit: {{attempt: "
        "{count: 2}}}}}\n"
    ),
}
"""Documents beside those of the table."""
_TIMEOUT_S: Final = 60.0

Recorded = dict[str, list[Any]]


def path_of(semantics: int) -> Path:
    """Where the histories of a version are."""
    return FOLDER / f"histories-v{semantics}.json.gz"


def heard(name: str) -> str:
    """What the histories of an execution that listens or emits are called."""
    return f"events: {name}"


class _Recorder:
    """Records what executions on one server leave."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.recorded: Recorded = {}

    async def record(
        self,
        name: str,
        text: str,
        meanwhile: "Callable[[TemporalEngine, str, Cluster], Awaitable[None]] | None" = None,
        performer: Performer | None = None,
        **options: Any,
    ) -> None:
        """Executes one; `meanwhile` does something to it."""
        async with (
            cluster_on(self._address) as cluster,
            cluster.engine({"call_http": performer or opened()}, documents=REGISTERED, **options) as engine,
        ):
            execution_id = f"e-{name.replace(' ', '-')}"
            await engine.submit(submission(execution_id, text, input_json=b'{"n": 2}'))
            if meanwhile is not None:
                await meanwhile(engine, execution_id, cluster)
            await self._keep(engine, name, execution_id)
            if name == "detached":
                await self._keep(engine, f"{name} report", f"{execution_id}~report")

    async def _keep(self, engine: "TemporalEngine", name: str, workflow_id: str) -> None:
        """All histories of an execution, the last one first, once it has ended."""
        handle = engine._client.get_workflow_handle(workflow_id)
        await until(_has_ended(handle), f"the end of {workflow_id}", _TIMEOUT_S)
        await self.keep(engine, name, workflow_id)

    async def keep(self, engine: "TemporalEngine", name: str, workflow_id: str) -> None:
        """All histories of a workflow as they are now, the last one first."""
        run_id, found = (await engine._client.get_workflow_handle(workflow_id).describe()).run_id, []
        while run_id:
            history = await engine._client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
            found.append(_scrubbed(orjson.loads(history.to_json())))
            run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        self.recorded[name] = found


def _has_ended(handle: Any) -> Callable[[], bool]:
    """Asks beside; true once the last run has closed."""
    waiting = asyncio.ensure_future(asyncio.gather(handle.result(), return_exceptions=True))
    return lambda: waiting.done()


def _scrubbed(value: Any) -> Any:
    """Without what says whose machine it was."""
    if isinstance(value, dict):
        return {key: _scrubbed(each) for key, each in value.items() if key not in ("identity", "stackTrace")}
    if isinstance(value, list):
        return [_scrubbed(each) for each in value]
    return value.replace(gethostname(), "host") if isinstance(value, str) else value


async def _paused(engine: "TemporalEngine", execution_id: str, _: Cluster) -> None:
    await engine.pause(execution_id, "for a while")
    await engine.resume(execution_id, "again")


async def _cancelled(engine: "TemporalEngine", execution_id: str, _: Cluster) -> None:
    await engine.cancel(execution_id, "no more", False)


async def _killed(engine: "TemporalEngine", execution_id: str, _: Cluster) -> None:
    await engine.cancel(execution_id, "no more", True)


def _told(events: list[dict[str, Any]]) -> "Callable[[TemporalEngine, str, Cluster], Awaitable[None]]":
    """Sends what an execution waits for, once it does."""

    async def tell(engine: "TemporalEngine", execution_id: str, _: Cluster) -> None:
        await listening(engine, execution_id)
        for each in events:
            await engine.events_door.publish([each], None)

    return tell


async def _bus(recorder: _Recorder) -> None:
    """The bus of one that listens, whose history is continued again and again."""
    from fastrunner.engine.temporal.event_messages import bus_id_of

    text, events = HEARD["foreach"]
    async with cluster_on(recorder._address) as cluster, cluster.engine(bus_events_max=1) as engine:
        await engine.submit(submission("e-bus", typed(text, 0)))
        await _told([typed(each, 0) for each in [*events[:2], event(9), *events[2:]]])(engine, "e-bus", cluster)
        await until_status(engine, "e-bus", "completed", timeout_s=_TIMEOUT_S)  # type: ignore[arg-type]
        await recorder.keep(engine, "bus", bus_id_of(cluster.queue))


async def _outage(recorder: _Recorder) -> None:
    """A walk that rests while its receiver is away, then ends by a cancel."""
    async with cluster_on(recorder._address) as cluster:
        port, cluster.port = cluster.port, free_port()
        execution_id = "e-outage"
        async with cluster.engine() as engine:
            await engine.submit(submission(execution_id, ENDLESS))
            await _until_sequence(engine, execution_id, "last_sequence")
        cluster.port = port
        async with cluster.engine() as engine:
            await _until_sequence(engine, execution_id, "acknowledged_sequence")
            await engine.cancel(execution_id, "enough", True)
            await recorder._keep(engine, "outage", execution_id)


async def _told_later(recorder: _Recorder) -> None:
    """One that ends with its first turn, while its receiver is away."""
    async with cluster_on(recorder._address) as cluster:
        nobody = {"stigmer_service_endpoint": f"127.0.0.1:{free_port()}"}
        async with cluster.engine(settings=nobody) as engine:
            await engine.submit(submission("e-told-later", SET))
            await until_status(engine, "e-told-later", "completed", timeout_s=_TIMEOUT_S)  # type: ignore[arg-type]
        async with cluster.engine() as engine:
            await recorder._keep(engine, "told later", "e-told-later")


async def _sink(recorder: _Recorder) -> None:
    """A sink that takes what is emitted, once it is there."""
    from fastrunner.engine.temporal.event_messages import sink_id_of

    text, _ = HEARD["emit"]
    async with receiving() as receiver, cluster_on(recorder._address) as cluster:
        receiver.answer = lambda _: 500 if len(receiver.attempts) < 2 else 202
        async with cluster.engine(sinks=f"http://127.0.0.1:{receiver.port}/in") as engine:
            await engine.submit(submission("e-sink", typed(text, 0), input_json=b'{"n": 2}'))
            [name] = engine.events_door.sinks
            sink_id = sink_id_of(cluster.queue, name)
            await until(lambda: bool(receiver.taken), "an event at the sink", _TIMEOUT_S)
            await recorder._keep(engine, "sink", sink_id)


async def _lifecycle(recorder: _Recorder) -> None:
    """One whose lifecycle sink is there when it has ended, and its history has been continued."""
    from fastrunner.engine.temporal.telling import tell_id_of

    async with receiving() as away:
        port = away.port
    settings = {"lifecycle_sinks": f"http://127.0.0.1:{port}/in", "egress_allow": "127.0.0.1"}
    async with (
        cluster_on(recorder._address) as cluster,
        cluster.engine({"call_http": opened()}, settings=settings, history_events_max=1) as engine,
    ):
        await engine.submit(submission("e-lifecycle", LONG))
        await recorder._keep(engine, "lifecycle", "e-lifecycle")
        async with receiving(port):
            await recorder._keep(engine, "lifecycle rest", tell_id_of("e-lifecycle"))


async def _schedules(recorder: _Recorder) -> None:
    """Schedules by the clock, which are paused, resumed and continued, and by events."""
    from fastrunner.engine.temporal.schedule_messages import schedule_id_of

    runner = Runner()
    async with cluster_on(recorder._address) as cluster, scheduling(cluster, runner) as (schedules, engine):
        await schedules.add(schedule("often", every_ms=100), b"1")
        await schedules.add(schedule("each", on={"one": {"with": {"type": cluster.queue}}}), b"1")
        await until(lambda: len(runner.started) > 5, "executions of a schedule", _TIMEOUT_S)
        await schedules.pause("often", "stocktaking")
        for number in range(3):
            await engine.events_door.publish([event(number, cluster.queue)], None)
        await until(lambda: sum("event" in each for each in runner.started) == 3, "executions by events", _TIMEOUT_S)
        await schedules.resume("often")
        for name in ("often", "each"):
            workflow_id = schedule_id_of(cluster.queue, name)
            await replayable(engine._client.get_workflow_handle(workflow_id))
            await recorder.keep(engine, f"schedule {name}", workflow_id)
            await schedules.delete(name)


async def _until_sequence(engine: "TemporalEngine", execution_id: str, name: str) -> None:
    deadline_s = monotonic_s() + _TIMEOUT_S
    while getattr(await engine.get(execution_id), name) < limits.TEMPORAL_EVENTS_UNREPORTED_MAX:
        assert monotonic_s() < deadline_s
        await asyncio.sleep(0.05)


async def histories(address: str) -> Recorded:
    """A history of each kind, made on a server."""
    recorder = _Recorder(address)
    for name, text in (SCENARIOS | KINDS).items():
        failing = Performer() if name != "retried call" else _failing()
        failing.gate.set()
        await recorder.record(name, text, performer=failing)
    await recorder.record("paused", WAIT.replace("200", "2000"), _paused)
    await recorder.record("cancelled", WAIT.replace("milliseconds: 200", "minutes: 5"), _cancelled)
    await recorder.record("cancelled call", CALL, _killed, performer=Performer())
    await recorder.record("continued", LONG, history_events_max=1)
    await recorder.record("detached", WAIT, settings={"temporal_report": "detached"})
    await _told_later(recorder)
    for number, (name, (text, events)) in enumerate(HEARD.items()):
        await recorder.record(heard(name), typed(text, number), _told([typed(each, number) for each in events]))
    await _bus(recorder)
    await _outage(recorder)
    await _sink(recorder)
    await _lifecycle(recorder)
    await _schedules(recorder)
    return recorder.recorded


def _failing() -> Performer:
    from tests.integration.test_temporal import failing

    return failing()


def main() -> None:
    """Writes the file of this version."""
    from fastrunner.engine.temporal.messages import SEMANTICS

    with serving_temporal() as address:
        recorded = asyncio.run(histories(address))
    path = path_of(SEMANTICS)
    path.write_bytes(gzip.compress(orjson.dumps(recorded, option=orjson.OPT_SORT_KEYS), 9, mtime=0))
    print(f"{path}: {len(recorded)} executions, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
