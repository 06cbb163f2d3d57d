"""Stage 4, expressions: the syntax tree, which is also what the direct evaluator walks.

Rules: `kind` says which of `a`, `b`, `c`, `d`, `key` and `kids` a node uses. The compiler fills in `single` and the
address (`level`, `slot`) of variables and `consumes`; after that a node never changes and is shared between executions.
"""

cimport cython

cdef enum NodeKind:
    N_IDENTITY
    N_CONST         # key: the value
    N_FIELD         # a: of what, key: name
    N_INDEX         # a: of what, b: index
    N_SLICE         # a: of what, b: from, c: to (each may be None)
    N_ITERATE       # a: of what
    N_PIPE          # a, b
    N_COMMA         # kids
    N_NEGATE        # a
    N_BINARY        # op, a, b
    N_AND           # a, b
    N_OR            # a, b
    N_ALTERNATIVE   # a, b
    # op (an Operation, A_SET, A_MODIFY or A_ALTERNATIVE), a: paths, b: value; if single kids: the paths' steps from
    # the input on, level: whether some are indices
    N_ASSIGN
    N_IF            # a, b, c (may be None)
    N_TRY           # a, b (may be None)
    N_REDUCE        # a: source, kids: patterns, b: init, c: update
    N_FOREACH       # a: source, kids: patterns, b: init, c: update, d: extract (may be None)
    N_BIND          # a: source, kids: patterns, b: body
    N_LABEL         # key: name, a: body
    N_BREAK         # key: name
    N_DEFINE        # key: name, parameters, a: body, b: rest
    N_CALL          # key: name, kids: arguments
    N_VARIABLE      # key: name; level, slot once resolved
    N_ARRAY         # a (may be None)
    N_OBJECT        # kids: key, value, key, value ...
    N_STRING        # key: format, kids: parts
    N_FORMAT        # key: format
    N_NATIVE        # key: Native, kids: arguments
    N_EMPTY
    N_FIRST         # a: the first result of it
    N_LAST          # a: the last result of it
    N_PATH          # a: the paths of it; if single kids: the path's steps from the input on
    N_RANGE         # kids: from, to[, by]
    N_RECURSE
    P_ARRAY         # pattern: kids
    P_OBJECT        # pattern: kids: key, value pattern, key, ...; a variable bound as well has level 1 on the key

cdef enum Operation:
    O_ADD
    O_SUBTRACT
    O_MULTIPLY
    O_DIVIDE
    O_MODULO
    O_EQUAL
    O_NOT_EQUAL
    O_LESS
    O_LESS_EQUAL
    O_GREATER
    O_GREATER_EQUAL
    A_SET
    A_MODIFY
    A_ALTERNATIVE

cdef enum Single:
    S_UNKNOWN
    S_YES
    S_NO

# Evaluation and compilation recurse over the tree; this bounds their C stack.
cdef int TREE_DEPTH_MAX = 1_000


@cython.internal
@cython.final
cdef class Node:
    cdef int kind, op, level, slot, depth
    cdef Single single
    # `?` directly behind an index or iteration.
    cdef bint optional
    # Whether it ends in an update of its input.
    cdef bint consumes
    cdef Py_ssize_t offset
    cdef Node a, b, c, d
    cdef object key
    cdef list kids
    cdef list parameters


cdef inline int depth_of(Node node):
    return 0 if node is None else node.depth


cdef Node new_node(int kind, Py_ssize_t offset, Node a=None, Node b=None, Node c=None, Node d=None, list kids=None):
    cdef Node node = Node.__new__(Node)
    cdef Node kid
    cdef int depth = max(depth_of(a), depth_of(b), depth_of(c), depth_of(d))
    node.kind = kind
    node.offset = offset
    node.a = a
    node.b = b
    node.c = c
    node.d = d
    node.kids = kids
    if kids is not None:
        for kid in kids:
            if depth_of(kid) > depth:
                depth = kid.depth
    node.depth = depth + 1
    if node.depth > TREE_DEPTH_MAX:
        raise ExpressionProblem(f"the expression is nested more than {TREE_DEPTH_MAX} levels deep", offset)
    return node


cdef Node list_node(int kind, Py_ssize_t offset, list kids):
    return new_node(kind, offset, None, None, None, None, kids)


cdef Node constant(object value, Py_ssize_t offset=0):
    cdef Node node = new_node(N_CONST, offset)
    node.key = value
    return node


cdef Node field_node(str name, Py_ssize_t offset, Node of=None):
    """`.name`. Looking up a long name takes time, for which only general indexing charges."""
    cdef Node node
    if len(name) > TEXT_SIZE_SMALL:
        return new_node(N_INDEX, offset, of, constant(name, offset))
    node = new_node(N_FIELD, offset, of)
    node.key = name
    return node


cdef Node call_node(str name, list arguments, Py_ssize_t offset=0):
    cdef Node node = list_node(N_CALL, offset, arguments)
    node.key = name
    return node


cdef Node variable(str name, Py_ssize_t offset=0):
    cdef Node node = new_node(N_VARIABLE, offset)
    node.key = name
    return node


cdef Node slot_node(int slot):
    cdef Node node = new_node(N_VARIABLE, 0)
    node.slot = slot
    node.single = S_YES
    return node
