"""What a submission waits for: its plan, the fate of another one under its id, memory. On a virtual clock."""

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest

from fastrunner._core import Compilation
from fastrunner.base import clock, limits
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.errors import AtCapacity, DocumentRefused, IdTaken, RunnerError, StorageFull, Unavailable
from tests.integration.engines import SET, WAIT, document, folder, submission
from tests.simulation.pace import Disk, engine_at, live
from tests.simulation.virtual import VirtualTime

READ_S = 20e-6
"""What reading the virtual clock costs: nothing else takes time."""
TASKS_COUNT = 5_000


def large(name: str, last: str = "set: {z: 1}") -> str:
    """A document that takes many passes."""
    tasks = "".join(f"  - t{number}:\n      set: {{a: '${{ .b + {number} }}'}}\n" for number in range(TASKS_COUNT))
    return document(f"{tasks}  - last:\n      {last}\n", name=name)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    virtual = VirtualTime()
    monkeypatch.setattr(clock, "time", virtual)
    return Disk(virtual)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Steps by text, and what was begun."""
    counts: Counter[str] = Counter()

    class Counted:
        def __init__(self, text: str, **given: Any) -> None:
            self.text = text
            self.compilation = Compilation(text, **given)
            counts["begun"] += 1

        def step(self, budget: int) -> Any:
            assert budget == limits.COMPILE_STEP_BUDGET
            counts[self.text] += 1
            counts["steps"] += 1
            return self.compilation.step(budget)

    monkeypatch.setattr("fastrunner.engine.embedded.admit.compiling.Compilation", Counted)
    return counts


async def refusal_of(answer: Awaitable[Any]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        await answer
    return caught.value


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- compiling ---


def test_compiling_takes_little_of_each_turn_of_the_loop(disk: Disk, steps: Counter[str]) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            accepted = [engine.submit(submission(f"e-{n}", large(f"w-{n}"))) for n in range(3)]
            # What may be compiled at once is for all of them together; each step reads the clock once.
            assert steps["steps"] <= limits.COMPILE_AT_ONCE_MS / 1000 / READ_S + 3
            spans = []
            while engine._submissions.waiting_count:
                before = steps["steps"]
                await asyncio.sleep(0)
                spans.append(steps["steps"] - before)
            assert 10 < max(spans) <= limits.COMPILE_PASS_MS / 1000 / READ_S
            assert await asyncio.gather(*accepted) == ["running"] * 3

    live(disk.clock, main())


def test_small_documents_are_compiled_at_once_while_the_turn_lasts(disk: Disk, steps: Counter[str]) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            texts = [document("  - one:\n      set: {a: 1}\n", name=f"w-{n}") for n in range(200)]
            accepted = [engine.submit(submission(f"e-{n}", text)) for n, text in enumerate(texts)]
            at_once = len(engine._shards.by_number[0].live)
            assert 5 < at_once <= limits.COMPILE_AT_ONCE_MS / 1000 / READ_S
            await asyncio.sleep(0)
            accepted.append(engine.submit(submission("next", document("  - one:\n      set: {a: 2}\n"))))
            assert "next" in engine._shards.by_number[0].live
            assert await asyncio.gather(*accepted) == ["running"] * 201
            # Accepted in their order.
            first, middle, last = (_key(engine, f"e-{n}") for n in (0, 150, 199))
            assert first < middle < last

    live(disk.clock, main())


def _key(engine: EmbeddedEngine, execution_id: str) -> int:
    acceptance = engine._shards.by_number[0].store.acceptance(execution_id)
    assert acceptance is not None
    return acceptance[0]


def test_clients_take_turns_and_a_text_is_compiled_once(disk: Disk, steps: Counter[str]) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            ended: list[str] = []

            def submit(execution_id: str, text: str, client: str) -> None:
                answer = engine.submit(submission(execution_id, text, client=client))
                answer.add_done_callback(lambda answer: ended.append(f"{execution_id} {answer.result()}"))

            texts = [large(f"w-{n}") for n in range(4)]
            for n, text in enumerate(texts):
                submit(f"many-{n}", text, "many")
            submit("one", large("other"), "one")
            submit("same", texts[3], "two")
            validity = asyncio.ensure_future(engine.validate(texts[3], "three"))
            assert steps["begun"] == 5
            assert await validity == ()
            await asyncio.sleep(10)
            assert len(ended) == 6
            assert ended.index("one running") < ended.index("many-1 running")
            assert ended.index("same running") < ended.index("many-2 running")
            assert steps["begun"] == 5
            # Known now, and so is what is wrong with a text.
            assert await engine.validate(texts[3], "three") == ()
            bad = large("bad", "sett: 1")
            problems = await engine.validate(bad, "three")
            assert [problem.pointer for problem in problems] == [f"/do/{TASKS_COUNT}/last"]
            begun = steps["begun"]
            small = document("  - one:\n      sett: {a: 1}\n")
            for _ in range(3):
                assert isinstance(await refusal_of(engine.submit(submission("bad", small))), DocumentRefused)
                assert len(await engine.validate(small, "three")) == 1
            assert steps["begun"] == begun + 1

    live(disk.clock, main())


def test_documents_that_wait_are_bounded_and_another_client_has_room(
    disk: Disk, steps: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "COMPILING_SIZE_CHARS_MAX", 3 * len(large("w-0")))

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            accepted = [engine.submit(submission(f"e-{n}", large(f"w-{n}"), client="many")) for n in range(3)]
            refused = await refusal_of(engine.submit(submission("e-3", large("w-3"), client="many")))
            assert isinstance(refused, AtCapacity)
            assert "3 documents wait to be compiled" in refused.message
            waiting_s = 3 * len(large("w-0")) * limits.COMPILE_S_PER_CHAR
            assert refused.retry_after_s == pytest.approx(waiting_s)
            assert isinstance(await refusal_of(engine.validate(large("w-4"), "many")), AtCapacity)
            assert steps["begun"] == 3
            # One that is known or on its way takes no room.
            accepted.append(engine.submit(submission("again", large("w-1"), client="many")))
            accepted.append(engine.submit(submission("other", large("w-5"), client="one")))
            assert await asyncio.gather(*accepted) == ["running"] * 5
            assert await engine.submit(submission("e-3", large("w-3"), client="many")) == "running"
            # The smallest count for something, too.
            monkeypatch.setattr(limits, "COMPILE_AT_ONCE_MS", 0)
            assert await engine.validate(document("  - one:\n      set: {a: 2}\n"), "many") == ()
            await turns(2)
            small = [document("  - one:\n      set: {a: 1}\n", name=f"small-{n}") for n in range(200)]
            answers = await asyncio.gather(
                *(engine.submit(submission(f"small-{n}", text, client="many")) for n, text in enumerate(small)),
                return_exceptions=True,
            )
            most = limits.COMPILING_SIZE_CHARS_MAX // limits.COMPILING_SIZE_CHARS_MIN
            taken = sum(answer == "running" for answer in answers)
            assert 0 <= taken - most <= 2
            assert {type(answer) for answer in answers} == {str, AtCapacity}

    live(disk.clock, main())


def test_what_nobody_waits_for_any_more_is_given_up(disk: Disk, steps: Counter[str]) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            validity = asyncio.ensure_future(engine.validate(large("w"), "one"))
            await turns(3)
            validity.cancel()
            await turns(5)
            before = steps["steps"]
            await asyncio.sleep(10)
            assert steps["steps"] == before
            assert await engine.validate(large("w"), "one") == ()

    live(disk.clock, main())


def test_worker_that_stops_sends_those_away_who_wait_for_a_plan(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            waiting = engine.submit(submission("e-0", large("w")))
            again = engine.submit(submission("e-0", large("w")))
            other = engine.submit(submission("e-0", SET))
            validity = asyncio.ensure_future(engine.validate(large("w"), "one"))
            await turns(1)
            await engine.quiesce(1)
            for each in (waiting, again, other, validity):
                assert isinstance(await refusal_of(each), Unavailable)
            assert isinstance(await refusal_of(engine.submit(submission("e-1", large("w")))), Unavailable)
            assert not engine._admission._memory.taken

    live(disk.clock, main())


def test_plans_are_spared_the_search_for_garbage(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And are freed all the same."""
    text = large("w")
    monkeypatch.setattr(limits, "COMPILED_UNSPARED_SIZE_CHARS_MAX", len(text))
    monkeypatch.setattr(limits, "PLANS_CACHED_MAX", 1)

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            gc.collect()
            before = gc.get_freeze_count()
            await engine.validate(text, "one")
            assert gc.get_freeze_count() > before + TASKS_COUNT
            spared = gc.get_freeze_count()
            await engine.validate(SET, "one")
            await turns(3)
            assert gc.get_freeze_count() < spared - TASKS_COUNT

    try:
        live(disk.clock, main())
    finally:
        gc.unfreeze()


