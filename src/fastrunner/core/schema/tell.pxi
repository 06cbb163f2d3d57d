"""Stage 4, walk: what is wrong with a value that does not match, in words: a second look, only when the answer is no.

Rules: the first few violations and no more, each of bounded length; a value is quoted only as far as it is shown. Of
alternatives it is told that none fits, never what each of them lacks. Steps count on from where the answer was found,
and if they run out what has been found is told.
"""

cimport cython
from fastrunner._jq cimport TextPattern
from fastrunner.base.limits import SCHEMA_ERRORS_MAX, SCHEMA_MESSAGE_SIZE_MAX

# Characters of a value that are shown beside words however long.
cdef Py_ssize_t VALUE_SHOWN_MIN = 60


@cython.internal
@cython.final
cdef class SchemaTold:
    """Pairs: a JSON pointer, a message."""

    cdef list messages
    cdef SchemaRun run
    cdef set heard
    """Rules that have been asked about a value: its place, the rule, the scope."""

    cdef bint is_full(self):
        return len(self.messages) >= SCHEMA_ERRORS_MAX

    cdef int add(self, Spot* spot, str message) except -1:
        if not self.is_full():
            self.messages.append((spot_pointer(spot), shortened_text(message)))
        return 0

    cdef int add_value(self, Spot* spot, object value, str words) except -1:
        """A message that begins with the value, of which a part is left out rather than of the words."""
        cdef Py_ssize_t room = max(SCHEMA_MESSAGE_SIZE_MAX - len(words), VALUE_SHOWN_MIN)
        cdef str shown
        if not self.is_full():
            spend(self.run, 50)
            shown = shown_json(value, room + 1)
            if len(shown) > room:
                shown = shown[: room - 3] + "..."
            self.messages.append((spot_pointer(spot), shortened_text(shown + words)))
        return 0


cdef str shortened_text(str message):
    return message[:SCHEMA_MESSAGE_SIZE_MAX]


cdef str spot_pointer(Spot* spot):
    cdef list parts = []
    while spot.above != NULL:
        if not spot.is_name:
            parts.append("/" + (str(spot.index) if spot.name == NULL else escape_pointer(<str> spot.name)))
        spot = spot.above
    parts.reverse()
    return "".join(parts)


cdef str shown_json(object value, Py_ssize_t size_max):
    """A value's JSON text as far as it fits."""
    cdef list parts = []
    show_json(value, size_max, parts)
    return "".join(parts)[:size_max]


cdef Py_ssize_t show_json(object value, Py_ssize_t left, list parts) except? -1000000:
    """Adds a value's text until nothing is left; gives what is left."""
    cdef Py_ssize_t count = 0
    cdef str text
    if left <= 0:
        return left
    if type(value) is dict or type(value) is list:
        parts.append("{" if type(value) is dict else "[")
        for part in value:
            if left <= 0:
                break
            if count:
                parts.append(",")
            count += 1
            if type(value) is dict:
                left = show_json(part, left, parts)
                parts.append(":")
                part = value[part]
            left = show_json(part, left - 1, parts)
        parts.append("}" if type(value) is dict else "]")
        return left - 2
    if type(value) is int:
        # A schema may have numbers that data has not.
        text = str(value)
    else:
        text = dump_json(value[:left].encode("utf-8", "replace").decode() if type(value) is str else value).decode()
    parts.append(text)
    return left - len(text)


cdef str counted(Py_ssize_t count, str one, str many):
    return f"{count} {one if count == 1 else many}"


cdef int tell(SchemaTold told, SchemaRule rule, object value, Spot* spot) except -1:
    """Adds what is wrong by a rule; nothing if the value matches it."""
    cdef SchemaRun run = told.run
    cdef SchemaScope before = run.scope
    cdef tuple key
    if told.is_full():
        return 0
    if rule.names is not None:
        run.scope = entered(run, rule.names)
    if rule.is_shared or rule.is_looping:
        # What it has to say of this value has been said, or is being said.
        key = (position_of(run, spot), rule.number, run.scope.number)
        if key in told.heard:
            run.scope = before
            return 0
        told.heard.add(key)
    run.depth += 1
    if run.depth > SCHEMA_DEPTH_MAX:
        nested_too_deep()
    tell_rule(told, rule, value, spot)
    run.depth -= 1
    run.scope = before
    return 0


