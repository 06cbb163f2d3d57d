"""Stage 2, compile: the JSON scanner.

Rules: RFC 8259 exactly, no extensions. Integers beyond 64 bits become floats, as orjson reads them; numbers that no
float can hold are refused. Positions are only kept when asked for. Recursion is bounded by DEPTH_MAX.
"""

cimport cython

from cpython.object cimport PyObject

cdef extern from "Python.h":
    int PyUnicode_KIND(object text) noexcept
    void* PyUnicode_DATA(object text) noexcept
    Py_UCS4 PyUnicode_READ(int kind, void* data, Py_ssize_t index) noexcept
    object PyUnicode_Substring(object text, Py_ssize_t start, Py_ssize_t end)


class _JsonSyntaxError(Exception):
    """Text that is no JSON; may still be YAML."""

    def __init__(self, line, column, message):
        super().__init__(message)
        self.line = line
        self.column = column
        self.message = message
        self.is_bare_key = False


@cython.internal
@cython.final
cdef class JsonScanner:
    cdef str text
    cdef int kind
    cdef void* data
    cdef Py_ssize_t size
    cdef Py_ssize_t at
    cdef Py_ssize_t line
    cdef Py_ssize_t line_start
    cdef Py_ssize_t nodes
    cdef bint marked
    cdef list problems
    cdef Mark mark

    cdef int open(self, str text, bint marked) except -1:
        self.text = text
        self.kind = PyUnicode_KIND(text)
        self.data = PyUnicode_DATA(text)
        self.size = len(text)
        self.line = 1
        self.marked = marked
        self.problems = []
        return 0

    cdef object document(self):
        """The one value of the text. Raises _JsonSyntaxError, InvalidWorkflow."""
        cdef object value
        self.space()
        self.mark = self.new_mark()
        value = self.value(NULL, 0, self.mark)
        self.space()
        if self.at < self.size:
            raise self.expected("the end of the document")
        return value

    cdef inline Py_UCS4 peek(self) noexcept:
        return PyUnicode_READ(self.kind, self.data, self.at) if self.at < self.size else 0

    cdef inline void space(self) noexcept:
        cdef Py_UCS4 character
        while self.at < self.size:
            character = PyUnicode_READ(self.kind, self.data, self.at)
            if character == u"\n":
                self.line += 1
                self.line_start = self.at + 1
            elif character != u" " and character != u"\r" and character != u"\t":
                return
            self.at += 1

    cdef object expected(self, str what):
        cdef str found = f"found {shown(chr(self.peek()))}" if self.at < self.size else "the text ends"
        return _JsonSyntaxError(self.line, self.at - self.line_start + 1, f"JSON: expected {what}, {found}")

    cdef Mark new_mark(self):
        cdef Mark mark
        if not self.marked:
            return None
        mark = Mark.__new__(Mark)
        mark.line = self.line
        mark.column = self.at - self.line_start + 1
        return mark

    cdef object value(self, Path* path, Py_ssize_t depth, Mark mark):
        cdef Py_UCS4 character = self.peek()
        self.nodes += 1
        if self.nodes > NODES_MAX:
            raise too_many_values(self.line, self.at - self.line_start + 1)
        if character == u'"':
            return self.string()
        if character == u"{" or character == u"[":
            if depth >= DEPTH_MAX:
                raise too_deep(self.line, self.at - self.line_start + 1)
            return self.object_(path, depth, mark) if character == u"{" else self.array(path, depth, mark)
        if character == u"-" or u"0" <= character <= u"9":
            return self.number()
        if self.literal("true"):
            return True
        if self.literal("false"):
            return False
        if self.literal("null"):
            return None
        raise self.expected("a value (object, array, string, number, true, false or null)")

    cdef bint literal(self, str word):
        cdef Py_ssize_t length = len(word), i
        if self.at + length > self.size:
            return False
        for i in range(length):
            if PyUnicode_READ(self.kind, self.data, self.at + i) != word[i]:
                return False
        self.at += length
        return True

    cdef dict object_(self, Path* path, Py_ssize_t depth, Mark mark):
        cdef dict members = {}
        cdef Path inner
        cdef Py_ssize_t key_line, key_column
        cdef Mark member
        cdef str key
        inner.parent = path
        inner.index = 0
        if mark is not None:
            mark.members = {}
        self.at += 1
        self.space()
        if self.peek() == u"}":
            self.at += 1
            return members
        while True:
            if self.peek() != u'"':
                raise self.key_error()
            key_line = self.line
            key_column = self.at - self.line_start + 1
            key = self.string()
            inner.key = <PyObject*>key
            if key in members and len(self.problems) < PROBLEMS_MAX:
                self.problems.append(duplicate_key(key, &inner, key_line, key_column))
            if len(key) > KEY_SIZE_MAX:
                raise key_too_long(key, key_line, key_column)
            self.space()
            if self.peek() != u":":
                raise self.expected("':' after a key")
            self.at += 1
            self.space()
            member = self.new_mark()
            members[key] = self.value(&inner, depth + 1, member)
            if member is not None:
                member.key_line = key_line
                member.key_column = key_column
                mark.members[key] = member
            self.space()
            if self.peek() == u"}":
                self.at += 1
                return members
            if self.peek() != u",":
                raise self.expected("',' or '}' after a member")
            self.at += 1
            self.space()

    cdef object key_error(self):
        cdef object error = self.expected("a key in double quotes")
        cdef Py_UCS4 character = self.peek()
        error.is_bare_key = u"a" <= character <= u"z" or u"A" <= character <= u"Z"
        return error

    cdef list array(self, Path* path, Py_ssize_t depth, Mark mark):
        cdef list items = []
        cdef Path inner
        cdef Mark item
        inner.parent = path
        inner.key = NULL
        inner.index = 0
        if mark is not None:
            mark.items = []
        self.at += 1
        self.space()
        if self.peek() == u"]":
            self.at += 1
            return items
        while True:
            item = self.new_mark()
            items.append(self.value(&inner, depth + 1, item))
            if item is not None:
                mark.items.append(item)
            inner.index += 1
            self.space()
            if self.peek() == u"]":
                self.at += 1
                return items
            if self.peek() != u",":
                raise self.expected("',' or ']' after an item")
            self.at += 1
            self.space()

    cdef str string(self):
        cdef Py_ssize_t start = self.at + 1, i = self.at + 1
        cdef Py_UCS4 character
        while i < self.size:
            character = PyUnicode_READ(self.kind, self.data, i)
            if character == u'"':
                self.at = i + 1
                return PyUnicode_Substring(self.text, start, i)
            if character == u"\\":
                return self.escaped_string(start, i)
            if character < 0x20:
                self.at = i
                raise self.expected("an escape such as \\n for a control character in a string")
            i += 1
        self.at = self.size
        raise self.expected("a closing '\"'")

    cdef str escaped_string(self, Py_ssize_t start, Py_ssize_t i):
        """The rest of a string from its first backslash at `i`."""
        cdef list parts = [PyUnicode_Substring(self.text, start, i)]
        cdef Py_UCS4 character
        while True:
            self.at = i
            if i >= self.size:
                raise self.expected("a closing '\"'")
            character = PyUnicode_READ(self.kind, self.data, i)
            if character == u'"':
                self.at = i + 1
                return "".join(parts)
            if character < 0x20:
                raise self.expected("an escape such as \\n for a control character in a string")
            if character == u"\\":
                self.at = i + 1
                parts.append(self.escape())
                i = self.at
                continue
            start = i
            while i < self.size:
                character = PyUnicode_READ(self.kind, self.data, i)
                if character == u'"' or character == u"\\" or character < 0x20:
                    break
                i += 1
            parts.append(PyUnicode_Substring(self.text, start, i))

    cdef str escape(self):
        """One escape; `at` stands after the backslash."""
        cdef Py_UCS4 character = self.peek()
        cdef int high, low
        cdef Py_ssize_t index = '"\\/bfnrt'.find(character) if character else -1
        if index >= 0:
            self.at += 1
            return '"\\/\b\f\n\r\t'[index]
        if character != u"u":
            raise self.expected("one of \" \\ / b f n r t u after a backslash")
        high = self.hex4()
        if 0xDC00 <= high <= 0xDFFF:
            raise self.expected("a high surrogate before a low one")
        if high < 0xD800 or high > 0xDBFF:
            return chr(high)
        if self.peek() != u"\\":
            raise self.expected("a low surrogate (\\udc00 to \\udfff) after a high one")
        self.at += 1
        if self.peek() != u"u":
            raise self.expected("a low surrogate (\\udc00 to \\udfff) after a high one")
        low = self.hex4()
        if low < 0xDC00 or low > 0xDFFF:
            raise self.expected("a low surrogate (\\udc00 to \\udfff) after a high one")
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))

    cdef int hex4(self) except -1:
        """Four hexadecimal digits after `u`."""
        cdef int value = 0, digit, i
        for i in range(4):
            self.at += 1
            digit = hex_digit(self.peek())
            if digit < 0:
                raise self.expected("four hexadecimal digits after \\u")
            value = value * 16 + digit
        self.at += 1
        return value

    cdef inline bint digits(self) except -1:
        """Skips digits; says whether there was one."""
        cdef Py_ssize_t start = self.at
        while u"0" <= self.peek() <= u"9":
            self.at += 1
        return self.at > start

    cdef object number(self):
        cdef Py_ssize_t start = self.at
        cdef bint integral = True
        if self.peek() == u"-":
            self.at += 1
        if self.peek() == u"0":
            self.at += 1
        elif not self.digits():
            raise self.expected("a digit")
        if self.peek() == u".":
            integral = False
            self.at += 1
            if not self.digits():
                raise self.expected("a digit after the decimal point")
        if self.peek() == u"e" or self.peek() == u"E":
            integral = False
            self.at += 1
            if self.peek() == u"+" or self.peek() == u"-":
                self.at += 1
            if not self.digits():
                raise self.expected("a digit in the exponent")
        value = number_value(PyUnicode_Substring(self.text, start, self.at), integral)
        if value is None:
            raise number_out_of_range(self.line, start - self.line_start + 1)
        return value


