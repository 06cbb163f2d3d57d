"""Support: how many examples a property test tries; `make fuzz` multiplies them."""

from hypothesis import settings

__all__ = ["examples"]

factor = 1
"""Set from the command line before tests are imported."""


def examples(count: int) -> settings:
    """Settings of a property test that usually tries `count` examples. Time per example is not a property."""
    return settings(max_examples=count * factor, deadline=None)
