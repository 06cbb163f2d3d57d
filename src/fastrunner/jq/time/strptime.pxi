"""Stage 4, expressions: text to times with the directives of strptime(3) in the C locale.

Rules: fields the format does not name stay as an empty time has them; weekday and day of the year are computed where
the format names some part of the date, else 8 and 367 tell that nobody knows them. Zones are read and not applied.
"""

cimport cython

# Directives that set one field: its index, the digits read, the range, what is added.
cdef dict READ_DIRECTIVES = {
    "Y": (0, 4, 0, 9999, 0), "m": (1, 2, 1, 12, -1), "d": (2, 2, 1, 31, 0), "e": (2, 2, 1, 31, 0),
    "H": (3, 2, 0, 23, 0), "k": (3, 2, 0, 23, 0), "I": (3, 2, 1, 12, 0), "l": (3, 2, 1, 12, 0),
    "M": (4, 2, 0, 59, 0), "S": (5, 2, 0, 61, 0),
    "u": (6, 1, 1, 7, 0), "w": (6, 1, 0, 6, 0), "j": (7, 3, 1, 366, -1), "y": (0, 2, 0, 99, 1900),
}
cdef dict READ_COMPOSED = {
    "c": "%a %b %e %H:%M:%S %Y", "D": "%m/%d/%y", "F": "%Y-%m-%d", "R": "%H:%M", "r": "%I:%M:%S %p", "T": "%H:%M:%S",
    "x": "%m/%d/%y", "X": "%H:%M:%S",
}


cdef object f_strptime(object input, object a, object b, object c):
    if type(input) is not str or type(a) is not str:
        fail("strptime/1 requires string inputs and arguments")
    return read_time(<str>input, <str>a)


cdef object f_read_date(object input, object a, object b, object c):
    """What `fromdate` and its like read; `a` is the name the author wrote."""
    if type(input) is not str:
        fail(f"{a} input must be a string such as 2025-01-31T12:00:00Z")
    return read_time(<str>input, "%Y-%m-%dT%H:%M:%SZ")


cdef object read_time(str input, str a):
    cdef TimeReader reader = TimeReader()
    # Text ends at a NUL, as it does for strptime(3).
    input = input.partition("\0")[0]
    a = a.partition("\0")[0]
    reader.text = input
    reader.fields = [1900, 0, 0, 0, 0, 0, 8, 367]
    reader.known = set()
    reader.century = -1
    if not reader.read(a) or not is_blank(reader.here()) and reader.position < len(input):
        check_string(len(input) + len(a))
        fail(f'date "{input}" does not match format "{a}"')
    reader.complete()
    if reader.position < len(input):
        reader.fields.append(input[reader.position:])
    return reader.fields


cdef inline bint is_blank(Py_UCS4 c):
    return c == 32 or 9 <= c <= 13


