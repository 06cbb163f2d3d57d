"""Stage 4, walk: one thing that a filter asks of an event, and what it takes to find out.

Theory of operation: a condition is made of its *closed* form, which is data: what is compared, or an expression and the
values of its variables. Those that a walk makes for itself hold whatever they need. Outside, in a journal or another
process, secrets and large values are left out, and with them the condition: what is left matches more events and never
fewer, and the walk looks again.

    {"is": "a.*"}                                          an attribute has this text, or matches it as a pattern
    {"expression": ".x == $input", "values": [1]}          true, or the attribute's value
    {"equals": {"a": null}, "parts": [[["a"], {...}]]}     data with expressions in it
    {}                                                     only the walk can tell

Rules: an expression that fails is no match, an event cannot break a listener. Attributes are compared as the texts that
CloudEvents writes them as, because in headers they are nothing else; data and keys of correlations as JSON.
"""

cimport cython

import re as _re

import orjson as _orjson

from fastrunner._jq import BudgetExceeded, ExpressionError, ExpressionProblem, MissingMember
from fastrunner._jq cimport Program, TextPattern, compile_expression, compile_text_pattern
from fastrunner.base.limits import (
    EVENT_PROGRAMS_KEPT_MAX as _EVENT_PROGRAMS_KEPT_MAX,
    EXPRESSION_COMPILE_STEPS_MAX as _EXPRESSION_COMPILE_STEPS_MAX,
)

# What reads the clock is decided by the walk, which has one.
cdef object CLOCK = _re.compile(r"\bnow\b")
cdef int IN_ORDER = _orjson.OPT_SORT_KEYS
cdef dict event_programs = {}
cdef dict event_patterns = {}

cdef enum:
    ASKS_ANYTHING
    ASKS_TEXT
    ASKS_RESULT
    ASKS_DATA

cdef enum:
    FAILS = 0
    MATCHES = 1
    OVER_BUDGET = 2


cdef Program event_program(str text):
    """The program of an expression, one for all filters that have it. Raises ExpressionProblem."""
    cdef object program = event_programs.get(text)
    if program is None:
        if len(event_programs) >= _EVENT_PROGRAMS_KEPT_MAX:
            event_programs.clear()
        program = event_programs[text] = compile_expression(text)
    return <Program> program


cdef object event_pattern(str text):
    """The pattern of a text; None if it has no character of one, or is none."""
    cdef long long steps = _EXPRESSION_COMPILE_STEPS_MAX
    cdef object pattern = None
    if PATTERN_CHARACTERS.search(text) is None:
        return None
    if text in event_patterns:
        return event_patterns[text]
    if len(event_patterns) >= _EVENT_PROGRAMS_KEPT_MAX:
        event_patterns.clear()
    try:
        pattern = compile_text_pattern(f"\\A(?:{text})\\z", &steps)
    except ExpressionError:
        # An address with a lone bracket, such as `https://host/a(b`: the text itself.
        pass
    event_patterns[text] = pattern
    return pattern


cdef str attribute_text(object value):
    """An attribute's text, as CloudEvents writes its type; None for what no attribute has."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return None


cdef bytes canonical(Measure* measure, object value):
    """JSON text that equal values share. Raises Unkept."""
    return dump_json(json_safe(measure, value), option=IN_ORDER)


cdef object event_data(dict event):
    """What filters and `read: data` see: data as it is, or the text that stands for bytes."""
    return event["data"] if "data" in event else event.get("data_base64")


@cython.final
@cython.internal
cdef class Condition:
    """One attribute, the data, or a correlation's `from` with what it must give."""

    cdef str name
    cdef int asks
    cdef dict closed
    cdef str text
    cdef object pattern
    cdef Program program
    cdef tuple values
    cdef object literal
    """What an expression that fails stands for, in loose mode."""
    cdef object wanted
    cdef list parts
    """Pairs: where in the data, and the Condition whose result stands there."""
    cdef bint is_secret
    """It knows what stays in this process."""

    cdef object result(self, Workspace work, object dot, long long now_ms):
        """The expression's value. Raises ExpressionError."""
        work.machine.allow()
        try:
            return self.program.evaluate(work.machine, dot, self.values, now_ms)
        except MissingMember:
            raise
        except BudgetExceeded:
            work.tally.add(0, TALLY_OVER_BUDGET, 0)
            raise
        except ExpressionError:
            if self.literal is None:
                raise
            return self.literal


