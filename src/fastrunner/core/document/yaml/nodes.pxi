"""Stage 2, compile: values of a YAML document, from their text and properties to their place in the collection around.

Rules: only JSON's data can come out: tags of other types, keys that are no strings, infinities and NaN are problems.
An alias costs what its expansion would. Collections that are not complete are frames, one within the other, so that
reading needs no recursion and can pause between any two values.
"""

# A text counts as one value more for each so many characters, so that aliases cannot repeat a long one for nothing.
cdef Py_ssize_t TEXT_PER_VALUE = 100
cdef str YAML_TAG_PREFIX = "tag:yaml.org,2002:"
# Characters between the beginning of a key and its ':', where no '?' announces that it is one.
cdef Py_ssize_t IMPLICIT_KEY_SIZE_MAX = 1024
# What other languages than JSON write for nothing, and for what is no number.
cdef frozenset FOREIGN_CONSTANTS = frozenset((
    "NaN", "nan", "Infinity", "+Infinity", "-Infinity", "inf", "-inf", "undefined", "None", "nil",
))


cdef Mark new_mark(Yaml yaml, Py_ssize_t line, Py_ssize_t column):
    cdef Mark mark
    if not yaml.marked:
        return None
    mark = Mark.__new__(Mark)
    mark.line = line
    mark.column = column
    return mark


cdef str yaml_pointer(Yaml yaml):
    """The JSON pointer of the value that is read."""
    cdef list segments = []
    cdef YamlFrame frame = yaml.top
    while frame is not None:
        if frame.items is not None:
            segments.append(str(len(frame.items)))
        elif frame.key is not None:
            segments.append(frame.key.replace("~", "~0").replace("/", "~1"))
        frame = frame.parent
    segments.reverse()
    return "".join(["/" + segment for segment in segments])


cdef int yaml_problem(str code, Yaml yaml, Py_ssize_t line, Py_ssize_t column, str message) except -1:
    if len(yaml.problems) < PROBLEMS_MAX:
        yaml.problems.append(Problem(code, yaml_pointer(yaml), line, column, message))
    return 0


cdef int count_values(Yaml yaml, Py_ssize_t nodes, Py_ssize_t depth, Py_ssize_t line, Py_ssize_t column) except -1:
    yaml.nodes += nodes
    if yaml.nodes > NODES_MAX:
        raise too_many_values(line, column)
    if depth > DEPTH_MAX:
        raise too_deep(line, column)
    if depth > yaml.deepest:
        yaml.deepest = depth
    return 0


# --- properties ---

cdef Properties read_property(Yaml yaml, Properties properties, bint flow):
    """Adds the tag or the anchor that stands here."""
    cdef Py_UCS4 character = yaml.buffer[yaml.at]
    if properties is None:
        properties = Properties.__new__(Properties)
        properties.line = yaml.line
        properties.column = yaml.at - yaml.line_start + 1
    if (properties.anchor if character == u"&" else properties.tag) is not None:
        raise yaml_error(yaml, f"a second '{character}' for one value; remove one")
    if character == u"&":
        properties.anchor = read_yaml_name(yaml)
    else:
        properties.tag = read_yaml_tag(yaml)
    character = yaml.buffer[yaml.at]
    if not is_yaml_gap(character) and not (flow and (character == u"," or character == u"]" or character == u"}")):
        raise yaml_expected(yaml, "a space after an anchor or a tag", "quote a value that starts with '&' or '!'")
    return properties


cdef Properties merged_properties(Yaml yaml, Properties outer, Properties inner):
    """Properties of one value that stand on two lines."""
    if outer is None:
        return inner
    if inner is None:
        return outer
    if (outer.tag is not None and inner.tag is not None) or (outer.anchor is not None and inner.anchor is not None):
        raise yaml_error(yaml, "the value before this has two anchors or two tags; remove one")
    outer.tag = outer.tag if inner.tag is None else inner.tag
    outer.anchor = outer.anchor if inner.anchor is None else inner.anchor
    return outer


cdef int keep_anchor(Yaml yaml, str name, object value, Py_ssize_t nodes, Py_ssize_t height, Mark mark) except -1:
    cdef Anchor anchor = Anchor.__new__(Anchor)
    anchor.value = value
    anchor.nodes = nodes
    anchor.height = height
    anchor.mark = mark
    yaml.anchors[name] = anchor
    return 0


cdef object alias_value(Yaml yaml, str name, Properties properties, Py_ssize_t line, Py_ssize_t column):
    cdef Anchor anchor
    if properties is not None:
        raise yaml_error(yaml, "an alias repeats a value and has no anchor or tag of its own; remove that")
    if name not in yaml.anchors:
        raise single_problem("invalid-alias", line, column, f"the alias {shown('*' + name)} has no anchor before it")
    anchor = yaml.anchors[name]
    if anchor is None:
        raise single_problem("invalid-alias", line, column,
                             f"the alias {shown('*' + name)} stands within its own anchor")
    count_values(yaml, anchor.nodes, yaml.depth + anchor.height, line, column)
    yaml.scalar = None
    yaml.alias_mark = new_mark(yaml, line, column)
    if yaml.alias_mark is not None and anchor.mark is not None:
        yaml.alias_mark.members = anchor.mark.members
        yaml.alias_mark.items = anchor.mark.items
    return anchor.value


