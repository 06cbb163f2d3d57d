"""What an execution waits for, in one sentence: in memory and out of it, before and after a start."""

import asyncio
import re
from pathlib import Path

import pytest

from fastrunner._core import EffectFailure
from fastrunner.engine import DefinitionRef
from fastrunner.engine.embedded.engine import EmbeddedEngine
from fastrunner.registry.file import RegistryFile
from tests.integration.engines import Performer, document, engine_on, folder, submission, until_status

HOUR = "  - rest:\n      wait: {hours: 1}\n"
ASK = "  - ask:\n      call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
FORK = (
    "  - both:\n      timeout: {after: {minutes: 30}}\n      fork:\n        branches:\n"
    "          - left:\n              wait: {hours: 1}\n"
    "          - right:\n              call: http\n              with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
)
MANY = "  - all:\n      fork:\n        branches:\n" + "".join(
    f"          - wait{number}:\n              wait: {{hours: 1}}\n" for number in range(5)
)
RETRYING = (
    "  - attempt:\n      try:\n        - ask:\n            call: http\n"
    "            with: {method: get, endpoint: 'http://127.0.0.1:1/x'}\n"
    "      catch:\n        errors: {}\n        retry:\n          delay: {hours: 1}\n"
    "          limit: {attempt: {count: 5}}\n"
)
UNLIMITED = RETRYING.replace("          limit: {attempt: {count: 5}}\n", "")
SUBFLOW = "  - sub:\n      run: {workflow: {namespace: tests, name: child, version: latest}}\n"
LISTEN = (
    "  - approved:\n      timeout: {after: {hours: 2}}\n      listen:\n        to:\n          any:\n"
    "            - with: {type: org.approved}\n            - with: {type: org.declined, source: 'https://org.test'}\n"
)
ANYTHING = "  - anything:\n      listen: {to: {any: []}}\n"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


async def told(engine: EmbeddedEngine, execution_id: str, pattern: str) -> None:
    """Waits until the sentence is of a form."""
    waiting = ""
    for _ in range(15_000):
        waiting = (await engine.get(execution_id)).waiting
        if re.fullmatch(pattern, waiting):
            return
        await asyncio.sleep(0.002)
    pytest.fail(f"{waiting!r} is not {pattern!r}")


CASES = {
    "timer": (HOUR, rf"waits until {TIME} in task 'rest' \(/do/0/rest\)"),
    "effect": (ASK, r"waits for (its turn to do|the outcome of) call: http in task 'ask' \(/do/0/ask\)"),
    "retry": (RETRYING, rf"retry 1 of 5 at {TIME} in task 'attempt' \(/do/0/attempt\)"),
    "unlimited": (UNLIMITED, rf"retry 1 at {TIME} in task 'attempt' \(/do/0/attempt\)"),
    "fork": (
        FORK,
        rf"waits until {TIME} in task 'left' \(/do/0/both/fork/branches/0/left\); waits for "
        rf"(its turn to do|the outcome of) call: http in task 'right' \(/do/0/both/fork/branches/1/right\), "
        rf"until {TIME} at the latest",
    ),
    "many": (MANY, rf"(waits until {TIME} in task 'wait\d' \(\S+\); ){{3}}and 2 more"),
    "listen": (
        LISTEN,
        rf"listens for events of type 'org.approved' or 'org.declined' in task 'approved' \(/do/0/approved\), "
        rf"until {TIME} at the latest",
    ),
    "anything": (ANYTHING, r"listens for events in task 'anything' \(/do/0/anything\)"),
    "subflow": (SUBFLOW, r"waits for execution 'subflow~1' in task 'sub' \(/do/0/sub\)"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_in_memory_and_out_of_it_and_after_a_start(name: str) -> None:
    tasks, pattern = CASES[name]
    path = folder()
    file = RegistryFile(path)
    file.register(DefinitionRef("tests", "child", "1.0.0"), document(HOUR, "child"), 1)
    performer = Performer()
    if tasks in (RETRYING, UNLIMITED):
        performer.failure = EffectFailure(0, "communication", 503, "Busy", "")
        performer.gate.set()

    async def live() -> None:
        async with engine_on(path, performer, definitions=file, listener=lambda _: None) as engine:
            await engine.submit(submission(name, document(tasks)))
            await told(engine, name, pattern)

    async def stored() -> None:
        async with engine_on(path, performer, definitions=file, listener=lambda _: None) as engine:
            await told(engine, name, pattern)
            await engine.cancel(name, "", force=True)
            view = await until_status(engine, name, "cancelled")
            assert view.waiting == f"has ended; its receiver has still to take {view.last_sequence} events"

    asyncio.run(live())
    asyncio.run(stored())
    file.close()


def test_paused_until_resumed() -> None:
    async def scenario(path: Path) -> None:
        async with engine_on(path) as engine:
            await engine.submit(submission("one", document(HOUR)))
            await told(engine, "one", rf"waits until {TIME} .*")
            await engine.pause("one", "")
            await told(engine, "one", r"paused by a caller, until it is resumed or cancelled")
            await engine.resume("one", "")
            await told(engine, "one", rf"waits until {TIME} .*")

    asyncio.run(scenario(folder()))


async def test_what_a_large_state_waits_for_is_told_in_memory_only(monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder()
    async with engine_on(path) as engine:
        await engine.submit(submission("large", document(HOUR), input_json=b'"' + b"x" * 2_000 + b'"'))
        await engine.submit(submission("small", document(HOUR)))
        monkeypatch.setattr("fastrunner.base.limits.WAITING_STATE_SIZE_BYTES_MAX", 1_500)
        await told(engine, "large", rf"waits until {TIME} .*")
    async with engine_on(path) as engine:
        await told(engine, "small", rf"waits until {TIME} .*")
        assert (await engine.get("large")).waiting == ""
