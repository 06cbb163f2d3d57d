"""Stage 4, expressions: objects and strings, whose parts are expressions again. See parse.pxi for the rules."""

# --- objects ---


cdef Node object_term(Parser parser):
    cdef Py_ssize_t offset = parser.start
    cdef list kids = []
    parser.advance()
    if not parser.is_op("}"):
        while True:
            object_entry(parser, kids)
            if not parser.is_op(","):
                break
            parser.advance()
            if parser.is_op("}"):
                break
    parser.close("}", offset, "',' or ")
    return list_node(N_OBJECT, offset, kids)


cdef Node constant_of(Node node):
    """The constant a node is by its form alone, as jq sees it; None if it is none."""
    cdef Node kid
    cdef list values = []
    if node.kind == N_CONST:
        return node
    if node.kind == N_PIPE:
        if node.b.kind == N_IDENTITY or node.a.kind == N_IDENTITY:
            return constant_of(node.a if node.b.kind == N_IDENTITY else node.b)
        return None
    if node.kind == N_DEFINE:
        return constant_of(node.b)
    if node.kind == N_ARRAY and node.a is not None:
        for kid in (node.a.kids if node.a.kind == N_COMMA else [node.a]):
            kid = constant_of(kid)
            if kid is None:
                return None
            values.append(kid.key)
        return constant(values, node.offset)
    if node.kind == N_ARRAY:
        return constant([], node.offset)
    if node.kind == N_OBJECT and all([(<Node>kid).kind == N_CONST for kid in node.kids]):
        return constant({}, node.offset)
    return None


cdef int object_entry(Parser parser, list kids) except -1:
    cdef Py_ssize_t offset = parser.start
    cdef Node key
    cdef Node value = None
    if parser.kind == T_VARIABLE:
        key, value = constant(parser.word, offset), parser.primary()
        if parser.is_op(":"):
            key, value = value, None
        kids.append(key)
        kids.append(entry_value(parser) if value is None else value)
        return 0
    if parser.kind == T_NUMBER:
        key = constant(parser.number, offset)
        parser.advance()
        parser.check_key(key)
    if parser.kind == T_NAME or parser.kind == T_KEYWORD:
        key = constant(parser.word, offset)
        parser.advance()
    elif parser.kind == T_QUOTE or parser.kind == T_FORMAT:
        key = string_term(parser)
    elif parser.is_op("("):
        parser.advance()
        key = parser.query()
        parser.close(")", offset)
        parser.check_key(key)
        if not parser.is_op(":"):
            parser.unexpected("':'")
    else:
        parser.unexpected("a key: a name, a string, a variable or an expression in parentheses")
    kids.append(key)
    if parser.is_op(":"):
        kids.append(entry_value(parser))
    elif not parser.is_op(",") and not parser.is_op("}"):
        parser.unexpected("':', ',' or '}' (a key that is an expression needs parentheses)")
    else:
        # `{a}` and `{"a\(1)"}` read the key from the input.
        kids.append(field_of(parser, key))
    return 0


cdef Node field_of(Parser parser, Node key):
    if key.kind == N_CONST:
        return field_node(<str>key.key, key.offset)
    if key.kind == N_FORMAT:
        parser.refuse("found a format without a string, expected a key", key.offset)
    return new_node(N_INDEX, key.offset, None, key)


cdef Node entry_value(Parser parser):
    """Expressions joined by `|`, no comma; the colon is the current token."""
    cdef Node node, right
    cdef Py_ssize_t offset
    parser.advance()
    node = parser.expression(1)
    while parser.is_op("|"):
        offset = parser.start
        parser.advance()
        right = parser.expression(1)
        node = new_node(N_PIPE, offset, node, right)
    return node


# --- strings ---


cdef Node string_term(Parser parser):
    """`"..."`, `@format "..."` or a bare `@format`."""
    cdef Py_ssize_t offset = parser.start
    cdef str format = "text"
    cdef Node node
    if parser.kind == T_FORMAT:
        format = parser.word
        if format not in FORMATS:
            parser.refuse(f"found '@{format}', expected one of @{' @'.join(FORMATS)}", offset)
        parser.advance()
        if parser.kind != T_QUOTE:
            node = new_node(N_FORMAT, offset)
            node.key = format
            return node
    return string_parts(parser, offset, format)


cdef Node string_parts(Parser parser, Py_ssize_t offset, str format):
    """A string whose opening quote is the current token."""
    cdef list parts = []
    cdef Py_ssize_t begin = parser.position
    cdef Py_UCS4 c
    cdef Node node
    while True:
        if parser.position >= parser.size:
            parser.refuse("found the end of the expression, expected '\"' to close the string", offset)
        c = parser.text[parser.position]
        if c == 34:
            add_text(parser, parts, begin)
            parser.position += 1
            break
        if c == 92 and parser.at(parser.position + 1) == 40:
            add_text(parser, parts, begin)
            opened = parser.position
            parser.position += 2
            parser.advance()
            parts.append(parser.query())
            if not parser.is_op(")"):
                parser.unexpected(f"')' to close the interpolation {place(parser.text, opened, parser.start)}")
            begin = parser.position
        else:
            parser.position += 2 if c == 92 else 1
    parser.advance()
    if not parts:
        return constant("", offset)
    node = parts[0]
    if len(parts) == 1 and node.kind == N_CONST and type(node.key) is str and node.level == 1:
        return constant(node.key, offset)
    node = list_node(N_STRING, offset, parts)
    node.key = format
    return node


cdef int add_text(Parser parser, list parts, Py_ssize_t begin) except -1:
    cdef str raw = parser.text[begin : parser.position]
    cdef Node node
    if not raw:
        return 0
    text = unescape(raw) if "\\" in raw else raw
    if text is None:
        parser.refuse(f"found an escape that JSON strings do not have in \"{raw}\"", begin)
    node = constant(text, begin)
    # Marks literal text, which no format touches.
    node.level = 1
    parts.append(node)
    return 0
