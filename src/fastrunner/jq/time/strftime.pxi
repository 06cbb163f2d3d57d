"""Stage 4, expressions: times to text with the directives, flags and widths of strftime(3) in the C locale.

Rules: weekday and day of the year follow from the date, whatever the input says of them. What is no directive stays as
it is.
"""

# Directives that are other directives in a row.
cdef dict COMPOSED_DIRECTIVES = {
    "c": "%a %b %e %H:%M:%S %Y", "D": "%m/%d/%y", "F": "%Y-%m-%d", "R": "%H:%M", "r": "%I:%M:%S %p",
    "T": "%H:%M:%S", "x": "%m/%d/%y", "X": "%H:%M:%S",
}
cdef extern from "Python.h":
    str PyUnicode_FromStringAndSize(const char* text, Py_ssize_t size)

# Seconds from the epoch to the year 10000: years of four digits.
cdef long long PLAIN_SECONDS_END = 253_402_300_800
cdef Py_ssize_t DIRECTIVE_WIDTH_MAX = 1_000


cdef object format_time(object input, object format, str name, str zone):
    cdef list parts
    if is_number(input):
        input = gmtime(input, name)
    elif type(input) is not list:
        fail(f"{name} requires parsed datetime inputs")
    if type(format) is not str:
        fail(f"{name} requires a string format")
    parts = broken_down(<double>epoch_seconds(datetime_parts(input, name)))
    return formatted((<str>format).partition("\0")[0], parts, zone)


cdef str formatted(str format, list parts, str zone):
    cdef list out = []
    cdef Py_ssize_t i = 0
    while i < len(format):
        charge(4)
        if format[i] == "%":
            i = append_directive(out, format, i, parts, zone)
        else:
            out.append(format[i])
            i += 1
    return joined(out, "")


cdef Py_ssize_t append_directive(list out, str format, Py_ssize_t start, list parts, str zone) except -1:
    """Appends what the directive at `start` stands for and gives the position behind it."""
    cdef Py_ssize_t i = start + 1
    cdef Py_ssize_t size = len(format)
    cdef Py_ssize_t width = 0
    cdef str flags, c, text
    charge(60)
    while i < size and format[i] in "_-0^#":
        i += 1
    flags = format[start + 1 : i]
    while i < size and is_digit(format[i]):
        width = min(width * 10 + int(format[i]), DIRECTIVE_WIDTH_MAX)
        i += 1
    if i + 1 < size and format[i] in "EO":
        i += 1
    c = format[i : i + 1]
    number = number_directive(c, parts) if c else None
    if number is not None:
        text = padded(number[0], max(width, <Py_ssize_t>number[1]), flags, number[2])
    else:
        text = text_directive(c, parts, zone) if c else None
        if text is None:
            out.append(format[start : i + 1])
            return i + 1
        if "^" in flags or "#" in flags and c in "aAbBh":
            text = text.upper()
        elif "#" in flags and c in "pZ":
            text = text.lower()
        text = text.rjust(width, "0" if "0" in flags else " ")
    out.append(text)
    return i + 1


cdef str padded(long long number, Py_ssize_t width, str flags, str pad):
    cdef str digits = str(abs(number))
    cdef str sign = "-" if number < 0 else ""
    for flag in flags:
        if flag in "-_0":
            pad = flag
    if pad == "-":
        return sign + digits
    if pad == "0":
        return sign + digits.rjust(width - len(sign), "0")
    return (sign + digits).rjust(width)


cdef tuple number_directive(str c, list p):
    """A directive's number, least width and padding; None if it is no number."""
    cdef long long hour = p[3] % 12 or 12
    if c in "YmdHMSj":
        index, shift, width = {
            "Y": (0, 0, 1), "m": (1, 1, 2), "d": (2, 0, 2), "H": (3, 0, 2), "M": (4, 0, 2), "S": (5, 0, 2),
            "j": (7, 1, 3),
        }[c]
        return (int(p[index]) + shift, width, "0")
    if c in "ekl":
        return ({"e": p[2], "k": p[3], "l": hour}[c], 2, "_")
    if c in "Iy":
        return (hour if c == "I" else p[0] % 100, 2, "0")
    if c in "Cs":
        return (p[0] // 100 if c == "C" else epoch_seconds([*p[:5], int(p[5])]), 1, "0")
    if c in "uw":
        return (p[6] or (7 if c == "u" else 0), 1, "0")
    if c in "UW":
        return ((p[7] + 7 - (p[6] if c == "U" else (p[6] + 6) % 7)) // 7, 2, "0")
    if c in "GgV":
        year, week = iso_week(p)
        return (week, 2, "0") if c == "V" else ((year, 1, "0") if c == "G" else (year % 100, 2, "0"))
    return None


cdef tuple iso_week(list p):
    """Year and number of the week that holds the date's Thursday."""
    cdef long long thursday = days_from_civil(p[0], p[1] + 1, p[2]) + 3 - (p[6] + 6) % 7
    cdef long long year = civil_from_days(thursday)[0]
    return year, (thursday - days_from_civil(year, 1, 1)) // 7 + 1


cdef str text_directive(str c, list p, str zone):
    if c in COMPOSED_DIRECTIVES:
        return formatted(<str>COMPOSED_DIRECTIVES[c], p, zone)
    if c in "aA":
        return (<str>DAY_NAMES[p[6]])[: 3 if c == "a" else None]
    if c in "bBh":
        return (<str>MONTH_NAMES[p[1]])[: None if c == "B" else 3]
    return {
        "p": "PM" if p[3] >= 12 else "AM", "P": "pm" if p[3] >= 12 else "am", "Z": zone, "z": "+0000", "%": "%",
        "n": "\n", "t": "\t",
    }.get(c)


cdef object f_strftime(object input, object a, object b, object c):
    return format_time(input, a, "strftime/1", "GMT")


cdef object f_strflocaltime(object input, object a, object b, object c):
    return format_time(input, a, "strflocaltime/1", "UTC")


cdef str plain_date(long long seconds):
    """The date and time of a second from 1970 to 9999."""
    cdef char text[20]
    cdef long long year, month, day
    charge(15)
    civil(seconds // 86_400, &year, &month, &day)
    seconds %= 86_400
    put_digits(text, <int>(year // 100))
    put_digits(text + 2, <int>(year % 100))
    put_digits(text + 5, <int>month)
    put_digits(text + 8, <int>day)
    put_digits(text + 11, <int>(seconds // 3600))
    put_digits(text + 14, <int>(seconds // 60 % 60))
    put_digits(text + 17, <int>(seconds % 60))
    text[4] = text[7] = b"-"
    text[10] = b"T"
    text[13] = text[16] = b":"
    text[19] = b"Z"
    return PyUnicode_FromStringAndSize(text, 20)


cdef inline void put_digits(char* text, int number) noexcept:
    text[0] = <char>(48 + number // 10)
    text[1] = <char>(48 + number % 10)


cdef object f_todate(object input, object a, object b, object c):
    return date_text(input, "todate")


cdef object f_todateiso8601(object input, object a, object b, object c):
    return date_text(input, "todateiso8601")


cdef object f_date(object input, object a, object b, object c):
    return date_text(input, "date")


cdef object date_text(object input, str name):
    if type(input) is int and 0 <= input < PLAIN_SECONDS_END:
        return plain_date(input)
    if not is_number(input) and type(input) is not list:
        fail(f"{name} input must be a number of seconds since 1970, or a list of a date's parts")
    return format_time(input, "%Y-%m-%dT%H:%M:%SZ", name, "UTC")
