"""Stage 2, compile: the state of a reading of YAML.

Rules: a machine over characters, with states instead of recursion: between two steps the text is read up to `at`, and
the collections that are not complete are frames, one within the other.
"""

cimport cython
from libc.stdlib cimport free
from cpython.mem cimport PyMem_Free

cdef extern from "Python.h":
    Py_UCS4* PyUnicode_AsUCS4Copy(object text) except NULL

cdef enum YamlState:
    YAML_BEGIN
    # A value in block style comes next.
    YAML_NODE
    # A value in block style is complete.
    YAML_NEXT
    YAML_IN_FLOW
    # The document's value is complete.
    YAML_END
    YAML_DONE

cdef enum YamlKind:
    YAML_BLOCK_LIST
    YAML_BLOCK_MAPPING
    YAML_FLOW_LIST
    YAML_FLOW_MAPPING
    YAML_FLOW_PAIR

cdef enum YamlExpectation:
    # What a collection waits for; a list that waits for a value has YAML_ENTRY.
    YAML_ENTRY
    YAML_KEY
    YAML_KEY_END
    YAML_VALUE
    YAML_ENTRY_END


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
cdef class Properties:
    """Tag and anchor of a value, and where they start."""

    cdef str tag
    cdef str anchor
    cdef Py_ssize_t line
    cdef Py_ssize_t column


@cython.internal
@cython.final
@cython.freelist(32)
cdef class YamlFrame:
    """A collection that is not complete yet."""

    cdef YamlFrame parent
    cdef int kind
    cdef int state
    # Of its first entry, in block style.
    cdef Py_ssize_t indent
    cdef list items
    cdef dict members
    cdef str key
    cdef Py_ssize_t key_line
    cdef Py_ssize_t key_column
    # Where it starts: its value, and its own text.
    cdef Py_ssize_t line
    cdef Py_ssize_t column
    cdef Py_ssize_t start
    cdef Py_ssize_t start_line
    cdef str anchor
    cdef Py_ssize_t nodes_before
    cdef Py_ssize_t deepest_before
    cdef Mark mark


@cython.internal
@cython.final
cdef class Yaml:
    """A text, how far it is read, and the values that are not complete yet."""

    cdef str text
    cdef Py_UCS4* buffer
    cdef Py_ssize_t size
    cdef Py_ssize_t at
    cdef Py_ssize_t line
    cdef Py_ssize_t line_start
    # Of the white space passed last: does the text after it begin its line, behind how many spaces, behind a tab?
    cdef bint fresh
    cdef bint tabbed
    cdef Py_ssize_t indent
    cdef Py_ssize_t breaks
    # Text of a scalar that is not a piece of the document's. No escape and no fold is longer than what it stands for,
    # so it has room from the start.
    cdef Py_UCS4* out
    cdef Py_ssize_t out_size
    # The node that is about to be read in block style: the indentation of what holds it, whether a collection may begin
    # on this line, whether a list may stand as far left as the key that holds it.
    cdef int state
    cdef Py_ssize_t parent_indent
    cdef bint compact
    cdef bint may_align
    cdef Py_ssize_t flow_indent
    # What is known of it: properties on the lines above and on its own line, and where its own line's text starts.
    cdef Properties outer
    cdef Properties inner
    cdef Py_ssize_t start
    cdef bint behind_tab
    # The scalar read last.
    cdef int style
    cdef str scalar
    cdef bint quoted_key
    cdef Mark alias_mark
    # The values around it.
    cdef YamlFrame top
    cdef Py_ssize_t depth
    cdef Py_ssize_t deepest
    cdef Py_ssize_t nodes
    cdef dict anchors
    cdef dict handles
    cdef list problems
    cdef object root
    cdef bint marked
    cdef Mark mark
    # Of text that opens like JSON: has it a key without quotes, and something that YAML takes for text though whoever
    # writes JSON does not mean it so?
    cdef bint opens_like_json
    cdef bint has_bare_keys
    cdef bint has_mistaken_text

    def __dealloc__(self):
        PyMem_Free(self.buffer)
        free(self.out)

    cdef int open(self, str text, bint marked) except -1:
        self.text = text
        self.size = len(text)
        self.buffer = PyUnicode_AsUCS4Copy(text)
        self.line = 1
        self.anchors = {}
        self.handles = {"!": "!", "!!": YAML_TAG_PREFIX}
        self.problems = []
        self.marked = marked
        self.state = YAML_BEGIN
        return 0
