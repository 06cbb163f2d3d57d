"""Support of stages 2 and 4: JSON Schemas of inputs, outputs and exports: compiled once, then asked about values.

Rules: no I/O, so references out of the schema are not fetched: such a schema is refused when the document is checked.
Schemas and data come from strangers: both compiling and checking take steps, and end when theirs are used up.
"""

cimport cython
from fastrunner._jq cimport Bounds
from fastrunner.base.limits import SCHEMA_COMPILE_STEPS_MAX as _SCHEMA_COMPILE_STEPS_MAX
from fastrunner.base.limits import SCHEMA_STEPS_MAX


@cython.final
cdef class Schema:
    """A compiled JSON Schema; `_core.pyi` has the contract."""

    def __init__(self):
        raise TypeError("schemas come from compile_schema()")

    cdef str violation(self, object value, const Bounds* bounds, long long* steps_left):
        """What is wrong with a value, in one sentence; None if nothing is. Takes steps from those that are left."""
        cdef SchemaTold told
        cdef SchemaRun run = new_run(self.rule_count, bounds, steps_left[0])
        try:
            told = told_of(run, <SchemaRule> self.root, value)
        except SchemaUndecided as error:
            return f"/: {error}"
        finally:
            steps_left[0] = run.left
        if told is None:
            return None
        return "; ".join([f"{pointer or '/'}: {message}" for pointer, message in told.messages])

    def check(self, value, steps_max=SCHEMA_STEPS_MAX):
        cdef long long left = steps_max
        cdef str violation = self.violation(value, &SCHEMA_PATTERN_BOUNDS, &left)
        return violation, steps_max - left


cdef SchemaTold told_of(SchemaRun run, SchemaRule root, object value):
    """What is wrong with a value; None if nothing is. Raises SchemaUndecided when the answer takes too long."""
    cdef SchemaTold told
    cdef Spot spot
    begin_spot(&spot, NULL)
    if matches(run, root, value, &spot):
        return None
    told = SchemaTold.__new__(SchemaTold)
    told.run = run
    told.messages = []
    told.heard = set()
    run.scope = SchemaScope.__new__(SchemaScope)
    run.depth = 0
    try:
        tell(told, root, value, &spot)
    except SchemaUndecided as error:
        if not told.messages:
            told.messages.append(("", f"does not match, and to say where: {error}"))
    if not told.messages:
        # Asked again, a schema that is the opposite of itself says the opposite.
        told.messages.append(("", "does not match a schema that contradicts itself"))
    return told


def compile_schema(document):
    cdef long long steps_left = _SCHEMA_COMPILE_STEPS_MAX
    return schema_within(document, &steps_left)


cdef Schema schema_within(object document, long long* steps_left):
    """`compile_schema` on steps that others share; below zero afterwards where they did not suffice."""
    cdef SchemaCompiler compiler = new_compiler(RULE_NUMBER_MIN, steps_left[0])
    try:
        return schema_of(compiler, document)
    finally:
        steps_left[0] = compiler.left


cdef Schema schema_of(SchemaCompiler compiler, object document):
    cdef Schema schema = Schema.__new__(Schema)
    cdef int draft = draft_of(document)
    if type(document) is not dict and type(document) is not bool:
        raise InvalidSchema("", f"a JSON Schema is an object or a boolean, not {json_type_name(document)}")
    compiler.check(document, draft, "")
    schema.root = compiler.compile(read_source(compiler, document, "", draft))
    schema.rule_count = RULE_NUMBER_MIN + compiler.count
    return schema
