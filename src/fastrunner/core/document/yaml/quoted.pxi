"""Stage 2, compile: text in quotes.

Rules: a line break within quotes is folded: one is a space, of several the first is dropped, white space around them
is dropped, unless an escape stands for it. In double quotes two \\u escapes that are a surrogate pair are the one
character they stand for; half a pair is no character.
"""

cdef extern from "Python.h":
    object PyUnicode_Substring(object text, Py_ssize_t start, Py_ssize_t end)

# What the letter after a backslash stands for, one more than its code point; zero for those that stand for nothing.
cdef Py_UCS4[128] YAML_ESCAPES


cdef int fill_escapes(str letters, str characters) except -1:
    cdef Py_ssize_t i
    for i in range(128):
        YAML_ESCAPES[i] = 0
    for i in range(len(letters)):
        YAML_ESCAPES[<int>letters[i]] = <Py_UCS4>(<int>characters[i] + 1)
    return 0


fill_escapes("0abt\tnvfre \"/\\N_LP", "\0\a\b\t\t\n\v\f\r\x1b \"/\\\x85\xa0\u2028\u2029")


cdef str read_single_quoted(Yaml yaml, Py_ssize_t indent):
    cdef Py_ssize_t start = yaml.at + 1, line = yaml.line, column = yaml.at - yaml.line_start + 1
    cdef Py_UCS4 character
    yaml.at = quoted_run_end(yaml, start, u"'")
    if yaml.buffer[yaml.at] == u"'" and yaml.buffer[yaml.at + 1] != u"'":
        yaml.at += 1
        return PyUnicode_Substring(yaml.text, start, yaml.at - 1)
    begin_out(yaml)
    while True:
        put_text(yaml, start, yaml.at)
        character = yaml.buffer[yaml.at]
        if character == u"'":
            if yaml.buffer[yaml.at + 1] != u"'":
                yaml.at += 1
                return out_text(yaml)
            put_character(yaml, u"'")
            yaml.at += 2
        else:
            fold_quoted(yaml, indent, 0, line, column)
        start = yaml.at
        yaml.at = quoted_run_end(yaml, start, u"'")


cdef str read_double_quoted(Yaml yaml, Py_ssize_t indent):
    cdef Py_ssize_t start = yaml.at + 1, line = yaml.line, column = yaml.at - yaml.line_start + 1, kept = 0
    cdef Py_UCS4 character
    yaml.at = quoted_run_end(yaml, start, u'"')
    if yaml.buffer[yaml.at] == u'"':
        yaml.at += 1
        return PyUnicode_Substring(yaml.text, start, yaml.at - 1)
    begin_out(yaml)
    while True:
        put_text(yaml, start, yaml.at)
        character = yaml.buffer[yaml.at]
        if character == u'"':
            yaml.at += 1
            return out_text(yaml)
        if character != u"\\":
            fold_quoted(yaml, indent, kept, line, column)
        elif is_yaml_break(yaml.buffer[yaml.at + 1]):
            yaml.at += 1
            continue_quoted(yaml, indent, line, column)
        else:
            yaml.at += 1
            put_character(yaml, read_yaml_escape(yaml, line, column))
            kept = yaml.out_size
        start = yaml.at
        yaml.at = quoted_run_end(yaml, start, u'"')


cdef Py_ssize_t quoted_run_end(Yaml yaml, Py_ssize_t at, Py_UCS4 quote) except -1:
    """The next quote, line break or end from `at`; in double quotes the next backslash too."""
    cdef Py_UCS4* buffer = yaml.buffer
    cdef Py_UCS4 backslash = u"\\" if quote == u'"' else quote
    cdef Py_UCS4 character
    while True:
        character = buffer[at]
        if character == quote or character == backslash:
            return at
        if character < 0x20 and character != u"\t":
            if is_yaml_break(character) or (character == 0 and at >= yaml.size):
                return at
            yaml.at = at
            raise unprintable_error(yaml)
        at += 1


cdef int fold_quoted(Yaml yaml, Py_ssize_t indent, Py_ssize_t kept, Py_ssize_t line, Py_ssize_t column) except -1:
    """A line break within quotes; the first `kept` characters before it are not white space to drop."""
    while yaml.out_size > kept and is_yaml_blank(yaml.out[yaml.out_size - 1]):
        yaml.out_size -= 1
    next_quoted_line(yaml, indent, line, column)
    put_fold(yaml, yaml.breaks)
    yaml.has_mistaken_text = True
    return 0


cdef int continue_quoted(Yaml yaml, Py_ssize_t indent, Py_ssize_t line, Py_ssize_t column) except -1:
    """A line break after a backslash: the text goes on without it."""
    next_quoted_line(yaml, indent, line, column)
    put_breaks(yaml, yaml.breaks - 1)
    return 0


cdef int next_quoted_line(Yaml yaml, Py_ssize_t indent, Py_ssize_t line, Py_ssize_t column) except -1:
    if not at_yaml_end(yaml):
        pass_breaks(yaml)
    if at_yaml_end(yaml):
        raise unclosed_quote(yaml, line, column)
    if at_yaml_marker(yaml):
        raise yaml_error(yaml, f"a document marker stands within the text in quotes that starts at {line}:{column}; "
                               "close the quoted text")
    if yaml.indent < indent:
        raise yaml_error(yaml, f"the text in quotes that starts at {line}:{column} has to be indented "
                               f"deeper than its key or list here; indent with spaces, or close the quoted text")
    return 0


cdef object unclosed_quote(Yaml yaml, Py_ssize_t line, Py_ssize_t column):
    return yaml_error(yaml, f"the text in quotes that starts at {line}:{column} does not end; close the quoted text")


cdef Py_UCS4 read_yaml_escape(Yaml yaml, Py_ssize_t line, Py_ssize_t column) except? 0xFFFF:
    """The character that the escape after a backslash stands for."""
    cdef Py_UCS4 character = yaml.buffer[yaml.at]
    cdef long code, low
    if at_yaml_end(yaml):
        raise unclosed_quote(yaml, line, column)
    if character == u"x":
        return <Py_UCS4>read_yaml_hex(yaml, 2)
    if character == u"u":
        code = read_yaml_hex(yaml, 4)
    elif character == u"U":
        code = read_yaml_hex(yaml, 8)
    else:
        if character >= 128 or not YAML_ESCAPES[character]:
            raise yaml_error(yaml, f"there is no escape '\\{character}'; write text with backslashes in single quotes")
        yaml.at += 1
        return <Py_UCS4>(<int>YAML_ESCAPES[character] - 1)
    if 0xD800 <= code <= 0xDBFF and yaml.buffer[yaml.at] == u"\\" and yaml.buffer[yaml.at + 1] == u"u":
        yaml.at += 1
        low = read_yaml_hex(yaml, 4)
        if 0xDC00 <= low <= 0xDFFF:
            return <Py_UCS4>(0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00))
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        raise yaml_error(yaml, "the escape before this is half a surrogate pair or beyond U+10FFFF, which is no "
                               "character; write the character itself, or both halves")
    return <Py_UCS4>code


cdef long read_yaml_hex(Yaml yaml, int digits) except -1:
    """A number of so many hexadecimal digits, after the letter that stands here."""
    cdef long value = 0
    cdef int digit, i
    for i in range(digits):
        yaml.at += 1
        digit = hex_digit(yaml.buffer[yaml.at])
        if digit < 0:
            raise yaml_expected(yaml, f"{digits} hexadecimal digits in an escape",
                                "write text with backslashes in single quotes")
        value = value * 16 + digit
    yaml.at += 1
    return value
