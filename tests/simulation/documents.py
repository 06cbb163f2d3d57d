"""Support: what the simulated runner executes: documents that clients send, and workflows that these run."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.integration.engines import document

__all__ = ["CHILDREN", "DEFINITIONS", "DOCUMENTS", "HEARS", "LISTENING", "NEWS", "OUTPUTS", "PAIRS"]

_CALL = "call: http, with: {method: get, endpoint: 'http://127.0.0.1:1/x'}"
_SHELL = "run: {shell: {command: 'true'}"


def _run(name: str, more: str = "", outer: str = "") -> str:
    return f"run: {{workflow: {{namespace: tests, name: {name}, version: latest{more}}}{outer}}}"


def _for_it(event_type: str, more: str = "", whose: str = "$workflow.id") -> str:
    """A filter of events that are for the execution itself, or for somebody else."""
    job = f"job: {{from: .data.to, expect: '${{ {whose} }}'}}"
    return f"{{with: {{type: {event_type}}}, correlate: {{{job}{more}}}}}"


def _hear(strategy: str) -> str:
    return f"  - hear: {{listen: {{to: {{{strategy}}}}}}}\n  - told: {{set: {{heard: '${{ map(.k) }}'}}}}\n"


DEFINITIONS: Mapping[str, str] = {
    "add": document("  - add: {set: {n: '${ .n + 1 }'}}\n", "add"),
    "asks": document(f"  - ask: {{{_CALL}}}\n  - done: {{set: {{n: 1}}}}\n", "asks"),
    "rests": document(
        f"  - rest: {{wait: {{seconds: 2}}}}\n  - ask: {{{_CALL}}}\n  - done: {{set: {{n: 5}}}}\n", "rests"
    ),
    "middle": document(
        f"  - sub: {{{_run('asks')}}}\n  - shell: {{{_SHELL}}}}}\n  - done: {{set: {{n: 7}}}}\n", "middle"
    ),
    "ear": document(_hear(f"one: {_for_it('a', whose='$workflow.input.to')}"), "ear"),
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
    **dict.fromkeys(("family", "middle", "detached", "hear-child"), range(1, 2)),
    "subflow": range(2, 3),
    "fan": range(3, 4),
    "given-up": range(3),
    # Four times again.
    "retried": range(1, 6),
}
"""How many children one has had that has completed; those that are not here have none."""


def _round(count: int, *tasks: str) -> str:
    """So many times the same."""
    return (
        f"  - rounds:\n      for: {{each: i, in: '[range({count})]'}}\n      do:\n"
        + "".join(tasks)
        + "  - told: {set: {heard: '${ $context }'}}\n"
    )


def _hear_in_round(event_type: str) -> str:
    listen = f"listen: {{to: {{one: {_for_it(event_type)}}}}}"
    return f"        - hear: {{{listen}, export: {{as: '${{ ($context // []) + map(.k) }}'}}}}\n"


def _say(event_type: str) -> str:
    """Emits an event for the partner, until it is published."""
    data = "{to: '${ $workflow.input.to }', by: '${ $workflow.id }', k: '${ $i }'}"
    return (
        "        - say:\n            try:\n"
        f"              - emit: {{emit: {{event: {{with: {{type: {event_type}, data: {data}}}}}}}}}\n"
        "            catch: {errors: {}, retry: {delay: {milliseconds: 300}}}\n"
    )


_EACH = "foreach: {item: e, do: [{rest: {wait: {milliseconds: 20}}}, {note: {set: {k: '${ $e.k }'}}}]}"

LISTENING: Mapping[str, str] = {
    "hear-one": document(_hear(f"one: {_for_it('a')}")),
    "hear-all": document(_hear(f"all: [{_for_it('a')}, {_for_it('b')}, {_for_it('c')}]")),
    "hear-any": document(_hear(f"any: [{_for_it('a')}, {_for_it('b')}]")),
    "hear-until": document(_hear(f"any: [{_for_it('a')}], until: '${{ length >= 4 }}'")),
    "hear-stop": document(
        f"  - hear:\n      listen:\n        to:\n          any: [{_for_it('a')}, {_for_it('b')}]\n"
        f"          until: {{one: {_for_it('stop')}}}\n"
        f"      {_EACH}\n  - told: {{set: {{heard: '${{ map(.k) }}'}}}}\n"
    ),
    "hear-loop": document(_round(5, _hear_in_round("a"))),
    "hear-fork": document(
        "  - both:\n      fork:\n        branches:\n"
        + "".join(f"          - {name}: {{listen: {{to: {{one: {_for_it('a')}}}}}}}\n" for name in ("left", "right"))
        + f"  - hear: {{listen: {{to: {{one: {_for_it('a')}}}}}, input: {{from: .}}, "
        "output: {as: '${ $input + [.] }'}}\n"
        "  - told: {set: {heard: '${ map(.[].k) }'}}\n"
    ),
    "hear-child": document("  - sub: {" + _run("ear", ", input: {to: '${ $workflow.id }'}") + "}\n"),
    "hear-room": document(
        "  - room:\n      listen:\n        to:\n"
        f"          any: [{_for_it('a', ', room: {from: .data.room}')}]\n          until: '${{ length >= 3 }}'\n"
        "      export: {as: '${ map(.k) }'}\n"
        f"  - rest: {{listen: {{to: {{one: {_for_it('a')}}}}}, export: {{as: '${{ $context + map(.k) }}'}}}}\n"
        "  - told: {set: {heard: '${ $context }'}}\n"
    ),
    "hear-late": document(
        f"  - early:\n      try:\n        - hear: {{listen: {{to: {{one: {_for_it('a')}}}}}, "
        "timeout: {after: {milliseconds: 200}}, export: {as: '${ map(.k) }'}}\n"
        "      catch: {errors: {with: {status: 408}}}\n"
        "  - race:\n      fork:\n        compete: true\n        branches:\n"
        f"          - hear: {{listen: {{to: {{one: {_for_it('b')}}}}}}}\n"
        "          - rest: {wait: {milliseconds: 30}}\n"
        f"  - hear: {{listen: {{to: {{one: {_for_it('a')}}}}}, export: {{as: '${{ ($context // []) + map(.k) }}'}}}}\n"
        "  - told: {set: {heard: '${ $context }'}}\n"
    ),
}
"""Documents that wait for events from outside, by name."""

NEWS: Mapping[str, str] = {
    "news-loop": document(
        _round(4, "        - hear: {listen: {to: {one: {with: {type: news}}}}, "
               "export: {as: '${ ($context // []) + map(.k) }'}}\n")
    ),
    "news-slow": document(
        "  - hear:\n      listen: {to: {any: [{with: {type: news}}], until: '${ length >= 5 }'}}\n"
        f"      {_EACH}\n  - told: {{set: {{heard: '${{ map(.k) }}'}}}}\n"
    ),
}  # fmt: skip
"""Documents that hear what is for everybody, by name."""

PAIRS: Mapping[str, tuple[str, str]] = {
    "ping": (document(_round(4, _say("a"), _hear_in_round("a"))), document(_round(4, _hear_in_round("a"), _say("a")))),
    "emits": (document(_round(6, _say("a"))), LISTENING["hear-loop"]),
}
"""Documents of which one emits what the other waits for, by name."""


def _first(count: int) -> Callable[[list[dict[str, Any]]], list[int]]:
    return lambda events: [event["data"]["k"] for event in events if event["type"] in ("a", "news")][:count]


def _of_each_type(events: list[dict[str, Any]]) -> list[int]:
    first: dict[str, int] = {}
    for event in events:
        first.setdefault(event["type"], event["data"]["k"])
    return list(first.values())


def _until_stop(events: list[dict[str, Any]]) -> list[int]:
    types = [event["type"] for event in events]
    return [event["data"]["k"] for event in events[: types.index("stop")]]


def _of_a_room(events: list[dict[str, Any]]) -> list[int]:
    room = events[0]["data"]["room"]
    heard = [event["data"]["k"] for event in events if event["data"]["room"] == room][:3]
    return heard + [event["data"]["k"] for event in events if event["data"]["k"] not in heard][:1]


HEARS: Mapping[str, Callable[[list[dict[str, Any]]], list[int]]] = {
    "hear-one": _first(1),
    "hear-all": _of_each_type,
    "hear-any": lambda events: [event["data"]["k"] for event in events][:1],
    "hear-until": _first(4),
    "hear-stop": _until_stop,
    "hear-loop": _first(5),
    "hear-fork": lambda events: [k for k in _first(2)(events) for _ in range(2)][:3],
    "hear-child": _first(1),
    "hear-room": _of_a_room,
    "news-loop": _first(4),
    "news-slow": _first(5),
    "hear-late": _first(2),
    "ping 0": _first(4),
    "ping 1": _first(4),
    "emits 0": lambda events: [],
    "emits 1": _first(5),
}
"""What one has heard when it has completed, of all events for it in their order, by the kind of job."""
