"""Stage 4, walk: whether a value matches a rule. Yes or no, at the first thing that decides.

Rules: every rule looked at and every member, item, name and branch takes steps, text and equality by size, patterns
what the matcher counts. Recursion goes as deep as schemas apply within schemas, which is bounded. A rule that leads
back to itself for the same value asks nothing new.
"""

from cpython.float cimport PyFloat_AS_DOUBLE
from fastrunner._jq cimport TextPattern
from cpython.dict cimport PyDict_Contains, PyDict_Next, PyDict_Size
from cpython.list cimport PyList_GET_ITEM, PyList_GET_SIZE
from cpython.ref cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from libc.math cimport floor

from fastrunner._jq import BudgetExceeded as _BudgetExceeded

cdef extern from "Python.h":
    PyObject* lookup_member "PyDict_GetItemWithError"(object members, object name) except? NULL


cdef inline int type_bits(object value) noexcept:
    """The types a value has."""
    cdef type kind = type(value)
    if kind is str:
        return T_STRING
    if kind is dict:
        return T_OBJECT
    if kind is int:
        return T_INTEGER | T_WHOLE | T_NUMBER
    if kind is list:
        return T_ARRAY
    if kind is bool:
        return T_BOOLEAN
    if kind is float:
        return T_NUMBER | T_WHOLE if floor(PyFloat_AS_DOUBLE(value)) == PyFloat_AS_DOUBLE(value) else T_NUMBER
    return T_NULL


cdef inline bint matches(SchemaRun run, SchemaRule rule, object value, Spot* spot) except -1:
    if rule.is_special:
        return matches_specially(run, rule, value, spot)
    return looked_at(run, rule, value, spot)


cdef bint matches_specially(SchemaRun run, SchemaRule rule, object value, Spot* spot) except -1:
    """A rule that several ways lead to, or that may change what dynamic anchors mean."""
    cdef SchemaScope before = run.scope
    cdef SchemaScope scope = before
    cdef bint keeps = rule.is_shared and run.left < run.keeping_below
    cdef bint verdict
    cdef object key = None
    cdef object known = None
    if rule.names is not None:
        scope = run.scope = entered(run, rule.names)
    if keeps or rule.is_looping:
        spend(run, 10)
        key = position_of(run, spot) * run.rule_count + rule.number
        if scope.verdicts is None:
            scope.verdicts = {}
            scope.pending = set()
        known = scope.verdicts.get(key)
        if known is None and key in scope.pending:
            known = True
        if known is not None:
            run.scope = before
            return known
    if rule.is_looping:
        scope.pending.add(key)
    verdict = looked_at(run, rule, value, spot)
    if rule.is_looping:
        scope.pending.discard(key)
    if keeps:
        scope.verdicts[key] = verdict
    run.scope = before
    return verdict


cdef bint looked_at(SchemaRun run, SchemaRule rule, object value, Spot* spot) except -1:
    cdef int bits
    cdef bint verdict = True
    spend(run, 2)
    if rule.always >= 0:
        return rule.always
    bits = type_bits(value)
    if rule.types and not rule.types & bits:
        return False
    if rule.asks_only_types:
        return True
    if rule.choices is not None and not is_chosen(run, rule, value, bits):
        return False
    if rule.constant is not None and not is_constant(run, rule, value):
        return False
    if bits & T_STRING:
        if rule.texts is not None and not text_matches(run, rule.texts, <str> value):
            return False
    elif bits & T_NUMBER:
        if rule.numbers is not None and not number_matches(run, rule.numbers, value):
            return False
    if rule.branches is None and not bits & (T_OBJECT | T_ARRAY):
        return True
    run.depth += 1
    if run.depth > SCHEMA_DEPTH_MAX:
        nested_too_deep()
    if bits & T_OBJECT and rule.members is not None:
        verdict = members_match(run, rule.members, <dict> value, spot)
    elif bits & T_ARRAY and rule.items is not None:
        verdict = items_match(run, rule.items, <list> value, spot)
    if verdict and rule.branches is not None:
        verdict = branches_match(run, rule.branches, value, spot)
    if verdict and rule.has_unevaluated:
        verdict = unevaluated_match(run, rule, value, spot)
    run.depth -= 1
    return verdict


cdef inline bint is_constant(SchemaRun run, SchemaRule rule, object value) except -1:
    if type(rule.constant) is str:
        spend(run, 2)
        return type(value) is str and (value is rule.constant or <str> value == <str> rule.constant)
    return equality_key(run, value) == rule.constant


