"""Stage 2, compile: the formats of strings: expressions in `${ }`, durations, URI templates, versions, names, times.

Rules: hand-written, because they run for every string of every cold document. Each format accepts exactly what the
official schema accepts unless the function says where and why it is stricter.
"""

from fastrunner.base.limits import DURATION_MS_MAX as _DURATION_MS_MAX

cdef long long DURATION_MS_MAX = _DURATION_MS_MAX
cdef dict DURATION_UNITS_MS = {
    "days": 86_400_000, "hours": 3_600_000, "minutes": 60_000, "seconds": 1_000, "milliseconds": 1,
}
# ISO 8601 leaves the length of years and months to a calendar; a duration here has no date to count from, so a year
# is 365 days and a month 30.
cdef tuple ISO_DATE_UNITS_MS = (("Y", 31_536_000_000), ("M", 2_592_000_000), ("W", 604_800_000), ("D", 86_400_000))
cdef tuple ISO_TIME_UNITS_MS = (("H", 3_600_000), ("M", 60_000), ("S", 1_000))
cdef str DURATION_TOO_LONG = "a duration is at most a thousand years"
cdef enum:
    BRACKETS_MAX = 512


# --- expressions ---

cdef Py_ssize_t closing_brace(str text, Py_ssize_t at, Py_ssize_t end) noexcept:
    """Index of the brace that closes the one before `at`, minding jq's strings, interpolations and comments; or -1."""
    cdef char[BRACKETS_MAX] open_brackets
    cdef int depth = 1
    cdef Py_UCS4 character
    open_brackets[0] = c"{"
    while at < end:
        character = text[at]
        if open_brackets[depth - 1] == c'"':
            if character == u'"':
                depth -= 1
            elif character == u"\\":
                at += 1
                if at < end and text[at] == u"(":
                    if depth == BRACKETS_MAX:
                        return -1
                    open_brackets[depth] = c"("
                    depth += 1
        elif character == u'"' or character == u"{" or character == u"(" or character == u"[":
            if depth == BRACKETS_MAX:
                return -1
            open_brackets[depth] = <char>character
            depth += 1
        elif character == u"}" or character == u")" or character == u"]":
            if open_brackets[depth - 1] != (c"{" if character == u"}" else c"(" if character == u")" else c"["):
                return -1
            depth -= 1
            if depth == 0:
                return at
        elif character == u"#":
            while at < end and text[at] != u"\n":
                at += 1
        at += 1
    return -1


cdef Py_ssize_t expression_start(str value) noexcept:
    """Index after the `${` a value opens with, white space aside; or -1."""
    cdef Py_ssize_t at = 0, end = len(value)
    while at < end and value[at].isspace():
        at += 1
    if at + 1 < end and value[at] == u"$" and value[at + 1] == u"{":
        return at + 2
    return -1


cdef object expression_text(str value):
    """The text within `${ }` if the whole value, white space aside, is one expression; else None."""
    cdef Py_ssize_t start = expression_start(value), end, close
    if start < 0:
        return None
    end = len(value)
    while value[end - 1].isspace():
        end -= 1
    close = closing_brace(value, start, end)
    if close < 0 or close != end - 1:
        return None
    return value[start:close].strip()


cdef bint is_wrapped(str value) noexcept:
    """The schema's pattern for expression-only fields: `${` ... `}` with something between and no line break in it."""
    cdef Py_ssize_t start = expression_start(value), end, at
    if start < 0:
        return False
    end = len(value)
    while value[end - 1].isspace():
        end -= 1
    if value[end - 1] != u"}" or end - 1 <= start:
        return False
    for at in range(start, end):
        if value[at] in (u"\n", u"\r", u"\u2028", u"\u2029"):
            return False
    return True


# --- durations ---

class DurationTooLong(ValueError):
    """A duration beyond its bound."""


cdef bint is_vast(object value) noexcept:
    """A number beyond what `is_integral` takes: integers of more than 64 bits are read as such."""
    return type(value) is float and not -9e15 < <double>value < 9e15


cdef bint is_integral(object value) noexcept:
    """JSON Schema's integer: an integral float is one, a boolean is none."""
    cdef double number
    if type(value) is int:
        return True
    if type(value) is not float:
        return False
    number = <double>value
    return -9e15 < number < 9e15 and number == <double>(<long long>number)


cdef long long duration_ms(object value) except? -1:
    """Milliseconds of a duration object or an ISO 8601 string. Raises ValueError saying what is expected."""
    cdef object total = 0
    if type(value) is str:
        return iso_duration_ms(value)
    if type(value) is not dict:
        raise ValueError(f"a duration is an object or an ISO 8601 string, not {json_type_name(value)}")
    if not value:
        raise ValueError("a duration has at least one of " + listed(DURATION_UNITS_MS))
    for unit, count in (<dict>value).items():
        if unit not in DURATION_UNITS_MS:
            raise ValueError(f"a duration has only the keys {listed(DURATION_UNITS_MS)}, not {shown(unit)}")
        if not is_integral(count):
            raise ValueError(f"{unit} of a duration is an integer")
        total += int(count) * DURATION_UNITS_MS[unit]
    return bounded_duration(total)


