"""Stage 2, compile: checks a document against the shapes and collects every problem.

Rules: one pass over the data, no pass ends early; a valid document allocates next to nothing. Problems are kept as
code, pointer and message, and get their positions, their order and their bound at the end. Unsupported features are
checked like all others and then refused as `unsupported`, so that they hide nothing. Expressions are compiled here,
once per distinct text, and handed to the plan in `Document.programs`.
"""

cimport cython

from cpython.ref cimport PyObject

from fastrunner._jq cimport Program, compile_expression
from fastrunner._jq import ExpressionProblem as _ExpressionProblem

# Problems are found in document order but for those of reusable definitions, so a few spare ones are enough.
cdef Py_ssize_t PROBLEMS_RAW_MAX = 2 * PROBLEMS_MAX
# From this length on, what an expression's `${ }` holds is remembered: aliases and references repeat the same string.
cdef Py_ssize_t TEXT_REMEMBERED_MIN = 256


@cython.internal
@cython.final
cdef class Checker:
    cdef Document document
    cdef dict use
    cdef list problems
    cdef set seen
    cdef set uses
    cdef dict texts
    cdef int variables
    cdef tuple names
    cdef dict siblings
    cdef Py_ssize_t tasks
    cdef Py_ssize_t nesting

    def __cinit__(self, Document document):
        self.document = document
        self.problems = []
        self.seen = set()
        self.uses = set()
        self.texts = {}
        self.variables = TASK_BODY
        self.names = ()

    cdef list check_root(self):
        """All problems of the document, in document order, at most PROBLEMS_MAX."""
        cdef object root = self.document.root
        cdef list problems = list(self.document.problems)
        if is_foreign_dialect(root):
            self.problem("foreign-dialect", NULL, False,
                         "this is a Serverless Workflow 0.8 or 0.9 document (states, specVersion), a different "
                         "language; fastrunner runs DSL 1.0, whose documents have `document` and `do`: migrate it")
        else:
            self.use = use_groups(root)
            self.check(ROOT, root, NULL)
        for code, pointer, key, message in self.problems:
            line, column = self.document.position(pointer, key)
            problems.append(Problem(code, pointer, line, column, message))
        problems.sort(key=problem_key)
        return problems[:PROBLEMS_MAX]

    cdef int problem(self, str code, Path* path, bint key, str message) except -1:
        """Notes a problem at a value, or at its key."""
        cdef tuple problem
        if len(self.problems) < PROBLEMS_RAW_MAX:
            problem = (code, pointer_of(path), key, message)
            if problem not in self.seen:
                self.seen.add(problem)
                self.problems.append(problem)
        return 0

    cdef int check(self, Shape shape, object value, Path* path) except -1:
        cdef object kind = type(value)
        if shape.types == IS_ANY:
            return self.check_template(value, path) if shape.is_template else 0
        if kind is str:
            if shape.types & IS_TEXT:
                return check_text(self, shape, value, path)
        elif kind is dict:
            if shape.types & IS_OBJECT:
                return self.check_object(shape, value, path)
        elif kind is list:
            if shape.types & IS_LIST:
                return self.check_list(shape, value, path)
        elif kind is bool:
            if shape.types & IS_BOOLEAN:
                return 0
        elif value is not None and shape.types & IS_INTEGER and is_integral(value):
            return self.check_integer(shape, value, path)
        return self.problem("wrong-type", path, False, f"expected {shape.expected}, not {json_type_name(value)}")

    cdef int check_integer(self, Shape shape, object value, Path* path) except -1:
        if not shape.low <= value <= shape.high:
            self.problem("out-of-range", path, False,
                         f"expected {shape.expected} from {shape.low} to {shape.high}")
        return 0

    cdef int check_object(self, Shape shape, dict value, Path* path) except -1:
        if len(value) < shape.size_min:
            return self.problem("empty-value", path, False, f"expected {shape.expected}; this one is empty")
        if shape.is_template:
            return self.check_template(value, path)
        if shape.rule == RULE_TASK:
            return check_task(self, value, path)
        if shape.fields is None and shape.members is None:
            return 0
        self.check_members(shape, value, path)
        if shape.rule != RULE_NONE:
            check_rule(self, shape, value, path)
        if shape.rule != RULE_SCHEME or "use" not in value:
            self.check_required(shape, value, path)
        for choice in shape.choices:
            self.check_choice(<tuple>choice, value, path)
        return 0

    cdef int check_members(self, Shape shape, dict value, Path* path) except -1:
        cdef Path inner
        cdef Field field
        cdef str key
        inner.parent = path
        inner.index = 0
        for key, member in value.items():
            inner.key = <PyObject*>key
            field = <Field>shape.fields.get(key) if shape.fields is not None else None
            if field is not None:
                self.check_field(field, value, member, &inner)
            elif shape.members is not None:
                self.check(shape.members, member, &inner)
            else:
                self.unknown_key(key, shape.fields, &inner)
        return 0

    cdef int unknown_key(self, str key, dict fields, Path* path) except -1:
        cdef str allowed = f"allowed: {listed(fields)}" if fields else "no keys are allowed here"
        if key == "<<":
            allowed = "merge keys are YAML 1.1, documents are YAML 1.2: repeat the keys or alias a whole value"
        return self.problem("unknown-key", path, True,
                            f"unknown key {shown(key)}{self.suggestion(key, fields or ())}; {allowed}")

    cdef int check_field(self, Field field, dict parent, object value, Path* path) except -1:
        cdef int variables = self.variables
        cdef tuple names = self.names
        if field.unsupported is not None and not (value == {} or value == []):
            self.unsupported(field.unsupported, path, True)
        if field.variables != KEEP_VARIABLES and self.variables != ANY_VARIABLES:
            self.variables = field.variables
        if field.names != NAMES_KEEP:
            self.names = names + scoped_names(field.names, parent)
        self.check(field.shape, value, path)
        self.variables = variables
        self.names = names
        return 0

    cdef int unsupported(self, str feature, Path* path, bint key) except -1:
        return self.problem("unsupported", path, key,
                            f"{feature}: part of the DSL, but this version of fastrunner does not execute it yet")

    cdef int check_required(self, Shape shape, dict value, Path* path) except -1:
        cdef Field field
        for key in shape.required:
            if key not in value:
                field = shape.fields[key]
                self.problem("missing-key", path, True,
                             f"the required key {shown(key)} is missing: {field.shape.expected}")
        return 0

    cdef int check_choice(self, tuple choice, dict value, Path* path) except -1:
        """Exactly one of the keys of a choice."""
        cdef list present = [key for key in choice if key in value]
        if not present:
            self.problem("missing-key", path, True, f"one of the keys {listed(choice)} is required")
        elif len(present) > 1:
            self.conflict(value, present, f"only one of {listed(choice)} may be given", path)
        return 0

    cdef int conflict(self, dict value, list keys, str message, Path* path) except -1:
        """Keys that exclude each other: the problem stands at the second one."""
        cdef Path inner
        cdef list in_order = [key for key in value if key in keys]
        cdef str second = in_order[1]
        inner.parent = path
        inner.key = <PyObject*>second
        inner.index = 0
        return self.problem("conflicting-keys", &inner, True, f"{message}; here are {listed(in_order)}")

    cdef int check_list(self, Shape shape, list value, Path* path) except -1:
        cdef Path inner
        if len(value) < shape.size_min:
            return self.problem("empty-value", path, False, f"expected {shape.expected}; this one is empty")
        if shape.rule == RULE_TASKS or shape.rule == RULE_BRANCHES:
            return check_tasks(self, value, shape.rule == RULE_BRANCHES, path)
        if shape.rule == RULE_CASES:
            return check_cases(self, value, path)
        inner.parent = path
        inner.key = NULL
        inner.index = 0
        for item in value:
            self.check(shape.items, item, &inner)
            inner.index += 1
        return 0

    cdef int check_template(self, object value, Path* path) except -1:
        """Data whose strings may be expressions in `${ }`."""
        cdef Path inner
        cdef str key
        inner.parent = path
        inner.key = NULL
        inner.index = 0
        if type(value) is str:
            return self.check_value(value, path)
        if type(value) is dict:
            for key, member in (<dict>value).items():
                inner.key = <PyObject*>key
                self.check_template(member, &inner)
        elif type(value) is list:
            for item in <list>value:
                self.check_template(item, &inner)
                inner.index += 1
        return 0

    # --- expressions ---

    cdef object text_of(self, str value):
        """`expression_text`, scanned once per long string."""
        cdef object text
        if len(value) < TEXT_REMEMBERED_MIN:
            return expression_text(value)
        if value in self.texts:
            return self.texts[value]
        text = expression_text(value)
        self.texts[value] = text
        return text

    cdef str suggestion(self, str word, object candidates):
        """What was meant, as long as somebody will read it."""
        return did_you_mean(word, candidates) if len(self.problems) < PROBLEMS_RAW_MAX else ""

    cdef int check_value(self, str value, Path* path) except -1:
        """A string that is an expression if it is one `${ }` as a whole, and text otherwise."""
        cdef Py_ssize_t start = expression_start(value)
        cdef object text
        if start < 0:
            return 0
        text = self.text_of(value)
        if text is not None:
            return self.check_expression(text, path)
        if value.rstrip().endswith("}") and closing_brace(value, start, len(value)) < 0:
            self.unbalanced(path)
        return 0

    cdef int unbalanced(self, Path* path) except -1:
        return self.problem("invalid-expression", path, False,
                            "the expression is not one `${ ... }`: its brackets or quotes do not match, or text stands "
                            "around it; build text with jq: ${ \"Hello \\(.name)\" }")

    cdef int check_bare(self, str value, Path* path) except -1:
        """An expression by type: one `${ }` or bare."""
        cdef object text = self.text_of(value)
        if text is None and expression_start(value) >= 0:
            return self.unbalanced(path)
        return self.check_expression(value.strip() if text is None else text, path)

    cdef int check_wrapped(self, str value, Path* path) except -1:
        """An expression that has to stand in `${ }`, on one line (the official schema's pattern)."""
        cdef object text = self.text_of(value)
        if not is_wrapped(value):
            return self.problem("invalid-format", path, False,
                                "an expression here stands in ${ }, is not empty and has no line breaks")
        if text is None:
            return self.unbalanced(path)
        return self.check_expression(text, path)

    cdef int check_expression(self, str text, Path* path) except -1:
        cdef object program = self.document.programs.get(text)
        if program is None:
            if not text:
                return self.problem("invalid-expression", path, False, "the expression is empty")
            try:
                program = compile_expression(text)
            except _ExpressionProblem as error:
                return self.problem("invalid-expression", path, False,
                                    f"the expression does not compile: {error.message} (character {error.offset + 1})")
            self.document.programs[text] = program
        if self.variables != ANY_VARIABLES:
            self.check_arguments(<Program>program, path)
        return 0

    cdef int check_arguments(self, Program program, Path* path) except -1:
        cdef str name
        cdef object variable
        for name in program.arguments:
            if name in self.names:
                continue
            variable = VARIABLES.get(name)
            if variable is None:
                self.unknown_variable(program, name, path)
            elif not self.variables & <int>variable:
                self.problem("unavailable-variable", path, False,
                             f"${name} (character {program.argument_offset(name) + 1}) has no value here; "
                             f"available: {listed(self.available())}")
        return 0

    cdef list available(self):
        cdef list available = [f"${name}" for name, bit in VARIABLES.items() if self.variables & <int>bit]
        available.extend(f"${name}" for name in self.names)
        return available

    cdef int unknown_variable(self, Program program, str name, Path* path) except -1:
        return self.problem("unknown-variable", path, False,
                            f"nothing binds ${name} (character {program.argument_offset(name) + 1})"
                            f"{self.suggestion('$' + name, self.available())}; available: {listed(self.available())}")


