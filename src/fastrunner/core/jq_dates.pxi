"""Stage 4, expressions: dates. Broken-down times are arrays: year, month from 0, day, hour, minute, second, weekday,
yearday.

Rules: no clock and no time zone of the host: `now` is an argument of the evaluation, local time is UTC.
"""

import datetime as _jq_datetime

cdef object EPOCH_DAY = _jq_datetime.date(1970, 1, 1).toordinal()
cdef tuple DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
cdef tuple MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)


cdef long long days_from_civil(long long year, long long month, long long day):
    """Days since the epoch of a proleptic Gregorian date; `month` counts from 1."""
    year -= month <= 2
    cdef long long era = (year if year >= 0 else year - 399) // 400
    cdef long long of_era = year - era * 400
    cdef long long of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


cdef tuple civil_from_days(long long days):
    cdef long long era, of_era, year, of_year, month
    days += 719468
    era = days // 146097
    of_era = days - era * 146097
    year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    return year + era * 400 + (month <= 2), month, day


cdef list broken_down(double seconds):
    charge(20)
    # jq truncates to whole seconds but adds the fraction counted from below; so do we.
    cdef long long total = <long long>seconds
    cdef double fraction = seconds - c_floor(seconds)
    cdef long long days = total // 86400
    cdef long long rest = total - days * 86400
    year, month, day = civil_from_days(days)
    return [
        year, month - 1, day, rest // 3600, rest // 60 % 60, from_double(<double>(rest % 60) + fraction),
        (days + 4) % 7, days - days_from_civil(year, 1, 1),
    ]


cdef object f_gmtime(object input, object a, object b, object c):
    cdef double seconds
    if not is_number(input):
        fail("gmtime() requires numeric inputs")
    seconds = to_double(input)
    if isnan(seconds) or c_fabs(seconds) > 1e15:
        fail("error converting number of seconds since epoch to datetime")
    return broken_down(seconds)


cdef list datetime_parts(object input, str name):
    """The eight whole numbers of a broken-down time; missing ones are zero."""
    cdef list parts = []
    if type(input) is not list:
        fail(f"{name} requires parsed datetime inputs")
    charge(4 * len(<list>input))
    for value in <list>input:
        if not is_number(value) or isnan(to_double(value)) or c_fabs(to_double(value)) > 1e9:
            fail(f"{name} requires parsed datetime inputs")
        parts.append(to_integer(to_double(value)))
    return (parts + [0] * 8)[:8]


cdef long long epoch_seconds(list parts):
    cdef long long month = parts[1]
    cdef long long year = <long long>parts[0] + month // 12
    return (
        (days_from_civil(year, month % 12 + 1, 1) + <long long>parts[2] - 1) * 86400
        + <long long>parts[3] * 3600 + <long long>parts[4] * 60 + <long long>parts[5]
    )


cdef object f_mktime(object input, object a, object b, object c):
    if type(input) is not list:
        fail("mktime requires array inputs")
    return epoch_seconds(datetime_parts(input, "mktime"))


cdef object format_time(object input, object format, str name, str zone):
    cdef list parts
    cdef list out = []
    cdef Py_ssize_t i = 0
    if is_number(input):
        input = f_gmtime(input, None, None, None)
    elif type(input) is not list:
        fail(f"{name} requires parsed datetime inputs")
    if type(format) is not str:
        fail(f"{name} requires a string format")
    # Weekday and day of the year follow from the date, as jq's timegm sets them.
    parts = broken_down(<double>epoch_seconds(datetime_parts(input, name)))
    while i < len(<str>format):
        charge(4)
        if (<str>format)[i] == "%" and i + 1 < len(<str>format):
            out.append(directive((<str>format)[i + 1], parts, zone))
            i += 2
        else:
            out.append((<str>format)[i])
            i += 1
    return joined(out, "")


