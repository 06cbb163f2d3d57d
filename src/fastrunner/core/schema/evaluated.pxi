"""Stage 4, walk: which members or items of a value other keywords have evaluated, for `unevaluated*`.

Rules: found by a second look at what applies to the same value, after all of it has been found to match, and only for
schemas that ask. A rule is looked at once per such look, however many ways lead to it.
"""

cimport cython
from cpython.ref cimport PyObject
from fastrunner._jq cimport TextPattern


@cython.internal
@cython.final
cdef class Evaluated:
    cdef set names
    cdef bytearray items
    """A byte per item."""
    cdef bint all
    cdef set seen
    """Rules looked at, with the scope they were in."""


cdef bint unevaluated_match(SchemaRun run, SchemaRule rule, object value, Spot* spot) except -1:
    cdef SchemaRule wanted = unevaluated_rule(rule, value)
    cdef Spot inner
    if wanted is None:
        return True
    begin_spot(&inner, spot)
    for key in unevaluated_of(run, rule, value, spot):
        aim(&inner, key)
        if not matches(run, wanted, value[key], &inner):
            return False
    return True


cdef SchemaRule unevaluated_rule(SchemaRule rule, object value):
    if type(value) is dict:
        return None if rule.members is None else rule.members.unevaluated
    if type(value) is list:
        return None if rule.items is None else rule.items.unevaluated
    return None


cdef inline int aim(Spot* spot, object key) except -1:
    """Points a place at a member or an item."""
    spot.position = -1
    if type(key) is str:
        spot.name = <PyObject*> key
    else:
        spot.index = key
    return 0


cdef list unevaluated_of(SchemaRun run, SchemaRule rule, object value, Spot* spot):
    """Names or indices that nothing has evaluated."""
    cdef Evaluated found = Evaluated.__new__(Evaluated)
    found.seen = set()
    spend(run, 10 + len(value))
    if type(value) is dict:
        found.names = set()
        gather(run, rule, value, spot, found, True)
        return [] if found.all else [name for name in value if name not in found.names]
    found.items = bytearray(len(value))
    gather(run, rule, value, spot, found, True)
    return [] if found.all else [index for index in range(len(value)) if not found.items[index]]


cdef int gather(SchemaRun run, SchemaRule rule, object value, Spot* spot, Evaluated found, bint is_own) except -1:
    """Adds what a rule evaluates that the value matches; `is_own`: the one whose `unevaluated*` asks."""
    cdef SchemaScope before = run.scope
    spend(run, 5)
    if rule.always >= 0 or found.all:
        return 0
    if rule.names is not None:
        run.scope = entered(run, rule.names)
    key = (rule.number, run.scope.number)
    if key not in found.seen:
        found.seen.add(key)
        run.depth += 1
        if run.depth > SCHEMA_DEPTH_MAX:
            nested_too_deep()
        if found.names is None:
            gather_items(run, rule.items, <list> value, spot, found, is_own)
        else:
            gather_members(run, rule.members, <dict> value, spot, found, is_own)
        if rule.branches is not None and not found.all:
            gather_branches(run, rule.branches, value, spot, found)
        run.depth -= 1
    run.scope = before
    return 0


cdef int gather_members(SchemaRun run, SchemaMembers members, dict value, Spot* spot, Evaluated found,
                        bint is_own) except -1:
    if members is None:
        return 0
    if members.others is not None or (members.unevaluated is not None and not is_own):
        found.all = True
        return 0
    if members.rules is not None or members.patterns is not None:
        for name in value:
            spend(run, 2)
            if members.rules is not None and name in members.rules:
                found.names.add(name)
                continue
            for pattern, _ in members.patterns or ():
                if pattern_matches(run, <TextPattern> pattern, <str> name):
                    found.names.add(name)
                    break
    for name, rule in members.dependents or ():
        spend(run, 1)
        if name in value:
            gather(run, <SchemaRule> rule, value, spot, found, False)
    return 0


cdef int gather_items(SchemaRun run, SchemaItems items, list value, Spot* spot, Evaluated found,
                      bint is_own) except -1:
    cdef Py_ssize_t index
    cdef Spot inner
    if items is None:
        return 0
    if items.rest is not None or (items.unevaluated is not None and not is_own):
        found.all = True
        return 0
    for index in range(min(len(value), 0 if items.first is None else len(items.first))):
        found.items[index] = 1
    if items.contained is not None and items.contained_are_evaluated:
        begin_spot(&inner, spot)
        for index in range(len(value)):
            aim(&inner, index)
            if matches(run, items.contained, value[index], &inner):
                found.items[index] = 1
    return 0


cdef int gather_branches(SchemaRun run, SchemaBranches branches, object value, Spot* spot, Evaluated found) except -1:
    cdef SchemaRule rule
    if branches.reference is not None:
        gather(run, branches.reference, value, spot, found, False)
    if branches.dynamic is not None:
        gather(run, dynamic_rule(run, branches), value, spot, found, False)
    for rule in branches.all_of or ():
        gather(run, rule, value, spot, found, False)
    for rules in (branches.any_of, branches.one_of):
        for rule in rules or ():
            if matches(run, rule, value, spot):
                gather(run, rule, value, spot, found, False)
    if branches.condition is not None:
        rule = branches.otherwise
        if matches(run, branches.condition, value, spot):
            gather(run, branches.condition, value, spot, found, False)
            rule = branches.then
        if rule is not None:
            gather(run, rule, value, spot, found, False)
    return 0