cdef int tell_rule(SchemaTold told, SchemaRule rule, object value, Spot* spot) except -1:
    cdef SchemaRun run = told.run
    cdef int bits
    spend(run, 2)
    if rule.always >= 0:
        if not rule.always:
            told.add(spot, f"False schema does not allow {shown_json(value, SCHEMA_MESSAGE_SIZE_MAX)}")
        return 0
    bits = type_bits(value)
    if rule.types and not rule.types & bits:
        told.add_value(spot, value, f" is not of {type_words(rule.types)}")
    if rule.choices is not None and not is_chosen(run, rule, value, bits):
        told.add_value(spot, value, f" is not one of {choices_shown(rule.shown_choices)}")
    if rule.constant is not None and not is_constant(run, rule, value):
        told.add(spot, f"{shown_json(rule.shown_constant, SCHEMA_MESSAGE_SIZE_MAX)} was expected")
    if bits & T_STRING and rule.texts is not None:
        tell_text(told, rule.texts, value, spot)
    elif bits & T_NUMBER and rule.numbers is not None:
        tell_number(told, rule.numbers, value, spot)
    elif bits & T_OBJECT and rule.members is not None:
        tell_members(told, rule.members, value, spot)
    elif bits & T_ARRAY and rule.items is not None:
        tell_items(told, rule.items, value, spot)
    if rule.branches is not None:
        tell_branches(told, rule.branches, value, spot)
    if rule.has_unevaluated and not told.messages:
        tell_unevaluated(told, rule, value, spot)
    return 0


cdef str type_words(int types):
    cdef list names = [f'"{name}"' for name, bit in SCHEMA_TYPES.items()
                       if types & (bit | (T_INTEGER if bit == T_WHOLE else 0))]
    return ("type " if len(names) == 1 else "types ") + ", ".join(names)


cdef str choices_shown(tuple values):
    """`1, 2 or 3`, as far as it can be shown."""
    cdef list shown = []
    cdef Py_ssize_t size = 0
    for value in values:
        shown.append(shown_json(value, SCHEMA_MESSAGE_SIZE_MAX))
        size += len(<str> shown[len(shown) - 1])
        if size > SCHEMA_MESSAGE_SIZE_MAX:
            break
    return shown[0] if len(shown) == 1 else " or ".join([", ".join(shown[: len(shown) - 1]), *shown[len(shown) - 1 :]])


cdef int tell_text(SchemaTold told, SchemaTexts texts, str value, Spot* spot) except -1:
    if len(value) < texts.size_min:
        told.add_value(spot, value, f" is shorter than {counted(texts.size_min, 'character', 'characters')}")
    if 0 <= texts.size_max < len(value):
        told.add_value(spot, value, f" is longer than {counted(texts.size_max, 'character', 'characters')}")
    if texts.pattern is not None and not pattern_matches(told.run, texts.pattern, value):
        told.add_value(spot, value, f' does not match "{texts.pattern_text}"')
    if texts.format is not None and not format_matches(told.run, texts.format, value):
        told.add_value(spot, value, f' is not a "{texts.format}"')
    return 0


cdef int tell_number(SchemaTold told, SchemaNumbers numbers, object value, Spot* spot) except -1:
    if numbers.low is not None and value < numbers.low:
        told.add_value(spot, value, f" is less than the minimum of {numbers.low}")
    if numbers.high is not None and value > numbers.high:
        told.add_value(spot, value, f" is greater than the maximum of {numbers.high}")
    if numbers.above is not None and value <= numbers.above:
        told.add_value(spot, value, f" is less than or equal to the minimum of {numbers.above}")
    if numbers.below is not None and value >= numbers.below:
        told.add_value(spot, value, f" is greater than or equal to the maximum of {numbers.below}")
    if numbers.multiple is not None and not is_multiple(told.run, numbers, value):
        told.add_value(spot, value, f" is not a multiple of {numbers.multiple}")
    return 0


cdef int tell_items(SchemaTold told, SchemaItems items, list value, Spot* spot) except -1:
    cdef Py_ssize_t first = 0 if items.first is None else len(items.first)
    cdef Py_ssize_t index
    cdef Spot inner
    if len(value) < items.size_min:
        told.add_value(spot, value, f" has less than {counted(items.size_min, 'item', 'items')}")
    if 0 <= items.size_max < len(value):
        told.add_value(spot, value, f" has more than {counted(items.size_max, 'item', 'items')}")
    if items.rest_is_additional and items.rest.always == 0 and len(value) > first:
        told.add(spot, f"Additional items are not allowed ({unexpected(value[first:], '')})")
        value = value[:first]
    begin_spot(&inner, spot)
    for index in range(len(value)):
        if told.is_full() or (index >= first and items.rest is None):
            break
        aim(&inner, index)
        tell(told, items.first[index] if index < first else items.rest, value[index], &inner)
    if told.is_full():
        return 0
    if items.contained is not None and not contains_enough(told.run, items, value, spot):
        told.add(spot, f"None of {shown_json(value, SCHEMA_MESSAGE_SIZE_MAX)} are valid under the given schema"
                 if items.contained_max < 0 else f"{shown_json(value, SCHEMA_MESSAGE_SIZE_MAX // 2)} does not contain "
                 f"{items.contained_min} to {items.contained_max} items that are valid under the given schema")
    if items.is_unique and not are_unique(told.run, value):
        told.add_value(spot, value, " has non-unique elements")
    return 0


