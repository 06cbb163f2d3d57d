"""Documents the benchmarks run: generated, so that size is the only thing that varies."""

import orjson


def set_tasks(count: int) -> str:
    """A JSON document of `count` `set` tasks, each adding one to a counter."""
    task = {"set": {"counter": "${ .counter + 1 }", "name": "benchmark"}}
    return orjson.dumps(
        {
            "document": {"dsl": "1.0.3", "namespace": "bench", "name": f"set-{count}", "version": "1.0.0"},
            "do": [{f"step{number}": task} for number in range(count)],
        }
    ).decode()


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
