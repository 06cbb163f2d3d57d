"""Stage 4, expressions: objects and strings, whose parts are expressions again. See parse.pxi for the rules."""

# --- objects ---


cdef Node object_term(Parser parser):
    cdef Py_ssize_t offset = parser.lexer.start
    cdef list kids = []
    parser.lexer.advance()
    if not parser.lexer.is_op("}"):
        while True:
            object_entry(parser, kids)
            if not parser.lexer.is_op(","):
                break
            parser.lexer.advance()
            if parser.lexer.is_op("}"):
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
    cdef Py_ssize_t offset = parser.lexer.start
    cdef Node key
    cdef Node value = None
    if parser.lexer.kind == T_VARIABLE:
        key, value = constant(parser.lexer.word, offset), parser.primary()
        if parser.lexer.is_op(":"):
            key, value = value, None
        kids.append(key)
        kids.append(entry_value(parser) if value is None else value)
        return 0
    if parser.lexer.kind == T_NUMBER:
        key = constant(parser.lexer.number, offset)
        parser.lexer.advance()
        parser.check_key(key)
    if parser.lexer.kind == T_NAME or parser.lexer.kind == T_KEYWORD:
        key = constant(parser.lexer.word, offset)
        parser.lexer.advance()
    elif parser.lexer.kind == T_QUOTE or parser.lexer.kind == T_FORMAT:
        key = string_term(parser)
    elif parser.lexer.is_op("("):
        parser.lexer.advance()
        key = parser.query()
        parser.close(")", offset)
        parser.check_key(key)
        if not parser.lexer.is_op(":"):
            parser.unexpected("':'")
    else:
        parser.unexpected("a key: a name, a string, a variable or an expression in parentheses")
    kids.append(key)
    if parser.lexer.is_op(":"):
        kids.append(entry_value(parser))
    elif not parser.lexer.is_op(",") and not parser.lexer.is_op("}"):
        parser.unexpected("':', ',' or '}' (a key that is an expression needs parentheses)")
    else:
        # `{a}` and `{"a\(1)"}` read the key from the input.
        kids.append(field_of(parser, key))
    return 0


cdef Node field_of(Parser parser, Node key):
    if key.kind == N_CONST:
        return field_node(<str>key.key, key.offset)
    if key.kind == N_FORMAT:
        parser.lexer.refuse("found a format without a string, expected a key", key.offset)
    return new_node(N_INDEX, key.offset, None, key)


cdef Node entry_value(Parser parser):
    """Expressions joined by `|`, no comma; the colon is the current token."""
    cdef Node node, right
    cdef Py_ssize_t offset
    parser.lexer.advance()
    node = parser.expression(1)
    while parser.lexer.is_op("|"):
        offset = parser.lexer.start
        parser.lexer.advance()
        right = parser.expression(1)
        node = new_node(N_PIPE, offset, node, right)
    return node


# --- strings ---


cdef Node string_term(Parser parser):
    """`"..."`, `@format "..."` or a bare `@format`."""
    cdef Py_ssize_t offset = parser.lexer.start
    cdef str format = "text"
    cdef Node node
    if parser.lexer.kind == T_FORMAT:
        format = parser.lexer.word
        if format not in FORMATS:
            parser.lexer.refuse(f"found '@{format}', expected one of @{' @'.join(FORMATS)}", offset)
        parser.lexer.advance()
        if parser.lexer.kind != T_QUOTE:
            node = new_node(N_FORMAT, offset)
            node.key = format
            return node
    return string_parts(parser, offset, format)


cdef Node string_parts(Parser parser, Py_ssize_t offset, str format):
    """A string whose opening quote is the current token."""
    cdef list parts = []
    cdef Py_ssize_t begin = parser.lexer.position
    cdef Py_UCS4 c
    cdef Node node
    while True:
        if parser.lexer.position >= parser.lexer.size:
            parser.lexer.refuse("found the end of the expression, expected '\"' to close the string", offset)
        c = parser.lexer.text[parser.lexer.position]
        if c == 34:
            add_text(parser, parts, begin)
            parser.lexer.position += 1
            break
        if c == 92 and parser.lexer.at(parser.lexer.position + 1) == 40:
            add_text(parser, parts, begin)
            opened = parser.lexer.position
            parser.lexer.position += 2
            parser.lexer.advance()
            parts.append(parser.query())
            if not parser.lexer.is_op(")"):
                where = place(parser.lexer.text, opened, parser.lexer.start)
                parser.unexpected(f"')' to close the interpolation {where}")
            begin = parser.lexer.position
        else:
            parser.lexer.position += 2 if c == 92 else 1
    parser.lexer.advance()
    if not parts:
        return constant("", offset)
    node = parts[0]
    if len(parts) == 1 and node.kind == N_CONST and type(node.key) is str and node.level == 1:
        return constant(node.key, offset)
    node = list_node(N_STRING, offset, parts)
    node.key = format
    return node


cdef int add_text(Parser parser, list parts, Py_ssize_t begin) except -1:
    cdef str raw = parser.lexer.text[begin : parser.lexer.position]
    cdef Node node
    if not raw:
        return 0
    text = unescape(raw) if "\\" in raw else raw
    if text is None:
        parser.lexer.refuse(f"found an escape that JSON strings do not have in \"{raw}\"", begin)
    node = constant(text, begin)
    # Marks literal text, which no format touches.
    node.level = 1
    parts.append(node)
    return 0
