"""A walk's share of the processor: what its expressions take counts against its templates and its slices."""

from fastrunner._core import Walk
from fastrunner.base import limits
from tests.core import hostile
from tests.core.walking import START_MS, error_type, plan_of

# Takes more than a third of a budget.
COSTLY = "${ last(range(300000)) }"


def test_a_template_shares_one_budget() -> None:
    """A value may have a thousand expressions, but not a thousand budgets."""
    one = plan_of([{"a": {"set": {"x": COSTLY}}}])
    walk, turn = Walk.start(one, "one", {}, START_MS)
    assert turn.more
    assert walk.error is None
    many = plan_of([{"a": {"set": {f"x{number}": COSTLY for number in range(20)}}}])
    walk, _ = Walk.start(many, "many", {}, START_MS)
    assert walk.status == "failed"
    assert error_type("expression") in str(walk.error)
    assert "out of steps" in str(walk.error)


def test_a_long_evaluation_ends_its_slice() -> None:
    """Otherwise a slice's steps could be hundreds of whole budgets."""
    assert limits.EXPRESSION_STEPS_MAX > 3 * limits.WALK_STEPS_PER_SLICE_MAX * limits.WALK_EXPRESSION_STEPS_PER_STEP
    cheap = plan_of([{f"t{number}": {"set": {"x": "${ .x }"}}} for number in range(3)])
    _, turn = Walk.start(cheap, "cheap", {}, START_MS)
    assert not turn.more
    costly = plan_of([{f"t{number}": {"set": {"x": COSTLY}}} for number in range(3)])
    _, turn = Walk.start(costly, "costly", {}, START_MS)
    assert turn.more


def test_shared_parts_end_at_the_door() -> None:
    """A result that would be gigabytes as text is not walked whole to see that."""
    for expression in (hostile.SHARED, hostile.SHARED_OBJECT):
        walk, _ = Walk.start(plan_of([{"a": {"set": {"x": f"${{ {expression} }}"}}}]), "id", {}, START_MS)
        assert walk.status == "failed"
        assert "data larger than" in str(walk.error)


def test_a_huge_error_value_is_cut() -> None:
    """An expression may raise any value; its text goes into events."""
    for value in (hostile.LONG, hostile.SHARED, "reduce range(100000) as $_ (null; [.])"):
        walk, _ = Walk.start(plan_of([{"a": {"set": f"${{ error({value}) }}"}}]), "id", {}, START_MS)
        assert walk.status == "failed"
        assert len(str(walk.error)) < limits.EXPRESSION_ERROR_SIZE_MAX + 500
