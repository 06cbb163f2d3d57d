"""Stage 4, expressions: the terms of regular expressions: escapes, sets in brackets, repetitions, look-behind.

Rules: as the parser's, whose second half this is.
"""


cdef PatternNode repeated(PatternNode node, int low, int high, bint lazy):
    """A repetition; one directly of another becomes the one that Oniguruma takes both for."""
    cdef PatternNode inner
    cdef int outer_type = repeat_type(low, high, lazy)
    cdef int inner_type = repeat_type(node.low, node.high, node.flag) if node.kind == R_REPEAT else -1
    cdef str both
    if low == 1 and high == 1:
        return node
    if inner_type >= 0 and outer_type >= 0:
        both = REPEATED_TWICE[inner_type][outer_type]
        if both == "same":
            return node
        inner = node.kids[0]
        if both == "*" or both == "*?" or both == "??":
            return repeat_node(inner, 0, 1 if both == "??" else -1, len(both) == 2)
        if both == "+)??":
            return repeat_node(repeat_node(inner, 1, -1, False), 0, 1, True)
    return repeat_node(node, low, high, lazy)


cdef PatternNode repeat_node(PatternNode kid, int low, int high, bint lazy):
    cdef PatternNode node = pattern_node(R_REPEAT, [kid])
    node.low = low
    node.high = high
    node.flag = lazy
    return node


cdef int repeat_type(int low, int high, bint lazy):
    """Index of `? * + ?? *? +?`; -1 for others."""
    if low == 0 and high == 1:
        return 3 if lazy else 0
    if high == -1 and low <= 1:
        return (4 if lazy else 1) + low
    return -1


# By the inner repetition, then the outer one; "": both stay.
cdef list REPEATED_TWICE = [
    ["same", "*", "*", "??", "*?", ""],
    ["same", "same", "same", "+)??", "+)??", "same"],
    ["*", "*", "same", "", "+)??", "same"],
    ["same", "*?", "*?", "same", "*?", "*?"],
    ["same", "same", "same", "same", "same", "same"],
    ["", "", "", "*?", "*?", "same"],
]


# --- look-behind ---

cdef struct Width:
    long long low
    long long high
    # Whether `low` comes from what is matched, not from an anchor.
    bint sure

# Far beyond any width that matters, far from overflow.
cdef long long WIDTH_MAX = 1 << 30


cdef PatternNode behind_checked(PatternNode node):
    """A look-behind whose body has one width, as this syntax asks for; the width becomes its `high`."""
    cdef PatternNode body = shortened(node.kids[0])
    cdef Width width
    check_behind(body, node.low == LOOK_NOT_BEHIND)
    width = width_of(body)
    node.kids = [body]
    if width.low == 0 and width.sure:
        # Always true.
        return pattern_node(R_EMPTY if node.low == LOOK_BEHIND else R_FAIL)
    if width.low != width.high or width.low > 65535:
        refuse("invalid pattern in look-behind")
    node.high = <int>width.low
    return node


cdef PatternNode shortened(PatternNode node):
    """Where a body begins with a repetition, its least count does: there is no telling how many come before."""
    cdef PatternNode first, other
    cdef list kids
    cdef Py_ssize_t i
    if node.kind == R_ALT:
        return pattern_node(R_ALT, [shortened(kid) for kid in node.kids])
    if node.kind == R_CAT:
        kids = list(node.kids)
        for i in range(len(kids)):
            other = kids[i]
            first = shortened(other)
            kids[i] = first
            if first is other or first.kind != R_EMPTY:
                break
        return pattern_node(R_CAT, kids)
    if node.kind == R_REPEAT:
        first = node.kids[0]
        if first.kind in (R_CHAR, R_SET, R_BACKREF):
            if node.low == 0:
                return pattern_node(R_EMPTY)
            return repeat_node(first, node.low, node.low, node.flag)
    return node


cdef int check_behind(PatternNode node, bint negated) except -1:
    cdef PatternNode kid
    cdef bint refused = node.kind == R_LOOK and node.low < LOOK_BEHIND
    if node.kind == R_ANCHOR:
        refused = node.low in (P_END, P_END_OR_NEWLINE)
    elif node.kind == R_GROUP:
        refused = negated
    elif node.kind == R_CALL or node.kind == R_CONDITION:
        refuse("this pattern in look-behind is not supported")
    if refused:
        refuse("invalid pattern in look-behind")
    # Characters that fold to several have no one width: here they only stand for themselves.
    node.flag = node.flag or node.kind == R_CHAR
    if node.kids is not None:
        for kid in node.kids:
            if kid is not None:
                check_behind(kid, negated)
    return 0


