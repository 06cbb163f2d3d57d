"""Stage 2, compile: where the tasks of a document stand in its text, by the references that events have.

Theory of operation: the data is walked beside its shapes, which know where lists of tasks are, and beside its marks. A
task ends where what follows it begins, without blank lines, and without comments and brackets that stand further out.

Rule: it tells of the document's own tasks; functions, extensions and what comes from elsewhere have no place of theirs.
"""

cimport cython


class TaskPlace:
    """Where one task stands."""

    __slots__ = ("column", "end_line", "kind", "line", "name", "reference")

    def __init__(self, reference, name, kind, line, column, end_line):
        self.reference = reference
        self.name = name
        self.kind = kind
        self.line = line
        self.column = column
        self.end_line = end_line


@cython.internal
@cython.final
cdef class Outline:
    """The places of a document's tasks, as they are found."""

    cdef list lines
    cdef list places

    def __init__(self, str text):
        self.lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self.places = []

    cdef int of_value(self, Shape shape, object value, Mark mark, str pointer, Py_ssize_t line,
                      Py_ssize_t column) except -1:
        """Finds the tasks below a value, after which the text goes on at a line and column."""
        cdef str key
        cdef Mark inner
        cdef Field field
        cdef tuple end
        if type(value) is list and (shape.rule == RULE_TASKS or shape.rule == RULE_BRANCHES):
            return self.of_list(<list>value, mark, pointer, line, column)
        if type(value) is not dict or shape.fields is None or mark.members is None:
            return 0
        for key, member in (<dict>value).items():
            field = shape.fields.get(key)
            inner = mark.members.get(key)
            if field is None or inner is None or not isinstance(member, (dict, list)):
                continue
            end = following_key(mark, inner.key_line, inner.key_column, (line, column))
            self.of_value(field.shape, member, inner, f"{pointer}/{key}", end[0], end[1])
        return 0

    cdef int of_list(self, list tasks, Mark mark, str pointer, Py_ssize_t line, Py_ssize_t column) except -1:
        cdef Py_ssize_t index
        cdef Mark following
        if mark.items is None or len(mark.items) != len(tasks):
            return 0
        for index in range(len(tasks)):
            if index + 1 < len(tasks):
                following = mark.items[index + 1]
                self.of_item(tasks[index], mark.items[index], f"{pointer}/{index}", following.line, following.column)
            else:
                self.of_item(tasks[index], mark.items[index], f"{pointer}/{index}", line, column)
        return 0

    cdef int of_item(self, object item, Mark mark, str pointer, Py_ssize_t line, Py_ssize_t column) except -1:
        cdef Mark inner
        cdef list kinds
        cdef str name, reference
        if type(item) is not dict or len(item) != 1 or mark.members is None:
            return 0
        [(name, task)] = (<dict>item).items()
        inner = mark.members.get(name)
        kinds = task_kinds(task) if type(task) is dict else []
        if inner is None or not kinds:
            return 0
        reference = f"{pointer}/{escape_pointer(name)}"
        self.places.append(TaskPlace(reference, name, kinds[0], inner.key_line, inner.key_column,
                                     self.end_line(inner, line, column)))
        return self.of_value(task_shape(task, kinds[0]), task, inner, reference, line, column)

    cdef Py_ssize_t end_line(self, Mark mark, Py_ssize_t line, Py_ssize_t column):
        """The last line of a task after which the text goes on at a line and column."""
        cdef str text = self.lines[mark.key_line - 1]
        cdef Py_ssize_t indent = indent_of(text), end = min(line, len(self.lines))
        if line <= len(self.lines) and not (<str>self.lines[line - 1])[:column - 1].strip(" \t-?{"):
            end = line - 1
        while end > mark.key_line and is_no_part(self.lines[end - 1], indent):
            end -= 1
        return max(end, mark.key_line)


cdef tuple following_key(Mark mark, Py_ssize_t line, Py_ssize_t column, tuple end):
    """Where the member after the one at a place begins; `end` for the last one."""
    cdef Mark each
    cdef tuple found = end
    for each in mark.members.values():
        if (line, column) < (each.key_line, each.key_column) < found:
            found = (each.key_line, each.key_column)
    return found


cdef Py_ssize_t indent_of(str text):
    return len(text) - len(text.lstrip(" \t"))


cdef bint is_no_part(str text, Py_ssize_t indent):
    """Whether a line after a task of such an indentation is none of its own."""
    cdef str stripped = text.strip()
    if not stripped:
        return True
    return indent_of(text) < indent + (stripped[0] == "#") and (stripped[0] == "#" or not stripped.strip("]}, "))


def outline_in_steps(text, Py_ssize_t budget):
    """The places of all tasks, in the order of the document; yields after each step of about `budget` units of
    reading. Raises InvalidWorkflow."""
    cdef Reading reading = Reading(text)
    cdef Document document
    cdef Yaml yaml
    cdef Mark mark
    cdef Outline outline
    while not reading.step(budget):
        yield
    document = reading.document
    if document.is_json:
        mark = read_marks(document)
    else:
        yaml = Yaml.__new__(Yaml)
        yaml.open(document.text, True)
        while not step_yaml(yaml, budget):
            yield
        mark = yaml.mark
    yield
    outline = Outline(document.text)
    outline.of_value(ROOT, document.root, mark, "", len(outline.lines) + 1, 1)
    return outline.places