cdef bint is_chosen(SchemaRun run, SchemaRule rule, object value, int bits) except -1:
    if bits & (T_OBJECT | T_ARRAY) and not rule.chooses_containers:
        return False
    return equality_key(run, value) in rule.choices


cdef bint text_matches(SchemaRun run, SchemaTexts texts, str value) except -1:
    spend(run, 1)
    if len(value) < texts.size_min or (texts.size_max >= 0 and len(value) > texts.size_max):
        return False
    if texts.pattern is not None and not pattern_matches(run, texts.pattern, value):
        return False
    return texts.format is None or format_matches(run, texts.format, value)


cdef bint pattern_matches(SchemaRun run, TextPattern pattern, str value) except -1:
    cdef str reason
    try:
        return pattern.found_in(value, run.bounds, &run.left)
    except _BudgetExceeded as error:
        reason = str(error)
    if run.left <= 0:
        run_out(run)
    raise SchemaUndecided(reason.replace("expression", "schema"))


cdef bint number_matches(SchemaRun run, SchemaNumbers numbers, object value) except -1:
    spend(run, 2)
    if numbers.low is not None and value < numbers.low:
        return False
    if numbers.high is not None and value > numbers.high:
        return False
    if numbers.above is not None and value <= numbers.above:
        return False
    if numbers.below is not None and value >= numbers.below:
        return False
    return numbers.multiple is None or is_multiple(run, numbers, value)


# --- arrays ---

cdef bint items_match(SchemaRun run, SchemaItems items, list value, Spot* spot) except -1:
    cdef Py_ssize_t size = PyList_GET_SIZE(value)
    cdef Py_ssize_t first = 0 if items.first is None else PyTuple_GET_SIZE(items.first)
    cdef Py_ssize_t index
    cdef Spot inner
    if size < items.size_min or (items.size_max >= 0 and size > items.size_max):
        return False
    begin_spot(&inner, spot)
    for index in range(size):
        inner.index = index
        inner.position = -1
        if index < first:
            if not matches(run, <SchemaRule> PyTuple_GET_ITEM(items.first, index),
                           <object> PyList_GET_ITEM(value, index), &inner):
                return False
        elif items.rest is None:
            break
        elif not matches(run, items.rest, <object> PyList_GET_ITEM(value, index), &inner):
            return False
    if items.contained is not None and not contains_enough(run, items, value, spot):
        return False
    return not items.is_unique or are_unique(run, value)


cdef bint contains_enough(SchemaRun run, SchemaItems items, list value, Spot* spot) except -1:
    cdef Py_ssize_t index
    cdef Py_ssize_t count = 0
    cdef Spot inner
    begin_spot(&inner, spot)
    for index in range(PyList_GET_SIZE(value)):
        if count >= items.contained_min and items.contained_max < 0:
            return True
        inner.index = index
        inner.position = -1
        count += matches(run, items.contained, <object> PyList_GET_ITEM(value, index), &inner)
        if 0 <= items.contained_max < count:
            return False
    return count >= items.contained_min


# --- objects ---

cdef bint members_match(SchemaRun run, SchemaMembers members, dict value, Spot* spot) except -1:
    cdef Py_ssize_t size = PyDict_Size(value)
    cdef Py_ssize_t index
    if size < members.size_min or (members.size_max >= 0 and size > members.size_max):
        return False
    if members.required is not None:
        spend(run, PyTuple_GET_SIZE(members.required))
        for index in range(PyTuple_GET_SIZE(members.required)):
            if not PyDict_Contains(value, <object> PyTuple_GET_ITEM(members.required, index)):
                return False
    if members.patterns is not None or members.others is not None:
        if not all_members_match(run, members, value, spot):
            return False
    elif members.rules is not None and not known_members_match(run, members.rules, value, spot):
        return False
    if members.names is not None and not names_match(run, members.names, value, spot):
        return False
    return (members.needed is None and members.dependents is None) or dependents_match(run, members, value, spot)


