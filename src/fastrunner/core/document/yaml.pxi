"""Stage 2, compile: the YAML composer, over the event stream of libyaml.

Rules: scalars follow the core schema of YAML 1.2 and nothing else: `on` and `yes` are strings, timestamps are strings,
`<<` is a key like any other, numbers have no underscores. Only JSON's data can come out: tags of other types, keys that
are no strings, infinities and NaN are problems. An alias costs what its expansion would.

libyaml reads YAML 1.1, where a plain scalar within { } or [ ] may not contain ':' or '?': `{uri: http://x/y?z}` fails.
Text that fails is read once more with stand-ins (private-use characters that the text does not have) for these two.
"""

cimport cython

from cpython.ref cimport PyObject

from _ruamel_yaml import (
    AliasEvent as _AliasEvent,
    ComposerError as _ComposerError,
    CParser as _CParser,
    MappingEndEvent as _MappingEndEvent,
    MappingStartEvent as _MappingStartEvent,
    ParserError as _ParserError,
    ReaderError as _ReaderError,
    ScalarEvent as _ScalarEvent,
    ScannerError as _ScannerError,
    SequenceEndEvent as _SequenceEndEvent,
    StreamEndEvent as _StreamEndEvent,
)

# A text counts as one value more for each so many characters, so that aliases cannot repeat a long one for nothing.
cdef Py_ssize_t TEXT_PER_VALUE = 100
cdef str YAML_TAG_PREFIX = "tag:yaml.org,2002:"

# What to do about the messages of libyaml that authors meet most.
cdef dict YAML_REMEDIES = {
    "mapping values are not allowed in this context": "quote a value that contains ': '",
    "found character that cannot start any token": "quote a value that starts with @, ` or %, and indent with spaces",
    "found character '\\t(TAB)' that cannot start any token": "indent with spaces, never with tabs",
    "did not find expected key": "check the indentation and quote values that contain special characters",
    "did not find expected '-' indicator": "align the items of a list",
    "could not find expected ':'": "a key needs a ':' and a space after it",
    "found unknown escape character": "write text with backslashes in single quotes",
    "did not find expected <document start>": "check the indentation of the first lines",
    "did not find expected ',' or '}'": "close the mapping, or quote a value that starts with '{'",
    "did not find expected ',' or ']'": "close the list, or quote a value that starts with '['",
    "found unexpected end of stream": "close the quoted text",
}


@cython.internal
@cython.final
cdef class Anchor:
    """A value that aliases may repeat, and what one repetition costs."""

    cdef object value
    cdef Py_ssize_t nodes
    cdef Py_ssize_t height
    cdef Mark mark


