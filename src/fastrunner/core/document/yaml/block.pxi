"""Stage 2, compile: collections that indentation holds together, and the values in them.

Rules: a collection begins on a line of its own, or behind the `- `, `? ` or `: ` of the one around; never on the line
of a key, nor behind a tab. A scalar that a ':' follows on its line is the first key of a mapping, whatever stood
before it: no text is looked at twice to find out.
"""


cdef int await_node(Yaml yaml, Py_ssize_t parent_indent, bint compact, bint may_align) except -1:
    """Next comes a value within a collection at `parent_indent`."""
    yaml.parent_indent = parent_indent
    yaml.compact = compact
    yaml.may_align = may_align
    yaml.state = YAML_NODE
    return 0


cdef int step_node(Yaml yaml) except -1:
    """Reads a scalar, or begins a collection."""
    cdef Py_ssize_t line = yaml.line, column = yaml.at - yaml.line_start + 1
    cdef Py_UCS4 character
    yaml.outer = None
    yaml.inner = None
    while True:
        pass_space(yaml)
        if yaml.fresh:
            yaml.outer = merged_properties(yaml, yaml.outer, yaml.inner)
            yaml.inner = None
            yaml.compact = True
        if at_yaml_end(yaml) or (yaml.fresh and not belongs(yaml)):
            return give_empty(yaml, line, column)
        if yaml.inner is None:
            yaml.start = yaml.at
            yaml.behind_tab = yaml.tabbed
        character = yaml.buffer[yaml.at]
        if character != u"&" and character != u"!":
            break
        yaml.inner = read_property(yaml, yaml.inner, False)
    if (character == u"-" or character == u"?" or character == u":") and is_yaml_gap(yaml.buffer[yaml.at + 1]):
        return block_indicator(yaml, character)
    if character == u"[" or character == u"{":
        yaml.flow_indent = yaml.parent_indent + 1
        return open_flow(yaml, merged_properties(yaml, yaml.outer, yaml.inner))
    if character == u"|" or character == u">":
        return block_literal(yaml)
    return block_scalar(yaml)


cdef bint belongs(Yaml yaml) except -1:
    """Is the text that begins this line indented deep enough for the value that is awaited?"""
    if at_yaml_marker(yaml):
        return False
    if yaml.indent > yaml.parent_indent:
        return True
    if yaml.tabbed:
        raise tab_error(yaml)
    return (yaml.may_align and yaml.indent == yaml.parent_indent and yaml.buffer[yaml.at] == u"-"
            and is_yaml_gap(yaml.buffer[yaml.at + 1]))


cdef int give_empty(Yaml yaml, Py_ssize_t line, Py_ssize_t column) except -1:
    """The value that is not there."""
    cdef Properties properties = merged_properties(yaml, yaml.outer, yaml.inner)
    if yaml.fresh:
        # What begins this line comes next, indentation and all.
        yaml.at = yaml.line_start
    yaml.state = YAML_NEXT
    return give_scalar(yaml, "", YAML_PLAIN, properties, line, column)


cdef int check_beginning(Yaml yaml, str message) except -1:
    """Refuses a collection where none may begin."""
    if yaml.behind_tab:
        yaml.at = yaml.start
        raise tab_error(yaml)
    if not yaml.compact:
        raise yaml_error(yaml, message)
    return 0


cdef int block_indicator(Yaml yaml, Py_UCS4 character) except -1:
    """Begins the collection whose first entry's '-', '?' or ':' stands here."""
    cdef YamlFrame frame
    if character == u":":
        return first_key(yaml, node_value(yaml, "", YAML_PLAIN, yaml.inner, yaml.line, yaml.at - yaml.line_start + 1),
                         yaml.line, yaml.at - yaml.line_start + 1)
    check_beginning(yaml, f"'{character} ' cannot begin a collection on the line of its key; begin it on the next "
                          f"line, or quote a value that starts with '{character} '")
    if yaml.inner is not None:
        raise yaml_error(yaml, "an anchor or a tag of a whole collection stands on the line before it; move it there")
    frame = open_collection(yaml, YAML_BLOCK_LIST if character == u"-" else YAML_BLOCK_MAPPING, yaml.outer, yaml.at)
    yaml.at += 1
    if character == u"?":
        frame.state = YAML_KEY
    return await_node(yaml, frame.indent, True, character == u"?")


