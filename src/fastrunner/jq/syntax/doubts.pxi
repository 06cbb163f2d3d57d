"""Stage 4, expressions: what a syntax tree says before anything is evaluated, for warnings of whoever checks documents.

Rules: nothing is refused here, and nothing is said that functions of the expression's own could make wrong; a tree is
read as the parser made it, before names are resolved.
"""

# Functions whose result is never `null` nor `false`.
cdef dict TRUE_CALLS = {
    **dict.fromkeys((("length", 0), ("utf8bytelength", 0), ("floor", 0), ("round", 0), ("ceil", 0), ("now", 0)),
                    TRUTH_NUMBER),
    **dict.fromkeys((("tostring", 0), ("tojson", 0), ("type", 0), ("ascii_downcase", 0), ("ascii_upcase", 0),
                     ("trim", 0), ("join", 1)), TRUTH_TEXT),
    **dict.fromkeys((("keys", 0), ("map", 1), ("sort", 0), ("sort_by", 1), ("unique", 0), ("unique_by", 1),
                     ("group_by", 1), ("reverse", 0), ("flatten", 0), ("split", 1), ("to_entries", 0)), TRUTH_ARRAY),
}
# Functions whose argument is a condition on their input.
cdef frozenset CONDITION_CALLS = frozenset((("select", 1), ("any", 1), ("all", 1), ("any", 2), ("all", 2)))


cdef int truth_of(Node node) except -1:
    """Why a condition is true whatever it is asked of, a TRUTH code; TRUTH_OPEN if its syntax does not say so."""
    cdef int truth
    if node is None:
        return TRUTH_OPEN
    if node.kind == N_ASSIGN:
        return TRUTH_OPEN if node.a is None or node.a.kind == N_IDENTITY else TRUTH_UPDATE
    if node.kind == N_PIPE:
        if node.b.kind == N_CALL and node.b.key == "not" and not node.b.kids:
            return truth_of(node.a)
        return truth_of(node.b)
    if node.kind == N_BIND:
        return truth_of(node.b)
    if node.kind == N_AND or node.kind == N_OR:
        truth = truth_of(node.a)
        return truth if truth != TRUTH_OPEN else truth_of(node.b)
    if node.kind == N_ALTERNATIVE:
        if node.b.kind == N_CONST:
            return TRUTH_OPEN if node.b.key is None or node.b.key is False else TRUTH_DEFAULT
        return truth_of(node.a) if truth_of(node.b) == TRUTH_OPEN else TRUTH_DEFAULT
    if node.kind == N_ARRAY:
        return TRUTH_ARRAY
    if node.kind == N_OBJECT:
        return TRUTH_OBJECT
    if node.kind == N_STRING:
        return TRUTH_TEXT
    return TRUE_CALLS.get((node.key, len(node.kids)), TRUTH_OPEN) if node.kind == N_CALL else TRUTH_OPEN


cdef bint selects_by_update(Node node) except -1:
    """Whether an update stands where the expression itself asks a condition: `select(.a = 1)`, `if .a = 1 then`."""
    cdef Node kid
    if node is None:
        return False
    if node.kind == N_CALL and (node.key, len(node.kids)) in CONDITION_CALLS:
        if truth_of(<Node>node.kids[len(node.kids) - 1]) == TRUTH_UPDATE:
            return True
    if node.kind == N_IF and truth_of(node.a) == TRUTH_UPDATE:
        return True
    if selects_by_update(node.a) or selects_by_update(node.b) or selects_by_update(node.c) or selects_by_update(node.d):
        return True
    if node.kids is not None:
        for kid in node.kids:
            if selects_by_update(kid):
                return True
    return False


cdef int find_members(Node node, set names) except -1:
    """Adds the members of the input itself that the tree reads, `.a` of `.a.b`; not those of what a pipe hands on."""
    cdef Node kid
    cdef int kind
    if node is None:
        return 0
    kind = node.kind
    if kind == N_FIELD and (node.a is None or node.a.kind == N_IDENTITY):
        names.add(node.key)
        return 0
    find_members(node.a, names)
    if kind == N_PIPE:
        return find_members(node.b, names) if node.a.kind == N_IDENTITY else 0
    if kind == N_REDUCE or kind == N_FOREACH or kind == N_DEFINE or kind == N_LABEL or kind == N_ASSIGN:
        return 0
    find_members(node.b, names)
    find_members(node.c, names)
    if node.kids is None or kind == N_BIND or (kind == N_CALL and node.key != "select"):
        return 0
    for kid in node.kids:
        find_members(kid, names)
    return 0
