"""Stage 2, compile: collections within { } and [ ].

Rules: lines within them are indented deeper than the block around; only a closing bracket may stand as far left as the
key that holds it, which YAML 1.2 forbids, people write, and nothing else could mean. A key of a single pair within
[ ] ends on the line it starts on.
"""


cdef int open_flow(Yaml yaml, Properties properties) except -1:
    """Begins the collection whose bracket stands here."""
    open_collection(yaml, YAML_FLOW_LIST if yaml.buffer[yaml.at] == u"[" else YAML_FLOW_MAPPING, properties, yaml.at)
    yaml.at += 1
    yaml.state = YAML_IN_FLOW
    return 0


cdef int pass_flow_space(Yaml yaml) except -1:
    """To the next text, which must be indented enough if it begins its line."""
    cdef Py_UCS4 character
    pass_space(yaml)
    if not yaml.fresh or at_yaml_end(yaml) or (yaml.indent >= yaml.flow_indent and not at_yaml_marker(yaml)):
        return 0
    if at_yaml_marker(yaml):
        raise yaml_error(yaml, f"a document marker stands within {unclosed_flow(yaml.top)}; close it")
    character = yaml.buffer[yaml.at]
    if yaml.tabbed:
        raise tab_error(yaml)
    if (character == u"]" or character == u"}") and yaml.indent == yaml.flow_indent - 1:
        return 0
    raise yaml_error(yaml, f"{unclosed_flow(yaml.top)} has to be indented deeper than its key or list "
                           "here; indent with spaces, or close it")


cdef str unclosed_flow(YamlFrame frame):
    if frame.kind == YAML_FLOW_PAIR:
        frame = frame.parent
    return f"the {'list' if frame.items is not None else 'mapping'} that starts at {frame.line}:{frame.column}"


cdef int step_flow(Yaml yaml) except -1:
    """Reads one part of the innermost collection: an entry's value, a key, or what stands between them."""
    cdef YamlFrame frame = yaml.top
    cdef Py_UCS4 character
    if frame.kind == YAML_FLOW_PAIR and frame.state == YAML_ENTRY_END:
        give_value(yaml, close_collection(yaml), frame.line, frame.column, frame.mark)
        return 0
    pass_flow_space(yaml)
    if at_yaml_end(yaml):
        raise yaml_error(yaml, f"the text ends within {unclosed_flow(frame)}; close it with "
                               f"'{']' if frame.items is not None or frame.kind == YAML_FLOW_PAIR else '}'}'")
    character = yaml.buffer[yaml.at]
    if frame.state == YAML_ENTRY:
        return flow_entry(yaml, frame, character)
    if frame.state == YAML_KEY_END:
        return flow_key_end(yaml, frame, character)
    if frame.state == YAML_ENTRY_END:
        return flow_entry_end(yaml, frame, character)
    if ends_flow_node(character) or (frame.state == YAML_KEY and at_flow_colon(yaml)):
        return give_scalar(yaml, "", YAML_PLAIN, None, yaml.line, yaml.at - yaml.line_start + 1)
    return flow_node(yaml)


cdef inline bint ends_flow_node(Py_UCS4 character) noexcept:
    return character == u"," or character == u"]" or character == u"}"


cdef inline bint at_flow_colon(Yaml yaml) noexcept:
    """Does a ':' stand here that no plain text can start with?"""
    cdef Py_UCS4 following
    if yaml.buffer[yaml.at] != u":":
        return False
    following = yaml.buffer[yaml.at + 1]
    return is_yaml_gap(following) or is_flow_indicator(following)


cdef int flow_entry(Yaml yaml, YamlFrame frame, Py_UCS4 character) except -1:
    """The beginning of an entry, or the end of the collection."""
    if closes_flow(frame, character):
        return close_flow(yaml)
    if ends_flow_node(character):
        raise yaml_expected(yaml, f"an entry, or the end of {unclosed_flow(frame)}",
                            "remove what is too much, or close with the bracket that fits")
    if character == u"?" and is_yaml_gap(yaml.buffer[yaml.at + 1]):
        if frame.items is not None:
            frame = open_collection(yaml, YAML_FLOW_PAIR, None, yaml.at)
        frame.state = YAML_KEY
        yaml.at += 1
        return 0
    if frame.items is None:
        frame.state = YAML_KEY
    elif at_flow_colon(yaml):
        frame = open_collection(yaml, YAML_FLOW_PAIR, None, yaml.at)
        frame.state = YAML_KEY
    else:
        return flow_node(yaml)
    return 0 if at_flow_colon(yaml) else flow_node(yaml)


