"""Stage 2, compile: what stands on its own in YAML: names of anchors and aliases, tags, plain scalars.

Rules: a name is everything up to white space or a flow indicator, so `&a.b`, `&ü` and `*a:` are whole names. Plain
text ends at `: `, ` #` and, within { } and [ ], at a flow indicator; `?x`, `:x` and `a:b` are plain text.
"""

cdef extern from "Python.h":
    object PyUnicode_Substring(object text, Py_ssize_t start, Py_ssize_t end)

cdef enum YamlStyle:
    YAML_PLAIN
    YAML_QUOTED
    YAML_ALIAS


cdef str read_yaml_token(Yaml yaml, Py_ssize_t indent, bint flow, bint many):
    """An alias's name or a scalar's text; only over several lines if it may be `many`. Sets `style`."""
    cdef Py_UCS4 character = yaml.buffer[yaml.at]
    if character == u'"' or character == u"'":
        yaml.style = YAML_QUOTED
        return read_double_quoted(yaml, indent) if character == u'"' else read_single_quoted(yaml, indent)
    if character == u"*":
        yaml.style = YAML_ALIAS
        return read_yaml_name(yaml)
    yaml.style = YAML_PLAIN
    check_plain_start(yaml, flow)
    return read_plain(yaml, indent, flow, many)


cdef str read_yaml_name(Yaml yaml):
    """The name after `&` or `*`."""
    cdef Py_ssize_t start = yaml.at + 1
    cdef Py_UCS4 character
    yaml.at = start
    while True:
        character = yaml.buffer[yaml.at]
        if is_yaml_gap(character) or is_flow_indicator(character):
            break
        if is_unprintable(character):
            raise unprintable_error(yaml)
        yaml.at += 1
    if yaml.at == start:
        raise yaml_expected(yaml, f"a name after '{yaml.buffer[start - 1]}'",
                            "quote a value that starts with '&' or '*'")
    return PyUnicode_Substring(yaml.text, start, yaml.at)


cdef str read_yaml_tag(Yaml yaml):
    """The whole tag for `!`, `!name`, `!handle!name` or `!<tag>`."""
    cdef Py_ssize_t start = yaml.at
    cdef str handle = "!"
    cdef str name
    yaml.at += 1
    if yaml.buffer[yaml.at] == u"<":
        return read_verbatim_tag(yaml)
    pass_tag_characters(yaml)
    name = PyUnicode_Substring(yaml.text, start + 1, yaml.at)
    if yaml.buffer[yaml.at] == u"!":
        yaml.at += 1
        handle = f"!{name}!"
        if handle not in yaml.handles:
            raise yaml_error(yaml, f"no %TAG directive declares the tag handle {shown(handle)}; remove the tag")
        start = yaml.at
        pass_tag_characters(yaml)
        if yaml.at == start:
            raise yaml_expected(yaml, f"a name after the tag handle {shown(handle)}", "remove the tag")
        name = PyUnicode_Substring(yaml.text, start, yaml.at)
    return yaml.handles[handle] + name if name else "!"


cdef str read_verbatim_tag(Yaml yaml):
    cdef Py_ssize_t start = yaml.at + 1
    yaml.at = start
    while yaml.buffer[yaml.at] == u"!" or yaml.buffer[yaml.at] == u"," or yaml.buffer[yaml.at] == u"[" or (
            yaml.buffer[yaml.at] == u"]" or is_tag_character(yaml.buffer[yaml.at])):
        yaml.at += 1
    if yaml.buffer[yaml.at] != u">" or yaml.at == start:
        raise yaml_expected(yaml, "a tag within '!<' and '>'", "remove the tag")
    yaml.at += 1
    return PyUnicode_Substring(yaml.text, start, yaml.at - 1)


cdef inline bint is_tag_character(Py_UCS4 character) noexcept:
    return character < 128 and YAML_CLASSES[character] & YAML_TAG


cdef inline void pass_tag_characters(Yaml yaml) noexcept:
    while is_tag_character(yaml.buffer[yaml.at]):
        yaml.at += 1


