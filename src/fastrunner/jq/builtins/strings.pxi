"""Stage 4, expressions: builtins over strings, and the @formats."""

from libc.math cimport isnan

import base64 as _base64
import binascii as _binascii
from urllib.parse import quote as _percent_encode

cdef str SPACE = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a" \
    "\u2028\u2029\u202f\u205f\u3000"


cdef object f_tostring(object input, object a, object b, object c):
    return text_of(input)


cdef object f_tojson(object input, object a, object b, object c):
    return dump_text(input)


cdef object f_fromjson(object input, object a, object b, object c):
    if type(input) is not str:
        return type_error(input, "only strings can be parsed")
    return parse_json(<str>input)


cdef object f_tonumber(object input, object a, object b, object c):
    cdef object number
    if is_number(input):
        return input
    if type(input) is str:
        number = parse_number(<str>input)
        if number is None:
            number = parse_special(<str>input)
        if number is not None:
            return number
    return type_error(input, "cannot be parsed as a number")


cdef object f_toboolean(object input, object a, object b, object c):
    if input is True or input is False:
        return input
    if type(input) is str and (input == "true" or input == "false"):
        return input == "true"
    return type_error(input, "cannot be parsed as a boolean")


cdef object f_utf8bytelength(object input, object a, object b, object c):
    if type(input) is not str:
        return type_error(input, "only strings have UTF-8 byte length")
    charge(len(<str>input) >> 4)
    return len((<str>input).encode("utf-8", "surrogatepass"))


cdef object f_startswith(object input, object a, object b, object c):
    if type(input) is not str or type(a) is not str:
        fail("startswith() requires string inputs")
    charge_text(<str>a)
    return (<str>input).startswith(<str>a)


cdef object f_endswith(object input, object a, object b, object c):
    if type(input) is not str or type(a) is not str:
        fail("endswith() requires string inputs")
    charge_text(<str>a)
    return (<str>input).endswith(<str>a)


cdef object f_ltrimstr(object input, object a, object b, object c):
    return sized((<str>input)[len(<str>a):]) if f_startswith(input, a, b, c) else input


cdef object f_rtrimstr(object input, object a, object b, object c):
    return sized((<str>input)[: len(<str>input) - len(<str>a)]) if f_endswith(input, a, b, c) else input


cdef object f_trimstr(object input, object a, object b, object c):
    return f_rtrimstr(f_ltrimstr(input, a, b, c), a, b, c)


cdef str trimmed(object input):
    if type(input) is not str:
        raise ExpressionError("trim input must be a string")
    charge(1 + (len(<str>input) >> 2))
    return <str>input


cdef object f_trim(object input, object a, object b, object c):
    return trimmed(input).strip(SPACE)


cdef object f_ltrim(object input, object a, object b, object c):
    return trimmed(input).lstrip(SPACE)


cdef object f_rtrim(object input, object a, object b, object c):
    return trimmed(input).rstrip(SPACE)


cdef object f_explode(object input, object a, object b, object c):
    if type(input) is not str:
        fail("explode input must be a string")
    check_array(len(<str>input))
    charge(2 * len(<str>input))
    return [ord(point) for point in <str>input]


cdef object f_implode(object input, object a, object b, object c):
    cdef list points = []
    cdef double number
    cdef long code
    if type(input) is not list:
        fail("implode input must be an array")
    charge(4 * len(<list>input))
    for value in <list>input:
        if not is_number(value) or isnan(to_double(value)):
            type_error(value, "can't be imploded, unicode codepoint needs to be numeric")
        number = to_double(value)
        code = 0xFFFD if number <= -1 or number > 0x10FFFF else <long>number
        points.append(chr(0xFFFD if 0xD800 <= code <= 0xDFFF else code))
    return sized("".join(points))


cdef object f_ascii(object input, object a, object b, object c):
    if not is_number(input) or not 0 <= to_double(input) <= 127:
        return type_error(input, "is no ASCII code")
    return chr(<int>to_double(input))