cdef Width width_of(PatternNode node) except *:
    cdef Width width, other
    cdef PatternNode kid
    cdef bint first = True
    charge(1)
    width.low = width.high = 0
    width.sure = True
    if node.kind == R_CHAR or node.kind == R_ANY or node.kind == R_SET:
        width.low = width.high = 1
    elif node.kind == R_CAT or node.kind == R_GROUP or node.kind == R_ATOMIC:
        for kid in node.kids:
            other = width_of(kid)
            width.low += other.low
            width.high = -1 if width.high < 0 or other.high < 0 else width.high + other.high
            width.sure = width.sure and other.sure
    elif node.kind == R_ALT:
        for kid in node.kids:
            other = width_of(kid)
            if first or other.low < width.low:
                width.low = other.low
                width.sure = other.sure
            width.high = other.high if first or other.high < 0 or (0 <= width.high < other.high) else width.high
            first = False
    elif node.kind == R_REPEAT:
        width = width_of(node.kids[0])
        width.sure = width.sure or node.low == 0
        width.low *= node.low
        width.high = -1 if width.high < 0 or node.high < 0 else width.high * node.high
    elif node.kind == R_BACKREF:
        width.high = -1
        width.sure = False
    elif node.kind != R_EMPTY and node.kind != R_KEEP:
        width.sure = False
    width.low = min(width.low, WIDTH_MAX)
    width.high = min(width.high, WIDTH_MAX)
    return width


# --- escapes ---

cdef PatternNode parse_pattern_escape(PatternParser parser):
    """What a backslash begins, outside of brackets."""
    cdef Py_UCS4 c = parser.next("end pattern at escape")
    cdef bint fold = (parser.options & X_FOLD) != 0
    cdef PatternNode node
    if c in "dDsSwW":
        return ctype_node("digit" if c in "dD" else "space" if c in "sS" else "word", c in "DSW")
    if c in "bBAZzG":
        return anchor_node(
            P_WORD_EDGE if c == "b" else P_NOT_WORD_EDGE if c == "B" else P_BEGIN if c == "A"
            else P_END_OR_NEWLINE if c == "Z" else P_END if c == "z" else P_SEARCH_START
        )
    if c == "K":
        return pattern_node(R_KEEP)
    if c == "R":
        return newline_node()
    if c == "N" or c == "O":
        node = pattern_node(R_ANY)
        node.flag = c == "O"
        return node
    if c == "X" or c == "y" or c == "Y":
        refuse(f"\\{c} is not supported")
    if c in "pP" and parser.accept("{"):
        return set_node(parse_property(parser, SetSpec(), c == "P"))
    if c == "Q":
        return parse_quoted(parser)
    if (c == "k" or c == "g") and (parser.peek() == "<" or parser.peek() == "'"):
        parser.at += 1
        key = parser.parse_name(">" if parser.text[parser.at - 1] == "<" else "'", True)
        return parser.backref_node(parser.referenced(key)) if c == "k" else parser.call_node(key)
    if "1" <= c <= "9":
        node = parse_numbered(parser)
        if node is not None:
            return node
    parser.at -= 1
    return char_node(parse_code(parser, False), fold)


cdef PatternNode newline_node():
    """`\\R`: both characters of a pair at once, or one that ends a line."""
    cdef SetSpec ends = SetSpec()
    ends.add(10, 13)
    ends.add(0x85, 0x85)
    ends.add(0x2028, 0x2029)
    pair = pattern_node(R_CAT, [char_node(13, False), char_node(10, False)])
    return pattern_node(R_ATOMIC, [pattern_node(R_ALT, [pair, set_node(ends)])])


cdef PatternNode parse_quoted(PatternParser parser):
    """`\\Q...\\E`."""
    cdef Py_ssize_t end = parser.text.find("\\E", parser.at)
    cdef str text = parser.text[parser.at : end if end >= 0 else parser.size]
    cdef PatternNode node
    parser.at = end + 2 if end >= 0 else parser.size
    if not text:
        return pattern_node(R_EMPTY)
    node = pattern_node(R_CAT, [char_node(ord(c), parser.options & X_FOLD) for c in text])
    node.flag = True
    return node if len(text) > 1 else node.kids[0]


