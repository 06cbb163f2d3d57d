"""Stage 4, expressions: JSON text in and out, as jq prints and reads it.

Rules: a number prints as the double it is, in the shortest text that reads back, which has at most 17 digits; an
integral one has no fraction, and no exponent as long as it takes at most 15 zeros. nan prints as null, infinities as
the largest double. Objects keep their insertion order. Work is charged to the step
budget.
"""

cimport cython
from libc.math cimport INFINITY, NAN, isinf, isnan, signbit

from json.encoder import encode_basestring as _quote


cdef str number_text(object value):
    cdef double number
    if type(value) is int and is_exact(value):
        return str(value)
    number = to_double(value)
    charge(20)
    if isnan(number):
        return "null"
    if isinf(number):
        return "1.7976931348623157e+308" if number > 0 else "-1.7976931348623157e+308"
    if number == 0.0:
        return "-0" if signbit(number) else "0"
    return shortest_text(number)


cdef str shortest_text(double number):
    """The shortest digits in jq's layout: plain from 1e-4 up to 15 digits past the shortest, else exponential."""
    cdef str text = repr(number)
    cdef str sign = ""
    cdef str mantissa, fraction, digits
    cdef int point, exponent = 0
    if text[0] == "-":
        sign = "-"
        text = text[1:]
    mantissa, _, tail = text.partition("e")
    if tail:
        exponent = int(tail)
    mantissa, _, fraction = mantissa.partition(".")
    point = len(mantissa) + exponent
    digits = mantissa + fraction
    stripped = digits.lstrip("0")
    point -= len(digits) - len(stripped)
    digits = stripped.rstrip("0")
    if point <= -4 or point > len(digits) + 15:
        exponent = point - 1
        head = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{head}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{sign}{digits}{'0' * (point - len(digits))}"
    return f"{sign}{digits[:point]}.{digits[point:]}"


cdef str quoted(str text):
    cdef str result
    charge(1 + (len(text) >> 3))
    result = _quote(text)
    return result.replace("\x7f", "\\u007f") if "\x7f" in result else result


cdef int dump_parts(list parts, object value, int depth, Py_ssize_t* room) except -1:
    """Appends a value's JSON to `parts` while there is `room` for it."""
    cdef Kind kind = kind_of(value)
    cdef str part
    charge(3)
    if depth > VALUE_DEPTH_MAX:
        part = "<skipped: too deep>"
    elif kind == K_STRING:
        # What does not fit need not be quoted to see that.
        part = quoted(<str>value if len(<str>value) <= room[0] else (<str>value)[: max(room[0], 0) + 1])
    elif kind == K_NUMBER:
        part = number_text(value)
    elif kind == K_ARRAY or kind == K_OBJECT:
        return dump_container(parts, value, kind, depth, room)
    else:
        part = "null" if kind == K_NULL else ("true" if kind == K_TRUE else "false")
    room[0] -= len(part)
    parts.append(part)
    return 0


cdef int dump_container(list parts, object value, Kind kind, int depth, Py_ssize_t* room) except -1:
    cdef bint first = True
    room[0] -= 2
    if kind == K_ARRAY:
        parts.append("[")
        for item in <list>value:
            if room[0] < 0:
                return 0
            if not first:
                parts.append(",")
            first = False
            dump_parts(parts, item, depth + 1, room)
            room[0] -= 1
        parts.append("]")
        return 0
    parts.append("{")
    for key, item in (<dict>value).items():
        if room[0] < 0:
            return 0
        charge(2)
        if not first:
            parts.append(",")
        first = False
        part = quoted(<str>key if len(<str>key) <= room[0] else (<str>key)[: room[0] + 1])
        parts.append(part)
        parts.append(":")
        room[0] -= len(part) + 2
        dump_parts(parts, item, depth + 1, room)
    parts.append("}")
    return 0


cdef str dump_text_bounded(object value, Py_ssize_t room):
    cdef list parts = []
    dump_parts(parts, value, 0, &room)
    return "".join(parts)


cdef str dump_text(object value):
    cdef list parts = []
    cdef Py_ssize_t room = running().bounds.string_size
    dump_parts(parts, value, 0, &room)
    if room < 0:
        raise BudgetExceeded("expression built a string that is too long")
    return sized("".join(parts))


cdef inline str text_of(object value):
    """What `tostring` gives."""
    if type(value) is str:
        return <str>value
    if type(value) is int and is_exact(value):
        return str(value)
    return dump_text(value)


# --- numbers in text ---

