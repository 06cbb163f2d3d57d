"""What schedules fire, of moments given: policies, clocks that step, jitter, ranges; nothing twice, no gap."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from fastrunner.base import limits
from fastrunner.engine.schedules import Misfire, Overlap, Schedule, ScheduleOptions, Trigger
from fastrunner.errors import InvalidRequest
from fastrunner.events.schedules import planner
from fastrunner.events.schedules.planner import Fire, Progress

BEGIN_MS = 1_790_000_000_000
LATE_MS = limits.SCHEDULE_LATE_MS_MAX
DAY_MS = 86_400_000


def schedule(trigger: Trigger, **options: Any) -> Schedule:
    return Schedule("s", "n", "w", "1.0.0", trigger, ScheduleOptions(**options), b"", BEGIN_MS)


class Firing:
    """A schedule, looked at whenever the test says; executions end when they start."""

    def __init__(self, of: Schedule) -> None:
        self.schedule = of
        self.progress = planner.begun(of)
        self.ids: list[str] = []
        self.missed_count = 0
        self.next_ms = 0

    def look(self, now_ms: int) -> list[int]:
        """The moments that fire, in seconds since the beginning."""
        due = planner.due(self.schedule, self.progress, now_ms)
        self.progress, self.next_ms = due.progress, due.next_ms
        self.missed_count += due.missed_count
        for fire in due.fires:
            execution_id = fire.execution_id("s")
            self.ids.append(execution_id)
            self.progress = planner.settled(self.progress, fire, execution_id)
        return [(fire.moment_ms - BEGIN_MS) // 1000 for fire in due.fires]


def every(ms: int = 1000, **options: Any) -> Firing:
    return Firing(schedule(Trigger(every_ms=ms), **options))


def test_each_second_fires_once() -> None:
    """However often one looks."""
    firing = every()
    found = [second for ms in range(0, 20_000, 130) for second in firing.look(BEGIN_MS + ms)]
    assert found == list(range(1, 20))
    assert firing.next_ms == BEGIN_MS + 20_000
    assert firing.ids[0] == "s~2026-09-21T14:13:21Z"


@pytest.mark.parametrize(
    ("misfire", "made_up"), [(Misfire.SKIP, []), (Misfire.ONCE, [90]), (Misfire.ALL, list(range(2, 91)))]
)
def test_what_becomes_of_missed_moments(misfire: Misfire, made_up: list[int]) -> None:
    """Nobody fires for a hundred seconds: the last ten are on time still, the others are for the policy."""
    firing = every(misfire=misfire, misfire_count_max=1000)
    assert firing.look(BEGIN_MS + 1_000) == [1]
    assert firing.look(BEGIN_MS + 101_000) == made_up + list(range(91, 102))
    assert firing.missed_count == 89 - len(made_up)
    assert firing.look(BEGIN_MS + 101_500) == []


def test_what_is_made_up_for_is_bounded() -> None:
    """After ten years, and at once: neither the number of moments nor the time it takes grows."""
    for trigger in (Trigger(every_ms=1000), Trigger(cron="* * * * *")):
        firing = Firing(schedule(trigger, misfire=Misfire.ALL, misfire_count_max=7))
        now_ms = BEGIN_MS + 3650 * DAY_MS
        found = firing.look(now_ms)
        assert found == sorted(found)
        assert len(found) <= 7 + LATE_MS // 1000 + 1
        assert (now_ms - BEGIN_MS) // 1000 - found[0] <= LATE_MS // 1000 + 8 * 60
        assert firing.look(now_ms) == []
    assert firing.missed_count == limits.SCHEDULE_MISFIRES_MAX - 7


def test_the_clock_goes_forward() -> None:
    """The leap is as if nobody had been there to fire."""
    firing = every()
    firing.look(BEGIN_MS + 1_000)
    assert firing.look(BEGIN_MS + 3_600_000)[0] == 3_600 - LATE_MS // 1000 - 1
    assert firing.look(BEGIN_MS + 3_601_000) == [3_601]


def test_the_clock_goes_back() -> None:
    """Every second goes on within two, under ids of their own; then the time comes again, and nothing twice."""
    firing = every()
    for second in range(1, 101):
        assert firing.look(BEGIN_MS + second * 1000) == [second]
    gaps = []
    for second in range(20, 130):
        found = firing.look(BEGIN_MS + second * 1000)
        gaps.append(len(found))
    assert gaps == [0] + [1] * 109
    assert firing.ids[100].endswith("~1")
    assert len(set(firing.ids)) == len(firing.ids) == 209
    # A little back: nothing is told apart, and nothing fires twice.
    firing = every(60_000)
    assert firing.look(BEGIN_MS + 60_000) == [60]
    assert [firing.look(BEGIN_MS + 58_000 + ms) for ms in range(0, 4_000, 500)] == [[]] * 8
    assert firing.look(BEGIN_MS + 120_000) == [120]


def test_the_clock_goes_back_to_before_the_schedule_was_added() -> None:
    """It was added while the clock was wrong, and fires on when that is set right, after a step more and at once."""
    for fired_count in (0, 10):
        firing = every()
        for second in range(1, fired_count + 1):
            assert firing.look(BEGIN_MS + second * 1000) == [second]
        back_ms = BEGIN_MS - DAY_MS
        found = [second for ms in range(0, 20_000, 130) for second in firing.look(back_ms + ms)]
        assert found == list(range(1 - DAY_MS // 1000, 20 - DAY_MS // 1000))
        assert all(each.endswith("~1") for each in firing.ids[fired_count:])
        assert firing.missed_count == 0


def test_the_clock_goes_back_under_a_cron_expression() -> None:
    """A minute's fire is the minute's: after a small step it is not asked for, after a large one its id is the same."""
    firing = Firing(schedule(Trigger(cron="* * * * *")))
    minute_ms = -(-BEGIN_MS // 60_000) * 60_000
    firing.look(minute_ms)
    assert firing.look(minute_ms - 30_000) == []
    assert firing.look(minute_ms) == []
    far_ms = minute_ms + 10 * 365 * DAY_MS
    assert len(firing.look(far_ms)) in (1, 2)
    assert firing.look(minute_ms + 60_000) == []
    firing.look(minute_ms + 120_000)
    firing.look(far_ms)
    assert firing.ids[-1] in firing.ids[:-1], "the moment that comes again has the id it had"
    assert firing.ids[0] not in firing.ids[1:]


def test_after_counts_from_the_end() -> None:
    firing = Firing(schedule(Trigger(after_ms=5_000)))
    assert firing.look(BEGIN_MS) == [0]
    assert firing.look(BEGIN_MS + 60_000) == []
    firing.progress = planner.ended(firing.schedule, firing.progress, BEGIN_MS + 61_500)
    assert firing.look(BEGIN_MS + 66_000) == []
    assert firing.next_ms == BEGIN_MS + 66_500
    assert firing.look(BEGIN_MS + 66_500) == [66]
    assert firing.ids[-1] == "s~2026-09-21T14:14:26.500Z"
    late = Firing(schedule(Trigger(after_ms=5_000), misfire=Misfire.SKIP))
    assert late.look(BEGIN_MS + 100_000) == []
    assert late.look(BEGIN_MS + 105_000) == [105]


def test_triggers_at_the_same_moment_fire_once() -> None:
    begin_ms = BEGIN_MS // 60_000 * 60_000
    both = replace(schedule(Trigger(every_ms=30_000, cron="* * * * *")), added_ms=begin_ms)
    firing = Firing(both)
    for second in range(0, 181, 10):
        firing.look(begin_ms + second * 1000)
    assert len(set(firing.ids)) == len(firing.ids) == 6


def test_jitter_is_the_same_whenever_one_looks() -> None:
    spread = every(10_000, jitter_ms=8_000)
    fired = {}
    for ms in range(0, 1_000_000, 100):
        for second in spread.look(BEGIN_MS + ms):
            fired[second] = ms - second * 1000
    assert list(fired) == list(range(10, 1_000, 10))[: len(fired)]
    assert len(fired) >= 98
    assert all(0 <= delay_ms <= 8_100 for delay_ms in fired.values())
    assert len(set(fired.values())) > 20
    again = every(10_000, jitter_ms=8_000)
    moments = [second for ms in range(0, 1_000_000, 37) for second in again.look(BEGIN_MS + ms)]
    assert moments[: len(fired)] == list(fired)
    assert again.ids[: len(fired)] == spread.ids


def test_overlap_policies() -> None:
    fires = [Fire("every", moment) for moment in (1, 2, 3)]
    waiting = (Fire("every", 0),)

    def admitted(overlap: Overlap, is_busy: bool, queue: tuple[Fire, ...] = ()) -> list[list[int]]:
        of = schedule(Trigger(every_ms=1000), overlap=overlap, queue_count_max=2)
        return [[fire.moment_ms for fire in part] for part in planner.admitted(of, queue, fires, is_busy)]

    assert admitted(Overlap.ALLOW, True) == [[1, 2, 3], [], []]
    assert admitted(Overlap.SKIP, True) == [[], [], [1, 2, 3]]
    assert admitted(Overlap.SKIP, False) == [[1], [], [2, 3]]
    assert admitted(Overlap.QUEUE, True) == [[], [1, 2], [3]]
    assert admitted(Overlap.QUEUE, False, waiting) == [[0], [1, 2], [3]]


def test_a_pause_has_no_moments() -> None:
    firing = every()
    firing.look(BEGIN_MS + 1_000)
    firing.progress = planner.resumed(firing.progress, BEGIN_MS + 50_500)
    assert firing.look(BEGIN_MS + 50_500) == []
    assert firing.look(BEGIN_MS + 51_000) == [51]
    assert firing.missed_count == 0


def test_a_range_of_moments() -> None:
    """Both triggers' moments in order, each once; too many are refused with where to stop."""
    hourly = schedule(Trigger(every_ms=3_600_000, cron="30 * * * *"))
    fires = planner.backfilled(hourly, BEGIN_MS + 3_600_000, BEGIN_MS + 4 * 3_600_000)
    assert [fire.trigger for fire in fires] == ["every", "cron"] * 3
    assert fires[0].moment_ms == BEGIN_MS + 3_600_000
    with pytest.raises(InvalidRequest, match="more than 1000 moments: end it at 2026-"):
        planner.backfilled(schedule(Trigger(every_ms=1000)), BEGIN_MS, BEGIN_MS + 1_001_001)
    assert len(planner.backfilled(schedule(Trigger(every_ms=1000)), BEGIN_MS, BEGIN_MS + 1_001_000)) == 1000


def test_progress_is_what_was_written() -> None:
    progress = Progress(1, 2, 3, 4, "a", ("b",), (Fire("cron", 5, 1),), 6, "c", "d", 8, {"started": 7})
    assert Progress.of_json(orjson.loads(orjson.dumps(progress))) == progress