cdef PatternNode parse_numbered(PatternParser parser):
    """A backreference by number, or None if the digits are an octal code."""
    cdef Py_ssize_t start = parser.at - 1
    cdef object number
    parser.at = start
    number = parser.digits(6)
    if number <= parser.groups or number <= 9:
        return parser.backref_node(parser.referenced(number))
    parser.at = start + 1
    return None


cdef int parse_code(PatternParser parser, bint inside) except -1:
    """The code point an escape stands for, NO_CODE for one outside of Unicode; the escaped character comes next."""
    cdef Py_UCS4 c = parser.next("end pattern at escape")
    if c == "x" or c == "o":
        if parser.peek() == "{":
            return parse_braced_code(parser, c)
        if c == "o" or parser.at >= parser.size:
            return c
        return parse_bytes(parser, scan_code(parser, 2, 16), 16, inside)
    if "0" <= c <= "7":
        if c != "0":
            parser.at -= 1
        return parse_bytes(parser, scan_code(parser, 2 if c == "0" else 3, 8) & 255, 8, inside)
    if c == "c":
        c = parser.next("end pattern at control")
        if c == "?":
            return 127
        if c == "\\":
            return parse_code(parser, inside) & 0x9F
        return <int>c & 0x9F
    if c == "b" and inside:
        return 8
    return ESCAPED_CODES.get(chr(c), <int>c)


cdef int scan_code(PatternParser parser, int most, int base) except -1:
    """Up to `most` digits of a base; none are 0."""
    cdef int code = 0
    cdef int digit
    cdef Py_UCS4 c
    while most > 0:
        c = parser.peek()
        digit = <int>c - 48 if c <= "9" else (<int>c | 32) - 87 if c <= "f" else base
        if digit < 0 or (c > "9" and digit < 10):
            break
        if digit >= base:
            break
        code = code * base + digit
        parser.at += 1
        most -= 1
    return code


cdef int parse_braced_code(PatternParser parser, Py_UCS4 kind) except -1:
    """`\\x{...}` and `\\o{...}`; the letter itself if no number stands there."""
    cdef Py_ssize_t start = parser.at
    cdef Py_ssize_t end = start + 1
    cdef str text
    while end < parser.size and parser.text[end] in "0123456789abcdefABCDEF":
        end += 1
    text = parser.text[start + 1 : end]
    if len(text) > (8 if kind == "x" else 11) or (kind == "o" and text.strip("01234567")):
        refuse("too long wide-char value")
    if not text or end >= parser.size or parser.text[end] != "}":
        return kind
    code = int(text, 16 if kind == "x" else 8)
    if code > 0x1FFFFF:
        refuse("invalid code point value")
    parser.at = end + 1
    return min(code, NO_CODE)


cdef int parse_bytes(PatternParser parser, int first, int base, bint inside) except -1:
    """A code point from the bytes of its UTF-8, each written as an escape of the same base."""
    cdef int more = 1 if 0xC2 <= first < 0xE0 else 2 if 0xE0 <= first < 0xF0 else 3 if 0xF0 <= first < 0xF5 else 0
    cdef bytearray raw = bytearray([first])
    if first < 128:
        return first
    if more == 0:
        if first < 0xC0 and not inside:
            refuse("invalid code point value")
        return NO_CODE
    while len(raw) <= more:
        if not parser.accept("\\x" if base == 16 else "\\") or not is_octal_or_hex(parser.peek(), base):
            refuse("too short multibyte code string")
        raw.append(scan_code(parser, 2 if base == 16 else 3, base) & 255)
    try:
        return ord(raw.decode())
    except UnicodeDecodeError:
        refuse("invalid code point value")


cdef bint is_octal_or_hex(Py_UCS4 c, int base) noexcept:
    return "0" <= c <= "7" or (base == 16 and (c == "8" or c == "9" or "a" <= c <= "f" or "A" <= c <= "F"))


# --- sets ---