cdef object parse_number(str text):
    """An int or float of JSON number text (leading `+`, `.5` and `5.` included), or None."""
    cdef Py_ssize_t i, size = len(text)
    cdef Py_UCS4 c
    cdef bint integral = True
    cdef bint digit = False
    charge(2 + (size >> 3))
    for i in range(size):
        c = text[i]
        if c >= 48 and c <= 57:
            digit = True
        elif c == 46 or c == 101 or c == 69:
            integral = False
            if c != 46 and not digit:
                return None
        elif c == 43 or c == 45:
            if i != 0 and text[i - 1] not in "eE":
                return None
        else:
            return None
    if not digit:
        return None
    if integral:
        # Python refuses to read integers of thousands of digits in one go; such a literal is a double to us.
        if size < 300:
            return int(text) if text != "-0" else from_double(-0.0)
    try:
        return from_double(float(text))
    except ValueError:
        return None


cdef object parse_special(str text):
    """nan and the infinities as jq reads them in JSON text, or None."""
    cdef str name = text.lower()
    cdef bint negative = name.startswith("-")
    if negative or name.startswith("+"):
        name = name[1:]
    if name == "nan":
        return from_double(NAN)
    if name == "infinity" or name == "inf":
        return from_double(-INFINITY if negative else INFINITY)
    return None


# --- JSON text to values ---

@cython.internal
@cython.final
cdef class JsonReader:
    """Reads one JSON value the way jq's incremental parser does, with its messages and positions."""

    cdef str text
    cdef Py_ssize_t position, token_start
    cdef list stack
    cdef object value, result
    cdef bint has_value, found

    cdef object read(self, str text):
        cdef Py_ssize_t size = len(text)
        cdef Py_UCS4 c
        self.text = text
        self.stack = []
        self.has_value = False
        self.found = False
        self.token_start = -1
        charge(size >> 2)
        while self.position < size:
            c = text[self.position]
            if c == 34:
                self.finish_literal(False)
                self.read_string()
            elif c == 32 or c == 9 or c == 13 or c == 10:
                self.finish_literal(False)
            elif c in "[]{}:,":
                self.finish_literal(False)
                self.take_result()
                self.structure(c)
            elif self.token_start < 0:
                self.token_start = self.position
            self.position += 1
            self.take_result()
        self.finish_literal(True)
        if self.stack:
            self.refuse("Unfinished JSON term", True)
        self.take_result()
        if not self.found:
            raise ExpressionError("Expected JSON value (while parsing '" + self.text + "')")
        return self.result

    cdef int take_result(self) except -1:
        """A value that stands in nothing else is the result, and the only one."""
        if self.has_value and not self.stack and self.token_start < 0:
            if self.found:
                raise ExpressionError(f"Unexpected extra JSON values (while parsing '{self.text}')")
            self.found = True
            self.result = self.value
            self.has_value = False
        return 0

    cdef object refuse(self, str message, bint at_end):
        """Lines count from 1, columns in bytes of UTF-8 up to and with the character at the position."""
        cdef str before = self.text[: self.position + 1]
        cdef Py_ssize_t line = before.count("\n") + 1
        cdef Py_ssize_t column = len(before[before.rfind("\n") + 1 :].encode("utf-8", "surrogatepass"))
        where = " at EOF" if at_end else ""
        check_string(len(self.text))
        text = self.text.partition("\0")[0]
        raise ExpressionError(f"{message}{where} at line {line}, column {column} (while parsing '{text}')")

    cdef int put(self, object value) except -1:
        charge(4)
        if self.has_value:
            self.refuse("Expected separator between values", False)
        self.value = value
        self.has_value = True
        return 0

    cdef int finish_literal(self, bint at_end) except -1:
        cdef str token
        cdef object value
        if self.token_start < 0:
            return 0
        token = self.text[self.token_start : self.position]
        self.token_start = -1
        if token == "true" or token == "false":
            value = token == "true"
        elif token == "null":
            value = None
        else:
            value = parse_number(token)
            if value is None:
                value = parse_special(token)
            if value is None:
                if token[0] == "'":
                    self.refuse("Invalid string literal; expected \", but got '", at_end)
                self.refuse("Invalid literal" if token[0] in "tfn" else "Invalid numeric literal", at_end)
        return self.put(value)

    cdef int read_string(self) except -1:
        cdef Py_ssize_t size = len(self.text)
        cdef Py_ssize_t start = self.position + 1
        cdef Py_ssize_t i = start
        cdef Py_UCS4 c
        cdef bint escaped = False
        cdef bint plain = True
        while True:
            if i >= size:
                self.position = size
                self.refuse("Unfinished string", True)
            c = self.text[i]
            if c == 34:
                break
            if c < 32:
                plain = False
            if c == 92:
                escaped = True
                i += 1
            i += 1
        raw = self.text[start:i]
        self.position = i
        text = (unescape(raw) if escaped else raw) if plain else None
        if text is None:
            self.refuse(string_problem(raw), False)
        return self.put(text)

    cdef int structure(self, Py_UCS4 c) except -1:
        charge(3)
        if c == 91 or c == 123:
            if len(self.stack) >= VALUE_DEPTH_MAX:
                self.refuse("Exceeds depth limit for parsing", False)
            if self.has_value:
                self.refuse("Expected separator between values", False)
            self.stack.append([] if c == 91 else {})
        elif c == 58:
            if not self.has_value:
                self.refuse("Expected string key before ':'", False)
            if type(self.stack[len(self.stack) - 1]) is not dict:
                self.refuse("':' not as part of an object", False)
            if type(self.value) is not str:
                self.refuse("Object keys must be strings", False)
            self.stack.append(self.value)
            self.has_value = False
        elif c == 44:
            if not self.has_value:
                self.refuse("Expected value before ','", False)
            self.attach()
        else:
            self.close(c)
        return 0

    cdef int attach(self) except -1:
        """Puts the pending value where it belongs."""
        cdef object top = self.stack[len(self.stack) - 1]
        if type(top) is list:
            (<list>top).append(self.value)
        elif type(top) is str:
            self.stack.pop()
            (<dict>self.stack[len(self.stack) - 1])[top] = self.value
        else:
            self.refuse("Objects must consist of key:value pairs", False)
        self.has_value = False
        self.value = None
        return 0

    cdef int close(self, Py_UCS4 c) except -1:
        cdef object top = self.stack[len(self.stack) - 1] if self.stack else None
        if c == 93:
            if type(top) is not list:
                self.refuse("Unmatched ']'", False)
            if self.has_value:
                self.attach()
            elif top:
                self.refuse("Expected another array element", False)
        else:
            if top is None:
                self.refuse("Unmatched '}'", False)
            if self.has_value and type(top) is list:
                self.refuse("Objects must consist of key:value pairs", False)
            if self.has_value:
                self.attach()
            elif type(top) is not dict:
                self.refuse("Unmatched '}'", False)
            elif top:
                self.refuse("Expected another key-value pair", False)
        self.value = self.stack.pop()
        self.has_value = True
        return 0