cdef long long bounded_duration(object total) except? -1:
    if not -DURATION_MS_MAX <= total <= DURATION_MS_MAX:
        raise DurationTooLong(DURATION_TOO_LONG)
    return total


cdef long long iso_duration_ms(str text) except? -1:
    """PnYnMnWnDTnHnMnS: parts in this order, each at most once, at least one, decimals allowed, no signs."""
    cdef Py_ssize_t size = len(text), at = 1, time_at
    cdef object total = 0
    if size > 1 and text[0] == u"P":
        at, total = iso_parts(text, at, size, ISO_DATE_UNITS_MS, total)
        if at < size and text[at] == u"T":
            time_at = at + 1
            at, total = iso_parts(text, time_at, size, ISO_TIME_UNITS_MS, total)
            if at == time_at:
                at = 0
        if at == size:
            return bounded_duration(total)
    raise ValueError("a duration string is ISO 8601, such as PT5S, PT1H30M or P1D")


cdef tuple iso_parts(str text, Py_ssize_t at, Py_ssize_t size, tuple units, object total):
    """Where the parts from `at` on end, and the total with them."""
    cdef Py_ssize_t end
    cdef int next_unit = 0, unit
    while at < size:
        end = digits_end(text, at, size)
        if end == at:
            break
        if end < size and text[end] == u"." and digits_end(text, end + 1, size) > end + 1:
            end = digits_end(text, end + 1, size)
        if end == size:
            break
        for unit in range(next_unit, len(units)):
            if text[end] == units[unit][0]:
                break
        else:
            break
        total += iso_amount_ms(text[at:end], units[unit][1])
        next_unit = unit + 1
        at = end + 1
    return at, total


cdef object iso_amount_ms(str amount, object unit_ms):
    if len(amount.partition(".")[0].lstrip("0")) > 20:
        raise DurationTooLong(DURATION_TOO_LONG)
    if len(amount) > 20:
        raise ValueError("a duration has at most 20 digits in one part")
    return round(float(amount) * unit_ms) if "." in amount else int(amount) * unit_ms


# --- URIs and URI templates ---

cdef bint is_word_character(Py_UCS4 character) noexcept:
    return u"a" <= character <= u"z" or u"A" <= character <= u"Z" or u"0" <= character <= u"9" or character == u"_"


cdef tuple uri_template_fault(str text):
    """Code and message of what is wrong with a URI or URI template; None if nothing is.

    Stricter than the schema: of RFC 6570 only `{name}` is accepted, because nothing else would ever be expanded.
    """
    if not text:
        return "invalid-format", "a URI is not empty"
    if expression_start(text) >= 0:
        return "invalid-format", "an expression is not allowed here; expected a URI or a URI template"
    return uri_character_fault(text)


cdef tuple uri_character_fault(str text):
    """The part of it that reads character by character; the text may be empty."""
    cdef Py_ssize_t at = 0, size = len(text), close
    cdef Py_UCS4 character
    cdef tuple fault
    cdef tuple unsupported = None
    while at < size:
        character = text[at]
        if character == u"{":
            close = text.find("}", at)
            if close < 0:
                return "invalid-format", f"the '{{' at character {at + 1} of the URI is not closed"
            fault = template_variable_fault(text, at + 1, close)
            if fault is not None and at > 0 and text[at - 1] == u"$":
                fault = fault[0], ("`${ }` is evaluated only where it is all of the string: build the whole "
                                   "URI in it, as in ${ \"https://host/\\(.id)\" }, or write {id} for a "
                                   "member of the input")
            elif fault is not None and text[at + 1:at + 2] == "{":
                fault = fault[0], "a variable of a URI stands in single braces and is a name: write {id}"
            if fault is not None and fault[0] == "invalid-format":
                return fault
            unsupported = unsupported or fault
            at = close
        elif character == u"%":
            if at + 2 >= size or hex_digit(text[at + 1]) < 0 or hex_digit(text[at + 2]) < 0:
                return "invalid-format", f"the '%' at character {at + 1} of the URI needs two hexadecimal digits"
            at += 2
        elif character <= 0x20 or character == 0x7F or character.isspace() or character in u'"<>\\^`|}':
            return "invalid-format", f"the character {shown(character)} may not stand in a URI: percent-encode it"
        at += 1
    return unsupported


cdef tuple template_variable_fault(str text, Py_ssize_t at, Py_ssize_t close):
    """What is wrong with the variables between two braces, read by all of RFC 6570 so that the right fault is named."""
    cdef Py_ssize_t start = at, end
    cdef str extra = None
    if at < close and text[at] in u"+#./;?&=,!@|":
        extra = text[at]
        at += 1
    while True:
        end = variable_end(text, at, close)
        if end == at:
            break
        at = end
        if at < close and text[at] == u"*":
            extra = "*"
            at += 1
        elif at < close and text[at] == u":":
            extra = ":"
            end = digits_end(text, at + 1, close)
            if not 1 <= end - at - 1 <= 4 or text[at + 1] == u"0":
                break
            at = end
        if at == close:
            return None if extra is None else (
                "unsupported-template", f"'{extra}' in the URI variable at character {start + 1} is not supported: use "
                                        "{name}, or an expression in ${ } that builds the URI")
        if text[at] != u",":
            break
        extra = ","
        at += 1
    return "invalid-format", (f"the URI variable at character {start + 1} is no name: letters, digits, '_', and '.' "
                              "between them")


