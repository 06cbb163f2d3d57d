"""Stage 4, regular expressions for others: patterns as ECMA-262 writes them, searched for within a budget of steps.

Rules: a pattern is rewritten in the engine's own syntax, character by character, and never runs as it was written: what
only one of the two languages knows is refused, not guessed. `\\d`, `\\w` and `\\s` are those of ECMA-262 (ASCII, ASCII,
Unicode), `$` is the end of the text and nothing else, a character is a code point. Repetitions of repetitions are taken
for what they say. A search counts like one of an evaluation and belongs to none.
"""

cimport cython

from fastrunner._jq cimport Bounds, State, TextPattern

cdef str HEX_DIGITS = "0123456789abcdefABCDEF"
cdef list ECMA_DIGITS = [(48, 57)]
cdef list ECMA_WORDS = [(48, 57), (65, 90), (95, 95), (97, 122)]
cdef list ECMA_SPACES = [(9, 13), (32, 32), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
                         (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF)]
cdef list ECMA_LINE_ENDS = [(10, 10), (13, 13), (0x2028, 0x2029)]
cdef dict ECMA_CONTROLS = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
cdef tuple ECMA_GROUPS = ("?:", "?=", "?!", "?<=", "?<!")
# What a search takes beside its instructions.
cdef int SEARCH_STEPS = 4


cdef str code_text(object code):
    """A code point in the engine's syntax, inside of brackets and outside."""
    return f"\\x{{{code:x}}}"


cdef str ranges_text(list ranges):
    return "".join([code_text(first) + ("-" + code_text(last) if last > first else "") for first, last in ranges])


cdef dict ECMA_TYPES = {
    letter: ranges_text(ranges)
    for small, chars in (("d", ECMA_DIGITS), ("w", ECMA_WORDS), ("s", ECMA_SPACES))
    for letter, ranges in ((small, chars), (small.upper(), complement(chars)))
}
cdef str ECMA_ANY = f"[{ranges_text(complement(ECMA_LINE_ENDS))}]"