cdef dict SIMPLE_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "/": "/"}


cdef object unescape(str raw):
    """The text of a JSON string's inside, lone low surrogates replaced; None for an escape JSON does not have."""
    cdef list parts = []
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t size = len(raw)
    cdef Py_ssize_t next_escape
    cdef long code, low
    while True:
        charge(10)
        next_escape = raw.find("\\", i)
        if next_escape < 0:
            parts.append(raw[i:])
            return "".join(parts)
        parts.append(raw[i:next_escape])
        i = next_escape + 1
        if i >= size:
            return None
        if raw[i] != "u":
            simple = SIMPLE_ESCAPES.get(raw[i])
            if simple is None:
                return None
            parts.append(simple)
            i += 1
            continue
        code = hex4(raw, i + 1)
        if code < 0:
            return None
        i += 5
        if 0xD800 <= code < 0xDC00:
            low = hex4(raw, i + 2) if raw[i : i + 2] == "\\u" else -1
            if not 0xDC00 <= low < 0xE000:
                return None
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
            i += 6
        parts.append("\ufffd" if 0xD800 <= code < 0xE000 else chr(code))


cdef str string_problem(str raw):
    """What is wrong with a JSON string's inside, in jq's words."""
    cdef Py_ssize_t i = 0
    cdef long code, low
    while i < len(raw):
        if raw[i] < " ":
            return "Invalid string: control characters from U+0000 through U+001F must be escaped"
        if raw[i] != "\\":
            i += 1
        elif raw[i + 1 : i + 2] in SIMPLE_ESCAPES:
            i += 2
        elif raw[i + 1 : i + 2] != "u":
            return "Invalid escape"
        else:
            code = hex4(raw, i + 2)
            if code < 0:
                return "Invalid \\uXXXX escape" if len(raw) < i + 6 else "Invalid characters in \\uXXXX escape"
            i += 6
            if 0xD800 <= code < 0xDC00:
                low = hex4(raw, i + 2) if raw[i : i + 2] == "\\u" else -1
                if not 0xDC00 <= low < 0xE000:
                    return "Invalid \\uXXXX\\uXXXX surrogate pair escape"
                i += 6
    return "Invalid escape"


cdef long hex4(str raw, Py_ssize_t start) except -2:
    cdef str digits = raw[start : start + 4]
    if len(digits) != 4:
        return -1
    for c in digits:
        if c not in "0123456789abcdefABCDEF":
            return -1
    return int(digits, 16)


cdef object parse_json(str text):
    return JsonReader().read(text)