# --- scalars ---

cdef object node_value(Yaml yaml, str text, int style, Properties properties, Py_ssize_t line, Py_ssize_t column):
    """The value of a scalar or an alias that starts here, with its properties."""
    cdef object value = text
    cdef Py_ssize_t nodes
    yaml.quoted_key = style == YAML_QUOTED
    if properties is not None:
        line = properties.line
        column = properties.column
    if style == YAML_ALIAS:
        return alias_value(yaml, text, properties, line, column)
    nodes = 1 + len(text) // TEXT_PER_VALUE
    count_values(yaml, nodes, yaml.depth, line, column)
    yaml.scalar = text
    yaml.alias_mark = None
    if properties is not None and properties.tag is not None:
        value = tagged_value(yaml, text, properties.tag, line, column)
    elif style == YAML_PLAIN:
        value = core_scalar(text)
        if value is NOT_JSON:
            not_json(yaml, line, column)
            value = text
        elif yaml.opens_like_json and type(value) is str and is_mistaken(text):
            yaml.has_mistaken_text = True
    if properties is not None and properties.anchor is not None:
        keep_anchor(yaml, properties.anchor, value, nodes, 0, None)
    return value


cdef bint is_mistaken(str text):
    """Would the author of JSON mean something else than this text: a constant, a comment, a comma that is missing?"""
    cdef str first
    if text in FOREIGN_CONSTANTS or '"' in text or text.startswith(("//", "/*")) or " //" in text or " /*" in text:
        return True
    if " " not in text:
        return False
    first = text.split(" ", 1)[0]
    return first in ("true", "false", "null") or type(core_scalar(first)) is not str


cdef object tagged_value(Yaml yaml, str text, str tag, Py_ssize_t line, Py_ssize_t column):
    cdef str name = tag[len(YAML_TAG_PREFIX):] if tag.startswith(YAML_TAG_PREFIX) else "?"
    cdef object value
    if tag == "!" or name == "str":
        return text
    value = core_scalar(text)
    if value is NOT_JSON and name == "float":
        not_json(yaml, line, column)
    elif name == "null" and value is None:
        return value
    elif name == "bool" and type(value) is bool:
        return value
    elif name == "int" and type(value) is int:
        return value
    elif name == "float" and (type(value) is float or type(value) is int):
        return float(value)
    elif name in ("null", "bool", "int", "float"):
        yaml_problem("invalid-scalar", yaml, line, column,
                     f"the text under the tag '!!{name}' is no {name} of YAML 1.2")
    else:
        foreign_tag(yaml, tag, line, column)
    return text


cdef int not_json(Yaml yaml, Py_ssize_t line, Py_ssize_t column) except -1:
    return yaml_problem("invalid-scalar", yaml, line, column,
                        "infinity, NaN and numbers beyond a double (about 1.8e308) are no JSON data; quote text")


cdef int foreign_tag(Yaml yaml, str tag, Py_ssize_t line, Py_ssize_t column) except -1:
    return yaml_problem("unsupported-tag", yaml, line, column,
                        f"the tag {shown(tag.replace(YAML_TAG_PREFIX, '!!'))} is not allowed here; a document holds "
                        "JSON data, so only the tags !!str, !!int, !!float, !!bool, !!null, !!map and !!seq are, each "
                        "on its own type")


cdef int give_scalar(Yaml yaml, str text, int style, Properties properties, Py_ssize_t line,
                     Py_ssize_t column) except -1:
    """A scalar or an alias, with its properties, to its collection."""
    cdef object value = node_value(yaml, text, style, properties, line, column)
    if properties is not None:
        line = properties.line
        column = properties.column
    return give_value(yaml, value, line, column, yaml.alias_mark)


# --- collections ---

cdef YamlFrame open_collection(Yaml yaml, int kind, Properties properties, Py_ssize_t start):
    """Begins a collection whose own text starts at `start` in this line."""
    cdef YamlFrame frame = YamlFrame.__new__(YamlFrame)
    frame.kind = kind
    frame.indent = start - yaml.line_start
    frame.start = start
    frame.start_line = yaml.line
    frame.line = yaml.line if properties is None else properties.line
    frame.column = frame.indent + 1 if properties is None else properties.column
    if properties is not None and properties.tag is not None:
        check_collection_tag(yaml, kind, properties)
    frame.nodes_before = yaml.nodes
    count_values(yaml, 1, yaml.depth + 1, frame.line, frame.column)
    if properties is not None and properties.anchor is not None:
        frame.anchor = properties.anchor
        yaml.anchors[frame.anchor] = None
        frame.deepest_before = yaml.deepest
        yaml.deepest = yaml.depth + 1
    frame.mark = new_mark(yaml, frame.line, frame.column)
    if kind == YAML_BLOCK_LIST or kind == YAML_FLOW_LIST:
        frame.items = []
        if frame.mark is not None:
            frame.mark.items = []
    else:
        frame.members = {}
        if frame.mark is not None:
            frame.mark.members = {}
    frame.parent = yaml.top
    yaml.top = frame
    yaml.depth += 1
    return frame


