"""What documents ask for that the distributed engine refuses: wherever a history would have a secret."""

import pytest

from fastrunner._core import compile as compiled
from fastrunner.engine.temporal.supported import problems_of
from tests.integration.engines import document

SECRET = "${ $secrets.token }"
ASKING = "http, with: {method: get, endpoint: 'http://127.0.0.1:1/', headers: {X: '" + SECRET + "'}}"
CONSUMING = (
    "{call: asyncapi, with: {document: {endpoint: 'https://e.org/a.yaml'}, channel: c,"
    " authentication: {bearer: {token: '" + SECRET + "'}}, subscription: {consume: {amount: 1}, %s}}}"
)


@pytest.mark.parametrize(
    ("tasks", "use", "pointer"),
    [
        (f"{{set: {{a: '{SECRET}'}}}}", "", "/do/0/it/set"),
        (f"{{if: '{SECRET}', set: {{a: 1}}}}", "", "/do/0/it/if"),
        (f"{{emit: {{event: {{with: {{type: t, source: 'http://s', data: '{SECRET}'}}}}}}}}", "", "/do/0/it/emit"),
        (
            f"{{run: {{workflow: {{namespace: a, name: b, version: 1.0.0, input: {{a: '{SECRET}'}}}}}}}}",
            "",
            "/do/0/it/run",
        ),
        (
            f"{{call: f, with: {{a: '{SECRET}'}}}}",
            f"functions: {{f: {{call: {ASKING}}}}}",
            "/do/0/it/with",
        ),
        (
            "{try: [{ask: {call: " + ASKING + "}}], catch: {retry: again}}",
            f"retries: {{again: {{when: '{SECRET}', delay: PT1S}}}}",
            "/use/retries/again",
        ),
        (CONSUMING % f"filter: '{SECRET}'", "", "/do/0/it/with/subscription/filter"),
        (
            CONSUMING % ("foreach: {do: [{a: {call: " + ASKING + "}}, {b: {set: {a: '" + SECRET + "'}}}]}"),
            "",
            "/do/0/it/with/subscription/foreach/do/1/b/set",
        ),
    ],
    ids=["set", "if", "emit", "run workflow", "function", "retry", "filter", "foreach"],
)
def test_secrets_that_a_history_would_have_are_refused(tasks: str, use: str, pointer: str) -> None:
    """Wherever the walk, another execution, or the bus would have to know them; not where calls are given them."""
    text = document(f"  - it: {tasks}\n").replace("do:\n", f"use: {{secrets: [token], {use}}}\ndo:\n", 1)
    problems = problems_of(compiled(text))
    assert [(each.code, each.pointer) for each in problems] == [("unsupported", pointer)]