cdef Py_ssize_t variable_end(str text, Py_ssize_t at, Py_ssize_t close) noexcept:
    """Index after the variable name at `at`; the same index if there is none."""
    cdef Py_ssize_t start = at, end = at
    while at < close:
        if text[at] == u"%" and at + 2 < close and hex_digit(text[at + 1]) >= 0 and hex_digit(text[at + 2]) >= 0:
            at += 3
            end = at
        elif is_word_character(text[at]):
            at += 1
            end = at
        elif text[at] == u"." and at == end and at > start:
            at += 1
        else:
            break
    return end


# --- names and versions ---

cdef bint is_host_name(str text, bint dots) noexcept:
    """1 to 63 letters, digits and hyphens (and dots), a letter or digit first and last."""
    cdef Py_ssize_t size = len(text), at
    cdef Py_UCS4 character
    if not 0 < size <= 63:
        return False
    for at in range(size):
        character = text[at]
        if character == u"-" or (dots and character == u"."):
            if at == 0 or at == size - 1:
                return False
        elif character == u"_" or not is_word_character(character):
            return False
    return True


cdef bint is_variable_name(str text) noexcept:
    """A name jq can bind as a variable."""
    cdef Py_ssize_t at
    if not text or u"0" <= text[0] <= u"9":
        return False
    for at in range(len(text)):
        if not is_word_character(text[at]):
            return False
    return True


cdef Py_ssize_t semver_number(str text, Py_ssize_t at) noexcept:
    """Index after a number without leading zeros at `at`; or -1."""
    cdef Py_ssize_t end = digits_end(text, at, len(text))
    if end == at or (text[at] == u"0" and end > at + 1):
        return -1
    return end


cdef bint is_semver(str text) noexcept:
    """Semantic versioning 2.0: major.minor.patch, then -prerelease and +build."""
    cdef Py_ssize_t size = len(text), at = 0, i
    for i in range(3):
        at = semver_number(text, at)
        if at < 0:
            return False
        if i < 2:
            if at >= size or text[at] != u".":
                return False
            at += 1
    if at < size and text[at] == u"-":
        at = semver_identifiers(text, at + 1, True)
    if 0 <= at < size and text[at] == u"+":
        at = semver_identifiers(text, at + 1, False)
    return at == size


cdef Py_ssize_t semver_identifiers(str text, Py_ssize_t at, bint no_leading_zeros) noexcept:
    """Index after the dot-separated identifiers at `at`; or -1."""
    cdef Py_ssize_t size = len(text), start
    while True:
        start = at
        while at < size and (text[at] == u"-" or (text[at] != u"_" and is_word_character(text[at]))):
            at += 1
        if at == start:
            return -1
        if no_leading_zeros and text[start] == u"0" and at > start + 1 and digits_end(text, start, size) >= at:
            return -1
        if at >= size or text[at] != u".":
            return at
        at += 1


# --- cron ---

cdef dict CRON_NAMES = {
    3: ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    4: ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
cdef tuple CRON_FIELDS = (
    ("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7),
)


cdef str cron_fault(str text):
    """What is wrong with a five-field cron expression; None if nothing is."""
    cdef list fields = text.split()
    cdef int index
    if len(fields) != 5:
        return f"a cron expression has five fields (minute hour day-of-month month day-of-week), not {len(fields)}"
    for index in range(5):
        for part in fields[index].split(","):
            if not is_cron_part(part, index):
                name, low, high = CRON_FIELDS[index]
                return f"the {name} field of the cron expression takes {low}-{high}, *, ranges, lists and /steps"
    return None


cdef bint is_cron_part(str part, int index) except -1:
    cdef str span, step
    cdef list ends
    cdef int low = CRON_FIELDS[index][1], high = CRON_FIELDS[index][2]
    span, slash, step = part.partition("/")
    if slash and not (len(step) in (1, 2) and digits_end(step, 0, len(step)) == len(step) and int(step) > 0):
        return False
    if span == "*":
        return True
    ends = [cron_number(end, index) for end in span.split("-")]
    if len(ends) > 2 or (slash and len(ends) != 2):
        return False
    for end in ends:
        if not low <= end <= high:
            return False
    return ends[0] <= ends[len(ends) - 1]


cdef int cron_number(str text, int index) except -2:
    """The number of one end of a range, names of months and days included; or -1."""
    if 0 < len(text) <= 2 and digits_end(text, 0, len(text)) == len(text):
        return int(text)
    if index in CRON_NAMES and text.lower() in CRON_NAMES[index]:
        return CRON_NAMES[index].index(text.lower()) + (1 if index == 3 else 0)
    return -1