cdef SetSpec parse_property(PatternParser parser, SetSpec chars, bint negated):
    """After `\\p{`: adds the property."""
    cdef Py_ssize_t end = parser.at
    cdef str name
    while end < parser.size and parser.text[end] not in "(){}|":
        end += 1
    if end >= parser.size or parser.text[end] != "}":
        refuse("end pattern with unmatched parenthesis")
    if parser.accept("^"):
        negated = not negated
    name = parser.text[parser.at : end]
    parser.at = end + 1
    plain = name.replace("_", "").replace(" ", "").replace("-", "").lower()
    if not add_ctype(chars, plain, negated):
        refuse(f"invalid character property name {{{name}}}")
    return chars


cdef enum SetState:
    AT_START
    AFTER_CODE
    AFTER_DASH
    AFTER_RANGE
    AFTER_TYPE


cdef PatternNode parse_set(PatternParser parser):
    """After `[`: up to the closing bracket."""
    cdef SetSpec chars = SetSpec()
    cdef SetState state = AT_START
    cdef int code = 0
    cdef int previous = 0
    chars.negated = parser.accept("^")
    if parser.peek() == "]":
        if "]" not in parser.text[parser.at + 1 :]:
            refuse("empty char-class")
        parser.at += 1
        state = AFTER_CODE
        previous = 93
    while not parser.accept("]"):
        if parser.at >= parser.size:
            refuse("premature end of char-class")
        if parse_set_type(parser, chars):
            if state == AFTER_DASH:
                refuse("char-class value at end of range")
            add_code(chars, state, previous)
            state = AFTER_TYPE
            continue
        if parser.peek() == "-" and state != AFTER_DASH and state != AT_START:
            parser.at += 1
            if state == AFTER_CODE and parser.peek() != "]":
                state = AFTER_DASH
                continue
            code = 45
        elif parser.accept("\\"):
            code = parse_code(parser, True)
        else:
            code = parser.next("premature end of char-class")
        if state == AFTER_DASH:
            if previous > code:
                refuse("empty range in char class")
            if previous < NO_CODE:
                chars.add(previous, min(code, NO_CODE - 1))
            state = AFTER_RANGE
        else:
            add_code(chars, state, previous)
            state = AFTER_CODE
            previous = code
    add_code(chars, state, previous)
    return folded_set(chars) if parser.options & X_FOLD else set_node(chars)


cdef int add_code(SetSpec chars, SetState state, int code) except -1:
    """Adds the code that might have begun a range and did not."""
    if state == AFTER_CODE and code < NO_CODE:
        chars.add(code, code)
    return 0


cdef bint parse_set_type(PatternParser parser, SetSpec chars) except -1:
    """A kind of characters within brackets: `\\d`, `\\p{..}`, `[:alpha:]`; False if none is next."""
    cdef Py_ssize_t end
    cdef bint negated
    cdef str name
    if parser.accept("[:"):
        end = parser.text.find(":]", parser.at, parser.at + 20)
        if end < 0 or "]" in parser.text[parser.at : end]:
            parser.at -= 2
            return False
        negated = parser.accept("^")
        name = parser.text[parser.at : end]
        if name not in POSIX_NAMES:
            refuse("invalid POSIX bracket type")
        add_ctype(chars, "posixpunct" if name == "punct" else "setword" if name == "word" else name, negated)
        parser.at = end + 2
        return True
    if parser.peek() != "\\" or parser.at + 1 >= parser.size:
        return False
    c = parser.text[parser.at + 1]
    if c in "dDsSwW":
        add_ctype(chars, "digit" if c in "dD" else "space" if c in "sS" else "setword", c in "DSW")
        parser.at += 2
        return True
    if c in "pP" and parser.text.startswith("{", parser.at + 2):
        parser.at += 3
        parse_property(parser, chars, c == "P")
        return True
    return False


cdef frozenset POSIX_NAMES = frozenset((
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "xdigit",
    "ascii", "word",
))


cdef PatternNode folded_set(SetSpec chars):
    """A set in a pattern that ignores case; a character that folds to several also stands for these."""
    cdef list choices = [set_node(chars)]
    for text in fold_set(chars):
        choices.append(pattern_node(R_CAT, [folded_char(ord(c)) for c in text]))
    chars.finish()
    return choices[0] if len(choices) == 1 else pattern_node(R_ALT, choices)


cdef PatternNode folded_char(int code):
    """One character and those that are the same but for case."""
    cdef list codes = fold_codes(chr(code)) if code < NO_CODE else []
    cdef SetSpec chars
    if len(codes) < 2:
        return char_node(code, False)
    chars = SetSpec()
    for other in codes:
        chars.add(other, other)
    return set_node(chars)
