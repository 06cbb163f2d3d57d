"""Stage 3, journal: schedules: executions that start by the clock, or by events.

On one machine their truth is one file in the data directory, `schedules.db`, that every worker reads and writes
(`file`); a row is `rows`. `book` is a worker's door to the file; `leader` has the looks, in one worker at a time.
`look` fires what is due of one schedule, for whoever keeps it: `planner` says what that is and when the next look is
due, of moments that it is given; `cron` knows the moments of cron expressions in a time zone, `occasions` what events
satisfy.

Rule: what fires has an id made of its schedule and its moment, so whoever fires it again starts nothing.
"""