cdef str unexpected(object names, str quote):
    """What nobody expected, as far as it can be shown."""
    cdef list shown = []
    cdef Py_ssize_t size = 0
    for name in names:
        shown.append(f"{quote}{name if quote else shown_json(name, SCHEMA_MESSAGE_SIZE_MAX)}{quote}")
        size += len(<str> shown[len(shown) - 1])
        if size > SCHEMA_MESSAGE_SIZE_MAX:
            break
    return f"{', '.join(shown)} {'was' if len(shown) == 1 else 'were'} unexpected"


cdef int tell_members(SchemaTold told, SchemaMembers members, dict value, Spot* spot) except -1:
    if len(value) < members.size_min:
        told.add_value(spot, value, f" has less than {counted(members.size_min, 'property', 'properties')}")
    if 0 <= members.size_max < len(value):
        told.add_value(spot, value, f" has more than {counted(members.size_max, 'property', 'properties')}")
    tell_missing(told, members.required, value, spot)
    tell_each_member(told, members, value, spot)
    if members.names is not None and not told.is_full():
        tell_names(told, members.names, value, spot)
    for name, names in members.needed or ():
        if name in value:
            tell_missing(told, names, value, spot)
    for name, rule in members.dependents or ():
        if name in value:
            tell(told, <SchemaRule> rule, value, spot)
    return 0


cdef int tell_missing(SchemaTold told, tuple names, dict value, Spot* spot) except -1:
    for name in names or ():
        spend(told.run, 1)
        if name not in value:
            told.add_value(spot, name, " is a required property")
    return 0


cdef int tell_names(SchemaTold told, SchemaRule rule, dict value, Spot* spot) except -1:
    cdef Spot inner
    begin_spot(&inner, spot)
    inner.is_name = True
    for name in value:
        aim(&inner, name)
        tell(told, rule, name, &inner)
    return 0


cdef int tell_each_member(SchemaTold told, SchemaMembers members, dict value, Spot* spot) except -1:
    cdef list others = []
    cdef bint is_known
    cdef Spot inner
    begin_spot(&inner, spot)
    for name, member in value.items():
        if told.is_full():
            return 0
        spend(told.run, 2)
        aim(&inner, name)
        is_known = members.rules is not None and name in members.rules
        if is_known:
            tell(told, <SchemaRule> members.rules[name], member, &inner)
        for pattern, rule in members.patterns or ():
            if pattern_matches(told.run, <TextPattern> pattern, <str> name):
                is_known = True
                tell(told, <SchemaRule> rule, member, &inner)
        if is_known or members.others is None:
            continue
        if members.others.always == 0:
            others.append(name)
        else:
            tell(told, members.others, member, &inner)
    if others:
        told.add(spot, f"""Additional properties are not allowed ({unexpected(others, "'")})""")
    return 0


cdef int tell_branches(SchemaTold told, SchemaBranches branches, object value, Spot* spot) except -1:
    cdef SchemaRun run = told.run
    cdef SchemaRule rule
    cdef int count
    if branches.reference is not None:
        tell(told, branches.reference, value, spot)
    if branches.dynamic is not None:
        tell(told, dynamic_rule(run, branches), value, spot)
    for rule in branches.all_of or ():
        tell(told, rule, value, spot)
    if told.is_full():
        return 0
    if branches.any_of is not None and not count_matches(run, branches.any_of, value, spot, 1):
        told.add_value(spot, value, " is not valid under any of the schemas listed in the 'anyOf' keyword")
    if branches.one_of is not None:
        count = count_matches(run, branches.one_of, value, spot, 2)
        if count != 1:
            told.add_value(spot, value, f" is {'valid under more than one' if count else 'not valid under any'} of the "
                           "schemas listed in the 'oneOf' keyword")
    if branches.never is not None and matches(run, branches.never, value, spot):
        told.add(spot, f"{shown_json(branches.never_text, SCHEMA_MESSAGE_SIZE_MAX // 2)} is not allowed for "
                 f"{shown_json(value, SCHEMA_MESSAGE_SIZE_MAX)}")
    if branches.condition is not None:
        rule = branches.then if matches(run, branches.condition, value, spot) else branches.otherwise
        if rule is not None:
            tell(told, rule, value, spot)
    return 0


cdef int tell_unevaluated(SchemaTold told, SchemaRule rule, object value, Spot* spot) except -1:
    cdef SchemaRule wanted = unevaluated_rule(rule, value)
    cdef list found = []
    cdef Spot inner
    if wanted is None:
        return 0
    begin_spot(&inner, spot)
    for key in unevaluated_of(told.run, rule, value, spot):
        aim(&inner, key)
        if not matches(told.run, wanted, value[key], &inner):
            found.append(key if type(value) is dict else shown_json(value[key], SCHEMA_MESSAGE_SIZE_MAX))
    if found:
        told.add(spot, f"Unevaluated {'properties' if type(value) is dict else 'items'} are not allowed "
                 f"""({unexpected(found, "'")})""")
    return 0
