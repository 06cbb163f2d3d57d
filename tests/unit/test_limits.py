"""Support: bounds of admission, fairness and the engine, each with the test that reaches it."""

import ast
from pathlib import Path

import pytest

from fastrunner import limits

ROOT = Path(__file__).parent.parent
REACHED = {
    "ADMISSION_BURST_COUNT_MAX": "unit/test_fair_shares.py:test_engine_that_is_behind_refuses_who_has_most_in_it",
    "ADMISSION_BURST_S_MAX": "unit/test_fair_shares.py:test_engine_that_is_behind_refuses_who_has_most_in_it",
    "ADMISSION_DELAY_S_MAX": "unit/test_fair_shares.py:test_standing_queue_is_judged_until_nothing_is_refused",
    "ADMISSION_EXECUTIONS_MIN": "unit/test_fair_shares.py:test_standing_queue_is_judged_until_nothing_is_refused",
    "BATCH_EXECUTIONS_MAX": "integration/test_service.py:test_an_empty_batch_and_one_too_large",
    "CLIENTS_KNOWN_MAX": "unit/test_fair_shares.py:test_only_so_many_clients_are_remembered",
    "COMMIT_EXECUTIONS_MAX": "integration/test_engine_bounds.py:test_large_batches_are_committed_in_parts",
    "EFFECTS_IN_FLIGHT_PER_WORKER_MAX": (
        "integration/test_engine_bounds.py:test_effects_beyond_the_bound_wait_their_turn"
    ),
    "EVENTS_PER_EXECUTION_MAX": "core/test_walk_bounds.py:test_events_of_an_execution",
    "EVENTS_PER_EXECUTION_SIZE_BYTES_MAX": (
        "integration/test_engine_fairness.py:test_execution_whose_events_take_too_much_is_cancelled"
    ),
    "ITERATIONS_PER_LOOP_MAX": "core/test_walk_bounds.py:test_items_of_a_loop",
    "LONG_EVENTS_SIZE_BYTES": "integration/test_engine_fairness.py:test_endless_loops_share_an_allowance",
    "LONG_EVENTS_SIZE_BYTES_PER_S_MAX": "integration/test_engine_fairness.py:test_endless_loops_share_an_allowance",
    "OVERLOAD_BURST_S_MAX": "unit/test_fair_shares.py:test_burst_is_no_overload_and_a_lasting_wait_is",
    "OVERLOAD_DELAY_S_MAX": "unit/test_fair_shares.py:test_burst_is_no_overload_and_a_lasting_wait_is",
    "OVERLOAD_FLOOR": "unit/test_fair_shares.py:test_burst_is_no_overload_and_a_lasting_wait_is",
    "PLANS_CACHED_MAX": (
        "integration/test_engine_bounds.py:test_plan_cache_keeps_the_latest_and_stays_within_its_bounds"
    ),
    "PLANS_CACHED_SIZE_CHARS_MAX": (
        "integration/test_engine_bounds.py:test_plan_cache_keeps_the_latest_and_stays_within_its_bounds"
    ),
    "SNAPSHOT_SIZE_BYTES_MAX": "integration/test_engine_bounds.py:test_state_beyond_its_bound_ends_the_execution",
    "TIMERS_DEAD_MAX": "integration/test_engine_bounds.py:test_timer_entries_of_ended_executions_do_not_pile_up",
    "UNCOMMITTED_EXECUTIONS_MAX": (
        "integration/test_engine_fairness.py:test_new_executions_that_wait_for_their_commit_are_bounded"
    ),
}
"""By limit: the test that reaches it."""


def _tests_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("limit", sorted(REACHED))
def test_limit_has_the_test_that_reaches_it(limit: str) -> None:
    assert hasattr(limits, limit)
    file, _, name = REACHED[limit].partition(":")
    assert name in _tests_of(ROOT / file)


def test_limits_of_admission_are_all_reached() -> None:
    """The bounds of what is taken, whoever adds one."""
    prefixes = ("ADMISSION_", "CLIENTS_", "EVENTS_PER_", "ITERATIONS_", "LONG_", "UNCOMMITTED_")
    tuned = {"ADMISSION_LANDING_S", "ADMISSION_STRICT_S"}
    named = {name for name in vars(limits) if name.startswith(prefixes)}
    assert named - tuned <= REACHED.keys()