cdef bint known_members_match(SchemaRun run, dict rules, dict value, Spot* spot) except -1:
    """Looks at the smaller side: members no rule is for are free."""
    cdef bint by_rule = PyDict_Size(rules) < PyDict_Size(value)
    cdef dict passed = rules if by_rule else value
    cdef dict other = value if by_rule else rules
    cdef PyObject* name
    cdef PyObject* here
    cdef PyObject* there
    cdef Py_ssize_t at = 0
    cdef Spot inner
    begin_spot(&inner, spot)
    spend(run, PyDict_Size(passed))
    while PyDict_Next(passed, &at, &name, &here):
        there = lookup_member(other, <object> name)
        if there == NULL:
            continue
        inner.name = name
        inner.position = -1
        if not (matches(run, <SchemaRule> here, <object> there, &inner) if by_rule
                else matches(run, <SchemaRule> there, <object> here, &inner)):
            return False
    return True


cdef bint all_members_match(SchemaRun run, SchemaMembers members, dict value, Spot* spot) except -1:
    cdef PyObject* name
    cdef PyObject* member
    cdef PyObject* rule
    cdef Py_ssize_t at = 0
    cdef bint is_known
    cdef Spot inner
    begin_spot(&inner, spot)
    while PyDict_Next(value, &at, &name, &member):
        spend(run, 1)
        inner.name = name
        inner.position = -1
        is_known = False
        rule = NULL if members.rules is None else lookup_member(members.rules, <object> name)
        if rule != NULL:
            is_known = True
            if not matches(run, <SchemaRule> rule, <object> member, &inner):
                return False
        if members.patterns is not None:
            for pattern, pattern_rule in members.patterns:
                if pattern_matches(run, <TextPattern> pattern, <str> name):
                    is_known = True
                    if not matches(run, <SchemaRule> pattern_rule, <object> member, &inner):
                        return False
        if not is_known and members.others is not None and not matches(run, members.others, <object> member, &inner):
            return False
    return True


cdef bint names_match(SchemaRun run, SchemaRule rule, dict value, Spot* spot) except -1:
    cdef Spot inner
    begin_spot(&inner, spot)
    inner.is_name = True
    for name in value:
        inner.name = <PyObject*> name
        inner.position = -1
        if not matches(run, rule, name, &inner):
            return False
    return True


cdef bint dependents_match(SchemaRun run, SchemaMembers members, dict value, Spot* spot) except -1:
    for name, names in members.needed or ():
        spend(run, 1)
        if name in value:
            spend(run, len(<tuple> names))
            for needed in <tuple> names:
                if needed not in value:
                    return False
    for name, rule in members.dependents or ():
        spend(run, 1)
        if name in value and not matches(run, <SchemaRule> rule, value, spot):
            return False
    return True


# --- what applies to the same value ---

cdef SchemaRule dynamic_rule(SchemaRun run, SchemaBranches branches):
    """What a dynamic reference means where the check has come to."""
    cdef object rule = None
    if branches.dynamic_name is not None and run.scope.bound is not None:
        rule = run.scope.bound.get(branches.dynamic_name)
    return branches.dynamic if rule is None else <SchemaRule> rule


cdef bint branches_match(SchemaRun run, SchemaBranches branches, object value, Spot* spot) except -1:
    cdef SchemaRule rule
    if branches.reference is not None and not matches(run, branches.reference, value, spot):
        return False
    if branches.dynamic is not None and not matches(run, dynamic_rule(run, branches), value, spot):
        return False
    if branches.all_of is not None and not all_match(run, branches.all_of, value, spot):
        return False
    if branches.any_of is not None and count_matches(run, branches.any_of, value, spot, 1) == 0:
        return False
    if branches.one_of is not None and count_matches(run, branches.one_of, value, spot, 2) != 1:
        return False
    if branches.never is not None and matches(run, branches.never, value, spot):
        return False
    if branches.condition is not None:
        rule = branches.then if matches(run, branches.condition, value, spot) else branches.otherwise
        return rule is None or matches(run, rule, value, spot)
    return True


cdef bint all_match(SchemaRun run, tuple rules, object value, Spot* spot) except -1:
    cdef Py_ssize_t index
    for index in range(PyTuple_GET_SIZE(rules)):
        if not matches(run, <SchemaRule> PyTuple_GET_ITEM(rules, index), value, spot):
            return False
    return True


cdef int count_matches(SchemaRun run, tuple rules, object value, Spot* spot, int enough) except -1:
    """How many rules a value matches; no more than `enough` are counted."""
    cdef int count = 0
    cdef Py_ssize_t index
    for index in range(PyTuple_GET_SIZE(rules)):
        count += matches(run, <SchemaRule> PyTuple_GET_ITEM(rules, index), value, spot)
        if count >= enough:
            break
    return count