@cython.internal
@cython.final
cdef class YamlComposer:
    cdef str text
    cdef object next_event
    cdef dict anchors
    cdef Py_ssize_t nodes
    cdef Py_ssize_t deepest
    cdef bint positions
    cdef list problems
    cdef Mark mark
    cdef str colon
    cdef str question

    cdef int open(self, str text, bint positions, bint respelled) except -1:
        self.text = text
        if respelled:
            self.colon = unused_character(text, 0xE000)
            self.question = unused_character(text, 0xF000)
            text = respell(text, self.colon, self.question)
        self.next_event = _CParser(text).get_event
        self.anchors = {}
        self.positions = positions
        self.problems = []
        return 0

    cdef object document(self):
        """The one document of the stream. Raises InvalidWorkflow."""
        cdef object value
        try:
            self.next_event()
            event = self.next_event()
            if type(event) is _StreamEndEvent:
                raise single_problem("empty-document", 1, 1, "the document is empty; expected a workflow definition")
            event = self.next_event()
            self.mark = self.new_mark(event)
            value = self.value(event, NULL, 0, self.mark)
            self.next_event()
            event = self.next_event()
        except (_ParserError, _ScannerError, _ComposerError, _ReaderError) as error:
            raise yaml_problem(error, self.text) from None
        if type(event) is not _StreamEndEvent:
            raise single_problem("multiple-documents", event.start_mark.line + 1, event.start_mark.column + 1,
                                 "a second YAML document starts here; send one workflow at a time")
        return value

    cdef Mark new_mark(self, object event):
        cdef Mark mark
        if not self.positions:
            return None
        mark = Mark.__new__(Mark)
        mark.line = event.start_mark.line + 1
        mark.column = event.start_mark.column + 1
        return mark

    cdef int count(self, object event, Py_ssize_t nodes, Py_ssize_t depth) except -1:
        self.nodes += nodes
        if self.nodes > NODES_MAX:
            raise too_many_values(event.start_mark.line + 1, event.start_mark.column + 1)
        if depth > DEPTH_MAX:
            raise too_deep(event.start_mark.line + 1, event.start_mark.column + 1)
        if depth > self.deepest:
            self.deepest = depth
        return 0

    cdef object value(self, object event, Path* path, Py_ssize_t depth, Mark mark):
        cdef object kind = type(event)
        cdef object anchor
        cdef object result
        cdef Py_ssize_t nodes_before, deepest_before = 0
        if kind is _AliasEvent:
            return self.alias(event, depth, mark)
        nodes_before = self.nodes
        anchor = event.anchor
        if anchor is not None:
            self.anchors[anchor] = None
            deepest_before = self.deepest
            self.deepest = depth
        if kind is _ScalarEvent:
            self.count(event, 1 + len(event.value) // TEXT_PER_VALUE, depth)
            result = self.scalar(event, path)
        elif kind is _MappingStartEvent:
            self.count(event, 1, depth + 1)
            result = self.mapping(event, path, depth, mark)
        else:
            self.count(event, 1, depth + 1)
            result = self.sequence(event, path, depth, mark)
        if anchor is not None:
            self.keep(anchor, result, self.nodes - nodes_before, self.deepest - depth, mark)
            if deepest_before > self.deepest:
                self.deepest = deepest_before
        return result

    cdef int keep(self, str name, object value, Py_ssize_t nodes, Py_ssize_t height, Mark mark) except -1:
        cdef Anchor anchor = Anchor.__new__(Anchor)
        anchor.value = value
        anchor.nodes = nodes
        anchor.height = height
        anchor.mark = mark
        self.anchors[name] = anchor
        return 0

    cdef object alias(self, object event, Py_ssize_t depth, Mark mark):
        cdef Anchor anchor
        if event.anchor not in self.anchors:
            raise single_problem("invalid-alias", event.start_mark.line + 1, event.start_mark.column + 1,
                                 f"the alias {shown('*' + event.anchor)} has no anchor before it")
        anchor = self.anchors[event.anchor]
        if anchor is None:
            raise single_problem("invalid-alias", event.start_mark.line + 1, event.start_mark.column + 1,
                                 f"the alias {shown('*' + event.anchor)} stands within its own anchor")
        self.count(event, anchor.nodes, depth + anchor.height)
        if mark is not None and anchor.mark is not None:
            mark.members = anchor.mark.members
            mark.items = anchor.mark.items
        return anchor.value

    cdef int collection_tag(self, object event, Path* path, str allowed) except -1:
        cdef object tag = event.tag
        if tag is not None and tag != "!" and tag != YAML_TAG_PREFIX + allowed:
            self.foreign_tag(event, path)
        return 0

    cdef int foreign_tag(self, object event, Path* path) except -1:
        cdef str tag = event.tag.replace(YAML_TAG_PREFIX, "!!")
        self.problem("unsupported-tag", event, path,
                     f"the tag {shown(tag)} is not allowed here; a document holds JSON data, so only the tags "
                     "!!str, !!int, !!float, !!bool, !!null, !!map and !!seq are, each on its own type")
        return 0

    cdef int problem(self, str code, object event, Path* path, str message) except -1:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(code, pointer_of(path), event.start_mark.line + 1,
                                         event.start_mark.column + 1, message))
        return 0

    cdef dict mapping(self, object event, Path* path, Py_ssize_t depth, Mark mark):
        cdef dict members = {}
        cdef Path inner
        cdef Mark member
        cdef object key_event
        cdef str key
        inner.parent = path
        inner.index = 0
        self.collection_tag(event, path, "map")
        if mark is not None:
            mark.members = {}
        while True:
            key_event = self.next_event()
            if type(key_event) is _MappingEndEvent:
                return members
            key = self.key(key_event, path, depth)
            inner.key = <PyObject*>key
            if key in members:
                self.problem("duplicate-key", key_event, &inner,
                             f"the key {shown(key)} stands twice in one mapping; keep one")
            event = self.next_event()
            member = self.new_mark(event)
            members[key] = self.value(event, &inner, depth + 1, member)
            if member is not None:
                member.key_line = key_event.start_mark.line + 1
                member.key_column = key_event.start_mark.column + 1
                mark.members[key] = member

    cdef str key(self, object event, Path* path, Py_ssize_t depth):
        """The text of a key; of one that is no string too, after a problem."""
        cdef object value = self.value(event, path, depth + 1, self.new_mark(event))
        if type(value) is str:
            if len(<str>value) > KEY_SIZE_MAX:
                raise key_too_long(value, event.start_mark.line + 1, event.start_mark.column + 1)
            return value
        if type(event) is _ScalarEvent:
            self.problem("non-string-key", event, path,
                         f"the key {shown(self.text_of(event))} is {json_type_name(value)}; keys are strings: quote it")
            return self.text_of(event)
        self.problem("non-string-key", event, path, f"a key is {json_type_name(value)}; keys are strings")
        return "?"

    cdef list sequence(self, object event, Path* path, Py_ssize_t depth, Mark mark):
        cdef list items = []
        cdef Path inner
        cdef Mark item
        inner.parent = path
        inner.key = NULL
        inner.index = 0
        self.collection_tag(event, path, "seq")
        if mark is not None:
            mark.items = []
        while True:
            event = self.next_event()
            if type(event) is _SequenceEndEvent:
                return items
            item = self.new_mark(event)
            items.append(self.value(event, &inner, depth + 1, item))
            if item is not None:
                mark.items.append(item)
            inner.index += 1

    cdef str text_of(self, object event):
        cdef str text = event.value
        if self.colon is not None:
            return text.replace(self.colon, ":").replace(self.question, "?")
        return text

    cdef object scalar(self, object event, Path* path):
        cdef str text = self.text_of(event)
        cdef object tag = event.tag
        cdef object value
        if tag is None:
            if not event.implicit[0]:
                return text
            value = core_scalar(text)
        elif tag == "!" or tag == YAML_TAG_PREFIX + "str":
            return text
        else:
            return self.tagged_scalar(event, path, text)
        if value is NOT_JSON:
            self.not_json(event, path)
            return text
        return value

    cdef object tagged_scalar(self, object event, Path* path, str text):
        cdef str tag = event.tag[len(YAML_TAG_PREFIX):] if event.tag.startswith(YAML_TAG_PREFIX) else "?"
        cdef object value = core_scalar(text)
        if value is NOT_JSON and tag == "float":
            self.not_json(event, path)
        elif tag == "null" and value is None:
            return value
        elif tag == "bool" and type(value) is bool:
            return value
        elif tag == "int" and type(value) is int:
            return value
        elif tag == "float" and (type(value) is float or type(value) is int):
            return float(value)
        elif tag in ("null", "bool", "int", "float"):
            self.problem("invalid-scalar", event, path, f"the text under the tag '!!{tag}' is no {tag} of YAML 1.2")
        else:
            self.foreign_tag(event, path)
        return text

    cdef int not_json(self, object event, Path* path) except -1:
        self.problem("invalid-scalar", event, path,
                     "infinity, NaN and numbers beyond a double (about 1.8e308) are no JSON data; quote text")
        return 0


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
    if u"0" <= first <= u"9" or first == u"-" or first == u"+" or first == u".":
        return CORE_WORDS[text] if text in CORE_WORDS else core_number(text, size)
    if size <= 5 and text in CORE_WORDS:
        return CORE_WORDS[text]
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


