"""Stage 2, compile: problems of a document and the exception that carries them.

Rules: a problem's code is stable and documented in docs/validation.md; its message says what is allowed. Names an
author wrote (keys, task names, references) may appear in a message, cut short; values of a document never do.
"""

from itertools import islice

from fastrunner.base.limits import PROBLEMS_MAX as _PROBLEMS_MAX

cimport cython
from cpython.object cimport PyObject

cdef Py_ssize_t PROBLEMS_MAX = _PROBLEMS_MAX
cdef enum:
    NAME_SHOWN_MAX = 60
    NAMES_LISTED_MAX = 24
    NAMES_COMPARED_MAX = 100


@cython.final
cdef class Problem:
    """One problem of a document, or a warning. Line and column count from 1 and point at the offending key or value."""

    cdef readonly str code
    cdef readonly str pointer
    cdef readonly Py_ssize_t line
    cdef readonly Py_ssize_t column
    cdef readonly str message
    cdef readonly str severity

    def __init__(self, str code not None, str pointer not None, Py_ssize_t line, Py_ssize_t column,
                 str message not None, str severity not None="error"):
        self.code = code
        self.pointer = pointer
        self.line = line
        self.column = column
        self.message = message
        self.severity = severity

    def __eq__(self, other):
        if not isinstance(other, Problem):
            return NotImplemented
        return problem_key(self) == problem_key(<Problem>other) and self.severity == (<Problem>other).severity

    def __hash__(self):
        return hash(problem_key(self))

    def __repr__(self):
        return (f"Problem(code={self.code!r}, pointer={self.pointer!r}, line={self.line}, column={self.column}, "
                f"message={self.message!r}, severity={self.severity!r})")

    def __reduce__(self):
        return Problem, (self.code, self.pointer, self.line, self.column, self.message, self.severity)


cdef struct Path:
    # A JSON pointer as a chain of frames on the C stack: it costs nothing until a problem needs it.
    Path* parent
    PyObject* key  # a str: the member's name, or a whole pointer; NULL where `index` counts
    Py_ssize_t index


cdef enum:
    PATH_POINTER = -1  # in place of an index: `key` is the pointer of what the chain began in


cdef str escape_pointer(str name):
    """A name as a segment of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


cdef str pointer_of(Path* path):
    """The JSON pointer (RFC 6901) of a path."""
    cdef list segments = []
    cdef str start = ""
    while path is not NULL:
        if path.key is NULL:
            segments.append(str(path.index))
        elif path.index == PATH_POINTER:
            start = <str>path.key
        else:
            segments.append((<str>path.key).replace("~", "~0").replace("/", "~1"))
        path = path.parent
    if not segments:
        return start
    segments.reverse()
    return f"{start}/{'/'.join(segments)}"


cdef tuple problem_key(Problem problem):
    return problem.line, problem.column, problem.pointer, problem.code, problem.message


class InvalidWorkflow(ValueError):
    """A document that does not parse or validate; carries all problems in document order."""

    def __init__(self, problems):
        self.problems = tuple(problems)
        first = self.problems[0]
        more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
        super().__init__(f"{first.line}:{first.column}: {first.message}{more}")

    def __reduce__(self):
        return InvalidWorkflow, (self.problems,)


cdef object single_problem(str code, Py_ssize_t line, Py_ssize_t column, str message):
    """InvalidWorkflow for a document that cannot be read further."""
    return InvalidWorkflow((Problem(code, "", line, column, message),))


cdef str shown(object name):
    """A name an author wrote, quoted and cut to a readable length."""
    cdef str text = str(name)
    if len(text) > NAME_SHOWN_MAX:
        text = text[:NAME_SHOWN_MAX] + "..."
    return repr(text)


cdef str json_type_name(object value):
    """The JSON type of a value, with its article."""
    if value is None:
        return "null"
    if type(value) is bool:
        return "a boolean"
    if type(value) is int or type(value) is float:
        return "a number"
    if type(value) is str:
        return "a string"
    return "a list" if type(value) is list else "an object"


cdef str listed(object names):
    """Allowed names as prose; long lists are cut."""
    cdef list shortened = [str(name) for name in islice(names, NAMES_LISTED_MAX)]
    if len(names) > NAMES_LISTED_MAX:
        shortened.append("...")
    return ", ".join(shortened)


cdef int edit_distance(str left, str right):
    """Insertions, deletions, replacements and swaps between words of at most NAME_SHOWN_MAX characters."""
    cdef int[3][NAME_SHOWN_MAX + 1] rows
    cdef int size = <int>len(left), columns = <int>len(right), i, j, cost, best
    cdef int* before
    cdef int* previous
    cdef int* current
    for j in range(columns + 1):
        rows[0][j] = j
    for i in range(1, size + 1):
        current = rows[i % 3]
        previous = rows[(i + 2) % 3]
        before = rows[(i + 1) % 3]
        current[0] = i
        for j in range(1, columns + 1):
            cost = 0 if left[i - 1] == right[j - 1] else 1
            best = min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + cost)
            if i > 1 and j > 1 and left[i - 1] == right[j - 2] and left[i - 2] == right[j - 1]:
                best = min(best, before[j - 2] + 1)
            current[j] = best
    return rows[size % 3][columns]


cdef str closest(str word, object candidates):
    """The candidate an author most likely meant, or None. Only the first NAMES_COMPARED_MAX are looked at."""
    cdef str lowered = word.lower()
    cdef str candidate
    cdef int best = 2 if len(word) < 4 else 3
    cdef int distance
    cdef str found = None
    if len(lowered) > NAME_SHOWN_MAX:
        return None
    for candidate in islice(candidates, NAMES_COMPARED_MAX):
        if abs(len(candidate) - len(lowered)) < best and len(candidate.lower()) <= NAME_SHOWN_MAX:
            distance = edit_distance(lowered, candidate.lower())
            if distance < best:
                best = distance
                found = candidate
    return found


cdef str did_you_mean(str word, object candidates):
    """`; did you mean 'x'?` or nothing."""
    cdef str candidate = closest(word, candidates)
    return "" if candidate is None else f"; did you mean {shown(candidate)}?"