cdef Condition make_condition(str name, dict closed):
    """A condition of its closed form. Raises ValueError for what is none."""
    cdef Condition condition = Condition.__new__(Condition)
    condition.name = name
    condition.closed = closed
    if "expression" in closed:
        condition.asks = ASKS_RESULT
        take_expression(condition, closed)
    elif "is" in closed:
        condition.asks = ASKS_TEXT
        condition.text = attribute_text(closed["is"])
        condition.pattern = None if condition.text is None else event_pattern(condition.text)
    elif "equals" in closed:
        condition.asks = ASKS_DATA
        condition.wanted = closed["equals"]
        condition.parts = [(path, make_condition(None, part)) for path, part in closed.get("parts") or ()]
        condition.is_secret = any([(<Condition> part).is_secret for _, part in condition.parts])
    else:
        condition.asks = ASKS_ANYTHING
    return condition


cdef int take_expression(Condition condition, dict closed) except -1:
    try:
        condition.program = event_program(closed["expression"])
    except ExpressionProblem as problem:
        raise ValueError(f"an expression of an event filter does not compile: {problem.message}") from None
    condition.values = tuple(closed.get("values") or ())
    condition.literal = closed.get("literal")
    condition.is_secret = "secrets" in condition.program.arguments
    if len(condition.values) != len(condition.program.arguments):
        raise ValueError("an expression of an event filter has not the values of its variables")
    return 0


cdef int meets(Condition condition, Workspace work, dict event, long long now_ms) except -1:
    """Whether an event is as a condition wants it: FAILS, MATCHES, OVER_BUDGET. Raises MissingMember."""
    if condition.asks == ASKS_ANYTHING:
        return MATCHES
    if condition.asks == ASKS_TEXT:
        return meets_text(condition, work, event.get(condition.name))
    try:
        if condition.asks == ASKS_DATA:
            return MATCHES if meets_data(condition, work, event, now_ms) else FAILS
        return MATCHES if meets_result(condition, work, event, now_ms) else FAILS
    except MissingMember:
        raise
    except BudgetExceeded:
        return OVER_BUDGET
    except (ExpressionError, Unkept):
        return FAILS


cdef int meets_text(Condition condition, Workspace work, object value) except -1:
    cdef str text = attribute_text(value)
    cdef long long steps = work.behaviour.expressions.steps
    if text is None or condition.text is None:
        return FAILS
    if text == condition.text:
        return MATCHES
    if condition.pattern is None:
        return FAILS
    try:
        return (<TextPattern> condition.pattern).found_in(text, &work.behaviour.expressions, &steps)
    except BudgetExceeded:
        return OVER_BUDGET
    except ExpressionError:
        return FAILS
    finally:
        work.machine.state.steps_spent += work.behaviour.expressions.steps - max(steps, 0)


cdef bint meets_result(Condition condition, Workspace work, dict event, long long now_ms) except -1:
    """A whole `data` is a predicate over the data; an attribute's expression is one over the event, if it says true or
    false, and its value otherwise."""
    cdef object result
    cdef str text
    if condition.name == "data":
        return is_true(condition.result(work, event_data(event), now_ms))
    result = condition.result(work, event, now_ms)
    if isinstance(result, bool):
        return result
    text = attribute_text(result)
    return text is not None and text == attribute_text(event.get(condition.name))


cdef bint meets_data(Condition condition, Workspace work, dict event, long long now_ms) except -1:
    cdef object data = event_data(event)
    cdef object wanted = condition.wanted
    cdef Condition part
    for path, inner in condition.parts:
        part = <Condition> inner
        wanted = placed(wanted, path, 0, part.result(work, data, now_ms))
    return canonical(&work.measure, wanted) == canonical(&work.measure, data)


cdef object placed(object value, list path, Py_ssize_t at, object part):
    """A copy of a value with a part in its place. Recurses over the template, whose depth the document bounds."""
    cdef object copied
    if at == len(path):
        return part
    copied = value.copy()
    copied[path[at]] = placed(value[path[at]], path, at + 1, part)
    return copied