@cython.internal
@cython.final
cdef class EcmaPattern:
    """One pattern on its way from one syntax to the other."""

    cdef str text
    cdef Py_ssize_t at, size
    cdef list parts
    # Where the element that a repetition would repeat begins in `parts`, -1 for none; of the open groups where each
    # begins, and what it looks behind with.
    cdef Py_ssize_t element
    cdef bint is_repeated
    cdef list opened, behind
    cdef int groups, referred

    cdef str rewritten(self, str text):
        self.text = text
        self.size = len(text)
        self.parts = []
        self.opened = []
        self.behind = []
        self.element = -1
        while self.at < self.size:
            self.rewrite_one()
        if self.opened:
            refuse("end pattern with unmatched parenthesis")
        if self.referred > self.groups:
            refuse("invalid backref number/name")
        return "".join(self.parts)

    cdef int add(self, str part) except -1:
        """Adds an element that may be repeated."""
        self.element = len(self.parts)
        self.is_repeated = False
        self.parts.append(part)
        return 0

    cdef int add_unrepeatable(self, str part) except -1:
        self.element = -1
        self.parts.append(part)
        return 0

    cdef int rewrite_one(self) except -1:
        cdef Py_UCS4 c = self.text[self.at]
        self.at += 1
        if c == "\\":
            return self.rewrite_escape()
        if c == "[":
            return self.rewrite_set()
        if c == "(":
            return self.rewrite_group()
        if c in "*+?{":
            return self.rewrite_repeat(c)
        if c == ")":
            if not self.opened:
                refuse("unmatched close parenthesis")
            self.parts.append("))" if self.behind.pop() else ")")
            self.element = self.opened.pop()
            self.is_repeated = False
            return 0
        if c == ".":
            return self.add(ECMA_ANY)
        if c == "^":
            return self.add_unrepeatable("^")
        if c == "|":
            return self.add_unrepeatable(self.choice_text())
        if c == "$":
            return self.add_unrepeatable("\\z")
        return self.add(code_text(<int>c))

    cdef str choice_text(self):
        """Choices of what is behind may have different widths: each gets a look of its own."""
        cdef str kind = self.behind[len(self.behind) - 1] if self.behind else ""
        return "|" if not kind else f"){'|' if kind == '?<=' else ''}({kind}"

    cdef int rewrite_repeat(self, Py_UCS4 c) except -1:
        cdef Py_ssize_t start = self.at - 1
        cdef str bounds
        if c == "{":
            self.at = self.text.find("}", start) + 1
            bounds = self.text[start + 1 : self.at - 1]
            low, comma, high = bounds.partition(",")
            if not self.at or not is_ascii_number(low) or (high and not is_ascii_number(high)):
                refuse("a brace that begins no repetition is written \\{")
        if self.element < 0:
            refuse("target of repeat operator is not specified")
        if self.is_repeated:
            self.parts.insert(self.element, "(?:")
            self.parts.append(")")
        self.parts.append(self.text[start : self.at])
        self.is_repeated = True
        if self.at < self.size and self.text[self.at] == "?":
            self.at += 1
            self.parts.append("?")
        return 0

    cdef int rewrite_group(self) except -1:
        cdef str kind, name
        self.opened.append(len(self.parts))
        self.behind.append("")
        self.element = -1
        for kind in ECMA_GROUPS:
            if self.text.startswith(kind, self.at):
                self.at += len(kind)
                if kind.startswith("?<"):
                    self.behind[len(self.behind) - 1] = kind
                self.parts.append(("(?:(" if kind.startswith("?<") else "(") + kind)
                return 0
        if self.text.startswith("?<", self.at) or self.text.startswith("?P<", self.at):
            self.at = self.text.index("<", self.at) + 1
            name = self.upto(">")
            self.parts.append(f"(?<{name}>")
        elif self.at < self.size and self.text[self.at] == "?":
            return self.rewrite_flags()
        else:
            self.parts.append("(")
        self.groups += 1
        return 0

    cdef int rewrite_flags(self) except -1:
        """`(?i)` and `(?i:...)`: no ECMA-262 of old, but what other validators take."""
        cdef Py_ssize_t start = self.at
        self.at += 1
        while self.at < self.size and self.text[self.at] in "is-":
            self.at += 1
        if self.at == start + 1 or self.at >= self.size or self.text[self.at] not in ":)":
            refuse("undefined group option")
        self.at += 1
        self.parts.append("(" + self.text[start : self.at])
        if self.text[self.at - 1] == ")":
            self.opened.pop()
            self.behind.pop()
        return 0

    cdef str upto(self, str end):
        """The text up to a character, which is passed over."""
        cdef Py_ssize_t start = self.at
        self.at = self.text.find(end, start) + 1
        if not self.at:
            refuse("end pattern with unmatched parenthesis")
        return self.text[start : self.at - 1]

    cdef int rewrite_escape(self) except -1:
        cdef Py_UCS4 c
        cdef Py_ssize_t start = self.at
        if self.at >= self.size:
            refuse("end pattern at escape")
        c = self.text[self.at]
        if c in "bBAz":
            self.at += 1
            return self.add_unrepeatable("\\" + chr(c))
        if c in "dDwWsS":
            self.at += 1
            return self.add(f"[{ECMA_TYPES[chr(c)]}]")
        if c in "pP":
            return self.add(self.property_text())
        if "1" <= c <= "9":
            while self.at < self.size and "0" <= self.text[self.at] <= "9" and self.at < start + 6:
                self.at += 1
            self.referred = max(self.referred, int(self.text[start : self.at]))
            return self.add(f"(?:\\{self.text[start : self.at]})")
        if c == "k" and self.text.startswith("k<", self.at):
            self.at += 2
            return self.add(f"\\k<{self.upto('>')}>")
        return self.add(code_text(self.escaped_code()))

    cdef str property_text(self):
        """`\\p{L}`, `\\p{Script=Greek}`, `\\pL`."""
        cdef str letter = self.text[self.at]
        cdef str name
        self.at += 1
        if self.at < self.size and self.text[self.at] == "{":
            self.at += 1
            name = self.upto("}")
        else:
            name = self.text[self.at : self.at + 1]
            self.at += 1
        key, equals, value = name.partition("=")
        if equals and key not in ("Script", "sc", "Script_Extensions", "scx", "General_Category", "gc"):
            refuse(f"invalid character property name {{{name}}}")
        name = value if equals else key
        if not name.replace("_", "").isalnum():
            refuse(f"invalid character property name {{{name}}}")
        return f"\\{letter}{{{name}}}"

    cdef int escaped_code(self) except -1:
        """The code point of an escape; the escaped character comes next."""
        cdef Py_UCS4 c = self.text[self.at]
        cdef int code, low
        self.at += 1
        if chr(c) in ECMA_CONTROLS:
            return ECMA_CONTROLS[chr(c)]
        if c == "0" and not (self.at < self.size and "0" <= self.text[self.at] <= "9"):
            return 0
        if c == "c" and self.at < self.size and self.text[self.at].isascii() and self.text[self.at].isalpha():
            self.at += 1
            return <int>(<Py_UCS4>self.text[self.at - 1]) & 31
        if c == "x" or c == "u":
            code = self.hex_code(2 if c == "x" else 4)
            if 0xD800 <= code < 0xDC00 and self.text.startswith("\\u", self.at):
                self.at += 2
                low = self.hex_code(4)
                if not 0xDC00 <= low < 0xE000:
                    refuse("invalid code point value")
                code = 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00
            return code
        if c < 128 and chr(c).isalnum():
            refuse(f"\\{chr(c)} is not supported")
        return c

    cdef int hex_code(self, int digits) except -1:
        """`41` or `{41}`."""
        cdef str number
        if self.at < self.size and self.text[self.at] == "{":
            self.at += 1
            number = self.upto("}")
        else:
            number = self.text[self.at : self.at + digits]
            self.at += digits
            if len(number) < digits:
                refuse("too short escape sequence")
        if not number or len(number) > 8 or number.strip(HEX_DIGITS) or int(number, 16) > CODE_POINT_MAX:
            refuse("invalid code point value")
        return int(number, 16)

    # --- sets ---

    cdef int rewrite_set(self) except -1:
        """After `[`: up to the closing bracket."""
        cdef list parts = []
        cdef str first, last
        cdef bint negated = self.text.startswith("^", self.at)
        cdef bint is_type, is_type_too
        self.at += negated
        while True:
            if self.at >= self.size:
                refuse("premature end of char-class")
            if self.text[self.at] == "]":
                break
            first = self.set_item(&is_type)
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                if self.at >= self.size:
                    refuse("premature end of char-class")
                last = self.set_item(&is_type_too)
                if is_type or is_type_too:
                    refuse("char-class value at end of range")
                first = f"{first}-{last}"
            parts.append(first)
        self.at += 1
        if not parts:
            # ECMA-262 has a set of nothing, and one of everything.
            parts.append(ranges_text([(0, CODE_POINT_MAX)]))
            negated = not negated
        return self.add(f"[{'^' if negated else ''}{''.join(parts)}]")

    cdef str set_item(self, bint* is_type):
        """A character or a kind of characters in brackets."""
        cdef Py_UCS4 c = self.text[self.at]
        is_type[0] = False
        if c != "\\":
            self.at += 1
            return code_text(<int>c)
        self.at += 1
        if self.at >= self.size:
            refuse("end pattern at escape")
        c = self.text[self.at]
        is_type[0] = c in "dDwWsSpP"
        if c in "dDwWsS":
            self.at += 1
            return ECMA_TYPES[chr(c)]
        if c in "pP":
            return self.property_text()
        if c == "b":
            self.at += 1
            return code_text(8)
        return code_text(self.escaped_code())


