"""Stage 2, compile: text of whole lines, after `|` and `>`.

Rules: the first line that is not empty sets the indentation, unless the header says it; everything beyond it is text,
tabs too. `|` keeps line breaks; `>` folds them, but not around lines that begin with white space. `-` drops the last
line breaks, `+` keeps them all, otherwise one stays. The end of the text ends its last line.
"""

cdef enum YamlChomp:
    YAML_CLIP
    YAML_STRIP
    YAML_KEEP


cdef str read_literal(Yaml yaml, Py_ssize_t parent_indent):
    """The text whose `|` or `>` stands here, within a collection at `parent_indent`."""
    cdef bint folded = yaml.buffer[yaml.at] == u">"
    cdef int chomp = YAML_CLIP
    cdef Py_ssize_t indent = 0, i
    cdef Py_UCS4 character
    yaml.at += 1
    for i in range(2):
        character = yaml.buffer[yaml.at]
        if (character == u"-" or character == u"+") and chomp == YAML_CLIP:
            chomp = YAML_STRIP if character == u"-" else YAML_KEEP
            yaml.at += 1
        elif u"1" <= character <= u"9" and not indent:
            indent = <Py_ssize_t>character - <Py_ssize_t>u"0"
            yaml.at += 1
    pass_header(yaml)
    if indent:
        indent += max(parent_indent, 0)
    else:
        indent = literal_indent(yaml, parent_indent + 1)
    return read_lines(yaml, indent, folded, chomp)


cdef int pass_header(Yaml yaml) except -1:
    """The rest of the line with `|` or `>`: a comment at most."""
    cdef Py_ssize_t start = yaml.at
    pass_blanks(yaml)
    if yaml.buffer[yaml.at] == u"#" and yaml.at > start:
        pass_line(yaml)
    if is_yaml_break(yaml.buffer[yaml.at]):
        pass_break(yaml)
    elif not at_yaml_end(yaml):
        raise yaml_expected(yaml, "the end of the line after '|' or '>'",
                            "begin the text on the next line, or quote a value that starts with '|' or '>'")
    return 0


cdef Py_ssize_t literal_indent(Yaml yaml, Py_ssize_t least) except -1:
    """The indentation of the first line that is not empty."""
    cdef Py_UCS4* buffer = yaml.buffer
    cdef Py_ssize_t at = yaml.at, start = at, line = yaml.line, widest = 0, widest_line = line
    while True:
        while buffer[at] == u" ":
            at += 1
        if not is_yaml_break(buffer[at]):
            break
        if at - start > widest:
            widest = at - start
            widest_line = line
        if buffer[at] == u"\r" and buffer[at + 1] == u"\n":
            at += 1
        at += 1
        start = at
        line += 1
    if at >= yaml.size:
        return max(least, widest, at - start)
    if at - start < least:
        return max(least, widest)
    if widest > at - start:
        raise single_problem("syntax-error", widest_line, at - start + 1,
                             f"YAML: this empty line has more spaces than the first line of its text, which has "
                             f"{at - start}; remove the spaces")
    return at - start


cdef str read_lines(Yaml yaml, Py_ssize_t indent, bint folded, int chomp):
    """The lines from here on that are indented by at least `indent`, or empty."""
    cdef Py_ssize_t pending = 0, start
    cdef bint spaced = False, spaced_before = False
    begin_out(yaml)
    while to_literal_line(yaml, indent, &pending):
        start = yaml.at
        spaced = is_yaml_blank(yaml.buffer[start])
        if not folded or yaml.out_size == 0 or spaced or spaced_before:
            put_breaks(yaml, pending)
        else:
            put_fold(yaml, pending)
        pass_line(yaml)
        put_text(yaml, start, yaml.at)
        spaced_before = spaced
        pending = 0
        pending = 1
        if at_yaml_end(yaml):
            break
        pass_break(yaml)
    if chomp == YAML_KEEP:
        put_breaks(yaml, pending)
    elif chomp == YAML_CLIP and yaml.out_size and pending:
        put_character(yaml, u"\n")
    return out_text(yaml)


cdef bint to_literal_line(Yaml yaml, Py_ssize_t indent, Py_ssize_t* pending) except -1:
    """Over empty lines to the text of the next line; to the beginning of the line that is no more part of it."""
    cdef Py_ssize_t start, end
    while True:
        start = yaml.at
        end = yaml.line_start + indent
        while yaml.at < end and yaml.buffer[yaml.at] == u" ":
            yaml.at += 1
        if is_yaml_break(yaml.buffer[yaml.at]):
            pass_break(yaml)
            pending[0] += 1
            continue
        if at_yaml_end(yaml):
            # White space without a line break behind it counts as a line.
            pending[0] += yaml.at > start
            return False
        if yaml.at < end and yaml.buffer[yaml.at] == u"\t":
            raise yaml_error(yaml, "found a tab where spaces indent the text after '|' or '>'; indent with spaces, "
                                   "never with tabs")
        if yaml.at == end and not at_yaml_marker(yaml):
            return True
        yaml.at = yaml.line_start
        return False
