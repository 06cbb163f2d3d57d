"""A workflow with functions of its own, as a client sees it: through restarts of the engine, and from the command."""

import json
from pathlib import Path

from tests.integration.commands import fastrunner
from tests.integration.engines import (
    Performer,
    all_events,
    assert_whole,
    engine_on,
    folder,
    submission,
    until,
    until_status,
)

DOCUMENT = """\
document: {dsl: '1.0.3', namespace: tests, name: pets, version: '1.0.0'}
use:
  functions:
    getPet:
      input:
        schema: {document: {type: object, required: [id], properties: {id: {type: integer}}}}
      call: http
      with: {method: get, endpoint: 'http://127.0.0.1:1/pets/{id}'}
    describe:
      do:
        - fetch: {call: getPet, with: {id: '${ .number }'}}
        - tell: {set: '{answer: .answer}'}
do:
  - all:
      for: {each: number, in: '.numbers'}
      do:
        - one: {call: describe, with: {number: '${ $number }'}, output: {as: '{numbers: [], last: .}'}}
"""


async def test_a_call_in_flight_goes_on_after_a_restart() -> None:
    where = folder()
    before, after = Performer(), Performer()
    async with engine_on(where, before) as engine:
        await engine.submit(submission("one", DOCUMENT, input_json=b'{"numbers": [7, 8]}'))
        await until(lambda: before.performed, "the call")
    async with engine_on(where, after) as engine:
        after.gate.set()
        view = await until_status(engine, "one", "completed")
        assert json.loads(view.output_json) == {"numbers": [], "last": {"answer": 42}}
        await assert_whole(engine, "one", "workflow_completed")
        events = await all_events(engine, "one")
    assert [effect.idempotency_key for effect in after.performed[:1]] == [before.performed[0].idempotency_key]
    assert [arguments["uri"] for arguments in after.arguments] == [
        "http://127.0.0.1:1/pets/7",
        "http://127.0.0.1:1/pets/8",
    ]
    place = "/do/0/all/do/0/one/call/describe/do/0/fetch/call/getPet"
    assert [list(event.iteration) for event in events if event.task_reference == place] == [[0], [0], [1], [1]]


def test_the_command_shows_functions_below_their_calls(tmp_path: Path) -> None:
    file = tmp_path / "functions.yaml"
    file.write_text(
        DOCUMENT.replace(
            "call: http\n      with: {method: get, endpoint: 'http://127.0.0.1:1/pets/{id}'}", "set: {answer: 1}"
        )
    )
    done = fastrunner("run", str(file), "--input", '{"numbers": [1]}')
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["last"] == {"answer": 1}
    assert "getPet" in done.stderr