cdef int check_collection_tag(Yaml yaml, int kind, Properties properties) except -1:
    cdef str allowed = "seq" if kind == YAML_BLOCK_LIST or kind == YAML_FLOW_LIST else "map"
    if properties.tag != "!" and properties.tag != YAML_TAG_PREFIX + allowed:
        foreign_tag(yaml, properties.tag, properties.line, properties.column)
    return 0


cdef object close_collection(Yaml yaml):
    """Ends the innermost collection; returns its value."""
    cdef YamlFrame frame = yaml.top
    cdef object value
    if frame.state == YAML_KEY_END:
        give_null(yaml)
    value = frame.members if frame.items is None else frame.items
    yaml.top = frame.parent
    yaml.depth -= 1
    if frame.anchor is not None:
        keep_anchor(yaml, frame.anchor, value, yaml.nodes - frame.nodes_before, yaml.deepest - yaml.depth, frame.mark)
        yaml.deepest = max(yaml.deepest, frame.deepest_before)
    yaml.scalar = None
    yaml.quoted_key = True
    return value


cdef int give_value(Yaml yaml, object value, Py_ssize_t line, Py_ssize_t column, Mark mark) except -1:
    """A complete value to the collection that waits for it."""
    cdef YamlFrame frame = yaml.top
    if mark is None:
        mark = new_mark(yaml, line, column)
    if frame is None:
        yaml.root = value
        yaml.mark = mark
    elif frame.items is not None:
        frame.items.append(value)
        frame.state = YAML_ENTRY_END
        if mark is not None:
            frame.mark.items.append(mark)
    elif frame.state == YAML_KEY:
        take_key(yaml, frame, value, line, column)
    else:
        frame.members[frame.key] = value
        frame.state = YAML_ENTRY_END
        if mark is not None:
            mark.key_line = frame.key_line
            mark.key_column = frame.key_column
            frame.mark.members[frame.key] = mark
        frame.key = None
    return 0


cdef int give_null(Yaml yaml) except -1:
    """The value of a key that has none."""
    cdef Py_ssize_t column = yaml.at - yaml.line_start + 1
    count_values(yaml, 1, yaml.depth, yaml.line, column)
    yaml.top.state = YAML_VALUE
    return give_value(yaml, None, yaml.line, column, None)


cdef bint holds_ports(YamlFrame frame) noexcept:
    """Whether a mapping is that of a container's ports."""
    cdef YamlFrame parent = frame.parent
    return (parent is not None and parent.key == "ports" and parent.parent is not None
            and parent.parent.key == "container")


cdef int take_key(Yaml yaml, YamlFrame frame, object value, Py_ssize_t line, Py_ssize_t column) except -1:
    """A key; the text of one that is no string too, after a problem."""
    cdef str key
    if type(value) is str:
        key = value
        if len(key) > KEY_SIZE_MAX:
            raise key_too_long(key, line, column)
        if yaml.opens_like_json and not yaml.quoted_key and not is_mistaken(key):
            yaml.has_bare_keys = True
    elif type(value) is int and holds_ports(frame):
        # Everybody writes them as numbers.
        key = str(value)
    elif yaml.scalar is not None:
        key = yaml.scalar
        yaml_problem("non-string-key", yaml, line, column,
                     f"the key {shown(key)} is {json_type_name(value)}; keys are strings: quote it")
    else:
        key = "?"
        yaml_problem("non-string-key", yaml, line, column, f"a key is {json_type_name(value)}; keys are strings")
    frame.key = key
    frame.key_line = line
    frame.key_column = column
    frame.state = YAML_KEY_END
    if key in frame.members:
        yaml_problem("duplicate-key", yaml, line, column,
                     f"the key {shown(key)} stands twice in one mapping; keep one")
    return 0


cdef int check_implicit_key(Yaml yaml, Py_ssize_t start, Py_ssize_t line) except -1:
    """Refuses a key that no '?' announces, starts at `start` in `line`, and ends before the ':' here."""
    if yaml.line != line:
        raise yaml_error(yaml, f"the text before this ':' starts on line {line}, but a key and its ':' stand on one "
                               f"line; a key of the same block is indented like line {line}, and a value that contains "
                               "': ' is quoted")
    if yaml.at - start > IMPLICIT_KEY_SIZE_MAX:
        raise single_problem("key-too-long", line, start - yaml.line_start + 1,
                             f"the key takes {yaml.at - start} characters; the limit is {IMPLICIT_KEY_SIZE_MAX}")
    return 0