cdef str unused_character(str text, int first):
    """A private-use character that the text does not have. Raises LookupError if it has all that are tried."""
    cdef int code
    for code in range(first, first + 8):
        if chr(code) not in text:
            return chr(code)
    raise LookupError


cdef str respell(str text, str colon, str question):
    """The text with stand-ins for each ':' and '?' within a word, where YAML 1.2 takes them as part of it."""
    cdef list parts = []
    cdef Py_ssize_t size = len(text), at, start = 0
    cdef Py_UCS4 character
    for at in range(1, size - 1):
        character = text[at]
        if character == u":" and text[at - 1] not in u" \t\n\r,[]{}'\"" and text[at + 1] not in u" \t\n\r,[]{}":
            parts.append(text[start:at])
            parts.append(colon)
            start = at + 1
        elif character == u"?" and text[at - 1] not in u" \t\n\r,[]{}":
            parts.append(text[start:at])
            parts.append(question)
            start = at + 1
    parts.append(text[start:])
    return "".join(parts)


cdef object yaml_problem(object error, str text):
    """The problem of an error of libyaml."""
    cdef str what
    cdef Py_ssize_t line, column
    if isinstance(error, _ReaderError):
        line, column = line_and_column(text.encode()[:error.position].decode(errors="ignore"))
        return single_problem("syntax-error", line, column,
                              f"YAML: {error.reason}; remove the character or write it as an escape in double quotes")
    what = str(error.problem)
    line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
    column = error.problem_mark.column + 1 if error.problem_mark is not None else 1
    message = f"YAML: {what}"
    if error.context:
        message += f" {error.context}"
        if error.context_mark is not None and error.context_mark.line + 1 != line:
            message += f" that starts on line {error.context_mark.line + 1}"
    remedy = YAML_REMEDIES.get(what)
    return single_problem("syntax-error", line, column, message if remedy is None else f"{message}; {remedy}")
