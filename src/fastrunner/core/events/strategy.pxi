"""Stage 4, walk: which events are waited for: one, any or all of some filters, and what ends that.

    {"kind": "any", "filters": [...], "until": {"kind": "one", ...} or {"expression": ..., "values": [...]}}

Rules: what has been heard is apart from what is asked, so that a strategy serves many. Of `any` the first filter that
matches in document order takes an event; of `all` each filter takes the first event that matches it, and what comes for
one that has its event changes nothing. An event may serve several filters of `all`, and both a strategy and the nested
one that ends it; it is consumed once. All filters share the values of keys.
"""

cimport cython

from fastrunner.base.limits import EVENT_FILTER_SIZE_BYTES_MAX as _EVENT_FILTER_SIZE_BYTES_MAX

cdef Py_ssize_t EVENT_FILTER_SIZE_BYTES_MAX = _EVENT_FILTER_SIZE_BYTES_MAX
cdef tuple STRATEGY_KINDS = ("one", "any", "all")

# What an event did.
cdef enum:
    HEARD_NOTHING = 0
    HEARD_TAKEN = 1     # it is one of the events that are consumed
    HEARD_ENDED = 2     # nothing more is waited for
    HEARD_CHANGED = 4   # other events are wanted than before


@cython.final
@cython.internal
cdef class Heard:
    """How far a strategy is."""

    cdef list satisfied
    """The filters of `all` that have their event."""
    cdef list ended
    """The same of the nested strategy."""
    cdef dict learnt
    """Keys of correlations, and the values that the first event had."""


cdef Heard new_heard():
    cdef Heard heard = Heard.__new__(Heard)
    heard.satisfied, heard.ended, heard.learnt = [], [], {}
    return heard


@cython.final
@cython.internal
cdef class Strategy:
    cdef str kind
    cdef list filters
    cdef Strategy until
    cdef Condition condition
    """An expression over the events so far."""


cdef Strategy make_strategy(Measure* measure, dict closed):
    """A strategy of its closed form."""
    cdef Strategy strategy = Strategy.__new__(Strategy)
    cdef object until = closed.get("until")
    strategy.kind = closed["kind"]
    strategy.filters = [make_filter(measure, part) for part in closed["filters"]]
    if until is not None and "kind" in until:
        strategy.until = make_strategy(measure, until)
    elif until is not None:
        strategy.condition = make_condition(None, until)
    return strategy


cdef bint is_met_at_once(Strategy strategy) except -1:
    """Whether nothing needs to happen: `all` of nothing."""
    if strategy.kind == "all" and not strategy.filters:
        return True
    return strategy.until is not None and is_met_at_once(strategy.until)


cdef int hear(Strategy strategy, Heard heard, Workspace work, dict event, long long now_ms) except -1:
    """What an event does to a strategy. `until` as an expression is the caller's to ask. Raises MissingMember."""
    cdef int found = weigh(strategy, heard.satisfied, heard.learnt, work, event, now_ms)
    cdef int inner
    if strategy.until is not None:
        inner = weigh(strategy.until, heard.ended, heard.learnt, work, event, now_ms)
        found |= inner & (HEARD_ENDED | HEARD_CHANGED)
    return found


cdef int weigh(Strategy strategy, list satisfied, dict learnt, Workspace work, dict event, long long now_ms) except -1:
    cdef int found = HEARD_NOTHING
    cdef Py_ssize_t index
    cdef bint is_all = strategy.kind == "all"
    if strategy.kind == "any" and not strategy.filters:
        found = HEARD_TAKEN
    for index in range(len(strategy.filters)):
        if is_all and index in satisfied:
            continue
        told = {}
        if passes(<EventFilter> strategy.filters[index], learnt, told, work, event, now_ms) != MATCHES:
            continue
        found |= HEARD_TAKEN
        if told:
            learnt.update(told)
            found |= HEARD_CHANGED
        if not is_all:
            break
        satisfied.append(index)
        found |= HEARD_CHANGED
    if not found & HEARD_TAKEN:
        return found
    if is_all:
        return found | HEARD_ENDED if len(satisfied) == len(strategy.filters) else found
    return found if strategy.until is not None or strategy.condition is not None else found | HEARD_ENDED


cdef dict outside_filter(Strategy strategy, Heard heard):
    """What a driver may look events up by: it matches each event that `hear` would take, and some more."""
    cdef Py_ssize_t room = EVENT_FILTER_SIZE_BYTES_MAX
    cdef list alternatives = open_filters(strategy, heard.satisfied, heard.learnt, &room)
    cdef dict filter
    if strategy.until is not None:
        alternatives += open_filters(strategy.until, heard.ended, heard.learnt, &room)
    filter = {"any": alternatives}
    # Many filters that are small each.
    return filter if len(dump_json(filter)) <= 2 * EVENT_FILTER_SIZE_BYTES_MAX else {"any": [{"with": {}}]}


cdef list open_filters(Strategy strategy, list satisfied, dict learnt, Py_ssize_t* room):
    cdef Py_ssize_t index
    if strategy.kind == "any" and not strategy.filters:
        return [{"with": {}}]
    return [
        closed_filter(<EventFilter> strategy.filters[index], learnt, room)
        for index in range(len(strategy.filters))
        if strategy.kind != "all" or index not in satisfied
    ]


# --- what is read of an event ---

cdef object read_event(dict event, str form):
    """An event as `read` says: its data, all of it, or its payload as it was."""
    cdef object data
    if form == "envelope":
        return event
    data = event_data(event)
    if form == "data" or isinstance(data, str) and not (is_json_type(event) and "data" in event):
        return data
    return None if "data" not in event else dump_json(data).decode()


cdef bint is_json_type(dict event) except -1:
    """Whether an event's data is JSON, which it is if nothing else is said."""
    cdef object told = event.get("datacontenttype")
    cdef str subtype
    if not isinstance(told, str):
        return True
    subtype = (<str> told).partition(";")[0].partition("/")[2].strip().lower()
    return subtype == "json" or subtype.endswith("+json")
