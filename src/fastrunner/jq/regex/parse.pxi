"""Stage 4, expressions: the parser of regular expressions: Oniguruma's Perl syntax with named groups, as jq sets it up.

Rules: the result is a tree whose depth is bounded, so that everything after may recurse over it. What Oniguruma
refuses is refused with its words; what it has and this engine has not is refused as not supported.
"""

cimport cython

cdef enum PatternKind:
    R_EMPTY
    # code: its code point, beyond Unicode if it matches nothing.
    R_CHAR
    # flag: newlines too.
    R_ANY
    R_SET
    R_CAT
    R_ALT
    # low: the group's number.
    R_GROUP
    # low, high (-1: no bound); flag: as few as possible.
    R_REPEAT
    R_ATOMIC
    # low: a Look.
    R_LOOK
    # low: the instruction.
    R_ANCHOR
    R_KEEP
    # key: group numbers, the one to try first last.
    R_BACKREF
    # key: a name or a number.
    R_CALL
    # Kids: then, else, and the condition if it is a pattern; otherwise key: group numbers.
    R_CONDITION
    # key: group numbers of which one must have matched.
    R_CHECK
    R_FAIL

cdef enum Look:
    LOOK_AHEAD
    LOOK_NOT_AHEAD
    LOOK_BEHIND
    LOOK_NOT_BEHIND

cdef enum PatternOption:
    X_FOLD = 1
    X_EXTENDED = 2
    X_DOTALL = 4
    X_LINES = 8
    X_LONGEST = 16
    X_NOT_EMPTY = 32

cdef int REPEAT_COUNT_MAX = 100_000
cdef int NO_CODE = 0x110000
cdef dict ESCAPED_CODES = {"t": 9, "n": 10, "r": 13, "f": 12, "a": 7, "e": 27}
cdef dict CTYPES_KNOWN = {}


@cython.internal
@cython.final
cdef class PatternNode:
    cdef PatternKind kind
    cdef int code, low, high, depth
    cdef bint flag, fold
    cdef list kids
    cdef SetSpec chars
    cdef object key


cdef PatternNode pattern_node(PatternKind kind, list kids=None):
    cdef PatternNode node = PatternNode.__new__(PatternNode)
    cdef PatternNode kid
    node.kind = kind
    node.kids = kids
    node.depth = 1
    if kids is not None:
        for kid in kids:
            if kid is not None and kid.depth >= node.depth:
                node.depth = kid.depth + 1
        if node.depth > running().bounds.regex_depth:
            refuse("too deep nest level")
    return node


cdef PatternNode char_node(int code, bint fold):
    cdef PatternNode node = pattern_node(R_CHAR)
    node.code = code
    node.fold = fold
    return node


cdef PatternNode set_node(SetSpec chars):
    cdef PatternNode node = pattern_node(R_SET)
    chars.finish()
    node.chars = chars
    return node


cdef PatternNode ctype_node(str name, bint negated):
    """`\\d`, `\\w`, `\\s` and their opposites, made once."""
    cdef SetSpec chars = CTYPES_KNOWN.get((name, negated))
    cdef PatternNode node = pattern_node(R_SET)
    if chars is None:
        chars = SetSpec()
        add_ctype(chars, name, negated)
        chars.finish()
        CTYPES_KNOWN[(name, negated)] = chars
    node.chars = chars
    return node


cdef PatternNode anchor_node(int instruction):
    cdef PatternNode node = pattern_node(R_ANCHOR)
    node.low = instruction
    return node


cdef bint is_repeatable(PatternNode node) except -1:
    """Oniguruma refuses to repeat an anchor, or a choice of which one is."""
    cdef PatternNode kid
    if node.kind == R_ANCHOR or node.kind == R_LOOK or node.kind == R_KEEP:
        return False
    if node.kind == R_ALT:
        for kid in node.kids:
            if not is_repeatable(kid):
                return False
    return True


