"""Moments of cron expressions in time zones: tables of both changes in three zones, and every minute of them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from fastrunner.events.schedules.cron import CronMoments

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
CHANGES = {
    # 02:00 becomes 03:00; 03:00 becomes 02:00.
    (BERLIN, "spring"): "2026-03-29",
    (BERLIN, "autumn"): "2026-10-25",
    # 02:00 becomes 03:00; 02:00 becomes 01:00.
    (NEW_YORK, "spring"): "2026-03-08",
    (NEW_YORK, "autumn"): "2026-11-01",
    # 02:00 becomes 02:30; 02:00 becomes 01:30.
    (LORD_HOWE, "spring"): "2026-10-04",
    (LORD_HOWE, "autumn"): "2026-04-05",
}
"""The days of 2026 on which clocks are changed."""
TABLE = [
    # What names its minutes and hours fires once a day: at the end of a gap, the first time of what comes twice.
    (BERLIN, "spring", "30 2 * * *", "03:00+0200"),
    (BERLIN, "spring", "0,30 2,3 * * *", "03:00+0200 03:30+0200"),
    (BERLIN, "spring", "0 1-4 * * *", "01:00+0100 03:00+0200 04:00+0200"),
    (BERLIN, "autumn", "30 2 * * *", "02:30+0200"),
    (BERLIN, "autumn", "0 1-4 * * *", "01:00+0200 02:00+0200 03:00+0100 04:00+0100"),
    (NEW_YORK, "spring", "15 2 * * *", "03:00-0400"),
    (NEW_YORK, "autumn", "15 1 * * *", "01:15-0400"),
    (NEW_YORK, "autumn", "0 0-2 * * *", "00:00-0400 01:00-0400 02:00-0500"),
    (LORD_HOWE, "spring", "0 2 * * *", "02:30+1100"),
    (LORD_HOWE, "spring", "30 2 * * *", "02:30+1100"),
    (LORD_HOWE, "autumn", "45 1 * * *", "01:45+1100"),
    (LORD_HOWE, "autumn", "0 1-2 * * *", "01:00+1100 02:00+1030"),
    # What has a star there follows the wall: it skips what is leapt over, and fires again in what comes twice.
    (BERLIN, "spring", "*/20 1-3 * * *", "01:00+0100 01:20+0100 01:40+0100 03:00+0200 03:20+0200 03:40+0200"),
    (BERLIN, "autumn", "*/30 2 * * *", "02:00+0200 02:30+0200 02:00+0100 02:30+0100"),
    (NEW_YORK, "spring", "*/30 2 * * *", ""),
    (NEW_YORK, "autumn", "*/30 1 * * *", "01:00-0400 01:30-0400 01:00-0500 01:30-0500"),
    (LORD_HOWE, "spring", "*/15 2 * * *", "02:30+1100 02:45+1100"),
    (LORD_HOWE, "autumn", "*/15 1 * * *", "01:00+1100 01:15+1100 01:30+1100 01:45+1100 01:30+1030 01:45+1030"),
    (LORD_HOWE, "autumn", "*/30 2 * * *", "02:00+1030 02:30+1030"),
]


def day_of(zone: str, season: str) -> tuple[int, int]:
    """Beginning and end of the day of a change, in milliseconds."""
    begin = datetime.fromisoformat(CHANGES[zone, season]).replace(tzinfo=ZoneInfo(zone))
    return int(begin.timestamp() * 1000), int((begin + timedelta(days=1)).timestamp() * 1000)


@pytest.mark.parametrize(("zone", "season", "expression", "expected"), TABLE)
def test_days_on_which_clocks_are_changed(zone: str, season: str, expression: str, expected: str) -> None:
    found = CronMoments(expression, zone).first(*day_of(zone, season), 1000)
    shown = [datetime.fromtimestamp(each / 1000, ZoneInfo(zone)).strftime("%H:%M%z") for each in found]
    assert shown == expected.split()
    assert len(set(found)) == len(found)


def minutes_that_match(expression: str, zone: str, begin_ms: int, end_ms: int) -> Iterator[int]:
    for moment_ms in range(begin_ms, end_ms, 60_000):
        local = datetime.fromtimestamp(moment_ms / 1000, ZoneInfo(zone)).replace(tzinfo=None, fold=0)
        if next(CronSim(expression, local - timedelta(minutes=1))) == local:
            yield moment_ms


@pytest.mark.parametrize(("zone", "season"), CHANGES)
@pytest.mark.parametrize("expression", ["*/7 1-3 * * *", "0 * * * *", "* 1 * * *", "45 */2 * * *"])
def test_what_follows_the_wall_is_every_minute_that_matches(zone: str, season: str, expression: str) -> None:
    begin_ms, end_ms = day_of(zone, season)
    moments = CronMoments(expression, zone)
    expected = list(minutes_that_match(expression, zone, begin_ms, end_ms))
    assert moments.first(begin_ms, end_ms, 10_000) == expected
    assert moments.last(begin_ms - 1, end_ms - 1, 3) == expected[-3:]


@pytest.mark.parametrize("expression", ["*/5 2 * * *", "30 2 * * *"])
@pytest.mark.parametrize(("zone", "season"), CHANGES)
def test_wherever_one_begins_the_moments_are_the_same(zone: str, season: str, expression: str) -> None:
    """Also within an hour that comes twice, or right at the end of a gap."""
    begin_ms, end_ms = day_of(zone, season)
    moments = CronMoments(expression, zone)
    all_of_them = moments.first(begin_ms, end_ms, 1000)
    for at_ms in range(begin_ms, end_ms, 300_000):
        assert moments.first(at_ms, end_ms, 1000) == [each for each in all_of_them if each >= at_ms]


def test_across_years() -> None:
    """A year's moments, summer and winter, keep to the clock on the wall."""
    begin_ms = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)
    for zone in (BERLIN, NEW_YORK, LORD_HOWE, "UTC"):
        for expression in ("0 12 1 * *", "*/60 12 1 * *"):
            found = CronMoments(expression, zone).first(begin_ms, begin_ms + 366 * 86_400_000, 100)
            local = [datetime.fromtimestamp(each / 1000, ZoneInfo(zone)) for each in found]
            assert [(each.day, each.hour, each.minute) for each in local] == [(1, 12, 0)] * len(local)
            assert len(local) in (12, 13)
    leap = CronMoments("0 0 29 2 *", "UTC").last(0, begin_ms, 2)
    assert [datetime.fromtimestamp(each / 1000, UTC).year for each in leap] == [2020, 2024]


@pytest.mark.parametrize(
    ("expression", "zone", "says"),
    [("0 0 30 2 *", "UTC", "a day that no year has"), ("0 0 * * *", "Europe/Berlinn", "no time zone 'Europe/Berlinn'")],
)
def test_what_never_comes(expression: str, zone: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CronMoments(expression, zone)