cdef int check_plain_start(Yaml yaml, bint flow) except -1:
    """Refuses what no scalar can start with."""
    cdef Py_UCS4 character = yaml.buffer[yaml.at]
    cdef Py_UCS4 following
    if character >= 128 or not YAML_CLASSES[character] & (YAML_INDICATOR | YAML_UNPRINTABLE):
        return 0
    if is_unprintable(character):
        raise unprintable_error(yaml)
    if character == u"-" or character == u"?" or character == u":":
        following = yaml.buffer[yaml.at + 1]
        if not is_yaml_gap(following) and not (flow and is_flow_indicator(following)):
            return 0
        raise yaml_error(yaml, f"found '{character}' where a value is expected; quote a value that starts with it")
    if character == u"@" or character == u"`" or character == u"%":
        raise yaml_error(yaml, f"no value can start with '{character}'; quote a value that starts with @, ` or %")
    if character == u"#":
        raise yaml_error(yaml, "found '#' where a value is expected; a comment needs a space before its '#', and a "
                               "value that starts with '#' needs quotes")
    raise yaml_expected(yaml, "a value", f"quote a value that starts with '{character}'")


cdef Py_ssize_t plain_line_end(Yaml yaml, bint flow) except -1:
    """Where the plain text that stands here ends on its line, without the white space behind it."""
    cdef Py_UCS4* buffer = yaml.buffer
    cdef Py_ssize_t at = yaml.at, end = at
    cdef Py_UCS4 character
    cdef int kind
    while True:
        character = buffer[at]
        if character < 128:
            kind = YAML_CLASSES[character] & YAML_NOT_PLAIN
        else:
            kind = YAML_UNPRINTABLE if is_unprintable(character) else 0
        if kind == YAML_BLANK:
            at += 1
            continue
        if kind == YAML_BREAK:
            return end
        if kind == YAML_COLON:
            if is_yaml_gap(buffer[at + 1]) or (flow and is_flow_indicator(buffer[at + 1])):
                return end
        elif kind == YAML_HASH:
            if at > end:
                return end
        elif kind == YAML_FLOW_INDICATOR:
            if flow:
                return end
        elif kind == YAML_UNPRINTABLE:
            if character == 0 and at >= yaml.size:
                return end
            yaml.at = at
            raise unprintable_error(yaml)
        at += 1
        end = at


cdef str read_plain(Yaml yaml, Py_ssize_t indent, bint flow, bint many):
    """Plain text: of this line, and of the lines after it that are indented enough."""
    cdef Py_ssize_t start = yaml.at, end = plain_line_end(yaml, flow)
    yaml.at = end
    if not many or not plain_goes_on(yaml, indent, flow):
        return PyUnicode_Substring(yaml.text, start, end)
    begin_out(yaml)
    put_text(yaml, start, end)
    while True:
        put_fold(yaml, yaml.breaks)
        start = yaml.at
        yaml.at = plain_line_end(yaml, flow)
        put_text(yaml, start, yaml.at)
        if not plain_goes_on(yaml, indent, flow):
            return out_text(yaml)


cdef bint plain_goes_on(Yaml yaml, Py_ssize_t indent, bint flow) except -1:
    """Goes to the next line of a plain scalar, or stays where it is."""
    cdef Py_ssize_t at = yaml.at, line = yaml.line, line_start = yaml.line_start
    cdef Py_UCS4 character, following
    cdef bint goes_on
    pass_blanks(yaml)
    if is_yaml_break(yaml.buffer[yaml.at]):
        pass_breaks(yaml)
        character = yaml.buffer[yaml.at]
        goes_on = yaml.indent >= indent and not at_yaml_end(yaml) and character != u"#" and not at_yaml_marker(yaml)
        if goes_on and flow:
            following = yaml.buffer[yaml.at + 1]
            goes_on = not is_flow_indicator(character) and not (
                character == u":" and (is_yaml_gap(following) or is_flow_indicator(following)))
        if goes_on:
            return True
    yaml.at = at
    yaml.line = line
    yaml.line_start = line_start
    return False
