"""Stage 3, journal: CloudEvents: what `emit` publishes and what enters from outside, for all workers of a runner.

Its truth is one file in the data directory, `events.db`, that every process writes and reads (see `file`): one order of
all events, one place that settles duplicates, and no process whose absence holds events up. `bus` is a process's door
to it; `attributes` says what an event may be, whichever way it comes.

Rule: an event is durable before its sender hears of it, and stays until everybody who follows has passed it.
"""
