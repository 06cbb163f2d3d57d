"""Stage 2, compile: the plans of the documents that workflows and activities of this process have.

Rule: a plan is what its text makes of it, so who finds one here and who compiles it take the same way. The cache is
shared by the threads that workflow tasks run in.
"""

from collections import OrderedDict
from threading import Lock
from typing import Final

from fastrunner._core import Plan
from fastrunner._core import compile as compiled
from fastrunner.base import limits
from fastrunner.engine.pinned import texts_of

__all__ = ["plan_of"]

_plans: Final[OrderedDict[tuple[str, str], Plan]] = OrderedDict()
_lock: Final = Lock()


def plan_of(document: str, pinned: str) -> Plan:
    """The plan of a document that was accepted, maybe by a version with fewer rules. Raises InvalidWorkflow,
    ResourcesMissing, ValueError."""
    key = (document, pinned)
    with _lock:
        plan = _plans.get(key)
        if plan is not None:
            _plans.move_to_end(key)
            return plan
    plan = compiled(document, True, texts_of(pinned))
    with _lock:
        _plans[key] = plan
        if len(_plans) > limits.PLANS_CACHED_MAX:
            _plans.popitem(last=False)
    return plan