cdef dict use_groups(object root):
    """The well-formed groups of `use`, each by name."""
    cdef object use = root.get("use") if type(root) is dict else None
    cdef dict groups = {}
    if type(use) is dict:
        for group, definitions in (<dict>use).items():
            if type(definitions) is dict:
                groups[group] = definitions
            elif type(definitions) is list and group == "secrets":
                groups[group] = {name: None for name in definitions if type(name) is str}
    return groups


cdef bint is_foreign_dialect(object root):
    """Whether this is a document of the 0.x language: a state machine under `states`."""
    return type(root) is dict and "document" not in root and ("states" in root or "specVersion" in root)


cdef tuple scoped_names(int names, dict parent):
    """The variables an object binds for some of its fields, without `$`; names of a wrong type bind nothing."""
    cdef object holder = parent
    cdef tuple found
    if names == NAMES_LOOP:
        holder = parent.get("for")
        if type(holder) is not dict:
            holder = {}
        found = (holder.get("each", "item"), holder.get("at", "index"))
    elif names == NAMES_ITEM:
        found = (holder.get("item", "item"), holder.get("at", "index"))
    else:
        found = (holder.get("as", "error"),)
    return tuple([name for name in found if type(name) is str])


cdef list check_document(Document document):
    """All problems of a document, `unsupported` ones included, in document order, at most PROBLEMS_MAX."""
    return Checker(document).check_root()


def validate(text):
    """All problems of a document, `unsupported` ones included; empty if it would compile."""
    try:
        return tuple(check_document(read_document(text)))
    except InvalidWorkflow as error:
        return error.problems
