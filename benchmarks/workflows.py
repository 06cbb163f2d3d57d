"""Documents the benchmarks run: generated, so that size is the only thing that varies."""

from typing import Any

import orjson


def shape(name: str, steps: int, endpoint: str = "") -> str:
    """A JSON document of so many steps: `set` tasks, or calls of an endpoint; side by side if the name begins with
    `fan_out`, else one after the other."""
    step: dict[str, Any] = {"set": {"counter": "${ .counter + 1 }"}}
    if endpoint:
        step = {"call": "http", "with": {"method": "get", "endpoint": endpoint}}
    tasks: list[dict[str, Any]] = [{f"step{number}": step} for number in range(steps)]
    if name.startswith("fan_out"):
        tasks = [{"all": {"fork": {"branches": tasks}}}]
    named = name.replace("_", "-")
    document = {"dsl": "1.0.3", "namespace": "bench", "name": named, "version": "1.0.0"}
    return orjson.dumps({"document": document, "do": tasks}).decode()


def set_tasks(count: int) -> str:
    """A JSON document of `count` `set` tasks, each adding one to a counter."""
    task = {"set": {"counter": "${ .counter + 1 }", "name": "benchmark"}}
    return orjson.dumps(
        {
            "document": {"dsl": "1.0.3", "namespace": "bench", "name": f"set-{count}", "version": "1.0.0"},
            "do": [{f"step{number}": task} for number in range(count)],
        }
    ).decode()


def approval(tasks: int = 0) -> str:
    """A JSON document that waits for the approval of its order, and then executes so many `set` tasks."""
    heard = {
        "with": {"type": "order.approved"},
        "correlate": {"order": {"from": ".data.order", "expect": "${ .order }"}},
    }
    document = {"dsl": "1.0.3", "namespace": "bench", "name": f"approval-{tasks}", "version": "1.0.0"}
    steps = [{f"step{number}": {"set": {"counter": number}}} for number in range(tasks)]
    listen = {"approved": {"listen": {"to": {"one": heard}}}}
    return orjson.dumps({"document": document, "do": [listen, *steps]}).decode()


def emitter(events: int) -> str:
    """A JSON document that emits so many events, one after the other."""
    document = {"dsl": "1.0.3", "namespace": "bench", "name": f"emit-{events}", "version": "1.0.0"}
    event = {"with": {"source": "https://bench.example", "type": "order.placed", "data": {"order": 7, "total": 129.5}}}
    steps = [{f"tell{number}": {"emit": {"event": event}}} for number in range(events)]
    return orjson.dumps({"document": document, "do": steps}).decode()


THREE_TASKS_YAML = """\
document:
  dsl: 1.0.3
  namespace: bench
  name: three
  version: 1.0.0
do:
- init: {set: {counter: 1}}
- check:
    switch:
    - big: {when: .counter > 10, then: end}
- add:
    set:
      counter: ${ .counter + 1 }
"""
