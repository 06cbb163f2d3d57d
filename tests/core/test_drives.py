"""Walk: random documents driven at random; restores after every turn and slices of other sizes change nothing.

`make drives` tries twenty thousand more.
"""

from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from tests.core.drives import Maker, check, documents, make_case
from tests.properties import examples


@examples(300)
@given(st.randoms(use_true_random=False))
def test_a_drive_is_the_same_with_restores_and_other_slices(choices: Random) -> None:
    case = make_case(choices)
    assume(case is not None)
    assert case is not None
    check(case)


def test_drives_reach_what_they_are_for() -> None:
    """Ends of every kind, every kind of event and of task; a generator that has lost one shows nothing."""
    runs = [check(case) for case in documents(400, 5)]
    assert {run.status for run in runs} >= {"completed", "failed", "cancelled"}
    events = [event for run in runs for event in run.events]
    assert {event.event_type for event in events} >= {
        *("task_started", "task_completed", "task_failed", "task_retry"),
        *("workflow_paused", "workflow_resumed", "workflow_cancelled", "workflow_completed", "workflow_failed"),
    }
    details = " ".join(event.error.detail for event in events)
    for words in ("the task took", "the attempt took", "the workflow took", "execution has", "data larger"):
        assert words in details, words
    assert sum(len(run.kept) for run in runs) > 3 * len(runs)
    assert any(run.interrupted for run in runs)


def test_documents_have_what_they_are_for() -> None:
    """Zero durations and expressions in each place that takes a duration."""
    made = str([Maker(Random(seed)).root() for seed in range(500)])
    for words in (
        "'wait': {'seconds': 0}",
        "'after': 'PT0S'",
        "'duration': {'seconds': 0}",
        "'delay': '${",
        "'jitter'",
    ):
        assert words in made, words
    for words in ("'duration': '${ \"PT", "'in': [{'n'", "'backoff'", "'compete': True", "'export'"):
        assert words in made, words
