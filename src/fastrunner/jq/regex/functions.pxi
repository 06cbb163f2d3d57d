"""Stage 4, expressions: regular expressions as jq's functions use them.

Rules: offsets count code points. A pattern is compiled once with its flags and kept; making one is paid for by its
length.
"""

cdef dict PATTERNS = {}
cdef Py_ssize_t PATTERNS_MAX = _limits.REGEX_PATTERNS_MAX
cdef Py_ssize_t PATTERN_SIZE_MAX = _limits.REGEX_SIZE_CHARS_MAX
# Patterns take a microsecond or so per character to compile.
cdef Py_ssize_t PATTERN_STEPS_PER_CHAR = 50


cdef class FlaggedPattern:
    cdef Pattern pattern
    cdef bint everywhere


cdef FlaggedPattern flagged_pattern(str text, object flags):
    """The compiled pattern of a text and its flags."""
    cdef FlaggedPattern found = PATTERNS.get(text if flags is None else (text, flags))
    return found if found is not None else compile_pattern(text, flags)


cdef FlaggedPattern compile_pattern(str text, object flags):
    cdef FlaggedPattern made = FlaggedPattern.__new__(FlaggedPattern)
    cdef PatternParser parser = PatternParser.__new__(PatternParser)
    cdef PatternNode root
    cdef int options = 0
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
    if len(text) > PATTERN_SIZE_MAX:
        refuse(f"the pattern has {len(text)} characters, at most {PATTERN_SIZE_MAX} are allowed")
    charge(PATTERN_STEPS_PER_CHAR * (len(text) + 1))
    root = parser.parse(text, options & ~(X_LONGEST | X_NOT_EMPTY))
    made.pattern = (<PatternEmitter>PatternEmitter.__new__(PatternEmitter)).compile(root, parser, options)
    if len(PATTERNS) >= PATTERNS_MAX:
        PATTERNS.clear()
    PATTERNS[text if flags is None else (text, flags)] = made
    return made


cdef dict match_object(str text, Pattern pattern):
    """The match the registers tell of, as jq gives it."""
    cdef int* registers = MATCHER.registers
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


cdef FlaggedPattern prepared(object input, object text, object flags):
    """The pattern, and the matcher made ready for it."""
    cdef FlaggedPattern pattern
    if type(input) is not str:
        type_error(input, "cannot be matched, as it is not a string")
    if type(text) is not str:
        type_error(text, "is not a string")
    if flags is not None and type(flags) is not str:
        type_error(flags, "is not a string")
    pattern = flagged_pattern(text, flags)
    prepare(&MATCHER, pattern.pattern, input)
    return pattern


cdef bint next_match(FlaggedPattern pattern, int* start) except -1:
    """Finds the next match from `start` on, -1 being past the last one, and moves `start` on."""
    cdef int end
    if start[0] < 0 or start[0] > MATCHER.size or not search(&MATCHER, pattern.pattern, start[0]):
        return False
    end = MATCHER.registers[1]
    start[0] = -1 if not pattern.everywhere else end + 1 if end == MATCHER.registers[0] else end
    charge(4)
    return True


cdef object f_match(object input, object a, object b, object c):
    """`_match_impl(pattern; flags; test)`: whether it matches, or all matches as an array."""
    cdef FlaggedPattern pattern = prepared(input, a, b)
    cdef list matches = []
    cdef int start = 0
    if c is True:
        return search(&MATCHER, pattern.pattern, 0)
    while next_match(pattern, &start):
        matches.append(match_object(input, pattern.pattern))
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

cdef object group_text(str text, int group):
    """A group's text, None if it has not matched; in an empty match empty, as in the match itself."""
    cdef int* registers = MATCHER.registers
    if registers[2 * group + 1] < 0:
        return None
    if registers[0] == registers[1]:
        return ""
    return text[registers[2 * group] : registers[2 * group + 1]]


cdef dict named_groups(str text, Pattern pattern):
    cdef dict found = {}
    cdef int group
    charge(2 * pattern.groups)
    for group in range(1, pattern.groups + 1):
        if pattern.names[group] is not None:
            found[pattern.names[group]] = group_text(text, group)
    return found


cdef object f_capture(object input, object a, object b, object c):
    """`_capture(pattern; flags)`: of each match an object of its named groups."""
    cdef FlaggedPattern pattern = prepared(input, a, b)
    cdef list found = []
    cdef int start = 0
    while next_match(pattern, &start):
        found.append(named_groups(input, pattern.pattern))
    return found


cdef object f_capture1(object input, object a, object b, object c):
    a, b = pattern_and_flags(a)
    return f_capture(input, a, b, None)


cdef object f_scan(object input, object a, object b, object c):
    """`_scan(pattern; flags)`: of each match its text, or the texts of its groups if it has any."""
    cdef FlaggedPattern pattern = prepared(input, a, b)
    cdef list found = []
    cdef int start = 0
    cdef int group
    cdef int groups = pattern.pattern.groups
    cdef str text = input
    while next_match(pattern, &start):
        charge(2 * groups)
        if groups:
            found.append([group_text(text, group) for group in range(1, groups + 1)])
        else:
            found.append(text[MATCHER.registers[0] : MATCHER.registers[1]])
    return found


cdef object f_split_by(object input, object a, object b, object c):
    """`_split(pattern; flags)`: what lies between the matches."""
    cdef FlaggedPattern pattern = prepared(input, a, b)
    cdef list parts = []
    cdef int start = 0
    cdef int end = 0
    cdef str text = input
    while next_match(pattern, &start):
        parts.append(text[end : MATCHER.registers[0]])
        end = MATCHER.registers[1]
    parts.append(text[end:])
    return parts


cdef object f_edits(object input, object a, object b, object c):
    """`_edits(pattern; flags)`: the named groups of each match, and what lies between the matches."""
    cdef FlaggedPattern pattern = prepared(input, a, b)
    cdef list groups = []
    cdef list gaps = []
    cdef int start = 0
    cdef int end = 0
    cdef str text = input
    while next_match(pattern, &start):
        groups.append(named_groups(text, pattern.pattern))
        gaps.append(text[end : MATCHER.registers[0]])
        end = MATCHER.registers[1]
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
