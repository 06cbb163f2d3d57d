"""Support: cyclic garbage of processes that serve, which make next to none: looked for seldom, and never among what is
there for good."""

import gc

from fastrunner.base import limits

__all__ = ["calm"]


def calm() -> None:
    """Modules, descriptors and what else is there by now are not looked through again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*limits.GARBAGE_THRESHOLDS)
