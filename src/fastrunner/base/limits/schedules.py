"""Stage 3, journal: the bounds of schedules."""

from typing import Final

SCHEDULES_COUNT_MAX: Final = 10_000
"""Schedules of a runner: all of them due at once are looked at in some seconds."""

SCHEDULE_ID_SIZE_BYTES_MAX: Final = 200
"""A schedule's id: with a moment behind it, it is still an execution's id."""

SCHEDULE_KEY_SIZE_BYTES_MAX: Final = 48
"""What tells one call to fire from another: a UUID and a little more."""

SCHEDULE_INTERVAL_MS_MIN: Final = 100
"""Least `every` and `after`: each fire is a commit of an execution and one of the schedule."""

SCHEDULE_JITTER_MS_MAX: Final = 3_600_000
"""Most that moments are put off: an hour spreads what a whole site has put at midnight."""

SCHEDULE_LATE_MS_MAX: Final = 10_000
"""How late a moment is still on time: another worker takes over sooner, and a rolling restart does not take as long."""

SCHEDULE_CLOCK_BACK_MS: Final = 60_000
"""A moment is fired once though the clock is set back by less; what is beyond was fired while the clock was wrong."""

SCHEDULE_MISFIRES_DEFAULT: Final = 100
"""Missed moments that are made up for with `all`, unless a schedule says otherwise: an hour and a half of minutes."""

SCHEDULE_MISFIRES_MAX: Final = 1_000
"""Most that it may say, and missed cron moments that are counted: they come all at once."""

SCHEDULE_QUEUE_DEFAULT: Final = 100
"""Moments that wait for the end of an execution, unless a schedule says otherwise."""

SCHEDULE_QUEUE_MAX: Final = 1_000
"""Most that it may say: they lie in one row."""

SCHEDULE_BACKFILL_MAX: Final = 1_000
"""Moments that one call makes up for: each is an execution, and the caller waits for all of them."""

SCHEDULES_BY_EVENTS_MAX: Final = 200
"""Schedules of a runner that start by events: each of them looks at each event, which takes some microseconds."""

SCHEDULE_EVENTS_MAX: Final = 100
"""Events that schedules take at a time: some tens of milliseconds; none is passed over until all have settled it."""

SCHEDULE_LOOK_INTERVAL_S: Final = 0.25
"""How often whoever fires looks for schedules that others have added, and whoever does not, whether he has to."""

SCHEDULE_RETRY_INTERVAL_S: Final = 1.0
"""After how long a moment that could not fire now is tried again."""

SCHEDULE_START_S_MAX: Final = 15.0
"""How long the acceptance of an execution is waited for before it is asked for again: longer than for an owner's
successor."""

SCHEDULE_END_LOOK_MS_MIN: Final = 100
"""How often is looked whether an execution has ended, at most."""

SCHEDULE_END_LOOK_MS_MAX: Final = 2_000
"""And at least: `after` counts from its end, so a later look puts nothing off that is longer."""

SCHEDULES_AT_ONCE_MAX: Final = 200
"""Schedules that are being fired at a time: others wait in the file."""
