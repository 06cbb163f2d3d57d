"""Stage 2, compile: a document's text as plain data, with marks of where each value stands on demand.

Rules: text that opens like JSON is read as JSON, everything else, and what is none, as YAML 1.2 with the core schema;
what was meant as JSON and is none is refused where YAML would make other data of it. Size, depth and expanded values
are bounded before they cost anything. Problems that leave the data readable (duplicate keys, keys that are no strings)
are collected, so that validation goes on and all problems come at once; the others end the load. Good documents do not
pay for marks: the text is read a second time, with marks, when the first problem asks for one.
"""

cimport cython
from fastrunner.base.limits import DOCUMENT_COMPILE_STEPS_MAX as _DOCUMENT_COMPILE_STEPS_MAX

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


@cython.final
cdef class Document:
    """A document's data, the problems its text had, and the expressions validation compiles for the plan."""

    cdef (Py_ssize_t, Py_ssize_t) position(self, str pointer, bint key):
        """Line and column of the value at a JSON pointer, or of its key. The nearest one known for an absent value."""
        cdef Mark mark
        cdef Mark inner
        cdef str segment
        if self.mark is None:
            self.mark = read_marks(self)
        mark = self.mark
        if pointer:
            for segment in pointer[1:].split("/"):
                inner = inner_mark(mark, segment.replace("~1", "/").replace("~0", "~"))
                if inner is None:
                    return mark.line, mark.column
                mark = inner
        if key and mark.key_line:
            return mark.key_line, mark.key_column
        return mark.line, mark.column


cdef str document_text(object source):
    """The text of a document given as str or bytes, checked for encoding and size. Raises InvalidWorkflow."""
    cdef Py_ssize_t size = 0
    cdef str text
    if isinstance(source, bytes):
        if len(source) > SIZE_BYTES_MAX:
            raise too_large(len(source))
        try:
            text = (<bytes>source).decode("utf-8")
        except UnicodeDecodeError as error:
            raise bad_encoding((<bytes>source)[:error.start].decode("utf-8"), "is not valid UTF-8") from None
    elif isinstance(source, str):
        text = source
        if len(text) > SIZE_BYTES_MAX:
            raise too_large(len(text))
        try:
            PyUnicode_AsUTF8AndSize(text, &size)
        except UnicodeEncodeError as error:
            raise bad_encoding(text[:error.start], "is an unpaired surrogate") from None
        if size > SIZE_BYTES_MAX:
            raise too_large(size)
    else:
        raise TypeError(f"a document is str or bytes, not {type(source).__name__}")
    return text[1:] if text.startswith("\ufeff") else text


cdef object too_large(Py_ssize_t size):
    return single_problem("document-too-large", 1, 1,
                          f"the document has {size} bytes; the limit is {SIZE_BYTES_MAX} bytes")


cdef object bad_encoding(str before, str what):
    cdef Py_ssize_t line, column
    line, column = line_and_column(before)
    return single_problem("invalid-encoding", line, column, f"the next character {what}; documents are UTF-8 text")


cdef (Py_ssize_t, Py_ssize_t) line_and_column(str before):
    """Line and column, from 1, of the character after `before`."""
    before = before.replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - before.rfind("\n")


cdef bint looks_like_json(str text):
    cdef Py_UCS4 character
    for character in text:
        if character not in (u" ", u"\n", u"\r", u"\t"):
            return character in (u"{", u"[")
    return False


# A unit of reading is far smaller than one of checking, which is a task or an expression.
cdef Py_ssize_t READING_UNITS_PER_STEP = 20


@cython.internal
@cython.final
cdef class Reading:
    """The reading of a document, in steps. Raises InvalidWorkflow for text that does not parse."""

    cdef Document document
    cdef Yaml yaml
    # Why the text is no JSON, where it opens like it.
    cdef object json_error

    def __init__(self, object source):
        self.document = Document.__new__(Document)
        self.document.text = document_text(source)
        self.document.programs = {}
        self.document.steps_left = _DOCUMENT_COMPILE_STEPS_MAX

    cdef bint step(self, Py_ssize_t budget) except -1:
        """Reads on for `budget` units and says whether `document` is complete. A unit is about half a microsecond: four
        values, or 256 characters. One scalar, and JSON, is one step whatever its size.
        """
        if self.document.problems is not None:
            return True
        if self.yaml is None and looks_like_json(self.document.text) and self.read_json():
            return True
        if self.yaml is None:
            self.yaml = Yaml.__new__(Yaml)
            self.yaml.open(self.document.text, False)
            self.yaml.opens_like_json = self.json_error is not None
        try:
            if not step_yaml(self.yaml, budget):
                return False
        except InvalidWorkflow as error:
            if self.json_error is None or self.json_error.is_bare_key or error.problems[0].code != "syntax-error":
                raise
            raise self.no_json() from None
        if self.is_broken_json():
            raise self.no_json()
        self.document.root = self.yaml.root
        self.document.problems = self.yaml.problems
        self.yaml = None
        return True

    cdef bint read_json(self) except -1:
        """Says whether the text is JSON."""
        cdef JsonScanner scanner = JsonScanner.__new__(JsonScanner)
        scanner.open(self.document.text, False)
        try:
            self.document.root = scanner.document()
        except _JsonSyntaxError as error:
            self.json_error = error
            return False
        self.document.is_json = True
        self.document.problems = scanner.problems
        return True

    cdef bint is_broken_json(self) except -1:
        """Is this no YAML but JSON, and would be read as other data than its author meant?"""
        if self.json_error is None or self.json_error.is_bare_key:
            return False
        return self.yaml.has_mistaken_text and not self.yaml.has_bare_keys

    cdef object no_json(self):
        return single_problem("syntax-error", self.json_error.line, self.json_error.column, self.json_error.message)


cdef Document read_document(object source):
    """Reads YAML or JSON. Raises InvalidWorkflow for text that does not parse."""
    cdef Reading reading = Reading(source)
    while not reading.step(SIZE_BYTES_MAX):
        pass
    return reading.document


cdef Mark read_marks(Document document):
    """Reads the text again, this time for marks. It parsed once, so it parses again."""
    cdef JsonScanner scanner
    cdef Yaml yaml
    if document.is_json:
        scanner = JsonScanner.__new__(JsonScanner)
        scanner.open(document.text, True)
        scanner.document()
        return scanner.mark
    yaml = Yaml.__new__(Yaml)
    yaml.open(document.text, True)
    while not step_yaml(yaml, SIZE_BYTES_MAX):
        pass
    return yaml.mark


def load(text):
    """The data of a YAML (1.2 core schema) or JSON document. Raises InvalidWorkflow; positions are in its problems."""
    cdef Document document = read_document(text)
    if document.problems:
        raise InvalidWorkflow(document.problems)
    return document.root


def load_in_steps(text, Py_ssize_t budget, bint takes_any_key=False):
    """Loads as `load` does and returns what it returns, but yields after each step of about `budget` units of reading.
    JSON, and one scalar, is one step. With `takes_any_key` a key that is no string is its text."""
    cdef Reading reading = Reading(text)
    cdef list problems
    while not reading.step(budget):
        yield
    problems = [each for each in reading.document.problems if not (takes_any_key and each.code == "non-string-key")]
    if problems:
        raise InvalidWorkflow(problems)
    return reading.document.root