# Directives that are one field: its index, what is added, its width.
cdef dict FIELD_DIRECTIVES = {
    "Y": (0, 0, 1), "m": (1, 1, 2), "d": (2, 0, 2), "H": (3, 0, 2), "M": (4, 0, 2), "S": (5, 0, 2), "j": (7, 1, 3),
}
cdef dict COMPOSED_DIRECTIVES = {
    "c": "%a %b %e %H:%M:%S %Y", "D": "%m/%d/%y", "F": "%Y-%m-%d", "R": "%H:%M", "r": "%I:%M:%S %p",
    "T": "%H:%M:%S", "x": "%m/%d/%y", "X": "%H:%M:%S", "h": "%b",
}


cdef str directive(str c, list p, str zone):
    charge(20)
    if c in FIELD_DIRECTIVES:
        index, offset, width = FIELD_DIRECTIVES[c]
        return str(int(p[index]) + offset).rjust(width, "0")
    if c in COMPOSED_DIRECTIVES:
        return "".join([directive(part[0], p, zone) + part[1:] for part in COMPOSED_DIRECTIVES[c].split("%")[1:]])
    return rare_directive(c, p, zone)


cdef str rare_directive(str c, list p, str zone):
    charge(60)
    hour = p[3] % 12 or 12
    simple = {
        "e": f"{p[2]:2d}", "k": f"{p[3]:2d}", "I": f"{hour:02d}", "l": f"{hour:2d}", "y": f"{p[0] % 100:02d}",
        "C": f"{p[0] // 100:02d}", "p": "PM" if p[3] >= 12 else "AM", "P": "pm" if p[3] >= 12 else "am",
        "A": DAY_NAMES[p[6]], "a": DAY_NAMES[p[6]][:3], "B": MONTH_NAMES[p[1]],
        "b": MONTH_NAMES[p[1]][:3], "Z": zone, "z": "+0000", "s": f"{epoch_seconds([*p[:5], int(p[5])])}", "%": "%",
        "n": "\n", "t": "\t", "u": f"{p[6] or 7}", "w": f"{p[6]}", "U": f"{(p[7] + 7 - p[6]) // 7:02d}",
        "W": f"{(p[7] + 7 - (p[6] + 6) % 7) // 7:02d}",
    }
    if c in "GgV":
        year, week, _ = _jq_datetime.date(min(max(p[0], 1), 9999), p[1] + 1, p[2]).isocalendar()
        return {"G": f"{year}", "g": f"{year % 100:02d}", "V": f"{week:02d}"}[c]
    return simple.get(c, "%" + c)


cdef object f_strftime(object input, object a, object b, object c):
    return format_time(input, a, "strftime/1", "GMT" if is_number(input) else "UTC")


cdef object f_strflocaltime(object input, object a, object b, object c):
    return format_time(input, a, "strflocaltime/1", "UTC")


cdef object f_todate(object input, object a, object b, object c):
    return format_time(input, "%Y-%m-%dT%H:%M:%SZ", "strftime/1", "UTC")


cdef object f_strptime(object input, object a, object b, object c):
    cdef TimeReader reader
    if type(input) is not str:
        return type_error(input, "cannot be parsed as a date")
    if type(a) is not str:
        fail("strptime/1 requires a string format")
    reader = TimeReader()
    reader.text = <str>input
    reader.fields = [1900, 0, 1, 0, 0, 0]
    if not reader.read(<str>a) or reader.position != len(<str>input):
        check_string(len(<str>input) + len(<str>a))
        fail(f'date "{input}" does not match format "{a}"')
    return broken_down(<double>epoch_seconds(reader.fields))


cdef inline Py_UCS4 next_point(str text, Py_ssize_t position):
    return text[position] if position < len(text) else 0


