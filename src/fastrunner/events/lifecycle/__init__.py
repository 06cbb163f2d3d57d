"""Stage 6, events: the DSL's lifecycle CloudEvents: what becomes of every execution and its tasks, for sinks outside.

    rows of events of a shard -> translate -> sinks (`events/sinks/delivery`) -> positions

`translate` makes them of progress events, `sender` sends them, `positions` keeps how far each sink has come.

Rules: they are made of what is durable anyway, when they are sent: executions pay nothing for them. Each worker sends
those of its own shards. A sink gets each event at least once, in order for each execution, and with the same id.
"""
