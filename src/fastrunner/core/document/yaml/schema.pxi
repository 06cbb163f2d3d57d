"""Stage 2, compile: the values of plain scalars, by the core schema of YAML 1.2.

Rules: what the schema names is null, a boolean or a number; all other text is itself: `on` and `yes` are strings,
timestamps are strings, `<<` is a key like any other, numbers have no underscores. Integers beyond 64 bits become
floats, as orjson reads them.
"""

cdef object NOT_JSON = object()
cdef dict CORE_WORDS = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    ".nan": NOT_JSON, ".NaN": NOT_JSON, ".NAN": NOT_JSON,
    ".inf": NOT_JSON, ".Inf": NOT_JSON, ".INF": NOT_JSON,
    "+.inf": NOT_JSON, "+.Inf": NOT_JSON, "+.INF": NOT_JSON,
    "-.inf": NOT_JSON, "-.Inf": NOT_JSON, "-.INF": NOT_JSON,
}


cdef object core_scalar(str text):
    """The value of a plain scalar in the core schema; NOT_JSON for infinity, NaN and numbers beyond a double."""
    cdef Py_ssize_t size = len(text)
    cdef Py_UCS4 first
    if size == 0:
        return None
    first = text[0]
    if u"0" <= first <= u"9" or first == u"-" or first == u"+":
        return CORE_WORDS[text] if size <= 5 and text in CORE_WORDS else core_number(text, size)
    if first == u".":
        return CORE_WORDS[text] if text in CORE_WORDS else core_number(text, size)
    if size <= 5 and first in u"ntfNTF~":
        return CORE_WORDS.get(text, text)
    return text


cdef object core_number(str text, Py_ssize_t size):
    """Octal, hexadecimal, decimal and float literals; any other text stays text."""
    cdef Py_ssize_t at = 0, whole, fraction = 0
    cdef bint integral = True
    cdef object value
    if size > 2 and text[0] == u"0" and (text[1] == u"o" or text[1] == u"x"):
        return based_number(text, size)
    if text[0] == u"-" or text[0] == u"+":
        at = 1
    whole = digits_end(text, at, size) - at
    at += whole
    if at < size and text[at] == u".":
        integral = False
        at += 1
        fraction = digits_end(text, at, size) - at
        at += fraction
    if whole + fraction == 0:
        return text
    if at < size and (text[at] == u"e" or text[at] == u"E"):
        integral = False
        at += 1
        if at < size and (text[at] == u"-" or text[at] == u"+"):
            at += 1
        whole = digits_end(text, at, size)
        if whole == at:
            return text
        at = whole
    if at < size:
        return text
    value = number_value(text, integral)
    return NOT_JSON if value is None else value


cdef Py_ssize_t digits_end(str text, Py_ssize_t at, Py_ssize_t size) noexcept:
    while at < size and u"0" <= text[at] <= u"9":
        at += 1
    return at


cdef object based_number(str text, Py_ssize_t size):
    cdef int base = 8 if text[1] == u"o" else 16
    cdef Py_ssize_t i
    cdef object value
    for i in range(2, size):
        if not 0 <= hex_digit(text[i]) < base:
            return text
    value = int(text[2:], base)
    if value <= 0xFFFFFFFFFFFFFFFF:
        return value
    return float(value) if size < 250 else NOT_JSON
