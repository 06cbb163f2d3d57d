"""Any sequence of commands, outcomes, waits, races and restarts leaves an execution where the state table says."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fastrunner._core import EffectFailure, EffectResult, PerformEffect
from fastrunner.errors import UnknownExecution, WrongState
from tests.integration.control_model import GRACE_MS, KINDS, WAIT_MS, Job, Reply, effect_name
from tests.integration.engines import all_events, engine_on, folder, submission, until
from tests.properties import examples

START_MS = 1_900_000_000_000
TERMINAL = {"completed": "workflow_completed", "failed": "workflow_failed", "cancelled": "workflow_cancelled"}
SHARDS = 2
_FAILS = {"fails": 1_000, "fails-once": 1}


class Effects:
    """Performs effects when told to; knows which are being performed, and what had an outcome."""

    def __init__(self) -> None:
        self.open: dict[str, tuple[PerformEffect, asyncio.Future[None]]] = {}
        """By idempotency key."""
        self.outcomes: Counter[str] = Counter()

    async def perform(self, effect: PerformEffect, arguments: Mapping[str, Any]) -> EffectResult | EffectFailure:
        key = effect.idempotency_key
        assert key not in self.open, f"{key} is performed twice at once"
        assert not self.outcomes[key], f"{key} is performed again after its outcome"
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open[key] = effect, future
        try:
            await future
        finally:
            del self.open[key]
        name = effect_name(arguments["uri"])
        if int(key.rpartition("/")[2]) <= _FAILS.get(name, 0):
            return EffectFailure(effect.effect_id, "communication", 503, "Unavailable", "")
        return EffectResult(effect.effect_id, {"answer": 42})

    async def close(self) -> None:
        """Nothing is held."""

    def of(self, execution_id: str) -> list[str]:
        """Keys of the effects of an execution that are being performed, in order."""
        return sorted(key for key in self.open if key.startswith(f"{execution_id}/"))

    def release(self, key: str) -> None:
        """Lets one end."""
        self.outcomes[key] += 1
        self.open[key][1].set_result(None)


def _strand_of(key: str) -> int:
    return int("/right/" in key)


class Control(RuleBasedStateMachine):
    """One engine over its lives, and the model of every execution."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("fastrunner.base.limits.TIMER_RECHECK_S_MAX", 0.003)
        self.patch.setattr("fastrunner.base.limits.LOAD_INTERVAL_S", 0.003)
        self.loop = asyncio.new_event_loop()
        self.path = folder()
        self.now_ms = START_MS
        self.jobs: dict[str, Job] = {}
        self.effects = Effects()
        self.resident = 100

    @initialize(resident=st.sampled_from([0, 100]))
    def begin(self, resident: int) -> None:
        self.resident = resident
        self.open_engine()

    def open_engine(self) -> None:
        self.context = engine_on(
            self.path,
            self.effects,
            shards=SHARDS,
            wall_ms=lambda: self.now_ms,
            cancel_grace_s=GRACE_MS / 1000,
            parked_resident_max=self.resident,
        )
        self.engine = self.run(self.context.__aenter__())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    def teardown(self) -> None:
        try:
            if self.jobs:
                self.run(self.check_events())
            if hasattr(self, "context"):
                self.run(self.context.__aexit__(None, None, None))
        finally:
            self.patch.undo()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()

    # --- what happens ---

    @rule(kind=st.sampled_from(sorted(KINDS)))
    def start(self, kind: str) -> None:
        execution_id = f"{kind}-{len(self.jobs)}"

        async def submit() -> str:
            return str(await self.engine.submit(submission(execution_id, KINDS[kind][0])))

        assert self.run(submit()) == "running"
        self.jobs[execution_id] = Job(kind, self.now_ms)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), command=st.sampled_from(["cancel", "force", "pause", "resume"]), twice=st.booleans())
    def command(self, data: st.DataObject, command: str, twice: bool) -> None:
        execution_id = self.choose(data)
        for _ in range(1 + twice):
            assert self.run(self.reply(execution_id, command)) == self.expected(self.jobs[execution_id], command)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), commands=st.permutations(["cancel", "force", "pause", "resume"]))
    def race_of_commands(self, data: st.DataObject, commands: list[str]) -> None:
        """Sent at once, they take effect in some order, which is that of the inbox."""
        execution_id = self.choose(data)
        pair = [each for each in commands if each != "cancel"][:2]

        async def both() -> list[Reply]:
            return list(await asyncio.gather(*(self.reply(execution_id, each) for each in pair)))

        assert self.run(both()) == [self.expected(self.jobs[execution_id], each) for each in pair]

    @precondition(lambda self: self.effects.open)
    @rule(data=st.data())
    def effect_ends(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.effects.open)))
        self.effects.release(key)
        self.jobs[key.partition("/")[0]].effect_ended(_strand_of(key))

    @precondition(lambda self: self.effects.open)
    @rule(data=st.data(), command=st.sampled_from(["force", "cancel", "pause"]), first=st.booleans())
    def effect_ends_as_a_command_comes(self, data: st.DataObject, command: str, first: bool) -> None:
        """Either may come first; what the caller is told and what became of the execution must agree."""
        key = data.draw(st.sampled_from(sorted(self.effects.open)))
        execution_id = key.partition("/")[0]
        job = self.jobs[execution_id]
        ends_first, command_first = (self.copy(job) for _ in range(2))
        ends_first.effect_ended(_strand_of(key))
        replies = {self.expected(ends_first, command): ends_first}
        reply = self.expected(command_first, command)
        if not command_first.ended:
            command_first.effect_ended(_strand_of(key))
        candidates = [(reply, command_first), *replies.items()]

        async def both() -> Reply:
            if first:
                self.effects.release(key)
                return await self.reply(execution_id, command)
            asked = asyncio.ensure_future(self.reply(execution_id, command))
            await asyncio.sleep(0)
            if key in self.effects.open:
                self.effects.release(key)
            return await asked

        told = self.run(both())
        fitting = [after for reply, after in candidates if reply == told]
        assert fitting, f"{command} was answered {told}"
        self.jobs[execution_id] = self.run(self.first_that_fits(execution_id, fitting))

    @rule(by_ms=st.sampled_from([1_000, GRACE_MS, WAIT_MS // 2, WAIT_MS, 2 * WAIT_MS]))
    def time_passes(self, by_ms: int) -> None:
        self.now_ms += by_ms
        for job in self.jobs.values():
            job.pass_time(self.now_ms)

    @rule()
    def restart(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        assert not self.effects.open
        self.open_engine()

    @rule(command=st.sampled_from(["cancel", "pause", "resume"]))
    def unknown(self, command: str) -> None:
        with pytest.raises(UnknownExecution):
            self.run(self.reply("nobody", command))

    # --- what must hold ---

    @invariant()
    def engine_is_where_the_model_is(self) -> None:
        for execution_id, job in self.jobs.items():
            self.run(self.first_that_fits(execution_id, [job]))

    async def first_that_fits(self, execution_id: str, candidates: list[Job]) -> Job:
        """The first of the possible states that the engine comes to."""
        found: list[Job] = []
        shown: Any = None

        async def look() -> None:
            nonlocal shown
            view = await self.engine.get(execution_id)
            shown = view.status, self.effects.of(execution_id)
            strands = sorted(map(_strand_of, shown[1]))
            found.extend(job for job in candidates if (job.state, job.in_flight) == (view.status, strands))

        try:
            async with asyncio.timeout(5):
                while not found:
                    await look()
                    await asyncio.sleep(0)
        except TimeoutError:
            expected = [(job.state, job.in_flight) for job in candidates]
            raise AssertionError(f"{execution_id} is {shown}, expected one of {expected}") from None
        return found[0]

    async def check_events(self) -> None:
        """Numbers without gaps, one end, and no task that begins twice after a resume or a restart."""
        for execution_id, job in self.jobs.items():
            await until(lambda: True, "nothing")
            events = await all_events(self.engine, execution_id)
            assert [event.sequence_number for event in events] == list(range(1, len(events) + 1))
            types = [event.event_type for event in events]
            terminal = [each for each in types if each in TERMINAL.values()]
            assert terminal == ([TERMINAL[job.state]] if job.ended else [])
            assert not job.ended or types[-1] == terminal[0]
            assert 0 <= types.count("workflow_paused") - types.count("workflow_resumed") <= 1
            if job.kind not in ("loop", "for"):
                begun = Counter((e.task_name, e.attempt) for e in events if e.event_type == "task_started")
                assert not begun or max(begun.values()) == 1, begun

    # --- helpers ---

    def choose(self, data: st.DataObject) -> str:
        return data.draw(st.sampled_from(sorted(self.jobs)))

    def copy(self, job: Job) -> Job:
        twin = Job(job.kind, job.now_ms)
        for name, value in vars(job).items():
            setattr(
                twin,
                name,
                [each[:] if isinstance(each, list) else each for each in value] if isinstance(value, list) else value,
            )
        return twin

    def expected(self, job: Job, command: str) -> Reply:
        if command == "pause":
            return job.pause()
        return job.resume() if command == "resume" else job.cancel(command == "force")

    async def reply(self, execution_id: str, command: str) -> Reply:
        asked: Awaitable[None]
        if command == "pause":
            asked = self.engine.pause(execution_id, "")
        elif command == "resume":
            asked = self.engine.resume(execution_id, "")
        else:
            asked = self.engine.cancel(execution_id, "", command == "force")
        try:
            await asked
        except WrongState:
            return "wrong state"
        return "ok"


TestControl = Control.TestCase
TestControl.settings = settings(
    examples(40), stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
