"""Stage 4, expressions: regular expressions as jq's functions use them.

Rules: offsets count code points. A pattern is compiled once with its flags and kept; each evaluation that uses it pays
for that once, by its length, whether it was kept or not.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF

from fastrunner.base import limits as _limits
from fastrunner._jq cimport Bounds, State

cdef dict PATTERNS = {}
cdef Py_ssize_t PATTERNS_MAX = _limits.REGEX_PATTERNS_MAX
# Patterns take a microsecond or so per character to compile.
cdef Py_ssize_t PATTERN_STEPS_PER_CHAR = 50


@cython.internal
@cython.final
cdef class FlaggedPattern:
    cdef Pattern pattern
    cdef bint everywhere
    cdef str text
    cdef object flags
    # Steps it took to make, and within which bounds.
    cdef long long cost
    cdef int depth_max, instructions_max


cdef inline bint is_of(FlaggedPattern pattern, str text, object flags):
    return (pattern.text is text or pattern.text == text) and (pattern.flags is flags or pattern.flags == flags)


cdef FlaggedPattern flagged_pattern(Matcher* m, str text, object flags):
    """The compiled pattern of a text and its flags, which an evaluation pays for when it uses it first."""
    cdef FlaggedPattern found
    cdef object key
    if m.first_paid != NULL and is_of(<FlaggedPattern>m.first_paid, text, flags):
        return <FlaggedPattern>m.first_paid
    key = text if flags is None else (text, flags)
    if m.paid != NULL:
        found = (<dict>m.paid).get(key)
        if found is not None:
            return found
    found = PATTERNS.get(key)
    if found is not None and is_within_bounds(found):
        # As if it were made now, so that it makes no difference whether another evaluation has used it.
        charge(found.cost)
    else:
        found = kept_pattern(key, text, flags)
    return paid_pattern(m, key, found)


cdef bint is_within_bounds(FlaggedPattern pattern) noexcept:
    """Whether a pattern is what making it within the running machine's bounds would give."""
    cdef const Bounds* bounds = running().bounds
    if len(pattern.text) > bounds.regex_size:
        return False
    return pattern.depth_max == bounds.regex_depth and pattern.instructions_max == bounds.regex_instructions


cdef FlaggedPattern paid_pattern(Matcher* m, object key, FlaggedPattern pattern):
    if m.first_paid == NULL:
        Py_INCREF(pattern)
        m.first_paid = <PyObject*>pattern
        return pattern
    if m.paid == NULL:
        others = {}
        Py_INCREF(others)
        m.paid = <PyObject*>others
    (<dict>m.paid)[key] = pattern
    return pattern


cdef FlaggedPattern kept_pattern(object key, str text, object flags):
    cdef State* state = running()
    cdef long long before = state.steps_left
    cdef FlaggedPattern made = compile_pattern(text, flags)
    made.text = text
    made.flags = flags
    made.cost = before - state.steps_left
    made.depth_max = state.bounds.regex_depth
    made.instructions_max = state.bounds.regex_instructions
    if len(PATTERNS) >= PATTERNS_MAX:
        PATTERNS.clear()
    PATTERNS[key] = made
    return made


cdef FlaggedPattern compile_pattern(str text, object flags):
    cdef FlaggedPattern made = FlaggedPattern.__new__(FlaggedPattern)
    cdef PatternParser parser = PatternParser.__new__(PatternParser)
    cdef PatternNode root
    cdef int options = 0
    cdef Py_ssize_t size_max
    for flag in flags or "":
        if flag == "g":
            made.everywhere = True
        elif flag == "i":
            options |= X_FOLD
        elif flag == "x":
            options |= X_EXTENDED
        elif flag == "p" or flag == "m":
            options |= X_DOTALL
        elif flag == "l":
            options |= X_LONGEST
        elif flag == "n":
            options |= X_NOT_EMPTY
        elif flag != "s":
            # `s` is what this syntax does anyway.
            fail(f"{flags} is not a valid modifier string")
    size_max = running().bounds.regex_size
    if len(text) > size_max:
        refuse(f"the pattern has {len(text)} characters, at most {size_max} are allowed")
    charge(PATTERN_STEPS_PER_CHAR * (len(text) + 1))
    root = parser.parse(text, options & ~(X_LONGEST | X_NOT_EMPTY))
    made.pattern = (<PatternEmitter>PatternEmitter.__new__(PatternEmitter)).compile(root, parser, options)
    return made


