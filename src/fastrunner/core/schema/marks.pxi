"""Stage 2, compile: which rules a check may meet again for the same value, and which lead back to themselves.

Rules: told by the schema alone. Verdicts of rules that are met once are not worth keeping, and most are, even in
schemas that refer to themselves: so it is worked out which rules may apply together, place by place, as far as the
data could tell places apart. Where that takes too long, every rule with several ways to it counts as met again.
"""

# Sets of rules looked at, for each rule of the schema, before it is too much.
cdef int SETS_PER_RULE = 4


cdef int mark_rules(SchemaCompiler compiler, SchemaSource source) except -1:
    cdef list rules = [(<SchemaPlace> place).rule for place in source.places.values()
                       if (<SchemaPlace> place).rule is not None]
    cdef SchemaPlace place
    cdef SchemaResource resource
    cdef SchemaRule rule
    cdef bint has_several = False
    for place, name in compiler.dynamic_uses:
        for resource in source.dynamic:
            if name in resource.names:
                compiler.here(place, <SchemaRule> resource.names[name])
    for rule in rules:
        mark_loops(compiler, rule)
        has_several = has_several or rule.uses > 1
    if has_several and not mark_met_again(compiler, (<SchemaPlace> source.places[""]).rule, len(rules)):
        for rule in rules:
            rule.is_shared = rule.uses > 1
    if compiler.has_unevaluated:
        mark_looked_at_again(compiler, rules)
    for rule in rules:
        rule.is_shared = rule.is_shared and rule.always < 0 and not rule.asks_only_types
        rule.is_special = rule.is_shared or rule.is_looping or rule.names is not None
    return 0


cdef int mark_looked_at_again(SchemaCompiler compiler, list rules) except -1:
    """Finding out what has been evaluated asks again what applies to the same value, and what arrays contain."""
    cdef SchemaRule rule
    for same in compiler.same_value.values():
        for rule in same:
            rule.is_shared = True
    for rule in rules:
        if rule.items is not None and rule.items.contained is not None:
            rule.items.contained.is_shared = True
    return 0


# --- rules met again ---

cdef bint mark_met_again(SchemaCompiler compiler, SchemaRule root, Py_ssize_t count) except -1:
    """Follows the schema into data as deep as it tells places apart; False if it tells too many apart."""
    cdef set seen = set()
    cdef list waiting = [[root]]
    cdef dict together
    while waiting:
        together = applying_together(compiler, waiting.pop())
        key = frozenset(together)
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > SETS_PER_RULE * (count + 4):
            return False
        add_members_of(compiler, together, waiting)
        add_items_of(compiler, together, waiting)
    return True


cdef dict applying_together(SchemaCompiler compiler, list rules):
    """All rules that apply to a value if some do, by number; marks those met twice."""
    cdef dict together = {}
    cdef list pending = list(rules)
    cdef SchemaRule rule
    while pending:
        rule = pending.pop()
        compiler.spend(3)
        if rule.number in together:
            rule.is_shared = True
        else:
            together[rule.number] = rule
            pending.extend(compiler.same_value.get(rule.number, ()))
    return together


cdef int add_members_of(SchemaCompiler compiler, dict together, list waiting) except -1:
    """The rules for each member that is told apart by name, for all others, and for names."""
    cdef dict by_name = {}
    cdef list wide = []
    cdef list names = []
    cdef SchemaRule rule
    cdef SchemaMembers members
    for rule in together.values():
        members = rule.members
        if members is None or rule.number < compiler.first:
            continue
        for name, member in (members.rules or {}).items():
            compiler.spend(2)
            by_name.setdefault(name, []).append(member)
        wide.extend([member for _, member in members.patterns or ()])
        wide.extend([member for member in (members.others, members.unevaluated) if member is not None])
        if members.names is not None:
            names.append(members.names)
    add_sets(compiler, by_name, wide, waiting)
    return add_sets(compiler, {}, names, waiting)


cdef int add_items_of(SchemaCompiler compiler, dict together, list waiting) except -1:
    cdef dict by_index = {}
    cdef list wide = []
    cdef SchemaRule rule
    cdef SchemaItems items
    for rule in together.values():
        items = rule.items
        if items is None or rule.number < compiler.first:
            continue
        for index, item in enumerate(items.first or ()):
            compiler.spend(2)
            by_index.setdefault(index, []).append(item)
        wide.extend([item for item in (items.rest, items.contained, items.unevaluated) if item is not None])
    return add_sets(compiler, by_index, wide, waiting)


cdef int add_sets(SchemaCompiler compiler, dict apart, list wide, list waiting) except -1:
    for rules in apart.values():
        compiler.spend(2 + len(wide))
        waiting.append(rules + wide)
    if wide:
        waiting.append(wide)
    return 0


# --- circles ---

cdef int mark_loops(SchemaCompiler compiler, SchemaRule start) except -1:
    """Marks the rule that closes each circle."""
    cdef list stack = []
    cdef list rules
    cdef SchemaRule rule = start
    cdef SchemaRule following
    if start.number in compiler.marked:
        return 0
    compiler.marked[rule.number] = True
    stack.append((rule, iter(compiler.same_value.get(rule.number, ()))))
    while stack:
        compiler.spend(2)
        rule, others = stack[len(stack) - 1]
        following = next(others, None)
        if following is None:
            compiler.marked[rule.number] = False
            stack.pop()
        elif compiler.marked.get(following.number):
            following.is_looping = True
        elif following.number not in compiler.marked:
            compiler.marked[following.number] = True
            stack.append((following, iter(compiler.same_value.get(following.number, ()))))
    return 0