cdef int block_literal(Yaml yaml) except -1:
    cdef Properties properties = merged_properties(yaml, yaml.outer, yaml.inner)
    cdef Py_ssize_t line = yaml.line, column = yaml.at - yaml.line_start + 1
    cdef str text = read_literal(yaml, yaml.parent_indent)
    yaml.state = YAML_NEXT
    return give_scalar(yaml, text, YAML_QUOTED, properties, line, column)


cdef int block_scalar(Yaml yaml) except -1:
    """A scalar or an alias, or the mapping whose first key it is."""
    cdef Py_ssize_t line = yaml.line, column = yaml.at - yaml.line_start + 1
    cdef str text = read_yaml_token(yaml, yaml.parent_indent + 1, False, True)
    if to_colon(yaml):
        check_implicit_key(yaml, yaml.start, line)
        return first_key(yaml, node_value(yaml, text, yaml.style, yaml.inner, line, column), line, column)
    yaml.state = YAML_NEXT
    return give_scalar(yaml, text, yaml.style, merged_properties(yaml, yaml.outer, yaml.inner), line, column)


cdef bint to_colon(Yaml yaml) noexcept:
    """Goes to the ':' that makes what stands before it a key, if there is one on this line."""
    cdef Py_ssize_t at = yaml.at
    while is_yaml_blank(yaml.buffer[at]):
        at += 1
    if yaml.buffer[at] != u":" or not is_yaml_gap(yaml.buffer[at + 1]):
        return False
    yaml.at = at
    return True


cdef int first_key(Yaml yaml, object value, Py_ssize_t line, Py_ssize_t column) except -1:
    """Begins a mapping with a key; its ':' stands here."""
    cdef YamlFrame frame
    if yaml.buffer[yaml.start] == u"$" and yaml.buffer[yaml.start + 1] == u"{":
        check_beginning(yaml, "no mapping can begin on the line of a key, and the ': ' here begins one: quote "
                              "`${ ... }`, as in key: '${ {a: .b} }'")
    check_beginning(yaml, "no mapping can begin on the line of a key or of '---', and the ': ' here begins one; quote "
                          "a value that contains ': ', as in key: 'text: more', or begin the mapping on the next line")
    frame = open_collection(yaml, YAML_BLOCK_MAPPING, yaml.outer, yaml.start)
    return block_key(yaml, frame, value, line, column)


cdef int block_key(Yaml yaml, YamlFrame frame, object value, Py_ssize_t line, Py_ssize_t column) except -1:
    """A key whose ':' stands here; its value comes next."""
    take_key(yaml, frame, value, line, column)
    frame.state = YAML_VALUE
    yaml.at += 1
    return await_node(yaml, frame.indent, False, True)


cdef int step_next(Yaml yaml) except -1:
    """Behind a value: ends the collections that end before the next line's text, and begins their next entry."""
    cdef YamlFrame frame
    cdef YamlFrame ended = None
    pass_space(yaml)
    if at_yaml_end(yaml) or at_yaml_marker(yaml):
        while yaml.top is not None:
            close_block(yaml)
        yaml.state = YAML_END
        return 0
    if not yaml.fresh:
        raise behind_value(yaml)
    if yaml.tabbed:
        raise tab_error(yaml)
    while True:
        frame = yaml.top
        if frame is None:
            raise yaml_expected(yaml, "the end of the document",
                                "align the keys of a mapping and the items of a list, and quote special characters")
        if yaml.indent > frame.indent:
            raise wrong_indent(yaml, ended)
        if yaml.indent == frame.indent and block_entry(yaml, frame):
            return 0
        ended = frame
        close_block(yaml)