cdef dict match_object(Matcher* m, str text, Pattern pattern):
    """The match the registers tell of, as jq gives it."""
    cdef int* registers = m.registers
    cdef int start = registers[0]
    cdef int end = registers[1]
    cdef list captures = []
    cdef int group
    charge(16 + 4 * pattern.groups)
    for group in range(1, pattern.groups + 1):
        if start == end and registers[2 * group + 1] >= 0:
            # jq's groups of an empty match are empty, too, even if they looked ahead.
            captures.append({"offset": start, "length": 0, "string": "", "name": pattern.names[group]})
        else:
            captures.append(capture_object(text, registers + 2 * group, pattern.names[group]))
    return {"offset": start, "length": end - start, "string": text[start:end], "captures": captures}


cdef dict capture_object(str text, int* bounds, object name):
    if bounds[1] < 0:
        return {"offset": -1, "length": 0, "string": None, "name": name}
    return {
        "offset": bounds[0], "length": bounds[1] - bounds[0], "string": text[bounds[0] : bounds[1]], "name": name,
    }


cdef FlaggedPattern prepared(Matcher* m, object input, object text, object flags):
    """The pattern, and the matcher made ready for it."""
    cdef FlaggedPattern pattern
    if type(input) is not str:
        type_error(input, "cannot be matched, as it is not a string")
    if type(text) is not str:
        type_error(text, "is not a string")
    if flags is not None and type(flags) is not str:
        type_error(flags, "is not a string")
    pattern = flagged_pattern(m, text, flags)
    prepare(m, pattern.pattern, input)
    return pattern


cdef bint next_match(Matcher* m, FlaggedPattern pattern, int* start) except -1:
    """Finds the next match from `start` on, -1 being past the last one, and moves `start` on."""
    cdef int end
    if start[0] < 0 or start[0] > m.size or not search(m, pattern.pattern, start[0]):
        return False
    end = m.registers[1]
    start[0] = -1 if not pattern.everywhere else end + 1 if end == m.registers[0] else end
    charge(4)
    return True


cdef object f_match(object input, object a, object b, object c):
    """`_match_impl(pattern; flags; test)`: whether it matches, or all matches as an array."""
    cdef Matcher* m = own_matcher()
    cdef FlaggedPattern pattern = prepared(m, input, a, b)
    cdef list matches = []
    cdef int start = 0
    if c is True:
        return search(m, pattern.pattern, 0)
    while next_match(m, pattern, &start):
        matches.append(match_object(m, input, pattern.pattern))
    return matches


cdef tuple pattern_and_flags(object value):
    """The argument of `test/1` and its kin: a pattern, or an array of it and its flags."""
    if type(value) is str:
        return value, None
    if type(value) is not list or not value:
        fail(f"{kind_name(value)} not a string or array")
    return value[0], value[1] if len(<list>value) > 1 else None


cdef object f_test1(object input, object a, object b, object c):
    if type(a) is not str:
        a, b = pattern_and_flags(a)
    return f_match(input, a, b, True)


cdef object f_test2(object input, object a, object b, object c):
    return f_match(input, a, b, True)


cdef object f_match1(object input, object a, object b, object c):
    """`_match1(pattern)`: all matches as an array."""
    a, b = pattern_and_flags(a)
    return f_match(input, a, b, False)


