"""Stage 4, walk: matching for others: an index of listeners, and schedules that events start.

Rules: the same conditions as within a walk, on bounds of their own: a filter that takes longer than an index has time
for matches, because the walk looks again. A strategy's state is plain JSON, and none of it is in the strategy.
"""

cimport cython

from fastrunner._jq import ExpressionError, ExpressionProblem
from fastrunner._jq cimport Program
from fastrunner.base.limits import EVENT_MATCH_STEPS_MAX as _EVENT_MATCH_STEPS_MAX

cdef dict MATCHER_BOUNDS = {"EXPRESSION_STEPS_MAX": _EVENT_MATCH_STEPS_MAX}
cdef Behaviour matcher_behaviour_kept = None
cdef dict NOTHING_LEARNT = {}


cdef Behaviour matcher_behaviour():
    """Bounds of matching for an index."""
    global matcher_behaviour_kept
    if matcher_behaviour_kept is None:
        matcher_behaviour_kept = with_bounds(behaviour_now(), MATCHER_BOUNDS)
    return matcher_behaviour_kept


@cython.final
cdef class EventMatcher:
    """A filter of a Subscribe; `_core.pyi` has the contract."""

    cdef list filters
    cdef readonly tuple probes

    def __init__(self, filter):
        cdef Workspace work = borrow_workspace(matcher_behaviour())
        try:
            self.filters = [make_filter(&work.measure, part) for part in filter["any"]]
            self.probes = tuple([probe_of(<EventFilter> part) for part in self.filters])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no filter of events: {error}") from None
        finally:
            return_workspace(work)

    def matches(self, dict event not None):
        cdef Workspace work = borrow_workspace(matcher_behaviour())
        try:
            for part in self.filters:
                if passes(<EventFilter> part, NOTHING_LEARNT, {}, work, event, 0) != FAILS:
                    return True
            return False
        finally:
            return_workspace(work)

    def __repr__(self):
        return f"EventMatcher({len(self.filters)} filters)"


def extract_probe(dict event not None, tuple names not None):
    """What an event has for the names of a probe; None if it lacks one."""
    cdef Workspace work = borrow_workspace(matcher_behaviour())
    cdef list values = []
    try:
        for name in names:
            value = probed(work, event, name)
            if value is None:
                return None
            values.append(value)
        return tuple(values)
    finally:
        return_workspace(work)


# --- strategies of schedules ---

@cython.final
cdef class EventStrategy:
    """What starts a workflow; `_core.pyi` has the contract."""

    cdef Strategy strategy
    cdef str read

    def __cinit__(self, key=None):
        if key is not KEY:
            raise TypeError("strategies come from compile_strategy()")

    def __init__(self, *args, **kwargs):
        raise TypeError("strategies come from compile_strategy()")

    def filter(self, state):
        return outside_filter(self.strategy, heard_of(state))

    def take(self, state, dict event not None, long long now_ms=0):
        cdef Heard heard = heard_of(state)
        cdef list events = [] if state is None else list(state["events"])
        cdef Workspace work = borrow_workspace(behaviour_now())
        cdef int found
        try:
            event = json_safe(&work.measure, event)
            found = hear(self.strategy, heard, work, event, now_ms)
            if found & HEARD_TAKEN:
                events.append(read_event(event, self.read))
                if self.strategy.condition is not None and condition_holds(self.strategy, work, events, now_ms):
                    found |= HEARD_ENDED
        except (Unkept, TypeError) as error:
            raise ValueError(f"an event that cannot be kept: {error}") from None
        finally:
            return_workspace(work)
        if found == HEARD_NOTHING:
            return state, None
        if found & HEARD_ENDED:
            return None, events
        return {"satisfied": heard.satisfied, "ended": heard.ended, "learnt": heard.learnt, "events": events}, None

    def __repr__(self):
        return f"EventStrategy({self.strategy.kind!r})"


cdef bint condition_holds(Strategy strategy, Workspace work, list events, long long now_ms) except -1:
    """Whether `until` is true of the events so far; one that fails is not."""
    try:
        return is_true(strategy.condition.result(work, events, now_ms))
    except ExpressionError:
        return False


cdef Heard heard_of(object state):
    cdef Heard heard = new_heard()
    if state is not None:
        heard.satisfied, heard.ended = list(state["satisfied"]), list(state["ended"])
        heard.learnt = dict(state["learnt"])
    return heard


def compile_strategy(dict definition not None, str read not None="data", variables=None):
    """A strategy of a document that has been checked."""
    cdef EventStrategy made = EventStrategy.__new__(EventStrategy, KEY)
    cdef Workspace work = borrow_workspace(behaviour_now())
    made.read = read
    try:
        made.strategy = make_strategy(&work.measure, defined_strategy(definition, variables or {}))
    except (AttributeError, ExpressionError, ExpressionProblem, KeyError, StopIteration, TypeError) as error:
        raise ValueError(f"no event strategy: {error}") from None
    finally:
        return_workspace(work)
    return made


cdef dict defined_strategy(dict definition, object variables):
    """The closed form of a strategy as it is written."""
    cdef str kind = next(iter([kind for kind in STRATEGY_KINDS if kind in definition]))
    cdef list filters = [definition["one"]] if kind == "one" else definition[kind]
    cdef dict closed = {
        "kind": kind, "filters": [defined_filter(filter, variables) for filter in filters],
    }
    cdef object until = definition.get("until")
    if isinstance(until, dict):
        closed["until"] = defined_strategy(until, variables)
    elif until is not None:
        closed["until"] = defined_expression(until, variables)
    return closed


cdef dict defined_filter(dict filter, object variables):
    cdef list correlations = []
    cdef dict closed
    for key, part in (filter.get("correlate") or {}).items():
        closed = {"key": key, **defined_expression(part["from"], variables)}
        closed["from"] = closed.pop("expression")
        if "expect" in part:
            closed["equals"] = defined_value(part["expect"], variables)
        correlations.append(closed)
    return {
        "with": {name: defined_condition(name, value, variables) for name, value in filter["with"].items()},
        "correlate": correlations,
    }


cdef dict defined_expression(str text, object variables):
    cdef object inner = expression_text(text)
    cdef Program program = event_program(text.strip() if inner is None else inner)
    return {"expression": program.text, "values": [variables.get(name) for name in program.arguments]}


cdef object defined_value(object value, object variables):
    """What a key must be; an expression sees null, as schedules have no data."""
    cdef dict closed
    cdef Condition condition
    cdef Workspace work
    if not isinstance(value, str) or expression_text(value) is None:
        return value
    condition = make_condition(None, defined_expression(value, variables))
    work = borrow_workspace(behaviour_now())
    try:
        return condition.result(work, None, 0)
    finally:
        return_workspace(work)


cdef dict defined_condition(str name, object value, object variables):
    cdef list parts = []
    if isinstance(value, str) and expression_text(value) is not None:
        return defined_expression(value, variables)
    if name != "data":
        return {"is": value}
    defined_parts(value, [], parts, variables)
    return {"equals": value, "parts": parts}


cdef int defined_parts(object value, list path, list parts, object variables) except -1:
    """The expressions within data. Recurses over a document, whose depth is bounded."""
    if isinstance(value, str) and expression_text(value) is not None:
        parts.append([path, defined_expression(value, variables)])
    elif isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            defined_parts(part, [*path, key], parts, variables)
    return 0
