"""Stage 4, expressions: text to tokens, one at a time, straight over the str.

Rules: no regular expression and no token objects; the lexer holds the current token's kind, text or value and
offsets. A string literal is lexed by the parser's request, because its interpolations are expressions.
"""

cimport cython

cdef enum Token:
    T_END
    T_FIELD
    T_NAME
    T_KEYWORD
    T_VARIABLE
    T_NUMBER
    T_FORMAT
    T_QUOTE
    T_OPERATOR

cdef frozenset KEYWORDS = frozenset((
    "def", "module", "import", "include", "if", "then", "else", "elif", "end", "as", "reduce", "foreach", "and", "or",
    "try", "catch", "label", "break",
))


cdef inline bint is_name_start(Py_UCS4 c):
    return c == 95 or 97 <= c <= 122 or 65 <= c <= 90


cdef inline bint is_digit(Py_UCS4 c):
    return 48 <= c <= 57


cdef inline bint is_name_part(Py_UCS4 c):
    return is_name_start(c) or is_digit(c)


@cython.internal
@cython.final
cdef class Lexer:
    cdef str text
    cdef Py_ssize_t size
    # Current token: `start` is its first code point, `position` the one after it.
    cdef Py_ssize_t start, position
    cdef Token kind
    # Text of a name, keyword, field, variable, format or operator.
    cdef str word
    cdef object number

    cdef object refuse(self, str message, Py_ssize_t offset):
        raise ExpressionProblem(message, offset)

    cdef str describe(self):
        """The current token, for a message."""
        if self.kind == T_END:
            return "the end of the expression"
        return f"'{self.text[self.start : self.position]}'"

    cdef inline Py_UCS4 at(self, Py_ssize_t index):
        return self.text[index] if index < self.size else 0

    cdef int skip_space(self) except -1:
        cdef Py_UCS4 c
        while self.position < self.size:
            c = self.text[self.position]
            if c == 35:
                self.skip_comment()
            elif c == 32 or c == 10 or c == 9 or c == 13:
                self.position += 1
            else:
                return 0
        return 0

    cdef int skip_comment(self) except -1:
        """A comment ends at a line end that an odd number of backslashes does not escape."""
        cdef Py_UCS4 c
        cdef bint escaped = False
        while self.position < self.size:
            c = self.text[self.position]
            if c == 10 and not escaped:
                return 0
            if c == 92:
                escaped = not escaped
            elif not (c == 13 and escaped and self.at(self.position + 1) == 10):
                escaped = False
            self.position += 1
        return 0

    cdef int advance(self) except -1:
        """Reads the next token."""
        cdef Py_UCS4 c, d
        self.skip_space()
        self.start = self.position
        if self.position >= self.size:
            self.kind = T_END
            return 0
        c = self.text[self.position]
        if is_name_start(c):
            self.read_name(self.position)
            self.kind = T_KEYWORD if self.word in KEYWORDS else T_NAME
            return 0
        d = self.at(self.position + 1)
        if c == 46 and is_name_start(d):
            self.position += 1
            self.read_word()
            self.kind = T_FIELD
        elif is_digit(c) or (c == 46 and is_digit(d)):
            self.read_number()
        elif c == 34:
            self.kind = T_QUOTE
            self.position += 1
        elif c == 36 and is_name_start(d):
            self.position += 1
            self.read_name(self.position)
            self.kind = T_VARIABLE
        elif c == 64 and is_name_part(d):
            self.position += 1
            self.read_word()
            self.kind = T_FORMAT
        else:
            self.read_operator(c, d)
        return 0

    cdef int read_word(self) except -1:
        cdef Py_ssize_t begin = self.position
        while self.position < self.size and is_name_part(self.text[self.position]):
            self.position += 1
        self.word = self.text[begin : self.position]
        return 0

    cdef int read_name(self, Py_ssize_t begin) except -1:
        """A word, with `module::` prefixes."""
        self.read_word()
        while self.at(self.position) == 58 and self.at(self.position + 1) == 58 and is_name_start(
            self.at(self.position + 2)
        ):
            self.position += 2
            self.read_word()
            self.word = self.text[begin : self.position]
        return 0

    cdef int read_number(self) except -1:
        cdef Py_ssize_t mark
        cdef int dots = 0
        while is_digit(self.at(self.position)) or self.at(self.position) == 46:
            if self.text[self.position] == 46:
                if dots or self.at(self.position + 1) == 46:
                    break
                dots += 1
            self.position += 1
        if self.at(self.position) in "eE":
            mark = self.position + 1
            if self.at(mark) in "+-":
                mark += 1
            if is_digit(self.at(mark)):
                while is_digit(self.at(mark)):
                    mark += 1
                self.position = mark
        self.kind = T_NUMBER
        self.number = parse_number(self.text[self.start : self.position])
        if self.number is None or self.at(self.position) == 46 and is_digit(self.at(self.position + 1)):
            found = self.text[self.start : self.position + 1]
            self.refuse(f"found the numeric literal '{found}', expected one such as 1.5 or 2e3", self.start)
        return 0

    cdef int read_operator(self, Py_UCS4 c, Py_UCS4 d) except -1:
        cdef Py_ssize_t length = 1
        cdef Py_UCS4 e = self.at(self.position + 2)
        if c == 63 and d == 47 and e == 47 or c == 47 and d == 47 and e == 61:
            length = 3
        elif d == 61 and c in "!=|+-*/%<>" or c == 47 and d == 47 or c == 46 and d == 46:
            length = 2
        elif c not in ".?=;,:|+-*/%<>[]{}()":
            hint = character_hint(self.text, self.position)
            self.refuse(
                f"found '{c}', expected an expression or an operator" + (f" ({hint})" if hint else ""), self.position
            )
        self.kind = T_OPERATOR
        self.word = self.text[self.position : self.position + length]
        self.position += length
        return 0

    cdef bint is_op(self, str word):
        return self.kind == T_OPERATOR and self.word == word

    cdef bint is_keyword(self, str word):
        return self.kind == T_KEYWORD and self.word == word


cdef Lexer new_lexer(str text):
    cdef Lexer lexer = Lexer.__new__(Lexer)
    lexer.text = text
    lexer.size = len(text)
    return lexer