cdef object ascii_case(object input, int first, int shift):
    cdef Py_ssize_t i
    if type(input) is not str:
        fail(f"{'ascii_downcase' if shift > 0 else 'ascii_upcase'} input must be a string")
    if (<str>input).isascii():
        charge(1 + (len(<str>input) >> 3))
        return (<str>input).lower() if shift > 0 else (<str>input).upper()
    charge(100 + 4 * len(<str>input))
    return (<str>input).translate({i: i + shift for i in range(first, first + 26)})


cdef object f_ascii_downcase(object input, object a, object b, object c):
    return ascii_case(input, 65, 32)


cdef object f_ascii_upcase(object input, object a, object b, object c):
    return ascii_case(input, 97, -32)


cdef object f_split(object input, object a, object b, object c):
    if type(input) is not str or type(a) is not str:
        fail("split input and separator must be strings")
    return split_string(<str>input, <str>a)


cdef object f_join(object input, object a, object b, object c):
    """A join that only strings, numbers, booleans and nulls take part in; errors are those of adding step by step."""
    cdef list parts = []
    cdef list values = elements(input)
    if not values:
        return ""
    if type(a) is not str:
        return join_by_adding(values, a)
    for value in values:
        charge(3)
        if type(value) is str:
            parts.append(value)
        elif value is None:
            parts.append("")
        elif type(value) is bool or is_number(value):
            parts.append(dump_text(value))
        else:
            return type_error2(joined(parts, <str>a) + (<str>a if parts else ""), value, "cannot be added")
    return joined(parts, <str>a)


cdef object join_by_adding(list values, object separator):
    cdef object total = None
    for value in values:
        charge(1)
        if type(value) is bool or is_number(value):
            value = dump_text(value)
        elif not truthy(value):
            value = ""
        total = add("" if total is None else add(total, separator), value)
    return total if truthy(total) else ""


cdef object f_strindices(object input, object a, object b, object c):
    cdef list result = []
    cdef Py_ssize_t at
    if type(input) is not str:
        return type_error(input, "cannot be searched, as it is not a string")
    if type(a) is not str:
        return type_error(a, "is not a string")
    if not a:
        return result
    charge_search(len(<str>input), len(<str>a))
    at = (<str>input).find(<str>a)
    while at >= 0:
        # Finding the next one costs at least a look at the whole text wanted.
        charge(4 + (len(<str>a) >> 3))
        check_length(result)
        result.append(at)
        at = (<str>input).find(<str>a, at + 1)
    return result


cdef int check_length(list values) except -1:
    """Before an element is appended."""
    if len(values) >= running().bounds.array_size:
        raise BudgetExceeded("expression built an array that is too long")
    return 0


cdef object f_indices(object input, object a, object b, object c):
    if type(input) is str and type(a) is str:
        return f_strindices(input, a, b, c)
    if type(input) is list:
        if type(a) is list:
            return indices_of_list(<list>input, <list>a)
        return indices_of_list(<list>input, [a])
    return index_value(input, a)


cdef object f_index(object input, object a, object b, object c):
    return index_value(f_indices(input, a, b, c), 0)


cdef object f_rindex(object input, object a, object b, object c):
    return index_value(slice_value(f_indices(input, a, b, c), -1, None), 0)


cdef object f_format(object input, object a, object b, object c):
    if type(a) is not str:
        return type_error(a, "is not a valid format")
    return format_value(<str>a, input)


# --- formats ---

cdef dict TSV_ESCAPES = {9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}


cdef str format_value(str name, object value):
    cdef str text
    if name == "text":
        return text_of(value)
    if name == "json":
        return dump_text(value)
    if name == "csv" or name == "tsv":
        return format_row(value, name)
    if name == "sh":
        return format_shell(value)
    text = text_of(value)
    charge(4 + (len(text) >> 4))
    if name == "html":
        return format_html(text)
    if name == "uri":
        charge(6 * len(text))
        return sized(_percent_encode(text.encode("utf-8", "surrogatepass"), safe="-_.~"))
    if name == "urid":
        charge(4 * len(text))
        return format_unquote(text)
    if name == "base64":
        return sized(_binascii.b2a_base64(text.encode("utf-8", "surrogatepass"), newline=False).decode("ascii"))
    if name == "base64d":
        charge(6 * len(text))
        return format_unbase64(text)
    if name == "base32" or name == "base32d":
        charge(8 * len(text))
    if name == "base32":
        return sized(_base64.b32encode(text.encode("utf-8", "surrogatepass")).decode("ascii"))
    if name == "base32d":
        return format_unbase32(text)
    raise ExpressionError(f"{name} is not a valid format")


