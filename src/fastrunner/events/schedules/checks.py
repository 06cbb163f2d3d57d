"""Stage 3, journal: what is refused of a schedule before anybody keeps it.

Rule: wherever it would be kept, so it is refused alike.
"""

from fastrunner.engine.schedules import Schedule
from fastrunner.errors import InvalidRequest
from fastrunner.events.schedules.cron import cron_moments, zone_of
from fastrunner.events.schedules.occasions import strategy_of

__all__ = ["check_schedule"]


def check_schedule(schedule: Schedule) -> None:
    """Raises InvalidRequest for a zone or a cron expression that there is not."""
    try:
        zone_of(schedule.options.timezone)
    except ValueError as error:
        raise InvalidRequest("options.timezone", f"options.timezone: {error}") from None
    if schedule.trigger.on is not None:
        try:
            strategy_of(schedule.trigger)
        except ValueError as error:
            raise InvalidRequest("trigger.on", f"schedule.on: {error}") from None
    if schedule.trigger.cron:
        try:
            cron_moments(schedule.trigger.cron, schedule.options.timezone)
        except ValueError as error:
            raise InvalidRequest("trigger.cron", f"schedule.cron: {error}") from None