cdef bint is_ascii_number(str text):
    return text.isascii() and text.isdecimal()


# --- compiled patterns ---

cdef class TextPattern:

    def __cinit__(self, key=None):
        if key is not KEY:
            raise TypeError("patterns are compiled")

    cdef bint found_in(self, str text, const Bounds* bounds, long long* steps_left) except -1:
        """Whether it matches anywhere in a text. Raises BudgetExceeded, with no steps left if those were too few."""
        cdef State state
        cdef void* before
        cdef Matcher* matcher
        begin(&state, bounds)
        state.steps_left = max(steps_left[0] - SEARCH_STEPS, 0)
        before = enter(&state)
        try:
            matcher = own_matcher()
            prepare(matcher, <Pattern>self.pattern, text)
            return search(matcher, <Pattern>self.pattern, 0)
        finally:
            steps_left[0] = state.steps_left
            leave(&state, before)


cdef TextPattern compile_text_pattern(str text, long long* steps_left):
    """A pattern in ECMA-262's syntax. Raises ExpressionError for one it does not know."""
    cdef TextPattern made = TextPattern.__new__(TextPattern, KEY)
    cdef PatternParser parser = PatternParser.__new__(PatternParser)
    cdef EcmaPattern ecma = EcmaPattern.__new__(EcmaPattern)
    cdef PatternNode root
    cdef State state
    cdef void* before
    begin(&state, &DEFAULT_BOUNDS)
    state.steps_left = steps_left[0]
    before = enter(&state)
    try:
        if len(text) > DEFAULT_BOUNDS.regex_size:
            refuse(f"the pattern has {len(text)} characters, at most {DEFAULT_BOUNDS.regex_size} are allowed")
        charge(2 * PATTERN_STEPS_PER_CHAR * (len(text) + 1))
        root = parser.parse(ecma.rewritten(text), 0)
        made.pattern = (<PatternEmitter>PatternEmitter.__new__(PatternEmitter)).compile(root, parser, 0)
    finally:
        steps_left[0] = state.steps_left
        leave(&state, before)
    return made
