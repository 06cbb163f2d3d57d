"""Support of stages 2 and 4: a compiled JSON Schema: one rule per subschema, what it asks already worked out.

Rules: immutable once the schema is compiled, shared by executions and threads. Rules refer to one another as the
schemas do, in circles too. What a rule does not ask is None, -1 or empty.
"""

cimport cython

from fastrunner._jq cimport TextPattern

cdef enum SchemaType:
    T_NULL = 1
    T_BOOLEAN = 2
    # An integer; in draft 4, 1.0 is none.
    T_INTEGER = 4
    # A number without a fraction.
    T_WHOLE = 8
    T_NUMBER = 16
    T_STRING = 32
    T_ARRAY = 64
    T_OBJECT = 128

cdef dict SCHEMA_TYPES = {
    "null": T_NULL, "boolean": T_BOOLEAN, "integer": T_WHOLE, "number": T_NUMBER, "string": T_STRING, "array": T_ARRAY,
    "object": T_OBJECT,
}


class InvalidSchema(ValueError):
    """A schema that cannot be used: where in it (a JSON pointer), and why."""

    def __init__(self, pointer, reason):
        super().__init__(f"{reason} (at {pointer})" if pointer else reason)
        self.pointer = pointer
        self.reason = reason


@cython.internal
@cython.final
cdef class SchemaNumbers:
    cdef object low, high, above, below
    """minimum, maximum, exclusiveMinimum, exclusiveMaximum."""
    cdef object multiple
    cdef object multiple_above, multiple_below
    """multipleOf as a fraction."""


@cython.internal
@cython.final
cdef class SchemaTexts:
    cdef Py_ssize_t size_min, size_max
    cdef TextPattern pattern
    cdef str pattern_text
    cdef str format


@cython.internal
@cython.final
cdef class SchemaItems:
    cdef Py_ssize_t size_min, size_max
    cdef bint is_unique
    cdef tuple first
    """Rules of the first items."""
    cdef SchemaRule rest
    """Of those after."""
    cdef bint rest_is_additional
    cdef SchemaRule contained
    cdef Py_ssize_t contained_min, contained_max
    cdef bint contained_are_evaluated
    cdef SchemaRule unevaluated


@cython.internal
@cython.final
cdef class SchemaMembers:
    cdef Py_ssize_t size_min, size_max
    cdef tuple required
    cdef dict rules
    cdef tuple patterns
    """Pairs: a pattern, its rule."""
    cdef SchemaRule others
    cdef SchemaRule names
    cdef tuple needed
    """Pairs: a name, the names it requires."""
    cdef tuple dependents
    """Pairs: a name, the rule for the object that has it."""
    cdef SchemaRule unevaluated


@cython.internal
@cython.final
cdef class SchemaBranches:
    """What applies to the same value."""

    cdef SchemaRule reference
    cdef SchemaRule dynamic
    """`$dynamicRef` or `$recursiveRef`: what it means where nothing around says otherwise."""
    cdef str dynamic_name
    """What others around may say; None: nothing."""
    cdef tuple all_of, any_of, one_of
    cdef SchemaRule never
    cdef object never_text
    cdef SchemaRule condition, then, otherwise


@cython.internal
@cython.final
cdef class SchemaRule:
    cdef long long number
    cdef int always
    """1 or 0 for the schemas `true` and `false`, -1 for others."""
    cdef int types
    """Bits of the allowed types; 0: any."""
    cdef bint asks_only_types
    cdef frozenset choices
    """Keys of `enum`."""
    cdef tuple shown_choices
    cdef bint chooses_containers
    cdef object constant
    """Key of `const`."""
    cdef object shown_constant
    cdef SchemaNumbers numbers
    cdef SchemaTexts texts
    cdef SchemaItems items
    cdef SchemaMembers members
    cdef SchemaBranches branches
    cdef bint has_unevaluated
    cdef bint is_special
    """One of the following."""
    cdef bint is_shared
    """Several ways lead to it, perhaps for the same value."""
    cdef bint is_looping
    """It may lead to itself for the same value."""
    cdef dict names
    """Dynamic anchors of its resource: name -> rule; None without any."""
    cdef int uses


cdef SchemaRule new_rule(long long number):
    cdef SchemaRule rule = SchemaRule.__new__(SchemaRule)
    rule.number = number
    rule.always = -1
    return rule
