"""Stage 4, expressions: tokens to the syntax tree, by recursive descent with jq 1.8's grammar and precedence.

Rules: every refusal is an ExpressionProblem that says what was found and what was expected, with its offset. Nesting
is bounded before the C stack is. Sugar that needs no knowledge of scopes is gone after this stage.
"""

cimport cython

# Binary operators: precedence, operation. Assignments and comparisons do not associate.
cdef dict BINARY = {
    "//": (1, N_ALTERNATIVE, 0),
    "=": (2, N_ASSIGN, A_SET), "|=": (2, N_ASSIGN, A_MODIFY), "//=": (2, N_ASSIGN, A_ALTERNATIVE),
    "+=": (2, N_ASSIGN, O_ADD), "-=": (2, N_ASSIGN, O_SUBTRACT), "*=": (2, N_ASSIGN, O_MULTIPLY),
    "/=": (2, N_ASSIGN, O_DIVIDE), "%=": (2, N_ASSIGN, O_MODULO),
    "or": (3, N_OR, 0), "and": (4, N_AND, 0),
    "==": (5, N_BINARY, O_EQUAL), "!=": (5, N_BINARY, O_NOT_EQUAL), "<": (5, N_BINARY, O_LESS),
    "<=": (5, N_BINARY, O_LESS_EQUAL), ">": (5, N_BINARY, O_GREATER), ">=": (5, N_BINARY, O_GREATER_EQUAL),
    "+": (6, N_BINARY, O_ADD), "-": (6, N_BINARY, O_SUBTRACT),
    "*": (7, N_BINARY, O_MULTIPLY), "/": (7, N_BINARY, O_DIVIDE), "%": (7, N_BINARY, O_MODULO),
}
cdef int NESTING_MAX = 300

cdef dict FORMATS = dict.fromkeys(
    ("text", "json", "csv", "tsv", "html", "uri", "urid", "sh", "base64", "base64d", "base32", "base32d")
)


