"""Stage 4, expressions: regular expressions, translated from Oniguruma's syntax to Python's `re`.

Rules: offsets count code points. A pattern is translated once and kept; patterns that could backtrack for ever are
not yet told apart, so the text and the pattern are bounded in size instead.
"""

import re as _re

cdef dict PATTERNS = {}
cdef int PATTERNS_MAX = 1_000
cdef Py_ssize_t PATTERN_SIZE_MAX = 10_000
cdef dict CLASSES = {
    "alpha": "a-zA-Z", "digit": "0-9", "alnum": "a-zA-Z0-9", "upper": "A-Z", "lower": "a-z", "space": "\\s",
    "punct": "!-/:-@\\[-`{-~", "xdigit": "0-9a-fA-F", "word": "\\w", "blank": " \\t", "cntrl": "\\x00-\\x1f\\x7f",
    "print": "\\x20-\\x7e", "graph": "\\x21-\\x7e", "ascii": "\\x00-\\x7f",
}

cdef dict PROPERTIES = {
    "l": "[^\\W\\d_]", "letter": "[^\\W\\d_]", "alpha": "[^\\W\\d_]", "alnum": "[^\\W_]",
    "nd": "\\d", "n": "\\d", "digit": "\\d",
    "space": "\\s", "word": "\\w",
}


cdef str translate_pattern(str pattern):
    """Python's spelling of what Oniguruma writes differently: named groups, \\z, \\Z, \\p{..} and POSIX classes."""
    cdef list out = []
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t size = len(pattern)
    cdef bint inside = False
    while i < size:
        c = pattern[i]
        if c == "\\" and i + 1 < size:
            end = pattern.find("}", i)
            if pattern[i + 1] in "pPx" and pattern[i + 2 : i + 3] == "{" and end > 0:
                out.append(translate_braced(pattern[i + 1], pattern[i + 3 : end], inside))
                i = end + 1
            else:
                out.append(translate_escape(pattern[i + 1]))
                i += 2
        elif inside and pattern.startswith("[:", i) and pattern.find(":]", i) > 0:
            name = pattern[i + 2 : pattern.find(":]", i)]
            out.append(CLASSES.get(name, ""))
            i = pattern.find(":]", i) + 2
        elif not inside and pattern.startswith("(?<", i) and i + 3 < size and pattern[i + 3] not in "=!":
            out.append("(?P<")
            i += 3
        else:
            if c == "[":
                # An opening bracket inside a class is itself to Python only if escaped.
                out.append("\\[" if inside else "[")
                inside = True
            else:
                inside = inside and c != "]"
                out.append(c)
            i += 1
    return "".join(out)


cdef str translate_escape(str c):
    if c == "z":
        return "\\Z"
    if c == "Z":
        return "(?=\\n?\\Z)"
    if c == "R":
        return "(?:\\r\\n|[\\n-\\r\\x85\\u2028\\u2029])"
    # An escape without a meaning is the letter itself.
    return c if c.isalpha() and c not in "AbBdDsSwWafnrtvx" else "\\" + c


cdef str translate_braced(str c, str name, bint inside):
    """`\\x{..}`, `\\p{..}` and `\\P{..}`; of properties those that Python has classes for."""
    if c == "x":
        try:
            return _re.escape(chr(int(name, 16)))
        except (ValueError, OverflowError):
            fail("Regex failure: invalid code point value")
    negated = (c == "P") != name.startswith("^")
    kind = name.lstrip("^").lower()
    found = PROPERTIES.get(kind)
    if found is None or (inside and (negated or found.startswith("[^"))):
        fail(f"Regex failure: the character property {{{name}}} is not available")
    if not negated:
        return found
    return "[" + found[2:] if found.startswith("[^") else "[^" + found + "]"


cdef object compiled_pattern(str pattern, object modifiers):
    """The compiled pattern of text and modifiers, whether it is global, and whether empty matches are left out."""
    cdef tuple key = (pattern, modifiers)
    cdef object flags = _re.NOFLAG
    cdef bint everywhere = False
    cdef bint skip_empty = False
    found = PATTERNS.get(key)
    if found is not None:
        return found
    if modifiers is not None:
        for modifier in <str>modifiers:
            if modifier == "g":
                everywhere = True
            elif modifier == "n":
                skip_empty = True
            elif modifier == "i":
                flags |= _re.IGNORECASE
            elif modifier == "x":
                flags |= _re.VERBOSE
            elif modifier == "p":
                flags |= _re.DOTALL
            elif modifier != "l" and modifier != "s":
                fail(f"{modifiers} is not a valid modifier string")
    if len(pattern) > PATTERN_SIZE_MAX:
        fail("Regex failure: the pattern is too long")
    try:
        found = (_re.compile(translate_pattern(pattern), flags), everywhere, skip_empty)
    except (_re.error, OverflowError, RecursionError) as error:
        fail(f"Regex failure: {error}")
    if len(PATTERNS) >= PATTERNS_MAX:
        PATTERNS.clear()
    PATTERNS[key] = found
    return found


cdef dict match_object(object match, dict names):
    cdef list captures = []
    cdef Py_ssize_t group
    cdef object start, end
    for group in range(1, match.re.groups + 1):
        start, end = match.span(group)
        captures.append({
            "offset": start, "length": end - start if start >= 0 else 0, "string": match.group(group),
            "name": names.get(group),
        })
    start, end = match.span()
    return {"offset": start, "length": end - start, "string": match.group(), "captures": captures}


cdef object f_match(object input, object a, object b, object c):
    """`_match_impl(pattern; modifiers; test)`: whether it matches, or all matches as an array."""
    cdef list result = []
    if type(input) is not str:
        return type_error(input, "cannot be matched, as it is not a string")
    if type(a) is not str:
        return type_error(a, "cannot be matched, as it is not a string")
    if b is not None and type(b) is not str:
        return type_error(b, "is not a string")
    charge(len(<str>input) >> 3)
    pattern, everywhere, skip_empty = compiled_pattern(<str>a, b)
    if c is True:
        if not skip_empty:
            return pattern.search(input) is not None
        return any(match.group() for match in pattern.finditer(input))
    names = {index: name for name, index in pattern.groupindex.items()}
    for match in pattern.finditer(input):
        charge(16 + 4 * pattern.groups)
        if skip_empty and not match.group():
            continue
        result.append(match_object(match, names))
        if not everywhere:
            break
    return result