# --- what the other functions make of matches ---

cdef object group_text(Matcher* m, str text, int group):
    """A group's text, None if it has not matched; in an empty match empty, as in the match itself."""
    cdef int* registers = m.registers
    if registers[2 * group + 1] < 0:
        return None
    if registers[0] == registers[1]:
        return ""
    return text[registers[2 * group] : registers[2 * group + 1]]


cdef dict named_groups(Matcher* m, str text, Pattern pattern):
    cdef dict found = {}
    cdef int group
    charge(2 * pattern.groups)
    for group in range(1, pattern.groups + 1):
        if pattern.names[group] is not None:
            found[pattern.names[group]] = group_text(m, text, group)
    return found


cdef object f_capture(object input, object a, object b, object c):
    """`_capture(pattern; flags)`: of each match an object of its named groups."""
    cdef Matcher* m = own_matcher()
    cdef FlaggedPattern pattern = prepared(m, input, a, b)
    cdef list found = []
    cdef int start = 0
    while next_match(m, pattern, &start):
        found.append(named_groups(m, input, pattern.pattern))
    return found


cdef object f_capture1(object input, object a, object b, object c):
    a, b = pattern_and_flags(a)
    return f_capture(input, a, b, None)


cdef object f_scan(object input, object a, object b, object c):
    """`_scan(pattern; flags)`: of each match its text, or the texts of its groups if it has any."""
    cdef Matcher* m = own_matcher()
    cdef FlaggedPattern pattern = prepared(m, input, a, b)
    cdef list found = []
    cdef int start = 0
    cdef int group
    cdef int groups = pattern.pattern.groups
    cdef str text = input
    while next_match(m, pattern, &start):
        charge(2 * groups)
        if groups:
            found.append([group_text(m, text, group) for group in range(1, groups + 1)])
        else:
            found.append(text[m.registers[0] : m.registers[1]])
    return found


cdef object f_split_by(object input, object a, object b, object c):
    """`_split(pattern; flags)`: what lies between the matches."""
    cdef Matcher* m = own_matcher()
    cdef FlaggedPattern pattern = prepared(m, input, a, b)
    cdef list parts = []
    cdef int start = 0
    cdef int end = 0
    cdef str text = input
    while next_match(m, pattern, &start):
        parts.append(text[end : m.registers[0]])
        end = m.registers[1]
    parts.append(text[end:])
    return parts


cdef object f_edits(object input, object a, object b, object c):
    """`_edits(pattern; flags)`: the named groups of each match, and what lies between the matches."""
    cdef Matcher* m = own_matcher()
    cdef FlaggedPattern pattern = prepared(m, input, a, b)
    cdef list groups = []
    cdef list gaps = []
    cdef int start = 0
    cdef int end = 0
    cdef str text = input
    while next_match(m, pattern, &start):
        groups.append(named_groups(m, text, pattern.pattern))
        gaps.append(text[end : m.registers[0]])
        end = m.registers[1]
    gaps.append(text[end:])
    return [groups, gaps]


cdef object f_edited(object input, object a, object b, object c):
    """`_edited(gaps; inserts)`: the text put together again, once for each result that takes the matches' places."""
    cdef list gaps = a
    cdef list inserts = b
    cdef list edited = []
    cdef Py_ssize_t match, result
    cdef object insert
    for match in range(len(inserts)):
        charge(2 * len(<list>inserts[match]))
        for result in range(len(<list>inserts[match])):
            insert = (<list>inserts[match])[result]
            if result == len(edited):
                edited.append([])
            (<list>edited[result]).append(gaps[match])
            if type(insert) is str:
                (<list>edited[result]).append(insert)
            elif insert is not None:
                add(gaps[match], insert)
    if not edited:
        return [input]
    for result in range(len(edited)):
        (<list>edited[result]).append(gaps[len(gaps) - 1])
        edited[result] = joined(edited[result], "")
    return edited
