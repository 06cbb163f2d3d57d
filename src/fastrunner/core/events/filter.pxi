"""Stage 4, walk: a filter: what an event must be like in all, and the keys by which it belongs to others.

    {"with": {"type": {"is": "a"}, "data": {...}},
     "correlate": [{"key": "order", "from": ".orderid", "values": [], "equals": 17}]}

Rules: attributes first, `type` and `source` before others, then the data, then correlations: what is cheap and refuses
most is asked first. A correlation's key without a value takes that of the first event; null is none, so an event that
lacks it belongs to nobody. `probes` are what an index may look events up by.
"""

cimport cython

from fastrunner._jq import BudgetExceeded, ExpressionError, MissingMember

# What comes first of the attributes.
cdef dict ATTRIBUTE_ORDER = {"type": 0, "source": 1, "data": 3}
cdef str FROM = "from:"


@cython.final
@cython.internal
cdef class Correlation:
    """A key of an event: where it is, and what it must be, as canonical JSON; None: what the first event has."""

    cdef str key
    cdef Condition source
    cdef bytes expected
    cdef bint is_secret
    """What it must be stays in this process."""
    cdef dict closed


@cython.final
@cython.internal
cdef class EventFilter:
    cdef list conditions
    cdef list correlations


cdef object attribute_order(tuple named):
    return ATTRIBUTE_ORDER.get(named[0], 2), named[0]


cdef EventFilter make_filter(Measure* measure, dict closed):
    """A filter of its closed form. Raises ValueError for what is none."""
    cdef EventFilter filter = EventFilter.__new__(EventFilter)
    cdef Correlation correlation
    filter.conditions = [
        make_condition(name, part)
        for _, name, part in sorted([(*attribute_order((name,)), part) for name, part in closed["with"].items()],
                                    key=first_two)
    ]
    filter.correlations = []
    for part in closed.get("correlate") or ():
        correlation = Correlation.__new__(Correlation)
        correlation.key = part["key"]
        correlation.is_secret = part.get("secret", False)
        correlation.closed = part
        correlation.source = make_condition(None, {**part, "expression": part["from"]} if "from" in part else {})
        if "equals" in part:
            correlation.expected = canonical(measure, part["equals"])
        filter.correlations.append(correlation)
    return filter


def first_two(tuple item):
    return item[:2]


cdef int passes(EventFilter filter, dict learnt, dict found, Workspace work, dict event, long long now_ms) except -1:
    """Whether an event matches: FAILS, MATCHES, OVER_BUDGET. `learnt` are keys with their values; `found` gets those
    that the event tells first. Raises MissingMember."""
    cdef int verdict = MATCHES, one
    cdef Condition condition
    for part in filter.conditions:
        condition = <Condition> part
        one = meets(condition, work, event, now_ms)
        if one == FAILS:
            return FAILS
        verdict = max(verdict, one)
    for part in filter.correlations:
        one = correlates(<Correlation> part, learnt, found, work, event, now_ms)
        if one == FAILS:
            return FAILS
        verdict = max(verdict, one)
    return verdict


cdef int correlates(Correlation correlation, dict learnt, dict found, Workspace work, dict event,
                    long long now_ms) except -1:
    cdef object value
    if correlation.source.asks == ASKS_ANYTHING:
        return MATCHES
    try:
        value = json_safe(&work.measure, correlation.source.result(work, event, now_ms))
        if value is None:
            return FAILS
        if correlation.expected is not None:
            return canonical(&work.measure, value) == correlation.expected
        if correlation.key in learnt:
            return canonical(&work.measure, value) == canonical(&work.measure, learnt[correlation.key])
        if correlation.key in found:
            return canonical(&work.measure, value) == canonical(&work.measure, found[correlation.key])
    except MissingMember:
        raise
    except BudgetExceeded:
        return OVER_BUDGET
    except (ExpressionError, Unkept):
        return FAILS
    found[correlation.key] = value
    return MATCHES


# --- for an index ---

cdef tuple probe_of(EventFilter filter):
    """(names, values): constants that an event must have, the values as canonical JSON text."""
    cdef list pairs = []
    cdef Condition condition
    cdef Correlation correlation
    for part in filter.conditions:
        condition = <Condition> part
        if condition.asks == ASKS_TEXT and condition.text is not None and (
            PATTERN_CHARACTERS.search(condition.text) is None
        ):
            pairs.append((condition.name, dump_json(condition.text).decode()))
    keys = {}
    for part in filter.correlations:
        correlation = <Correlation> part
        if correlation.expected is not None and correlation.source.asks == ASKS_RESULT and (
            not correlation.source.values and CLOCK.search(correlation.source.program.text) is None
        ):
            keys[FROM + correlation.source.program.text] = correlation.expected.decode()
    pairs += sorted(keys.items())
    return tuple([name for name, _ in pairs]), tuple([value for _, value in pairs])


cdef object probed(Workspace work, dict event, str name):
    """The text an event has for a name of a probe; None if it has none."""
    cdef Condition source
    cdef str text
    cdef object value
    if not name.startswith(FROM):
        text = attribute_text(event.get(name))
        return None if text is None else dump_json(text).decode()
    source = make_condition(None, {"expression": name[len(FROM):]})
    try:
        value = source.result(work, event, 0)
        return None if value is None else canonical(&work.measure, value).decode()
    except (ExpressionError, Unkept):
        return None


# --- for outside ---

cdef dict closed_filter(EventFilter filter, dict learnt, Py_ssize_t* room):
    """A filter as outsiders may have it; what is secret or larger than there is room for is left to the walk."""
    cdef list keys = []
    cdef Correlation correlation
    cdef dict closed = {
        (<Condition> part).name: closed_condition(<Condition> part, (<Condition> part).closed, room)
        for part in filter.conditions
    }
    for part in filter.correlations:
        correlation = <Correlation> part
        known = correlation.closed
        if "equals" not in known and correlation.key in learnt:
            known = {**known, "equals": learnt[correlation.key]}
        kept = {} if correlation.is_secret else closed_condition(correlation.source, known, room)
        keys.append(kept if kept else {"key": correlation.key})
    return {"with": closed, "correlate": keys} if keys else {"with": closed}


cdef dict closed_condition(Condition condition, dict closed, Py_ssize_t* room):
    cdef Py_ssize_t size
    if condition.is_secret or reads_clock(condition):
        return {}
    size = len(dump_json(closed))
    if size > room[0]:
        return {}
    room[0] -= size
    return closed


cdef bint reads_clock(Condition condition) except -1:
    if condition.program is not None and CLOCK.search(condition.program.text) is not None:
        return True
    for _, part in condition.parts or ():
        if reads_clock(<Condition> part):
            return True
    return False