cdef object wrong_indent(Yaml yaml, YamlFrame ended):
    """The error for a line that no block has the indentation of; `ended` is the outermost that ends before it."""
    cdef str around = block_told(yaml.top)
    if ended is None:
        return yaml_error(yaml, f"this line has an indentation of {yaml.indent}, and {around}; align it with that, and "
                                "put a value on several lines in quotes or behind '|'")
    return yaml_error(yaml, f"this line has an indentation of {yaml.indent}; {block_told(ended)}, and {around}: align "
                            "it with one of them")


cdef str block_told(YamlFrame frame):
    """Which line opened a block, and how its entries are indented."""
    cdef YamlFrame parent = frame.parent
    cdef Py_ssize_t line = frame.line
    if parent is not None and parent.items is None:
        line = parent.key_line
    return f"the block that line {line} opened has {frame.indent}"


cdef int close_block(Yaml yaml) except -1:
    cdef YamlFrame frame = yaml.top
    return give_value(yaml, close_collection(yaml), frame.line, frame.column, frame.mark)


cdef object behind_value(Yaml yaml):
    """The error for text behind a value on its line."""
    if yaml.buffer[yaml.at] == u":":
        return yaml_error(yaml, "found ':' behind a value; quote a value that contains ': ', and put a space after the "
                                "':' of a key")
    return yaml_expected(yaml, "the end of the line after a value",
                         "quote a value that starts with a quote or a bracket as a whole")


cdef bint block_entry(Yaml yaml, YamlFrame frame) except -1:
    """Begins the next entry; says whether the collection goes on at all."""
    cdef Py_UCS4 character = yaml.buffer[yaml.at]
    cdef bint indicates = is_yaml_gap(yaml.buffer[yaml.at + 1])
    if frame.items is not None:
        if character == u"-" and indicates:
            yaml.at += 1
            await_node(yaml, frame.indent, True, False)
            return True
        if frame.parent is not None and frame.parent.indent == frame.indent:
            return False
        raise yaml_expected(yaml, f"'- ' before the next item of the list that line {frame.line} opened",
                            "align the items of a list, and indent what is in them")
    if frame.state == YAML_KEY_END:
        if character == u":" and indicates:
            yaml.at += 1
            frame.state = YAML_VALUE
            await_node(yaml, frame.indent, True, True)
            return True
        give_null(yaml)
    frame.state = YAML_KEY
    if character == u"?" and indicates:
        yaml.at += 1
        await_node(yaml, frame.indent, True, True)
        return True
    next_key(yaml, frame)
    return True


cdef int next_key(Yaml yaml, YamlFrame frame) except -1:
    """The key that begins this line, up to its ':'."""
    cdef Py_ssize_t start = yaml.at, line = yaml.line, column = yaml.at - yaml.line_start + 1
    cdef Py_UCS4 character = yaml.buffer[yaml.at]
    cdef Properties properties = None
    cdef str text = ""
    while character == u"&" or character == u"!":
        properties = read_property(yaml, properties, False)
        pass_blanks(yaml)
        character = yaml.buffer[yaml.at]
    if character == u"[" or character == u"{":
        raise single_problem("non-string-key", line, column, "a collection stands where a key is expected; keys are "
                             "strings, and entries of one mapping are aligned")
    yaml.style = YAML_PLAIN
    if character != u":" or not is_yaml_gap(yaml.buffer[yaml.at + 1]):
        if character == u"-" and is_yaml_gap(yaml.buffer[yaml.at + 1]):
            raise yaml_error(yaml, f"found '- ' where the next key of the mapping that line {frame.line} opened is "
                                   "expected; check the indentation")
        text = read_yaml_token(yaml, frame.indent + 1, False, False)
    if not to_colon(yaml):
        raise yaml_expected(yaml, "':' after a key",
                            "a key needs a ':' and a space after it; check the indentation and close quoted text")
    check_implicit_key(yaml, start, line)
    return block_key(yaml, frame, node_value(yaml, text, yaml.style, properties, line, column), line, column)
