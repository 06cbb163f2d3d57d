"""Support: what the simulated runner executes: documents that clients send, and workflows that these run."""

from collections.abc import Mapping

from tests.integration.engines import document

__all__ = ["CHILDREN", "DEFINITIONS", "DOCUMENTS", "OUTPUTS"]

_CALL = "call: http, with: {method: get, endpoint: 'http://127.0.0.1:1/x'}"
_SHELL = "run: {shell: {command: 'true'}"


def _run(name: str, more: str = "", outer: str = "") -> str:
    return f"run: {{workflow: {{namespace: tests, name: {name}, version: latest{more}}}{outer}}}"


DEFINITIONS: Mapping[str, str] = {
    "add": document("  - add: {set: {n: '${ .n + 1 }'}}\n", "add"),
    "asks": document(f"  - ask: {{{_CALL}}}\n  - done: {{set: {{n: 1}}}}\n", "asks"),
    "rests": document(
        f"  - rest: {{wait: {{seconds: 2}}}}\n  - ask: {{{_CALL}}}\n  - done: {{set: {{n: 5}}}}\n", "rests"
    ),
    "middle": document(
        f"  - sub: {{{_run('asks')}}}\n  - shell: {{{_SHELL}}}}}\n  - done: {{set: {{n: 7}}}}\n", "middle"
    ),
}
"""Registered workflows by name."""

DOCUMENTS: Mapping[str, str] = {
    "chain": document("".join(f"  - step{n}: {{set: {{n: '${{ .n + 1 }}'}}}}\n" for n in range(12))),
    "calls": document("".join(f"  - ask{n}: {{{_CALL}}}\n  - keep{n}: {{set: {{n: {n}}}}}\n" for n in range(4))),
    "retry": document(
        f"  - careful:\n      try:\n        - ask: {{{_CALL}}}\n        - done: {{set: {{n: 1}}}}\n"
        "      catch:\n        errors: {}\n        retry: {delay: {milliseconds: 300}, limit: {attempt: {count: 4}}}\n"
    ),
    "waits": document(
        "  - short: {wait: {milliseconds: 40}}\n  - long: {wait: {seconds: 20}}\n  - done: {set: {n: 1}}\n"
    ),
    "fork": document(
        "  - both:\n      fork:\n        branches:\n"
        f"          - left: {{{_CALL}}}\n          - right: {{wait: {{seconds: 2}}}}\n"
        f"  - race:\n      fork:\n        compete: true\n        branches:\n          - call: {{{_CALL}}}\n"
        "          - rest: {wait: {milliseconds: 30}}\n"
        "  - done: {set: {n: 1}}\n"
    ),
    "loop": document(
        "  - pages:\n      for: {each: page, in: '[range(30)]'}\n"
        "      do:\n        - add: {set: {n: '${ .n + $page }'}}\n"
    ),
    "late": document(
        f"  - slow:\n      timeout: {{after: {{milliseconds: 15}}}}\n      try:\n        - ask: {{{_CALL}}}\n"
        "      catch: {errors: {with: {type: https://serverlessworkflow.io/spec/1.0.0/errors/none}}}\n"
        "  - done: {set: {n: 1}}\n"
    ),
    "fault": document(
        f"  - careful:\n      try:\n        - ask: {{{_CALL[:-1]}, body: '${{ error(\"no body\") }}'}}}}\n"
        "      catch: {errors: {with: {status: 400}}}\n  - done: {set: {n: 1}}\n"
    ),
    "shell": document(
        f"  - one: {{{_SHELL}}}}}\n  - ask: {{{_CALL}}}\n  - other: {{{_SHELL}, await: false}}}}\n"
        "  - done: {set: {n: 1}}\n"
    ),
    "subflow": document(
        f"  - sub: {{{_run('add', ', input: {n: 4}')}}}\n  - other: {{{_run('asks')}}}\n"
        "  - add: {set: {n: '${ .n + 1 }'}}\n"
    ),
    "family": document(f"  - sub: {{{_run('middle')}}}\n"),
    "fan": document(
        "  - all:\n      fork:\n        branches:\n"
        + "".join(f"          - {name}: {{{_run(name, ', input: {n: 0}')}}}\n" for name in ("add", "asks", "rests"))
        + "  - done: {set: {n: 1}}\n"
    ),
    "given-up": document(
        f"  - race:\n      fork:\n        compete: true\n        branches:\n          - sub: {{{_run('rests')}}}\n"
        "          - rest: {wait: {milliseconds: 30}}\n"
        f"  - safe:\n      try:\n        - late: {{{_run('asks')}, timeout: {{after: {{milliseconds: 15}}}}}}\n"
        "      catch: {errors: {with: {status: 408}}}\n"
        "  - done: {set: {n: 1}}\n"
    ),
    "retried": document(
        f"  - careful:\n      try:\n        - sub: {{{_run('asks')}}}\n"
        "      catch:\n        errors: {}\n        retry: {delay: {milliseconds: 300}, limit: {attempt: {count: 4}}}\n"
    ),
    "detached": document(f"  - sub: {{{_run('rests', outer=', await: false')}}}\n  - done: {{set: {{n: 1}}}}\n"),
    "endless": document("  - again: {set: {n: 1}, then: rest}\n  - rest: {wait: {milliseconds: 500}, then: again}\n"),
}
"""Documents by name."""

OUTPUTS: Mapping[str, str] = {
    **dict.fromkeys(("fault", "shell", "fan", "given-up", "detached", "retried", "asks"), '{"n":1}'),
    "chain": '{"n":12}',
    "loop": '{"n":435}',
    "subflow": '{"n":2}',
    "rests": '{"n":5}',
    **dict.fromkeys(("family", "middle"), '{"n":7}'),
}
"""Outputs of those that come to one whatever happens, of documents and registered workflows."""

CHILDREN: Mapping[str, range] = {
    **dict.fromkeys(("family", "middle", "detached"), range(1, 2)),
    "subflow": range(2, 3),
    "fan": range(3, 4),
    "given-up": range(3),
    "retried": range(1, 5),
}
"""How many children one has had that has completed; those that are not here have none."""
