"""Stage 2, compile: the rules of events: attributes that CloudEvents has a name and a type for.

Rules: what is emitted is an event wherever it arrives, so it is refused here if it could not be one; and so is a filter
that no event passes. Expressions are judged when they have a value.
"""

import re as _re

from cpython.ref cimport PyObject

from fastrunner._jq cimport compile_text_pattern
from fastrunner._jq import ExpressionError as _ExpressionError

cdef str ATTRIBUTE_NAMES = "attributes of CloudEvents have names of lower-case letters and digits, such as roomid"
# What makes a text of a filter a pattern; a point alone does not, or each type of an event would be one.
cdef object PATTERN_CHARACTERS = _re.compile(r"[*+?\[\](){}|^$\\]")
cdef long long PATTERN_STEPS_MAX = 200_000


cdef int check_event(Checker checker, dict properties, bint is_sent, Path* path) except -1:
    """The properties of an event that is emitted, or asked for."""
    cdef str code = "invalid-format" if is_sent else "never-matches"
    for name, value in properties.items():
        checker.left -= COST_VALUE
        if name == "data":
            continue
        if not is_attribute_name(name):
            member_problem(checker, code, name, f"{ATTRIBUTE_NAMES}: rename this one"
                           f"{'' if is_sent else ', as no event has it'}", path)
        elif value == "" and type(value) is str:
            member_problem(checker, "empty-value", name, "an attribute of an event has at least one character", path)
        elif name not in EVENT_FIELDS and not is_attribute_value(value):
            member_problem(checker, "wrong-type" if is_sent else code, name,
                           "an attribute of an event is a string, true, false or an integer of 32 bits, and not "
                           f"{json_type_name(value)}: what has another type belongs into `data`", path)
        elif is_sent and name == "specversion" and value != "1.0" and not (
            type(value) is str and expression_start(value) >= 0
        ):
            member_problem(checker, "invalid-value", name, "events have the version 1.0 of CloudEvents", path)
    return 0


cdef bint is_attribute_name(str name) noexcept:
    cdef Py_UCS4 character
    for character in name:
        if not (u"a" <= character <= u"z" or u"0" <= character <= u"9"):
            return False
    return len(name) > 0


cdef bint is_attribute_value(object value) except -1:
    return type(value) in (bool, str) or (type(value) is int and -(1 << 31) <= value < 1 << 31)


cdef int doubt_patterns(Checker checker, dict properties, Path* path) except -1:
    """Texts of a filter that look like patterns and are none: only the very text matches."""
    cdef Path inner
    cdef long long steps
    cdef str key
    if checker.document.is_stored:
        return 0
    inner.parent = path
    inner.index = 0
    for name, value in properties.items():
        if name == "data" or type(value) is not str or PATTERN_CHARACTERS.search(value) is None:
            continue
        if expression_start(value) >= 0 or checker.guesses >= GUESSES_MAX:
            continue
        checker.guesses += 1
        steps = PATTERN_STEPS_MAX
        try:
            compile_text_pattern(value, &steps)
        except _ExpressionError as error:
            key = name
            inner.key = <PyObject*>key
            doubt(checker, "text-like-pattern", &inner,
                  f"this is taken as it is, and not for a pattern, because it is none: {error}")
        checker.left -= (PATTERN_STEPS_MAX - steps) // STEPS_PER_POINT
    return 0