@cython.internal
@cython.final
cdef class TimeReader:
    """Reads a text by a format; `known` holds the directives' letters whose fields have been read."""

    cdef str text
    cdef Py_ssize_t position
    cdef list fields
    cdef set known
    cdef bint afternoon
    cdef long long century, week

    cdef Py_UCS4 here(self):
        return self.text[self.position] if self.position < len(self.text) else 0

    cdef bint read(self, str format) except -1:
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t size = len(format)
        cdef Py_UCS4 c
        while i < size:
            charge(6)
            c = format[i]
            i += 1
            if is_blank(c):
                self.skip_space()
            elif c != 37:
                if self.position >= len(self.text) or self.here() != c:
                    return False
                self.position += 1
            else:
                while i < size and format[i] in "-_0^#123456789":
                    i += 1
                if i + 1 < size and format[i] in "EO":
                    i += 1
                if i >= size or not self.directive(format[i]):
                    return False
                i += 1
        return True

    cdef int skip_space(self) except -1:
        while is_blank(self.here()):
            self.position += 1
        return 0

    cdef long long number(self, int width, long long low, long long high) except -2:
        """The number at the position, which ends where another digit would take it out of its range; -1: none."""
        cdef long long value
        while self.here() == 32:
            self.position += 1
        if not is_digit(self.here()):
            return -1
        value = 0
        while True:
            value = value * 10 + <long long>self.here() - 48
            self.position += 1
            width -= 1
            if width <= 0 or value * 10 > high or not is_digit(self.here()):
                break
        return value if low <= value <= high else -1

    cdef int name(self, tuple names) except -2:
        """Index of the name, whole or its first three letters, at the position; -1 if there is none."""
        cdef int index
        charge(60)
        cdef str rest = self.text[self.position : self.position + 10].lower()
        for index in range(len(names)):
            for form in (names[index].lower(), names[index][:3].lower()):
                if rest.startswith(form):
                    self.position += len(form)
                    return index
        return -1

    cdef bint directive(self, str c) except -1:
        cdef long long value
        charge(20)
        self.known.add(c)
        if c in READ_COMPOSED:
            return self.read(<str>READ_COMPOSED[c])
        if c in READ_DIRECTIVES:
            field, width, low, high, shift = READ_DIRECTIVES[c]
            value = self.number(width, low, high)
            if value < 0:
                return False
            if c in "Il":
                value %= 12
            elif c == "u":
                value %= 7
            elif c == "y" and value < 69:
                value += 100
            self.fields[field] = value + shift
            self.note(c)
            return True
        if c in "aAbBhp":
            return self.named(c)
        return self.rare(c)

    cdef int note(self, str c) except -1:
        """A later directive takes back what an earlier one said of the same field."""
        if c in "Hk":
            self.known -= {"I", "l"}
        elif c == "Y":
            self.known.discard("y")
        return 0

    cdef bint named(self, str c) except -1:
        cdef int index
        if c == "p":
            index = self.name(("am", "pm"))
            self.afternoon = index == 1
            return index >= 0
        index = self.name(DAY_NAMES if c in "aA" else MONTH_NAMES)
        if index >= 0:
            self.fields[6 if c in "aA" else 1] = index
        return index >= 0

    cdef bint rare(self, str c) except -1:
        if c == "C":
            self.century = self.number(2, 0, 99)
            return self.century >= 0
        if c in "UW":
            self.week = self.number(2, 0, 53)
            return self.week >= 0
        if c in "Vg":
            return self.number(2, 0, 53 if c == "V" else 99) >= 0
        if c == "G":
            return self.digits() >= 0
        if c == "s":
            return self.epoch()
        if c in "nt":
            self.skip_space()
            return True
        if c == "%":
            self.position += 1
            return self.text[self.position - 1 : self.position] == "%"
        if c == "Z":
            self.skip_space()
            while self.position < len(self.text) and not is_blank(self.here()):
                self.position += 1
            return True
        return c == "z" and self.zone()

    cdef long long digits(self) except -2:
        cdef Py_ssize_t start = self.position
        while is_digit(self.here()):
            self.position += 1
        if self.position == start or self.position - start > 15:
            return -1
        return int(self.text[start : self.position])

    cdef bint epoch(self) except -1:
        cdef long long seconds = self.digits()
        if seconds < 0:
            return False
        self.fields = [int(part) for part in broken_down(<double>seconds)]
        return True

    cdef bint zone(self) except -1:
        cdef int count = 0
        cdef long long value = 0
        self.skip_space()
        if self.here() == 90:
            self.position += 1
            return True
        if self.here() != 43 and self.here() != 45:
            return False
        self.position += 1
        while count < 4 and is_digit(self.here()):
            value = value * 10 + <long long>self.here() - 48
            count += 1
            self.position += 1
            if count == 2 and self.here() == 58 and is_digit(next_point(self.text, self.position + 1)):
                self.position += 1
        return count == 2 or count == 4 and value % 100 < 60

    # --- what follows from what was read ---

    cdef bint knows(self, str letters) except -1:
        return not self.known.isdisjoint(letters)

    cdef int complete(self) except -1:
        cdef list p = self.fields
        cdef bint month = self.knows("bBhm")
        cdef bint day = self.knows("de")
        if self.knows("Il") and self.afternoon:
            p[3] += 12
        if self.century >= 0:
            p[0] = self.century * 100 + (p[0] % 100 if self.knows("y") else 0)
        if self.knows("bBhmdeyYC"):
            if not self.knows("aAuw"):
                if not (month and day) and self.knows("j"):
                    self.date_of_day(month, day)
                    month = day = True
                p[6] = (days_from_civil(p[0], p[1] + 1, 1) + p[2] - 1 + 4) % 7
            if not self.knows("j"):
                p[7] = days_from_civil(p[0], p[1] + 1, 1) + p[2] - 1 - days_from_civil(p[0], 1, 1)
        if self.knows("UW") and self.knows("aAuw"):
            self.day_of_week_number(month, day)
        return 0

    cdef int date_of_day(self, bint month, bint day) except -1:
        """Month and day from the day of the year, where the format did not name them."""
        cdef list p = self.fields
        cdef tuple date = civil_from_days(days_from_civil(p[0], 1, 1) + <long long>p[7])
        if not month:
            p[1] = date[1] - 1
        if not day:
            p[2] = date[2]
        return 0

    cdef int day_of_week_number(self, bint month, bint day) except -1:
        """The day of the year from the number of its week and the weekday."""
        cdef list p = self.fields
        cdef long long shift = 0 if self.knows("U") else 1
        cdef long long first = (days_from_civil(p[0], 1, 1) + 4) % 7
        if not self.knows("j"):
            p[7] = (7 - (first - shift)) % 7 + (self.week - 1) * 7 + (<long long>p[6] - shift + 7) % 7
        if not month or not day:
            self.date_of_day(month, day)
        return 0


cdef inline Py_UCS4 next_point(str text, Py_ssize_t position):
    return text[position] if position < len(text) else 0