@cython.internal
@cython.final
cdef class Parser:
    cdef Lexer lexer
    cdef int nesting

    cdef Node parse(self, str text):
        cdef Node result
        self.lexer = new_lexer(text)
        self.lexer.advance()
        self.refuse_modules()
        if self.lexer.kind == T_END:
            return new_node(N_IDENTITY, 0)
        result = self.query()
        if self.lexer.kind != T_END:
            self.unexpected("an operator or the end of the expression")
        return result

    cdef object unexpected(self, str expected):
        hint = token_hint(self, expected)
        if hint:
            expected = f"{expected} ({hint})"
        self.lexer.refuse(f"found {self.lexer.describe()}, expected {expected}", self.lexer.start)

    cdef int refuse_modules(self) except -1:
        if self.lexer.kind == T_KEYWORD and self.lexer.word in ("module", "import", "include"):
            self.lexer.refuse(
                f"modules are not available: found '{self.lexer.word}', expected an expression", self.lexer.start
            )
        return 0

    cdef int expect(self, str word) except -1:
        if (self.lexer.kind != T_OPERATOR and self.lexer.kind != T_KEYWORD) or self.lexer.word != word:
            self.unexpected(f"'{word}'")
        self.lexer.advance()
        return 0

    cdef int close(self, str closing, Py_ssize_t opened, str others="") except -1:
        """Takes the bracket or word that ends what was opened at an offset."""
        cdef str opening
        if (self.lexer.kind != T_OPERATOR and self.lexer.kind != T_KEYWORD) or self.lexer.word != closing:
            opening = "if" if closing == "end" else self.lexer.text[opened]
            where = place(self.lexer.text, opened, self.lexer.start)
            self.unexpected(f"{others}'{closing}' to close the '{opening}' {where}")
        self.lexer.advance()
        return 0

    cdef str bound_name(self):
        """The current token as the name of a variable or label to bind."""
        cdef str name = self.lexer.word
        if name == "__loc__":
            self.lexer.refuse("found '$__loc__', expected a name that is not taken", self.lexer.start)
        self.lexer.advance()
        return name

    cdef int enter(self) except -1:
        self.nesting += 1
        if self.nesting > NESTING_MAX:
            self.lexer.refuse(f"the expression is nested more than {NESTING_MAX} levels deep", self.lexer.start)
        return 0

    # --- queries: pipe, comma, binding, definitions ---

    cdef Node query(self):
        """Everything, `|` included: the lowest precedence."""
        cdef Node left, result
        cdef Py_ssize_t offset
        self.enter()
        if self.lexer.kind == T_KEYWORD and self.lexer.word == "def":
            result = self.definition()
        elif self.lexer.kind == T_KEYWORD and self.lexer.word == "label":
            result = self.label()
        else:
            left = self.comma()
            if self.lexer.is_op("|"):
                offset = self.lexer.start
                self.lexer.advance()
                result = new_node(N_PIPE, offset, left, self.query())
            else:
                result = left
        self.nesting -= 1
        return result

    cdef Node comma(self):
        cdef Node first = self.binding()
        cdef Py_ssize_t offset = self.lexer.start
        cdef list kids
        if not self.lexer.is_op(","):
            return first
        kids = [first]
        while self.lexer.is_op(","):
            self.lexer.advance()
            if self.lexer.kind == T_KEYWORD and (self.lexer.word == "def" or self.lexer.word == "label"):
                # These reach as far to the right as they can.
                kids.append(self.query())
                break
            kids.append(self.binding())
        return list_node(N_COMMA, offset, kids)

    cdef Node binding(self):
        """An expression, or `expression as patterns | query`."""
        cdef Node source = self.expression(1)
        cdef Py_ssize_t offset = self.lexer.start
        cdef list patterns
        if not self.lexer.is_keyword("as"):
            return source
        self.lexer.advance()
        patterns = self.patterns()
        self.expect("|")
        return new_node(N_BIND, offset, source, self.query(), None, None, patterns)

    cdef Node label(self):
        cdef Py_ssize_t offset = self.lexer.start
        cdef Node node
        cdef str name
        self.lexer.advance()
        if self.lexer.kind != T_VARIABLE:
            self.unexpected("a label's name such as '$out'")
        name = self.bound_name()
        self.expect("|")
        node = new_node(N_LABEL, offset, self.query())
        node.key = name
        return node

    cdef Node definition(self):
        """`def name(parameters): body; rest`."""
        cdef Py_ssize_t offset = self.lexer.start
        cdef list parameters = []
        cdef Node node, body, rest
        self.lexer.advance()
        if self.lexer.kind != T_NAME:
            self.unexpected("a function's name")
        name = self.lexer.word
        self.lexer.advance()
        if self.lexer.is_op("("):
            while True:
                self.lexer.advance()
                if self.lexer.kind != T_NAME and self.lexer.kind != T_VARIABLE:
                    self.unexpected("a parameter's name")
                parameters.append(("$" if self.lexer.kind == T_VARIABLE else "") + self.bound_name())
                if not self.lexer.is_op(";"):
                    break
            if not self.lexer.is_op(")"):
                self.unexpected("';' or ')'")
            self.lexer.advance()
        self.expect(":")
        body = self.query()
        if not self.lexer.is_op(";"):
            self.unexpected(f"';' to end the definition of '{name}'")
        self.lexer.advance()
        rest = self.query() if self.lexer.kind != T_END else new_node(N_IDENTITY, offset)
        node = new_node(N_DEFINE, offset, body, rest)
        node.key = name
        node.parameters = parameters
        return node

    # --- patterns ---

    cdef list patterns(self):
        cdef list result = [self.pattern()]
        while self.lexer.is_op("?//"):
            self.lexer.advance()
            result.append(self.pattern())
        return result

    cdef Node pattern(self):
        cdef Py_ssize_t offset = self.lexer.start
        cdef list kids = []
        cdef Node node
        cdef str closing
        self.enter()
        if self.lexer.kind == T_VARIABLE:
            node = variable(self.bound_name(), offset)
        elif self.lexer.is_op("[") or self.lexer.is_op("{"):
            closing = "]" if self.lexer.word == "[" else "}"
            while True:
                self.lexer.advance()
                if closing == "]":
                    kids.append(self.pattern())
                else:
                    self.object_pattern(kids)
                if not self.lexer.is_op(","):
                    break
            self.expect(closing)
            node = list_node(P_ARRAY if closing == "]" else P_OBJECT, offset, kids)
        else:
            self.unexpected("a variable, '[' or '{'")
        self.nesting -= 1
        return node

    cdef int object_pattern(self, list kids) except -1:
        cdef Py_ssize_t offset = self.lexer.start
        cdef Node key, value
        if self.lexer.kind == T_VARIABLE:
            key = variable(self.bound_name(), offset)
            value = None
            if self.lexer.is_op(":"):
                self.lexer.advance()
                value = self.pattern()
            kids.append(key)
            kids.append(value)
            return 0
        if self.lexer.kind == T_NAME or self.lexer.kind == T_KEYWORD:
            key = constant(self.lexer.word, offset)
            self.lexer.advance()
        elif self.lexer.kind == T_QUOTE or self.lexer.kind == T_FORMAT:
            key = string_term(self)
        elif self.lexer.is_op("("):
            self.lexer.advance()
            key = self.query()
            self.expect(")")
            self.check_key(key)
            if key.kind == N_VARIABLE:
                # A variable alone stands for a key that is bound as well.
                key = new_node(N_PIPE, offset, new_node(N_IDENTITY, offset), key)
        else:
            self.unexpected("a key of an object pattern")
        self.expect(":")
        kids.append(key)
        kids.append(self.pattern())
        return 0

    cdef int check_key(self, Node key) except -1:
        cdef Node value = constant_of(key)
        if value is not None and type(value.key) is not str:
            found = f"{kind_name(value.key)} ({dump_short(value.key)})"
            self.lexer.refuse(f"found {found} as an object's key, expected a string", key.offset)
        return 0

    # --- operators ---

    cdef Node expression(self, int lowest):
        """Binary operators of at least precedence `lowest`, by precedence climbing."""
        cdef Node left, right
        cdef int precedence, kind, op
        cdef Py_ssize_t offset
        self.enter()
        left = self.term()
        while self.lexer.kind == T_OPERATOR or self.lexer.kind == T_KEYWORD:
            entry = BINARY.get(self.lexer.word)
            if entry is None:
                break
            precedence, kind, op = entry
            if precedence < lowest:
                break
            offset = self.lexer.start
            self.lexer.advance()
            right = self.expression(precedence if precedence == 1 else precedence + 1)
            left = self.combine(kind, op, left, right, offset)
            if precedence == 2 or precedence == 5:
                other = BINARY.get(self.lexer.word) if self.lexer.kind == T_OPERATOR else None
                if other is not None and other[0] == precedence:
                    self.unexpected("parentheses around comparisons or assignments in a row")
        self.nesting -= 1
        return left

    cdef Node combine(self, int kind, int op, Node left, Node right, Py_ssize_t offset):
        cdef Node node = new_node(kind, offset, left, right)
        node.op = op
        if kind == N_BINARY and left.kind == N_CONST and right.kind == N_CONST:
            return fold(node)
        return node

    # --- terms ---

    cdef Node term(self):
        cdef Node node
        cdef Py_ssize_t offset = self.lexer.start
        self.enter()
        if self.lexer.is_op("-"):
            self.lexer.advance()
            node = new_node(N_NEGATE, offset, self.term())
        else:
            node = self.suffixes(self.primary())
        self.nesting -= 1
        return node

    cdef Node primary(self):
        cdef Py_ssize_t offset = self.lexer.start
        cdef Node node
        if self.lexer.kind == T_FIELD:
            node = field_node(self.lexer.word, offset)
            self.lexer.advance()
            self.take_optional(node)
            return node
        if self.lexer.kind == T_NUMBER:
            node = constant(self.lexer.number, offset)
        elif self.lexer.kind == T_VARIABLE:
            if self.lexer.word == "__loc__":
                node = constant({"file": "<top-level>", "line": self.lexer.text.count("\n", 0, offset) + 1}, offset)
            else:
                node = variable(self.lexer.word, offset)
        elif self.lexer.kind == T_NAME:
            return self.name_term()
        elif self.lexer.kind == T_QUOTE or self.lexer.kind == T_FORMAT:
            return string_term(self)
        elif self.lexer.kind == T_KEYWORD:
            return self.keyword_term()
        elif self.lexer.kind == T_OPERATOR:
            return self.operator_term()
        else:
            self.unexpected("an expression")
        self.lexer.advance()
        return node

    cdef Node name_term(self):
        cdef Py_ssize_t offset = self.lexer.start
        cdef str name = self.lexer.word
        cdef list arguments = []
        cdef Node node
        self.lexer.advance()
        if self.lexer.is_op("("):
            while True:
                self.lexer.advance()
                arguments.append(self.query())
                if not self.lexer.is_op(";"):
                    break
            self.close(")", offset + len(name), "';' or ")
        elif name == "true" or name == "false" or name == "null":
            return constant(None if name == "null" else name == "true", offset)
        node = call_node(name, arguments, offset)
        # For a hint, should there be no such function: `name.field` and `.field-name`.
        if self.lexer.kind == T_FIELD and not arguments:
            node.level = 1
        elif offset > 1 and self.lexer.text[offset - 1] == "-" and is_name_part(self.lexer.text[offset - 2]):
            node.level = 2
        return node

    cdef Node operator_term(self):
        cdef Py_ssize_t offset = self.lexer.start
        cdef Node node
        if self.lexer.word == ".":
            self.lexer.advance()
            if self.lexer.kind == T_QUOTE or self.lexer.kind == T_FORMAT:
                return self.index_by_string(None, offset)
            if self.lexer.is_op("["):
                return self.brackets(None)
            return new_node(N_IDENTITY, offset)
        if self.lexer.word == "..":
            self.lexer.advance()
            return call_node("recurse", [], offset)
        if self.lexer.word == "(":
            self.lexer.advance()
            node = self.query()
            self.close(")", offset)
            return node
        if self.lexer.word == "[":
            self.lexer.advance()
            if self.lexer.is_op("]"):
                self.lexer.advance()
                return new_node(N_ARRAY, offset)
            node = new_node(N_ARRAY, offset, self.query())
            self.close("]", offset, "',' or ")
            return node
        if self.lexer.word == "{":
            return object_term(self)
        self.unexpected("an expression")

    cdef Node keyword_term(self):
        cdef Py_ssize_t offset = self.lexer.start
        cdef Node node, body
        cdef str word = self.lexer.word
        self.refuse_modules()
        if word == "if":
            self.lexer.advance()
            node = self.conditional(offset)
        elif word == "try":
            self.lexer.advance()
            body = self.term()
            node = None
            if self.lexer.is_keyword("catch"):
                self.lexer.advance()
                node = self.term()
            node = new_node(N_TRY, offset, body, node)
        elif word == "reduce" or word == "foreach":
            node = self.fold_term(offset, word == "foreach")
        elif word == "break":
            self.lexer.advance()
            if self.lexer.kind != T_VARIABLE:
                self.unexpected("the label to break to, such as '$out'")
            node = new_node(N_BREAK, offset)
            node.key = self.lexer.word
            self.lexer.advance()
        else:
            self.unexpected("an expression")
        return node

    cdef Node conditional(self, Py_ssize_t offset):
        cdef Node condition = self.query()
        cdef Node then, other = None
        self.expect("then")
        then = self.query()
        if self.lexer.is_keyword("elif"):
            self.lexer.advance()
            self.enter()
            other = self.conditional(offset)
            self.nesting -= 1
            return new_node(N_IF, offset, condition, then, other)
        if self.lexer.is_keyword("else"):
            self.lexer.advance()
            nested = self.lexer.is_keyword("if")
            other = self.query()
            if nested and not self.lexer.is_keyword("end"):
                self.unexpected("'end': 'else if' opens another 'if' with an 'end' of its own, 'elif' does not")
        self.close("end", offset, "" if other is not None else "'elif', 'else' or ")
        return new_node(N_IF, offset, condition, then, other)

    cdef Node fold_term(self, Py_ssize_t offset, bint each):
        """`reduce source as patterns (init; update)`, `foreach source as patterns (init; update[; extract])`."""
        cdef Node source, init, update, extract = None
        cdef list patterns
        self.lexer.advance()
        source = self.expression(1)
        self.expect("as")
        patterns = self.patterns()
        self.expect("(")
        init = self.query()
        self.expect(";")
        update = self.query()
        if each and self.lexer.is_op(";"):
            self.lexer.advance()
            extract = self.query()
        self.expect(")")
        return new_node(N_FOREACH if each else N_REDUCE, offset, source, init, update, extract, patterns)

    # --- suffixes ---

    cdef int take_optional(self, Node node) except -1:
        if self.lexer.is_op("?"):
            node.optional = True
            self.lexer.advance()
        return 0

    cdef Node suffixes(self, Node node):
        cdef Node outer
        cdef Py_ssize_t offset
        while True:
            offset = self.lexer.start
            if self.lexer.kind == T_FIELD:
                outer = field_node(self.lexer.word, offset, node)
                self.lexer.advance()
                self.take_optional(outer)
                node = outer
            elif self.lexer.is_op("["):
                node = self.brackets(node)
            elif self.lexer.is_op("?"):
                self.lexer.advance()
                node = new_node(N_TRY, offset, node)
            elif self.lexer.is_op("."):
                self.lexer.advance()
                if self.lexer.kind == T_QUOTE or self.lexer.kind == T_FORMAT:
                    node = self.index_by_string(node, offset)
                elif self.lexer.is_op("["):
                    node = self.brackets(node)
                    if node.kind == N_SLICE:
                        self.lexer.refuse("found a slice behind '.', expected an index (a slice has no dot)", offset)
                else:
                    self.unexpected("a field's name, a string or '['")
            else:
                return node

    cdef Node index_by_string(self, Node of, Py_ssize_t offset):
        cdef Node key = string_term(self)
        cdef Node node
        if key.kind == N_CONST:
            node = field_node(<str>key.key, offset, of)
        elif key.kind == N_FORMAT:
            self.lexer.refuse("found a format without a string, expected a string", key.offset)
        else:
            node = new_node(N_INDEX, offset, of, key)
        self.take_optional(node)
        return node

    cdef Node brackets(self, Node of):
        """`[]`, `[index]`, `[from:to]` behind a term; the bracket is the current token."""
        cdef Py_ssize_t offset = self.lexer.start
        cdef Node first = None
        cdef Node last = None
        cdef Node node
        self.lexer.advance()
        if self.lexer.is_op("]"):
            self.lexer.advance()
            node = new_node(N_ITERATE, offset, of)
            self.take_optional(node)
            return node
        if not self.lexer.is_op(":"):
            first = self.query()
        if self.lexer.is_op(":"):
            self.lexer.advance()
            if not self.lexer.is_op("]"):
                last = self.query()
            elif first is None:
                self.unexpected("an index")
            node = new_node(N_SLICE, offset, of, first, last)
        elif first.kind == N_CONST and type(first.key) is str:
            node = field_node(<str>first.key, offset, of)
        else:
            node = new_node(N_INDEX, offset, of, first)
        self.close("]", offset)
        self.take_optional(node)
        return node