cdef str format_html(str text):
    cdef int code
    cdef double size = len(text)
    charge(len(text) >> 1)
    for code in (60, 62, 38, 39, 34):
        size += 5 * text.count(chr(code))
    check_string(size)
    if size == len(text):
        return text
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("'", "&apos;").replace('"', "&quot;")


cdef str format_row(object value, str name):
    cdef list cells = []
    cdef bint csv = name == "csv"
    if type(value) is not list:
        type_error(value, f"cannot be {name}-formatted, only array")
    for item in <list>value:
        charge(4)
        if item is True or item is False:
            cells.append("true" if item else "false")
        elif item is None:
            cells.append("")
        elif is_number(item):
            cells.append("" if to_double(item) != to_double(item) else number_text(item))
        elif type(item) is str:
            charge(len(<str>item) >> 2 if csv else 4 * len(<str>item))
            cells.append('"' + (<str>item).replace('"', '""') + '"' if csv else (<str>item).translate(TSV_ESCAPES))
        else:
            # jq says csv of both.
            type_error(item, "is not valid in a csv row")
    return joined(cells, "," if csv else "\t")


cdef str format_shell(object value):
    cdef list words = []
    for item in (<list>value if type(value) is list else [value]):
        charge(4)
        if type(item) is list or type(item) is dict:
            type_error(item, "can not be escaped for shell")
        words.append(shell_word(<str>item) if type(item) is str else dump_text(item))
    return joined(words, " ")


cdef str shell_word(str text):
    charge(len(text) >> 2)
    check_string(len(text) + 3.0 * text.count("'"))
    return "'" + text.replace("'", "'\\''") + "'"


cdef str format_unquote(str text):
    cdef bytearray raw = bytearray()
    cdef bytes data = text.encode("utf-8", "surrogatepass")
    cdef Py_ssize_t i = 0
    while i < len(data):
        if data[i] == 37:
            try:
                raw.append(int(data[i + 1 : i + 3].decode("ascii"), 16))
            except ValueError:
                type_error(text, "is not a valid uri encoding")
            if i + 3 > len(data) or data[i + 1] in b"+-_ ":
                type_error(text, "is not a valid uri encoding")
            i += 3
        else:
            raw.append(data[i])
            i += 1
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return <str>type_error(text, "is not a valid uri encoding")


cdef str format_unbase64(str text):
    # The first padding ends the data.
    cdef str body = text.partition("=")[0]
    if body.translate(BASE64_DIGITS):
        type_error(text, "is not valid base64 data")
    if len(body) % 4 == 1:
        type_error(text, "trailing base64 byte found")
    return decode_leniently(_binascii.a2b_base64(body + "=" * (-len(body) % 4)))


cdef dict BASE64_DIGITS = dict.fromkeys(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")


cdef str decode_leniently(bytes data):
    """UTF-8 as jq reads it: one replacement per sequence that is broken, cut short, overlong or out of range."""
    cdef list parts = []
    cdef Py_ssize_t i = 0
    cdef Py_ssize_t size = len(data)
    cdef Py_ssize_t length, count
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    charge(8 * size)
    while i < size:
        length = sequence_length(data[i])
        count = 1
        if i + length > size:
            count = length = size - i
            if length > 1 or data[i] >= 128:
                parts.append("\ufffd")
                i += length
                continue
        while count < length and 0x80 <= data[i + count] <= 0xBF:
            count += 1
        parts.append(data[i : i + count].decode("utf-8", "ignore") or "\ufffd")
        i += count
    return "".join(parts)


cdef Py_ssize_t sequence_length(int first):
    if first < 0xC2 or first > 0xF4:
        return 1
    return 2 if first < 0xE0 else (3 if first < 0xF0 else 4)


cdef str format_unbase32(str text):
    cdef str body = text.rstrip("=")
    try:
        return decode_leniently(_base64.b32decode(body + "=" * (-len(body) % 8)))
    except ValueError:
        return <str>type_error(text, "is not valid base32 data")
