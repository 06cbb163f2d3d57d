"""Stage 3, journal: schedules: executions that start by the clock, or by events.

Their truth is one file in the data directory, `schedules.db`, that every worker reads and writes (`file`). `planner`
says what is to fire and when the next look is due, of moments that it is given; `cron` knows the moments of cron
expressions in a time zone, `occasions` what events satisfy. `book` is a worker's door to the file; `leader` fires, in
one worker at a time.

Rule: what fires has an id made of its schedule and its moment, so whoever fires it again starts nothing.
"""
