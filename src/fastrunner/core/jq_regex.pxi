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


cdef object f_match(object input, object a, object b, object c):
    """`_match_impl(pattern; flags; test)`: whether it matches, or all matches as an array."""
    cdef FlaggedPattern pattern = prepared(input, a, b)
    cdef list matches = []
    cdef int start = 0
    if c is True:
        return search(&MATCHER, pattern.pattern, 0)
    while start <= MATCHER.size and search(&MATCHER, pattern.pattern, start):
        matches.append(match_object(input, pattern.pattern))
        if not pattern.everywhere:
            break
        start = MATCHER.registers[1]
        if start == MATCHER.registers[0]:
            start += 1
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
