"""Stage 3, journal: values that several others hold, at any depth, are written once.

Theory of operation. Frames hold values, and values hold each other: a hundred branches that wrap one order hold it a
hundred times at no cost in memory. The table of a snapshot has each value that a frame holds; what lies within two of
them, or within one and the workflow's input, gets an entry of its own, or the path into the input, and a null in its
place with a note of where it belongs. What is shared is found by identity in one walk over the table; whether anybody
else holds a value decides nothing, so that a walk and its restored twin are written alike.

Rule: values are never modified. What a null is put into is copied, along the way to it only.
"""

cimport cython

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object value)

# Smaller ones cost less where they are than as an entry and a note.
cdef Py_ssize_t SHARED_MEMBERS_MIN = 4
cdef Py_ssize_t SHARED_TEXT_SIZE_MIN = 128


cdef bint is_worth_sharing(object value):
    if isinstance(value, str):
        return len(<str> value) >= SHARED_TEXT_SIZE_MIN
    if len(value) >= SHARED_MEMBERS_MIN:
        return True
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)) or (isinstance(part, str) and len(<str> part) >= SHARED_TEXT_SIZE_MIN):
            return True
    return False


@cython.final
@cython.internal
cdef class Sharing:
    """Finds what is shared within a table of values, and writes the table without it."""

    cdef SnapshotWriter writer
    cdef dict met
    """Containers and long texts met once: id -> the value, which keeps the id its own."""
    cdef list notes
    """[entry, keys on the way, place]: what belongs where."""

    def __cinit__(self, SnapshotWriter writer):
        self.writer = writer
        self.met = {}
        self.notes = []

    cdef list table(self):
        """The entries as they are written; `notes` has what is missing in them."""
        cdef list written = []
        cdef list values = self.writer.table
        cdef Py_ssize_t index, held = len(values)
        for index in range(held):
            self.look(values[index])
        # What was found to be shared has come to the end of the table.
        index = 0
        while index < len(values):
            written.append(self.without_shared(values[index], [], len(written)))
            index += 1
        return written

    cdef int look(self, object value) except -1:
        """Meets a value's parts; one that is met again gets an entry."""
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            if isinstance(part, (dict, list)) or (isinstance(part, str) and len(<str> part) >= SHARED_TEXT_SIZE_MIN):
                if self.is_first(part):
                    self.look(part)
        return 0

    cdef bint is_first(self, object part) except -1:
        """Whether a part has not been met before, and has no place yet."""
        cdef object key
        # One holder and this function's own references: nobody else can have it.
        if Py_REFCNT(part) <= OWN_REFERENCES:
            return True
        key = id(part)
        if key in self.writer.input_paths or key in self.writer.places:
            return False
        if key not in self.met:
            self.met[key] = part
            return True
        if is_worth_sharing(part):
            self.writer.value(part)
        return False

    cdef object without_shared(self, object value, list path, Py_ssize_t entry):
        """The value, or a copy with a null for each part that has a place of its own."""
        cdef object copy = None
        cdef object kept
        if not isinstance(value, (dict, list)):
            return value
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            if not isinstance(part, (dict, list)) and not (
                isinstance(part, str) and len(<str> part) >= SHARED_TEXT_SIZE_MIN
            ):
                continue
            kept = self.kept(part, path, key, entry)
            if kept is not part:
                if copy is None:
                    copy = value.copy()
                copy[key] = kept
        return value if copy is None else copy

    cdef object kept(self, object part, list path, object key, Py_ssize_t entry):
        cdef object place = self.writer.input_paths.get(id(part))
        cdef object kept
        if place is None:
            place = self.writer.places.get(id(part))
        if place is not None and is_worth_sharing(part):
            self.notes.append([entry, [*path, key], place])
            return None
        path.append(key)
        kept = self.without_shared(part, path, entry)
        path.pop()
        return kept


# The value's own holder, the loop's variable, and the argument of `is_first`.
cdef Py_ssize_t OWN_REFERENCES = 2


cdef int restore_shared(SnapshotReader reader, list notes) except -1:
    """Puts what is shared where it belongs. The table's values are fresh, so they may be modified here."""
    for entry, path, place in notes:
        holder = reader.table[entry]
        for key in path[:len(path) - 1]:
            holder = holder[key]
        if holder[path[len(path) - 1]] is not None:
            raise ValueError("a shared value belongs where there is another one")
        holder[path[len(path) - 1]] = reader.value(place)
    return 0
