"""Stage 2, compile: a document's text as plain data, with source positions on demand.

Rules: JSON takes a scanner of our own, everything else YAML 1.2 core. Size, depth and expanded values are bounded
before they cost anything. Problems that leave the data readable (duplicate keys, keys that are no strings) are
collected, so that validation goes on and all problems come at once; the others end the load. Good documents do not pay
for positions: the text is read a second time, with positions, when the first problem asks for one.
"""

from fastrunner.limits import (
    DOCUMENT_DEPTH_MAX as _DOCUMENT_DEPTH_MAX,
    DOCUMENT_KEY_SIZE_MAX as _DOCUMENT_KEY_SIZE_MAX,
    DOCUMENT_NODES_MAX as _DOCUMENT_NODES_MAX,
    DOCUMENT_SIZE_BYTES_MAX as _DOCUMENT_SIZE_BYTES_MAX,
)

cimport cython

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL

cdef Py_ssize_t DEPTH_MAX = _DOCUMENT_DEPTH_MAX
cdef Py_ssize_t KEY_SIZE_MAX = _DOCUMENT_KEY_SIZE_MAX
cdef Py_ssize_t NODES_MAX = _DOCUMENT_NODES_MAX
cdef Py_ssize_t SIZE_BYTES_MAX = _DOCUMENT_SIZE_BYTES_MAX


@cython.final
cdef class Mark:
    """Where a value and the key before it stand in the text."""


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


cdef Mark inner_mark(Mark mark, str segment):
    if mark.members is not None:
        return mark.members.get(segment)
    if mark.items is not None and segment.isdecimal() and len(segment) < 10 and int(segment) < len(mark.items):
        return mark.items[int(segment)]
    return None


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
    return before.count("\n") + 1, len(before) - before.rfind("\n")


cdef bint looks_like_json(str text):
    cdef Py_UCS4 character
    for character in text:
        if character not in (u" ", u"\n", u"\r", u"\t"):
            return character in (u"{", u"[")
    return False


cdef Document read_document(object source):
    """Reads YAML or JSON. Raises InvalidWorkflow for text that does not parse."""
    cdef Document document = Document.__new__(Document)
    cdef JsonScanner scanner
    document.text = document_text(source)
    document.programs = {}
    if looks_like_json(document.text):
        scanner = JsonScanner.__new__(JsonScanner)
        scanner.open(document.text, False)
        try:
            document.root = scanner.document()
        except _JsonSyntaxError as error:
            read_yaml_flow(document, error)
        else:
            document.is_json = True
            document.problems = scanner.problems
    else:
        read_yaml(document)
    return document


cdef int read_yaml(Document document) except -1:
    try:
        compose(document)
    except InvalidWorkflow as error:
        if error.problems[0].code != "syntax-error":
            raise
        document.is_respelled = True
        try:
            compose(document)
        except (InvalidWorkflow, LookupError):
            raise error from None
    return 0


cdef int compose(Document document) except -1:
    cdef YamlComposer composer = YamlComposer.__new__(YamlComposer)
    composer.open(document.text, False, document.is_respelled)
    document.root = composer.document()
    document.problems = composer.problems
    return 0


cdef int read_yaml_flow(Document document, object json_error) except -1:
    """Text that opens like JSON and is none may be YAML's flow style; if neither parses, the author meant JSON."""
    try:
        read_yaml(document)
    except InvalidWorkflow as error:
        if error.problems[0].code != "syntax-error" or json_error.is_bare_key:
            raise
        raise single_problem("syntax-error", json_error.line, json_error.column, json_error.message) from None
    return 0


cdef Mark read_marks(Document document):
    """Reads the text again, this time for positions. It parsed once, so it parses again."""
    cdef JsonScanner scanner
    cdef YamlComposer composer
    if document.is_json:
        scanner = JsonScanner.__new__(JsonScanner)
        scanner.open(document.text, True)
        scanner.document()
        return scanner.mark
    composer = YamlComposer.__new__(YamlComposer)
    composer.open(document.text, True, document.is_respelled)
    composer.document()
    return composer.mark


def load(text):
    """The data of a YAML (1.2 core schema) or JSON document. Raises InvalidWorkflow; positions are in its problems."""
    cdef Document document = read_document(text)
    if document.problems:
        raise InvalidWorkflow(document.problems)
    return document.root