cdef class TimeReader:
    """Reads a date the way strptime(3) does, for the directives that are numbers or English names."""

    cdef str text
    cdef Py_ssize_t position
    cdef list fields
    cdef bint afternoon, twelve

    cdef bint read(self, str format) except -1:
        cdef Py_ssize_t i = 0
        while i < len(format):
            charge(6)
            c = format[i]
            if c == "%" and i + 1 < len(format):
                i += 1
                if not self.directive(format[i]):
                    return False
            elif c.isspace():
                self.skip_space()
            elif self.position < len(self.text) and self.text[self.position] == c:
                self.position += 1
            else:
                return False
            i += 1
        if self.twelve:
            self.fields[3] = self.fields[3] % 12 + (12 if self.afternoon else 0)
        return True

    cdef int skip_space(self) except -1:
        charge(1 + (len(self.text) - self.position >> 2))
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1
        return 0

    cdef bint number(self, int field, int width, long long low, long long high, long long shift) except -1:
        cdef Py_ssize_t start, end
        self.skip_space()
        start = self.position
        end = min(start + width, len(self.text))
        while self.position < end and is_digit(self.text[self.position]):
            self.position += 1
        if self.position == start:
            return False
        value = int(self.text[start : self.position])
        if not low <= value <= high:
            return False
        if field >= 0:
            self.fields[field] = value + shift
        return True

    cdef int name(self, tuple names) except -2:
        """Index of the name, whole or its first three letters, at the position; -1 if there is none."""
        cdef int index
        cdef str rest = self.text[self.position : self.position + 10].lower()
        for index in range(len(names)):
            for form in (names[index].lower(), names[index][:3].lower()):
                if rest.startswith(form):
                    self.position += len(form)
                    return index
        return -1

    cdef bint directive(self, str c) except -1:
        cdef int index
        charge(20)
        if c in "aA":
            return self.name(DAY_NAMES) >= 0
        if c in "bBh":
            index = self.name(MONTH_NAMES)
            self.fields[1] = index
            return index >= 0
        if c == "p":
            self.twelve = True
            index = self.name(("am", "pm"))
            self.afternoon = index == 1
            return index >= 0
        if c in "zZ":
            return self.zone(c)
        if c == "s":
            if not self.number(5, 12, 0, 10 ** 12, 0):
                return False
            self.fields[:5] = [1970, 0, 1, 0, 0]
            return True
        if c in "DFTR":
            return self.read({"D": "%m/%d/%y", "F": "%Y-%m-%d", "T": "%H:%M:%S", "R": "%H:%M"}[c])
        if c == "j":
            self.fields[1] = 0
            return self.number(2, 3, 1, 366, 0)
        if c == "y":
            if not self.number(0, 2, 0, 99, 1900):
                return False
            self.fields[0] += 100 if self.fields[0] < 1969 else 0
            return True
        if c in "nt":
            self.skip_space()
            return True
        if c == "%":
            self.position += 1
            return self.text[self.position - 1 : self.position] == "%"
        if c in "Il":
            self.twelve = True
        ranges = {
            "Y": (0, 4, 0, 9999, 0), "m": (1, 2, 1, 12, -1), "d": (2, 2, 1, 31, 0), "e": (2, 2, 1, 31, 0),
            "H": (3, 2, 0, 23, 0), "k": (3, 2, 0, 23, 0), "I": (3, 2, 1, 12, 0), "l": (3, 2, 1, 12, 0),
            "M": (4, 2, 0, 59, 0), "S": (5, 2, 0, 61, 0), "u": (-1, 1, 1, 7, 0), "w": (-1, 1, 0, 6, 0),
            "U": (-1, 2, 0, 53, 0), "W": (-1, 2, 0, 53, 0),
        }
        if c not in ranges:
            return False
        field, width, low, high, shift = ranges[c]
        return self.number(field, width, low, high, shift)

    cdef bint zone(self, str c) except -1:
        """A zone is read and, as in jq, not applied."""
        cdef Py_ssize_t start = self.position
        if c == "z" and self.text[start : start + 1] == "Z":
            self.position += 1
            return True
        if c == "z" and self.text[start : start + 1] not in ("+", "-"):
            return False
        self.position += c == "z"
        while is_name_part(next_point(self.text, self.position)) or next_point(self.text, self.position) == 58:
            self.position += 1
        return self.position > start