cdef inline bint closes_flow(YamlFrame frame, Py_UCS4 character) noexcept:
    return character == (u"]" if frame.kind == YAML_FLOW_LIST else u"}")


cdef int flow_key_end(Yaml yaml, YamlFrame frame, Py_UCS4 character) except -1:
    """Between a key and its value; a key without a ':' has none."""
    if at_flow_colon(yaml) or (character == u":" and yaml.quoted_key):
        yaml.at += 1
        frame.state = YAML_VALUE
        return 0
    if ends_flow_node(character):
        return give_null(yaml)
    raise yaml_expected(yaml, "':' after a key, ',' or a closing bracket",
                        "a key needs a ':' and a space after it; quote a key that contains special characters")


cdef int flow_entry_end(Yaml yaml, YamlFrame frame, Py_UCS4 character) except -1:
    if character == u",":
        yaml.at += 1
        frame.state = YAML_ENTRY
        return 0
    if closes_flow(frame, character):
        return close_flow(yaml)
    if character == u"{" and yaml.buffer[yaml.at - 1] == u"$":
        yaml.at -= 1
        raise yaml_error(yaml, "an expression within { } or [ ] needs quotes, or its '{' begins another mapping: quote "
                               "`${ ... }`, as in {amount: '${ .amount }'}")
    if frame.items is not None:
        raise yaml_expected(yaml, "',' or ']' after an item", "close the list, or quote a value that starts with '[' "
                            "or contains special characters")
    raise yaml_expected(yaml, "',' or '}' after a member",
                        "close the mapping, or quote a value that contains '{', as in {amount: '${ .x }'}")


cdef int flow_node(Yaml yaml) except -1:
    """The value that stands here, with its properties."""
    cdef Properties properties = None
    cdef Py_ssize_t start = yaml.at, start_line = yaml.line, line = yaml.line, column = yaml.at - yaml.line_start + 1
    cdef str text
    cdef object value
    cdef Py_UCS4 character = yaml.buffer[yaml.at]
    while character == u"&" or character == u"!":
        properties = read_property(yaml, properties, True)
        pass_flow_space(yaml)
        character = yaml.buffer[yaml.at]
    if character == u"[" or character == u"{":
        return open_flow(yaml, properties)
    if properties is not None and (ends_flow_node(character) or at_flow_colon(yaml) or at_yaml_end(yaml)):
        yaml.style = YAML_PLAIN
        text = ""
    else:
        text = read_yaml_token(yaml, yaml.flow_indent, True, True)
    value = node_value(yaml, text, yaml.style, properties, line, column)
    return give_flow(yaml, value, line, column, yaml.alias_mark, start, start_line)


cdef int give_flow(Yaml yaml, object value, Py_ssize_t line, Py_ssize_t column, Mark mark, Py_ssize_t start,
                   Py_ssize_t start_line) except -1:
    """A value, whose text starts at `start`, to its collection; in a list it may be the key of a single pair."""
    cdef YamlFrame pair
    if yaml.top.items is not None:
        pass_blanks(yaml)
        if at_flow_colon(yaml) or (yaml.buffer[yaml.at] == u":" and yaml.quoted_key):
            check_implicit_key(yaml, start, start_line)
            pair = open_collection(yaml, YAML_FLOW_PAIR, None, start)
            take_key(yaml, pair, value, line, column)
            pair.state = YAML_VALUE
            yaml.at += 1
            return 0
    return give_value(yaml, value, line, column, mark)


cdef int close_flow(Yaml yaml) except -1:
    """Ends the collection at its bracket here; the block around takes over behind the outermost."""
    cdef YamlFrame frame = yaml.top
    cdef object value = close_collection(yaml)
    yaml.at += 1
    if yaml.top is not None and yaml.top.kind >= YAML_FLOW_LIST:
        return give_flow(yaml, value, frame.line, frame.column, frame.mark, frame.start, frame.start_line)
    if to_colon(yaml):
        raise single_problem("non-string-key", frame.line, frame.column,
                             f"a key is {json_type_name(value)}; keys are strings")
    yaml.state = YAML_NEXT
    return give_value(yaml, value, frame.line, frame.column, frame.mark)