# --- ids ---


def test_same_request_waits_with_the_first_and_another_for_its_fate(disk: Disk, steps: Counter[str]) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            first = engine.submit(submission("e-0", large("w")))
            again = engine.submit(submission("e-0", large("w")))
            other = engine.submit(submission("e-0", SET))
            assert "e-0" not in engine._shards.by_number[0].live
            assert (await first, await again) == ("running", "running")
            assert isinstance(await refusal_of(other), IdTaken)
            assert steps["begun"] == 1
            assert not engine._admission._memory.taken

    live(disk.clock, main())


def test_other_request_is_accepted_where_the_first_is_refused_for_its_document(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            first = engine.submit(submission("e-0", large("w", "sett: 1")))
            others = [engine.submit(submission("e-0", SET, input_json=b"%d" % n)) for n in range(2)]
            assert isinstance(await refusal_of(first), DocumentRefused)
            assert await others[0] == "running"
            assert isinstance(await refusal_of(others[1]), IdTaken)

    live(disk.clock, main())


def test_id_is_taken_once_the_first_request_is_durable_and_no_earlier(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            disk.commit_s = 3.0
            first = engine.submit(submission("e-0", WAIT))
            other = engine.submit(submission("e-0", SET))
            await asyncio.sleep(2)
            late = engine.submit(submission("e-0", SET))
            await asyncio.sleep(0.5)
            assert not first.done()
            assert not other.done()
            assert await first == "running"
            assert isinstance(await refusal_of(other), IdTaken)
            assert isinstance(await refusal_of(late), IdTaken)
            assert not engine._admission._memory.taken

    live(disk.clock, main())


def test_other_request_is_judged_anew_where_the_first_is_never_stored(disk: Disk) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            disk.fails = True
            first = engine.submit(submission("e-0", WAIT))
            other = engine.submit(submission("e-0", SET))
            await asyncio.sleep(0)
            assert isinstance(await refusal_of(first), StorageFull)
            # The disk refuses this one too; its id is free.
            assert isinstance(await refusal_of(other), StorageFull)
            disk.fails = False
            await asyncio.sleep(10)
            assert await engine.submit(submission("e-0", SET)) == "running"
            assert not engine._admission._memory.taken

    live(disk.clock, main())


def test_other_request_is_accepted_where_the_core_fails_on_the_first(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            first = engine.submit(submission("e-0", WAIT))
            other = engine.submit(submission("e-0", SET))
            execution = engine._shards.by_number[0].live["e-0"]
            execution.start = None
            monkeypatch.setattr(execution, "inbox", [("no outcome", None)])
            with pytest.raises(RuntimeError):
                await first
            assert await other == "running"

    live(disk.clock, main())


# --- memory ---


def test_what_is_refused_leaves_nothing_behind(disk: Disk) -> None:
    """A refusal keeps the request that it refuses alive no longer than somebody waits for it."""

    class Kept:
        """Stands in for a large input."""

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            await engine.submit(submission("e-0", SET))
            gc.collect()
            gc.disable()
            values = []
            for refused in ("e-0", "e-1"):
                asked = submission(refused, "do: 1")
                kept = Kept()
                asked.env_vars = _Variables(kept)
                values.append(weakref.ref(kept))
                await refusal_of(engine.submit(asked))
                del asked, kept
            await turns(3)
            assert [value() for value in values] == [None, None]

    try:
        live(disk.clock, main())
    finally:
        gc.enable()


class _Variables(dict[str, str]):
    def __init__(self, kept: object) -> None:
        super().__init__()
        self.kept = kept


def test_memory_of_what_waits_for_its_first_commit(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"[" + b",".join([b"1.5"] * 1_000) + b"]"
    value_size_bytes = 2 * len(text) + 1_000 * 64 + limits.UNCOMMITTED_EXECUTION_SIZE_BYTES
    monkeypatch.setattr(limits, "UNCOMMITTED_SIZE_BYTES_MAX", 10 * value_size_bytes)

    async def main() -> None:
        async with engine_at(disk, folder()) as engine:
            disk.commit_s = 3.0
            accepted = [engine.submit(submission(f"e-{n}", input_json=text, client="many")) for n in range(10)]
            refused = await refusal_of(engine.submit(submission("e-10", input_json=text, client="many")))
            assert isinstance(refused, AtCapacity)
            assert "wait for their first commit" in refused.message
            assert refused.retry_after_s == limits.UNCOMMITTED_SIZE_RETRY_S
            # One that waits for another's fate takes memory too; the same request again is answered with the first.
            assert isinstance(await refusal_of(engine.submit(submission("e-1", client="many"))), AtCapacity)
            accepted.append(engine.submit(submission("e-1", input_json=text, client="many")))
            accepted.append(engine.submit(submission("small", client="one")))
            assert await asyncio.gather(*accepted) == ["running"] * 12
            assert not engine._admission._memory.taken
            assert await engine.submit(submission("e-10", input_json=text, client="many")) == "running"

    live(disk.clock, main())