cdef inline int hex_digit(Py_UCS4 character) noexcept:
    if u"0" <= character <= u"9":
        return <int>character - <int>u"0"
    if u"a" <= character <= u"f":
        return <int>character - <int>u"a" + 10
    if u"A" <= character <= u"F":
        return <int>character - <int>u"A" + 10
    return -1


cdef object number_value(str text, bint integral):
    """The number of a decimal literal; None when it fits neither 64 bits nor a float."""
    cdef object value
    if integral and len(text) <= 400:
        value = int(text)
        if -0x8000000000000000 <= value <= 0xFFFFFFFFFFFFFFFF:
            return value
    value = float(text)
    return value if -1.7976931348623157e308 <= value <= 1.7976931348623157e308 else None


cdef object number_out_of_range(Py_ssize_t line, Py_ssize_t column):
    return single_problem("invalid-scalar", line, column, "the number is too large for a double (about 1.8e308)")


cdef Problem duplicate_key(str key, Path* path, Py_ssize_t line, Py_ssize_t column):
    return Problem("duplicate-key", pointer_of(path), line, column,
                   f"the key {shown(key)} stands twice in one mapping; keep one")


cdef object key_too_long(str key, Py_ssize_t line, Py_ssize_t column):
    return single_problem("key-too-long", line, column,
                          f"the key has {len(key)} characters; the limit is {KEY_SIZE_MAX}")


cdef object too_deep(Py_ssize_t line, Py_ssize_t column):
    return single_problem("too-deep", line, column, f"values are nested more than {DEPTH_MAX} levels deep")


cdef object too_many_values(Py_ssize_t line, Py_ssize_t column):
    return single_problem("too-many-values", line, column,
                          f"the document has more than {NODES_MAX} values once aliases are expanded")