@cython.internal
@cython.final
cdef class PatternParser:
    cdef str text
    cdef Py_ssize_t at, size
    cdef int options, groups, depth
    # Name of each group by number, None if it has none.
    cdef list names
    cdef list calls
    # Highest group number referred to.
    cdef int referred
    # Groups that are referred to after they end.
    cdef set closed, referred_closed

    cdef PatternNode parse(self, str text, int options):
        cdef PatternNode node
        self.text = text
        self.size = len(text)
        self.options = options
        self.names = [None]
        self.calls = []
        self.closed = set()
        self.referred_closed = set()
        node = self.parse_choices()
        if self.at < self.size:
            refuse("unmatched close parenthesis")
        if self.referred > self.groups:
            refuse("invalid backref number/name")
        for call in self.calls:
            self.resolve(call)
        return node

    cdef int resolve(self, PatternNode call) except -1:
        """Finds the group a call means."""
        if type(call.key) is int:
            if not 0 <= call.key <= self.groups:
                refuse(f"undefined group <{call.key}> reference")
            call.low = call.key
            return 0
        if self.names.count(call.key) > 1:
            refuse(f"multiplex definition name <{call.key}> call")
        if call.key not in self.names:
            refuse(f"undefined name <{call.key}> reference")
        call.low = self.names.index(call.key)
        return 0

    cdef inline Py_UCS4 peek(self) except? -1:
        return self.text[self.at] if self.at < self.size else NO_CODE

    cdef Py_UCS4 next(self, str missing) except? -1:
        if self.at >= self.size:
            refuse(missing)
        self.at += 1
        return self.text[self.at - 1]

    cdef bint accept(self, str text) except -1:
        if self.text.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    cdef PatternNode parse_choices(self):
        """Up to a closing parenthesis or the end; options set within end with it."""
        cdef int options = self.options
        cdef list choices
        self.depth += 1
        if self.depth > running().bounds.regex_depth:
            refuse("too deep nest level")
        choices = [self.parse_branch()]
        while self.accept("|"):
            choices.append(self.parse_branch())
        self.depth -= 1
        self.options = options
        return choices[0] if len(choices) == 1 else pattern_node(R_ALT, choices)

    cdef PatternNode parse_branch(self):
        cdef list items = []
        cdef PatternNode item
        while self.skip():
            if self.text[self.at] == "|" or self.text[self.at] == ")":
                break
            item = self.parse_item()
            if item is not None:
                items.append(self.parse_repeats(item, items))
        if not items:
            return pattern_node(R_EMPTY)
        return items[0] if len(items) == 1 else pattern_node(R_CAT, items)

    cdef bint skip(self) except -1:
        """Passes over comments, and in extended patterns white space; False at the end."""
        cdef Py_UCS4 c
        while self.at < self.size:
            c = self.text[self.at]
            if c == "(" and self.accept("(?#"):
                while self.at < self.size and self.text[self.at] != ")":
                    self.at += 2 if self.text[self.at] == "\\" else 1
                self.next("end pattern in group")
            elif self.options & X_EXTENDED and c == "#":
                while self.at < self.size and self.text[self.at] != "\n":
                    self.at += 1
                self.at += 1
            elif self.options & X_EXTENDED and c in " \t\n\r\f":
                self.at += 1
            else:
                return True
        return False

    cdef PatternNode parse_item(self):
        """One element without its repetition; None for options that stand alone."""
        cdef Py_UCS4 c = self.text[self.at]
        cdef PatternNode node
        self.at += 1
        if c == "\\":
            return parse_pattern_escape(self)
        if c == "(":
            return self.parse_group()
        if c == "[":
            return parse_set(self)
        if c == ".":
            node = pattern_node(R_ANY)
            node.flag = (self.options & X_DOTALL) != 0
            return node
        if c == "^":
            return anchor_node(P_BEGIN_LINE if self.options & X_LINES else P_BEGIN)
        if c == "$":
            return anchor_node(P_END_LINE if self.options & X_LINES else P_END_OR_NEWLINE)
        if c in "*+?" or (c == "{" and self.parse_interval() is not None):
            refuse("target of repeat operator is not specified")
        return char_node(c, self.options & X_FOLD)

    # --- repetition ---

    cdef tuple parse_interval(self):
        """After `{`: the bounds, or None if it is no repetition and the brace stands for itself."""
        cdef Py_ssize_t start = self.at
        cdef object low = self.digits(6)
        cdef object high = low
        if low is None:
            self.at = start
            return None
        if self.accept(","):
            high = self.digits(6)
            if high is None:
                high = -1
        if not self.accept("}"):
            self.at = start
            return None
        if low > REPEAT_COUNT_MAX or high > REPEAT_COUNT_MAX:
            refuse("too big number for repeat range")
        if 0 <= high < low:
            refuse("upper is smaller than lower in repeat range")
        return low, high

    cdef object digits(self, int most):
        """A number; cut off beyond `most` digits, where it is refused as too big anyway."""
        cdef Py_ssize_t start = self.at
        while self.at < self.size and "0" <= self.text[self.at] <= "9":
            self.at += 1
        return int(self.text[start : min(self.at, start + most + 1)]) if self.at > start else None

    cdef PatternNode parse_repeats(self, PatternNode node, list items):
        cdef object low, high
        cdef bint lazy, possessive
        cdef tuple bounds
        while self.skip():
            c = self.text[self.at]
            if c not in "*+?{":
                break
            self.at += 1
            if c == "{":
                bounds = self.parse_interval()
                if bounds is None:
                    self.at -= 1
                    break
                low, high = bounds
            else:
                low = 1 if c == "+" else 0
                high = 1 if c == "?" else -1
            if not is_repeatable(node):
                refuse("target of repeat operator is invalid")
            lazy = self.accept("?")
            possessive = not lazy and self.accept("+")
            if node.kind == R_CAT and node.flag:
                # A quoted text: only its last character repeats.
                items.extend(node.kids[: len(node.kids) - 1])
                node = node.kids[len(node.kids) - 1]
            node = repeated(node, low, high, lazy)
            if possessive:
                node = pattern_node(R_ATOMIC, [node])
        return node

    # --- groups ---

    cdef PatternNode parse_group(self):
        cdef Py_UCS4 c
        if self.accept("*"):
            return self.parse_verb()
        if not self.accept("?"):
            return self.capture(None)
        c = self.next("end pattern in group")
        if c == ":":
            return self.close(self.parse_choices())
        if c == "=" or c == "!":
            return self.look(LOOK_AHEAD if c == "=" else LOOK_NOT_AHEAD)
        if c == ">":
            return pattern_node(R_ATOMIC, [self.close(self.parse_choices())])
        if c == "<" and (self.peek() == "=" or self.peek() == "!"):
            self.at += 1
            return self.look(LOOK_BEHIND if self.text[self.at - 1] == "=" else LOOK_NOT_BEHIND)
        if c == "<" or c == "'":
            if self.at >= self.size:
                refuse("end pattern with unmatched parenthesis")
            return self.capture(self.parse_name(">" if c == "<" else "'", False))
        if c == "(":
            return self.parse_condition()
        if c == "~" or c == "{":
            refuse(f"(?{c} is not supported")
        if c == "&" or c == "R" or c in "+0123456789" or (c == "-" and "0" <= self.peek() <= "9"):
            return self.parse_perl_call(c)
        return self.parse_options(c)

    cdef PatternNode parse_verb(self):
        if self.accept("FAIL)"):
            return pattern_node(R_FAIL)
        refuse("(* is not supported, but for (*FAIL)")

    cdef PatternNode close(self, PatternNode node):
        self.next("end pattern with unmatched parenthesis")
        if node.kind == R_CAT:
            # A quoted text in a group repeats as a whole.
            node.flag = False
        return node

    cdef PatternNode capture(self, str name):
        cdef PatternNode node
        cdef int number
        self.groups += 1
        number = self.groups
        self.names.append(name)
        node = pattern_node(R_GROUP, [self.close(self.parse_choices())])
        node.low = number
        self.closed.add(number)
        return node

    cdef PatternNode look(self, Look kind):
        cdef PatternNode node = pattern_node(R_LOOK, [self.close(self.parse_choices())])
        node.low = kind
        return node if kind < LOOK_BEHIND else behind_checked(node)

    cdef PatternNode parse_options(self, Py_UCS4 c):
        cdef int options = self.options
        cdef int option
        cdef bint negated = False
        cdef PatternNode node
        while c != ")" and c != ":":
            if c == "-":
                negated = True
            elif c in "imsx":
                option = X_FOLD if c == "i" else X_LINES if c == "m" else X_DOTALL if c == "s" else X_EXTENDED
                options = options & ~option if negated else options | option
            else:
                refuse("undefined group option")
            c = self.next("end pattern in group")
        if c == ")":
            # Lasts to the end of the group around it.
            self.options = options
            if self.skip() and (self.peek() in "*+?" or self.peek() == "{"):
                self.at += 1
                if self.text[self.at - 1] != "{" or self.parse_interval() is not None:
                    refuse("target of repeat operator is not specified")
                self.at -= 1
            return None
        option = self.options
        self.options = options
        node = self.close(self.parse_choices())
        self.options = option
        # An element of its own, that may be repeated even if it is an anchor.
        return node if is_repeatable(node) else pattern_node(R_CAT, [node])

    cdef PatternNode parse_condition(self):
        """`(?(condition)then|else)`, the condition a group's number or name or a pattern."""
        cdef PatternNode condition = None
        cdef PatternNode node, body
        cdef Py_UCS4 c = self.next("end pattern in group")
        cdef list groups = None
        if c == "<" or c == "'":
            groups = self.referenced(self.parse_name(">" if c == "<" else "'", True))
            if self.next("end pattern in group") != ")":
                refuse("end pattern in group")
        elif c in "+-0123456789":
            self.at -= 1
            groups = self.referenced(self.parse_name(")", True))
        else:
            self.at -= 1
            condition = self.close(self.parse_choices())
        if self.at >= self.size:
            refuse("end pattern in group")
        if self.accept(")"):
            if groups is None:
                refuse("invalid if-else syntax")
            node = pattern_node(R_CHECK)
            node.key = groups
            return node
        body = self.close(self.parse_choices())
        if body.kind == R_ALT:
            node = body.kids[1] if len(body.kids) == 2 else pattern_node(R_ALT, body.kids[1:])
            body = body.kids[0]
        else:
            node = pattern_node(R_EMPTY)
        node = pattern_node(R_CONDITION, [body, node, condition])
        node.key = groups
        return node

    # --- references ---

    cdef object parse_name(self, str end, bint reference):
        """A group's name up to `end`; of a reference also a number, relative ones counted from here."""
        cdef Py_ssize_t start = self.at
        cdef str name
        cdef object number
        while self.at < self.size and self.text[self.at] not in (end, ")"):
            self.at += 1
        name = self.text[start : self.at]
        if not name:
            refuse("group name is empty")
        if not self.accept(end):
            refuse(f"invalid group name <{name}>")
        if "0" <= name[0] <= "9" or name[0] in "+-":
            if not reference or not name.lstrip("+-").isdecimal() or not name.isascii() or len(name) > 8:
                refuse(f"invalid group name <{name}>")
            number = int(name)
            if name[0] == "-":
                number = self.groups + 1 + number
            elif name[0] == "+":
                number = self.groups + number
            return number
        if not is_word(name[0]):
            refuse(f"invalid group name <{name}>")
        if reference and name.rstrip("0123456789").endswith(("+", "-")) and name not in self.names:
            refuse(f"undefined name <{name}> reference")
        return name

    cdef list referenced(self, object name):
        """Numbers of the groups a name or number means."""
        cdef Py_ssize_t i
        cdef list groups
        if type(name) is int:
            if name <= 0:
                refuse("invalid backref number/name")
            self.referred = max(self.referred, name)
            return [name]
        groups = [i for i in range(len(self.names)) if self.names[i] == name]
        if not groups:
            refuse(f"undefined name <{name}> reference")
        return groups

    cdef PatternNode backref_node(self, list groups):
        cdef PatternNode node = pattern_node(R_BACKREF)
        node.key = groups
        self.referred_closed.update(self.closed.intersection(groups))
        node.fold = (self.options & X_FOLD) != 0
        return node

    cdef PatternNode call_node(self, object key):
        cdef PatternNode node = pattern_node(R_CALL)
        node.key = key
        self.calls.append(node)
        return node

    cdef PatternNode parse_perl_call(self, Py_UCS4 c):
        """`(?1)`, `(?-1)`, `(?&name)`."""
        if c == "R":
            # Oniguruma takes this one's parenthesis for an unmatched one.
            refuse("unmatched close parenthesis")
        if c != "&":
            self.at -= 1
        return self.call_node(self.parse_name(")", c != "&"))
